// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/secret.h"

namespace sallyport::cli {

// PEM: a certificate (RFC 5280) and its private key (P-256, PKCS #8).
struct CertificatePair {
  std::string certificate;
  Secret key;
};

// What a certificate vouches for (subject alternative names, RFC 5280 section 4.2.1.6).
struct CertificateNames {
  std::vector<std::string> uris;
  std::vector<std::string> hosts;  // DNS names or IP addresses.
  bool client = false;             // For TLS clients, too.

  // "URI:spiffe://…,DNS:…", as OpenSSL writes them. INVALID_ARGUMENT for a name with other characters than such names
  // have, or none at all.
  absl::StatusOr<std::string> ToString() const;
};

// An authority that signs other certificates and no other authority.
absl::StatusOr<CertificatePair> MakeAuthority(absl::Time now, absl::Duration lifetime);
// Signed by `authority`. INVALID_ARGUMENT for its names, or an authority that does not parse.
absl::StatusOr<CertificatePair> MakeCertificate(const CertificatePair& authority, const CertificateNames& names,
                                                absl::Time now, absl::Duration lifetime);

// `notAfter`. INVALID_ARGUMENT if it is no certificate.
absl::StatusOr<absl::Time> ExpiryOf(absl::string_view certificate);
// False also for what is no certificate.
bool IsSignedBy(absl::string_view certificate, absl::string_view authority);

}  // namespace sallyport::cli

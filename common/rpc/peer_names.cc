// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/peer_names.h"

#include <ctime>

#include <grpc/grpc_security_constants.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "common/crypto/openssl.h"

namespace sallyport {
namespace {

std::vector<std::string> ValuesOf(const grpc::AuthContext& auth, const char* property) {
  std::vector<std::string> values;
  for (const grpc::string_ref& value : auth.FindPropertyValues(property)) {
    values.emplace_back(value.data(), value.size());
  }
  return values;
}

bool IsResumed(const grpc::AuthContext& auth) {
  return ValuesOf(auth, GRPC_SSL_SESSION_REUSED_PROPERTY) == std::vector<std::string>{"true"};
}

// Also if it cannot be read.
bool HasEnded(const std::vector<std::string>& pem, absl::Time now) {
  if (pem.size() != 1) {
    return true;
  }
  const BioPtr bio(BIO_new_mem_buf(pem[0].data(), static_cast<int>(pem[0].size())));
  const X509Ptr certificate(bio == nullptr ? nullptr : PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr));
  if (certificate == nullptr) {
    ERR_clear_error();
    return true;
  }
  std::time_t at = absl::ToTimeT(now);
  return X509_cmp_time(X509_get0_notAfter(certificate.get()), &at) <= 0;  // 0: it does not say.
}

}  // namespace

absl::StatusOr<PeerNames> PeerNamesOf(const grpc::ServerContextBase& context, absl::Time now) {
  const auto auth = context.auth_context();
  if (auth == nullptr) {
    return PeerNames();
  }
  // Not x509_subject_alternative_name, where names of all kinds stand side by side.
  PeerNames names = {ValuesOf(*auth, GRPC_PEER_URI_PROPERTY_NAME), ValuesOf(*auth, GRPC_PEER_DNS_PROPERTY_NAME)};
  if (!names.empty() && IsResumed(*auth) && HasEnded(ValuesOf(*auth, GRPC_X509_PEM_CERT_PROPERTY_NAME), now)) {
    return absl::UnauthenticatedError("the certificate has ended since the TLS session began");
  }
  return names;
}

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "common/crypto/certificate_expiry.h"

#include <algorithm>
#include <ctime>

#include <openssl/pem.h>

#include "common/crypto/openssl.h"
#include "common/files.h"

namespace sallyport {
namespace {

constexpr GaugeInfo kExpiry = {
    .name = "sallyport_tls_certificate_expiry_timestamp_seconds",
    .help = "When the TLS certificate of this process ends, in seconds since 1970; 0: its file cannot be read",
    .unit = "seconds",
    .labels = {{"use", "public (the edge's port), services (between the services), platform (the platforms' port)"}},
    .rise = "The certificate was renewed",
    .action =
        "Less than a week ahead: find out why it was not renewed, and put a new one in the file; it is taken up "
        "within seconds, without a restart",
};

// A certificate is not encrypted, so there is no password to ask for.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*data*/) { return 0; }

}  // namespace

absl::StatusOr<absl::Time> EarliestExpiry(absl::string_view pem) {
  const BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  absl::Time earliest = absl::InfiniteFuture();
  while (const X509Ptr certificate{PEM_read_bio_X509(bio.get(), nullptr, NoPassphrase, nullptr)}) {
    std::tm end = {};
    if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate.get()), &end) == 1) {
      earliest = std::min(earliest, absl::FromTM(end, absl::UTCTimeZone()));
    }
  }
  ERR_clear_error();  // The end of the text is an error too.
  return earliest == absl::InfiniteFuture() ? absl::StatusOr<absl::Time>(absl::InvalidArgumentError("no certificate"))
                                            : earliest;
}

CertificateExpiry::CertificateExpiry(const std::string& path, const std::string& use)
    : probe_([path, &gauge = MetricGauge(kExpiry, {{"use", use}})] {
        const absl::StatusOr<std::string> pem = ReadFile(path);
        const absl::StatusOr<absl::Time> end = pem.ok() ? EarliestExpiry(*pem) : pem.status();
        gauge.Set(end.ok() ? static_cast<double>(absl::ToUnixSeconds(*end)) : 0);
      }) {}

}  // namespace sallyport

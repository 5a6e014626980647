// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/metrics.h"

namespace sallyport {

// When the first certificate of a PEM text, or one of those that follow, ends: the earliest of them. INVALID_ARGUMENT
// if there is none.
absl::StatusOr<absl::Time> EarliestExpiry(absl::string_view pem);

// sallyport_tls_certificate_expiry_timestamp_seconds{use}: the file is read when metrics are, so that a certificate
// that was replaced shows at once. 0 if it cannot be read.
class CertificateExpiry {
 public:
  // `path`: PEM, the certificate first. `use`: one of few words.
  CertificateExpiry(const std::string& path, const std::string& use);

 private:
  MetricProbe probe_;
};

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <grpcpp/support/status.h>

namespace sallyport {

// What travels with a failed absl::Status beside code and message, as a payload: OAuth error code, stable reason,
// refused fields, when to retry, where a person must go first. On the wire it is sallyport.common.v1.ErrorDetail in
// grpc::Status::error_details().
struct ErrorDetail {
  struct Violation {
    std::string field;
    std::string message;
  };
  std::string oauth_error;
  std::string reason;
  std::vector<Violation> violations;
  absl::Duration retry_after = absl::ZeroDuration();
  std::string link;
};

// `status` must not be OK. Messages are lower case, no trailing dot, never hold a secret or user text longer than 64
// bytes.
absl::Status WithDetail(absl::Status status, const ErrorDetail& detail);
absl::Status WithReason(absl::Status status, absl::string_view reason);
absl::Status WithOAuthError(absl::Status status, absl::string_view oauth_error);
absl::Status WithRetryAfter(absl::Status status, absl::Duration retry_after);
// Empty detail if there is none.
ErrorDetail DetailOf(const absl::Status& status);
// DetailOf(status).reason
std::string ReasonOf(const absl::Status& status);

// One violation: INVALID_ARGUMENT "field: message".
absl::Status InvalidField(absl::string_view field, absl::string_view message);
// Collects violations; ok() when there are none, else INVALID_ARGUMENT naming all.
absl::Status InvalidFields(const std::vector<ErrorDetail::Violation>& violations);

// The only places where domain errors become wire errors and back. INTERNAL and UNKNOWN lose their message ("internal
// error"): it is for our log, not for the caller. What is too long for the wire is shortened: the message, and the list
// of violations, which then ends with how many more there are.
grpc::Status ToGrpcStatus(const absl::Status& status);
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace sallyport

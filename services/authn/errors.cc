// SPDX-License-Identifier: Apache-2.0
#include "services/authn/errors.h"

#include <string>

#include "common/error.h"

namespace sallyport::authn {

absl::Status InvalidToken(absl::string_view reason) {
  return WithReason(WithOAuthError(absl::UnauthenticatedError("the access token was not accepted"), "invalid_token"),
                    reason);
}

absl::Status TokenError(const absl::Status& status) {
  if (status.ok()) {
    return status;
  }
  if (absl::IsNotFound(status)) {
    return InvalidToken("unknown_key");
  }
  if (absl::IsUnauthenticated(status)) {
    const std::string reason = ReasonOf(status);
    return InvalidToken(reason.empty() ? "malformed_token" : reason);
  }
  return absl::IsUnavailable(status) ? status : KeysUnavailable("the keys that verify this token cannot be had");
}

absl::Status KeysUnavailable(absl::string_view message) {
  return WithReason(absl::UnavailableError(message), "keys_unavailable");
}

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sallyport::authn {

// 401 with oauth_error invalid_token (RFC 6750 section 3.1). One message whatever was wrong; `reason` is for logs and
// clients' developers: "token_expired", "wrong_audience", "unknown_key", "revoked", "missing_token".
absl::Status InvalidToken(absl::string_view reason);

// What became of verifying a token, as an answer at door one: an unknown key and everything UNAUTHENTICATED is
// InvalidToken, whatever else went wrong is UNAVAILABLE reason "keys_unavailable". Never OK for a status that is not.
absl::Status TokenError(const absl::Status& status);

// UNAVAILABLE reason "keys_unavailable".
absl::Status KeysUnavailable(absl::string_view message);

}  // namespace sallyport::authn

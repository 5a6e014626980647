// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "services/token_broker/token_endpoint.h"
#include "services/token_broker/token_error.h"

namespace sallyport::token_broker {

// Reads a token endpoint's answer (RFC 6749 sections 5.1 and 5.2): JSON, or a form as some providers send. An `error`
// member or `"ok": false` is an error whatever the HTTP status. Pure; never quotes the body.
TokenResult ParseTokenResponse(GrantKind kind, int http_status, absl::string_view media_type, absl::string_view body,
                               absl::Duration retry_after);

// Retry-After, in seconds or as a date (RFC 9110 section 10.2.3), at most a day from `now`; zero if absent, past or
// neither.
absl::Duration ParseRetryAfter(absl::string_view value, absl::Time now);

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

namespace sallyport::edge {

// The one place where a status becomes an HTTP answer outside /mcp: code, and a JSON body
//   {"error": "<reason or canonical name>", "message": "…", "violations": [{"field": "…", "message": "…"}]}
int HttpStatusOf(const absl::Status& status);
std::string ErrorBody(const absl::Status& status);
// Value of Retry-After in seconds; 0: none.
int RetryAfterSeconds(const absl::Status& status);

}  // namespace sallyport::edge

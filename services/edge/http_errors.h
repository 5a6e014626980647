// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

#include "services/edge/http/gateway.h"

namespace sallyport::edge {

// The one place where a status becomes an HTTP answer outside /mcp: code, and a JSON body
//   {"error": "<reason or canonical name>", "message": "…", "violations": [{"field": "…", "message": "…"}]}
int HttpStatusOf(const absl::Status& status);
std::string ErrorBody(const absl::Status& status);
// Value of Retry-After in seconds; 0: none.
int RetryAfterSeconds(const absl::Status& status);

// Answers with the status and `extra` fields.
void RespondError(Exchange& exchange, const absl::Status& status, std::vector<Field> extra = {});
// Answers with an HTTP status that no canonical code stands for. Bytes that are not UTF-8 become U+FFFD.
void RespondError(Exchange& exchange, int http_status, std::string_view error, std::string_view message,
                  std::vector<Field> extra = {});

}  // namespace sallyport::edge

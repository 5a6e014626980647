// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"

#include "tools/cli/api_client.h"
#include "tools/cli/terminal.h"

namespace sallyport::cli {

// What an administrator ends. Each goes on until the gateway has nothing left to end, says so on the way, and prints a
// table; the answer is whether revocations at providers are pending.

// INVALID_ARGUMENT if the person at the terminal does not confirm, which `yes` does for them.
absl::StatusOr<bool> RevokeUser(ApiClient& api, const std::string& subject, bool yes, const Terminal& terminal);

struct RevokedConnections {
  std::string app;      // Slug.
  std::string subject;  // Empty: everybody's.
  std::string account;  // Label, with a subject; empty: every account of theirs.
  bool default_account = false;
};
absl::StatusOr<bool> RevokeConnections(ApiClient& api, const RevokedConnections& which, bool yes,
                                       const Terminal& terminal);

// Tokens and consents for one MCP server; of one user unless `subject` is empty.
absl::Status RevokeServer(ApiClient& api, const std::string& slug, const std::string& subject,
                          const Terminal& terminal);

}  // namespace sallyport::cli

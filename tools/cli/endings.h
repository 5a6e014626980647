// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
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

// Tokens and consents for one MCP server; of one user, or of everybody if `subject` is empty, which is asked about
// unless `yes`.
absl::Status RevokeServer(ApiClient& api, const std::string& slug, const std::string& subject, bool yes,
                          const Terminal& terminal);

// Makes a call that ends grants until it has ended them all: the gateway ends as many as it has time for, and says that
// others remain. Returns how many calls it took.
absl::StatusOr<int> UntilNoGrantsRemain(const std::function<absl::Status()>& call, const Terminal& terminal);
// How many grants have ended: `last`, or "all" where calls before the last one ended some.
std::string EndedGrants(int calls, int last);

}  // namespace sallyport::cli

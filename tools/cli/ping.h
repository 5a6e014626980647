// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

#include "tools/cli/api_client.h"
#include "tools/cli/terminal.h"

namespace sallyport::cli {

struct Ping {
  std::string server;      // Slug.
  std::string token_file;  // Empty: no token is sent.
};

// One MCP session (2025-06-18) with a server behind the gateway: initialize, tools/list, and the session's end. Prints
// what the server calls itself and how many tools it has. Errors say what the gateway or the server answered.
absl::Status PingServer(ApiClient& api, const Ping& ping, const Terminal& terminal);

}  // namespace sallyport::cli

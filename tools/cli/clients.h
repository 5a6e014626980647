// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

#include "tools/cli/api_client.h"
#include "tools/cli/terminal.h"

namespace sallyport::cli {

// MCP clients that act for people.

// Those one has let in oneself, a line a server; or every client there is.
absl::Status PrintOwnClients(ApiClient& api, const Terminal& terminal);
absl::Status PrintAllClients(ApiClient& api, const Terminal& terminal);

struct RemovedClient {
  std::string client_id;
  std::string server;  // Slug; empty: every server.
  bool all = false;    // The client itself and every user's tokens of it, as an administrator.
};
// For everybody it asks first, unless `yes`.
absl::Status RemoveClient(ApiClient& api, const RemovedClient& which, bool yes, const Terminal& terminal);

}  // namespace sallyport::cli

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

#include "tools/cli/api_client.h"
#include "tools/cli/terminal.h"

namespace sallyport::cli {

// One's own accounts at apps.
struct OwnConnection {
  std::string app;      // Slug.
  std::string account;  // Label; empty: the default one.
};

absl::Status PrintConnections(ApiClient& api, const Terminal& terminal);
absl::Status DisconnectApp(ApiClient& api, const OwnConnection& which, const Terminal& terminal);
// `label` empty: it becomes the default one.
absl::Status RenameConnection(ApiClient& api, const OwnConnection& which, const std::string& label,
                              const Terminal& terminal);

}  // namespace sallyport::cli

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

#include "tools/cli/api_client.h"
#include "tools/cli/terminal.h"

namespace sallyport::cli {

// Credentials that each user enters for themselves.
struct OwnCredential {
  std::string slug;
  std::string username;
  std::string subject;  // Another user's, for a credential-admin; empty: one's own.
};

absl::Status PrintOwnCredentials(ApiClient& api, const Terminal& terminal);
// The value is typed without being shown, or is the first line of standard input: never an argument, which other
// programs see.
absl::Status SetOwnCredential(ApiClient& api, const OwnCredential& credential, const Terminal& terminal);
absl::Status ClearOwnCredential(ApiClient& api, const OwnCredential& credential, const Terminal& terminal);

}  // namespace sallyport::cli

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "tools/cli/api_client.h"

namespace sallyport::cli {

struct LoginOptions {
  std::string admin_token_file;            // With one of the two; both empty: through the browser.
  std::string service_account_token_file;  // Of a Kubernetes service account that administers the gateway.
  bool no_browser = false;                 // Only print the address.
  absl::Duration patience = absl::Minutes(5);
};

// Trades the one-time token or a service account's for an API token, or signs in through the browser: OAuth
// authorization code with PKCE S256 as the built-in client sallyport-cli, redirect to a free port of 127.0.0.1 (RFC
// 8252 section 7.3), resource <url>/api; `state` and `iss` (RFC 9207) are checked. Saves what it got.
absl::Status SignIn(ApiClient& api, const LoginOptions& options, const Terminal& terminal);
// Ends the grant at the gateway and forgets the login. OK if there was none.
absl::Status SignOut(ApiClient& api, const Terminal& terminal);

}  // namespace sallyport::cli

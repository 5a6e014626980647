// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "tools/cli/terminal.h"

namespace sallyport::cli {

// One sign-in at one gateway.
struct Login {
  Secret access_token;
  Secret refresh_token;  // Empty: cannot be renewed, such as the one of the admin token.
  absl::Time expires_at = absl::InfinitePast();
};

// The tokens of `sallyport login`, by gateway URL, in a file only its owner may read. A token is only ever sent to the
// URL it was saved under.
struct Credentials {
  std::string url;  // Used when none is named: the latest login's.
  std::map<std::string, Login> logins;
};

// ${XDG_CONFIG_HOME:-~/.config}/sallyport/credentials.json. FAILED_PRECONDITION if neither variable is set.
absl::StatusOr<std::string> CredentialsPath(const Terminal& terminal);
// Empty if there is no file. FAILED_PRECONDITION if others can read it; DATA_LOSS if it does not parse.
absl::StatusOr<Credentials> LoadCredentials(const std::string& path);
// Mode 0600, its directory 0700, replaced as a whole.
absl::Status SaveCredentials(const std::string& path, const Credentials& credentials);

}  // namespace sallyport::cli

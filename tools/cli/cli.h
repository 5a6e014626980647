// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "tools/cli/terminal.h"

namespace sallyport::cli {

// Exit codes.
inline constexpr int kDone = 0;
inline constexpr int kFailed = 1;    // The gateway refused, or is not there. `diff`: something differs.
inline constexpr int kBadUsage = 2;  // Arguments, or a file that does not parse: nothing was sent. `diff`: any error.
inline constexpr int kPending = 3;   // Done here; a provider has still to be asked to revoke something.

// The whole program. `arguments` without the program's name. Errors go to terminal.err, one line "sallyport: message"
// and one line a refused field.
int Run(std::vector<std::string> arguments, const Terminal& terminal);

}  // namespace sallyport::cli

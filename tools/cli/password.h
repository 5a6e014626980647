// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"

#include "tools/cli/terminal.h"

namespace sallyport::cli {

// Prints "$scrypt$…" for a password: asked for twice on a terminal, else the first line of standard input.
// INVALID_ARGUMENT for an empty one, or two that differ.
absl::Status PrintPasswordHash(const Terminal& terminal);

}  // namespace sallyport::cli

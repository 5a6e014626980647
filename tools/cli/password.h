// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "tools/cli/terminal.h"

namespace sallyport::cli {

// Typed without being shown, or the first line of standard input where that is no terminal.
absl::StatusOr<Secret> ReadSecretLine(const Terminal& terminal, const std::string& prompt);

// Prints "$scrypt$…" for a password: asked for twice on a terminal, else the first line of standard input.
// INVALID_ARGUMENT for an empty one, or two that differ.
absl::Status PrintPasswordHash(const Terminal& terminal);

}  // namespace sallyport::cli

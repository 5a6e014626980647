// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <istream>
#include <ostream>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/secret.h"

namespace sallyport::cli {

// What a command sees of the world, so that a test can be it.
struct Terminal {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  // Empty if unset.
  std::function<std::string(const char* name)> environment;
  std::function<absl::Time()> now;
  // False if there is no browser to open.
  std::function<bool(const std::string& url)> open_browser;
  // Asks a person without showing what they type. UNAVAILABLE if standard input is no terminal.
  std::function<absl::StatusOr<Secret>(const std::string& prompt)> ask_secret;
};

// Asks before what cannot be taken back; the answer is a line of standard input. INVALID_ARGUMENT unless it is "yes".
absl::Status Confirm(const Terminal& terminal, const std::string& question);

Terminal SystemTerminal(std::istream& in, std::ostream& out, std::ostream& err);

}  // namespace sallyport::cli

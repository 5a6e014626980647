// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/password.h"

#include "common/crypto/crypto.h"
#include "common/status_macros.h"

namespace sallyport::cli {
namespace {

absl::StatusOr<Secret> FirstLine(const Terminal& terminal) {
  std::string line;
  std::getline(terminal.in, line);
  return Secret(std::move(line));
}

absl::StatusOr<Secret> ReadPassword(const Terminal& terminal) {
  absl::StatusOr<Secret> typed = terminal.ask_secret("Password: ");
  if (absl::IsUnavailable(typed.status())) return FirstLine(terminal);
  RETURN_IF_ERROR(typed.status());
  ASSIGN_OR_RETURN(const Secret again, terminal.ask_secret("Again: "));
  if (!(*typed == again)) return absl::InvalidArgumentError("the two passwords differ");
  return typed;
}

}  // namespace

absl::StatusOr<Secret> ReadSecretLine(const Terminal& terminal, const std::string& prompt) {
  absl::StatusOr<Secret> typed = terminal.ask_secret(prompt);
  return absl::IsUnavailable(typed.status()) ? FirstLine(terminal) : std::move(typed);
}

absl::Status PrintPasswordHash(const Terminal& terminal) {
  ASSIGN_OR_RETURN(const Secret password, ReadPassword(terminal));
  if (password.empty())
    return absl::InvalidArgumentError("the password is empty: type it, or give it as the first line");
  terminal.out << HashPassword(password) << "\n";
  return absl::OkStatus();
}

}  // namespace sallyport::cli

// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/terminal.h"

#include <cstdlib>
#include <fcntl.h>
#include <spawn.h>
#include <termios.h>
#include <unistd.h>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/time/clock.h"

extern char** environ;  // NOLINT(readability-redundant-declaration): POSIX leaves its declaration to the program.

namespace sallyport::cli {
namespace {

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool OpenBrowser(const std::string& url) {
  // Without a display xdg-open would start a text browser on this very terminal.
  if (Environment("BROWSER").empty() && Environment("DISPLAY").empty() && Environment("WAYLAND_DISPLAY").empty()) {
    return false;
  }
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  const absl::Cleanup destroy = [&actions] { posix_spawn_file_actions_destroy(&actions); };
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
  }
  std::string program = "xdg-open";
  std::string argument = url;
  char* argv[] = {program.data(), argument.data(), nullptr};
  pid_t child = 0;
  return posix_spawnp(&child, program.c_str(), &actions, nullptr, argv, environ) == 0;
}

absl::StatusOr<Secret> AskSecret(std::istream& in, std::ostream& err, const std::string& prompt) {
  if (isatty(STDIN_FILENO) == 0) {
    return absl::UnavailableError("standard input is no terminal");
  }
  termios before = {};
  if (tcgetattr(STDIN_FILENO, &before) != 0) {
    return absl::UnavailableError("the terminal cannot be set up");
  }
  termios silent = before;
  silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  err << prompt << std::flush;
  tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent);
  std::string line;
  std::getline(in, line);
  tcsetattr(STDIN_FILENO, TCSAFLUSH, &before);
  err << "\n";
  return Secret(std::move(line));
}

}  // namespace

absl::Status Confirm(const Terminal& terminal, const std::string& question) {
  terminal.err << question << " Type yes to go on: " << std::flush;
  std::string line;
  std::getline(terminal.in, line);
  if (absl::StripAsciiWhitespace(line) == "yes") return absl::OkStatus();
  return absl::InvalidArgumentError("not confirmed, nothing was changed: answer yes, or add --yes");
}

Terminal SystemTerminal(std::istream& in, std::ostream& out, std::ostream& err) {
  return Terminal{.in = in,
                  .out = out,
                  .err = err,
                  .environment = Environment,
                  .now = absl::Now,
                  .open_browser = OpenBrowser,
                  .ask_secret = [&in, &err](const std::string& prompt) { return AskSecret(in, err, prompt); }};
}

}  // namespace sallyport::cli

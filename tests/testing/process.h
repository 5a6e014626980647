// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <sys/types.h>

namespace sallyport::testing {

// Makes a directory under /tmp that any user may enter and `user` (if not empty and we are root) owns.
std::string MakeServerDirectory(const std::string& name, const std::string& user = "");
void RemoveTree(const std::string& directory);

// Starts a program with output to `log`; as `user` when we are root. It is killed when this process dies.
absl::StatusOr<pid_t> Spawn(const std::vector<std::string>& argv, const std::string& log, const std::string& user = "");
// Exit code, 128 + n for one that signal n ended, or an error if it does not end in time (it is killed then).
absl::StatusOr<int> WaitForExit(pid_t pid, absl::Duration timeout);
// SIGTERM (or `signal`), and SIGKILL after 5 s.
void Terminate(pid_t pid, int signal);

}  // namespace sallyport::testing

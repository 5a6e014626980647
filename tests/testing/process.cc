// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/process.h"

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <grp.h>
#include <pwd.h>
#include <thread>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

namespace sallyport::testing {
namespace {

const passwd* UserToBecome(const std::string& user) {
  return geteuid() == 0 && !user.empty() ? getpwnam(user.c_str()) : nullptr;
}

// Only async-signal-safe calls between fork and exec: the parent has threads.
[[noreturn]] void ExecChild(char* const* argv, int output, const passwd* user, pid_t parent) {
  setpgid(0, 0);
  if (user != nullptr && (setgroups(0, nullptr) != 0 || setgid(user->pw_gid) != 0 || setuid(user->pw_uid) != 0)) {
    _exit(126);
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);  // After setuid, which clears it.
  if (getppid() != parent) _exit(126);
  const int null = open("/dev/null", O_RDONLY);
  dup2(null, 0);
  dup2(output, 1);
  dup2(output, 2);
  for (int fd = 3; fd < 1024; ++fd) close(fd);
  execv(argv[0], argv);
  _exit(127);
}

}  // namespace

std::string MakeServerDirectory(const std::string& name, const std::string& user) {
  std::string pattern = absl::StrCat("/tmp/sallyport-", name, "-XXXXXX");
  if (mkdtemp(pattern.data()) == nullptr) return "";
  chmod(pattern.c_str(), 0700);
  if (const passwd* entry = UserToBecome(user); entry != nullptr) {
    if (chown(pattern.c_str(), entry->pw_uid, entry->pw_gid) != 0) return "";
  }
  return pattern;
}

void RemoveTree(const std::string& directory) {
  std::error_code ignored;
  if (!directory.empty()) std::filesystem::remove_all(directory, ignored);
}

absl::StatusOr<pid_t> Spawn(const std::vector<std::string>& argv, const std::string& log, const std::string& user) {
  const int output = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (output < 0) return absl::InternalError(absl::StrCat("cannot open ", log));
  std::vector<char*> arguments;
  arguments.reserve(argv.size() + 1);
  for (const std::string& argument : argv) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const passwd* entry = UserToBecome(user);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) ExecChild(arguments.data(), output, entry, parent);
  close(output);
  if (pid < 0) return absl::InternalError("fork failed");
  return pid;
}

absl::StatusOr<int> WaitForExit(pid_t pid, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  int status = 0;
  while (waitpid(pid, &status, WNOHANG) == 0) {
    if (absl::Now() > deadline) {
      kill(pid, SIGKILL);
      waitpid(pid, &status, 0);
      return absl::DeadlineExceededError("program did not end in time");
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void Terminate(pid_t pid, int signal) {
  if (pid <= 0) return;
  kill(pid, signal);
  kill(pid, SIGCONT);
  WaitForExit(pid, absl::Seconds(30)).IgnoreError();
}

}  // namespace sallyport::testing

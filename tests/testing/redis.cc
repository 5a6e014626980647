// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/redis.h"

#include <csignal>
#include <cstring>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/testing/process.h"

namespace sallyport::testing {
namespace {

constexpr char kProgram[] = "/usr/bin/redis-server";

bool Connects(const std::string& path) {
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof(address.sun_path) - 1);
  const bool ok = connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  close(fd);
  return ok;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TestRedis>> TestRedis::Start(const std::string& password,
                                                            const std::vector<std::string>& arguments) {
  if (access(kProgram, X_OK) != 0) {
    return absl::FailedPreconditionError(absl::StrCat(kProgram, " is missing: run tools/setup"));
  }
  std::unique_ptr<TestRedis> redis(new TestRedis());
  redis->directory_ = MakeServerDirectory("redis");
  redis->password_ = password;
  redis->arguments_ = arguments;
  if (absl::Status status = redis->Launch(); !status.ok()) return status;
  return redis;
}

TestRedis::~TestRedis() {
  Stop();
  RemoveTree(directory_);
}

absl::Status TestRedis::Launch() {
  const std::string socket_path = directory_ + "/redis.sock";
  std::vector<std::string> argv = {
      kProgram, "--port", "0",        "--unixsocket",           socket_path, "--save", "", "--appendonly",
      "no",     "--dir",  directory_, "--enable-debug-command", "local"};
  if (!password_.empty()) {
    argv.push_back("--requirepass");
    argv.push_back(password_);
  }
  argv.insert(argv.end(), arguments_.begin(), arguments_.end());
  auto pid = Spawn(argv, directory_ + "/log");
  if (!pid.ok()) return pid.status();
  pid_ = *pid;
  const absl::Time deadline = absl::Now() + absl::Minutes(2);
  while (!Connects(socket_path)) {
    if (absl::Now() > deadline) return absl::DeadlineExceededError("redis-server did not start");
    absl::SleepFor(absl::Milliseconds(5));
  }
  return absl::OkStatus();
}

void TestRedis::Stop() {
  Terminate(pid_, SIGTERM);
  pid_ = -1;
}

absl::Status TestRedis::Restart() {
  Stop();
  return Launch();
}

void TestRedis::Pause() { kill(pid_, SIGSTOP); }
void TestRedis::Resume() { kill(pid_, SIGCONT); }

}  // namespace sallyport::testing

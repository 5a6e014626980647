// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include <sys/types.h>

namespace sallyport::testing {

// A private redis-server on a unix socket in a temporary directory, without persistence; stopped in the destructor.
class TestRedis {
 public:
  // With a password: for user "default". `arguments` are further ones of the program ("--tls-port", "7000").
  // FAILED_PRECONDITION where it is not installed: a test that needs it fails then.
  static absl::StatusOr<std::unique_ptr<TestRedis>> Start(const std::string& password = "",
                                                          const std::vector<std::string>& arguments = {});
  ~TestRedis();

  std::string address() const { return "unix:" + directory_ + "/redis.sock"; }
  void Stop();
  // The same address again, empty.
  absl::Status Restart();
  // Stops answering without closing connections, and goes on.
  void Pause();
  void Resume();

 private:
  TestRedis() = default;
  absl::Status Launch();
  std::string directory_;
  std::string password_;
  std::vector<std::string> arguments_;
  pid_t pid_ = -1;
};

}  // namespace sallyport::testing

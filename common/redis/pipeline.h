// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "common/redis/bypass.h"
#include "common/redis/client.h"
#include "common/redis/connection.h"

namespace sallyport {

// Commands of many callers on one connection, each sent when it comes; a thread of the pipeline's own connects, reads
// the answers, and gives them out. Errors as of RedisClient; whatever goes wrong with the connection fails all that
// wait for an answer. Thread-safe; no caller is ever blocked.
class RedisPipeline {
 public:
  using Callback = std::function<void(absl::StatusOr<RedisReply>)>;

  // With options that RedisClient::Create takes, which outlive this.
  explicit RedisPipeline(const RedisOptions& options);
  // Those who wait get UNAVAILABLE.
  ~RedisPipeline();
  RedisPipeline(const RedisPipeline&) = delete;
  RedisPipeline& operator=(const RedisPipeline&) = delete;

  // `done` runs once, not later than the options' timeout: on the pipeline's thread, or on this one before it returns
  // if the command is not even tried. It must not block.
  void Call(const std::vector<std::string>& command, Callback done);

 private:
  struct Waiting {
    Callback done;
    absl::Duration deadline;           // Of the steady clock.
    std::vector<std::string> command;  // Empty once it has been sent.
  };
  struct Answered {
    Callback done;
    absl::StatusOr<RedisReply> reply;
  };
  // More than wait at once under any load that Redis keeps up with.
  static constexpr size_t kMaxWaiting = 1024;

  void Run();
  absl::Status Admit() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Wake() const;
  // Connects for those who wait.
  void Connect();
  // Until an answer may have come, the oldest command is late, or somebody wakes the thread.
  void WaitForEvent();
  void Read(std::vector<Answered>& answered) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Drop(const absl::Status& status, std::vector<Answered>& answered) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const RedisOptions& options_;
  const int wake_fd_;
  Mutex mu_;
  std::unique_ptr<RedisConnection> connection_ ABSL_GUARDED_BY(mu_);
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mu_);
  // The connection broke under a caller that sent on it.
  absl::Status broken_ ABSL_GUARDED_BY(mu_);
  // The thread waits without a timeout until it is woken.
  bool asleep_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  RedisBypass bypass_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace sallyport

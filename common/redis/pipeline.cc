// SPDX-License-Identifier: Apache-2.0
#include "common/redis/pipeline.h"

#include <algorithm>
#include <cstdint>
#include <poll.h>
#include <unistd.h>
#include <utility>

#include <sys/eventfd.h>

#include "common/redis/failures.h"

namespace sallyport {

RedisPipeline::RedisPipeline(const RedisOptions& options)
    : options_(options), wake_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), bypass_(options_) {
  thread_ = std::thread([this] { Run(); });
}

RedisPipeline::~RedisPipeline() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  Wake();
  thread_.join();
  if (wake_fd_ >= 0) close(wake_fd_);
}

void RedisPipeline::Wake() const {
  const uint64_t one = 1;
  // Full: it is awake already.
  [[maybe_unused]] const ssize_t written = write(wake_fd_, &one, sizeof(one));
}

absl::Status RedisPipeline::Admit() {
  if (stopping_ || wake_fd_ < 0) return absl::UnavailableError("redis: not running");
  if (waiting_.size() >= kMaxWaiting) return absl::ResourceExhaustedError("redis: too many commands wait");
  return bypass_.Check(RedisConnection::NowSteady());
}

void RedisPipeline::Call(const std::vector<std::string>& command, Callback done) {
  absl::Status status;
  bool wake = false;
  {
    MutexLock lock(mu_);
    status = Admit();
    if (status.ok()) {
      Waiting& waiting = waiting_.emplace_back();
      waiting.done = std::move(done);
      waiting.deadline = RedisConnection::NowSteady() + options_.timeout;
      if (connection_ == nullptr) {
        waiting.command = command;
      } else if (broken_.ok()) {
        broken_ = connection_->SendNow(command);
      }
      // A thread that waits without a limit has to learn of the deadline, and any of what is still to be sent.
      wake = asleep_ || connection_ == nullptr || !broken_.ok() || connection_->wants_to_write();
      asleep_ = false;
    }
  }
  if (!status.ok()) return done(status);
  if (wake) Wake();
}

void RedisPipeline::Drop(const absl::Status& status, std::vector<Answered>& answered) {
  connection_.reset();
  broken_ = absl::OkStatus();
  if (waiting_.empty()) return;  // It was idle, and was closed by the server.
  bypass_.Failed(RedisConnection::NowSteady());
  // A password that is refused is no outage.
  const absl::Status error = absl::IsFailedPrecondition(status) ? status : absl::UnavailableError(status.message());
  for (Waiting& one : waiting_) answered.push_back({std::move(one.done), error});
  waiting_.clear();
}

void RedisPipeline::Connect() {
  absl::Duration deadline;
  {
    MutexLock lock(mu_);
    if (stopping_ || connection_ != nullptr || waiting_.empty()) return;
    deadline = waiting_.front().deadline;
  }
  auto opened = RedisConnection::Open(options_, deadline);
  std::vector<Answered> answered;
  {
    MutexLock lock(mu_);
    if (!opened.ok()) {
      Drop(opened.status(), answered);
    } else {
      connection_ = *std::move(opened);
      for (Waiting& one : waiting_) {
        if (broken_.ok()) broken_ = connection_->SendNow(one.command);
        one.command.clear();
      }
    }
  }
  for (Answered& one : answered) one.done(std::move(one.reply));
}

void RedisPipeline::WaitForEvent() {
  pollfd entries[2] = {{wake_fd_, POLLIN, 0}, {-1, POLLIN, 0}};
  // What is sent while this waits has a later deadline than the end of it.
  absl::Duration limit = options_.timeout;
  bool idle = false;
  {
    MutexLock lock(mu_);
    if (stopping_ || !broken_.ok()) return;
    if (connection_ != nullptr) {
      entries[1].fd = connection_->fd();
      if (connection_->wants_to_write()) entries[1].events = POLLIN | POLLOUT;
    }
    idle = waiting_.empty();
    if (!idle) limit = std::min(limit, waiting_.front().deadline - RedisConnection::NowSteady());
    if (connection_ == nullptr && !idle) return;
  }
  const auto milliseconds = static_cast<int>(std::max<int64_t>(0, limit / absl::Milliseconds(1)) + 1);
  if (poll(entries, 2, milliseconds) == 0 && idle) {
    {
      MutexLock lock(mu_);
      asleep_ = waiting_.empty() && !stopping_ && broken_.ok();
      if (!asleep_) return;
    }
    poll(entries, 2, -1);
    MutexLock lock(mu_);
    asleep_ = false;
  }
  uint64_t count = 0;
  if ((entries[0].revents & POLLIN) != 0) {
    [[maybe_unused]] const ssize_t taken = read(wake_fd_, &count, sizeof(count));
  }
}

void RedisPipeline::Read(std::vector<Answered>& answered) {
  if (connection_ == nullptr) return;
  if (broken_.ok()) broken_ = connection_->FlushNow();
  std::vector<RedisReply> replies;
  const absl::Duration deadline =
      waiting_.empty() ? RedisConnection::NowSteady() + options_.timeout : waiting_.front().deadline;
  absl::Status status = broken_.ok() ? connection_->ReceiveNow(waiting_.size(), deadline, replies) : broken_;
  // After an unexpected answer the others can no longer be matched to their commands.
  if (!status.ok()) replies.clear();
  for (RedisReply& reply : replies) {
    bypass_.Answered();
    answered.push_back({std::move(waiting_.front().done), absl::StatusOr<RedisReply>(std::move(reply))});
    waiting_.pop_front();
    if (RedisReply& given = *answered.back().reply; given.kind == RedisReply::Kind::kError) {
      // It works, but said no (LOADING, NOPERM, NOAUTH, …): another connection may fare better.
      answered.back().reply = RedisRefused(given.text);
      if (status.ok()) status = absl::UnavailableError("redis: another command was refused");
    }
  }
  if (status.ok() && !waiting_.empty() && waiting_.front().deadline <= RedisConnection::NowSteady()) {
    status = RedisFailed(RedisFailure::kTimeout, "no answer in time");
  }
  if (!status.ok()) Drop(status, answered);
}

void RedisPipeline::Run() {
  std::vector<Answered> answered;
  while (true) {
    Connect();
    WaitForEvent();
    bool stop = false;
    {
      MutexLock lock(mu_);
      stop = stopping_;
      if (stop) {
        Drop(absl::UnavailableError("redis: not running"), answered);
      } else {
        Read(answered);
      }
    }
    for (Answered& one : answered) one.done(std::move(one.reply));
    answered.clear();
    if (stop) return;
  }
}

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "common/redis/client.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/backoff.h"
#include "common/crypto/random.h"
#include "common/mutex.h"
#include "common/redis/connection.h"
#include "common/redis/failures.h"
#include "common/redis/pipeline.h"
#include "common/status_macros.h"

namespace sallyport {
namespace {

absl::Status CheckOptions(const RedisOptions& options) {
  if (absl::StartsWith(options.address, "unix:/")) {
    return options.tls == nullptr ? absl::OkStatus() : absl::InvalidArgumentError("redis tls: a unix socket has none");
  }
  const size_t colon = options.address.rfind(':');
  int port = 0;
  if (colon == std::string::npos || colon == 0 || !absl::SimpleAtoi(options.address.substr(colon + 1), &port) ||
      port < 1 || port > 65535) {
    return absl::InvalidArgumentError("redis address: must be host:port or unix:/path");
  }
  if (!options.username.empty() && options.password.empty()) {
    return absl::InvalidArgumentError("redis password_file: is needed with a username");
  }
  return absl::OkStatus();
}

absl::Status Unexpected() { return absl::UnavailableError("redis: unexpected kind of answer"); }

absl::StatusOr<std::optional<std::string>> TextOf(absl::StatusOr<RedisReply> reply) {
  RETURN_IF_ERROR(reply.status());
  if (reply->kind == RedisReply::Kind::kNil) return std::optional<std::string>();
  if (reply->kind != RedisReply::Kind::kText) return Unexpected();
  return std::optional<std::string>(std::move(reply->text));
}

}  // namespace

struct RedisClient::State {
  explicit State(RedisOptions given) : options(std::move(given)), pipeline(options) {}

  absl::StatusOr<RedisReply> Call(const std::vector<std::string>& command);

  const RedisOptions options;
  RedisPipeline pipeline;
};

RedisClient::RedisClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
RedisClient::~RedisClient() = default;

absl::StatusOr<std::unique_ptr<RedisClient>> RedisClient::Create(RedisOptions options) {
  RETURN_IF_ERROR(CheckOptions(options));
  ShowRedisFailures();
  RedisConnection::ShowMetrics();
  return std::unique_ptr<RedisClient>(new RedisClient(std::make_unique<State>(std::move(options))));
}

absl::StatusOr<RedisReply> RedisClient::State::Call(const std::vector<std::string>& command) {
  Mutex mu;
  std::condition_variable_any answered;
  std::optional<absl::StatusOr<RedisReply>> reply;
  pipeline.Call(command, [&](absl::StatusOr<RedisReply> given) {
    MutexLock lock(mu);
    reply = std::move(given);
    answered.notify_all();  // Under the lock: the waiting thread destroys all of this when it returns.
  });
  MutexLock lock(mu);
  while (!reply.has_value()) answered.wait(mu);
  return *std::move(reply);
}

absl::StatusOr<std::optional<std::string>> RedisClient::Get(const std::string& key) {
  return TextOf(state_->Call({"GET", key}));
}

void RedisClient::GetAsync(const std::string& key,
                           std::function<void(absl::StatusOr<std::optional<std::string>>)> done) {
  state_->pipeline.Call({"GET", key},
                        [done = std::move(done)](absl::StatusOr<RedisReply> reply) { done(TextOf(std::move(reply))); });
}

void RedisClient::DeleteAsync(const std::string& key) {
  state_->pipeline.Call({"DEL", key}, [](const absl::StatusOr<RedisReply>& /*reply*/) {});
}

absl::Status RedisClient::Set(const std::string& key, const std::string& value, absl::Duration ttl) {
  const int64_t milliseconds = ttl / absl::Milliseconds(1);
  if (milliseconds < 1) return absl::InvalidArgumentError("redis: ttl must be at least 1 ms");
  ASSIGN_OR_RETURN(const RedisReply reply, state_->Call({"SET", key, value, "PX", absl::StrCat(milliseconds)}));
  return reply.kind == RedisReply::Kind::kText && reply.text == "OK" ? absl::OkStatus() : Unexpected();
}

absl::Status RedisClient::Delete(const std::string& key) {
  ASSIGN_OR_RETURN(const RedisReply reply, state_->Call({"DEL", key}));
  return reply.kind == RedisReply::Kind::kInteger ? absl::OkStatus() : Unexpected();
}

absl::StatusOr<int64_t> RedisClient::Publish(const std::string& channel, const std::string& message) {
  ASSIGN_OR_RETURN(const RedisReply reply, state_->Call({"PUBLISH", channel, message}));
  if (reply.kind != RedisReply::Kind::kInteger) return Unexpected();
  return reply.integer;
}

absl::Status RedisClient::Ping() {
  ASSIGN_OR_RETURN(const RedisReply reply, state_->Call({"PING"}));
  return reply.kind == RedisReply::Kind::kText && reply.text == "PONG" ? absl::OkStatus() : Unexpected();
}

struct RedisSubscriber::State {
  void Run();
  // Returns when the connection is of no more use.
  void Listen(RedisConnection& connection);

  RedisOptions options;
  std::string channel;
  std::function<void(const std::string&)> on_message;
  std::function<void()> on_subscribed;
  Backoff backoff{absl::Milliseconds(50), absl::Seconds(5)};
  Mutex mu;
  std::condition_variable_any changed;
  bool stopping ABSL_GUARDED_BY(mu) = false;
  RedisConnection* connection ABSL_GUARDED_BY(mu) = nullptr;
  std::thread thread;
};

RedisSubscriber::RedisSubscriber(std::unique_ptr<State> state) : state_(std::move(state)) {}

absl::StatusOr<std::unique_ptr<RedisSubscriber>> RedisSubscriber::Start(
    RedisOptions options, std::string channel, std::function<void(const std::string&)> on_message,
    std::function<void()> on_subscribed) {
  RETURN_IF_ERROR(CheckOptions(options));
  auto state = std::make_unique<State>();
  state->options = std::move(options);
  // Nobody waits for a subscription, so it may take longer than a command.
  state->options.timeout = std::max(state->options.timeout, absl::Seconds(2));
  state->channel = std::move(channel);
  state->on_message = std::move(on_message);
  state->on_subscribed = std::move(on_subscribed);
  State* raw = state.get();
  state->thread = std::thread([raw] { raw->Run(); });
  return std::unique_ptr<RedisSubscriber>(new RedisSubscriber(std::move(state)));
}

RedisSubscriber::~RedisSubscriber() {
  {
    MutexLock lock(state_->mu);
    state_->stopping = true;
    if (state_->connection != nullptr) state_->connection->Interrupt();
  }
  state_->changed.notify_all();
  state_->thread.join();
}

void RedisSubscriber::State::Run() {
  while (true) {
    auto opened = RedisConnection::Open(options, RedisConnection::NowSteady() + options.timeout);
    if (opened.ok()) {
      {
        MutexLock lock(mu);
        if (stopping) return;
        connection = opened->get();
      }
      Listen(**opened);
      MutexLock lock(mu);
      connection = nullptr;
    }
    MutexLock lock(mu);
    const auto until = std::chrono::steady_clock::now() + absl::ToChronoMicroseconds(backoff.Next(RandomUnit()));
    while (!stopping && changed.wait_until(mu, until) != std::cv_status::timeout) {
    }
    if (stopping) return;
  }
}

void RedisSubscriber::State::Listen(RedisConnection& current) {
  constexpr absl::Duration kIdle = absl::Seconds(20);
  if (!current.Send({"SUBSCRIBE", channel}, RedisConnection::NowSteady() + options.timeout).ok()) return;
  bool subscribed = false;
  bool asked = false;  // A PING is unanswered.
  while (true) {
    auto reply = current.Receive(RedisConnection::NowSteady() + (asked || !subscribed ? options.timeout : kIdle));
    if (!reply.ok()) return;
    if (!*reply) {
      // Silence: a connection that died without a word looks the same, so ask.
      if (asked || !subscribed) return;
      if (!current.Send({"PING"}, RedisConnection::NowSteady() + options.timeout).ok()) return;
      asked = true;
      continue;
    }
    asked = false;
    const RedisReply& event = **reply;
    if (event.kind == RedisReply::Kind::kError) {
      RedisRefused(event.text).IgnoreError();
      return;
    }
    if (event.kind != RedisReply::Kind::kArray || event.elements.empty()) return;
    const std::string& kind = event.elements[0].text;
    if (kind == "subscribe" && !subscribed) {
      subscribed = true;
      backoff.Reset();
      if (on_subscribed) on_subscribed();
    } else if (kind == "message" && event.elements.size() == 3 && event.elements[1].text == channel) {
      on_message(event.elements[2].text);
    } else if (kind != "pong") {
      return;
    }
  }
}

}  // namespace sallyport

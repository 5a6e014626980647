// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/redis/resolver.h"
#include "common/redis/tls.h"
#include "common/secret.h"

namespace sallyport {

struct RedisOptions {
  std::string address;            // "host:port" or "unix:/path".
  std::shared_ptr<RedisTls> tls;  // Null: plaintext. Not with a unix socket.
  std::string username;
  Secret password;  // Empty: no AUTH.
  // Budget of one command; finding the address, connecting, the TLS handshake and AUTH included.
  absl::Duration timeout = absl::Milliseconds(50);
  RedisResolver* resolver = nullptr;  // Outlives its users; null: the process's own.
  // After this many failures in a row nothing is sent for `bypass_for`: a cache that is down must not cost every call
  // its timeout.
  int failures_to_bypass = 3;
  absl::Duration bypass_for = absl::Seconds(1);
};

// A cache that may be missing, on one connection that all callers share: every error is UNAVAILABLE (with reason
// "redis_bypassed" when it was not even tried), RESOURCE_EXHAUSTED (too many wait) or FAILED_PRECONDITION (the server
// answered with an error). A connection is closed after any error, timeout or answer that was not expected. Blocking;
// thread-safe.
class RedisClient {
 public:
  // Checks the options; connects on first use.
  static absl::StatusOr<std::unique_ptr<RedisClient>> Create(RedisOptions options);
  ~RedisClient();

  absl::StatusOr<std::optional<std::string>> Get(const std::string& key);
  // `ttl` at least 1 ms.
  absl::Status Set(const std::string& key, const std::string& value, absl::Duration ttl);
  // OK also when it was not there.
  absl::Status Delete(const std::string& key);
  // The same two without blocking, on a connection that all callers share. `done` runs once, not later than the
  // timeout, on a thread of the client's or before this returns; it must not block.
  void GetAsync(const std::string& key, std::function<void(absl::StatusOr<std::optional<std::string>>)> done);
  void DeleteAsync(const std::string& key);
  // Number of subscribers that got it.
  absl::StatusOr<int64_t> Publish(const std::string& channel, const std::string& message);
  absl::Status Ping();

 private:
  struct State;
  explicit RedisClient(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Receives messages of one channel on its own thread and reconnects by itself.
class RedisSubscriber {
 public:
  // `on_message` for each message. `on_subscribed` after each (re)connection: messages may have been lost before it.
  // Both run on the subscriber's thread and must not block for long.
  static absl::StatusOr<std::unique_ptr<RedisSubscriber>> Start(RedisOptions options, std::string channel,
                                                                std::function<void(const std::string&)> on_message,
                                                                std::function<void()> on_subscribed);
  ~RedisSubscriber();

 private:
  struct State;
  explicit RedisSubscriber(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace sallyport

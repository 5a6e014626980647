// SPDX-License-Identifier: Apache-2.0
#include "common/redis/failures.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "common/json_log.h"
#include "common/metrics.h"
#include "common/redis/connection.h"

namespace sallyport {
namespace {

constexpr std::array<const char*, 9> kReasons = {"name",   "connect",  "tls",     "auth",   "timeout",
                                                 "broken", "protocol", "cluster", "refused"};
constexpr size_t kLongestWord = 32;

constexpr CounterInfo kFailures = {
    .name = "sallyport_redis_failures_total",
    .help = "Connections to Redis and commands that failed, by reason",
    .unit = "failures",
    .labels = {{"reason", "name, connect, tls, auth, timeout, broken, protocol, cluster, refused"}},
    .rise =
        "Tokens come from the vault instead of Redis. tls, auth, refused: a setting is wrong, here or at the server. "
        "cluster: the server is a node of a Redis Cluster, and nothing is cached there",
    .action = "Read redis_failed in the log, which says why and what to set",
};

struct Series {
  prometheus::Counter* counter = nullptr;
  // Of the steady clock: from when on the log has this reason again.
  std::atomic<int64_t> next_log_ns{std::numeric_limits<int64_t>::min()};
};

std::array<Series, kReasons.size()>& AllSeries() {
  static auto& all = *[] {
    auto* made = new std::array<Series, kReasons.size()>();
    for (size_t i = 0; i < kReasons.size(); ++i) {
      (*made)[i].counter = &MetricCounter(kFailures, {{"reason", kReasons[i]}});
    }
    return made;
  }();
  return all;
}

bool IsTimeToLog(RedisFailure failure, Series& series) {
  const int64_t now = absl::ToInt64Nanoseconds(RedisConnection::NowSteady());
  int64_t next = series.next_log_ns.load();
  const int64_t then = failure == RedisFailure::kCluster ? std::numeric_limits<int64_t>::max()
                                                         : now + absl::ToInt64Nanoseconds(absl::Minutes(1));
  return next <= now && series.next_log_ns.compare_exchange_strong(next, then);
}

// The server works; waiting for it to come back would not help.
bool IsRefusal(RedisFailure failure) {
  return failure == RedisFailure::kAuth || failure == RedisFailure::kCluster || failure == RedisFailure::kRefused;
}

}  // namespace

absl::Status RedisFailed(RedisFailure failure, absl::string_view what) {
  const auto index = static_cast<size_t>(failure);
  Series& series = AllSeries()[index];
  series.counter->Increment();
  const std::string message = absl::StrCat("redis: ", what);
  if (IsTimeToLog(failure, series)) {
    const bool setting = IsRefusal(failure) || failure == RedisFailure::kTls;
    Log(setting ? LogLevel::kError : LogLevel::kWarning, "redis_failed",
        {{"reason", kReasons[index]}, {"error", message}});
  }
  return IsRefusal(failure) ? absl::FailedPreconditionError(message) : absl::UnavailableError(message);
}

absl::Status RedisRefused(absl::string_view text) {
  const absl::string_view word = text.substr(0, text.find(' '));
  if (word == "MOVED" || word == "ASK" || word == "CLUSTERDOWN") {
    return RedisFailed(RedisFailure::kCluster,
                       absl::StrCat("the server is a node of a Redis Cluster (", word,
                                    "), which is not supported: set redis.address to a Redis with cluster-enabled no"));
  }
  if (word == "NOAUTH" || word == "WRONGPASS") {
    return RedisFailed(RedisFailure::kAuth,
                       "the server wants another user or password: set redis.username and redis.passwordFile");
  }
  if (word == "NOPERM") {
    return RedisFailed(RedisFailure::kRefused,
                       "NOPERM: the ACL of redis.username forbids a command, key or channel that is needed");
  }
  // The rest of the text may repeat arguments.
  const bool code = !word.empty() && word.size() <= kLongestWord && std::all_of(word.begin(), word.end(), [](char c) {
    return absl::ascii_isupper(static_cast<unsigned char>(c)) || c == '_';
  });
  return RedisFailed(RedisFailure::kRefused, code ? word : "an error answer");
}

void ShowRedisFailures() { AllSeries(); }

}  // namespace sallyport

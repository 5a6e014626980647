// SPDX-License-Identifier: Apache-2.0
#include "common/redis/failures.h"

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "common/json_log.h"
#include "common/metrics.h"
#include "common/mutex.h"
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

constexpr size_t kMostTexts = 64;

struct Series {
  prometheus::Counter* counter = nullptr;
  Mutex mu;
  // By what the log says: from when on, of the steady clock, it says so again. Of one reason there are few texts.
  std::map<std::string, absl::Duration, std::less<>> next_log ABSL_GUARDED_BY(mu);
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

bool IsTimeToLog(RedisFailure failure, absl::string_view what, Series& series) {
  const absl::Duration now = RedisConnection::NowSteady();
  MutexLock lock(series.mu);
  // Once: it stays so until somebody changes a setting.
  if (failure == RedisFailure::kCluster) return series.next_log.emplace("", now).second;
  const auto found = series.next_log.find(what);
  if (found != series.next_log.end() && now < found->second) return false;
  if (series.next_log.size() >= kMostTexts) series.next_log.clear();
  series.next_log[std::string(what)] = now + absl::Minutes(1);
  return true;
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
  if (IsTimeToLog(failure, what, series)) {
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

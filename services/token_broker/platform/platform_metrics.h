// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <map>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include <prometheus/counter.h>

#include "common/mutex.h"

namespace sallyport::token_broker {

enum class PlatformMethod { kGetToken, kListConnections, kStartLink, kDisconnect };
inline constexpr int kPlatformMethods = 4;
// As in the proto.
const char* NameOf(PlatformMethod method);

// sallyport_broker_platform_requests_total{platform,method,code} of one platform. Lock-free once a series is known.
class PlatformCounters {
 public:
  explicit PlatformCounters(std::string platform) : platform_(std::move(platform)) {}
  void Count(PlatformMethod method, absl::StatusCode code);

 private:
  static constexpr int kCodes = 17;
  const std::string platform_;
  std::array<std::array<std::atomic<prometheus::Counter*>, kCodes>, kPlatformMethods> counters_{};
};

// Those of every platform. Ids are of authn's configuration, never of a request. Thread-safe.
class PlatformMetrics {
 public:
  // Shows the series of callers who are unknown, whether or not there are any.
  PlatformMetrics();
  // Lives as long as this.
  PlatformCounters& Of(const std::string& platform);
  // Of callers who did not get as far as being a platform; "unknown".
  PlatformCounters& unknown() { return unknown_; }

 private:
  PlatformCounters unknown_{"unknown"};
  Mutex mu_;
  std::map<std::string, std::unique_ptr<PlatformCounters>> platforms_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker

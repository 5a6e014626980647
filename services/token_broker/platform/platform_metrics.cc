// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/platform_metrics.h"

#include "common/metrics.h"

namespace sallyport::token_broker {
namespace {

constexpr CounterInfo kRequests = {
    .name = "sallyport_broker_platform_requests_total",
    .help = "Requests of internal platforms",
    .unit = "requests",
    .labels = {{"platform", "id of a configured platform; unknown: a caller that was not admitted"},
               {"method", "GetToken, ListConnections, StartLink, Disconnect"},
               {"code", "gRPC status codes: OK, RESOURCE_EXHAUSTED, UNAVAILABLE, ..."}},
    .rise = "Load. RESOURCE_EXHAUSTED: a platform over its rate limit, or guesses of a stranger",
    .action =
        "For UNAVAILABLE see the log event `platform_request_failed`; for RESOURCE_EXHAUSTED talk to the "
        "platform's owner before the limit is raised",
};

prometheus::Counter& Series(const std::string& platform, PlatformMethod method, absl::StatusCode code) {
  return MetricCounter(kRequests,
                       {{"platform", platform}, {"method", NameOf(method)}, {"code", absl::StatusCodeToString(code)}});
}

}  // namespace

const char* NameOf(PlatformMethod method) {
  switch (method) {
    case PlatformMethod::kGetToken:
      return "GetToken";
    case PlatformMethod::kListConnections:
      return "ListConnections";
    case PlatformMethod::kStartLink:
      return "StartLink";
    case PlatformMethod::kDisconnect:
      return "Disconnect";
  }
  return "unknown";
}

void PlatformCounters::Count(PlatformMethod method, absl::StatusCode code) {
  const int index = static_cast<int>(code) >= 0 && static_cast<int>(code) < kCodes
                        ? static_cast<int>(code)
                        : static_cast<int>(absl::StatusCode::kUnknown);
  auto& slot = counters_[static_cast<size_t>(method)][static_cast<size_t>(index)];
  prometheus::Counter* counter = slot.load(std::memory_order_acquire);
  if (counter == nullptr) {
    counter = &Series(platform_, method, static_cast<absl::StatusCode>(index));
    slot.store(counter, std::memory_order_release);
  }
  counter->Increment();
}

PlatformMetrics::PlatformMetrics() {
  for (int i = 0; i < kPlatformMethods; ++i) {
    Series("unknown", static_cast<PlatformMethod>(i), absl::StatusCode::kUnauthenticated);
  }
}

PlatformCounters& PlatformMetrics::Of(const std::string& platform) {
  MutexLock lock(mu_);
  std::unique_ptr<PlatformCounters>& counters = platforms_[platform];
  if (counters == nullptr) {
    counters = std::make_unique<PlatformCounters>(platform);
  }
  return *counters;
}

}  // namespace sallyport::token_broker

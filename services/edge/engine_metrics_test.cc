// SPDX-License-Identifier: Apache-2.0
#include "services/edge/engine_metrics.h"

#include <gmock/gmock.h>

#include "common/metrics.h"

namespace sallyport::edge {
namespace {

TEST(EngineMetrics, GaugesFollowAndCountersGrowByWhatCameSince) {
  EngineMetrics metrics;
  const double before = MetricCounter("sallyport_http_heartbeats_total", "").Value();
  metrics.Update({.connections_open = 3, .body_memory = 4096, .heartbeats = 5});
  metrics.Update({.connections_open = 2, .body_memory = 0, .heartbeats = 7});
  EXPECT_EQ(MetricCounter("sallyport_http_heartbeats_total", "").Value() - before, 7);
  EXPECT_EQ(MetricGauge("sallyport_http_connections_open", "").Value(), 2);
  EXPECT_EQ(MetricGauge("sallyport_http_body_memory_bytes", "").Value(), 0);
}

TEST(EngineMetrics, TellOfMemoryAndWhatWasRefusedForWantOfIt) {
  EngineMetrics metrics;
  const auto refused = [](const char* what) {
    return MetricCounter("sallyport_http_memory_refused_total", "", {{"what", what}}).Value();
  };
  const double before = refused("request");
  metrics.Update({.memory = {.limit = 1000, .used = 910},
                  .memory_level = MemoryLevel::kNoRequests,
                  .memory_streams = 1,
                  .memory_requests = 4,
                  .memory_connections = 2});
  EXPECT_EQ(MetricGauge("sallyport_http_memory_limit_bytes", "").Value(), 1000);
  EXPECT_EQ(MetricGauge("sallyport_http_memory_used_bytes", "").Value(), 910);
  EXPECT_EQ(MetricGauge("sallyport_http_memory_level", "").Value(), 2);
  EXPECT_EQ(refused("request") - before, 4);
  EXPECT_GE(refused("stream"), 1);
  EXPECT_GE(refused("connection"), 2);
}

TEST(EngineMetrics, CountTheProxysRefusalsByReason) {
  EngineMetrics metrics;
  const auto failures = [](const char* reason) {
    return MetricCounter("sallyport_egress_proxy_failures_total", "", {{"reason", reason}}).Value();
  };
  const double before[] = {failures("unreachable"), failures("timeout"), failures("unauthorized"), failures("refused"),
                           failures("bad_response")};
  metrics.Update({.proxy_failures = {1, 2, 3, 4, 5}});
  metrics.Update({.proxy_failures = {1, 2, 3, 4, 6}});
  EXPECT_EQ(failures("unreachable") - before[0], 1);
  EXPECT_EQ(failures("timeout") - before[1], 2);
  EXPECT_EQ(failures("unauthorized") - before[2], 3);
  EXPECT_EQ(failures("refused") - before[3], 4);
  EXPECT_EQ(failures("bad_response") - before[4], 6);
}

}  // namespace
}  // namespace sallyport::edge

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

}  // namespace
}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>

#include <prometheus/counter.h>
#include <prometheus/gauge.h>

#include "common/http/egress_proxy.h"
#include "services/edge/http/engine.h"

namespace sallyport::edge {

// The engine's counters as metrics, brought up to date once a second.
class EngineMetrics {
 public:
  EngineMetrics();
  // `engine` ends before this.
  void Start(const Engine& engine, Worker& worker);
  void Update(const EngineCounters& now);

 private:
  void Tick();

  const Engine* engine_ = nullptr;
  Worker* worker_ = nullptr;
  EngineCounters last_;
  prometheus::Gauge& connections_;
  prometheus::Gauge& body_memory_;
  prometheus::Gauge& upstream_idle_;
  prometheus::Counter& accepted_;
  prometheus::Counter& upstream_connects_;
  prometheus::Counter& upstream_reuses_;
  prometheus::Counter& upstream_stale_;
  prometheus::Counter& heartbeats_;
  prometheus::Gauge& memory_limit_;
  prometheus::Gauge& memory_used_;
  prometheus::Gauge& memory_level_;
  prometheus::Counter& refused_streams_;
  prometheus::Counter& refused_requests_;
  prometheus::Counter& refused_connections_;
  std::array<prometheus::Counter*, kProxyFailures.size()> proxy_failures_;
};

}  // namespace sallyport::edge

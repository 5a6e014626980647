// SPDX-License-Identifier: Apache-2.0
#include "services/edge/engine_metrics.h"

#include "common/metrics.h"

namespace sallyport::edge {
namespace {

constexpr auto kInterval = std::chrono::seconds(1);

void Raise(prometheus::Counter& counter, uint64_t last, uint64_t now) {
  if (now > last) counter.Increment(static_cast<double>(now - last));
}

prometheus::Counter& RefusedCounter(const std::string& what) {
  return MetricCounter("sallyport_http_memory_refused_total",
                       "Streams and requests refused, idle connections closed, for want of memory", {{"what", what}});
}

}  // namespace

EngineMetrics::EngineMetrics()
    : connections_(MetricGauge("sallyport_http_connections_open", "Connections of clients that are open")),
      body_memory_(MetricGauge("sallyport_http_body_memory_bytes", "Memory held by bodies of requests")),
      upstream_idle_(MetricGauge("sallyport_http_upstream_idle", "Idle connections to upstream servers")),
      accepted_(MetricCounter("sallyport_http_connections_total", "Connections of clients that were accepted")),
      upstream_connects_(
          MetricCounter("sallyport_http_upstream_connects_total", "Connections made to upstream servers")),
      upstream_reuses_(
          MetricCounter("sallyport_http_upstream_reuses_total", "Requests sent on a pooled upstream connection")),
      upstream_stale_(MetricCounter("sallyport_http_upstream_stale_total",
                                    "Pooled upstream connections that turned out to be closed when used")),
      heartbeats_(MetricCounter("sallyport_http_heartbeats_total", "Comments sent into silent event streams")),
      memory_limit_(MetricGauge("sallyport_http_memory_limit_bytes", "Memory limit of the process's cgroup; 0: none")),
      memory_used_(MetricGauge("sallyport_http_memory_used_bytes", "Resident memory of the process")),
      memory_level_(MetricGauge("sallyport_http_memory_level",
                                "What is refused for want of memory: 0 nothing, 1 new streams, 2 requests, "
                                "3 connections")),
      refused_streams_(RefusedCounter("stream")),
      refused_requests_(RefusedCounter("request")),
      refused_connections_(RefusedCounter("connection")) {
  // The engine counts them in the same order.
  static_assert(kProxyFailures.size() == std::tuple_size_v<decltype(EngineCounters::proxy_failures)>);
  for (size_t i = 0; i < proxy_failures_.size(); ++i) proxy_failures_[i] = &ProxyFailureCounter(kProxyFailures[i]);
}

void EngineMetrics::Start(const Engine& engine, Worker& worker) {
  engine_ = &engine;
  worker_ = &worker;
  worker.Post([this] { Tick(); });
}

void EngineMetrics::Tick() {
  Update(engine_->counters());
  worker_->After(kInterval, [this] { Tick(); });
}

void EngineMetrics::Update(const EngineCounters& now) {
  connections_.Set(static_cast<double>(now.connections_open));
  body_memory_.Set(static_cast<double>(now.body_memory));
  upstream_idle_.Set(static_cast<double>(now.upstream_idle));
  Raise(accepted_, last_.connections_accepted, now.connections_accepted);
  Raise(upstream_connects_, last_.upstream_connects, now.upstream_connects);
  Raise(upstream_reuses_, last_.upstream_reuses, now.upstream_reuses);
  Raise(upstream_stale_, last_.upstream_stale, now.upstream_stale);
  Raise(heartbeats_, last_.heartbeats, now.heartbeats);
  memory_limit_.Set(static_cast<double>(now.memory.limit));
  memory_used_.Set(static_cast<double>(now.memory.used));
  memory_level_.Set(static_cast<double>(now.memory_level));
  Raise(refused_streams_, last_.memory_streams, now.memory_streams);
  Raise(refused_requests_, last_.memory_requests, now.memory_requests);
  Raise(refused_connections_, last_.memory_connections, now.memory_connections);
  for (size_t i = 0; i < proxy_failures_.size(); ++i) {
    Raise(*proxy_failures_[i], last_.proxy_failures[i], now.proxy_failures[i]);
  }
  last_ = now;
}

}  // namespace sallyport::edge

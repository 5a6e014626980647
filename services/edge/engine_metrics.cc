// SPDX-License-Identifier: Apache-2.0
#include "services/edge/engine_metrics.h"

#include "common/metrics.h"

namespace sallyport::edge {
namespace {

constexpr auto kInterval = std::chrono::seconds(1);

void Raise(prometheus::Counter& counter, uint64_t last, uint64_t now) {
  if (now > last) counter.Increment(static_cast<double>(now - last));
}

constexpr GaugeInfo kConnections = {
    .name = "sallyport_http_connections_open",
    .help = "Connections of clients that are open",
    .unit = "connections",
    .rise = "More clients, or clients that do not close; the edge holds 10,000 at most",
    .action =
        "Near the limit add replicas; look at `sallyport_http_connections_total` for clients that connect anew for "
        "each call",
};
constexpr CounterInfo kAccepted = {
    .name = "sallyport_http_connections_total",
    .help = "Connections of clients that were accepted",
    .unit = "connections",
    .rise = "Load. Rising faster than requests: clients or a proxy in front do not keep connections alive",
    .action = "Turn keep-alive on in the proxy in front",
};
constexpr GaugeInfo kBodyMemory = {
    .name = "sallyport_http_body_memory_bytes",
    .help = "Memory held by bodies of requests",
    .unit = "bytes",
    .rise = "Many large requests at once; at 256 MiB requests are refused",
    .action = "Find the server whose callers send large bodies, and lower its limit or add replicas",
};
constexpr GaugeInfo kUpstreamIdle = {
    .name = "sallyport_http_upstream_idle",
    .help = "Idle connections to upstream servers",
    .unit = "connections",
    .rise = "Load went down a moment ago",
    .action = "Nothing",
};
constexpr CounterInfo kUpstreamConnects = {
    .name = "sallyport_http_upstream_connects_total",
    .help = "Connections made to upstream servers",
    .unit = "connections",
    .rise = "Load. Rising as fast as requests: upstream servers close after each answer",
    .action = "Turn keep-alive on at the upstream server",
};
constexpr CounterInfo kUpstreamReuses = {
    .name = "sallyport_http_upstream_reuses_total",
    .help = "Requests sent on a pooled upstream connection",
    .unit = "requests",
    .rise = "Load",
    .action = "Nothing",
};
constexpr CounterInfo kUpstreamStale = {
    .name = "sallyport_http_upstream_stale_total",
    .help = "Pooled upstream connections that turned out to be closed when used",
    .unit = "connections",
    .rise = "An upstream server closes idle connections sooner than it says",
    .action = "Raise the idle timeout of the upstream server, or of the load balancer in front of it",
};
constexpr CounterInfo kHeartbeats = {
    .name = "sallyport_http_heartbeats_total",
    .help = "Comments sent into silent event streams",
    .unit = "comments",
    .rise = "Many event streams are open and silent",
    .action = "Nothing",
};
constexpr GaugeInfo kMemoryLimit = {
    .name = "sallyport_http_memory_limit_bytes",
    .help = "Memory limit of the process's cgroup; 0: none",
    .unit = "bytes",
    .rise = "The limit was raised",
    .action = "Nothing",
};
constexpr GaugeInfo kMemoryUsed = {
    .name = "sallyport_http_memory_used_bytes",
    .help = "Resident memory of the process",
    .unit = "bytes",
    .rise = "More connections, streams and bodies are held",
    .action = "Near the limit give the process more memory, or add replicas",
};
constexpr GaugeInfo kMemoryLevel = {
    .name = "sallyport_http_memory_level",
    .help =
        "What is refused near the memory limit: 0 nothing, 1 new event streams, 2 new requests too, 3 new "
        "connections too",
    .unit = "level",
    .rise = "The process is near the limit of its cgroup, and refuses what it lists to stay alive",
    .action = "Give the process more memory, or add replicas",
};
constexpr CounterInfo kMemoryRefused = {
    .name = "sallyport_http_memory_refused_total",
    .help = "Streams and requests refused, idle connections closed, for want of memory",
    .unit = "refusals",
    .labels = {{"what", "stream, request, connection"}},
    .rise = "Clients get 503 because the process is near the limit of its cgroup",
    .action = "Give the process more memory, or add replicas",
};

prometheus::Counter& RefusedCounter(const std::string& what) { return MetricCounter(kMemoryRefused, {{"what", what}}); }

}  // namespace

EngineMetrics::EngineMetrics()
    : connections_(MetricGauge(kConnections)),
      body_memory_(MetricGauge(kBodyMemory)),
      upstream_idle_(MetricGauge(kUpstreamIdle)),
      accepted_(MetricCounter(kAccepted)),
      upstream_connects_(MetricCounter(kUpstreamConnects)),
      upstream_reuses_(MetricCounter(kUpstreamReuses)),
      upstream_stale_(MetricCounter(kUpstreamStale)),
      heartbeats_(MetricCounter(kHeartbeats)),
      memory_limit_(MetricGauge(kMemoryLimit)),
      memory_used_(MetricGauge(kMemoryUsed)),
      memory_level_(MetricGauge(kMemoryLevel)),
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

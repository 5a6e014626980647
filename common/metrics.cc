// SPDX-License-Identifier: Apache-2.0
#include "common/metrics.h"

#include <algorithm>
#include <exception>
#include <utility>

#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "common/json_log.h"
#include "common/mutex.h"

namespace sallyport {
namespace {

prometheus::Registry& Registry() {
  static auto* registry = new prometheus::Registry;  // Never destroyed: threads may count while the process ends.
  return *registry;
}

// prometheus-cpp throws for bad names and for a name that another type has.
template <typename Metric, typename Make, typename Spare>
Metric& Guarded(const std::string& name, Make make, Spare spare) {
  try {
    return make();
  } catch (const std::exception& error) {
    Log(LogLevel::kError, "metric_refused", {{"metric", name}, {"error", error.what()}});
    return spare();
  }
}

constexpr CounterInfo kRpcRequests = {
    .name = "sallyport_rpc_requests_total",
    .help = "RPCs answered",
    .unit = "RPCs",
    .labels = {{"service", "full name of the gRPC service"},
               {"method", "name of the method; unknown: none of the service"},
               {"code", "gRPC status codes: OK, UNAVAILABLE, PERMISSION_DENIED, ..."}},
    .rise =
        "Load. With INTERNAL, UNKNOWN or DATA_LOSS a fault of the gateway or its store; with UNAVAILABLE a "
        "dependency is down; with PERMISSION_DENIED or UNAUTHENTICATED a caller that may not ask this",
    .action = "Look for the log event `rpc` of the service with that code: it names the caller and the reason",
};
constexpr GaugeInfo kRpcInFlight = {
    .name = "sallyport_rpc_in_flight",
    .help = "RPCs that are being served, open streams among them",
    .unit = "RPCs",
    .labels = {{"service", "full name of the gRPC service"}},
    .rise =
        "The service waits for its store or for another service. Each takes a thread: at `maxThreads` (256) further "
        "calls are refused with RESOURCE_EXHAUSTED",
    .action =
        "Look at `sallyport_rpc_duration_seconds` and `sallyport_sql_wait_seconds` of the service; add replicas or "
        "raise `maxThreads` only if the store has room",
};
constexpr HistogramInfo kRpcDuration = {
    .name = "sallyport_rpc_duration_seconds",
    .help = "Time an RPC took in the service that answered it",
    .unit = "seconds",
    .labels = {{"service", "full name of the gRPC service"},
               {"method", "name of the method; unknown: no method of it"}},
    .rise = "The service, its store or the service that it asks has become slow",
    .action = "Compare the methods: those that write wait for the store, the others for CPU or for another service",
};

}  // namespace

prometheus::Counter& MetricCounter(const CounterInfo& info, const MetricLabels& labels) {
  return MetricCounter(info.name, info.help, labels);
}

prometheus::Gauge& MetricGauge(const GaugeInfo& info, const MetricLabels& labels) {
  return MetricGauge(info.name, info.help, labels);
}

prometheus::Histogram& MetricHistogram(const HistogramInfo& info, const MetricLabels& labels,
                                       const std::vector<double>& buckets) {
  return MetricHistogram(info.name, info.help, labels, buckets);
}

prometheus::Counter& MetricCounter(const std::string& name, const std::string& help, const MetricLabels& labels) {
  return Guarded<prometheus::Counter>(
      name,
      [&]() -> prometheus::Counter& {
        return prometheus::BuildCounter().Name(name).Help(help).Register(Registry()).Add(labels);
      },
      []() -> prometheus::Counter& {
        static auto* const unread = new prometheus::Counter;  // One for all: nobody reads it.
        return *unread;
      });
}

prometheus::Gauge& MetricGauge(const std::string& name, const std::string& help, const MetricLabels& labels) {
  return Guarded<prometheus::Gauge>(
      name,
      [&]() -> prometheus::Gauge& {
        return prometheus::BuildGauge().Name(name).Help(help).Register(Registry()).Add(labels);
      },
      []() -> prometheus::Gauge& {
        static auto* const unread = new prometheus::Gauge;
        return *unread;
      });
}

prometheus::Histogram& MetricHistogram(const std::string& name, const std::string& help, const MetricLabels& labels,
                                       const std::vector<double>& buckets) {
  return Guarded<prometheus::Histogram>(
      name,
      [&]() -> prometheus::Histogram& {
        return prometheus::BuildHistogram().Name(name).Help(help).Register(Registry()).Add(labels, buckets);
      },
      []() -> prometheus::Histogram& {
        static auto* const unread = new prometheus::Histogram(LatencyBuckets());
        return *unread;
      });
}

const std::vector<double>& LatencyBuckets() {
  static const auto* buckets =
      new std::vector<double>{0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10};
  return *buckets;
}

namespace {

// Never destroyed, as the registry.
struct Probes {
  Mutex mu;
  std::vector<const std::function<void()>*> measures ABSL_GUARDED_BY(mu);
};
Probes& AllProbes() {
  static auto* probes = new Probes;
  return *probes;
}

}  // namespace

MetricProbe::MetricProbe(std::function<void()> measure) : measure_(std::move(measure)) {
  Probes& probes = AllProbes();
  MutexLock lock(probes.mu);
  probes.measures.push_back(&measure_);
}

MetricProbe::~MetricProbe() {
  Probes& probes = AllProbes();
  MutexLock lock(probes.mu);
  probes.measures.erase(std::find(probes.measures.begin(), probes.measures.end(), &measure_));
}

std::string SerializeMetrics() {
  {
    Probes& probes = AllProbes();
    MutexLock lock(probes.mu);
    for (const std::function<void()>* measure : probes.measures) {
      (*measure)();
    }
  }
  return prometheus::TextSerializer().Serialize(Registry().Collect());
}

RpcMetrics::RpcMetrics(const std::string& service)
    : service_(service), in_flight_(MetricGauge(kRpcInFlight, {{"service", service}})) {
  const auto* descriptor = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(service);
  std::vector<std::string> names = {"unknown"};
  for (int i = 0; descriptor != nullptr && i < descriptor->method_count(); ++i) {
    names.push_back(descriptor->method(i)->name());
  }
  for (const std::string& name : names) {
    auto method = std::make_unique<Method>();
    method->latency = &MetricHistogram(kRpcDuration, {{"service", service_}, {"method", name}});
    methods_.emplace(name, std::move(method));
  }
}

RpcMetrics::~RpcMetrics() = default;

void RpcMetrics::Count(absl::string_view method, absl::StatusCode code, absl::Duration latency) const {
  auto found = methods_.find(method);
  if (found == methods_.end()) {
    found = methods_.find("unknown");
  }
  const int index = static_cast<int>(code);
  auto& slot = found->second->by_code[static_cast<size_t>(index >= 0 && index < kCodes ? index : 2)];
  prometheus::Counter* counter = slot.load(std::memory_order_acquire);
  if (counter == nullptr) {
    // Two threads may both come here; they get the same counter.
    counter = &MetricCounter(
        kRpcRequests, {{"service", service_}, {"method", found->first}, {"code", absl::StatusCodeToString(code)}});
    slot.store(counter, std::memory_order_release);
  }
  counter->Increment();
  found->second->latency->Observe(absl::ToDoubleSeconds(latency));
}

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <google/protobuf/descriptor.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>

namespace sallyport {

using MetricLabels = std::map<std::string, std::string>;

enum class MetricType { kCounter, kGauge, kHistogram };

struct MetricLabelInfo {
  const char* name = nullptr;
  const char* values = nullptr;  // "granted, held", or what they are: "slug of the server".
};

// A metric as its reader is told of it: a constexpr variable beside the code that counts, of literals only, because
// tools/metrics reads the sources and writes docs/metrics.md from them. Every field but `labels` is required.
template <MetricType kType>
struct MetricInfo {
  const char* name = "";
  const char* help = "";           // What is counted or measured.
  const char* unit = "";           // "seconds", "bytes", "1" for a flag; otherwise what is counted: "requests".
  MetricLabelInfo labels[3] = {};  // Those that a series has, all of them.
  const char* rise = "";           // What a rise means.
  const char* action = "";         // What to do then.
};
using CounterInfo = MetricInfo<MetricType::kCounter>;
using GaugeInfo = MetricInfo<MetricType::kGauge>;
using HistogramInfo = MetricInfo<MetricType::kHistogram>;

// Metrics of the process-wide registry. Resolve them once, at construction, and keep the reference (a lookup takes a
// lock); it lives as long as the process. The same name and labels give the same metric. Label values never come from
// user input. Nothing throws: a bad name, or a name used with another type, is logged and answered with a metric nobody
// reads. The forms that take a name are for tests, which look a metric up.
prometheus::Counter& MetricCounter(const CounterInfo& info, const MetricLabels& labels = {});
prometheus::Gauge& MetricGauge(const GaugeInfo& info, const MetricLabels& labels = {});
prometheus::Counter& MetricCounter(const std::string& name, const std::string& help, const MetricLabels& labels = {});
prometheus::Gauge& MetricGauge(const std::string& name, const std::string& help, const MetricLabels& labels = {});
// `buckets`: upper bounds, ascending.
prometheus::Histogram& MetricHistogram(const std::string& name, const std::string& help, const MetricLabels& labels,
                                       const std::vector<double>& buckets);
// Seconds, 0.5 ms to 10 s.
const std::vector<double>& LatencyBuckets();
prometheus::Histogram& MetricHistogram(const HistogramInfo& info, const MetricLabels& labels,
                                       const std::vector<double>& buckets = LatencyBuckets());

// Everything registered, in the Prometheus text format 0.0.4. Runs the probes first.
std::string SerializeMetrics();

// Brings gauges up to date that are measured only when somebody reads them. Thread-safe.
class MetricProbe {
 public:
  // `measure` runs before each SerializeMetrics, one at a time with all others, on the thread that reads: it is quick,
  // and makes and ends no probe.
  explicit MetricProbe(std::function<void()> measure);
  // Waits for `measure` while it runs.
  ~MetricProbe();
  MetricProbe(const MetricProbe&) = delete;
  MetricProbe& operator=(const MetricProbe&) = delete;

 private:
  const std::function<void()> measure_;
};

// Requests, errors and durations of one gRPC service:
//   sallyport_rpc_requests_total{service,method,code}   sallyport_rpc_duration_seconds{service,method}
//   sallyport_rpc_in_flight{service}
// Each series is resolved once; Count is lock-free afterwards.
class RpcMetrics {
 public:
  // `service`: full name, "sallyport.vault.v1.Vault"; its methods come from the descriptor.
  explicit RpcMetrics(const std::string& service);
  ~RpcMetrics();
  // A request is being served from Enter to Leave; Count is apart from both.
  void Enter() const { in_flight_.Increment(); }
  void Leave() const { in_flight_.Decrement(); }
  // A method that is not the service's is counted as "unknown".
  void Count(absl::string_view method, absl::StatusCode code, absl::Duration latency) const;

 private:
  static constexpr int kCodes = 17;
  struct Method {
    prometheus::Histogram* latency = nullptr;
    std::array<std::atomic<prometheus::Counter*>, kCodes> by_code{};
  };
  std::string service_;
  prometheus::Gauge& in_flight_;
  std::map<std::string, std::unique_ptr<Method>, std::less<>> methods_;
};

}  // namespace sallyport

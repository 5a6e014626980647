// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/pool_metrics.h"

namespace sallyport::token_broker {
namespace {

constexpr GaugeInfo kBusy = {
    .name = "sallyport_broker_pool_busy_threads",
    .help = "Threads of a pool that are at work",
    .unit = "threads",
    .labels = {{"pool", "requests, behind (what nobody waits for), fetches (service tokens), refreshes"}},
    .rise =
        "Load, or slow answers: of the vault (requests), of authn and the registry (behind), of token endpoints "
        "(fetches, refreshes)",
    .action = "Compare with `sallyport_broker_pool_wait_seconds`: threads at work harm nobody as long as no task waits",
};
constexpr GaugeInfo kWait = {
    .name = "sallyport_broker_pool_wait_seconds",
    .help = "For how long the task that is next has waited for a thread; 0: none waits",
    .unit = "seconds",
    .labels = {{"pool", "requests, behind (what nobody waits for), fetches (service tokens), refreshes"}},
    .rise = "All threads of the pool are at work: callers wait",
    .action =
        "Find out what the threads wait for (see `sallyport_broker_pool_busy_threads`); for requests raise "
        "`maxThreads` or add replicas",
};

}  // namespace

std::unique_ptr<MetricProbe> WatchPool(const std::string& pool, const TaskRunner& runner) {
  return std::make_unique<MetricProbe>(
      [&runner, &busy = MetricGauge(kBusy, {{"pool", pool}}), &wait = MetricGauge(kWait, {{"pool", pool}})] {
        const TaskRunner::Load load = runner.load();
        busy.Set(static_cast<double>(load.busy));
        wait.Set(absl::ToDoubleSeconds(load.wait));
      });
}

}  // namespace sallyport::token_broker

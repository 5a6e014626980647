// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "common/metrics.h"
#include "services/token_broker/task_runner.h"

namespace sallyport::token_broker {

// sallyport_broker_pool_busy_threads{pool} and sallyport_broker_pool_wait_seconds{pool}, measured when metrics are
// read. `runner` outlives what is returned. `pool`: one of few words.
std::unique_ptr<MetricProbe> WatchPool(const std::string& pool, const TaskRunner& runner);

}  // namespace sallyport::token_broker

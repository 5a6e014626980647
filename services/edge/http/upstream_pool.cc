// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/upstream_pool.h"

#include <algorithm>

#include "services/edge/http/worker.h"

namespace sallyport::edge {

UpstreamPool::~UpstreamPool() = default;

Upstream* UpstreamPool::TakeIdle(const std::string& key) {
  const auto found = idle_.find(key);
  if (found == idle_.end()) {
    return nullptr;
  }
  std::vector<Upstream*>& idle = found->second;
  while (!idle.empty()) {
    Upstream* upstream = idle.back();
    idle.pop_back();
    --idle_count_;
    worker_.counters.upstream_idle.Subtract(1);
    if (upstream->StillGood()) {
      return upstream;
    }
    worker_.counters.upstream_stale.Add();
    upstream->CloseNow();
  }
  return nullptr;
}

Upstream& UpstreamPool::New() {
  if (free_.empty()) {
    all_.push_back(std::make_unique<Upstream>(worker_));
    return *all_.back();
  }
  Upstream& upstream = *free_.back();
  free_.pop_back();
  return upstream;
}

bool UpstreamPool::PutIdle(Upstream& upstream) {
  if (idle_count_ >= worker_.limits.upstream_idle_connections) {
    return false;
  }
  idle_[upstream.key()].push_back(&upstream);
  ++idle_count_;
  worker_.counters.upstream_idle.Add();
  return true;
}

void UpstreamPool::RemoveIdle(Upstream& upstream) {
  const auto found = idle_.find(upstream.key());
  if (found == idle_.end()) {
    return;
  }
  std::vector<Upstream*>& idle = found->second;
  if (const auto at = std::find(idle.begin(), idle.end(), &upstream); at != idle.end()) {
    idle.erase(at);
    --idle_count_;
    worker_.counters.upstream_idle.Subtract(1);
  }
  if (idle.empty()) {
    idle_.erase(found);  // Keys of servers that are gone must not pile up.
  }
}

void UpstreamPool::CloseIdle() {
  for (auto& [key, idle] : idle_) {
    for (Upstream* upstream : idle) {
      upstream->CloseNow();
    }
  }
  worker_.counters.upstream_idle.Subtract(idle_count_);
  idle_count_ = 0;
  idle_.clear();
}

}  // namespace sallyport::edge

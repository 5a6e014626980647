// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"

#include "services/edge/http/upstream.h"

namespace sallyport::edge {

// One worker's connections to upstreams: idle ones by key, most recently used first, and the objects themselves.
class UpstreamPool {
 public:
  explicit UpstreamPool(WorkerImpl& worker) : worker_(worker) {}
  ~UpstreamPool();

  // An idle connection of that key that is still open and silent, or nullptr.
  Upstream* TakeIdle(const std::string& key);
  // An object without a connection.
  Upstream& New();
  // False if there are too many already.
  bool PutIdle(Upstream& upstream);
  void RemoveIdle(Upstream& upstream);
  // The object's connection is closed and nothing of it is pending.
  void Recycle(Upstream& upstream) { free_.push_back(&upstream); }
  void CloseIdle();

 private:
  WorkerImpl& worker_;
  absl::flat_hash_map<std::string, std::vector<Upstream*>> idle_;
  size_t idle_count_ = 0;
  std::vector<std::unique_ptr<Upstream>> all_;
  std::vector<Upstream*> free_;
};

}  // namespace sallyport::edge

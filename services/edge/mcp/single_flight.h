// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

#include "common/mutex.h"

namespace sallyport::edge {

// Merges concurrent fetches of one key: the first caller fetches, all are told. Thread-safe.
template <typename Key, typename Result>
class SingleFlight {
 public:
  using Waiter = std::function<void(const Result&)>;

  // True: the caller must fetch and then Complete. The waiter is called by Complete, on its thread.
  bool Join(const Key& key, Waiter waiter) {
    MutexLock lock(mu_);
    auto [flight, first] = flights_.try_emplace(key);
    flight->second.push_back(std::move(waiter));
    return first;
  }
  void Complete(const Key& key, const Result& result) {
    std::vector<Waiter> waiters;
    {
      MutexLock lock(mu_);
      const auto flight = flights_.find(key);
      if (flight == flights_.end()) return;
      waiters.swap(flight->second);
      flights_.erase(flight);
    }
    for (const Waiter& waiter : waiters) waiter(result);
  }

 private:
  Mutex mu_;
  absl::flat_hash_map<Key, std::vector<Waiter>> flights_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::edge

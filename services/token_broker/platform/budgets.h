// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/time/time.h"

#include "common/mutex.h"

namespace sallyport::token_broker {

// Token buckets by key: so many at once, and so many a second. Times are of a clock that is never set
// (Clock::Elapsed). Thread-safe.
class Budgets {
 public:
  struct Limit {
    double per_second = 0;
    double at_once = 0;
  };
  // Of more keys that one is forgotten which is the first to have everything again: it loses, or gains, least.
  explicit Budgets(size_t max_keys) : max_keys_(max_keys) {}

  // Zero if one was taken, else how long until there will be one.
  absl::Duration Take(const std::string& key, const Limit& limit, absl::Duration now);
  // Whether one could be taken, which is left.
  absl::Duration Peek(const std::string& key, const Limit& limit, absl::Duration now) const;

 private:
  struct Bucket {
    double left = 0;
    absl::Duration at;
    Limit limit;
    absl::Duration full_at;
  };
  static double LeftAt(const Bucket& bucket, absl::Duration now);

  const size_t max_keys_;
  mutable Mutex mu_;
  std::map<std::string, Bucket> buckets_ ABSL_GUARDED_BY(mu_);
  std::set<std::pair<absl::Duration, std::string>> by_full_at_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/budgets.h"

#include <algorithm>

namespace sallyport::token_broker {
namespace {

absl::Duration WaitFor(double left, double per_second) {
  if (left >= 1) {
    return absl::ZeroDuration();
  }
  // Never zero: that means that there is one.
  return std::max(absl::Milliseconds(1), absl::Seconds((1 - left) / per_second));
}

}  // namespace

double Budgets::LeftAt(const Bucket& bucket, absl::Duration now) {
  const double earned = absl::ToDoubleSeconds(now - bucket.at) * bucket.limit.per_second;
  return std::min(bucket.limit.at_once, bucket.left + std::max(0.0, earned));
}

absl::Duration Budgets::Take(const std::string& key, const Limit& limit, absl::Duration now) {
  MutexLock lock(mu_);
  auto found = buckets_.find(key);
  if (found == buckets_.end()) {
    if (buckets_.size() >= max_keys_) {
      buckets_.erase(by_full_at_.begin()->second);
      by_full_at_.erase(by_full_at_.begin());
    }
    found = buckets_.emplace(key, Bucket{limit.at_once, now, limit, now}).first;
  } else {
    by_full_at_.erase({found->second.full_at, key});
  }
  Bucket& bucket = found->second;
  bucket.limit = limit;
  bucket.left = LeftAt(bucket, now);
  bucket.at = now;
  const absl::Duration wait = WaitFor(bucket.left, limit.per_second);
  if (wait == absl::ZeroDuration()) {
    bucket.left -= 1;
  }
  bucket.full_at = now + absl::Seconds((limit.at_once - bucket.left) / limit.per_second);
  by_full_at_.emplace(bucket.full_at, key);
  return wait;
}

absl::Duration Budgets::Peek(const std::string& key, const Limit& limit, absl::Duration now) const {
  MutexLock lock(mu_);
  const auto found = buckets_.find(key);
  return found == buckets_.end() ? absl::ZeroDuration() : WaitFor(LeftAt(found->second, now), limit.per_second);
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <list>
#include <string>
#include <unordered_map>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/mutex.h"

namespace sallyport::authn {

// A token bucket: `burst` at once, then one every `interval`. Not thread-safe: RateLimit and RateLimits are.
class TokenBucket {
 public:
  TokenBucket(int burst, absl::Duration interval) : burst_(burst), interval_(interval) {}

  // Takes one if there is one.
  bool Take(absl::Time now) {
    // `full_at_` is when the bucket will be full again: each one taken puts it off by an interval.
    const absl::Time full_at = std::max(full_at_, now);
    if (full_at + interval_ > now + interval_ * burst_) {
      return false;
    }
    full_at_ = full_at + interval_;
    return true;
  }
  // How long until Take can succeed.
  absl::Duration RetryAfter(absl::Time now) const {
    return std::max(absl::ZeroDuration(), full_at_ + interval_ - interval_ * burst_ - now);
  }

 private:
  int burst_;
  absl::Duration interval_;
  absl::Time full_at_ = absl::InfinitePast();
};

// One bucket for all. Thread-safe.
class RateLimit {
 public:
  RateLimit(int burst, absl::Duration interval) : bucket_(burst, interval) {}

  bool Take(absl::Time now) {
    MutexLock lock(mu_);
    return bucket_.Take(now);
  }
  absl::Duration RetryAfter(absl::Time now) const {
    MutexLock lock(mu_);
    return bucket_.RetryAfter(now);
  }

 private:
  mutable Mutex mu_;
  TokenBucket bucket_ ABSL_GUARDED_BY(mu_);
};

// A bucket per key, for `max_keys` keys: beyond, the one whose last Take was longest ago is forgotten, which fills it.
// Thread-safe.
class RateLimits {
 public:
  RateLimits(int burst, absl::Duration interval, size_t max_keys) : new_(burst, interval), max_keys_(max_keys) {}

  // Zero: taken. Else how long until one of this key's can be.
  absl::Duration Take(absl::string_view key, absl::Time now) {
    MutexLock lock(mu_);
    const auto known = by_key_.find(std::string(key));
    if (known != by_key_.end()) {
      used_.splice(used_.begin(), used_, known->second);
    } else {
      if (used_.size() >= max_keys_) {
        by_key_.erase(used_.back().key);
        used_.pop_back();
      }
      used_.push_front({std::string(key), new_});
      by_key_[used_.front().key] = used_.begin();
    }
    TokenBucket& bucket = used_.front().bucket;
    return bucket.Take(now) ? absl::ZeroDuration() : bucket.RetryAfter(now);
  }

 private:
  struct Entry {
    std::string key;
    TokenBucket bucket;
  };

  const TokenBucket new_;
  const size_t max_keys_;
  Mutex mu_;
  std::list<Entry> used_ ABSL_GUARDED_BY(mu_);  // The last used first.
  std::unordered_map<std::string, std::list<Entry>::iterator> by_key_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::authn

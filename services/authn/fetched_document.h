// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/error.h"
#include "common/mutex.h"
#include "services/authn/errors.h"

namespace sallyport::authn {

struct FetchTiming {
  // Used without asking this long.
  absl::Duration fresh;
  // Between attempts while an older one is held.
  absl::Duration min_refetch;
  // Between attempts while there is none.
  absl::Duration first_retry;
  // The last good one is used this long after it was fetched, while the source is down.
  absl::Duration stale;
};

// A document somebody else publishes, parsed. Thread-safe; at most one fetch at a time, during which everybody who can
// do with the old one goes on with it.
template <typename T>
class FetchedDocument {
 public:
  explicit FetchedDocument(const FetchTiming& timing) : timing_(timing) {}

  // `enough(const T&)`: does the held one do? If not, it is fetched again, but not sooner than min_refetch after the
  // last attempt; then the held one comes back as it is. `fetch()` gives StatusOr<T> and runs without a lock.
  template <typename Enough, typename Fetch>
  absl::StatusOr<std::shared_ptr<const T>> Get(absl::Time now, Enough enough, Fetch fetch) {
    mu_.Lock();
    while (true) {
      const bool held = value_ != nullptr && now < fetched_at_ + timing_.stale;
      const bool sufficient = held && enough(*value_);
      const bool wanted = !sufficient || now >= fetched_at_ + timing_.fresh;
      const bool due = wanted && now >= tried_at_ + (held ? timing_.min_refetch : timing_.first_retry);
      if (!due || (fetching_ && sufficient)) {
        absl::StatusOr<std::shared_ptr<const T>> result = error_;
        if (held) {
          result = value_;
        }
        mu_.Unlock();
        return result;
      }
      if (fetching_) {
        done_.wait(mu_);
        continue;
      }
      fetching_ = true;
      mu_.Unlock();
      absl::StatusOr<T> fetched = fetch();
      mu_.Lock();
      fetching_ = false;
      tried_at_ = now;
      if (fetched.ok()) {
        value_ = std::make_shared<const T>(*std::move(fetched));
        fetched_at_ = now;
      } else {
        error_ = WithRetryAfter(fetched.status(), timing_.first_retry);
      }
      done_.notify_all();
    }
  }

 private:
  const FetchTiming timing_;
  Mutex mu_;
  std::condition_variable_any done_;
  std::shared_ptr<const T> value_;
  absl::Status error_ = KeysUnavailable("never fetched");
  absl::Time fetched_at_ = absl::InfinitePast();
  absl::Time tried_at_ = absl::InfinitePast();
  bool fetching_ = false;
};

}  // namespace sallyport::authn

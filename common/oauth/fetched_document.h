// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/error.h"
#include "common/mutex.h"

namespace sallyport::oauth {

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

  // How what Get gave came about.
  struct Lookup {
    // When the source was last asked with success.
    absl::Time fetched_at = absl::InfinitePast();
    // That was during this Get.
    bool fresh = false;
    // From when on it may be asked again.
    absl::Duration retry_after = absl::ZeroDuration();
  };

  // `enough(const T&)`: does the held one do? If not, it is fetched again, but not sooner than min_refetch after the
  // last attempt; then the held one comes back as it is. `fetch()` gives StatusOr<T> and runs without a lock. Its error
  // comes back with retry_after.
  template <typename Enough, typename Fetch>
  absl::StatusOr<std::shared_ptr<const T>> Get(absl::Time now, Enough enough, Fetch fetch, Lookup* lookup = nullptr) {
    mu_.Lock();
    const uint64_t before = fetches_;
    while (true) {
      const bool held = IsHeld(now);
      const bool sufficient = held && enough(*value_);
      const bool wanted = !sufficient || now >= fetched_at_ + timing_.fresh;
      if (!wanted || !IsDue(now, held) || (fetching_ && sufficient)) {
        absl::StatusOr<std::shared_ptr<const T>> result = error_;
        if (held) {
          result = value_;
        }
        if (lookup != nullptr) {
          *lookup = {fetched_at_, fetches_ != before, DueAt(held) - now};
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
        ++fetches_;
      } else {
        error_ = WithRetryAfter(fetched.status(), timing_.first_retry);
      }
      done_.notify_all();
    }
  }

  // What is held, without a fetch: null if there is none. `due` is set for one caller at a time, who must then Get it
  // on a thread that may wait.
  std::shared_ptr<const T> Peek(absl::Time now, bool* due) {
    MutexLock lock(mu_);
    const bool held = IsHeld(now);
    const bool wanted = !held || now >= fetched_at_ + timing_.fresh;
    *due = wanted && !fetching_ && IsDue(now, held) && now >= peeked_at_ + timing_.first_retry;
    peeked_at_ = *due ? now : peeked_at_;
    return held ? value_ : nullptr;
  }

 private:
  bool IsHeld(absl::Time now) const { return value_ != nullptr && now < fetched_at_ + timing_.stale; }
  absl::Time DueAt(bool held) const { return tried_at_ + (held ? timing_.min_refetch : timing_.first_retry); }
  bool IsDue(absl::Time now, bool held) const { return now >= DueAt(held); }

  const FetchTiming timing_;
  Mutex mu_;
  std::condition_variable_any done_;
  std::shared_ptr<const T> value_;
  absl::Status error_ = absl::UnavailableError("never fetched");
  absl::Time fetched_at_ = absl::InfinitePast();
  absl::Time tried_at_ = absl::InfinitePast();
  absl::Time peeked_at_ = absl::InfinitePast();
  uint64_t fetches_ = 0;  // That succeeded.
  bool fetching_ = false;
};

// Documents by name (a URL, an issuer). Above kMax the one that was not used for longest is forgotten. Thread-safe.
template <typename T>
class FetchedDocuments {
 public:
  static constexpr size_t kMax = 512;

  explicit FetchedDocuments(const FetchTiming& timing) : timing_(timing) {}

  std::shared_ptr<FetchedDocument<T>> Of(const std::string& name, absl::Time now) {
    MutexLock lock(mu_);
    auto it = entries_.find(name);
    if (it == entries_.end()) {
      if (entries_.size() >= kMax) {
        entries_.erase(std::min_element(entries_.begin(), entries_.end(), [](const auto& a, const auto& b) {
          return a.second.used_at < b.second.used_at;
        }));
      }
      it = entries_.emplace(name, Entry{std::make_shared<FetchedDocument<T>>(timing_), now}).first;
    }
    it->second.used_at = now;
    return it->second.document;
  }

 private:
  struct Entry {
    std::shared_ptr<FetchedDocument<T>> document;
    absl::Time used_at;
  };
  const FetchTiming timing_;
  Mutex mu_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::oauth

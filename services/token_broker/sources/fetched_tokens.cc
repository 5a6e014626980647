// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/fetched_tokens.h"

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "services/token_broker/errors.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kFirstPause = absl::Seconds(1);
constexpr absl::Duration kLongestPause = absl::Seconds(60);
// A token that was fetched because one before it was refused, and is refused as well, is not fetched again within.
constexpr absl::Duration kForcedApart = absl::Seconds(30);

ConnectionKey SharedKey(const std::string& key) { return {"", key}; }

absl::Duration PauseAfter(int failures, const absl::Status& failure) {
  const absl::Duration pause = std::min(kLongestPause, kFirstPause * (1 << std::min(failures - 1, 6)));
  return std::max(pause, DetailOf(failure).retry_after);
}

// The failure of a while ago, for those who come before it is tried again.
absl::Status Again(const absl::Status& failure, absl::Duration wait) {
  if (!absl::IsUnavailable(failure)) {
    return failure;
  }
  ErrorDetail detail = DetailOf(failure);
  detail.retry_after = std::max(wait, absl::Seconds(1));
  return WithDetail(absl::UnavailableError(failure.message()), detail);
}

}  // namespace

bool FetchedTokens::IsUsable(const Entry& entry, int64_t refused_version, absl::Time now) const {
  return entry.token != nullptr && token_broker::IsUsable(entry.token->times, now) &&
         (refused_version == 0 || entry.token->version != refused_version);
}

FetchedTokens::Entry& FetchedTokens::Touch(const std::string& key) {
  const auto [found, fresh] = entries_.try_emplace(key);
  if (fresh) {
    found->second.used = order_.insert(order_.end(), key);
    // Those who wait for one are never dropped: they hold an entry each.
    for (auto oldest = order_.begin(); entries_.size() > options_.max_tokens && oldest != order_.end();) {
      const auto entry = entries_.find(*oldest);
      if (entry->second.fetching || entry == found) {
        ++oldest;
        continue;
      }
      entries_.erase(entry);
      oldest = order_.erase(oldest);
    }
  } else {
    order_.splice(order_.end(), order_, found->second.used);
  }
  return found->second;
}

void FetchedTokens::TakeShared(const std::string& key, int64_t refused_version) {
  const SharedConnection shared = options_.shared->GetShared(SharedKey(key), "");
  if (shared == nullptr || shared->version == refused_version || !IsFresh(shared->times, key, clock_.Now())) {
    return;
  }
  MutexLock lock(mu_);
  Entry& entry = Touch(key);
  if (entry.token == nullptr || entry.token->version < shared->version) {
    entry.token = shared;
    entry.forced = false;
  }
}

FetchedTokens::Step FetchedTokens::Decide(const std::string& key, int64_t refused_version, Done& done) {
  MutexLock lock(mu_);
  const absl::Time now = clock_.Now();
  Entry& entry = Touch(key);
  const bool refused = refused_version != 0 && entry.token != nullptr && entry.token->version == refused_version;
  Step step;
  if (IsUsable(entry, refused_version, now)) {
    step.answer = entry.token;
    // Behind the caller, who has a token that is good for a while.
    step.start = !IsFresh(entry.token->times, key, now) && !entry.fetching && now >= entry.retry_at;
  } else if (entry.fetching) {
    entry.waiting.push_back(std::move(done));
    step.waits = true;
  } else if (refused && entry.forced && now < entry.token->times.obtained_at + kForcedApart) {
    step.answer = error::CredentialRefused();
  } else if (now < entry.retry_at) {
    step.answer = Again(entry.failure, entry.retry_at - now);
  } else {
    entry.waiting.push_back(std::move(done));
    step.waits = true;
    step.start = true;
    step.forced = refused;
  }
  entry.fetching = entry.fetching || step.start;
  return step;
}

FetchedTokens::StartFetch FetchedTokens::InLane(FetchLanes& lanes, std::string lane, Fetch fetch) {
  return [&lanes, lane = std::move(lane), fetch = std::move(fetch)](const Fetched& done) {
    if (!lanes.Post(lane, [fetch, done] { done(fetch()); })) {
      done(error::TooManyWait());
    }
  };
}

void FetchedTokens::Get(const std::string& key, int64_t refused_version, const StartFetch& start, Done done) {
  if (options_.shared != nullptr && LacksFresh(key, refused_version)) {
    TakeShared(key, refused_version);
  }
  const Step step = Decide(key, refused_version, done);
  if (!step.waits) {
    done(step.answer);
  }
  if (step.start) {
    start([this, key, forced = step.forced](absl::StatusOr<std::shared_ptr<ConnectionView>> fetched) {
      Finish(key, forced, std::move(fetched));
    });
  }
}

bool FetchedTokens::LacksFresh(const std::string& key, int64_t refused_version) {
  MutexLock lock(mu_);
  const absl::Time now = clock_.Now();
  const Entry& entry = Touch(key);
  return !entry.fetching && !(IsUsable(entry, refused_version, now) && IsFresh(entry.token->times, key, now));
}

void FetchedTokens::Finish(const std::string& key, bool forced,
                           absl::StatusOr<std::shared_ptr<ConnectionView>> fetched) {
  absl::StatusOr<SharedConnection> answer = SharedConnection();
  std::vector<Done> waiting;
  {
    MutexLock lock(mu_);
    const absl::Time now = clock_.Now();
    Entry& entry = Touch(key);
    entry.fetching = false;
    waiting.swap(entry.waiting);
    if (fetched.ok()) {
      // Replicas number alike without asking each other.
      const int64_t last = entry.token == nullptr ? 0 : entry.token->version;
      (*fetched)->version = std::max(last + 1, absl::ToUnixMicros(now));
      entry.token = *fetched;
      entry.forced = forced;
      entry.failures = 0;
      entry.retry_at = absl::InfinitePast();
      answer = entry.token;
    } else {
      answer = entry.failure = fetched.status();
      entry.retry_at = now + PauseAfter(++entry.failures, entry.failure);
    }
  }
  if (answer.ok() && options_.shared != nullptr) {
    options_.shared->Put(SharedKey(key), *answer, /*share=*/true, "");
  }
  for (Done& done : waiting) {
    done(answer);
  }
}

SharedConnection FetchedTokens::Usable(const std::string& key, int64_t refused_version) {
  MutexLock lock(mu_);
  const auto found = entries_.find(key);
  return found != entries_.end() && IsUsable(found->second, refused_version, clock_.Now()) ? found->second.token
                                                                                           : nullptr;
}

size_t FetchedTokens::size() const {
  MutexLock lock(mu_);
  return entries_.size();
}

}  // namespace sallyport::token_broker

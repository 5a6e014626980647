// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/token_cache.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "common/json_log.h"
#include "common/metrics.h"

namespace sallyport::token_broker {
namespace {

// Values of yesterday are looked for as long as there may be any.
constexpr absl::Duration kMaxTtl = CacheRoots::kOverlap;

constexpr CounterInfo kOpenFailures = {
    .name = "sallyport_broker_cache_open_failures_total",
    .help = "Values of the token cache in Redis that did not open under their own key",
    .unit = "values",
    .rise = "Somebody else writes to the Redis, or edits it",
    .action =
        "Give the Redis a password or ACL of its own, and find out who else can write there. No token was used: "
        "the vault answered instead",
};

prometheus::Counter& OpenFailures() {
  static prometheus::Counter& failures = MetricCounter(kOpenFailures);
  return failures;
}

}  // namespace

TokenCache::TokenCache(VaultClient& vault, RedisClient* redis, const Clock& clock, size_t max_entries)
    : redis_(redis), clock_(clock), roots_(vault, clock, max_entries), entries_(max_entries), floors_(max_entries) {
  OpenFailures();  // There from the start: an alert must see the first one as a rise from 0.
}

SharedConnection TokenCache::Get(const ConnectionKey& key, absl::Duration max_age) {
  const absl::Time now = clock_.Now();
  MutexLock lock(mu_);
  const Entry* found = entries_.Find(key.ToString());
  return found != nullptr && now - found->since <= max_age ? found->view : nullptr;
}

SharedConnection TokenCache::GetShared(const ConnectionKey& key, const std::string& passport) {
  if (redis_ == nullptr) {
    return nullptr;
  }
  const OfDay<CacheNames> names = roots_.Names();
  for (const auto& name : {names.current, names.former}) {
    if (name == nullptr) {
      return nullptr;
    }
    const std::string redis_key = name->KeyFor(key);
    const absl::StatusOr<std::optional<std::string>> value = redis_->Get(redis_key);
    if (!value.ok()) {
      return nullptr;
    }
    if (!value->has_value()) {
      continue;
    }
    if (IsOutdated(key, **value)) {
      return nullptr;
    }
    bool spoiled = false;
    SharedConnection view = OpenShared(key, **value, redis_key, roots_.SealerOf(key.subject, passport), spoiled);
    if (spoiled) {
      redis_->Delete(redis_key).IgnoreError();
    }
    return view;
  }
  return nullptr;
}

bool TokenCache::TryGetShared(const ConnectionKey& key, std::function<void(SharedConnection)> done) {
  const OfDay<CacheNames> names = redis_ == nullptr ? OfDay<CacheNames>() : roots_.KnownNames();
  const OfDay<CacheSealer> sealers = names.current == nullptr ? OfDay<CacheSealer>() : roots_.KnownSealers(key.subject);
  if (sealers.current == nullptr) {
    return false;
  }
  AskShared(key, names, sealers, std::move(done));
  return true;
}

void TokenCache::AskShared(const ConnectionKey& key, const OfDay<CacheNames>& names, const OfDay<CacheSealer>& sealers,
                           std::function<void(SharedConnection)> done) {
  std::string redis_key = names.current->KeyFor(key);
  redis_->GetAsync(redis_key, [this, key, redis_key, former = names.former, sealers,
                               done = std::move(done)](const absl::StatusOr<std::optional<std::string>>& value) {
    if (value.ok() && !value->has_value() && former != nullptr) {
      return AskShared(key, {.current = former, .former = nullptr}, sealers, done);
    }
    if (!value.ok() || !value->has_value() || IsOutdated(key, **value)) {
      return done(nullptr);
    }
    bool spoiled = false;
    SharedConnection view = OpenShared(key, **value, redis_key, sealers, spoiled);
    if (spoiled) {
      redis_->DeleteAsync(redis_key);
    }
    done(std::move(view));
  });
}

bool TokenCache::IsOutdated(const ConnectionKey& key, absl::string_view value) {
  const std::optional<int64_t> generation = CacheSealer::GenerationOf(value);
  MutexLock lock(mu_);
  const Floor* floor = floors_.Find(key.ToString());
  return generation.has_value() && floor != nullptr && *generation < floor->generation &&
         *generation != floor->healed.first;
}

SharedConnection TokenCache::OpenShared(const ConnectionKey& key, const std::string& value,
                                        const std::string& redis_key, const OfDay<CacheSealer>& sealers,
                                        bool& spoiled) {
  if (sealers.current == nullptr) {
    return nullptr;
  }
  absl::StatusOr<SharedConnection> view = sealers.current->Open(key, value, redis_key);
  if (absl::IsNotFound(view.status()) && sealers.former != nullptr) {
    view = sealers.former->Open(key, value, redis_key);
  }
  spoiled = !view.ok() && !absl::IsNotFound(view.status());
  if (spoiled) {
    OpenFailures().Increment();
    Log(LogLevel::kWarning, "cache_value_does_not_open");
  }
  if (!view.ok() || !IsUsable((*view)->times, clock_.Now()) || (*view)->provenance.token_origin().empty()) {
    return nullptr;
  }
  {
    MutexLock lock(mu_);
    if (!IsBelieved(key.ToString(), **view)) {
      return nullptr;
    }
  }
  Put(key, *view, /*share=*/false, "");
  return *view;
}

void TokenCache::Put(const ConnectionKey& key, const SharedConnection& view, bool share, const std::string& passport) {
  const absl::Time now = clock_.Now();
  const std::string text = key.ToString();
  {
    MutexLock lock(mu_);
    // Whoever has seen a generation believes none before it, whether or not an invalidation has come.
    if (const Floor* floor = floors_.Find(text); floor == nullptr || floor->generation < view->generation) {
      RaiseFloor(text, view->generation);
    }
    if (view->state != ConnectionView::State::kLinked || !IsBelieved(text, *view)) {
      entries_.Erase(text);
      return;
    }
    Entry& entry = entries_.At(text);
    const bool older = entry.view != nullptr && std::make_pair(entry.view->generation, entry.view->version) >
                                                    std::make_pair(view->generation, view->version);
    if (!older) {
      entry = {view, now};
    }
  }
  if (share && redis_ != nullptr && IsUsable(view->times, now)) {
    Share(key, *view, now, passport);
  }
}

void TokenCache::Share(const ConnectionKey& key, const ConnectionView& view, absl::Time now,
                       const std::string& passport) {
  // A connection of an earlier release is shared once it says where it came from.
  if (!view.provenance_sealed || view.provenance.token_origin().empty()) {
    return;
  }
  const OfDay<CacheNames> names = roots_.Names();
  const std::shared_ptr<const CacheSealer> sealer =
      names.current != nullptr ? roots_.SealerOf(key.subject, passport).current : nullptr;
  if (sealer == nullptr) {
    return;
  }
  const absl::Duration ttl = std::min(kMaxTtl, view.times.expires_at - now - ExpirySkew(view.times));
  const std::string redis_key = names.current->KeyFor(key);
  const absl::StatusOr<std::string> sealed = sealer->Seal(key, view, redis_key);
  if (!sealed.ok() || ttl <= absl::Milliseconds(1)) {
    return;
  }
  redis_->Set(redis_key, *sealed, ttl).IgnoreError();
  redis_->Publish(kDoorbell, redis_key).IgnoreError();
  if (names.former != nullptr) {
    // What this replaces has its name of yesterday, as have replicas that began to wait for it before midnight.
    const std::string former_key = names.former->KeyFor(key);
    redis_->Delete(former_key).IgnoreError();
    redis_->Publish(kDoorbell, former_key).IgnoreError();
  }
}

uint64_t TokenCache::Mark() const {
  MutexLock lock(mu_);
  return heard_;
}

void TokenCache::PutRead(const ConnectionKey& key, const SharedConnection& view, uint64_t mark) {
  {
    MutexLock lock(mu_);
    Floor* found = floors_.Find(key.ToString());
    // A read that was under way when the floor was raised may have seen what has ended since.
    if (found != nullptr && found->heard <= mark && view->generation < found->generation) {
      const bool linked = view->state == ConnectionView::State::kLinked;
      found->healed = linked ? std::make_pair(view->generation, view->version) : std::pair<int64_t, int64_t>();
    }
  }
  Put(key, view, /*share=*/false, "");
}

bool TokenCache::IsBelieved(const std::string& key_text, const ConnectionView& view) {
  const Floor* floor = floors_.Find(key_text);
  return floor == nullptr || view.generation >= floor->generation ||
         std::make_pair(view.generation, view.version) == floor->healed;
}

std::string TokenCache::DoorbellKey(const ConnectionKey& key) {
  const std::shared_ptr<const CacheNames> names = redis_ == nullptr ? nullptr : roots_.Names().current;
  return names == nullptr ? "" : names->KeyFor(key);
}

void TokenCache::Invalidate(const std::string& key_text, int64_t generation) {
  MutexLock lock(mu_);
  RaiseFloor(key_text, generation);
  const Entry* found = entries_.Find(key_text);
  if (found != nullptr && found->view->generation < generation) {
    entries_.Erase(key_text);
  }
}

void TokenCache::Forget(const ConnectionKey& key, int64_t generation) {
  Invalidate(key.ToString(), generation);
  if (redis_ == nullptr) {
    return;
  }
  const OfDay<CacheNames> names = roots_.Names();
  for (const auto& name : {names.current, names.former}) {
    if (name != nullptr) {
      redis_->Delete(name->KeyFor(key)).IgnoreError();
    }
  }
}

void TokenCache::RaiseFloor(const std::string& key_text, int64_t generation) {
  Floor& floor = floors_.At(key_text);
  floor.generation = std::max(floor.generation, generation);
  floor.heard = ++heard_;
  floor.healed = {0, 0};
}

void TokenCache::InvalidateSubject(const std::string& subject) {
  {
    MutexLock lock(mu_);
    entries_.ErasePrefix(subject + "\n");
  }
  roots_.Forget(subject);
}

void TokenCache::Clear() {
  MutexLock lock(mu_);
  entries_.Clear();
}

}  // namespace sallyport::token_broker

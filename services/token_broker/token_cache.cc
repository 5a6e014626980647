// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/token_cache.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/hex.h"
#include "sallyport/token_broker/v1/state.pb.h"

namespace sallyport::token_broker {
namespace {

constexpr char kMagic[] = "SPC2";
constexpr size_t kHeaderSize = 20;
constexpr absl::Duration kMaxTtl = absl::Hours(1);
constexpr absl::Duration kRootRetry = absl::Seconds(1);

// Lengths before the parts: "a" + "bc" must not be "ab" + "c".
std::string Canonical(const ConnectionKey& key) {
  return absl::StrCat(key.subject.size(), ":", key.subject, key.connection.size(), ":", key.connection);
}

void AppendBigEndian(uint64_t value, int bytes, std::string& out) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>((value >> shift) & 0xff));
  }
}

int64_t DayOf(absl::Time now) { return absl::ToUnixSeconds(now) / 86'400; }

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

std::string CacheNames::KeyFor(const ConnectionKey& key) const {
  const Secret mac_key = HkdfExpandSha256(root_.Expose(), "sallyport cache names v1", 32);
  return absl::StrCat("sallyport:token:", HexEncode(HmacSha256(mac_key.Expose(), Canonical(key))));
}

std::string CacheSealer::Header(int64_t generation) const {
  std::string header = kMagic;
  AppendBigEndian(static_cast<uint64_t>(generation), 8, header);
  AppendBigEndian(static_cast<uint64_t>(day_), 4, header);
  AppendBigEndian(static_cast<uint64_t>(key_version_), 4, header);
  return header;
}

Secret CacheSealer::ValueKey(const ConnectionKey& key, int64_t generation) const {
  return HkdfExpandSha256(root_.Expose(), absl::StrCat("sallyport cache values v1 ", generation, " ", Canonical(key)),
                          kAeadKeySize);
}

absl::StatusOr<std::string> CacheSealer::Seal(const ConnectionKey& key, const ConnectionView& view,
                                              absl::string_view redis_key) const {
  v1::CachedToken token;
  token.set_access_token(std::string(view.access_token.Expose()));
  if (view.times.expires_at != absl::InfiniteFuture()) {
    *token.mutable_expires_at() = ToTimestamp(view.times.expires_at);
  }
  if (view.times.obtained_at != absl::InfinitePast()) {
    *token.mutable_obtained_at() = ToTimestamp(view.times.obtained_at);
  }
  token.set_version(view.version);
  token.set_can_refresh(view.can_refresh);
  *token.mutable_provenance() = view.provenance;
  if (!view.consent.server_uid().empty()) {
    *token.mutable_consent() = view.consent;
  }
  *token.mutable_scopes() = {view.scopes.begin(), view.scopes.end()};
  token.set_account_name(view.account_name);
  const std::string header = Header(view.generation);
  ASSIGN_OR_RETURN(const std::string sealed, AeadSeal(ValueKey(key, view.generation), token.SerializeAsString(),
                                                      absl::StrCat(header, redis_key)));
  return absl::StrCat(header, sealed);
}

std::optional<int64_t> CacheSealer::GenerationOf(absl::string_view value) {
  if (value.size() < kHeaderSize || !absl::StartsWith(value, kMagic)) {
    return std::nullopt;
  }
  uint64_t generation = 0;
  for (size_t i = 4; i < 12; ++i) {
    generation = generation << 8 | static_cast<unsigned char>(value[i]);
  }
  return static_cast<int64_t>(generation);
}

absl::StatusOr<SharedConnection> CacheSealer::Open(const ConnectionKey& key, absl::string_view value,
                                                   absl::string_view redis_key) const {
  const std::optional<int64_t> generation = GenerationOf(value);
  if (!generation.has_value()) {
    return absl::DataLossError("cannot open");
  }
  const absl::string_view header = value.substr(0, kHeaderSize);
  if (header != Header(*generation)) {
    return absl::NotFoundError("sealed under another root");  // Of yesterday, or of a data key that has been replaced.
  }
  absl::StatusOr<Secret> plain =
      AeadOpen(ValueKey(key, *generation), value.substr(kHeaderSize), absl::StrCat(header, redis_key));
  if (!plain.ok()) {
    return plain.status();
  }
  v1::CachedToken token;
  if (!token.ParseFromArray(plain->Expose().data(), static_cast<int>(plain->Expose().size()))) {
    return absl::DataLossError("cannot open");
  }
  auto view = std::make_shared<ConnectionView>();
  view->state = ConnectionView::State::kLinked;
  view->generation = *generation;
  view->version = token.version();
  view->access_token = Secret(std::move(*token.mutable_access_token()));
  view->times.expires_at = token.has_expires_at() ? FromTimestamp(token.expires_at()) : absl::InfiniteFuture();
  view->times.obtained_at = token.has_obtained_at() ? FromTimestamp(token.obtained_at()) : absl::InfinitePast();
  view->can_refresh = token.can_refresh();
  view->provenance = std::move(*token.mutable_provenance());
  view->provenance_sealed = true;
  view->consent = std::move(*token.mutable_consent());
  view->account_name = std::move(*token.mutable_account_name());
  view->scopes.assign(token.scopes().begin(), token.scopes().end());
  return SharedConnection(std::move(view));
}

TokenCache::TokenCache(VaultClient& vault, RedisClient* redis, const Clock& clock)
    : vault_(vault), redis_(redis), clock_(clock) {
  OpenFailures();  // There from the start: an alert must see the first one as a rise from 0.
}

SharedConnection TokenCache::Get(const ConnectionKey& key, absl::Duration max_age) const {
  const absl::Time now = clock_.Now();
  MutexLock lock(mu_);
  const auto found = entries_.find(key.ToString());
  return found != entries_.end() && now - found->second.since <= max_age ? found->second.view : nullptr;
}

std::shared_ptr<const CacheNames> TokenCache::Names() {
  const absl::Time now = clock_.Now();
  {
    MutexLock lock(mu_);
    if (now < names_.retry || (names_.made != nullptr && names_.day == DayOf(now))) {
      return names_.made;  // Perhaps yesterday's: others read under it as well.
    }
    names_.retry = now + kRootRetry;
  }
  vault::v1::GetCacheRootsRequest request;
  request.set_owner_type(vault::v1::ORG);
  request.set_owner_id("default");
  absl::StatusOr<vault::v1::GetCacheRootsResponse> roots = vault_.GetCacheRoots(request, "");
  if (!roots.ok() || roots->roots().empty() || roots->roots(0).root().size() != 32) {
    return nullptr;
  }
  MutexLock lock(mu_);
  // The vault's day, whatever our clock says of it: replicas must derive the same keys.
  names_.made = std::make_shared<const CacheNames>(Secret(std::move(*roots->mutable_roots(0)->mutable_root())));
  names_.day = roots->roots(0).day();
  return names_.made;
}

std::shared_ptr<const CacheSealer> TokenCache::SealerOf(const std::string& subject, const std::string& passport) {
  const absl::Time now = clock_.Now();
  {
    MutexLock lock(mu_);
    const auto found = sealers_.find(subject);
    if (passport.empty() && !subject.empty()) {
      return found == sealers_.end() ? nullptr : found->second.made;
    }
    if (found != sealers_.end() &&
        (now < found->second.retry || (found->second.made != nullptr && found->second.day == DayOf(now)))) {
      return found->second.made;
    }
    if (sealers_.size() >= kMaxEntries) {
      sealers_.clear();  // They come back with the next calls.
    }
    sealers_[subject].retry = now + kRootRetry;
  }
  vault::v1::GetCacheRootsRequest request;
  // The organization's own root opens by the broker's identity.
  request.set_owner_type(subject.empty() ? vault::v1::ORG : vault::v1::USER);
  request.set_owner_id(subject.empty() ? "default" : subject);
  absl::StatusOr<vault::v1::GetCacheRootsResponse> roots = vault_.GetCacheRoots(request, passport);
  if (!roots.ok() || roots->roots().empty() || roots->roots(0).root().size() != 32) {
    return nullptr;
  }
  auto& newest = *roots->mutable_roots(0);
  MutexLock lock(mu_);
  Rooted<CacheSealer>& known = sealers_[subject];
  known.made = std::make_shared<const CacheSealer>(Secret(std::move(*newest.mutable_root())), newest.day(),
                                                   newest.key_version());
  known.day = newest.day();
  return known.made;
}

SharedConnection TokenCache::GetShared(const ConnectionKey& key, const std::string& passport) {
  if (redis_ == nullptr) {
    return nullptr;
  }
  const std::shared_ptr<const CacheNames> names = Names();
  if (names == nullptr) {
    return nullptr;
  }
  const std::string redis_key = names->KeyFor(key);
  absl::StatusOr<std::optional<std::string>> value = redis_->Get(redis_key);
  if (!value.ok() || !value->has_value()) {
    return nullptr;
  }
  const std::optional<int64_t> generation = CacheSealer::GenerationOf(**value);
  {
    MutexLock lock(mu_);
    const auto floor = floors_.find(key.ToString());
    if (generation.has_value() && floor != floors_.end() && *generation < floor->second.generation &&
        *generation != floor->second.healed.first) {
      return nullptr;
    }
  }
  const std::shared_ptr<const CacheSealer> sealer = SealerOf(key.subject, passport);
  if (sealer == nullptr) {
    return nullptr;
  }
  absl::StatusOr<SharedConnection> view = sealer->Open(key, **value, redis_key);
  if (absl::IsNotFound(view.status())) {
    return nullptr;
  }
  if (!view.ok()) {
    OpenFailures().Increment();
    Log(LogLevel::kWarning, "cache_value_does_not_open");
    redis_->Delete(redis_key).IgnoreError();
    return nullptr;
  }
  if (!IsUsable((*view)->times, clock_.Now()) || (*view)->provenance.token_origin().empty()) {
    return nullptr;
  }
  {
    MutexLock lock(mu_);
    if (!IsBelieved(key.ToString(), **view)) {
      return nullptr;
    }
  }
  Put(key, *view, /*share=*/false, passport);
  return *view;
}

void TokenCache::Put(const ConnectionKey& key, const SharedConnection& view, bool share, const std::string& passport) {
  const absl::Time now = clock_.Now();
  const std::string text = key.ToString();
  {
    MutexLock lock(mu_);
    // Whoever has seen a generation believes none before it, whether or not an invalidation has come.
    if (const auto floor = floors_.find(text); floor == floors_.end() || floor->second.generation < view->generation) {
      RaiseFloor(text, view->generation);
    }
    if (view->state != ConnectionView::State::kLinked || !IsBelieved(text, *view)) {
      entries_.erase(text);
      return;
    }
    if (entries_.size() >= kMaxEntries) {
      entries_.erase(entries_.begin());
    }
    Entry& entry = entries_[text];
    const bool older = entry.view != nullptr && std::make_pair(entry.view->generation, entry.view->version) >
                                                    std::make_pair(view->generation, view->version);
    if (!older) {
      entry = {view, now};
    }
  }
  if (!share || redis_ == nullptr || !IsUsable(view->times, now)) {
    return;
  }
  // A connection of an earlier release is shared once it says where it came from.
  const bool tells = view->provenance_sealed && !view->provenance.token_origin().empty();
  const std::shared_ptr<const CacheNames> names = tells ? Names() : nullptr;
  const std::shared_ptr<const CacheSealer> sealer = names != nullptr ? SealerOf(key.subject, passport) : nullptr;
  if (sealer == nullptr) {
    return;
  }
  const absl::Duration ttl = std::min(kMaxTtl, view->times.expires_at - now - ExpirySkew(view->times));
  const std::string redis_key = names->KeyFor(key);
  if (absl::StatusOr<std::string> sealed = sealer->Seal(key, *view, redis_key);
      sealed.ok() && ttl > absl::Milliseconds(1)) {
    redis_->Set(redis_key, *sealed, ttl).IgnoreError();
    redis_->Publish(kDoorbell, redis_key).IgnoreError();
  }
}

uint64_t TokenCache::Mark() const {
  MutexLock lock(mu_);
  return heard_;
}

void TokenCache::PutRead(const ConnectionKey& key, const SharedConnection& view, uint64_t mark) {
  {
    MutexLock lock(mu_);
    const auto found = floors_.find(key.ToString());
    // A read that was under way when the floor was raised may have seen what has ended since.
    if (found != floors_.end() && found->second.heard <= mark && view->generation < found->second.generation) {
      const bool linked = view->state == ConnectionView::State::kLinked;
      found->second.healed = linked ? std::make_pair(view->generation, view->version) : std::pair<int64_t, int64_t>();
    }
  }
  Put(key, view, /*share=*/false, "");
}

bool TokenCache::IsBelieved(const std::string& key_text, const ConnectionView& view) const {
  const auto floor = floors_.find(key_text);
  return floor == floors_.end() || view.generation >= floor->second.generation ||
         std::make_pair(view.generation, view.version) == floor->second.healed;
}

std::string TokenCache::DoorbellKey(const ConnectionKey& key) {
  const std::shared_ptr<const CacheNames> names = redis_ == nullptr ? nullptr : Names();
  return names == nullptr ? "" : names->KeyFor(key);
}

void TokenCache::Invalidate(const std::string& key_text, int64_t generation) {
  MutexLock lock(mu_);
  RaiseFloor(key_text, generation);
  const auto found = entries_.find(key_text);
  if (found != entries_.end() && found->second.view->generation < generation) {
    entries_.erase(found);
  }
}

void TokenCache::Forget(const ConnectionKey& key, int64_t generation) {
  Invalidate(key.ToString(), generation);
  if (const std::shared_ptr<const CacheNames> names = redis_ == nullptr ? nullptr : Names(); names != nullptr) {
    redis_->Delete(names->KeyFor(key)).IgnoreError();
  }
}

void TokenCache::RaiseFloor(const std::string& key_text, int64_t generation) {
  if (floors_.size() >= kMaxEntries) {
    floors_.erase(floors_.begin());
  }
  Floor& floor = floors_[key_text];
  floor.generation = std::max(floor.generation, generation);
  floor.heard = ++heard_;
  floor.healed = {0, 0};
}

void TokenCache::InvalidateSubject(const std::string& subject) {
  const std::string prefix = subject + "\n";
  MutexLock lock(mu_);
  for (auto it = entries_.lower_bound(prefix); it != entries_.end() && absl::StartsWith(it->first, prefix);) {
    it = entries_.erase(it);
  }
  // With the user's keys gone, what others have put into Redis under the old root must not open here either.
  sealers_.erase(subject);
}

void TokenCache::Clear() {
  MutexLock lock(mu_);
  entries_.clear();
}

}  // namespace sallyport::token_broker

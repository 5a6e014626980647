// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/cache_roots.h"

#include <utility>

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kRetry = absl::Seconds(1);
constexpr int64_t kSecondsOfDay = 86'400;
constexpr size_t kRootSize = 32;

int64_t DayOf(absl::Time now) { return absl::ToUnixSeconds(now) / kSecondsOfDay; }
absl::Time StartOf(int64_t day) { return absl::FromUnixSeconds(day * kSecondsOfDay); }

// The vault could not be asked, which says nothing about what it gave before.
bool IsOutage(const absl::Status& status) { return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status); }

}  // namespace

CacheRoots::CacheRoots(VaultClient& vault, const Clock& clock, size_t max_users)
    : vault_(vault), clock_(clock), sealers_(max_users) {}

template <typename T>
OfDay<T> CacheRoots::Give(const Rooted<T>& rooted, absl::Time now) {
  OfDay<T> given = rooted.made;
  if (now >= StartOf(rooted.day) + kOverlap) given.former = nullptr;
  return given;
}

// The vault's day, whatever our clock says of it: replicas must derive the same keys.
template <typename T, typename Make>
void CacheRoots::Keep(vault::v1::GetCacheRootsResponse& response, const Make& make, Rooted<T>& rooted) {
  rooted.day = response.roots(0).day();
  rooted.made.current = make(*response.mutable_roots(0));
  rooted.made.former = nullptr;
  if (response.roots_size() > 1 && response.roots(1).day() == rooted.day - 1) {
    rooted.made.former = make(*response.mutable_roots(1));
  }
}

absl::StatusOr<vault::v1::GetCacheRootsResponse> CacheRoots::Ask(const std::string& subject,
                                                                 const std::string& passport) {
  vault::v1::GetCacheRootsRequest request;
  // The organization's own root opens by the broker's identity.
  request.set_owner_type(subject.empty() ? vault::v1::ORG : vault::v1::USER);
  request.set_owner_id(subject.empty() ? "default" : subject);
  absl::StatusOr<vault::v1::GetCacheRootsResponse> response = vault_.GetCacheRoots(request, passport);
  if (!response.ok()) return response.status();
  if (response->roots().empty()) return absl::InternalError("the vault gave no root");
  for (const auto& root : response->roots()) {
    if (root.root().size() != kRootSize) return absl::InternalError("the vault gave a root of another size");
  }
  return response;
}

OfDay<CacheNames> CacheRoots::Names() {
  const absl::Time now = clock_.Now();
  {
    MutexLock lock(mu_);
    if (now < names_.retry || (names_.made.current != nullptr && names_.day == DayOf(now))) {
      return Give(names_, now);  // Perhaps yesterday's: others read under it as well.
    }
    names_.retry = now + kRetry;
  }
  absl::StatusOr<vault::v1::GetCacheRootsResponse> roots = Ask("", "");
  MutexLock lock(mu_);
  if (roots.ok()) {
    Keep(
        *roots, [](auto& root) { return std::make_shared<const CacheNames>(Secret(std::move(*root.mutable_root()))); },
        names_);
  }
  return Give(names_, now);
}

OfDay<CacheSealer> CacheRoots::SealerOf(const std::string& subject, const std::string& passport) {
  const absl::Time now = clock_.Now();
  const auto good = [now](const Rooted<CacheSealer>* known) {
    const bool over = known == nullptr || now >= StartOf(known->day + 1) + kOverlap;
    return over ? OfDay<CacheSealer>() : Give(*known, now);
  };
  {
    MutexLock lock(mu_);
    const Rooted<CacheSealer>* known = sealers_.Find(subject);
    if (passport.empty() && !subject.empty()) {
      return good(known);
    }
    if (known != nullptr && (now < known->retry || (known->made.current != nullptr && known->day == DayOf(now)))) {
      return good(known);
    }
    sealers_.At(subject).retry = now + kRetry;
  }
  absl::StatusOr<vault::v1::GetCacheRootsResponse> roots = Ask(subject, passport);
  MutexLock lock(mu_);
  if (!roots.ok()) {
    return IsOutage(roots.status()) ? good(sealers_.Find(subject)) : OfDay<CacheSealer>();
  }
  Rooted<CacheSealer>& known = sealers_.At(subject);
  Keep(
      *roots,
      [](auto& root) {
        return std::make_shared<const CacheSealer>(Secret(std::move(*root.mutable_root())), root.day(),
                                                   root.key_version());
      },
      known);
  return Give(known, now);
}

OfDay<CacheNames> CacheRoots::KnownNames() {
  const absl::Time now = clock_.Now();
  MutexLock lock(mu_);
  return names_.day == DayOf(now) ? Give(names_, now) : OfDay<CacheNames>();
}

OfDay<CacheSealer> CacheRoots::KnownSealers(const std::string& subject) {
  const absl::Time now = clock_.Now();
  MutexLock lock(mu_);
  const Rooted<CacheSealer>* known = sealers_.Find(subject);
  return known != nullptr && known->day == DayOf(now) ? Give(*known, now) : OfDay<CacheSealer>();
}

void CacheRoots::Forget(const std::string& subject) {
  MutexLock lock(mu_);
  sealers_.Erase(subject);
}

}  // namespace sallyport::token_broker

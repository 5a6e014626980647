// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "services/token_broker/cache_sealer.h"
#include "services/token_broker/recent_map.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Made from the root of a day (UTC) and, within CacheRoots::kOverlap of that day's beginning, from that of the day
// before. Null: not known.
template <typename T>
struct OfDay {
  std::shared_ptr<const T> current;
  std::shared_ptr<const T> former;
};

// The roots of the token cache that the vault has given. They are asked for again on another day, each once a second at
// most. Thread-safe; blocking while the vault is asked.
class CacheRoots {
 public:
  // What was written before midnight opens for that long after it. No value lies in Redis any longer (kMaxTtl).
  static constexpr absl::Duration kOverlap = absl::Hours(1);

  // All outlive this. Of more users than `max_users`, those whose last call was longest ago are asked for again.
  CacheRoots(VaultClient& vault, const Clock& clock, size_t max_users);

  // Of the organization. While the vault cannot be asked, those known last.
  OfDay<CacheNames> Names();
  // Of a user, with a passport of theirs; without one (nobody is calling) only what is known. Of the organization,
  // whose subject is "", none is needed. What was given for a day is good until kOverlap after its end.
  OfDay<CacheSealer> SealerOf(const std::string& subject, const std::string& passport);
  // The same of today and without asking; `current` is null if the vault would have to be asked.
  OfDay<CacheNames> KnownNames();
  OfDay<CacheSealer> KnownSealers(const std::string& subject);
  // After the user's keys are gone: what others have put into Redis under them must not open here either.
  void Forget(const std::string& subject);

 private:
  template <typename T>
  struct Rooted {
    OfDay<T> made;
    int64_t day = -1;
    absl::Time retry = absl::InfinitePast();
  };
  template <typename T>
  static OfDay<T> Give(const Rooted<T>& rooted, absl::Time now);
  template <typename T, typename Make>
  static void Keep(vault::v1::GetCacheRootsResponse& response, const Make& make, Rooted<T>& rooted);
  // With one root at least, the newest first.
  absl::StatusOr<vault::v1::GetCacheRootsResponse> Ask(const std::string& subject, const std::string& passport);

  VaultClient& vault_;
  const Clock& clock_;
  Mutex mu_;
  Rooted<CacheNames> names_ ABSL_GUARDED_BY(mu_);
  RecentMap<Rooted<CacheSealer>> sealers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker

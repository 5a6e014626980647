// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "common/redis/client.h"
#include "services/token_broker/cache_roots.h"
#include "services/token_broker/cache_sealer.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/recent_map.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Connections seen lately: in memory, and in Redis if there is one. A cache only: what is not here is in the vault.
// Thread-safe; blocking where Redis is asked.
class TokenCache {
 public:
  // Connections, and users whose roots are known, that are kept at a time: those used longest ago go first.
  static constexpr size_t kMaxEntries = 50'000;

  // All outlive this; `redis` may be null.
  TokenCache(VaultClient& vault, RedisClient* redis, const Clock& clock, size_t max_entries = kMaxEntries);

  // In memory, not older than `max_age`; null if there is none.
  SharedConnection Get(const ConnectionKey& key, absl::Duration max_age);
  // From Redis, with a passport of key.subject (the organization's own, whose subject is "", needs none); null on any
  // trouble, for a generation older than one heard of, and for a token that has ended.
  SharedConnection GetShared(const ConnectionKey& key, const std::string& passport);
  // The same without blocking. False, and nothing is done, if the vault would have to be asked for a root first. `done`
  // runs once, on another thread or before this returns, and must not block.
  bool TryGetShared(const ConnectionKey& key, std::function<void(SharedConnection)> done);
  // Keeps it here and, with `share`, in Redis; rings the doorbell for waiting replicas. Without a passport (nobody is
  // calling) it is shared only if the user's root is known here.
  void Put(const ConnectionKey& key, const SharedConnection& view, bool share, const std::string& passport);
  // Keeps here what a read of the vault gave that began after `mark` was taken. The vault knows better than an
  // invalidation heard before that: a late answer may have healed the generation that was given up.
  void PutRead(const ConnectionKey& key, const SharedConnection& view, uint64_t mark);
  uint64_t Mark() const;

  // Forgets the connection in generations before `generation`.
  void Invalidate(const std::string& key_text, int64_t generation);
  // The same, and takes what is in Redis away: other replicas may not have heard of it, for as long as the registry is
  // down.
  void Forget(const ConnectionKey& key, int64_t generation);
  void InvalidateSubject(const std::string& subject);
  // After a gap in the control stream.
  void Clear();

  // Messages of the doorbell channel are the Redis keys of connections that changed.
  static constexpr char kDoorbell[] = "sallyport:doorbell";
  // Empty while no root can be had.
  std::string DoorbellKey(const ConnectionKey& key);

 private:
  struct Entry {
    SharedConnection view;
    absl::Time since;
  };
  struct Floor {
    int64_t generation = 0;
    // Value of heard_ when this was heard last.
    uint64_t heard = 0;
    // Generation and version of the one view below `generation` that is believed all the same; 0 if none is.
    std::pair<int64_t, int64_t> healed = {0, 0};
  };
  // Looks for the value under the names that are left.
  void AskShared(const ConnectionKey& key, const OfDay<CacheNames>& names, const OfDay<CacheSealer>& sealers,
                 std::function<void(SharedConnection)> done);
  // Whether a newer generation than that of a value was heard of.
  bool IsOutdated(const ConnectionKey& key, absl::string_view value);
  // Of a value that was found in Redis; `spoiled` if it must be taken away from there.
  SharedConnection OpenShared(const ConnectionKey& key, const std::string& value, const std::string& redis_key,
                              const OfDay<CacheSealer>& sealers, bool& spoiled);
  void Share(const ConnectionKey& key, const ConnectionView& view, absl::Time now, const std::string& passport);
  // To `generation` if it is below. Nothing below is believed any more.
  void RaiseFloor(const std::string& key_text, int64_t generation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsBelieved(const std::string& key_text, const ConnectionView& view) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  RedisClient* const redis_;
  const Clock& clock_;
  CacheRoots roots_;
  mutable Mutex mu_;
  RecentMap<Entry> entries_ ABSL_GUARDED_BY(mu_);
  // Generations heard of, so that a value written before is not believed.
  RecentMap<Floor> floors_ ABSL_GUARDED_BY(mu_);
  uint64_t heard_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sallyport::token_broker

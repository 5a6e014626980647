// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "common/redis/client.h"
#include "common/secret.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Names of connections in a store that may be stolen: "sallyport:token:" and hex HMAC-SHA-256 under the organization's
// root of the day, which says nothing about whose a value is. Pure.
class CacheNames {
 public:
  explicit CacheNames(const Secret& root);
  std::string KeyFor(const ConnectionKey& key) const;

 private:
  Secret mac_key_;
};

// Seals a user's tokens for such a store, under the user's own root: it opens for those who are calling, and for nobody
// else. Key: HKDF(root of the day; subject, connection, generation). Pure.
//   value  "SPC2" · u64 generation · u32 day · u32 version of the data key that the root is of (big-endian) ·
//   AES-256-GCM(CachedToken), associated data = the 20 bytes before and the Redis key
class CacheSealer {
 public:
  CacheSealer(Secret root, int64_t day, int32_t key_version)
      : root_(std::move(root)), day_(day), key_version_(key_version) {}
  // Only the access token goes in, never a refresh token.
  absl::StatusOr<std::string> Seal(const ConnectionKey& key, const ConnectionView& view,
                                   absl::string_view redis_key) const;
  // DATA_LOSS if it is not this connection's or was touched. NOT_FOUND if it was sealed under another root.
  absl::StatusOr<SharedConnection> Open(const ConnectionKey& key, absl::string_view value,
                                        absl::string_view redis_key) const;
  // Of the clear header; nothing if the value has none.
  static std::optional<int64_t> GenerationOf(absl::string_view value);
  int64_t day() const { return day_; }

 private:
  std::string Header(int64_t generation) const;
  Secret ValueKey(const ConnectionKey& key, int64_t generation) const;

  Secret root_;
  int64_t day_;
  int32_t key_version_;
};

// Connections seen lately: in memory, and in Redis if there is one. A cache only: what is not here is in the vault.
// Thread-safe; blocking where Redis is asked.
class TokenCache {
 public:
  // All outlive this; `redis` may be null.
  TokenCache(VaultClient& vault, RedisClient* redis, const Clock& clock);

  // In memory, not older than `max_age`; null if there is none.
  SharedConnection Get(const ConnectionKey& key, absl::Duration max_age) const;
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
  static constexpr size_t kMaxEntries = 50'000;

  // A root that was asked for. Asked again on another day, and not more often than once a second.
  template <typename T>
  struct Rooted {
    std::shared_ptr<const T> made;
    int64_t day = -1;
    absl::Time retry = absl::InfinitePast();
  };
  // Of today and without asking; null if there are none.
  std::shared_ptr<const CacheNames> KnownNames() const;
  std::shared_ptr<const CacheSealer> KnownSealer(const std::string& subject) const;
  std::shared_ptr<const CacheNames> Names();
  std::shared_ptr<const CacheSealer> SealerOf(const std::string& subject, const std::string& passport);
  // The view that a value of Redis holds, which is kept here, too; null as of GetShared, with `touched` if it does not
  // open.
  SharedConnection Take(const ConnectionKey& key, const CacheSealer& sealer, absl::string_view value,
                        absl::string_view redis_key, bool& touched);
  // A value of this generation is out of date.
  bool IsOutdated(const ConnectionKey& key, absl::string_view value) const;
  // To `generation` if it is below. Nothing below is believed any more.
  void RaiseFloor(const std::string& key_text, int64_t generation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool IsBelieved(const std::string& key_text, const ConnectionView& view) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  VaultClient& vault_;
  RedisClient* const redis_;
  const Clock& clock_;
  mutable Mutex mu_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mu_);
  // Generations heard of, so that a value written before is not believed.
  std::map<std::string, Floor> floors_ ABSL_GUARDED_BY(mu_);
  uint64_t heard_ ABSL_GUARDED_BY(mu_) = 0;
  Rooted<CacheNames> names_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Rooted<CacheSealer>> sealers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker

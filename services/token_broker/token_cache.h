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

// Seals tokens for a store that may be stolen. Key: HKDF(root of the day; subject, connection, generation). Pure.
//   value  "SPC1" · u64 generation (big-endian) · AES-256-GCM(CachedToken), associated data = the 12 bytes before and
//   the Redis key
class CacheSealer {
 public:
  explicit CacheSealer(Secret root) : root_(std::move(root)) {}
  // "sallyport:token:" and hex HMAC-SHA-256 of the connection: says nothing about whose it is.
  std::string KeyFor(const ConnectionKey& key) const;
  // Only the access token goes in, never a refresh token.
  absl::StatusOr<std::string> Seal(const ConnectionKey& key, const ConnectionView& view) const;
  // DATA_LOSS if it is not this connection's or was touched.
  absl::StatusOr<SharedConnection> Open(const ConnectionKey& key, absl::string_view value) const;
  // Of the clear header; nothing if the value has none.
  static std::optional<int64_t> GenerationOf(absl::string_view value);

 private:
  Secret root_;
};

// Connections seen lately: in memory, and in Redis if there is one. A cache only: what is not here is in the vault.
// Thread-safe; blocking where Redis is asked.
class TokenCache {
 public:
  // All outlive this; `redis` may be null.
  TokenCache(VaultClient& vault, RedisClient* redis, const Clock& clock);

  // In memory, not older than `max_age`; null if there is none.
  SharedConnection Get(const ConnectionKey& key, absl::Duration max_age) const;
  // From Redis; null on any trouble, for a generation older than one heard of, and for a token that has ended.
  SharedConnection GetShared(const ConnectionKey& key);
  // Keeps it here and, with `share`, in Redis; rings the doorbell for waiting replicas.
  void Put(const ConnectionKey& key, const SharedConnection& view, bool share);
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
  // Empty while no cache root can be had.
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

  std::shared_ptr<const CacheSealer> Sealer();
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
  std::shared_ptr<const CacheSealer> sealer_ ABSL_GUARDED_BY(mu_);
  int64_t sealer_day_ ABSL_GUARDED_BY(mu_) = -1;
  absl::Time sealer_retry_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
};

}  // namespace sallyport::token_broker

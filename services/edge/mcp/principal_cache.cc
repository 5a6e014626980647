// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/principal_cache.h"

#include "absl/strings/str_split.h"
#include <openssl/crypto.h>

#include "common/hex.h"

namespace sallyport::edge {

using registry::v1::Invalidation;

Principal::~Principal() {
  OPENSSL_cleanse(header_lines.data(), header_lines.size());
  OPENSSL_cleanse(passport.data(), passport.size());
}

PrincipalPtr PrincipalTable::Find(const PrincipalKey& key) const {
  const Shard& shard = ShardOf(key);
  MutexLock lock(shard.mu);
  const auto entry = shard.entries.find(key);
  return entry == shard.entries.end() ? nullptr : entry->second;
}

void PrincipalTable::Insert(const PrincipalPtr& principal) {
  Shard& shard = ShardOf(principal->key);
  MutexLock lock(shard.mu);
  if (shard.entries.size() >= kMaxPerShard) {
    auto first = shard.entries.begin();
    for (auto entry = shard.entries.begin(); entry != shard.entries.end(); ++entry) {
      if (entry->second->valid_until < first->second->valid_until) first = entry;
    }
    shard.entries.erase(first);
  }
  shard.entries[principal->key] = principal;
}

void PrincipalTable::Erase(const PrincipalPtr& principal) {
  Shard& shard = ShardOf(principal->key);
  MutexLock lock(shard.mu);
  const auto entry = shard.entries.find(principal->key);
  if (entry != shard.entries.end() && entry->second == principal) shard.entries.erase(entry);
}

template <typename Predicate>
void PrincipalTable::Drop(const Predicate& concerned) {
  for (Shard& shard : shards_) {
    MutexLock lock(shard.mu);
    absl::erase_if(shard.entries, [&](const auto& entry) {
      if (!concerned(*entry.second)) return false;
      entry.second->dead.store(true, std::memory_order_release);
      return true;
    });
  }
}

void PrincipalTable::InvalidateAll() {
  Drop([](const Principal&) { return true; });
}

void PrincipalTable::Invalidate(const Invalidation& invalidation) {
  const std::string& key = invalidation.key();
  switch (invalidation.kind()) {
    case Invalidation::TOKEN:
      return Drop([&](const Principal& principal) {
        return HexEncode(absl::string_view(reinterpret_cast<const char*>(principal.key.digest.data()), 32)) == key;
      });
    case Invalidation::SESSION:
      return Drop([&](const Principal& principal) { return principal.session_id == key; });
    case Invalidation::SUBJECT:
      return Drop([&](const Principal& principal) { return principal.subject == key; });
    case Invalidation::SERVER:
      return Drop([&](const Principal& principal) { return principal.server_uid == key; });
    case Invalidation::CONNECTION: {
      const std::vector<std::string> parts = absl::StrSplit(key, '\n');
      if (parts.size() < 2) return InvalidateAll();
      for (Shard& shard : shards_) {
        MutexLock lock(shard.mu);
        for (const auto& [unused, principal] : shard.entries) {
          if (principal->subject != parts[0]) continue;
          const auto credentials = principal->credentials();
          if (credentials == nullptr || credentials->connection != parts[1]) continue;
          if (invalidation.generation() != 0 && credentials->generation >= invalidation.generation()) continue;
          credentials->dead.store(true, std::memory_order_release);
          principal->set_credentials(nullptr);
        }
      }
      return;
    }
    default:
      return;
  }
}

size_t PrincipalTable::size() const {
  size_t sum = 0;
  for (const Shard& shard : shards_) {
    MutexLock lock(shard.mu);
    sum += shard.entries.size();
  }
  return sum;
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "common/secret.h"
#include "services/edge/mcp/credentials.h"
#include "services/edge/mcp/ended.h"
#include "services/edge/mcp/token_hash.h"

namespace sallyport::edge {

// A caller as authn verified them for one server version: the whole token's hash and the server's serial.
struct PrincipalKey {
  TokenHash::Value digest{};
  uint64_t server_serial = 0;

  friend bool operator==(const PrincipalKey&, const PrincipalKey&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const PrincipalKey& key) {
    return H::combine(H::combine_contiguous(std::move(h), key.digest.data(), key.digest.size()), key.server_serial);
  }
};

struct Principal {
  ~Principal();
  Principal() = default;
  Principal(const Principal&) = delete;
  Principal& operator=(const Principal&) = delete;

  // Why a claim of theirs cannot be sent: every request of this caller fails with it.
  struct ClaimRefusal {
    int status = 0;           // 0: none.
    std::string_view reason;  // "claim_missing", "claim_too_large", "claim_ambiguous", "identity_unencodable"
    std::string message;
  };

  // What every call reads stands together, in three cache lines: with thousands of callers each of them is a miss.
  std::atomic<bool> dead{false};
  std::atomic<bool> renewing{false};
  std::atomic<bool> renewing_credentials{false};
  bool own_token = false;  // Issued by sallyport.
  // A rule forwards the other kind of token than the caller presented (502 no_caller_token).
  bool wrong_token_kind = false;
  absl::Time verified_at;
  absl::Time valid_until;  // The passport's end, never past the token's.
  absl::Time renew_at;
  std::string rule;  // Which rule admitted them: "interactive.allow.groups".
  // TOKEN-scoped header lines the edge rendered itself: claims and presented tokens.
  std::string header_lines;
  // Serialized audit.v1.Event fields: subject and client_id.
  std::string audit_fields;
  ClaimRefusal claim_refusal;

  PrincipalKey key;
  // What TOKEN invalidations name: lower-case hex SHA-256 of the token's signing input, which all spellings of its
  // signature have in common.
  std::string revocation_key;
  std::string server_uid;
  std::string subject;
  std::string session_id;
  std::string passport;
  absl::Time token_expires_at;  // Never used past this, whatever is down.
  // What they presented, where the broker exchanges it; null elsewhere.
  std::shared_ptr<const Secret> presented_token;

  // Resolved for this caller; `account` is a label that their call chose, empty where it chose none.
  std::shared_ptr<const CredentialSet> credentials(std::string_view account = {}) const {
    MutexLock lock(mu_);
    return account.empty() ? credentials_ : Chosen(account);
  }
  void set_credentials(std::shared_ptr<const CredentialSet> credentials, std::string_view account = {});
  // Everything that was resolved for `before`, who is the same caller.
  void TakeCredentials(const Principal& before);
  // Drops, and marks as dead, what is ended.
  void EndCredentials(const Ended& ended);

 private:
  using Accounts = std::map<std::string, std::shared_ptr<const CredentialSet>, std::less<>>;
  // A caller who chooses from more forgets the others.
  static constexpr size_t kMaxAccounts = 16;
  std::shared_ptr<const CredentialSet> Chosen(std::string_view account) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_;
  std::shared_ptr<const CredentialSet> credentials_ ABSL_GUARDED_BY(mu_);
  // Null for the many who never choose.
  std::unique_ptr<Accounts> accounts_ ABSL_GUARDED_BY(mu_);
};

using PrincipalPtr = std::shared_ptr<Principal>;

// Principal::revocation_key of a token; of the whole token if it has no signature.
std::string RevocationKeyOf(std::string_view token);

// The process's table, behind the workers' own. Sharded; bounded by dropping what expires first. Thread-safe.
class PrincipalTable {
 public:
  static constexpr size_t kShards = 64;
  static constexpr size_t kMaxPerShard = 4096;

  PrincipalPtr Find(const PrincipalKey& key) const;
  // Whoever it replaces or displaces is dead: workers may still hold it, and no invalidation would find it any more.
  void Insert(const PrincipalPtr& principal);
  void Erase(const PrincipalPtr& principal);
  // Marks who is ended as dead and drops them; of those whose connections or secrets are, only the credentials. One
  // pass, however much is ended.
  void Invalidate(const Ended& ended);
  // Everybody, as when the control stream lost its place.
  void InvalidateAll();
  size_t size() const;
  // For tests: entries that invalidations have looked at.
  uint64_t examined() const { return examined_.load(std::memory_order_relaxed); }

 private:
  struct Shard {
    mutable Mutex mu;
    absl::flat_hash_map<PrincipalKey, PrincipalPtr> entries ABSL_GUARDED_BY(mu);
  };
  Shard& ShardOf(const PrincipalKey& key) { return shards_[key.digest[0] % kShards]; }
  const Shard& ShardOf(const PrincipalKey& key) const { return shards_[key.digest[0] % kShards]; }
  template <typename Predicate>
  void Drop(const Predicate& concerned);

  std::array<Shard, kShards> shards_;
  std::atomic<uint64_t> examined_{0};
};

}  // namespace sallyport::edge

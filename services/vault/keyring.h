// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "common/sql/sql.h"
#include "services/vault/key_encryption_key.h"
#include "services/vault/store.h"

namespace sallyport::vault {

struct OwnerKey {
  uint32_t key_version = 0;
  Secret key;
};

// The unsealed seeds, and what opens with them. Starts SEALED; becomes ACTIVE when every seed has been unwrapped and
// names this deployment and its own term, and the canary record opens. An empty store gets its deployment id, first
// term and canary then; a store that holds anything never gets new keys. Thread-safe.
//
// Reasons for staying sealed: kek_missing (no usable key, or the provider cannot be asked), wrong_kek (what is stored
// does not open with the keys there are), deployment_mismatch, keyring_missing (data or a deployment id, but no
// keyring), sealed_by_admin, store_unavailable.
class Keyring {
 public:
  struct Options {
    // Empty: whatever the store says; a random one for a new store.
    std::string deployment_id;
  };
  struct State {
    std::string state;   // "SEALED", "UNSEALING", "ACTIVE"
    std::string reason;  // While sealed.
    std::string detail;
    std::string deployment_id;
  };
  struct Rewrapped {
    int64_t rewrapped = 0;
    int64_t remaining = 0;
  };

  // Both must outlive it.
  Keyring(Database& database, KeyEncryptionKey& kek, Options options)
      : database_(database), kek_(kek), options_(std::move(options)) {}

  // OK when ACTIVE. Otherwise tries to unseal, once a second at most and never after Seal(); UNAVAILABLE vault_sealed.
  absl::Status EnsureActive(absl::Time now);
  // Wipes the seeds, until the process starts anew.
  void Seal();
  State state() const;

  // Reads the seeds again. For a key wrapped under a term that this replica has not met: see IsUnknownTerm.
  absl::Status Reload();
  static bool IsUnknownTerm(const absl::Status& status);

  // Inside a transaction of the store. Read: NOT_FOUND if the owner has no key, or it was destroyed. Write: makes one
  // then.
  absl::StatusOr<OwnerKey> KeyForRead(Transaction& tx, const Owner& owner) const;
  absl::StatusOr<OwnerKey> KeyForWrite(Transaction& tx, const Owner& owner) const;
  // Overwrites the wrapped key; a later KeyForWrite makes one of the next key_version.
  static absl::Status DestroyKey(Transaction& tx, const Owner& owner);

  // A new active term; the one before becomes decrypt_only. `record` writes the audit event in the same transaction.
  absl::StatusOr<uint32_t> RotateTerm(const std::function<absl::Status(Transaction&, uint32_t)>& record);
  // Terms under the provider's current key, then at most `limit` owner keys under the active term.
  absl::StatusOr<Rewrapped> Rewrap(int limit);

 private:
  using Seeds = std::map<uint32_t, std::shared_ptr<const Secret>>;
  struct Snapshot {
    std::string deployment_id;
    std::vector<TermRow> terms;
    std::string canary;
    OwnerKeyRow canary_key;
    bool empty = false;
  };

  absl::Status Unseal() ABSL_EXCLUSIVE_LOCKS_REQUIRED(unseal_mu_);
  absl::Status Initialize();
  absl::StatusOr<Snapshot> ReadSnapshot();
  absl::Status CheckSnapshot(const Snapshot& snapshot) const;
  absl::StatusOr<Seeds> UnwrapSeeds(const Snapshot& snapshot);
  absl::StatusOr<Secret> UnwrapSeed(const TermRow& term, const std::string& deployment_id);
  absl::StatusOr<std::shared_ptr<const Secret>> Seed(uint32_t term) const;
  absl::StatusOr<Secret> OpenOwnerKey(const OwnerKeyRow& row) const;
  absl::StatusOr<OwnerKey> MakeOwnerKey(Transaction& tx, const Owner& owner, uint32_t key_version) const;
  absl::StatusOr<TermRow> MakeTerm(uint32_t term, const Secret& seed, const std::string& deployment_id);
  absl::StatusOr<int64_t> RewrapTerms();
  absl::StatusOr<int64_t> RewrapOwnerKeys(int limit);

  Database& database_;
  KeyEncryptionKey& kek_;
  const Options options_;
  Mutex unseal_mu_;  // One attempt at a time; never taken while mu_ is held.
  absl::Time last_attempt_ ABSL_GUARDED_BY(unseal_mu_) = absl::InfinitePast();
  mutable Mutex mu_;
  State state_ ABSL_GUARDED_BY(mu_) = {"SEALED", "starting", "", ""};
  bool sealed_by_admin_ ABSL_GUARDED_BY(mu_) = false;
  Seeds seeds_ ABSL_GUARDED_BY(mu_);
  uint32_t active_term_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sallyport::vault

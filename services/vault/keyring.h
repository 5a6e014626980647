// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
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
// A term that does not unwrap keeps it sealed only while it is the active one or a data key is under it.
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
  // State of a term that cannot be used, as it is told.
  static constexpr char kDamaged[] = "damaged";

  // Both must outlive it.
  Keyring(Database& database, KeyEncryptionKey& kek, Options options)
      : database_(database), kek_(kek), options_(std::move(options)) {}

  // OK when ACTIVE. Otherwise tries to unseal, once a second at most and never after Seal(); UNAVAILABLE vault_sealed.
  absl::Status EnsureActive(absl::Time now);
  // Wipes the seeds and the provider's keys, until the process starts anew.
  void Seal();
  State state() const;

  // Reads the seeds again. For a key wrapped under a term that this replica has not met: see IsUnknownTerm.
  absl::Status Reload();
  static bool IsUnknownTerm(const absl::Status& status);

  // Inside a transaction of the store. Read: NOT_FOUND if the owner has no such key, or it was destroyed. Newest: as
  // Read. Write: the newest if it is under the active term, else a new one.
  absl::StatusOr<OwnerKey> KeyForRead(Transaction& tx, const Owner& owner, uint32_t key_version) const;
  absl::StatusOr<OwnerKey> NewestKey(Transaction& tx, const Owner& owner) const;
  absl::StatusOr<OwnerKey> KeyForWrite(Transaction& tx, const Owner& owner) const;

  // A new active term; the one before becomes decrypt_only. `record` writes the audit event in the same transaction.
  absl::StatusOr<uint32_t> RotateTerm(const std::function<absl::Status(Transaction&, uint32_t)>& record);
  // Brings every term under the provider's current key. How many were not.
  absl::StatusOr<int64_t> RewrapTerms();
  // FAILED_PRECONDITION, reason term_in_use, for the active term and while a data key is under it; NOT_FOUND. OK if it
  // is destroyed already.
  absl::Status DestroyTerm(uint32_t term, const std::function<absl::Status(Transaction&)>& record);
  // What does not unwrap, though nothing is under it.
  std::set<uint32_t> damaged_terms() const;
  uint32_t active_term() const;

  // Whether versions that an earlier release has stored are given their origins no more. The canary says so: it is
  // sealed, and whoever edits the store cannot make it say otherwise.
  absl::StatusOr<bool> Adopted(Transaction& tx) const;
  absl::Status CompleteAdoption(Transaction& tx) const;

 private:
  using Seeds = std::map<uint32_t, std::shared_ptr<const Secret>>;
  struct Snapshot {
    std::string deployment_id;
    std::vector<TermRow> terms;
    std::set<uint32_t> used;  // Terms with data keys.
    VersionRow canary;
    std::optional<OwnerKeyRow> canary_key;
    bool empty = false;
  };
  // What was found in a snapshot.
  struct Opened {
    Seeds seeds;
    std::set<uint32_t> damaged;
  };

  absl::Status Unseal() ABSL_EXCLUSIVE_LOCKS_REQUIRED(unseal_mu_);
  absl::Status Initialize();
  absl::StatusOr<Snapshot> ReadSnapshot();
  absl::Status CheckSnapshot(const Snapshot& snapshot) const;
  absl::StatusOr<Opened> UnwrapSeeds(const Snapshot& snapshot);
  absl::Status CheckCanary(const Snapshot& snapshot, const Seeds& seeds) const;
  absl::Status ReadCanary(Transaction& tx, Snapshot& snapshot) const;
  absl::StatusOr<Secret> UnwrapSeed(const TermRow& term, const std::string& deployment_id);
  absl::StatusOr<std::shared_ptr<const Secret>> Seed(uint32_t term) const;
  absl::StatusOr<Secret> OpenOwnerKey(const OwnerKeyRow& row) const;
  absl::StatusOr<OwnerKey> MakeOwnerKey(Transaction& tx, const Owner& owner, uint32_t key_version) const;
  absl::StatusOr<TermRow> MakeTerm(uint32_t term, const Secret& seed, const std::string& deployment_id);

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
  std::set<uint32_t> damaged_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::vault

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/sql/sql.h"
#include "services/vault/key_encryption_key.h"
#include "services/vault/record_id.h"

// The vault's tables as rows. No rule lives here; times that are absent are InfinitePast.
namespace sallyport::vault {

using Labels = std::map<std::string, std::string>;
// From what column `labels` holds; none if that is damaged.
Labels ParseLabels(const std::string& bytes);

struct RecordRow {
  std::string rid;  // Random; a record that is deleted and made anew keeps it, and its counters.
  RecordId id;
  int64_t head = 0;          // 0: tombstone.
  int64_t last_version = 0;  // The highest number ever given out.
  int64_t generation = 0;
  int64_t epoch = 0;
  std::string state;
  std::string reason;
  absl::Time backoff_until = absl::InfinitePast();
  absl::Time next_at = absl::InfinitePast();
  absl::Time claim_until = absl::InfinitePast();  // InfinitePast: no lease is outstanding.
  Labels labels;
  absl::Time updated_at = absl::InfinitePast();
  absl::Time listed_until = absl::InfinitePast();  // Somebody was told that it is due, and is at it until then.
  absl::Time used_at = absl::InfinitePast();
};

enum class VersionRole {
  kValue = 1,    // Was or is the head.
  kSide = 2,     // A late result, not adopted yet.
  kPending = 3,  // Space held for the answer to a lease.
};

struct VersionRow {
  std::string rid;
  int64_t version = 0;
  int64_t generation = 0;
  VersionRole role = VersionRole::kValue;
  bool pinned = false;
  int64_t shown_epoch = 0;  // kSide: the last lease whose holder has been given it.
  Labels labels;
  std::string sealed;
  absl::Time created_at = absl::InfinitePast();
};

enum class LeaseState { kOpen = 1, kAnswered = 2, kEnded = 3 };

struct LeaseRow {
  std::string digest;  // SHA-256 of the id, in hex: the id itself is authority and is not stored.
  std::string rid;
  std::string caller;
  int64_t generation = 0;
  int64_t epoch = 0;
  int64_t version = 0;  // Reserved for the answer.
  LeaseState state = LeaseState::kOpen;
  int64_t answer_version = 0;
  bool answer_side = false;
  absl::Time acquired_at = absl::InfinitePast();
};

// A data key. An owner has several while records under an older one are brought over; new writes take the newest.
struct OwnerKeyRow {
  Owner owner;
  uint32_t key_version = 0;
  uint32_t term = 0;
  bool destroyed = false;  // Left to tell which numbers are used up.
  std::string wrapped;
};

struct TermRow {
  uint32_t term = 0;
  std::string state;  // "active", "decrypt_only", "destroyed" (nothing wrapped is left)
  KeyEncryptionKey::Wrapped wrapped;
  absl::Time created_at = absl::InfinitePast();
};

// 0 if there is none.
uint32_t ActiveTerm(const std::vector<TermRow>& terms);

// Including the tables of the audit outbox.
std::vector<Migration> VaultMigrations();
// A vault of the release before, while both run, stores connections without the app, and they would never be found by
// it. That release has no labels: the name is the app's uid. To be called at every start.
absl::Status FillInApps(Database& database);

absl::StatusOr<std::optional<RecordRow>> FindRecord(Transaction& tx, const RecordId& id);
// Tombstones too.
absl::StatusOr<std::vector<RecordRow>> ListRecords(Transaction& tx, const Owner& owner);
// `where` is a clause of SQL on the columns of `record`, with what follows it.
absl::StatusOr<std::vector<RecordRow>> QueryRecords(Transaction& tx, const std::string& where, const SqlParams& params);
// Which app a record has to do with, for column `app_uid`: a connection by its name, any other by its label.
std::string AppUidOf(const RecordRow& row);
absl::Status SaveRecord(Transaction& tx, const RecordRow& row);
// Notes that somebody has used a record, unless that was noted after `before` already.
absl::Status StampUse(Transaction& tx, const std::string& rid, absl::Time now, absl::Time before);
// With its versions and leases.
absl::Status EraseRecord(Transaction& tx, const std::string& rid);

absl::StatusOr<std::optional<VersionRow>> FindVersion(Transaction& tx, const std::string& rid, int64_t version);
// Highest version first, without the sealed bytes.
absl::StatusOr<std::vector<VersionRow>> ListVersions(Transaction& tx, const std::string& rid);
absl::Status SaveVersion(Transaction& tx, const VersionRow& row);
absl::Status EraseVersion(Transaction& tx, const std::string& rid, int64_t version);
absl::Status EraseVersions(Transaction& tx, const std::string& rid);

absl::StatusOr<std::optional<LeaseRow>> FindLease(Transaction& tx, const std::string& digest);
absl::Status SaveLease(Transaction& tx, const LeaseRow& row);
// Leases of the record given before `ended_before` that are over, and before `open_before` that never were answered.
absl::Status EraseOldLeases(Transaction& tx, const std::string& rid, absl::Time ended_before, absl::Time open_before);

absl::StatusOr<std::optional<OwnerKeyRow>> FindOwnerKey(Transaction& tx, const Owner& owner, uint32_t key_version);
absl::StatusOr<std::optional<OwnerKeyRow>> FindNewestOwnerKey(Transaction& tx, const Owner& owner);
absl::Status SaveOwnerKey(Transaction& tx, const OwnerKeyRow& row);
absl::Status EraseOwnerKey(Transaction& tx, const OwnerKeyRow& row);
// Erases all keys of the owner and leaves one row that tells the last number.
absl::Status DestroyOwnerKeys(Transaction& tx, const Owner& owner);
// Keys under terms before `term` that come after `after` (nullopt: from the start), in the order of term, owner and
// version: where a job that was interrupted goes on, each step costs the same.
absl::StatusOr<std::vector<OwnerKeyRow>> ListOwnerKeysBefore(Transaction& tx, uint32_t term,
                                                             const std::optional<OwnerKeyRow>& after, int limit);
// How many keys, not destroyed, are under each term.
absl::StatusOr<std::map<uint32_t, int64_t>> CountOwnerKeysByTerm(Transaction& tx);

// A version of an owner's record, to be sealed anew.
struct OwnedVersion {
  RecordId id;
  VersionRow version;
};
// Versions of the owner's records, with the sealed bytes: at most `limit`, those after (rid, version) in this order.
absl::StatusOr<std::vector<OwnedVersion>> ListOwnedVersions(Transaction& tx, const Owner& owner,
                                                            const std::pair<std::string, int64_t>& after, int limit);
// False if the version is not as it was any more.
absl::StatusOr<bool> ReplaceSealed(Transaction& tx, const VersionRow& row, const std::string& sealed);

// Oldest first.
absl::StatusOr<std::vector<TermRow>> ListTerms(Transaction& tx);
absl::Status SaveTerm(Transaction& tx, const TermRow& row);

// Empty if the store has none.
absl::StatusOr<std::string> DeploymentId(Transaction& tx);
absl::Status SaveDeploymentId(Transaction& tx, const std::string& deployment_id);
// Nothing was ever encrypted here.
absl::StatusOr<bool> IsEmpty(Transaction& tx);

}  // namespace sallyport::vault

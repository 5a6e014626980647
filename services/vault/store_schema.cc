// SPDX-License-Identifier: Apache-2.0
// The tables.
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/audit/outbox.h"
#include "common/status_macros.h"
#include "services/vault/store.h"

namespace sallyport::vault {

std::vector<Migration> VaultMigrations() {
  std::vector<std::string> first = {
      "CREATE TABLE vault_meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
      "CREATE TABLE keyring (term BIGINT PRIMARY KEY, state TEXT NOT NULL, kek_id TEXT NOT NULL, wrapped TEXT NOT "
      "NULL, "
      "annotations TEXT NOT NULL, created_at BIGINT NOT NULL)",
      "CREATE UNIQUE INDEX keyring_active ON keyring (state) WHERE state = 'active'",
      "CREATE TABLE owner_key (owner_type TEXT NOT NULL, owner_id TEXT NOT NULL, key_version BIGINT NOT NULL, "
      "term BIGINT NOT NULL, destroyed BIGINT NOT NULL, wrapped TEXT NOT NULL, PRIMARY KEY (owner_type, owner_id))",
      "CREATE INDEX owner_key_term ON owner_key (term)",
      "CREATE TABLE record (rid TEXT PRIMARY KEY, owner_type TEXT NOT NULL, owner_id TEXT NOT NULL, kind TEXT NOT "
      "NULL, "
      "name TEXT NOT NULL, head BIGINT NOT NULL, last_version BIGINT NOT NULL, generation BIGINT NOT NULL, "
      "epoch BIGINT NOT NULL, state TEXT NOT NULL, reason TEXT NOT NULL, backoff_until BIGINT NOT NULL, "
      "next_at BIGINT, claim_until BIGINT NOT NULL, labels TEXT NOT NULL, updated_at BIGINT NOT NULL, "
      "UNIQUE (owner_type, owner_id, kind, name))",
      "CREATE INDEX record_due ON record (kind, next_at) WHERE next_at IS NOT NULL",
      "CREATE TABLE record_version (rid TEXT NOT NULL, version BIGINT NOT NULL, generation BIGINT NOT NULL, "
      "role BIGINT NOT NULL, pinned BIGINT NOT NULL, shown_epoch BIGINT NOT NULL, labels TEXT NOT NULL, "
      "sealed TEXT NOT NULL, created_at BIGINT NOT NULL, PRIMARY KEY (rid, version))",
      "CREATE TABLE lease (digest TEXT PRIMARY KEY, rid TEXT NOT NULL, caller TEXT NOT NULL, generation BIGINT NOT "
      "NULL, "
      "epoch BIGINT NOT NULL, version BIGINT NOT NULL, state BIGINT NOT NULL, answer_version BIGINT NOT NULL, "
      "answer_side BIGINT NOT NULL, acquired_at BIGINT NOT NULL)",
      "CREATE INDEX lease_rid ON lease (rid)",
  };
  // An owner may have several data keys from here on.
  std::vector<std::string> several_keys = {
      "CREATE TABLE data_key (owner_type TEXT NOT NULL, owner_id TEXT NOT NULL, key_version BIGINT NOT NULL, "
      "term BIGINT NOT NULL, destroyed BIGINT NOT NULL, wrapped TEXT NOT NULL, "
      "PRIMARY KEY (owner_type, owner_id, key_version))",
      "INSERT INTO data_key SELECT owner_type, owner_id, key_version, term, destroyed, wrapped FROM owner_key",
      "DROP TABLE owner_key",
      "CREATE INDEX data_key_term ON data_key (term, owner_type, owner_id, key_version) WHERE destroyed = 0",
  };
  // How many users have one of these: counted in the order of rid, so that each step costs the same.
  std::vector<std::string> counted = {
      "CREATE INDEX record_users ON record (kind, name, rid) WHERE owner_type = 'user'"};
  // Revocations are records of their own; what is due is found by app and shared among replicas. Names of connections
  // are apps' uids alone so far, or "sso:<connector>".
  std::vector<std::string> endings = {
      "ALTER TABLE record ADD COLUMN app_uid TEXT NOT NULL DEFAULT ''",
      "ALTER TABLE record ADD COLUMN listed_until BIGINT NOT NULL DEFAULT 0",
      "ALTER TABLE record ADD COLUMN used_at BIGINT",
      "UPDATE record SET app_uid = name, used_at = updated_at WHERE kind = 'connection'",
      "DROP INDEX record_due",
      "CREATE INDEX record_due ON record (kind, next_at, rid) WHERE next_at IS NOT NULL",
      "CREATE INDEX record_due_app ON record (kind, app_uid, next_at, rid) WHERE next_at IS NOT NULL",
      "CREATE INDEX record_app ON record (kind, app_uid, rid) WHERE head <> 0",
      // Their names begin with 64 digits that tell whose they were.
      "CREATE INDEX record_revocation ON record (substr(name, 1, 64)) WHERE kind = 'revocation'",
  };
  // Links under way are listed by user and app: their names begin with 32 digits that stand for both.
  std::vector<std::string> flows = {
      "CREATE INDEX record_flow ON record (substr(name, 1, 32)) WHERE kind = 'link_flow'"};
  // A link that was in flight when everything of its user was ended is not stored.
  std::vector<std::string> ended = {
      "CREATE TABLE ended_owner (owner_id TEXT PRIMARY KEY, ended_at BIGINT NOT NULL, noted_at BIGINT NOT NULL)",
      "CREATE INDEX ended_owner_noted ON ended_owner (noted_at)"};
  return {{1, first}, {2, AuditOutbox::Schema()}, {3, several_keys}, {4, counted}, {5, endings}, {6, flows},
          {7, ended}};
}

absl::Status FillInApps(Database& database) {
  constexpr char kWithout[] = "WHERE kind = 'connection' AND app_uid = '' AND head <> 0";
  bool any = false;
  RETURN_IF_ERROR(database.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const auto row, tx.QueryRow(absl::StrCat("SELECT rid FROM record ", kWithout, " LIMIT 1")));
    any = row.has_value();
    return absl::OkStatus();
  }));
  return !any ? absl::OkStatus() : database.Write([&](Transaction& tx) {
    return tx.Exec(absl::StrCat("UPDATE record SET app_uid = name ", kWithout)).status();
  });
}

}  // namespace sallyport::vault

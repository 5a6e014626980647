// SPDX-License-Identifier: Apache-2.0
#include "services/vault/store.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/audit/outbox.h"
#include "common/status_macros.h"

namespace sallyport::vault {
namespace {

constexpr char kRecordColumns[] =
    "rid, owner_type, owner_id, kind, name, head, last_version, generation, epoch, state, reason, backoff_until, "
    "next_at, "
    "claim_until, labels, updated_at, listed_until, used_at";
constexpr char kOwnerKeyColumns[] = "owner_type, owner_id, key_version, term, destroyed, wrapped";
constexpr char kVersionColumns[] = "rid, version, generation, role, pinned, shown_epoch, labels, created_at";

// The map of a message, so that it is one column of any text.
Bytes LabelBytes(const Labels& labels) {
  v1::RecordMetadata holder;
  holder.mutable_labels()->insert(labels.begin(), labels.end());
  return Bytes{holder.SerializeAsString()};
}

RecordRow ToRecord(const Row& row) {
  RecordRow out;
  out.rid = row.Text("rid");
  out.id = {{row.Text("owner_type"), row.Text("owner_id")}, row.Text("kind"), row.Text("name")};
  out.head = row.Int("head");
  out.last_version = row.Int("last_version");
  out.generation = row.Int("generation");
  out.epoch = row.Int("epoch");
  out.state = row.Text("state");
  out.reason = row.Text("reason");
  out.backoff_until = row.TimeAt("backoff_until");
  out.next_at = row.TimeAt("next_at");
  out.claim_until = row.TimeAt("claim_until");
  out.labels = ParseLabels(row.BytesAt("labels"));
  out.updated_at = row.TimeAt("updated_at");
  out.listed_until = row.TimeAt("listed_until");
  out.used_at = row.TimeAt("used_at");
  return out;
}

// A time that may be absent, as NULL.
std::optional<absl::Time> OptTime(absl::Time time) {
  return time == absl::InfinitePast() ? std::nullopt : std::make_optional(time);
}

VersionRow ToVersion(const Row& row) {
  VersionRow out;
  out.rid = row.Text("rid");
  out.version = row.Int("version");
  out.generation = row.Int("generation");
  out.role = static_cast<VersionRole>(row.Int("role"));
  out.pinned = row.Bool("pinned");
  out.shown_epoch = row.Int("shown_epoch");
  out.labels = ParseLabels(row.BytesAt("labels"));
  out.created_at = row.TimeAt("created_at");
  return out;
}

OwnerKeyRow ToOwnerKey(const Row& row) {
  OwnerKeyRow out;
  out.owner = {row.Text("owner_type"), row.Text("owner_id")};
  out.key_version = static_cast<uint32_t>(row.Int("key_version"));
  out.term = static_cast<uint32_t>(row.Int("term"));
  out.destroyed = row.Bool("destroyed");
  out.wrapped = row.BytesAt("wrapped");
  return out;
}

// "<length>:<bytes>" for each name and value: annotations of a KMS plugin are any bytes.
Bytes AnnotationBytes(const std::map<std::string, std::string>& annotations) {
  std::string out;
  for (const auto& [name, value] : annotations) {
    absl::StrAppend(&out, name.size(), ":", name, value.size(), ":", value);
  }
  return Bytes{out};
}

std::map<std::string, std::string> ParseAnnotations(absl::string_view bytes) {
  std::map<std::string, std::string> out;
  const auto take = [&bytes](std::string& item) {
    const size_t colon = bytes.find(':');
    size_t size = 0;
    if (colon == absl::string_view::npos || !absl::SimpleAtoi(bytes.substr(0, colon), &size) ||
        size > bytes.size() - colon - 1) {
      return false;
    }
    item = std::string(bytes.substr(colon + 1, size));
    bytes.remove_prefix(colon + 1 + size);
    return true;
  };
  std::string name;
  std::string value;
  while (!bytes.empty() && take(name) && take(value)) {
    out[name] = value;
  }
  return out;
}

}  // namespace

Labels ParseLabels(const std::string& bytes) {
  v1::RecordMetadata holder;
  if (!holder.ParseFromString(bytes)) {
    return {};
  }
  return {holder.labels().begin(), holder.labels().end()};
}

uint32_t ActiveTerm(const std::vector<TermRow>& terms) {
  const auto active =
      std::find_if(terms.begin(), terms.end(), [](const TermRow& term) { return term.state == "active"; });
  return active == terms.end() ? 0 : active->term;
}

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

absl::StatusOr<std::optional<RecordRow>> FindRecord(Transaction& tx, const RecordId& id) {
  ASSIGN_OR_RETURN(
      const auto row,
      tx.QueryRow(absl::StrCat("SELECT ", kRecordColumns,
                               " FROM record WHERE owner_type = :owner_type AND owner_id = :owner_id AND "
                               "kind = :kind AND name = :name"),
                  {{"owner_type", id.owner.type}, {"owner_id", id.owner.id}, {"kind", id.kind}, {"name", id.name}}));
  return row.has_value() ? std::make_optional(ToRecord(*row)) : std::nullopt;
}

absl::StatusOr<std::vector<RecordRow>> ListRecords(Transaction& tx, const Owner& owner) {
  return QueryRecords(tx, "WHERE owner_type = :owner_type AND owner_id = :owner_id ORDER BY kind, name",
                      {{"owner_type", owner.type}, {"owner_id", owner.id}});
}

absl::StatusOr<std::vector<RecordRow>> QueryRecords(Transaction& tx, const std::string& where,
                                                    const SqlParams& params) {
  ASSIGN_OR_RETURN(const Rows rows, tx.Query(absl::StrCat("SELECT ", kRecordColumns, " FROM record ", where), params));
  std::vector<RecordRow> out;
  out.reserve(rows.size());
  for (const Row& row : rows) {
    out.push_back(ToRecord(row));
  }
  return out;
}

std::string AppUidOf(const RecordRow& row) {
  if (row.id.kind == "connection") {
    return AppOf(row.id);
  }
  const auto label = row.labels.find("app_uid");
  return label == row.labels.end() ? "" : label->second;
}

absl::Status SaveRecord(Transaction& tx, const RecordRow& row) {
  return tx
      .Exec(
          "INSERT INTO record (rid, owner_type, owner_id, kind, name, head, last_version, generation, epoch, state, "
          "reason, "
          "backoff_until, next_at, claim_until, labels, updated_at, app_uid, listed_until, used_at) VALUES (:rid, "
          ":owner_type, :owner_id, :kind, :name, :head, :last_version, :generation, :epoch, :state, :reason, "
          ":backoff_until, :next_at, :claim_until, :labels, :updated_at, :app_uid, :listed_until, :used_at) ON "
          "CONFLICT (rid) DO UPDATE SET head = excluded.head, last_version = excluded.last_version, "
          "generation = excluded.generation, epoch = excluded.epoch, state = excluded.state, reason = excluded.reason, "
          "backoff_until = excluded.backoff_until, next_at = excluded.next_at, claim_until = excluded.claim_until, "
          "labels = excluded.labels, updated_at = excluded.updated_at, app_uid = excluded.app_uid, "
          "listed_until = excluded.listed_until, used_at = excluded.used_at",
          {{"rid", row.rid},
           {"owner_type", row.id.owner.type},
           {"owner_id", row.id.owner.id},
           {"kind", row.id.kind},
           {"name", row.id.name},
           {"head", row.head},
           {"last_version", row.last_version},
           {"generation", row.generation},
           {"epoch", row.epoch},
           {"state", row.state},
           {"reason", row.reason},
           {"backoff_until", row.backoff_until},
           {"next_at", OptTime(row.next_at)},
           {"claim_until", row.claim_until},
           {"labels", LabelBytes(row.labels)},
           {"updated_at", row.updated_at},
           {"app_uid", AppUidOf(row)},
           {"listed_until", row.listed_until},
           {"used_at", OptTime(row.used_at)}})
      .status();
}

absl::Status StampUse(Transaction& tx, const std::string& rid, absl::Time now, absl::Time before) {
  return tx
      .Exec("UPDATE record SET used_at = :now WHERE rid = :rid AND (used_at IS NULL OR used_at <= :before)",
            {{"now", now}, {"rid", rid}, {"before", before}})
      .status();
}

absl::Status EraseRecord(Transaction& tx, const std::string& rid) {
  RETURN_IF_ERROR(EraseVersions(tx, rid));
  RETURN_IF_ERROR(tx.Exec("DELETE FROM lease WHERE rid = :rid", {{"rid", rid}}).status());
  return tx.Exec("DELETE FROM record WHERE rid = :rid", {{"rid", rid}}).status();
}

absl::StatusOr<std::optional<VersionRow>> FindVersion(Transaction& tx, const std::string& rid, int64_t version) {
  ASSIGN_OR_RETURN(const auto row,
                   tx.QueryRow(absl::StrCat("SELECT ", kVersionColumns,
                                            ", sealed FROM record_version WHERE rid = :rid AND version = :version"),
                               {{"rid", rid}, {"version", version}}));
  if (!row.has_value()) {
    return std::nullopt;
  }
  VersionRow out = ToVersion(*row);
  out.sealed = row->BytesAt("sealed");
  return out;
}

absl::StatusOr<std::vector<VersionRow>> ListVersions(Transaction& tx, const std::string& rid) {
  ASSIGN_OR_RETURN(
      const Rows rows,
      tx.Query(absl::StrCat("SELECT ", kVersionColumns, " FROM record_version WHERE rid = :rid ORDER BY version DESC"),
               {{"rid", rid}}));
  std::vector<VersionRow> out;
  for (const Row& row : rows) {
    out.push_back(ToVersion(row));
  }
  return out;
}

absl::Status SaveVersion(Transaction& tx, const VersionRow& row) {
  return tx
      .Exec(
          "INSERT INTO record_version (rid, version, generation, role, pinned, shown_epoch, labels, sealed, "
          "created_at) "
          "VALUES (:rid, :version, :generation, :role, :pinned, :shown_epoch, :labels, :sealed, :created_at) "
          "ON CONFLICT (rid, version) DO UPDATE SET role = excluded.role, pinned = excluded.pinned, "
          "shown_epoch = excluded.shown_epoch, labels = excluded.labels, sealed = excluded.sealed, "
          "created_at = excluded.created_at",
          {{"rid", row.rid},
           {"version", row.version},
           {"generation", row.generation},
           {"role", row.role},
           {"pinned", row.pinned},
           {"shown_epoch", row.shown_epoch},
           {"labels", LabelBytes(row.labels)},
           {"sealed", Bytes{row.sealed}},
           {"created_at", row.created_at}})
      .status();
}

absl::Status EraseVersion(Transaction& tx, const std::string& rid, int64_t version) {
  return tx
      .Exec("DELETE FROM record_version WHERE rid = :rid AND version = :version", {{"rid", rid}, {"version", version}})
      .status();
}

absl::Status EraseVersions(Transaction& tx, const std::string& rid) {
  return tx.Exec("DELETE FROM record_version WHERE rid = :rid", {{"rid", rid}}).status();
}

absl::StatusOr<std::optional<LeaseRow>> FindLease(Transaction& tx, const std::string& digest) {
  ASSIGN_OR_RETURN(const auto row,
                   tx.QueryRow("SELECT digest, rid, caller, generation, epoch, version, state, answer_version, "
                               "answer_side, acquired_at FROM lease WHERE digest = :digest",
                               {{"digest", digest}}));
  if (!row.has_value()) {
    return std::nullopt;
  }
  LeaseRow out;
  out.digest = digest;
  out.rid = row->Text("rid");
  out.caller = row->Text("caller");
  out.generation = row->Int("generation");
  out.epoch = row->Int("epoch");
  out.version = row->Int("version");
  out.state = static_cast<LeaseState>(row->Int("state"));
  out.answer_version = row->Int("answer_version");
  out.answer_side = row->Bool("answer_side");
  out.acquired_at = row->TimeAt("acquired_at");
  return out;
}

absl::Status SaveLease(Transaction& tx, const LeaseRow& row) {
  return tx
      .Exec(
          "INSERT INTO lease (digest, rid, caller, generation, epoch, version, state, answer_version, answer_side, "
          "acquired_at) VALUES (:digest, :rid, :caller, :generation, :epoch, :version, :state, :answer_version, "
          ":answer_side, :acquired_at) ON CONFLICT (digest) DO UPDATE SET state = excluded.state, "
          "answer_version = excluded.answer_version, answer_side = excluded.answer_side",
          {{"digest", row.digest},
           {"rid", row.rid},
           {"caller", row.caller},
           {"generation", row.generation},
           {"epoch", row.epoch},
           {"version", row.version},
           {"state", row.state},
           {"answer_version", row.answer_version},
           {"answer_side", row.answer_side},
           {"acquired_at", row.acquired_at}})
      .status();
}

absl::Status EraseOldLeases(Transaction& tx, const std::string& rid, absl::Time ended_before, absl::Time open_before) {
  return tx
      .Exec(
          "DELETE FROM lease WHERE rid = :rid AND ((state <> :open AND acquired_at < :ended_before) OR "
          "acquired_at < :open_before)",
          {{"rid", rid}, {"open", LeaseState::kOpen}, {"ended_before", ended_before}, {"open_before", open_before}})
      .status();
}

absl::StatusOr<std::optional<OwnerKeyRow>> FindOwnerKey(Transaction& tx, const Owner& owner, uint32_t key_version) {
  ASSIGN_OR_RETURN(
      const auto row,
      tx.QueryRow(absl::StrCat("SELECT ", kOwnerKeyColumns,
                               " FROM data_key WHERE owner_type = :owner_type AND owner_id = :owner_id AND "
                               "key_version = :key_version"),
                  {{"owner_type", owner.type}, {"owner_id", owner.id}, {"key_version", key_version}}));
  return row.has_value() ? std::make_optional(ToOwnerKey(*row)) : std::nullopt;
}

absl::StatusOr<std::optional<OwnerKeyRow>> FindNewestOwnerKey(Transaction& tx, const Owner& owner) {
  ASSIGN_OR_RETURN(const auto row,
                   tx.QueryRow(absl::StrCat("SELECT ", kOwnerKeyColumns,
                                            " FROM data_key WHERE owner_type = :owner_type AND owner_id = :owner_id "
                                            "ORDER BY key_version DESC LIMIT 1"),
                               {{"owner_type", owner.type}, {"owner_id", owner.id}}));
  return row.has_value() ? std::make_optional(ToOwnerKey(*row)) : std::nullopt;
}

absl::Status SaveOwnerKey(Transaction& tx, const OwnerKeyRow& row) {
  return tx
      .Exec(
          "INSERT INTO data_key (owner_type, owner_id, key_version, term, destroyed, wrapped) VALUES (:owner_type, "
          ":owner_id, :key_version, :term, :destroyed, :wrapped) ON CONFLICT (owner_type, owner_id, key_version) DO "
          "UPDATE SET term = excluded.term, destroyed = excluded.destroyed, wrapped = excluded.wrapped",
          {{"owner_type", row.owner.type},
           {"owner_id", row.owner.id},
           {"key_version", row.key_version},
           {"term", row.term},
           {"destroyed", row.destroyed},
           {"wrapped", Bytes{row.wrapped}}})
      .status();
}

absl::Status EraseOwnerKey(Transaction& tx, const OwnerKeyRow& row) {
  return tx
      .Exec(
          "DELETE FROM data_key WHERE owner_type = :owner_type AND owner_id = :owner_id AND key_version = :key_version",
          {{"owner_type", row.owner.type}, {"owner_id", row.owner.id}, {"key_version", row.key_version}})
      .status();
}

absl::Status DestroyOwnerKeys(Transaction& tx, const Owner& owner) {
  ASSIGN_OR_RETURN(auto newest, FindNewestOwnerKey(tx, owner));
  if (!newest.has_value()) {
    return absl::OkStatus();
  }
  const SqlParams whose = {{"owner_type", owner.type}, {"owner_id", owner.id}};
  // Overwritten first: a row that is deleted may lie in its page for a while.
  RETURN_IF_ERROR(
      tx.Exec("UPDATE data_key SET wrapped = '' WHERE owner_type = :owner_type AND owner_id = :owner_id", whose)
          .status());
  RETURN_IF_ERROR(
      tx.Exec("DELETE FROM data_key WHERE owner_type = :owner_type AND owner_id = :owner_id", whose).status());
  newest->destroyed = true;
  newest->wrapped.clear();
  return SaveOwnerKey(tx, *newest);
}

absl::StatusOr<std::vector<OwnerKeyRow>> ListOwnerKeysBefore(Transaction& tx, uint32_t term,
                                                             const std::optional<OwnerKeyRow>& after, int limit) {
  SqlParams params = {{"term", term}, {"limit", limit}};
  std::string beyond;
  if (after.has_value()) {
    beyond = "AND (term, owner_type, owner_id, key_version) > (:at_term, :at_type, :at_id, :at_version) ";
    params.push_back({"at_term", after->term});
    params.push_back({"at_type", after->owner.type});
    params.push_back({"at_id", after->owner.id});
    params.push_back({"at_version", after->key_version});
  }
  ASSIGN_OR_RETURN(
      const Rows rows,
      tx.Query(absl::StrCat("SELECT ", kOwnerKeyColumns, " FROM data_key WHERE term < :term AND destroyed = 0 ", beyond,
                            "ORDER BY term, owner_type, owner_id, key_version LIMIT :limit"),
               params));
  std::vector<OwnerKeyRow> out;
  for (const Row& row : rows) {
    out.push_back(ToOwnerKey(row));
  }
  return out;
}

absl::StatusOr<std::map<uint32_t, int64_t>> CountOwnerKeysByTerm(Transaction& tx) {
  ASSIGN_OR_RETURN(const Rows rows,
                   tx.Query("SELECT term, COUNT(*) AS n FROM data_key WHERE destroyed = 0 GROUP BY term"));
  std::map<uint32_t, int64_t> out;
  for (const Row& row : rows) {
    out[static_cast<uint32_t>(row.Int("term"))] = row.Int("n");
  }
  return out;
}

absl::StatusOr<std::vector<OwnedVersion>> ListOwnedVersions(Transaction& tx, const Owner& owner,
                                                            const std::pair<std::string, int64_t>& after, int limit) {
  ASSIGN_OR_RETURN(
      const Rows rows,
      tx.Query("SELECT r.kind AS kind, r.name AS name, v.rid AS rid, v.version AS version, v.generation AS generation, "
               "v.role AS role, v.pinned AS pinned, v.shown_epoch AS shown_epoch, v.labels AS labels, v.sealed AS "
               "sealed, v.created_at AS created_at FROM record r JOIN record_version v ON v.rid = r.rid WHERE "
               "r.owner_type = :owner_type AND r.owner_id = :owner_id AND (v.rid, v.version) > (:rid, :version) ORDER "
               "BY v.rid, v.version LIMIT :limit",
               {{"owner_type", owner.type},
                {"owner_id", owner.id},
                {"rid", after.first},
                {"version", after.second},
                {"limit", limit}}));
  std::vector<OwnedVersion> out;
  for (const Row& row : rows) {
    OwnedVersion owned = {{owner, row.Text("kind"), row.Text("name")}, ToVersion(row)};
    owned.version.sealed = row.BytesAt("sealed");
    out.push_back(std::move(owned));
  }
  return out;
}

absl::StatusOr<bool> ReplaceSealed(Transaction& tx, const VersionRow& row, const std::string& sealed) {
  ASSIGN_OR_RETURN(
      const int64_t changed,
      tx.Exec("UPDATE record_version SET sealed = :new WHERE rid = :rid AND version = :version AND "
              "sealed = :old",
              {{"new", Bytes{sealed}}, {"rid", row.rid}, {"version", row.version}, {"old", Bytes{row.sealed}}}));
  return changed == 1;
}

absl::StatusOr<std::vector<TermRow>> ListTerms(Transaction& tx) {
  ASSIGN_OR_RETURN(const Rows rows,
                   tx.Query("SELECT term, state, kek_id, wrapped, annotations, created_at FROM keyring ORDER BY term"));
  std::vector<TermRow> out;
  for (const Row& row : rows) {
    TermRow term;
    term.term = static_cast<uint32_t>(row.Int("term"));
    term.state = row.Text("state");
    term.wrapped.key_id = row.Text("kek_id");
    term.wrapped.ciphertext = row.BytesAt("wrapped");
    term.wrapped.annotations = ParseAnnotations(row.BytesAt("annotations"));
    term.created_at = row.TimeAt("created_at");
    out.push_back(std::move(term));
  }
  return out;
}

absl::Status SaveTerm(Transaction& tx, const TermRow& row) {
  return tx
      .Exec(
          "INSERT INTO keyring (term, state, kek_id, wrapped, annotations, created_at) VALUES (:term, :state, :kek_id, "
          ":wrapped, :annotations, :created_at) ON CONFLICT (term) DO UPDATE SET state = excluded.state, "
          "kek_id = excluded.kek_id, wrapped = excluded.wrapped, annotations = excluded.annotations",
          {{"term", row.term},
           {"state", row.state},
           {"kek_id", row.wrapped.key_id},
           {"wrapped", Bytes{row.wrapped.ciphertext}},
           {"annotations", AnnotationBytes(row.wrapped.annotations)},
           {"created_at", row.created_at}})
      .status();
}

absl::StatusOr<std::string> DeploymentId(Transaction& tx) {
  ASSIGN_OR_RETURN(const auto row, tx.QueryRow("SELECT value FROM vault_meta WHERE name = 'deployment_id'"));
  return row.has_value() ? row->Text("value") : std::string();
}

absl::Status SaveDeploymentId(Transaction& tx, const std::string& deployment_id) {
  return tx.Exec("INSERT INTO vault_meta (name, value) VALUES ('deployment_id', :id)", {{"id", deployment_id}})
      .status();
}

absl::StatusOr<bool> IsEmpty(Transaction& tx) {
  ASSIGN_OR_RETURN(const auto row,
                   tx.QueryRow("SELECT (SELECT COUNT(*) FROM vault_meta) + (SELECT COUNT(*) FROM keyring) "
                               "+ (SELECT COUNT(*) FROM data_key) + (SELECT COUNT(*) FROM record) + "
                               "(SELECT COUNT(*) FROM record_version) AS n"));
  return row.has_value() && row->Int("n") == 0;
}

}  // namespace sallyport::vault

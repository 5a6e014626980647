// SPDX-License-Identifier: Apache-2.0
#include "services/vault/store.h"

#include "absl/strings/str_cat.h"

#include "common/status_macros.h"

namespace sallyport::vault {
namespace {

constexpr char kRecordColumns[] =
    "rid, owner_type, owner_id, kind, name, head, last_version, generation, epoch, state, reason, backoff_until, "
    "next_at, "
    "claim_until, labels, updated_at, listed_until, used_at";
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

}  // namespace

Labels ParseLabels(const std::string& bytes) {
  v1::RecordMetadata holder;
  if (!holder.ParseFromString(bytes)) {
    return {};
  }
  return {holder.labels().begin(), holder.labels().end()};
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

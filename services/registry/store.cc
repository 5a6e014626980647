// SPDX-License-Identifier: Apache-2.0
#include "services/registry/store.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/crypto/random.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/registry/audit_names.h"
#include "services/registry/audit_store.h"
#include "services/registry/errors.h"
#include "services/registry/secret_ledger.h"

namespace sallyport::registry {
namespace {

constexpr absl::Duration kInvalidationsInSnapshot = absl::Hours(1);

std::vector<std::string> CatalogSchema() {
  return {
      "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
      "CREATE TABLE counter (name TEXT PRIMARY KEY, value BIGINT NOT NULL)",
      "INSERT INTO counter (name, value) VALUES ('revision', 0)",
      "CREATE TABLE resource (uid TEXT PRIMARY KEY, kind TEXT NOT NULL, slug TEXT NOT NULL, version BIGINT NOT NULL, "
      "body TEXT NOT NULL, UNIQUE (kind, slug))",
      "CREATE TABLE change_log (revision BIGINT NOT NULL, part BIGINT NOT NULL, at BIGINT NOT NULL, kind TEXT NOT "
      "NULL, "
      "uid TEXT NOT NULL, deleted BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (revision, part))",
      "CREATE TABLE retired_secret (record TEXT PRIMARY KEY, vault_kind TEXT NOT NULL, version BIGINT NOT NULL, "
      "updated_at BIGINT NOT NULL, origin TEXT NOT NULL, until BIGINT NOT NULL)",
  };
}

std::vector<std::string> SecretWriteSchema() {
  return {
      "CREATE TABLE secret_write (write TEXT NOT NULL, record TEXT NOT NULL, vault_kind TEXT NOT NULL, at BIGINT "
      "NOT NULL, given_up BIGINT NOT NULL, PRIMARY KEY (write, record))"};
}

std::vector<std::string> ReplacedSecretSchema() {
  return {
      "CREATE TABLE replaced_secret (record TEXT NOT NULL, vault_kind TEXT NOT NULL, version BIGINT NOT NULL, "
      "PRIMARY KEY (record, version))"};
}

std::vector<std::string> EndingAppSchema() {
  return {"CREATE TABLE ending_app (uid TEXT PRIMARY KEY, body TEXT NOT NULL, since BIGINT NOT NULL)"};
}

// Kinds of rows in the change table besides those of resources.
constexpr char kInvalidation[] = "Invalidation";
constexpr char kEndingApp[] = "EndingApp";

template <typename T>
absl::Status ParseInto(const std::string& body, T* message) {
  if (message->ParseFromString(body)) return absl::OkStatus();
  return error::DamagedResource();
}

absl::Status AddResource(absl::string_view kind, const std::string& body, v1::WatchEvent::Delta& delta) {
  if (kind == ResourceTraits<v1::McpServer>::kKind) return ParseInto(body, delta.add_mcp_servers());
  if (kind == ResourceTraits<v1::App>::kKind) return ParseInto(body, delta.add_apps());
  if (kind == kEndingApp) return ParseInto(body, delta.add_ending_apps());
  return ParseInto(body, delta.add_credentials());
}

void AddDeleted(absl::string_view kind, const std::string& uid, v1::WatchEvent::Delta& delta) {
  if (kind == ResourceTraits<v1::McpServer>::kKind) {
    delta.add_deleted_mcp_server_uids(uid);
  } else if (kind == ResourceTraits<v1::App>::kKind) {
    delta.add_deleted_app_uids(uid);
  } else if (kind == kEndingApp) {
    delta.add_finished_app_uids(uid);
  } else {
    delta.add_deleted_credential_uids(uid);
  }
}

Store::Resource FromRow(const Row& row) {
  return {row.Text("uid"), row.Text("slug"), row.Int("version"), row.BytesAt("body")};
}

Store::EndingApp EndingFromRow(const Row& row) { return {row.Text("uid"), row.BytesAt("body"), row.TimeAt("since")}; }

absl::Status AppendChange(Transaction& tx, int64_t revision, int64_t part, absl::string_view kind,
                          absl::string_view uid, bool deleted, const std::string& body) {
  ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
  return tx
      .Exec(
          "INSERT INTO change_log (revision, part, at, kind, uid, deleted, body) VALUES (:revision, :part, :at, :kind, "
          ":uid, :deleted, :body)",
          {{"revision", revision},
           {"part", part},
           {"at", now},
           {"kind", kind},
           {"uid", uid},
           {"deleted", deleted},
           {"body", Bytes{body}}})
      .status();
}

}  // namespace

std::vector<Migration> Store::Migrations() {
  return {{1, CatalogSchema()},        {2, AuditOutbox::Schema()},        {3, AuditStore::Schema()},
          {4, SecretWriteSchema()},    {5, ReplacedSecretSchema()},       {6, AuditNames::Schema()},
          {7, SecretLedger::Schema()}, {8, SecretLedger::ClientSchema()}, {9, EndingAppSchema()}};
}

absl::StatusOr<std::string> Store::StoreId(Transaction& tx) {
  ASSIGN_OR_RETURN(auto row, tx.QueryRow("SELECT value FROM meta WHERE name = 'store_id'"));
  if (row) return row->Text("value");
  const std::string id = RandomToken("");
  RETURN_IF_ERROR(tx.Exec("INSERT INTO meta (name, value) VALUES ('store_id', :id)", {{"id", id}}).status());
  return id;
}

absl::StatusOr<int64_t> Store::Revision(Transaction& tx) {
  ASSIGN_OR_RETURN(auto row, tx.QueryRow("SELECT value FROM counter WHERE name = 'revision'"));
  return row ? row->Int("value") : 0;
}

absl::StatusOr<int64_t> Store::NextRevision(Transaction& tx) {
  // The row's lock makes revisions visible in the order they are given: a sequence would let readers skip commits.
  ASSIGN_OR_RETURN(auto row,
                   tx.QueryRow("UPDATE counter SET value = value + 1 WHERE name = 'revision' RETURNING value"));
  return row->Int("value");
}

absl::StatusOr<std::vector<Store::Resource>> Store::List(Transaction& tx, absl::string_view kind) {
  ASSIGN_OR_RETURN(
      const Rows rows,
      tx.Query("SELECT uid, slug, version, body FROM resource WHERE kind = :kind ORDER BY slug", {{"kind", kind}}));
  std::vector<Resource> resources;
  for (const Row& row : rows) resources.push_back(FromRow(row));
  return resources;
}

absl::StatusOr<std::optional<Store::Resource>> Store::FindBySlug(Transaction& tx, absl::string_view kind,
                                                                 absl::string_view slug) {
  ASSIGN_OR_RETURN(auto row,
                   tx.QueryRow("SELECT uid, slug, version, body FROM resource WHERE kind = :kind AND slug = :slug",
                               {{"kind", kind}, {"slug", slug}}));
  if (!row) return std::optional<Resource>();
  return std::optional<Resource>(FromRow(*row));
}

absl::Status Store::Save(Transaction& tx, absl::string_view kind, const Resource& resource, int64_t expected_version) {
  const SqlParams params = {{"uid", resource.uid},          {"kind", kind},
                            {"slug", resource.slug},        {"version", resource.version},
                            {"body", Bytes{resource.body}}, {"expected", expected_version}};
  ASSIGN_OR_RETURN(
      const int64_t saved,
      expected_version == 0
          ? tx.Exec(
                "INSERT INTO resource (uid, kind, slug, version, body) VALUES (:uid, :kind, :slug, :version, :body) "
                "ON CONFLICT DO NOTHING",
                {params.begin(), params.end() - 1})
          : tx.Exec("UPDATE resource SET version = :version, body = :body WHERE uid = :uid AND version = :expected",
                    {{"uid", resource.uid},
                     {"version", resource.version},
                     {"body", Bytes{resource.body}},
                     {"expected", expected_version}}));
  if (saved == 0) {
    return expected_version == 0
               ? absl::AlreadyExistsError(absl::StrCat("slug ", resource.slug, " is taken"))
               : absl::AbortedError(absl::StrCat(resource.slug, " was changed meanwhile: read it again"));
  }
  ASSIGN_OR_RETURN(const int64_t revision, NextRevision(tx));
  return AppendChange(tx, revision, 0, kind, resource.uid, false, "");
}

absl::Status Store::Amend(Transaction& tx, absl::string_view kind, const Resource& resource) {
  ASSIGN_OR_RETURN(const int64_t amended,
                   tx.Exec("UPDATE resource SET body = :body WHERE uid = :uid AND version = :version",
                           {{"uid", resource.uid}, {"version", resource.version}, {"body", Bytes{resource.body}}}));
  if (amended == 0) return absl::AbortedError(absl::StrCat(resource.slug, " was changed meanwhile: read it again"));
  ASSIGN_OR_RETURN(const int64_t revision, NextRevision(tx));
  return AppendChange(tx, revision, 0, kind, resource.uid, false, "");
}

absl::Status Store::Remove(Transaction& tx, absl::string_view kind, const Resource& resource) {
  ASSIGN_OR_RETURN(const int64_t removed, tx.Exec("DELETE FROM resource WHERE uid = :uid AND version = :version",
                                                  {{"uid", resource.uid}, {"version", resource.version}}));
  if (removed == 0) return absl::AbortedError(absl::StrCat(resource.slug, " was changed meanwhile: read it again"));
  ASSIGN_OR_RETURN(const int64_t revision, NextRevision(tx));
  return AppendChange(tx, revision, 0, kind, resource.uid, true, "");
}

absl::Status Store::EndApp(Transaction& tx, const Resource& app, absl::Time since) {
  RETURN_IF_ERROR(Remove(tx, ResourceTraits<v1::App>::kKind, app));
  v1::App ending;
  RETURN_IF_ERROR(ParseInto(app.body, &ending));
  ending.clear_binding();  // It is erased at once: what it allowed is over.
  RETURN_IF_ERROR(tx.Exec("INSERT INTO ending_app (uid, body, since) VALUES (:uid, :body, :since)",
                          {{"uid", app.uid}, {"body", Bytes{ending.SerializeAsString()}}, {"since", since}})
                      .status());
  ASSIGN_OR_RETURN(const int64_t revision, NextRevision(tx));
  return AppendChange(tx, revision, 0, kEndingApp, app.uid, false, "");
}

absl::StatusOr<std::vector<Store::EndingApp>> Store::ListEndingApps(Transaction& tx) {
  ASSIGN_OR_RETURN(const Rows rows, tx.Query("SELECT uid, body, since FROM ending_app ORDER BY uid"));
  std::vector<EndingApp> apps;
  for (const Row& row : rows) apps.push_back(EndingFromRow(row));
  return apps;
}

absl::StatusOr<std::optional<Store::EndingApp>> Store::FinishApp(Transaction& tx, const std::string& uid) {
  ASSIGN_OR_RETURN(const auto row,
                   tx.QueryRow("DELETE FROM ending_app WHERE uid = :uid RETURNING uid, body, since", {{"uid", uid}}));
  if (!row) return std::optional<EndingApp>();
  ASSIGN_OR_RETURN(const int64_t revision, NextRevision(tx));
  RETURN_IF_ERROR(AppendChange(tx, revision, 0, kEndingApp, uid, true, ""));
  return std::optional<EndingApp>(EndingFromRow(*row));
}

absl::Status Store::AppendInvalidations(Transaction& tx,
                                        const google::protobuf::RepeatedPtrField<v1::Invalidation>& invalidations) {
  if (invalidations.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int64_t revision, NextRevision(tx));
  ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
  // As one insertion: a revoked user or client may have thousands.
  std::vector<std::vector<SqlValue>> rows;
  for (v1::Invalidation invalidation : invalidations) {
    *invalidation.mutable_at() = ToTimestamp(now);
    rows.push_back({revision, rows.size(), now, kInvalidation, "", false, Bytes{invalidation.SerializeAsString()}});
  }
  return tx.Insert("change_log (revision, part, at, kind, uid, deleted, body)", rows).status();
}

absl::StatusOr<std::optional<v1::WatchEvent>> Store::DeltaSince(Transaction& tx, int64_t after) {
  ASSIGN_OR_RETURN(const int64_t revision, Revision(tx));
  if (after > revision) return std::optional<v1::WatchEvent>();
  ASSIGN_OR_RETURN(auto oldest, tx.QueryRow("SELECT MIN(revision) AS oldest FROM change_log"));
  if (after < revision && (oldest->IsNull("oldest") || oldest->Int("oldest") > after + 1)) {
    return std::optional<v1::WatchEvent>();
  }
  v1::WatchEvent event;
  event.set_revision(revision);
  ASSIGN_OR_RETURN(*event.mutable_store_id(), StoreId(tx));
  v1::WatchEvent::Delta& delta = *event.mutable_delta();
  ASSIGN_OR_RETURN(
      const Rows rows,
      tx.Query("SELECT c.kind AS kind, c.uid AS uid, c.body AS body, CASE WHEN c.kind = :ending THEN e.body ELSE "
               "r.body END AS now FROM change_log c LEFT JOIN resource r ON r.uid = c.uid LEFT JOIN ending_app e ON "
               "e.uid = c.uid WHERE c.revision > :after AND c.revision <= :revision ORDER BY c.revision, c.part",
               {{"ending", kEndingApp}, {"after", after}, {"revision", revision}}));
  // Several changes of one resource: its present state once. An app and what is left of it when it was deleted are two.
  std::set<std::pair<std::string, std::string>> seen;
  for (const Row& row : rows) {
    const std::string kind = row.Text("kind");
    if (kind == kInvalidation) {
      RETURN_IF_ERROR(ParseInto(row.BytesAt("body"), delta.add_invalidations()));
    } else if (seen.emplace(kind, row.Text("uid")).second) {
      if (row.IsNull("now")) {
        AddDeleted(kind, row.Text("uid"), delta);
      } else {
        RETURN_IF_ERROR(AddResource(kind, row.BytesAt("now"), delta));
      }
    }
  }
  return std::optional<v1::WatchEvent>(std::move(event));
}

absl::StatusOr<v1::WatchEvent> Store::Snapshot(Transaction& tx) {
  v1::WatchEvent event;
  ASSIGN_OR_RETURN(*event.mutable_store_id(), StoreId(tx));
  ASSIGN_OR_RETURN(const int64_t revision, Revision(tx));
  event.set_revision(revision);
  v1::WatchEvent::Snapshot& snapshot = *event.mutable_snapshot();
  v1::WatchEvent::Delta all;
  for (absl::string_view kind :
       {ResourceTraits<v1::McpServer>::kKind, ResourceTraits<v1::App>::kKind, ResourceTraits<v1::Credential>::kKind}) {
    ASSIGN_OR_RETURN(const std::vector<Resource> resources, List(tx, kind));
    for (const Resource& resource : resources) RETURN_IF_ERROR(AddResource(kind, resource.body, all));
  }
  snapshot.mutable_mcp_servers()->Swap(all.mutable_mcp_servers());
  snapshot.mutable_apps()->Swap(all.mutable_apps());
  snapshot.mutable_credentials()->Swap(all.mutable_credentials());
  ASSIGN_OR_RETURN(const std::vector<EndingApp> ending, ListEndingApps(tx));
  for (const EndingApp& app : ending) RETURN_IF_ERROR(ParseInto(app.body, snapshot.add_ending_apps()));
  ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
  ASSIGN_OR_RETURN(const Rows rows,
                   tx.Query("SELECT body FROM change_log WHERE kind = :kind AND at > :since ORDER BY revision, part",
                            {{"kind", kInvalidation}, {"since", now - kInvalidationsInSnapshot}}));
  for (const Row& row : rows) RETURN_IF_ERROR(ParseInto(row.BytesAt("body"), snapshot.add_invalidations()));
  return event;
}

absl::Status Store::PruneChanges(Transaction& tx, absl::Time before) {
  // By revision, not by time: with a clock that was set back, a hole in the history would look like no change at all.
  return tx
      .Exec(
          "DELETE FROM change_log WHERE revision < COALESCE((SELECT MIN(revision) FROM change_log WHERE at >= "
          ":before), "
          "(SELECT value + 1 FROM counter WHERE name = 'revision'))",
          {{"before", before}})
      .status();
}

}  // namespace sallyport::registry

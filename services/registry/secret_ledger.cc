// SPDX-License-Identifier: Apache-2.0
#include "services/registry/secret_ledger.h"

#include <array>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/json_log.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/registry/resource.h"
#include "services/registry/secret_fields.h"
#include "services/registry/store.h"

namespace sallyport::registry {
namespace {

using State = SecretLedger::State;
using Version = SecretLedger::Version;

constexpr std::array<std::pair<State, absl::string_view>, 5> kStates = {{{State::kWritten, "WRITTEN"},
                                                                         {State::kLive, "LIVE"},
                                                                         {State::kReplaced, "REPLACED"},
                                                                         {State::kRetired, "RETIRED"},
                                                                         {State::kErasing, "ERASING"}}};

absl::string_view NameOf(State state) {
  for (const auto& [value, name] : kStates) {
    if (value == state) return name;
  }
  return "";
}

Version FromRow(const Row& row) {
  Version version;
  version.record = row.Text("record");
  version.kind = row.Text("kind");
  version.version = row.Int("version");
  for (const auto& [value, name] : kStates) {
    if (row.Text("state") == name) version.state = value;
  }
  version.write = row.Text("write");
  version.origins = SplitOrigins(row.Text("origins"));
  version.until = row.TimeAt("until");
  version.updated_at = row.TimeAt("updated_at");
  version.onward = SplitOrigins(row.Text("onward"));
  version.public_jwk = row.Text("public_jwk");
  return version;
}

constexpr char kInsert[] =
    "INSERT INTO secret_version (record, version, kind, state, write, origins, until, updated_at, onward, public_jwk) "
    "VALUES (:record, :version, :kind, :state, :write, :origins, :until, :updated_at, :onward, :public_jwk) ON "
    "CONFLICT "
    "(record, version, write) DO ";

absl::Status Insert(Transaction& tx, const Version& version, absl::string_view otherwise) {
  return tx
      .Exec(absl::StrCat(kInsert, otherwise), {{"record", version.record},
                                               {"version", version.version},
                                               {"kind", version.kind},
                                               {"state", NameOf(version.state)},
                                               {"write", version.write},
                                               {"origins", JoinOrigins(version.origins)},
                                               {"until", version.until},
                                               {"updated_at", version.updated_at},
                                               {"onward", JoinOrigins(version.onward)},
                                               {"public_jwk", version.public_jwk}})
      .status();
}

absl::Status Put(Transaction& tx, Version version, State state, absl::Time until = absl::InfinitePast()) {
  version.state = state;
  version.until = until;
  version.write.clear();
  return Insert(tx, version,
                "UPDATE SET kind = excluded.kind, state = excluded.state, origins = excluded.origins, until = "
                "excluded.until, updated_at = excluded.updated_at, onward = excluded.onward, public_jwk = "
                "excluded.public_jwk");
}

// `version` is referred to now.
absl::Status Supersede(Transaction& tx, const Version& version) {
  const SqlParams params = {{"record", version.record}, {"version", version.version}};
  RETURN_IF_ERROR(
      tx.Exec("DELETE FROM secret_version WHERE record = :record AND version >= :version AND write = ''", params)
          .status());
  for (const auto& [from, to] :
       {std::pair(State::kRetired, State::kErasing), std::pair(State::kLive, State::kReplaced)}) {
    RETURN_IF_ERROR(
        tx.Exec("UPDATE secret_version SET state = :to, until = :now WHERE record = :record AND state = "
                ":from",
                {{"to", NameOf(to)}, {"now", absl::InfinitePast()}, {"record", version.record}, {"from", NameOf(from)}})
            .status());
  }
  return Put(tx, version, State::kLive);
}

// Every version of these records, except what a write that is not settled puts there: that is taken back by its label.
absl::StatusOr<std::set<std::string>> EraseThose(Transaction& tx,
                                                 const std::function<bool(const std::string& record)>& which) {
  std::set<std::string> records;
  ASSIGN_OR_RETURN(const std::vector<Version> all, SecretLedger::List(tx));
  for (const Version& version : all) {
    if (!which(version.record) || !version.write.empty()) continue;
    RETURN_IF_ERROR(SecretLedger::Erase(tx, version));
    records.insert(version.record);
  }
  return records;
}

template <typename T>
absl::Status RecordReferencesOf(Transaction& tx) {
  ASSIGN_OR_RETURN(const auto all, Store::List(tx, ResourceTraits<T>::kKind));
  for (const Store::Resource& stored : all) {
    T resource;
    if (!resource.ParseFromString(stored.body)) {
      Log(LogLevel::kWarning, "damaged_resource_skipped", {{"slug", stored.slug}});
      continue;
    }
    std::vector<Version> live;
    const ResourceUrls urls(resource);
    ForEachSecret(resource, [&](const SecretField& field) {
      const auto& secret = *field.secret;
      if (!secret.set()) return;
      const SecretReach reach = ResourceTraits<T>::ReachOf(field, resource, urls);
      live.push_back({secret.vault_record(), std::string(ResourceTraits<T>::kSecretKind), secret.version(),
                      State::kLive, "", reach.origins, absl::InfinitePast(), FromTimestamp(secret.updated_at()),
                      reach.onward, secret.public_jwk()});
    });
    for (const Version& version : live) RETURN_IF_ERROR(Insert(tx, version, "NOTHING"));
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> SecretLedger::Schema() {
  return {
      "CREATE TABLE secret_version (record TEXT NOT NULL, version BIGINT NOT NULL, kind TEXT NOT NULL, state TEXT NOT "
      "NULL, write TEXT NOT NULL, origins TEXT NOT NULL, until BIGINT NOT NULL, updated_at BIGINT NOT NULL, PRIMARY "
      "KEY (record, version, write))",
      // A time before 1970 was that of a version marked for erasing.
      "INSERT INTO secret_version (record, version, kind, state, write, origins, until, updated_at) SELECT record, "
      "version, vault_kind, CASE WHEN until < 0 THEN 'ERASING' ELSE 'RETIRED' END, '', origin, until, updated_at FROM "
      "retired_secret",
      "INSERT INTO secret_version (record, version, kind, state, write, origins, until, updated_at) SELECT record, "
      "version, vault_kind, 'REPLACED', '', '', 0, 0 FROM replaced_secret p WHERE NOT EXISTS (SELECT 1 FROM "
      "retired_secret r WHERE r.record = p.record AND r.version = p.version)",
      // One hour, in microseconds, from its beginning.
      "INSERT INTO secret_version (record, version, kind, state, write, origins, until, updated_at) SELECT record, 0, "
      "vault_kind, CASE WHEN given_up = 1 THEN 'ERASING' ELSE 'WRITTEN' END, write, '', at + 3600000000, 0 FROM "
      "secret_write",
      "DROP TABLE retired_secret",
      "DROP TABLE replaced_secret",
      "DROP TABLE secret_write",
  };
}

std::vector<std::string> SecretLedger::ClientSchema() {
  return {"ALTER TABLE secret_version ADD COLUMN onward TEXT NOT NULL DEFAULT ''",
          "ALTER TABLE secret_version ADD COLUMN public_jwk TEXT NOT NULL DEFAULT ''"};
}

absl::Status SecretLedger::RecordReferences(Transaction& tx) {
  RETURN_IF_ERROR(RecordReferencesOf<v1::McpServer>(tx));
  RETURN_IF_ERROR(RecordReferencesOf<v1::App>(tx));
  return RecordReferencesOf<v1::Credential>(tx);
}

absl::StatusOr<std::vector<Version>> SecretLedger::List(Transaction& tx) {
  ASSIGN_OR_RETURN(const Rows rows, tx.Query("SELECT * FROM secret_version ORDER BY record, version, write"));
  std::vector<Version> all;
  for (const Row& row : rows) all.push_back(FromRow(row));
  return all;
}

absl::Status SecretLedger::Announce(const std::vector<Version>& written) {
  RETURN_IF_ERROR(Step("announce"));
  const absl::Time until = clock_.Now() + kKeepUnsettled;
  return database_.Write([&](Transaction& tx) -> absl::Status {
    for (Version version : written) {
      version.state = State::kWritten;
      version.until = until;
      RETURN_IF_ERROR(Insert(tx, version, "NOTHING"));
    }
    return absl::OkStatus();
  });
}

absl::Status SecretLedger::Settle(Transaction& tx, const std::string& write, size_t announced,
                                  const std::vector<Version>& live) {
  if (announced != 0) {
    ASSIGN_OR_RETURN(const int64_t settled,
                     tx.Exec("DELETE FROM secret_version WHERE write = :write AND state = :written",
                             {{"write", write}, {"written", NameOf(State::kWritten)}}));
    if (settled != static_cast<int64_t>(announced)) {
      return absl::AbortedError("the write took too long and was given up: write it again");
    }
  }
  for (const Version& version : live) RETURN_IF_ERROR(Supersede(tx, version));
  return absl::OkStatus();
}

absl::Status SecretLedger::Abandon(const std::string& write) {
  RETURN_IF_ERROR(Step("abandon"));
  const absl::Time until = clock_.Now() + kKeepAbandoned;
  return database_.Write([&](Transaction& tx) {
    return tx
        .Exec("UPDATE secret_version SET state = :erasing, until = :until WHERE write = :write",
              {{"erasing", NameOf(State::kErasing)}, {"until", until}, {"write", write}})
        .status();
  });
}

absl::Status SecretLedger::AbandonOthers(const std::string& record, const std::string& write,
                                         const std::string& passport) {
  const absl::Time until = clock_.Now() + kKeepAbandoned;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) {
    return tx
        .Exec(
            "UPDATE secret_version SET state = :erasing, until = :until WHERE state = :written AND write <> :write AND "
            "write IN (SELECT write FROM secret_version WHERE record = :record)",
            {{"erasing", NameOf(State::kErasing)},
             {"until", until},
             {"written", NameOf(State::kWritten)},
             {"write", write},
             {"record", record}})
        .status();
  }));
  return Sweep(std::set<std::string>{record}, passport);
}

absl::Status SecretLedger::Retire(Transaction& tx, const Version& version, absl::Time until) {
  return Put(tx, version, State::kRetired, until);
}

absl::Status SecretLedger::Erase(Transaction& tx, const Version& version) { return Put(tx, version, State::kErasing); }

absl::StatusOr<std::set<std::string>> SecretLedger::EraseAll(Transaction& tx, const std::string& uid) {
  return EraseThose(tx, [prefix = uid + "/"](const std::string& record) { return absl::StartsWith(record, prefix); });
}

absl::StatusOr<std::set<std::string>> SecretLedger::EraseRecord(Transaction& tx, const std::string& record) {
  return EraseThose(tx, [&record](const std::string& other) { return other == record; });
}

absl::Status SecretLedger::Resume(Transaction& tx, const std::string& record, int64_t version) {
  ASSIGN_OR_RETURN(const int64_t resumed,
                   tx.Exec("UPDATE secret_version SET state = :live, until = :none WHERE record = :record AND version "
                           "= :version AND state = :retired",
                           {{"live", NameOf(State::kLive)},
                            {"none", absl::InfinitePast()},
                            {"record", record},
                            {"version", version},
                            {"retired", NameOf(State::kRetired)}}));
  if (resumed == 1) return absl::OkStatus();
  return absl::AbortedError("a secret of the former type was erased meanwhile: give its value");
}

absl::Status SecretLedger::Discard(Transaction& tx, const Version& version) {
  return Put(tx, version, State::kReplaced);
}

absl::Status SecretLedger::Carry(const Version& version, const std::string& passport) {
  RETURN_IF_ERROR(Step(absl::StrCat("sweep ", NameOf(version.state), " ", version.record)));
  if (version.state == State::kReplaced) {
    return vault_.Unpin(version.kind, version.record, version.version, passport);
  }
  if (!version.write.empty()) return vault_.DeleteWrittenBy(version.kind, version.record, version.write, passport);
  return vault_.DeleteThrough(version.kind, version.record, version.version, passport);
}

absl::Status SecretLedger::Sweep(const std::optional<std::set<std::string>>& records, const std::string& passport) {
  RETURN_IF_ERROR(Step("sweep"));
  const absl::Time now = clock_.Now();
  std::vector<Version> due;
  // Decided here first: from now on no write can refer to any of them, so the vault may forget them whenever it
  // answers.
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    due.clear();
    RETURN_IF_ERROR(tx.Exec("UPDATE secret_version SET state = :erasing WHERE until <= :now AND (state = :written OR "
                            "state = :retired)",
                            {{"erasing", NameOf(State::kErasing)},
                             {"now", now},
                             {"written", NameOf(State::kWritten)},
                             {"retired", NameOf(State::kRetired)}})
                        .status());
    ASSIGN_OR_RETURN(const std::vector<Version> all, List(tx));
    for (const Version& version : all) {
      const bool owed = version.state == State::kReplaced || version.state == State::kErasing;
      if (owed && (!records || records->count(version.record) > 0)) due.push_back(version);
    }
    return absl::OkStatus();
  }));
  absl::Status first;
  for (const Version& version : due) {
    absl::Status status = Carry(version, passport);
    if (status.ok()) status = Step("forget");
    if (status.ok() && version.until <= now) {
      status = database_.Write([&](Transaction& tx) {
        return tx
            .Exec(
                "DELETE FROM secret_version WHERE record = :record AND version = :version AND write = :write AND "
                "state = :state",
                {{"record", version.record},
                 {"version", version.version},
                 {"write", version.write},
                 {"state", NameOf(version.state)}})
            .status();
      });
    }
    first.Update(status);
  }
  return first;
}

}  // namespace sallyport::registry

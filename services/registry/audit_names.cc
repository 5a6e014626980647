// SPDX-License-Identifier: Apache-2.0
#include "services/registry/audit_names.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/utf8.h"

namespace sallyport::registry {
namespace {

constexpr size_t kMaxName = 256;
constexpr size_t kMaxKey = 256;
constexpr size_t kRowsPerStatement = 100;
constexpr int kEvictedAtOnce = 1000;

// An id as the tables have it: no database takes a NUL as text.
std::string Key(absl::string_view id) {
  return absl::StrReplaceAll(Utf8Prefix(id, kMaxKey), {{absl::string_view("\0", 1), "?"}});
}

struct Person {
  std::string name;
  std::string email;
  absl::Time at;
};
struct Client {
  std::string name;
  absl::Time at;
  bool used = false;
};

// An empty text says nothing about the one that is known; the next event of the person may have it.
constexpr char kOnKnownPerson[] =
    "ON CONFLICT (subject) DO UPDATE SET "
    "name = CASE WHEN excluded.name = '' THEN audit_person.name ELSE excluded.name END, "
    "email = CASE WHEN excluded.email = '' THEN audit_person.email ELSE excluded.email END, "
    "at = excluded.at WHERE excluded.at > audit_person.at";
constexpr char kOnKnownClient[] =
    "ON CONFLICT (client_id) DO UPDATE SET name = excluded.name, at = excluded.at, "
    "used = CASE WHEN audit_client.used > excluded.used THEN audit_client.used ELSE excluded.used END "
    "WHERE excluded.at > audit_client.at";

absl::Status SavePeople(Transaction& tx, const std::map<std::string, Person>& people) {
  std::vector<std::vector<SqlValue>> rows;
  for (const auto& [subject, person] : people) rows.push_back({subject, person.name, person.email, person.at});
  return tx.Insert("audit_person (subject, name, email, at)", rows, kOnKnownPerson).status();
}

absl::Status SaveClients(Transaction& tx, const std::map<std::string, Client>& clients, int max_unused) {
  std::vector<std::vector<SqlValue>> rows;
  for (const auto& [id, client] : clients) rows.push_back({id, client.name, client.at, client.used});
  RETURN_IF_ERROR(tx.Insert("audit_client (client_id, name, at, used)", rows, kOnKnownClient).status());
  if (std::all_of(clients.begin(), clients.end(), [](const auto& row) { return row.second.used; })) {
    return absl::OkStatus();
  }
  return tx
      .Exec(
          "DELETE FROM audit_client WHERE client_id IN (SELECT client_id FROM audit_client WHERE used = 0 "
          "ORDER BY at DESC, client_id LIMIT :some OFFSET :most)",
          {{"some", kEvictedAtOnce}, {"most", max_unused}})
      .status();
}

// Rows of `select` whose key is one of `keys`, handed to `use`.
absl::Status ForEachKnown(Transaction& tx, const std::string& select, const std::set<std::string>& keys,
                          const std::function<void(const Row&)>& use) {
  for (auto next = keys.begin(); next != keys.end();) {
    std::string sql = absl::StrCat(select, " IN (");
    SqlParams params;
    for (size_t n = 0; n < kRowsPerStatement && next != keys.end(); ++n, ++next) {
      std::string name = absl::StrCat("key", n);
      absl::StrAppend(&sql, n == 0 ? ":" : ", :", name);
      params.push_back({std::move(name), *next});
    }
    ASSIGN_OR_RETURN(const Rows rows, tx.Query(sql + ")", params));
    for (const Row& row : rows) use(row);
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string> AuditNames::Schema() {
  return {
      "CREATE TABLE audit_person (subject TEXT PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, at BIGINT NOT "
      "NULL)",
      "CREATE INDEX audit_person_at ON audit_person (at)",
      "CREATE TABLE audit_client (client_id TEXT PRIMARY KEY, name TEXT NOT NULL, at BIGINT NOT NULL, used BIGINT NOT "
      "NULL)",
      "CREATE INDEX audit_client_used_at ON audit_client (used, at)",
  };
}

absl::Status AuditNames::Learn(Transaction& tx, const audit::v1::AppendRequest& batch, int max_unused_clients) {
  const std::string& source = batch.events(0).source();
  if (source != "authn" && !absl::StartsWith(source, "authn/")) return absl::OkStatus();
  std::map<std::string, Person> people;
  std::map<std::string, Client> clients;
  for (const audit::v1::Event& event : batch.events()) {
    const absl::Time at = FromTimestamp(event.at());
    std::string name = PlainText(event.user_name(), kMaxName);
    std::string email = PlainText(event.user_email(), kMaxName);
    if (!event.subject().empty() && !(name.empty() && email.empty())) {
      Person& person = people.try_emplace(Key(event.subject()), Person{"", "", at}).first->second;
      if (at >= person.at) {
        if (!name.empty()) person.name = std::move(name);
        if (!email.empty()) person.email = std::move(email);
        person.at = at;
      }
    }
    if (!event.client_id().empty() && !event.client_name().empty()) {
      Client& client = clients.try_emplace(Key(event.client_id()), Client{"", at}).first->second;
      client.used = client.used || !event.subject().empty();
      if (at >= client.at) {
        client.name = PlainText(event.client_name(), kMaxName);
        client.at = at;
      }
    }
  }
  RETURN_IF_ERROR(SavePeople(tx, people));
  return SaveClients(tx, clients, max_unused_clients);
}

std::string AuditNames::SerializeWithoutNames(const audit::v1::Event& event) {
  if (event.user_name().empty() && event.user_email().empty() && event.client_name().empty()) {
    return event.SerializeAsString();
  }
  audit::v1::Event stored = event;
  stored.clear_user_name();
  stored.clear_user_email();
  stored.clear_client_name();
  return stored.SerializeAsString();
}

absl::Status AuditNames::Fill(Transaction& tx, audit::v1::ListEventsResponse& events) {
  std::set<std::string> subjects;
  std::set<std::string> client_ids;
  for (const audit::v1::Event& event : events.events()) {
    if (!event.subject().empty()) subjects.insert(Key(event.subject()));
    if (!event.client_id().empty()) client_ids.insert(Key(event.client_id()));
  }
  std::map<std::string, std::pair<std::string, std::string>> people;
  std::map<std::string, std::string> clients;
  RETURN_IF_ERROR(
      ForEachKnown(tx, "SELECT subject, name, email FROM audit_person WHERE subject", subjects, [&](const Row& row) {
        people[row.Text("subject")] = {row.Text("name"), row.Text("email")};
      }));
  RETURN_IF_ERROR(ForEachKnown(tx, "SELECT client_id, name FROM audit_client WHERE client_id", client_ids,
                               [&](const Row& row) { clients[row.Text("client_id")] = row.Text("name"); }));
  for (audit::v1::Event& event : *events.mutable_events()) {
    if (const auto person = people.find(Key(event.subject())); person != people.end()) {
      event.set_user_name(person->second.first);
      event.set_user_email(person->second.second);
    }
    if (const auto client = clients.find(Key(event.client_id())); client != clients.end()) {
      event.set_client_name(client->second);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> AuditNames::Erase(Transaction& tx, const audit::v1::EraseNamesRequest& request) {
  if (request.subject().empty() == request.client_id().empty()) {
    return InvalidField("subject", "set exactly one of subject and clientId");
  }
  const bool person = request.client_id().empty();
  const SqlParams key = {{"key", Key(person ? request.subject() : request.client_id())}};
  ASSIGN_OR_RETURN(const auto known,
                   tx.QueryRow(person ? "SELECT at, name, email FROM audit_person WHERE subject = :key"
                                      : "SELECT at, name, '' AS email FROM audit_client WHERE client_id = :key",
                               key));
  // The row stays, without a name: by its time, events that are still on their way bring none back.
  ASSIGN_OR_RETURN(absl::Time at, tx.Now());
  if (known) at = std::max(at, known->TimeAt("at"));
  RETURN_IF_ERROR(tx.Exec(person ? "INSERT INTO audit_person (subject, name, email, at) VALUES (:key, '', '', :at) "
                                   "ON CONFLICT (subject) DO UPDATE SET name = '', email = '', at = excluded.at"
                                 : "INSERT INTO audit_client (client_id, name, at, used) VALUES (:key, '', :at, 1) "
                                   "ON CONFLICT (client_id) DO UPDATE SET name = '', at = excluded.at, used = 1",
                          {key[0], {"at", at}})
                      .status());
  return known && !(known->Text("name").empty() && known->Text("email").empty());
}

absl::Status AuditNames::DeleteBefore(Transaction& tx, absl::Time before) {
  const SqlParams params = {{"before", before - kLongestUse}};
  RETURN_IF_ERROR(tx.Exec("DELETE FROM audit_person WHERE at < :before", params).status());
  return tx.Exec("DELETE FROM audit_client WHERE at < :before", params).status();
}

}  // namespace sallyport::registry

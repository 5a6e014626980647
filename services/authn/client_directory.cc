// SPDX-License-Identifier: Apache-2.0
#include "services/authn/client_directory.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

#include "common/error.h"
#include "common/sql/sql.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"

namespace sallyport::authn {
namespace {

// Where a page begins: at a client of the configuration, or after a registered one.
struct Place {
  size_t configured = 0;
  absl::Time before = absl::InfiniteFuture();
  std::string before_id;
};

std::string EncodePlace(const Place& place) {
  return Base64UrlEncode(absl::StrCat(place.configured, " ", absl::ToUnixMicros(place.before), " ", place.before_id));
}

absl::StatusOr<Place> DecodePlace(const std::string& token, size_t configured) {
  Place place;
  if (token.empty()) {
    return place;
  }
  const absl::StatusOr<std::string> text = Base64UrlDecode(token);
  const std::vector<std::string> parts =
      text.ok() ? std::vector<std::string>(absl::StrSplit(*text, absl::MaxSplits(' ', 2))) : std::vector<std::string>();
  int64_t micros = 0;
  if (parts.size() != 3 || !absl::SimpleAtoi(parts[0], &place.configured) || !absl::SimpleAtoi(parts[1], &micros)) {
    return InvalidField("pageToken", "is not one that an answer gave");
  }
  // A start with another configuration may have come between.
  place.configured = std::min(place.configured, configured);
  place.before = absl::FromUnixMicros(micros);
  place.before_id = parts[2];
  return place;
}

std::vector<web::Client> WithCommandLine(std::vector<web::Client> configured) {
  configured.insert(configured.begin(), web::CommandLineClient());
  return configured;
}

// By server.
using Agreements = std::map<std::string, ClientDirectory::Agreement>;

absl::Status ReadConsents(Transaction& tx, absl::string_view subject, std::map<std::string, Agreements>& clients) {
  ASSIGN_OR_RETURN(const Rows rows,
                   tx.Query("SELECT client_id, server_uid, MAX(given_at) AS given_at FROM consents WHERE subject ="
                            " :subject GROUP BY client_id, server_uid",
                            {{"subject", subject}}));
  for (const Row& row : rows) {
    ClientDirectory::Agreement& agreement = clients[row.Text("client_id")][row.Text("server_uid")];
    agreement.consent_remembered = true;
    agreement.agreed_at = row.TimeAt("given_at");
  }
  return absl::OkStatus();
}

absl::Status ReadGrants(Transaction& tx, absl::string_view subject, absl::Duration token_lifetime, absl::Time now,
                        std::map<std::string, Agreements>& clients) {
  ASSIGN_OR_RETURN(const Rows rows,
                   tx.Query("SELECT client_id, server_uid, created_at, expires_at, (SELECT MAX(expires_at) FROM"
                            " refresh_tokens WHERE grant_id = grants.id) AS refresh_until FROM grants WHERE subject ="
                            " :subject AND revoked_at IS NULL AND expires_at > :now",
                            {{"subject", subject}, {"now", now}}));
  for (const Row& row : rows) {
    const absl::Time agreed_at = row.TimeAt("created_at");
    const absl::Time until = row.IsNull("refresh_until")
                                 ? std::min(agreed_at + token_lifetime, row.TimeAt("expires_at"))
                                 : row.TimeAt("refresh_until");
    if (until <= now) {
      continue;  // Nobody can use it any more.
    }
    ClientDirectory::Agreement& agreement = clients[row.Text("client_id")][row.Text("server_uid")];
    agreement.agreed_at = std::max(agreement.agreed_at, agreed_at);
    agreement.token_expires_at = std::max(agreement.token_expires_at, until);
  }
  return absl::OkStatus();
}

// "" of one that is not registered any more.
absl::StatusOr<std::string> RegisteredName(Transaction& tx, const std::string& id) {
  ASSIGN_OR_RETURN(
      const std::optional<Row> row,
      tx.QueryRow(absl::StrCat("SELECT ", web::kClientColumns, " FROM clients WHERE id = :id"), {{"id", id}}));
  if (!row.has_value()) {
    return std::string();
  }
  ASSIGN_OR_RETURN(const web::Client client, web::ClientFromRow(*row));
  return client.metadata.client_name;
}

absl::Status ReadRegistered(Transaction& tx, const Place& from, size_t limit,
                            std::vector<ClientDirectory::Entry>& entries) {
  ASSIGN_OR_RETURN(const Rows rows,
                   tx.Query(absl::StrCat("SELECT ", web::kClientColumns,
                                         " FROM clients WHERE created_at < :before OR (created_at = :before AND id <"
                                         " :id) ORDER BY created_at DESC, id DESC LIMIT :limit"),
                            {{"before", from.before}, {"id", from.before_id}, {"limit", limit}}));
  for (const Row& row : rows) {
    ClientDirectory::Entry entry;
    ASSIGN_OR_RETURN(entry.client, web::ClientFromRow(row));
    // Registering is no use.
    entry.used_at = entry.client.used_at > entry.client.created_at ? entry.client.used_at : absl::InfinitePast();
    entries.push_back(std::move(entry));
  }
  return absl::OkStatus();
}

absl::Status ReadUse(Transaction& tx, absl::Time now, std::vector<ClientDirectory::Entry>& entries) {
  if (entries.empty()) {
    return absl::OkStatus();
  }
  std::map<std::string, ClientDirectory::Entry*> by_id;
  std::vector<std::string> names;
  SqlParams ids;
  for (ClientDirectory::Entry& entry : entries) {
    by_id[entry.client.id] = &entry;
    ids.push_back({absl::StrCat("id", ids.size()), entry.client.id});
    names.push_back(absl::StrCat(":", ids.back().name));
  }
  const std::string those = absl::StrCat("client_id IN (", absl::StrJoin(names, ", "), ")");
  ASSIGN_OR_RETURN(const Rows uses,
                   tx.Query(absl::StrCat("SELECT client_id, used_at FROM client_uses WHERE ", those), ids));
  for (const Row& row : uses) {
    by_id[row.Text("client_id")]->used_at = row.TimeAt("used_at");
  }
  ids.push_back({"now", now});
  ASSIGN_OR_RETURN(const Rows users,
                   tx.Query(absl::StrCat("SELECT client_id, COUNT(DISTINCT subject) AS users FROM grants WHERE ", those,
                                         " AND revoked_at IS NULL AND expires_at > :now GROUP BY client_id"),
                            ids));
  for (const Row& row : users) {
    by_id[row.Text("client_id")]->users = row.Int("users");
  }
  return absl::OkStatus();
}

}  // namespace

ClientDirectory::ClientDirectory(Database& database, std::vector<web::Client> configured, absl::Duration token_lifetime)
    : database_(database), configured_(WithCommandLine(std::move(configured))), token_lifetime_(token_lifetime) {}

absl::StatusOr<std::vector<ClientDirectory::OfUser>> ClientDirectory::Of(absl::string_view subject,
                                                                         absl::Time now) const {
  std::vector<OfUser> all;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    all.clear();
    std::map<std::string, Agreements> clients;
    RETURN_IF_ERROR(ReadConsents(tx, subject, clients));
    RETURN_IF_ERROR(ReadGrants(tx, subject, token_lifetime_, now, clients));
    for (auto& [id, agreements] : clients) {
      OfUser client{id, "", {}};
      if (const web::Client* configured = FindConfigured(id); configured != nullptr) {
        client.client_name = configured->metadata.client_name;
      } else {
        ASSIGN_OR_RETURN(client.client_name, RegisteredName(tx, id));
      }
      for (auto& [server_uid, agreement] : agreements) {
        agreement.server_uid = server_uid;
        client.agreements.push_back(std::move(agreement));
      }
      all.push_back(std::move(client));
    }
    return absl::OkStatus();
  }));
  return all;
}

absl::StatusOr<ClientDirectory::Page> ClientDirectory::List(int page_size, const std::string& page_token,
                                                            absl::Time now) const {
  ASSIGN_OR_RETURN(const Place from, DecodePlace(page_token, configured_.size()));
  const size_t size = static_cast<size_t>(page_size);
  Page page;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    page = Page();
    for (size_t i = from.configured; i < configured_.size() && page.entries.size() <= size; ++i) {
      page.entries.push_back({.client = configured_[i], .configured = true});
    }
    const size_t configured = page.entries.size();
    // One more than wanted tells whether there is another page.
    RETURN_IF_ERROR(ReadRegistered(tx, from, size + 1 - configured, page.entries));
    if (page.entries.size() > size) {
      page.entries.pop_back();
      Place next = from;
      next.configured += std::min(configured, size);
      if (configured < page.entries.size()) {
        next.before = page.entries.back().client.created_at;
        next.before_id = page.entries.back().client.id;
      }
      page.next_page_token = EncodePlace(next);
    }
    return ReadUse(tx, now, page.entries);
  }));
  return page;
}

const web::Client* ClientDirectory::FindConfigured(absl::string_view client_id) const {
  const auto found = std::find_if(configured_.begin(), configured_.end(),
                                  [&](const web::Client& client) { return client.id == client_id; });
  return found == configured_.end() ? nullptr : &*found;
}

absl::StatusOr<bool> ClientDirectory::Exists(absl::string_view client_id) const {
  if (FindConfigured(client_id) != nullptr) {
    return true;
  }
  bool found = false;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const std::optional<Row> row,
                     tx.QueryRow("SELECT id FROM clients WHERE id = :id", {{"id", client_id}}));
    found = row.has_value();
    return absl::OkStatus();
  }));
  return found;
}

absl::StatusOr<bool> ClientDirectory::Unregister(absl::string_view client_id) {
  int64_t removed = 0;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(removed, tx.Exec("DELETE FROM clients WHERE id = :id", {{"id", client_id}}));
    return absl::OkStatus();
  }));
  return removed > 0;
}

absl::StatusOr<bool> ClientDirectory::HasConsents(const GrantFilter& which) const {
  SqlParams params;
  const std::string sql = absl::StrCat("SELECT client_id FROM consents WHERE ", which.Condition(params), " LIMIT 1");
  bool found = false;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows rows, tx.Query(sql, params));
    found = !rows.empty();
    return absl::OkStatus();
  }));
  return found;
}

absl::StatusOr<int> ClientDirectory::ForgetConsents(const GrantFilter& which) {
  SqlParams params;
  const std::string sql = absl::StrCat("DELETE FROM consents WHERE ", which.Condition(params));
  int64_t forgotten = 0;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(forgotten, tx.Exec(sql, params));
    return absl::OkStatus();
  }));
  return static_cast<int>(forgotten);
}

}  // namespace sallyport::authn

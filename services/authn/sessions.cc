// SPDX-License-Identifier: Apache-2.0
#include "services/authn/sessions.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/sql/sql.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "services/authn/errors.h"
#include "services/authn/identities.h"
#include "services/authn/identity_codec.h"

namespace sallyport::authn {
namespace {

// Another hash than any other of the database's, so that a value of one table is worth nothing in another.
std::string CookieHash(absl::string_view cookie) {
  return Base64UrlEncode(HmacSha256("sallyport session cookie", cookie));
}

Session FromRow(const Row& row, Identity user) {
  return {row.Text("id"), std::move(user), row.TimeAt("created_at"), row.TimeAt("expires_at")};
}

constexpr char kColumns[] = "sessions.id, sessions.created_at, sessions.expires_at";

}  // namespace

std::string CookieValue(absl::string_view cookie_header, absl::string_view name) {
  std::string value;
  int found = 0;
  for (const absl::string_view part : absl::StrSplit(cookie_header, ';')) {
    const absl::string_view cookie = absl::StripAsciiWhitespace(part);
    const size_t equals = cookie.find('=');
    if (equals != absl::string_view::npos && cookie.substr(0, equals) == name) {
      value = std::string(cookie.substr(equals + 1));
      ++found;
    }
  }
  return found == 1 ? value : "";
}

absl::StatusOr<bool> SessionLives(Transaction& tx, absl::string_view id, absl::string_view subject, absl::Time now) {
  ASSIGN_OR_RETURN(
      const std::optional<Row> row,
      tx.QueryRow("SELECT expires_at FROM sessions WHERE id = :id AND subject = :subject AND expires_at > :now",
                  {{"id", id}, {"subject", subject}, {"now", now}}));
  return row.has_value();
}

Sessions::Sessions(Database& database, absl::Duration lifetime) : database_(database), lifetime_(lifetime) {}

absl::StatusOr<Sessions::Created> Sessions::Create(const Identity& user, absl::string_view replaces, absl::Time now) {
  Created created;
  created.cookie = Secret(RandomToken(""));
  created.session = {MakeUid("ses_"), user, now, now + lifetime_};
  const std::string hash = CookieHash(created.cookie.Expose());
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    if (!replaces.empty()) {
      RETURN_IF_ERROR(
          tx.Exec("DELETE FROM sessions WHERE cookie_hash = :hash", {{"hash", CookieHash(replaces)}}).status());
    }
    ASSIGN_OR_RETURN(created.identity_changed, RecordSignIn(tx, user, now));
    return tx
        .Exec(
            "INSERT INTO sessions (cookie_hash, id, subject, identity, created_at, expires_at)"
            " VALUES (:hash, :id, :subject, :identity, :created_at, :expires_at)",
            {{"hash", hash},
             {"id", created.session.id},
             {"subject", user.subject},
             {"identity", EncodeOwner(user)},
             {"created_at", now},
             {"expires_at", created.session.expires_at}})
        .status();
  }));
  return created;
}

absl::StatusOr<Session> Sessions::Find(absl::string_view cookie, absl::Time now) const {
  if (cookie.empty() || cookie.size() > 128) {
    return NoSession();
  }
  std::optional<Row> row;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(row,
                     tx.QueryRow(absl::StrCat("SELECT ", kColumns, ", ", OwnerColumns("sessions"), " FROM sessions",
                                              OwnerJoin("sessions"), "WHERE cookie_hash = :hash AND expires_at > :now"),
                                 {{"hash", CookieHash(cookie)}, {"now", now}}));
    return absl::OkStatus();
  }));
  if (!row.has_value()) {
    return NoSession();
  }
  ASSIGN_OR_RETURN(std::optional<Identity> user, OwnerOf(*row));
  if (!user.has_value()) {
    return NoSession();
  }
  return FromRow(*row, *std::move(user));
}

absl::StatusOr<Session> Sessions::FindByHeader(absl::string_view cookie_header, absl::Time now) const {
  return Find(CookieValue(cookie_header, kSessionCookie), now);
}

absl::StatusOr<std::optional<Session>> Sessions::End(absl::string_view cookie, absl::Time now) {
  std::optional<Row> row;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(
        row,
        tx.QueryRow("DELETE FROM sessions WHERE cookie_hash = :hash RETURNING id, identity, created_at, expires_at",
                    {{"hash", CookieHash(cookie)}}));
    return row.has_value() ? RememberEndedSessions(tx, {row->Text("id")}, now) : absl::OkStatus();
  }));
  if (!row.has_value() || row->TimeAt("expires_at") <= now) {
    return std::optional<Session>();
  }
  ASSIGN_OR_RETURN(Identity user, DecodeIdentity(row->Text("identity")));
  return std::make_optional(FromRow(*row, std::move(user)));
}

absl::StatusOr<Ended> Sessions::EndSubject(absl::string_view subject, absl::Time now, const MayGoOn& may_go_on) {
  return EndInBatches(database_, may_go_on, [&](Transaction& tx) -> absl::StatusOr<int> {
    ASSIGN_OR_RETURN(const Rows rows,
                     tx.Query("DELETE FROM sessions WHERE cookie_hash IN (SELECT cookie_hash FROM sessions WHERE"
                              " subject = :subject LIMIT :limit) RETURNING id",
                              {{"subject", subject}, {"limit", kRevocationBatch}}));
    std::vector<std::string> ids;
    for (const Row& row : rows) {
      ids.push_back(row.Text("id"));
    }
    RETURN_IF_ERROR(RememberEndedSessions(tx, ids, now));
    return static_cast<int>(ids.size());
  });
}

absl::StatusOr<int> Sessions::Prune(absl::Time now) {
  int64_t pruned = 0;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(pruned, tx.Exec("DELETE FROM sessions WHERE expires_at <= :now", {{"now", now}}));
    return absl::OkStatus();
  }));
  return static_cast<int>(pruned);
}

}  // namespace sallyport::authn

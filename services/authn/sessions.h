// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/secret.h"
#include "services/authn/identity.h"
#include "services/authn/revocations.h"

namespace sallyport {
class Database;
class Transaction;
}  // namespace sallyport

namespace sallyport::authn {

// Names of our cookies. `__Host-`: Secure, Path=/, no Domain, so no sibling host can plant one.
inline constexpr char kSessionCookie[] = "__Host-sallyport-session";
inline constexpr char kTransactionCookie[] = "__Host-sallyport-txn";

// A browser that is signed in.
struct Session {
  std::string id;  // "ses_…": claim `sid` of passports, key of SESSION invalidations. Not the cookie.
  Identity user;   // As the subject's newest sign-in has them, in whatever browser that was.
  absl::Time created_at;
  absl::Time expires_at;
};

// The value of cookie `name` in a whole Cookie header, empty when absent. A name that occurs twice counts as absent:
// one of the two was planted.
std::string CookieValue(absl::string_view cookie_header, absl::string_view name);

// Is the session still there, for what must not be written after it has ended?
absl::StatusOr<bool> SessionLives(Transaction& tx, absl::string_view id, absl::string_view subject, absl::Time now);

// Browser sessions in authn's database. The cookie is 32 random bytes, of which the table holds the SHA-256 alone.
// Thread-safe.
class Sessions {
 public:
  // `database` must outlive this. `lifetime` is absolute: nothing prolongs a session.
  Sessions(Database& database, absl::Duration lifetime);

  struct Created {
    Session session;
    Secret cookie;
    // The sign-in changes who the subject is, for all their sessions and grants: an invalidation waits (RecordSignIn).
    bool identity_changed = false;
  };
  // A person has signed in: a new session with a new cookie. `replaces` (a cookie value, may be empty) ends in the same
  // transaction, so that a value planted before the sign-in is worth nothing after it.
  absl::StatusOr<Created> Create(const Identity& user, absl::string_view replaces, absl::Time now);
  // UNAUTHENTICATED if there is no live session of this cookie value.
  absl::StatusOr<Session> Find(absl::string_view cookie, absl::Time now) const;
  // Find of what a whole Cookie header carries.
  absl::StatusOr<Session> FindByHeader(absl::string_view cookie_header, absl::Time now) const;
  // Ends one; the ended session, or nothing if there was none.
  absl::StatusOr<std::optional<Session>> End(absl::string_view cookie, absl::Time now);
  // Ends every session of a subject, in batches (EndInBatches).
  absl::StatusOr<Ended> EndSubject(absl::string_view subject, absl::Time now, const MayGoOn& may_go_on = {});
  // Drops what has expired. Returns how many.
  absl::StatusOr<int> Prune(absl::Time now);

 private:
  Database& database_;
  absl::Duration lifetime_;
};

}  // namespace sallyport::authn

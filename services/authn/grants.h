// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
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
class Row;
class Transaction;
struct SqlParam;
}  // namespace sallyport

namespace sallyport::authn {

class Audit;

// Lives of what we issue.
inline constexpr absl::Duration kCodeLifetime = absl::Seconds(60);
inline constexpr absl::Duration kRefreshIdle = absl::Hours(7 * 24);
inline constexpr absl::Duration kRefreshAbsolute = absl::Hours(30 * 24);
inline constexpr absl::Duration kRefreshGrace = absl::Seconds(30);

// What a user allowed a client to do at one resource: made with the code, source of every access and refresh token
// after it (the refresh family). Access tokens name it as `sid`. Groups and email are those of the subject's newest
// sign-in, never the token's.
struct Grant {
  std::string id;  // "grn_…"
  Identity user;
  std::string client_id;
  std::string client_name;  // As the client gave it; for the event that makes the grant, not stored.
  std::string resource;     // RFC 8707, exact: the MCP endpoint's URL, or "<public_url>/api".
  std::string server_uid;   // Empty for the API.
  std::string scope;
  absl::Time created_at;
  absl::Time expires_at;  // created_at + kRefreshAbsolute; no token outlives it.
  // By somebody, or because the subject signs in at another issuer now.
  bool revoked = false;
};

// What a code is bound to (RFC 6749 section 4.1.2, RFC 7636, RFC 8707).
struct CodeBinding {
  std::string client_id;
  std::string client_name;  // For the event only.
  std::string redirect_uri;
  std::string code_challenge;  // S256
  std::string resource;
  std::string server_uid;
  std::string scope;
  // The browser session whose user allowed it.
  std::string session_id;
  // Why no user had to be asked, for the audit: "consent", or "client.approved".
  const char* rule = "consent";
};

// Which grants, codes and consents: those that fit every field that is there. One is, or nothing fits.
struct GrantFilter {
  std::optional<std::string> subject;
  std::optional<std::string> client_id;
  std::optional<std::string> server_uid;

  // For a WHERE clause on any of the three tables, with its parameters added to `params`.
  std::string Condition(std::vector<SqlParam>& params) const;
};

// Codes, grants and refresh tokens in authn's database (security rules: single use by compare-and-set, hashes only,
// family revocation on reuse). Errors of redemption are INVALID_ARGUMENT with the OAuth error attached. Every decision
// is recorded in the transaction that carries it out. Thread-safe.
class Grants {
 public:
  // Both outlive this; without `audit` nothing is recorded (tests).
  explicit Grants(Database& database, Audit* audit = nullptr) : database_(database), audit_(audit) {}

  // A fresh code, kCodeLifetime. UNAUTHENTICATED with reason "session_ended" if the session has ended meanwhile, looked
  // at in the transaction that stores the code: whoever ends a user's sessions and then drops their codes leaves none
  // behind. INVALID_ARGUMENT without a resource: there are no tokens without an audience (RFC 8707 section 2).
  absl::StatusOr<Secret> IssueCode(const Identity& user, const CodeBinding& binding, absl::string_view client_address,
                                   absl::Time now);

  struct Redemption {
    std::string client_id;
    std::string client_name;  // For the event only.
    std::string redirect_uri;
    std::string code_verifier;
    std::string resource;  // Empty: as bound to the code.
    std::string client_address;
  };
  struct Tokens {
    Grant grant;
    Secret refresh_token;       // Empty without `with_refresh_token`.
    bool reused_grace = false;  // The answer to a repeated refresh: the same successor again.
  };
  // Consumes the code and makes the grant with its first refresh token (none for clients without the refresh grant).
  // invalid_grant: unknown, expired, consumed, another client, another redirect_uri, wrong verifier; invalid_target:
  // another resource. A second redemption by the same client revokes the grant of the first; `revoked_grant` then names
  // it.
  absl::StatusOr<Tokens> RedeemCode(absl::string_view code, const Redemption& redemption, bool with_refresh_token,
                                    absl::Time now, std::string* revoked_grant);

  // Rotates (RFC 9700 section 4.14.2). Order of checks: client, then expiry, then reuse. Within kRefreshGrace the token
  // just consumed gives the same successor again, unless that was itself used; later, the family is revoked and
  // `revoked_grant` set. `scope`: what of it was granted; unknown scopes are ignored as at the authorization
  // endpoint, and with none left nothing changes. `resource` empty: unchanged; other: invalid_target.
  struct Refresh {
    std::string client_id;
    std::string scope;
    std::string resource;
    std::string client_address;
  };
  absl::StatusOr<Tokens> RedeemRefreshToken(absl::string_view refresh_token, const Refresh& refresh, absl::Time now,
                                            std::string* revoked_grant);

  // Whose it is, used up or not; invalid_grant for an unknown one and for another client's. Changes nothing.
  absl::StatusOr<Grant> FindByRefreshToken(absl::string_view refresh_token, absl::string_view client_id) const;

  // NOT_FOUND for an unknown id. The caller looks at `revoked` and `expires_at`.
  absl::StatusOr<Grant> Find(absl::string_view grant_id) const;
  // RFC 7009: the grant of this refresh token if it is this client's, now revoked; nothing otherwise.
  absl::StatusOr<std::optional<Grant>> RevokeByRefreshToken(absl::string_view refresh_token,
                                                            absl::string_view client_id, absl::Time now);
  // True if it was live until now.
  absl::StatusOr<bool> Revoke(absl::string_view grant_id, absl::Time now);
  // Revokes the live ones of `which` in batches (EndInBatches), and before them the codes that were given out for the
  // same and not redeemed yet.
  absl::StatusOr<Ended> RevokeAll(const GrantFilter& which, absl::Time now, const MayGoOn& may_go_on = {});
  // Are there live ones?
  absl::StatusOr<bool> HasLive(const GrantFilter& which, absl::Time now) const;
  absl::StatusOr<int> Prune(absl::Time now);

 private:
  // Runs `decision` in a transaction. A refusal carries an OAuth error, and what it wrote is committed.
  absl::StatusOr<Tokens> Decide(const std::function<absl::StatusOr<Tokens>(Transaction&)>& decision);
  absl::StatusOr<Tokens> Redeem(Transaction& tx, absl::string_view code, const Redemption& redemption,
                                bool with_refresh_token, absl::Time now, std::string* revoked_grant);
  absl::StatusOr<Tokens> Rotate(Transaction& tx, absl::string_view refresh_token, const Refresh& refresh,
                                absl::Time now, std::string* revoked_grant);
  // Empty if the grace is over or the successor was used.
  absl::StatusOr<Secret> SuccessorInGrace(Transaction& tx, absl::string_view refresh_token, const Row& row,
                                          absl::Time now);
  absl::Status Record(Transaction& tx, const char* type, bool allowed, const char* rule, const Grant& grant,
                      absl::string_view client_address);

  Database& database_;
  Audit* audit_;
};

}  // namespace sallyport::authn

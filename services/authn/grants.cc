// SPDX-License-Identifier: Apache-2.0
#include "services/authn/grants.h"

#include <algorithm>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/error.h"
#include "common/oauth/error.h"
#include "common/sql/sql.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "services/authn/audit.h"
#include "services/authn/identities.h"
#include "services/authn/identity_codec.h"
#include "services/authn/sessions.h"

namespace sallyport::authn {
namespace {

constexpr char kRefreshPrefix[] = "spr_";
constexpr size_t kSecretSize = 32;
// Consumed codes stay known for this long, so that a second redemption is noticed.
constexpr absl::Duration kCodeMemory = absl::Hours(24);

// One text for all: which check failed must not be learnt by whoever holds a stolen code or token.
absl::Status InvalidGrant() {
  return WithOAuthError(
      absl::InvalidArgumentError("the grant is invalid, expired, revoked or was issued to another client"),
      oauth::kInvalidGrant);
}

absl::Status InvalidTarget() {
  return WithOAuthError(absl::InvalidArgumentError("resource is not the one the grant was made for"),
                        oauth::kInvalidTarget);
}

std::string CodeHash(absl::string_view code) {
  return Base64UrlEncode(HmacSha256("sallyport authorization code", code));
}
std::string RefreshHash(absl::string_view token) {
  return Base64UrlEncode(HmacSha256("sallyport refresh token", token));
}

// RFC 1952 section 8; only there so that secret scanners can tell a token of ours from chance.
uint32_t Crc32(absl::string_view data) {
  uint32_t crc = 0xffffffffU;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320U : 0U);
    }
  }
  return ~crc;
}

std::string WithChecksum(std::string bytes) {
  const uint32_t crc = Crc32(bytes);
  for (const int shift : {24, 16, 8, 0}) {
    bytes += static_cast<char>((crc >> shift) & 0xff);
  }
  return bytes;
}

// "spr_" and base64url of 32 random bytes and their CRC-32.
Secret NewRefreshToken() { return Secret(kRefreshPrefix + Base64UrlEncode(WithChecksum(RandomBytes(kSecretSize)))); }

bool LooksLikeRefreshToken(absl::string_view token) {
  if (!absl::ConsumePrefix(&token, kRefreshPrefix)) {
    return false;
  }
  const absl::StatusOr<std::string> bytes = Base64UrlDecode(token);
  return bytes.ok() && bytes->size() == kSecretSize + 4 && WithChecksum(bytes->substr(0, kSecretSize)) == *bytes;
}

// Only who holds the old token can open its successor.
Secret SuccessorKey(absl::string_view token) { return HkdfSha256(token, "", "sallyport refresh grace", kAeadKeySize); }

bool VerifierFits(absl::string_view verifier, absl::string_view challenge) {
  return !verifier.empty() && ConstantTimeEquals(Base64UrlEncode(Sha256(verifier)), challenge);
}

// RFC 6749 section 6: nothing beyond what was granted. Clients ask for scopes of other servers, too ("openid"); what
// was not granted is left out (section 3.3), and a request that holds nothing else is one for what was granted.
std::string GrantedScope(absl::string_view requested, absl::string_view granted) {
  const std::set<absl::string_view> want = absl::StrSplit(requested, ' ', absl::SkipEmpty());
  std::vector<absl::string_view> both;
  for (const absl::string_view scope : absl::StrSplit(granted, ' ', absl::SkipEmpty())) {
    if (want.count(scope) > 0) {
      both.push_back(scope);
    }
  }
  return both.empty() ? std::string(granted) : absl::StrJoin(both, " ");
}

constexpr char kGrantColumns[] =
    "grants.id, client_id, resource, server_uid, scope, created_at, expires_at, revoked_at";

absl::StatusOr<Grant> GrantFromRow(const Row& row) {
  Grant grant;
  grant.id = row.Text("id");
  ASSIGN_OR_RETURN(std::optional<Identity> user, OwnerOf(row));
  grant.revoked = !row.IsNull("revoked_at") || !user.has_value();
  if (user.has_value()) {
    grant.user = *std::move(user);
  } else {
    ASSIGN_OR_RETURN(grant.user, DecodeIdentity(row.Text("owner")));
    grant.user.groups.clear();
  }
  grant.client_id = row.Text("client_id");
  grant.resource = row.Text("resource");
  grant.server_uid = row.Text("server_uid");
  grant.scope = row.Text("scope");
  grant.created_at = row.TimeAt("created_at");
  grant.expires_at = row.TimeAt("expires_at");
  return grant;
}

absl::StatusOr<std::optional<Grant>> SelectGrant(Transaction& tx, absl::string_view id) {
  ASSIGN_OR_RETURN(const std::optional<Row> row,
                   tx.QueryRow(absl::StrCat("SELECT ", kGrantColumns, ", ", OwnerColumns("grants"), " FROM grants",
                                            OwnerJoin("grants"), "WHERE grants.id = :id"),
                               {{"id", id}}));
  if (!row.has_value()) {
    return std::optional<Grant>();
  }
  ASSIGN_OR_RETURN(Grant grant, GrantFromRow(*row));
  return std::make_optional(std::move(grant));
}

absl::Status InsertGrant(Transaction& tx, const Grant& grant) {
  return tx
      .Exec(
          "INSERT INTO grants (id, subject, identity, client_id, resource, server_uid, scope, created_at, expires_at)"
          " VALUES (:id, :subject, :identity, :client_id, :resource, :server_uid, :scope, :created_at, :expires_at)",
          {{"id", grant.id},
           {"subject", grant.user.subject},
           {"identity", EncodeOwner(grant.user)},
           {"client_id", grant.client_id},
           {"resource", grant.resource},
           {"server_uid", grant.server_uid},
           {"scope", grant.scope},
           {"created_at", grant.created_at},
           {"expires_at", grant.expires_at}})
      .status();
}

absl::Status InsertRefreshToken(Transaction& tx, const Secret& token, const Grant& grant, absl::Time now) {
  return tx
      .Exec(
          "INSERT INTO refresh_tokens (hash, grant_id, expires_at, successor, successor_hash)"
          " VALUES (:hash, :grant_id, :expires_at, '', '')",
          {{"hash", RefreshHash(token.Expose())},
           {"grant_id", grant.id},
           {"expires_at", std::min(now + kRefreshIdle, grant.expires_at)}})
      .status();
}

// True if it was live.
absl::StatusOr<bool> MarkRevoked(Transaction& tx, absl::string_view grant_id, absl::Time now) {
  ASSIGN_OR_RETURN(const int64_t changed,
                   tx.Exec("UPDATE grants SET revoked_at = :now WHERE id = :id AND revoked_at IS NULL",
                           {{"now", now}, {"id", grant_id}}));
  if (changed == 1) {
    RETURN_IF_ERROR(RememberEndedSessions(tx, {std::string(grant_id)}, now));
  }
  return changed == 1;
}

}  // namespace

absl::Status Grants::Record(Transaction& tx, const char* type, bool allowed, const char* rule, const Grant& grant,
                            absl::string_view client_address) {
  if (audit_ == nullptr) {
    return absl::OkStatus();
  }
  audit::v1::Event event =
      MakeEvent(type, allowed ? audit::v1::DECISION_ALLOWED : audit::v1::DECISION_DENIED, grant.user.subject);
  event.set_rule(rule);
  event.set_client_id(grant.client_id);
  event.set_client_address(std::string(client_address));
  event.set_server_uid(grant.server_uid);
  if (!grant.id.empty()) {
    (*event.mutable_details())["grant"] = grant.id;
  }
  if (absl::string_view(type) == "code.issued" || absl::string_view(type) == "token.issued") {
    NameUser(grant.user, event);
    NameClient(grant.client_name, event);
  }
  return audit_->Append(tx, std::move(event));
}

absl::StatusOr<Secret> Grants::IssueCode(const Identity& user, const CodeBinding& binding,
                                         absl::string_view client_address, absl::Time now) {
  if (binding.resource.empty()) {
    return absl::InvalidArgumentError("a code needs a resource");
  }
  Secret code(RandomToken("", kSecretSize));
  Grant subject_of_event;
  subject_of_event.user = user;
  subject_of_event.client_id = binding.client_id;
  subject_of_event.client_name = binding.client_name;
  subject_of_event.server_uid = binding.server_uid;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const bool lives, SessionLives(tx, binding.session_id, user.subject, now));
    if (!lives) {
      return WithReason(absl::UnauthenticatedError("the session has ended"), "session_ended");
    }
    RETURN_IF_ERROR(tx.Exec("INSERT INTO codes (hash, subject, identity, client_id, redirect_uri, code_challenge, "
                            "resource, server_uid,"
                            " scope, expires_at, grant_id) VALUES (:hash, :subject, :identity, :client_id, "
                            ":redirect_uri, :code_challenge, :resource,"
                            " :server_uid, :scope, :expires_at, '')",
                            {{"hash", CodeHash(code.Expose())},
                             {"subject", user.subject},
                             {"identity", EncodeOwner(user)},
                             {"client_id", binding.client_id},
                             {"redirect_uri", binding.redirect_uri},
                             {"code_challenge", binding.code_challenge},
                             {"resource", binding.resource},
                             {"server_uid", binding.server_uid},
                             {"scope", binding.scope},
                             {"expires_at", now + kCodeLifetime}})
                        .status());
    return Record(tx, "code.issued", true, binding.rule, subject_of_event, client_address);
  }));
  return code;
}

absl::StatusOr<Grants::Tokens> Grants::Decide(const std::function<absl::StatusOr<Tokens>(Transaction&)>& decision) {
  Tokens tokens;
  absl::Status refused;
  const absl::Status written = database_.Write([&](Transaction& tx) -> absl::Status {
    absl::StatusOr<Tokens> decided = decision(tx);
    refused = decided.status();
    if (decided.ok()) {
      tokens = *std::move(decided);
      return absl::OkStatus();
    }
    // A refusal is a decision, and what it wrote (a code used up, a revocation, an event) is to stay. An error of the
    // store is not.
    return DetailOf(refused).oauth_error.empty() ? refused : absl::OkStatus();
  });
  if (audit_ != nullptr) {
    audit_->Kick();
  }
  RETURN_IF_ERROR(written);
  RETURN_IF_ERROR(refused);
  return tokens;
}

absl::StatusOr<Grants::Tokens> Grants::RedeemCode(absl::string_view code, const Redemption& redemption,
                                                  bool with_refresh_token, absl::Time now, std::string* revoked_grant) {
  return Decide([&](Transaction& tx) {
    revoked_grant->clear();
    return Redeem(tx, code, redemption, with_refresh_token, now, revoked_grant);
  });
}

absl::StatusOr<Grants::Tokens> Grants::Redeem(Transaction& tx, absl::string_view code, const Redemption& redemption,
                                              bool with_refresh_token, absl::Time now, std::string* revoked_grant) {
  const std::string hash = CodeHash(code);
  ASSIGN_OR_RETURN(const std::optional<Row> row,
                   tx.QueryRow(absl::StrCat("SELECT ", OwnerColumns("codes"),
                                            ", client_id, redirect_uri, code_challenge, resource, server_uid, scope,"
                                            " expires_at, consumed_at, grant_id FROM codes",
                                            OwnerJoin("codes"), "WHERE hash = :hash"),
                               {{"hash", hash}}));
  // The client first: a stranger's attempt must not use up or revoke anything.
  if (!row.has_value() || row->Text("client_id") != redemption.client_id) {
    return InvalidGrant();
  }
  Tokens tokens;
  Grant& grant = tokens.grant;
  ASSIGN_OR_RETURN(std::optional<Identity> user, OwnerOf(*row));
  if (user.has_value()) {
    grant.user = *user;
  } else {
    ASSIGN_OR_RETURN(grant.user, DecodeIdentity(row->Text("owner")));
  }
  grant.client_id = row->Text("client_id");
  grant.client_name = redemption.client_name;
  grant.resource = row->Text("resource");
  grant.server_uid = row->Text("server_uid");
  grant.scope = row->Text("scope");
  if (!row->IsNull("consumed_at")) {
    grant.id = row->Text("grant_id");
    ASSIGN_OR_RETURN(const bool was_live, MarkRevoked(tx, grant.id, now));
    *revoked_grant = was_live ? grant.id : "";
    RETURN_IF_ERROR(Record(tx, "code_reuse", false, "code.consumed", grant, redemption.client_address));
    return InvalidGrant();
  }
  grant.id = MakeUid("grn_");
  grant.created_at = now;
  grant.expires_at = now + kRefreshAbsolute;
  // Used up before anything else is compared: a wrong verifier gets one guess.
  RETURN_IF_ERROR(tx.Exec("UPDATE codes SET consumed_at = :now, grant_id = :grant_id WHERE hash = :hash",
                          {{"now", now}, {"grant_id", grant.id}, {"hash", hash}})
                      .status());
  if (!user.has_value() || row->TimeAt("expires_at") <= now || row->Text("redirect_uri") != redemption.redirect_uri ||
      !VerifierFits(redemption.code_verifier, row->Text("code_challenge"))) {
    RETURN_IF_ERROR(Record(tx, "token.issued", false, "code.mismatch", grant, redemption.client_address));
    return InvalidGrant();
  }
  if (!redemption.resource.empty() && redemption.resource != grant.resource) {
    RETURN_IF_ERROR(Record(tx, "token.issued", false, "code.resource", grant, redemption.client_address));
    return InvalidTarget();
  }
  RETURN_IF_ERROR(InsertGrant(tx, grant));
  if (with_refresh_token) {
    tokens.refresh_token = NewRefreshToken();
    RETURN_IF_ERROR(InsertRefreshToken(tx, tokens.refresh_token, grant, now));
  }
  RETURN_IF_ERROR(Record(tx, "token.issued", true, "code", grant, redemption.client_address));
  return tokens;
}

absl::StatusOr<Grants::Tokens> Grants::RedeemRefreshToken(absl::string_view refresh_token, const Refresh& refresh,
                                                          absl::Time now, std::string* revoked_grant) {
  revoked_grant->clear();
  if (!LooksLikeRefreshToken(refresh_token)) {
    return InvalidGrant();
  }
  return Decide([&](Transaction& tx) {
    revoked_grant->clear();
    return Rotate(tx, refresh_token, refresh, now, revoked_grant);
  });
}

absl::StatusOr<Grant> Grants::FindByRefreshToken(absl::string_view refresh_token, absl::string_view client_id) const {
  if (!LooksLikeRefreshToken(refresh_token)) {
    return InvalidGrant();
  }
  std::optional<Grant> grant;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const std::optional<Row> row, tx.QueryRow("SELECT grant_id FROM refresh_tokens WHERE hash = :hash",
                                                               {{"hash", RefreshHash(refresh_token)}}));
    if (row.has_value()) {
      ASSIGN_OR_RETURN(grant, SelectGrant(tx, row->Text("grant_id")));
    }
    return absl::OkStatus();
  }));
  if (!grant.has_value() || grant->client_id != client_id) {
    return InvalidGrant();
  }
  return *std::move(grant);
}

absl::StatusOr<Grants::Tokens> Grants::Rotate(Transaction& tx, absl::string_view refresh_token, const Refresh& refresh,
                                              absl::Time now, std::string* revoked_grant) {
  const std::string hash = RefreshHash(refresh_token);
  ASSIGN_OR_RETURN(const std::optional<Row> row,
                   tx.QueryRow("SELECT grant_id, expires_at, consumed_at, successor, successor_hash FROM refresh_tokens"
                               " WHERE hash = :hash",
                               {{"hash", hash}}));
  if (!row.has_value()) {
    return InvalidGrant();
  }
  ASSIGN_OR_RETURN(std::optional<Grant> grant, SelectGrant(tx, row->Text("grant_id")));
  if (!grant.has_value() || grant->client_id != refresh.client_id || grant->revoked || grant->expires_at <= now ||
      row->TimeAt("expires_at") <= now) {
    return InvalidGrant();
  }
  if (!refresh.resource.empty() && refresh.resource != grant->resource) {
    return InvalidTarget();
  }
  Tokens tokens;
  tokens.grant = *std::move(grant);
  tokens.grant.scope = GrantedScope(refresh.scope, tokens.grant.scope);
  if (!row->IsNull("consumed_at")) {
    ASSIGN_OR_RETURN(tokens.refresh_token, SuccessorInGrace(tx, refresh_token, *row, now));
    tokens.reused_grace = true;
    if (tokens.refresh_token.empty()) {
      RETURN_IF_ERROR(MarkRevoked(tx, tokens.grant.id, now).status());
      *revoked_grant = tokens.grant.id;
      RETURN_IF_ERROR(Record(tx, "refresh_reuse", false, "refresh.consumed", tokens.grant, refresh.client_address));
      return InvalidGrant();
    }
    RETURN_IF_ERROR(Record(tx, "token.refreshed", true, "refresh.grace", tokens.grant, refresh.client_address));
    return tokens;
  }
  tokens.refresh_token = NewRefreshToken();
  ASSIGN_OR_RETURN(const std::string sealed,
                   AeadSeal(SuccessorKey(refresh_token), tokens.refresh_token.Expose(), hash));
  ASSIGN_OR_RETURN(const int64_t consumed,
                   tx.Exec("UPDATE refresh_tokens SET consumed_at = :now, successor = :successor, successor_hash ="
                           " :successor_hash WHERE hash = :hash AND consumed_at IS NULL",
                           {{"now", now},
                            {"successor", Bytes{sealed}},
                            {"successor_hash", RefreshHash(tokens.refresh_token.Expose())},
                            {"hash", hash}}));
  if (consumed != 1) {
    return absl::AbortedError("the refresh token was consumed meanwhile");
  }
  RETURN_IF_ERROR(InsertRefreshToken(tx, tokens.refresh_token, tokens.grant, now));
  RETURN_IF_ERROR(Record(tx, "token.refreshed", true, "refresh", tokens.grant, refresh.client_address));
  return tokens;
}

absl::StatusOr<Secret> Grants::SuccessorInGrace(Transaction& tx, absl::string_view refresh_token, const Row& row,
                                                absl::Time now) {
  if (now > row.TimeAt("consumed_at") + kRefreshGrace) {
    return Secret();
  }
  ASSIGN_OR_RETURN(
      const std::optional<Row> successor,
      tx.QueryRow("SELECT consumed_at FROM refresh_tokens WHERE hash = :hash", {{"hash", row.Text("successor_hash")}}));
  // Who uses the successor has received it: this is not the retry of a lost answer.
  if (!successor.has_value() || !successor->IsNull("consumed_at")) {
    return Secret();
  }
  return AeadOpen(SuccessorKey(refresh_token), row.BytesAt("successor"), RefreshHash(refresh_token));
}

absl::StatusOr<Grant> Grants::Find(absl::string_view grant_id) const {
  std::optional<Grant> grant;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(grant, SelectGrant(tx, grant_id));
    return absl::OkStatus();
  }));
  if (!grant.has_value()) {
    return absl::NotFoundError("no such grant");
  }
  return *std::move(grant);
}

absl::StatusOr<std::optional<Grant>> Grants::RevokeByRefreshToken(absl::string_view refresh_token,
                                                                  absl::string_view client_id, absl::Time now) {
  std::optional<Grant> revoked;
  if (!LooksLikeRefreshToken(refresh_token)) {
    return revoked;
  }
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    revoked.reset();
    ASSIGN_OR_RETURN(const std::optional<Row> row, tx.QueryRow("SELECT grant_id FROM refresh_tokens WHERE hash = :hash",
                                                               {{"hash", RefreshHash(refresh_token)}}));
    if (!row.has_value()) {
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(std::optional<Grant> grant, SelectGrant(tx, row->Text("grant_id")));
    if (!grant.has_value() || grant->client_id != client_id) {
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(MarkRevoked(tx, grant->id, now).status());
    RETURN_IF_ERROR(Record(tx, "token.revoked", true, "client", *grant, ""));
    revoked = std::move(grant);
    return absl::OkStatus();
  }));
  return revoked;
}

absl::StatusOr<bool> Grants::Revoke(absl::string_view grant_id, absl::Time now) {
  bool was_live = false;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(was_live, MarkRevoked(tx, grant_id, now));
    return absl::OkStatus();
  }));
  return was_live;
}

absl::StatusOr<int> Grants::Prune(absl::Time now) {
  int64_t pruned = 0;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const int64_t codes,
                     tx.Exec("DELETE FROM codes WHERE expires_at <= :end", {{"end", now - kCodeMemory}}));
    ASSIGN_OR_RETURN(const int64_t tokens,
                     tx.Exec("DELETE FROM refresh_tokens WHERE expires_at <= :now", {{"now", now}}));
    ASSIGN_OR_RETURN(const int64_t grants, tx.Exec("DELETE FROM grants WHERE expires_at <= :now", {{"now", now}}));
    pruned = codes + tokens + grants;
    return PruneIdentities(tx);
  }));
  return static_cast<int>(pruned);
}

}  // namespace sallyport::authn

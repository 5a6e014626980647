// SPDX-License-Identifier: Apache-2.0
#include "services/authn/access_token.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/crypto/random.h"
#include "common/status_macros.h"
#include "common/text/json.h"
#include "services/authn/errors.h"
#include "services/authn/identity.h"

namespace sallyport::authn {
namespace {

constexpr char kType[] = "at+jwt";
constexpr absl::Duration kMaxApiLifetime = absl::Hours(1);

// Nobody consented to an API token of these: the one-time admin token, or a service account's own, stands behind it.
bool NeedsNoGrant(absl::string_view subject) {
  return subject == kBootstrapSubject || absl::StartsWith(subject, kServiceAccountSubject);
}

absl::StatusOr<JwtValidator> MakeValidator(const std::string& issuer, const std::string& audience) {
  return JwtValidator::Builder()
      .ExpectIssuer(issuer)
      .ExpectAudience(audience)
      .ExpectType(kType)
      .RequireSubject()
      .RequireIssuedAt()
      .AllowAlgorithm(JwsAlgorithm::kEs256)
      .RequireLowS()
      .Build();
}

}  // namespace

std::string AccessTokens::McpAudience(absl::string_view slug) const { return absl::StrCat(public_url_, "/mcp/", slug); }

std::string AccessTokens::ApiAudience() const { return absl::StrCat(public_url_, "/api"); }

absl::StatusOr<MintedToken> AccessTokens::Mint(const AccessToken& token, const std::string& audience,
                                               absl::Duration lifetime, absl::Time now) const {
  ASSIGN_OR_RETURN(std::shared_ptr<const PrivateKey> key, keys_.Active());
  MintedToken minted;
  minted.jti = RandomToken("", 16);
  const int64_t issued_at = absl::ToUnixSeconds(now);
  minted.expires_in = absl::ToInt64Seconds(lifetime);
  minted.expires_at = absl::FromUnixSeconds(issued_at + minted.expires_in);
  nlohmann::json claims = {
      {"iss", public_url_},   {"aud", audience},   {"sub", token.subject}, {"client_id", token.client_id},
      {"scope", token.scope}, {"jti", minted.jti}, {"iat", issued_at},     {"exp", issued_at + minted.expires_in}};
  if (!token.grant_id.empty()) {
    claims["sid"] = token.grant_id;
  }
  if (!token.server_uid.empty()) {
    claims["srv"] = token.server_uid;
  }
  if (!token.roles.empty()) {
    claims["roles"] = token.roles;
  }
  ASSIGN_OR_RETURN(minted.token, SignJwt(claims, kType, *key));
  return minted;
}

absl::StatusOr<MintedToken> AccessTokens::MintMcp(const McpGrant& grant, absl::Time now) const {
  if (grant.subject.empty() || grant.client_id.empty() || grant.grant_id.empty() || grant.server_uid.empty()) {
    return absl::InvalidArgumentError("an access token needs subject, client, grant and server");
  }
  AccessToken token;
  token.subject = grant.subject;
  token.client_id = grant.client_id;
  token.grant_id = grant.grant_id;
  token.server_uid = grant.server_uid;
  token.scope = "mcp";
  return Mint(token, McpAudience(grant.server_slug), lifetime_, now);
}

absl::StatusOr<MintedToken> AccessTokens::MintApi(const ApiGrant& grant, absl::Time now) const {
  if (grant.client_id != kCliClientId) {
    return absl::InvalidArgumentError("API tokens are issued to the built-in client only");
  }
  if (grant.subject.empty() || (grant.grant_id.empty() && !NeedsNoGrant(grant.subject))) {
    return absl::InvalidArgumentError("an API token needs a subject and a grant");
  }
  AccessToken token;
  token.subject = grant.subject;
  token.client_id = grant.client_id;
  token.grant_id = grant.grant_id;
  token.scope = "api";
  token.roles = grant.roles;
  // That of the one-time admin token has no refresh token, and there is no second one.
  const absl::Duration most =
      grant.subject == kBootstrapSubject ? kMaxApiLifetime : std::min(lifetime_, kMaxApiLifetime);
  const absl::Duration lifetime = std::min(most, absl::Floor(grant.not_after - now, absl::Seconds(1)));
  if (lifetime <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("an API token needs a second of life");
  }
  return Mint(token, ApiAudience(), lifetime, now);
}

absl::StatusOr<AccessToken> AccessTokens::Verify(absl::string_view text, const JwtValidator& validator,
                                                 absl::Time now) const {
  ASSIGN_OR_RETURN(JwkSet keys, keys_.PublicKeys());
  absl::StatusOr<Jwt> jwt = VerifyJwt(text, keys, validator, now);
  if (!jwt.ok()) {
    return TokenError(jwt.status());
  }
  AccessToken token;
  token.subject = jwt->subject();
  token.client_id = jwt->String("client_id").value_or("");
  token.grant_id = jwt->String("sid").value_or("");
  token.server_uid = jwt->String("srv").value_or("");
  token.jti = jwt->String("jti").value_or("");
  token.scope = jwt->String("scope").value_or("");
  token.roles = jwt->Strings("roles").value_or(std::vector<std::string>{});
  token.issued_at = jwt->Time("iat").value_or(absl::InfinitePast());
  token.expires_at = jwt->expires_at();
  // We sign and we verify: what we did not write ourselves is no token of ours. Our tokens have one audience, as a
  // string.
  if (token.client_id.empty() || token.jti.empty() || !jwt->String("aud").has_value()) {
    return InvalidToken("malformed_token");
  }
  return token;
}

absl::StatusOr<AccessToken> AccessTokens::VerifyMcp(absl::string_view text, absl::string_view server_slug,
                                                    absl::string_view server_uid, absl::Time now) const {
  ASSIGN_OR_RETURN(JwtValidator validator, MakeValidator(public_url_, McpAudience(server_slug)));
  ASSIGN_OR_RETURN(AccessToken token, Verify(text, validator, now));
  // The slug may have been given to another server since.
  if (server_uid.empty() || token.server_uid != server_uid) {
    return InvalidToken("wrong_server");
  }
  if (token.scope != "mcp" || token.grant_id.empty() || !token.roles.empty()) {
    return InvalidToken("malformed_token");
  }
  if (now >= token.expires_at) {
    return InvalidToken("expired");
  }
  return token;
}

absl::StatusOr<AccessToken> AccessTokens::VerifyApi(absl::string_view text, absl::Time now) const {
  ASSIGN_OR_RETURN(JwtValidator validator, MakeValidator(public_url_, ApiAudience()));
  ASSIGN_OR_RETURN(AccessToken token, Verify(text, validator, now));
  const bool has_source = !token.grant_id.empty() || NeedsNoGrant(token.subject);
  if (token.scope != "api" || token.client_id != kCliClientId || !token.server_uid.empty() || !has_source) {
    return InvalidToken("malformed_token");
  }
  if (now >= token.expires_at) {
    return InvalidToken("expired");
  }
  return token;
}

absl::StatusOr<AccessToken> AccessTokens::VerifyForRevocation(absl::string_view text) const {
  ASSIGN_OR_RETURN(JwtValidator validator, JwtValidator::Builder()
                                               .ExpectIssuer(public_url_)
                                               .IgnoreAudience()
                                               .ExpectType(kType)
                                               .RequireSubject()
                                               .AllowAlgorithm(JwsAlgorithm::kEs256)
                                               .RequireLowS()
                                               .Build());
  // Judged at the time it was issued at: an expired one may be revoked, and it does no harm.
  ASSIGN_OR_RETURN(JwkSet keys, keys_.PublicKeys());
  absl::StatusOr<Jws> jws = VerifyJws(text, keys);
  if (!jws.ok()) {
    return TokenError(jws.status());
  }
  ASSIGN_OR_RETURN(Jwt jwt, Jwt::FromJws(*std::move(jws)));
  return Verify(text, validator, jwt.Time("iat").value_or(absl::InfinitePast()));
}

}  // namespace sallyport::authn

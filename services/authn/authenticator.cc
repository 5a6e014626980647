// SPDX-License-Identifier: Apache-2.0
#include "services/authn/authenticator.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/authn/caller_claims.h"
#include "services/authn/claims.h"
#include "services/authn/errors.h"
#include "services/authn/groups_overage.h"
#include "services/authn/refusals.h"

namespace sallyport::authn {
namespace {

absl::Status NotAllowed(absl::string_view rule) {
  if (rule == kGroupsOverageRule) {
    return WithReason(absl::PermissionDeniedError(
                          "your identity provider sent no groups because there are too many; groups decide here"),
                      "groups_overage");
  }
  return WithReason(absl::PermissionDeniedError("you are signed in but not among those who may use this server"),
                    "not_allowed");
}

v1::Role ToRole(const std::string& role) {
  return role == "admin" ? v1::ADMIN : role == "credential-admin" ? v1::CREDENTIAL_ADMIN : v1::AUDITOR;
}

// What is no JWT that anybody here could verify.
absl::Status Unreadable(absl::string_view token) {
  const absl::StatusOr<Jws> jws = ParseJws(token, kMaxTokenBytes);
  return jws.ok() ? InvalidToken("malformed_token") : TokenError(jws.status());
}

bool IsLive(const Grant& grant, absl::Time now) { return !grant.revoked && now < grant.expires_at; }

v1::TokenKind KindOf(AcceptedKind kind) {
  return kind == AcceptedKind::kIdToken ? v1::CONNECTOR_ID : v1::CONNECTOR_ACCESS;
}

Authenticator::Verified FromAccepted(AcceptedToken accepted, v1::TokenKind kind) {
  Authenticator::Verified verified;
  verified.identity = std::move(accepted.identity);
  verified.kind = kind;
  verified.client_id = std::move(accepted.client_id);
  verified.scopes = std::move(accepted.scopes);
  verified.expires_at = accepted.expires_at;
  verified.jwt = std::move(accepted.jwt);
  return verified;
}

}  // namespace

absl::StatusOr<Grant> Authenticator::LiveGrant(const AccessToken& token, absl::Time now) const {
  absl::StatusOr<Grant> grant = parts_.grants.Find(token.grant_id);
  if (absl::IsNotFound(grant.status())) {
    return InvalidToken("revoked");
  }
  if (!grant.ok()) {
    return grant.status();
  }
  if (!IsLive(*grant, now)) {
    return InvalidToken("revoked");
  }
  if (grant->user.subject != token.subject || grant->client_id != token.client_id ||
      grant->server_uid != token.server_uid) {
    return InvalidToken("malformed_token");
  }
  ASSIGN_OR_RETURN(bool revoked, parts_.revocations.IsRevoked(token.jti));
  if (revoked) {
    return InvalidToken("revoked");
  }
  std::optional<Identity> current = parts_.connectors.Current(grant->user);
  if (!current.has_value()) {
    return InvalidToken("user_gone");
  }
  grant->user = *std::move(current);
  return grant;
}

absl::StatusOr<Authenticator::Verified> Authenticator::VerifyOurs(const ServerView& server, absl::string_view text,
                                                                  absl::Time now) const {
  ASSIGN_OR_RETURN(AccessToken token, parts_.tokens.VerifyMcp(text, server.slug(), server.uid(), now));
  ASSIGN_OR_RETURN(Grant grant, LiveGrant(token, now));
  Verified verified;
  verified.identity = std::move(grant.user);
  verified.kind = v1::SALLYPORT;
  verified.client_id = token.client_id;
  verified.scopes = {token.scope};
  verified.expires_at = std::min(token.expires_at, grant.expires_at);
  verified.session_id = token.grant_id;
  return verified;
}

absl::StatusOr<Authenticator::Verified> Authenticator::VerifyInteractive(const ServerView& server,
                                                                         absl::string_view token,
                                                                         absl::Time now) const {
  const std::optional<UnverifiedJwt> peek = PeekJwt(token, kMaxTokenBytes);
  if (!peek.has_value()) {
    return Unreadable(token);
  }
  if (parts_.tokens.IsOurs(*peek)) {
    return VerifyOurs(server, token, now);
  }
  // Two connectors may have one issuer, with different audiences: the first that takes the token decides.
  absl::Status refused = InvalidToken("wrong_issuer");
  for (const auto& trusted : server.config->agent_auth().interactive().trusted_connectors()) {
    const Connector* connector = parts_.connectors.Find(trusted.connector());
    if (connector == nullptr || connector->issuer().empty() || connector->issuer() != peek->issuer) {
      continue;
    }
    if (trusted.audiences().empty()) {
      // Saving refuses this; a token meant for anybody must not be good here.
      refused = InvalidToken("wrong_audience");
      continue;
    }
    TokenRule rule;
    rule.audiences.assign(trusted.audiences().begin(), trusted.audiences().end());
    rule.required_claims.insert(trusted.required_claims().begin(), trusted.required_claims().end());
    absl::StatusOr<AcceptedToken> accepted = connector->VerifyPresented(token, rule, now);
    if (accepted.ok()) {
      const v1::TokenKind kind = KindOf(accepted->kind);
      return FromAccepted(*std::move(accepted), kind);
    }
    refused = TokenError(accepted.status());
  }
  return refused;
}

absl::StatusOr<Authenticator::Verified> Authenticator::VerifyWithServerKeys(const ServerView& server,
                                                                            absl::string_view token,
                                                                            absl::Time now) const {
  const registry::v1::JwtValidation& rule = server.config->agent_auth().passthrough().jwt_validation();
  JwtValidator::Builder builder;
  builder.IgnoreType().IgnoreSubject();
  rule.issuer().empty() ? builder.IgnoreIssuer() : builder.ExpectIssuer(rule.issuer());
  rule.audience().empty() ? builder.IgnoreAudience() : builder.ExpectAudience(rule.audience());
  ASSIGN_OR_RETURN(JwtValidator validator, builder.Build());
  absl::StatusOr<Jwt> jwt = InvalidToken("unknown_key");
  if (rule.has_jwks_json()) {
    if (!server.inline_jwks.ok()) {
      return KeysUnavailable("the server's jwks_json does not parse");
    }
    jwt = VerifyJwt(token, **server.inline_jwks, validator, now, kMaxTokenBytes);
  } else if (rule.has_jwks_url()) {
    jwt = parts_.jwks.Verify(token, rule.jwks_url(), validator, now);
  } else {
    return KeysUnavailable("the server's jwt_validation names no keys");
  }
  if (!jwt.ok()) {
    return TokenError(jwt.status());
  }
  // A token bound to a key its presenter must prove, or an event, is no bearer token.
  if (jwt->Has("cnf") || jwt->Has("events")) {
    return InvalidToken("wrong_type");
  }
  if (now >= jwt->expires_at()) {
    return InvalidToken("expired");
  }
  const std::string issuer = jwt->issuer();
  if (issuer.find('|') != std::string::npos || issuer.find('\n') != std::string::npos) {
    return InvalidToken("wrong_issuer");
  }
  ASSIGN_OR_RETURN(std::string value, SubjectClaim(*jwt, rule.subject_claim()));
  Verified verified;
  verified.identity.subject = absl::StrCat("server-", server.uid(), ":", issuer, "|", value);
  verified.identity.issuer = issuer;
  verified.identity.email = jwt->String("email").value_or("");
  verified.identity.name = jwt->String("name").value_or("");
  verified.kind = v1::PASSTHROUGH_JWT;
  verified.client_id = jwt->String("client_id").value_or("");
  verified.expires_at = jwt->expires_at();
  verified.jwt = *std::move(jwt);
  return verified;
}

absl::StatusOr<Authenticator::Verified> Authenticator::VerifyPassthrough(const ServerView& server,
                                                                         absl::string_view token,
                                                                         absl::Time now) const {
  const auto& passthrough = server.config->agent_auth().passthrough();
  if (!passthrough.has_jwt_validation()) {
    return WithReason(absl::FailedPreconditionError("this server does not identify its callers"), "no_jwt_validation");
  }
  const std::optional<UnverifiedJwt> peek = PeekJwt(token, kMaxTokenBytes);
  if (!peek.has_value()) {
    return Unreadable(token);
  }
  // Ours is for Interactive servers; on Passthrough the bearer goes upstream, and ours never does.
  if (parts_.tokens.IsOurs(*peek)) {
    return InvalidToken("own_token");
  }
  const registry::v1::JwtValidation& rule = passthrough.jwt_validation();
  if (!rule.has_connector()) {
    return VerifyWithServerKeys(server, token, now);
  }
  const Connector* connector = parts_.connectors.Find(rule.connector());
  if (connector == nullptr) {
    return KeysUnavailable("the server names a connector that is not configured");
  }
  TokenRule token_rule;
  if (!rule.audience().empty()) {
    token_rule.audiences = {rule.audience()};
  }
  absl::StatusOr<AcceptedToken> accepted = connector->VerifyPresented(token, token_rule, now);
  if (!accepted.ok()) {
    return TokenError(accepted.status());
  }
  return FromAccepted(*std::move(accepted), v1::PASSTHROUGH_JWT);
}

absl::StatusOr<v1::AuthenticateResponse> Authenticator::Admit(const ServerView& server, const Verified& verified,
                                                              const std::string& rule, absl::Time now) const {
  const Identity& identity = verified.identity;
  Passport passport;
  passport.purpose = Passport::Purpose::kCall;
  passport.subject = identity.subject;
  passport.session_id = verified.session_id;
  passport.email = identity.email;
  passport.email_verified = identity.email_verified;
  passport.name = identity.name;
  passport.groups = parts_.servers.NamedGroups(identity);
  passport.client_id = verified.client_id;
  // Without roles: a call needs none, and what it passes through must not be able to act as an administrator.
  passport.server_uid = server.uid();
  ASSIGN_OR_RETURN(passport, parts_.passports.Mint(std::move(passport), verified.expires_at, now));

  v1::AuthenticateResponse response;
  v1::Principal& principal = *response.mutable_principal();
  principal.set_subject(identity.subject);
  principal.set_issuer(identity.issuer);
  principal.set_email(identity.email);
  principal.set_email_verified(identity.email_verified);
  principal.set_name(identity.name);
  principal.mutable_groups()->Assign(passport.groups.begin(), passport.groups.end());
  principal.set_client_id(verified.client_id);
  principal.mutable_scopes()->Assign(verified.scopes.begin(), verified.scopes.end());
  principal.set_token_kind(verified.kind);
  *principal.mutable_expires_at() = ToTimestamp(verified.expires_at);
  for (const std::string& role : parts_.roles.RolesOf(identity)) {
    principal.add_roles(ToRole(role));
  }
  const Connector* connector = parts_.connectors.Find(identity.connector);
  AddCallerClaims(server.claims, identity, verified.jwt.has_value() ? &*verified.jwt : nullptr,
                  connector == nullptr ? "" : connector->config().oidc().groups_claim(), principal);
  response.set_passport(passport.jwt);
  *response.mutable_valid_until() = ToTimestamp(passport.expires_at);
  response.set_session_id(verified.session_id);
  response.set_rule(rule);
  return response;
}

// What the issuer's administrator and ours must compare, which no caller is told.
void Authenticator::NoteForeignIssuer(const ServerView& server, absl::string_view token, absl::Time now) const {
  const std::optional<UnverifiedJwt> peek = PeekJwt(token, kMaxTokenBytes);
  ForeignIssuer foreign;
  foreign.where = "token";
  foreign.subject = server.slug();
  const std::string said = peek.has_value() ? peek->issuer : "";
  foreign.said = said;
  if (server.interactive) {
    foreign.expected = {parts_.tokens.issuer()};
    for (const auto& trusted : server.config->agent_auth().interactive().trusted_connectors()) {
      if (const Connector* connector = parts_.connectors.Find(trusted.connector()); connector != nullptr) {
        foreign.expected.push_back(connector->issuer());
      }
    }
    foreign.remedy =
        "if these tokens are to be accepted, set a connector's oidc.issuer to exactly what they say and "
        "name it in the server's agentAuth.interactive.trustedConnectors";
  } else {
    const registry::v1::JwtValidation& rule = server.config->agent_auth().passthrough().jwt_validation();
    const Connector* connector = rule.has_connector() ? parts_.connectors.Find(rule.connector()) : nullptr;
    foreign.expected = {connector != nullptr ? connector->issuer() : rule.issuer()};
    foreign.remedy =
        "if these tokens are to be accepted, set jwtValidation.issuer, or the connector's oidc.issuer, to "
        "exactly what they say";
  }
  LogForeignIssuer(foreign, now);
}

absl::Status Authenticator::CheckPresented(const Verified& verified) const {
  if (!verified.jwt.has_value()) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const bool revoked,
                   parts_.revocations.IsSubjectRevoked(verified.identity.subject, verified.jwt->Time("iat")));
  if (revoked) {
    return InvalidToken("revoked");
  }
  if (verified.identity.groups_overage) {
    CountGroupsOverage(verified.identity.connector, "token");
  }
  return absl::OkStatus();
}

Authenticator::Outcome Authenticator::Authenticate(const v1::AuthenticateRequest& request, absl::Time now) const {
  Outcome outcome{"", "", "", "", absl::UnavailableError("not decided")};
  absl::StatusOr<std::shared_ptr<const ServerView>> server =
      parts_.servers.AtVersion(request.server_uid(), request.server_version());
  if (!server.ok()) {
    outcome.response = server.status();
    return outcome;
  }
  outcome.server_slug = (*server)->slug();
  if (!(*server)->enabled) {
    outcome.response = NoSuchServer();
    return outcome;
  }
  if (request.token().empty() || request.token().size() > kMaxTokenBytes) {
    outcome.response = InvalidToken(request.token().empty() ? "missing_token" : "token_too_long");
    return outcome;
  }
  const bool interactive = (*server)->interactive;
  absl::StatusOr<Verified> verified = interactive ? VerifyInteractive(**server, request.token(), now)
                                                  : VerifyPassthrough(**server, request.token(), now);
  if (!verified.ok()) {
    if (ReasonOf(verified.status()) == "wrong_issuer") {
      NoteForeignIssuer(**server, request.token(), now);
    }
    outcome.response = verified.status();
    return outcome;
  }
  if (const absl::Status checked = CheckPresented(*verified); !checked.ok()) {
    outcome.response = checked;
    return outcome;
  }
  outcome.subject = verified->identity.subject;
  outcome.client_id = verified->client_id;
  outcome.rule = "passthrough.jwt";
  if (interactive) {
    const AccessDecision decision =
        (*server)->policy.Decide(verified->identity, parts_.connectors.SpeaksFor(verified->identity));
    outcome.rule = decision.rule;
    if (!decision.allowed) {
      outcome.response = NotAllowed(decision.rule);
      return outcome;
    }
  }
  outcome.response = Admit(**server, *verified, outcome.rule, now);
  return outcome;
}

absl::StatusOr<Authenticator::ApiCaller> Authenticator::AuthenticateApi(absl::string_view text, absl::Time now) const {
  if (text.empty() || text.size() > kMaxTokenBytes) {
    return InvalidToken("malformed_token");
  }
  ASSIGN_OR_RETURN(AccessToken token, parts_.tokens.VerifyApi(text, now));
  ApiCaller caller;
  caller.client_id = token.client_id;
  caller.session_id = token.grant_id;
  caller.expires_at = token.expires_at;
  if (token.grant_id.empty()) {
    ASSIGN_OR_RETURN(const bool revoked, parts_.revocations.IsRevoked(token.jti));
    ASSIGN_OR_RETURN(const bool subject_revoked, parts_.revocations.IsSubjectRevoked(token.subject, token.issued_at));
    if (revoked || subject_revoked) {
      return InvalidToken("revoked");
    }
    caller.identity.subject = token.subject;
    const bool bootstrap = token.subject == kBootstrapSubject;
    caller.identity.name = bootstrap ? "administrator by one-time token" : "Kubernetes service account";
    // What the configuration says now: an account that has lost its roles is nobody here.
    if (!bootstrap && parts_.roles.RolesOf(caller.identity).empty()) {
      return InvalidToken("revoked");
    }
  } else {
    ASSIGN_OR_RETURN(Grant grant, LiveGrant(token, now));
    caller.identity = std::move(grant.user);
  }
  caller.roles = parts_.roles.RolesOf(caller.identity);
  for (const std::string& role : token.roles) {
    if (std::find(caller.roles.begin(), caller.roles.end(), role) == caller.roles.end()) {
      caller.roles.push_back(role);
    }
  }
  return caller;
}

bool Authenticator::MayUse(const ServerView& server, const Identity& identity) const {
  if (!server.enabled) {
    return false;
  }
  if (server.interactive) {
    return server.policy.Decide(identity, parts_.connectors.SpeaksFor(identity)).allowed;
  }
  // Passthrough: the users of the connector whose tokens it takes.
  const auto& passthrough = server.config->agent_auth().passthrough();
  return passthrough.has_jwt_validation() && passthrough.jwt_validation().has_connector() &&
         passthrough.jwt_validation().connector() == identity.connector && !identity.connector.empty();
}

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
// What is the caller's own: accounts, tokens, claims.
#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/text/label.h"
#include "services/registry/credentials/types.h"
#include "services/registry/validation_parts.h"

namespace sallyport::registry {
namespace {

constexpr size_t kMaxResource = 2048;

// What the gateway knows of somebody who signed in (authn keeps this and no other claim).
bool IsSignInClaim(const std::string& claim) {
  static constexpr std::array<absl::string_view, 6> kKnown = {"sub",  "user_id", "email", "email_verified",
                                                              "name", "groups"};
  return std::find(kKnown.begin(), kKnown.end(), claim) != kKnown.end();
}

bool IsResourceIndicator(absl::string_view text) {
  const size_t colon = text.find(':');
  return colon != absl::string_view::npos && colon > 0 && colon + 1 < text.size() &&
         absl::ascii_isalpha(static_cast<unsigned char>(text[0])) && text.size() <= kMaxResource &&
         !absl::StrContains(text, '#') && std::all_of(text.begin(), text.end(), absl::ascii_isgraph);
}

// Another token than the sign-in's own is wanted.
bool AsksForAnother(const v1::OutboundHeader::ForwardCallerToken& forward) {
  return !forward.scopes().empty() || !forward.resource().empty();
}

void ValidateAnother(const v1::OutboundHeader::ForwardCallerToken& forward, const Rule& rule, Findings& findings) {
  const v1::AgentAuth& agent = rule.server.agent_auth();
  const std::string field = rule.field + (forward.scopes().empty() ? ".resource" : ".scopes");
  if (forward.token() == v1::ID) {
    findings.Refuse(rule.field + ".token", "scopes and resource are of access tokens: leave it out");
  }
  if (!forward.resource().empty() && !IsResourceIndicator(forward.resource())) {
    findings.Refuse(rule.field + ".resource", "must be an absolute URI without fragment (RFC 8707 section 2)");
  }
  if (agent.has_passthrough()) {
    findings.Refuse(field, "needs a sign-in, whose identity provider is asked: set agentAuth.interactive");
  } else if (!agent.interactive().trusted_connectors().empty()) {
    findings.Warn(field,
                  "is asked for with the refresh token of a sign-in: calls with a trusted connector's token fail");
  }
}

}  // namespace

void NeedsCallerWithSession(const Rule& rule, const Checks& checks) {
  const v1::AgentAuth& agent = rule.server.agent_auth();
  if (!HasVerifiedCaller(agent)) {
    checks.findings.Refuse(rule.field,
                           "needs a verified caller: set agentAuth.interactive, or jwtValidation with a connector");
  } else if (agent.has_passthrough() && !agent.passthrough().jwt_validation().has_connector()) {
    checks.findings.Refuse(
        rule.field, "needs jwtValidation.connector: no browser session can be the subject of a key set of its own");
  }
}

void Validate(const v1::AppAuth::OAuthAuthorization& oauth, const Rule& rule, const Checks& checks) {
  Findings& findings = checks.findings;
  NeedsCallerWithSession(rule, checks);
  ValidateScopes(oauth.scopes(), rule.field + ".scopes", findings);
  if (!oauth.account().empty() && !IsLabel(oauth.account())) {
    findings.Refuse(rule.field + ".account", "must be 1 to 64 letters, digits or ._@+-");
  }
  const std::string& slug = oauth.app();
  if (slug.empty()) return findings.Refuse(rule.field + ".app", "is required: the slug of an app");
  const v1::App* app = checks.context.app(slug);
  if (app == nullptr)
    return findings.Refuse(rule.field + ".app", "no such app: create it first or apply it in the same file");
  const std::string origin = checks.urls.UpstreamOrigin();
  const auto& allowed = app->allowed_upstream_origins();
  if (!origin.empty() && !allowed.empty() && std::find(allowed.begin(), allowed.end(), origin) == allowed.end()) {
    findings.Refuse(checks.urls.upstream_field(),
                    absl::StrCat("app ", slug, " may not send its tokens to ", origin,
                                 ": a credential-admin can add it to the app's allowedUpstreamOrigins"));
  }
}
void Lower(const v1::AppAuth::OAuthAuthorization& oauth, const Rule& rule, Plan& plan) {
  Plan::Piece& piece = AddPiece(rule, Plan::USER, plan);
  piece.set_prefix("Bearer ");
  Plan::UserConnection& connection = *piece.mutable_user_connection();
  connection.set_app_uid(oauth.app_uid());
  connection.set_app_slug(oauth.app());
  connection.set_label(oauth.account());
  *connection.mutable_scopes() = oauth.scopes();
}

void Validate(const v1::AppAuth::Passthrough& /*passthrough*/, const Rule& /*rule*/, const Checks& /*checks*/) {}
void Lower(const v1::AppAuth::Passthrough& /*passthrough*/, const Rule& rule, Plan& plan) {
  Plan::Piece& piece = AddPiece(rule, Plan::REQUEST, plan);
  piece.set_renderer(Plan::EDGE);
  // MCP forbids to pass the token on that the caller proved themselves with: theirs for the upstream comes apart.
  piece.set_request_header(rule.server.agent_auth().has_interactive() ? "X-Sallyport-Authorization" : "Authorization");
}

void Validate(const v1::OutboundHeader::ForwardCallerToken& forward, const Rule& rule, const Checks& checks) {
  if (forward.token() == v1::ID && rule.server.agent_auth().has_passthrough()) {
    checks.findings.Refuse(rule.field + ".token", "a Passthrough caller has one token: leave it out");
  }
  ValidateScopes(forward.scopes(), rule.field + ".scopes", checks.findings);
  if (AsksForAnother(forward)) ValidateAnother(forward, rule, checks.findings);
}
void Lower(const v1::OutboundHeader::ForwardCallerToken& forward, const Rule& rule, Plan& plan) {
  const v1::AgentAuth& agent = rule.server.agent_auth();
  if (AsksForAnother(forward)) {
    // A token that was presented is for another audience and never goes in its place: there is none for such callers,
    // and the broker says so.
    Plan::SignInToken& token = *AddPiece(rule, Plan::TOKEN, plan).mutable_sign_in_token();
    token.set_kind(Plan::ACCESS);
    *token.mutable_scopes() = forward.scopes();
    token.set_resource(forward.resource());
    return;
  }
  if (agent.has_interactive()) {
    Plan::Piece& signed_in = AddPiece(rule, Plan::TOKEN, plan);
    signed_in.set_callers(Plan::SIGNED_IN);
    signed_in.mutable_sign_in_token()->set_kind(KindOf(forward.token()));
  }
  Plan::Piece& presented = AddPiece(rule, HasVerifiedCaller(agent) ? Plan::TOKEN : Plan::REQUEST, plan);
  if (agent.has_interactive()) presented.set_callers(Plan::WITH_OWN_TOKEN);
  presented.set_renderer(Plan::EDGE);
  presented.mutable_presented_token()->set_kind(KindOf(forward.token()));
}

void Validate(const v1::OutboundHeader::CallerIdentity& identity, const Rule& rule, const Checks& checks) {
  const v1::AgentAuth& agent = rule.server.agent_auth();
  const std::string field = rule.field + ".claim";
  if (!HasVerifiedCaller(agent)) {
    checks.findings.Refuse(rule.field, "needs a verified caller: set agentAuth.interactive or jwtValidation");
  }
  if (identity.claim().empty())
    return checks.findings.Refuse(field, "is required: sub, user_id, email or another claim");
  if (!agent.has_interactive() || IsSignInClaim(identity.claim())) return;
  const std::string known =
      "is not known of somebody who signed in: only sub, user_id, email, email_verified, name and groups are";
  if (agent.interactive().trusted_connectors().empty()) return checks.findings.Refuse(field, known);
  checks.findings.Warn(
      field, absl::StrCat(known, "; calls with a trusted connector's token that has it go through, others fail"));
}
void Lower(const v1::OutboundHeader::CallerIdentity& identity, const Rule& rule, Plan& plan) {
  Plan::Piece& piece = AddPiece(rule, Plan::TOKEN, plan);
  piece.set_renderer(Plan::EDGE);
  piece.mutable_claim()->set_name(identity.claim());
  piece.mutable_claim()->set_json(identity.format() == v1::OutboundHeader::CallerIdentity::JSON);
}

}  // namespace sallyport::registry

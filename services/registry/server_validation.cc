// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"

#include "common/http/field.h"
#include "common/oauth/subject_claim.h"
#include "services/registry/header_names.h"
#include "services/registry/validation.h"
#include "services/registry/validation_parts.h"

namespace sallyport::registry {
namespace {

constexpr int kMaxOutboundHeaders = 20;
constexpr int64_t kMaxBodyBytes = 16 << 20;
constexpr size_t kMaxJwksBytes = 256 << 10;

void ValidateAllow(const v1::Allow& allow, Findings& findings) {
  const std::string field = "agentAuth.interactive.allow";
  if (!allow.everyone() && allow.groups().empty() && allow.emails().empty() && allow.email_domains().empty() &&
      allow.subjects().empty()) {
    findings.Warn(field, "admits nobody: name groups, emails, emailDomains or subjects, or set everyone");
  }
  for (int i = 0; i < allow.emails_size(); ++i) {
    const std::string& email = allow.emails(i);
    if (std::count(email.begin(), email.end(), '@') != 1 || email.front() == '@' || email.back() == '@') {
      findings.Refuse(absl::StrCat(field, ".emails[", i, "]"), "must be one address with exactly one '@'");
    }
  }
  for (int i = 0; i < allow.email_domains_size(); ++i) {
    const std::string& domain = allow.email_domains(i);
    if (domain.empty() || domain.find_first_of("@* ") != std::string::npos) {
      findings.Refuse(absl::StrCat(field, ".emailDomains[", i, "]"), "must be a bare domain such as example.com");
    }
  }
  for (int i = 0; i < allow.subjects_size(); ++i) {
    if (allow.subjects(i).find(':') == std::string::npos) {
      findings.Refuse(absl::StrCat(field, ".subjects[", i, "]"), "must be <connector>:<value>");
    }
  }
}

void ValidateConnector(const std::string& connector, const std::string& field, const ValidationContext& context,
                       Findings& findings) {
  if (connector.empty()) return findings.Refuse(field, "is required: a connector id of authn's configuration");
  if (!context.connectors) return;
  const auto found = context.connectors->find(connector);
  if (found == context.connectors->end()) {
    findings.Refuse(field, "no such connector: add it to authn's configuration or choose another");
  } else if (found->second.type == "local") {
    findings.Refuse(field, "is a local connector, which issues no tokens: name an oidc connector");
  }
}

void ValidateInteractive(const v1::AgentAuth::Interactive& interactive, const ValidationContext& context,
                         Findings& findings) {
  ValidateAllow(interactive.allow(), findings);
  std::set<std::string> seen;
  for (int i = 0; i < interactive.trusted_connectors_size(); ++i) {
    const v1::TrustedConnector& trusted = interactive.trusted_connectors(i);
    const std::string field = absl::StrCat("agentAuth.interactive.trustedConnectors[", i, "]");
    ValidateConnector(trusted.connector(), field + ".connector", context, findings);
    if (!seen.insert(trusted.connector()).second) findings.Refuse(field + ".connector", "is named twice");
    if (trusted.audiences().empty()) {
      findings.Refuse(field + ".audiences", "is required: a token for any audience would be accepted without it");
    }
    for (const std::string& audience : trusted.audiences()) {
      if (audience.empty()) findings.Refuse(field + ".audiences", "must not hold an empty value");
    }
  }
}

void ValidateJwtValidation(const v1::JwtValidation& jwt, const ValidationContext& context, Findings& findings) {
  const std::string field = "agentAuth.passthrough.jwtValidation";
  switch (jwt.keys_case()) {
    case v1::JwtValidation::kConnector:
      ValidateConnector(jwt.connector(), field + ".connector", context, findings);
      if (!jwt.subject_claim().empty()) {
        findings.Refuse(field + ".subjectClaim", "the connector has its own subject rule: leave it out");
      }
      if (!jwt.issuer().empty()) findings.Refuse(field + ".issuer", "the connector has its own: leave it out");
      break;
    case v1::JwtValidation::kJwksUrl:
      ValidateOAuthUrl(Url::Parse(jwt.jwks_url()), field + ".jwksUrl", context.oauth_networks, findings);
      break;
    case v1::JwtValidation::kJwksJson:
      if (jwt.jwks_json().size() > kMaxJwksBytes) {
        findings.Refuse(field + ".jwksJson", "must not exceed 256 KiB");
      } else if (const absl::Status parsed = CheckJwks(jwt.jwks_json()); !parsed.ok()) {
        findings.Refuse(field + ".jwksJson", absl::StrCat("is not a usable JWKS: ", parsed.message()));
      }
      break;
    case v1::JwtValidation::KEYS_NOT_SET:
      findings.Refuse(field, "needs one of connector, jwksUrl and jwksJson");
  }
  if (const auto fault = oauth::MutableSubjectClaim(jwt.subject_claim()); fault && !jwt.has_connector()) {
    findings.Refuse(field + ".subjectClaim", *fault);
  }
  if (jwt.audience().empty()) {
    findings.Warn(field + ".audience", "not set: a token issued for any other service of the same issuer gets through");
  }
}

void ValidateAgentAuth(const v1::McpServer& server, const ValidationContext& context, Findings& findings) {
  switch (server.agent_auth().method_case()) {
    case v1::AgentAuth::kInteractive:
      return ValidateInteractive(server.agent_auth().interactive(), context, findings);
    case v1::AgentAuth::kPassthrough:
      if (server.agent_auth().passthrough().has_jwt_validation()) {
        ValidateJwtValidation(server.agent_auth().passthrough().jwt_validation(), context, findings);
      }
      return;
    case v1::AgentAuth::METHOD_NOT_SET:
      findings.Refuse("agentAuth", "is required: interactive or passthrough");
  }
}

// Somebody vouches for who calls: an unverified claim must never choose a credential.
bool HasVerifiedCaller(const v1::AgentAuth& agent) {
  return agent.has_interactive() || (agent.has_passthrough() && agent.passthrough().has_jwt_validation());
}

void ValidateOutboundName(const std::string& name, const std::string& field, Findings& findings) {
  if (name.empty()) return findings.Refuse(field, "is required");
  if (!IsHeaderName(name)) {
    return findings.Refuse(field, "must be a header name (RFC 9110 section 5.6.2) of at most 128 bytes, without '*'");
  }
  if (IsReservedOutboundName(name)) {
    findings.Refuse(field, "may not be set: it belongs to HTTP framing, to MCP or to the gateway");
  }
}

void ValidatePrefix(const std::string& prefix, const std::string& name, const std::string& field, Findings& findings) {
  if (!prefix.empty() && !IsTrimmedFieldValue(absl::StrCat(prefix, "x"))) {
    findings.Refuse(field, "holds bytes a header value cannot");
  }
  if (NormalizeFieldName(name) == "authorization" && IsConnectionScheme(prefix)) {
    findings.Refuse(field,
                    "authenticates a connection, and callers share connections to the upstream: use a scheme that "
                    "goes with each request, such as Bearer or Basic");
  }
}

void ValidateApiKey(const v1::AppAuth::ApiKey& key, Findings& findings) {
  const std::string field = "appAuth.apiKey";
  if (key.location() == v1::QUERY) {
    if (key.name().empty() || key.name().size() > 100)
      findings.Refuse(field + ".name", "is required, at most 100 bytes");
    if (!key.prefix().empty()) findings.Refuse(field + ".prefix", "goes with location HEADER only");
    return;
  }
  ValidateOutboundName(key.name(), field + ".name", findings);
  ValidatePrefix(key.prefix(), key.name(), field + ".prefix", findings);
}

void ValidateOAuthAuthorization(const v1::McpServer& server, const ResourceUrls& urls, const ValidationContext& context,
                                Findings& findings) {
  const v1::AgentAuth& agent = server.agent_auth();
  const std::string field = "appAuth.oauthAuthorization";
  if (!HasVerifiedCaller(agent)) {
    findings.Refuse(field, "needs a verified caller: set agentAuth.interactive, or jwtValidation with a connector");
  } else if (agent.has_passthrough() && !agent.passthrough().jwt_validation().has_connector()) {
    findings.Refuse(field,
                    "needs jwtValidation.connector: no browser session can be the subject of a key set of its own");
  }
  ValidateScopes(server.app_auth().oauth_authorization().scopes(), field + ".scopes", findings);
  const std::string& slug = server.app_auth().oauth_authorization().app();
  if (slug.empty()) return findings.Refuse(field + ".app", "is required: the slug of an app");
  const v1::App* app = context.app(slug);
  if (app == nullptr)
    return findings.Refuse(field + ".app", "no such app: create it first or apply it in the same file");
  const std::string origin = urls.Origin("upstreamUrl");
  const auto& allowed = app->allowed_upstream_origins();
  if (!origin.empty() && !allowed.empty() && std::find(allowed.begin(), allowed.end(), origin) == allowed.end()) {
    findings.Refuse("upstreamUrl", absl::StrCat("app ", slug, " may not send its tokens to ", origin,
                                                ": a credential-admin can add it to the app's allowedUpstreamOrigins"));
  }
}

void ValidateAppAuth(const v1::McpServer& server, const ResourceUrls& urls, const ValidationContext& context,
                     Findings& findings) {
  const v1::AppAuth& app_auth = server.app_auth();
  switch (app_auth.method_case()) {
    case v1::AppAuth::kOauthAuthorization:
      return ValidateOAuthAuthorization(server, urls, context, findings);
    case v1::AppAuth::kApiKey:
      return ValidateApiKey(app_auth.api_key(), findings);
    case v1::AppAuth::kBasic:
      if (app_auth.basic().username().empty()) findings.Refuse("appAuth.basic.username", "is required");
      if (app_auth.basic().username().find(':') != std::string::npos ||
          !IsTrimmedFieldValue(app_auth.basic().username())) {
        findings.Refuse("appAuth.basic.username", "must not hold ':' or control characters (RFC 7617 section 2)");
      }
      return;
    case v1::AppAuth::METHOD_NOT_SET:
      findings.Refuse("appAuth", "is required: oauthAuthorization, apiKey, bearer, basic or passthrough");
      return;
    default:
      return;
  }
}

// What the gateway knows of somebody who signed in (authn keeps this and no other claim).
bool IsSignInClaim(const std::string& claim) {
  static constexpr std::array<absl::string_view, 5> kKnown = {"sub", "email", "email_verified", "name", "groups"};
  return std::find(kKnown.begin(), kKnown.end(), claim) != kKnown.end();
}

void ValidateClaim(const std::string& claim, const std::string& field, const v1::AgentAuth& agent, Findings& findings) {
  if (claim.empty()) return findings.Refuse(field, "is required: sub, email or another claim");
  if (!agent.has_interactive() || IsSignInClaim(claim)) return;
  const std::string known =
      "is not known of somebody who signed in: only sub, email, email_verified, name and groups are";
  if (agent.interactive().trusted_connectors().empty()) return findings.Refuse(field, known);
  findings.Warn(field,
                absl::StrCat(known, "; calls with a trusted connector's token that has it go through, others fail"));
}

void ValidateOutboundSource(const v1::OutboundHeader& header, const std::string& field, const v1::AgentAuth& agent,
                            Findings& findings) {
  switch (header.source_case()) {
    case v1::OutboundHeader::kCallerIdentity:
      ValidateClaim(header.caller_identity().claim(), field + ".callerIdentity.claim", agent, findings);
      if (!HasVerifiedCaller(agent)) {
        findings.Refuse(field + ".callerIdentity",
                        "needs a verified caller: set agentAuth.interactive or jwtValidation");
      }
      return;
    case v1::OutboundHeader::kForwardCallerToken:
      if (header.forward_caller_token().token() == v1::ID && agent.has_passthrough()) {
        findings.Refuse(field + ".forwardCallerToken.token", "a Passthrough caller has one token: leave it out");
      }
      return;
    case v1::OutboundHeader::kLiteral:
      if (header.literal().content_case() == v1::OutboundHeader::Literal::CONTENT_NOT_SET) {
        findings.Refuse(field + ".literal", "needs value or secretValue");
      } else if (header.literal().has_value() && !IsTrimmedFieldValue(header.literal().value())) {
        findings.Refuse(field + ".literal.value", "holds bytes a header value cannot");
      }
      return;
    case v1::OutboundHeader::SOURCE_NOT_SET:
      findings.Refuse(field, "needs a source: forwardCallerToken, callerIdentity or literal");
      return;
    default:
      return;  // Refused as not yet supported.
  }
}

// The header app_auth writes, normalized; empty if none.
std::string AppAuthHeader(const v1::AppAuth& app_auth) {
  switch (app_auth.method_case()) {
    case v1::AppAuth::kApiKey:
      return app_auth.api_key().location() == v1::QUERY ? "" : NormalizeFieldName(app_auth.api_key().name());
    case v1::AppAuth::METHOD_NOT_SET:
      return "";
    default:
      return "authorization";  // Passthrough too: the caller's own goes there.
  }
}

void ValidateOutboundHeaders(const v1::McpServer& server, Findings& findings) {
  if (server.outbound_headers_size() > kMaxOutboundHeaders)
    findings.Refuse("outboundHeaders", "holds more than 20 rules");
  std::map<std::string, std::string> writers;
  if (std::string name = AppAuthHeader(server.app_auth()); !name.empty()) writers[name] = "appAuth";
  for (int i = 0; i < server.outbound_headers_size(); ++i) {
    const v1::OutboundHeader& header = server.outbound_headers(i);
    const std::string field = absl::StrCat("outboundHeaders[", i, "]");
    ValidateOutboundName(header.name(), field + ".name", findings);
    ValidatePrefix(header.prefix(), header.name(), field + ".prefix", findings);
    const auto [writer, fresh] = writers.emplace(NormalizeFieldName(header.name()), field);
    if (!fresh) {
      findings.Refuse(field + ".name", absl::StrCat("is written by ", writer->second, " too: remove one of the two"));
    }
    ValidateOutboundSource(header, field, server.agent_auth(), findings);
  }
}

void ValidateDuration(const google::protobuf::Duration& duration, double least, double most, const std::string& field,
                      Findings& findings) {
  const double seconds = static_cast<double>(duration.seconds()) + duration.nanos() / 1e9;
  if (seconds < least || seconds > most) {
    findings.Refuse(field, absl::StrCat("must be between ", least, "s and ", most, "s"));
  }
}

void ValidatePolicy(const v1::Policy& policy, Findings& findings) {
  if (policy.has_first_byte_timeout()) {
    ValidateDuration(policy.first_byte_timeout(), 1, 600, "policy.firstByteTimeout", findings);
  }
  if (policy.has_connect_timeout()) {
    ValidateDuration(policy.connect_timeout(), 0.1, 30, "policy.connectTimeout", findings);
  }
  if (policy.body_limit() < 0 || policy.body_limit() > kMaxBodyBytes) {
    findings.Refuse("policy.bodyLimit", "must be between 0 (4 MiB) and 16777216");
  }
  for (int i = 0; i < policy.allowed_client_networks_size(); ++i) {
    ValidateCidr(policy.allowed_client_networks(i), absl::StrCat("policy.allowedClientNetworks[", i, "]"), findings);
  }
}

void ValidateIdentityHeaders(const v1::McpServer& server, Findings& findings) {
  if (!server.policy().forward_identity_headers()) return;
  const std::string field = "policy.forwardIdentityHeaders";
  const v1::AgentAuth& agent = server.agent_auth();
  if (!agent.has_passthrough() || !server.app_auth().has_passthrough()) {
    return findings.Refuse(field,
                           "goes with Passthrough in both directions only: remove it, or set agentAuth.passthrough and "
                           "appAuth.passthrough; outboundHeaders can set such a header for the caller");
  }
  if (!agent.passthrough().has_jwt_validation() && server.policy().allowed_client_networks().empty()) {
    findings.Warn(field,
                  "whoever reaches this URL can say who they are to the upstream: set policy.allowedClientNetworks, or "
                  "require JWT validation");
  }
}

void WarnAboutOpenCredential(const v1::McpServer& server, Findings& findings) {
  const bool open = server.agent_auth().has_passthrough() && !server.agent_auth().passthrough().has_jwt_validation();
  const v1::AppAuth& app = server.app_auth();
  bool stored = app.has_api_key() || app.has_bearer() || app.has_basic();
  for (const v1::OutboundHeader& header : server.outbound_headers()) {
    stored = stored || header.literal().has_secret_value();
  }
  if (open && stored && server.policy().allowed_client_networks().empty()) {
    findings.Warn(
        "agentAuth.passthrough",
        "whoever reaches this URL uses the stored credential: set policy.allowedClientNetworks, or require JWT "
        "validation");
  }
}

}  // namespace

void ValidateMcpServer(const v1::McpServer& server, const ResourceUrls& urls, const ValidationContext& context,
                       Findings& findings) {
  RefuseUnsupported(server, "", findings);
  ValidateSlug(server.slug(), findings);
  ValidateTexts(server.display_name(), server.description(), findings);
  ValidateUpstreamUrl(server.upstream_url(), urls, context.upstream_networks, findings);
  ValidateAgentAuth(server, context, findings);
  for (int i = 0; i < server.restricted_inbound_headers_size(); ++i) {
    if (!IsHeaderGlob(server.restricted_inbound_headers(i))) {
      findings.Refuse(absl::StrCat("restrictedInboundHeaders[", i, "]"),
                      "must be a header name of at most 128 bytes, with '*' for any run and '?' for one character");
    }
  }
  ValidateAppAuth(server, urls, context, findings);
  ValidateOutboundHeaders(server, findings);
  ValidatePolicy(server.policy(), findings);
  ValidateIdentityHeaders(server, findings);
  WarnAboutOpenCredential(server, findings);
}

}  // namespace sallyport::registry

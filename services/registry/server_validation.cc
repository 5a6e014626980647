// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"

#include "common/oauth/subject_claim.h"
#include "services/registry/credentials/credentials.h"
#include "services/registry/header_names.h"
#include "services/registry/tls_validation.h"
#include "services/registry/validation.h"
#include "services/registry/validation_parts.h"

namespace sallyport::registry {
namespace {

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

void ValidateDuration(const google::protobuf::Duration& duration, double least, double most, const std::string& field,
                      Findings& findings) {
  const double seconds = static_cast<double>(duration.seconds()) + duration.nanos() / 1e9;
  if (seconds < least || seconds > most) {
    findings.Refuse(field, absl::StrCat("must be between ", least, "s and ", most, "s"));
  }
}

void ValidateReturnOrigins(const v1::Policy& policy, Findings& findings) {
  constexpr int kMaxReturnOrigins = 20;
  if (policy.return_origins_size() > kMaxReturnOrigins)
    findings.Refuse("policy.returnOrigins", "holds more than 20 origins");
  for (int i = 0; i < policy.return_origins_size(); ++i) {
    const auto url = Url::Parse(policy.return_origins(i));
    const bool is_origin = url.ok() && url->origin() == policy.return_origins(i);
    const bool loopback =
        is_origin && (url->host() == "127.0.0.1" || url->host() == "::1" || url->host() == "localhost");
    if (!is_origin || (!url->is_https() && !loopback)) {
      findings.Refuse(
          absl::StrCat("policy.returnOrigins[", i, "]"),
          "must be an origin such as https://chat.example.com: https (http to loopback only), host and port "
          "alone");
    }
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
  ValidateReturnOrigins(policy, findings);
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

}  // namespace

void ValidateMcpServer(const v1::McpServer& server, const ResourceUrls& urls, const ValidationContext& context,
                       Findings& findings) {
  RefuseUnsupported(server, "", findings);
  ValidateSlug(server.slug(), findings);
  ValidateTexts(server.display_name(), server.description(), findings);
  ValidateUpstreamUrl(server, urls, context.upstream_networks, findings);
  ValidateAgentAuth(server, context, findings);
  for (int i = 0; i < server.restricted_inbound_headers_size(); ++i) {
    if (!IsHeaderGlob(server.restricted_inbound_headers(i))) {
      findings.Refuse(absl::StrCat("restrictedInboundHeaders[", i, "]"),
                      "must be a header name of at most 128 bytes, with '*' for any run and '?' for one character");
    }
  }
  ValidateCredentials(server, urls, context, findings);
  ValidatePolicy(server.policy(), findings);
  ValidateTls(server, urls, context.now, findings);
  ValidateIdentityHeaders(server, findings);
}

}  // namespace sallyport::registry

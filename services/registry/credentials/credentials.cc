// SPDX-License-Identifier: Apache-2.0
#include "services/registry/credentials/credentials.h"

#include <algorithm>
#include <map>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

#include "common/http/field.h"
#include "services/registry/credentials/types.h"

namespace sallyport::registry {
namespace {

using v1::AppAuth;
using v1::OutboundHeader;

constexpr int kMaxOutboundHeaders = 20;

// Calls visit(message, name of its field in JSON) with the type that was chosen. False if none was.
template <typename Visit>
bool VisitType(const AppAuth& auth, Visit&& visit) {
  switch (auth.method_case()) {
    case AppAuth::kOauthAuthorization:
      return visit(auth.oauth_authorization(), "oauthAuthorization"), true;
    case AppAuth::kClientCredentials:
      return visit(auth.client_credentials(), "clientCredentials"), true;
    case AppAuth::kApiKey:
      return visit(auth.api_key(), "apiKey"), true;
    case AppAuth::kBearer:
      return visit(auth.bearer(), "bearer"), true;
    case AppAuth::kBasic:
      return visit(auth.basic(), "basic"), true;
    case AppAuth::kPassthrough:
      return visit(auth.passthrough(), "passthrough"), true;
    case AppAuth::METHOD_NOT_SET:
      break;
  }
  return false;
}
template <typename Visit>
bool VisitType(const OutboundHeader& header, Visit&& visit) {
  switch (header.source_case()) {
    case OutboundHeader::kOauth2ServiceToken:
      return visit(header.oauth2_service_token(), "oauth2ServiceToken"), true;
    case OutboundHeader::kForwardCallerToken:
      return visit(header.forward_caller_token(), "forwardCallerToken"), true;
    case OutboundHeader::kOnBehalfOf:
      return visit(header.on_behalf_of(), "onBehalfOf"), true;
    case OutboundHeader::kStoredCredential:
      return visit(header.stored_credential(), "storedCredential"), true;
    case OutboundHeader::kCallerIdentity:
      return visit(header.caller_identity(), "callerIdentity"), true;
    case OutboundHeader::kLiteral:
      return visit(header.literal(), "literal"), true;
    case OutboundHeader::SOURCE_NOT_SET:
      break;
  }
  return false;
}

Rule AppRule(const v1::McpServer& server, const char* type) {
  return {server, absl::StrCat("appAuth.", type), "app_auth", "Authorization", ""};
}
Rule HeaderRule(const v1::McpServer& server, int index, const char* type) {
  const OutboundHeader& header = server.outbound_headers(index);
  return {server, absl::StrCat("outboundHeaders[", index, "].", type),
          absl::StrCat("outbound_headers[", absl::AsciiStrToLower(header.name()), "]"), header.name(), header.prefix()};
}

// What has no type is a piece without a source: nobody carries out a plan that holds one.
void LowerAppAuth(const v1::McpServer& server, Plan& plan) {
  const bool known = VisitType(server.app_auth(),
                               [&](const auto& type, const char* name) { Lower(type, AppRule(server, name), plan); });
  if (!known) AddPiece(AppRule(server, ""), Plan::ORG, plan);
}
void LowerHeader(const v1::McpServer& server, int index, Plan& plan) {
  const bool known = VisitType(server.outbound_headers(index), [&](const auto& source, const char* name) {
    Lower(source, HeaderRule(server, index, name), plan);
  });
  if (!known) AddPiece(HeaderRule(server, index, ""), Plan::ORG, plan);
}

// What app authentication writes into the head, normalized; empty if nothing.
std::string AppAuthHeader(const v1::McpServer& server) {
  if (server.app_auth().method_case() == AppAuth::METHOD_NOT_SET) return "";
  Plan plan;
  LowerAppAuth(server, plan);
  for (const Plan::Piece& piece : plan.pieces()) {
    if (piece.location() == Plan::HEADER) return NormalizeFieldName(piece.name());
  }
  return "";
}

void ValidateOutboundHeader(const v1::McpServer& server, int index, const Checks& checks) {
  const OutboundHeader& header = server.outbound_headers(index);
  const std::string field = absl::StrCat("outboundHeaders[", index, "]");
  ValidateOutboundName(header.name(), field + ".name", checks.findings);
  ValidatePrefix(header.prefix(), header.name(), field + ".prefix", checks.findings);
  const bool has_source = VisitType(
      header, [&](const auto& source, const char* name) { Validate(source, HeaderRule(server, index, name), checks); });
  if (!has_source) {
    checks.findings.Refuse(field,
                           "needs a source: oauth2ServiceToken, forwardCallerToken, onBehalfOf, storedCredential, "
                           "callerIdentity or literal");
  }
}

void WarnAboutOpenCredential(const v1::McpServer& server, Findings& findings) {
  if (HasVerifiedCaller(server.agent_auth()) || !server.agent_auth().has_passthrough() ||
      !server.policy().allowed_client_networks().empty()) {
    return;
  }
  const Plan plan = LowerCredentials(server);
  const bool stored = std::any_of(plan.pieces().begin(), plan.pieces().end(), [](const Plan::Piece& piece) {
    return piece.scope() == Plan::ORG && piece.source_case() != Plan::Piece::kLiteral;
  });
  if (!stored) return;
  findings.Warn("agentAuth.passthrough",
                "whoever reaches this URL uses the stored credential: set policy.allowedClientNetworks, or require JWT "
                "validation");
}

}  // namespace

void ValidateCredentials(const v1::McpServer& server, const ResourceUrls& urls, const ValidationContext& context,
                         Findings& findings) {
  const Checks checks = {urls, context, findings};
  const bool has_app_auth = VisitType(
      server.app_auth(), [&](const auto& type, const char* name) { Validate(type, AppRule(server, name), checks); });
  if (!has_app_auth) {
    findings.Refuse("appAuth",
                    "is required: oauthAuthorization, clientCredentials, apiKey, bearer, basic or passthrough");
  }
  if (server.outbound_headers_size() > kMaxOutboundHeaders)
    findings.Refuse("outboundHeaders", "holds more than 20 rules");
  std::map<std::string, std::string> writers;
  if (std::string name = AppAuthHeader(server); !name.empty()) writers[name] = "appAuth";
  for (int i = 0; i < server.outbound_headers_size(); ++i) {
    const std::string field = absl::StrCat("outboundHeaders[", i, "]");
    ValidateOutboundHeader(server, i, checks);
    const auto [writer, fresh] = writers.emplace(NormalizeFieldName(server.outbound_headers(i).name()), field);
    if (!fresh) {
      findings.Refuse(field + ".name", absl::StrCat("is written by ", writer->second, " too: remove one of the two"));
    }
  }
  WarnAboutOpenCredential(server, findings);
}

v1::CredentialPlan LowerCredentials(const v1::McpServer& server) {
  Plan plan;
  LowerAppAuth(server, plan);
  for (int i = 0; i < server.outbound_headers_size(); ++i) LowerHeader(server, i, plan);
  LowerUpstream(server, plan);
  return plan;
}

void LowerServers(v1::WatchEvent& event) {
  const auto lower = [](google::protobuf::RepeatedPtrField<v1::McpServer>& servers) {
    for (v1::McpServer& server : servers) *server.mutable_credential_plan() = LowerCredentials(server);
  };
  if (event.has_snapshot()) lower(*event.mutable_snapshot()->mutable_mcp_servers());
  if (event.has_delta()) lower(*event.mutable_delta()->mutable_mcp_servers());
}

}  // namespace sallyport::registry

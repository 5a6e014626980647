// SPDX-License-Identifier: Apache-2.0
// Tokens that the gateway gets as a client of its own.
#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "services/registry/credentials/types.h"
#include "services/registry/validation_parts.h"

namespace sallyport::registry {
namespace {

using OnBehalfOf = v1::OutboundHeader::OnBehalfOf;
using Style = v1::CredentialPlan::ExchangedToken;

constexpr size_t kMaxKeyId = 200;

// Parameters of the exchange that have a field of their own, or belong to the protocol.
constexpr std::array<absl::string_view, 9> kExchangeParams = {
    "actor_token",   "actor_token_type",   "audience", "requested_token_type", "requested_token_use",
    "subject_token", "subject_token_type", "resource", "client_assertion_type"};
constexpr std::array<absl::string_view, 4> kServiceParams = {"audience", "client_assertion", "client_assertion_type",
                                                             "resource"};

template <typename Names, typename Message>
void ValidateParamNames(const Names& names, const Message& message, const Rule& rule, Findings& findings) {
  ValidateParams(message.token_params(), rule.field + ".tokenParams", findings);
  for (const auto& [name, value] : message.token_params()) {
    if (std::find(names.begin(), names.end(), name) != names.end()) {
      findings.Refuse(absl::StrCat(rule.field, ".tokenParams.", name), "has a field of its own: set it there");
    }
  }
}

template <typename Message>
void ValidateKeyId(const Message& message, const std::string& field, Findings& findings) {
  const std::string& id = message.key_id();
  if (id.empty()) return;
  if (message.client_auth() != v1::PRIVATE_KEY_JWT) {
    return findings.Refuse(field, "goes with clientAuth PRIVATE_KEY_JWT only: leave it out");
  }
  if (id.size() > kMaxKeyId || !std::all_of(id.begin(), id.end(), absl::ascii_isgraph)) {
    findings.Refuse(field, absl::StrCat("must be 1 to ", kMaxKeyId, " printable ASCII characters without blanks"));
  }
}

template <typename Message>
void ValidateClient(const Message& message, const std::string& url_field, const Rule& rule, const Checks& checks) {
  const std::string field = absl::StrCat(rule.field, ".", url_field);
  if (const auto* url = checks.urls.Find(field); url != nullptr) {
    ValidateOAuthUrl(*url, field, checks.context.oauth_networks, checks.findings);
  } else {
    checks.findings.Refuse(field, "is required: the provider's token endpoint");
  }
  if (message.client_id().empty()) checks.findings.Refuse(rule.field + ".clientId", "is required");
  if (message.client_auth() == v1::NONE) {
    checks.findings.Refuse(rule.field + ".clientAuth",
                           "must be BASIC, POST or PRIVATE_KEY_JWT: only a client that proves "
                           "itself is given tokens here");
  }
  ValidateScopes(message.scopes(), rule.field + ".scopes", checks.findings);
  ValidateKeyId(message, rule.field + ".keyId", checks.findings);
}

template <typename Message>
void LowerClient(const Message& message, const std::string& token_url, Plan::Client* client) {
  client->set_token_url(token_url);
  client->set_client_id(message.client_id());
  switch (message.client_auth()) {
    case v1::PRIVATE_KEY_JWT:
      client->set_authentication(Plan::Client::PRIVATE_KEY_JWT);
      Refer(message.private_key(), client->mutable_secret());
      client->set_key_id(message.key_id());
      break;
    case v1::BASIC:
      client->set_authentication(Plan::Client::CLIENT_SECRET_BASIC);
      Refer(message.client_secret(), client->mutable_secret());
      break;
    default:
      client->set_authentication(Plan::Client::CLIENT_SECRET_POST);
      Refer(message.client_secret(), client->mutable_secret());
  }
  *client->mutable_params() = message.token_params();
}

template <typename Message>
void ValidateService(const Message& message, const Rule& rule, const Checks& checks) {
  ValidateClient(message, "tokenUrl", rule, checks);
  ValidateParamNames(kServiceParams, message, rule, checks.findings);
}

template <typename Message>
void LowerService(const Message& message, Plan::Piece& piece) {
  Plan::ServiceToken& token = *piece.mutable_service_token();
  LowerClient(message, message.token_url(), token.mutable_client());
  *token.mutable_scopes() = message.scopes();
  token.set_audience(message.audience());
  token.set_resource(message.resource());
}

void ValidateTokenType(const std::string& type, const std::string& field, Findings& findings) {
  if (!type.empty() && (!absl::StartsWith(type, "urn:") || type.find_first_of(" \t\r\n") != std::string::npos)) {
    findings.Refuse(field, "must be a token type (RFC 8693 section 3), such as urn:ietf:params:oauth:token-type:jwt");
  }
}

void ValidateEntra(const OnBehalfOf& exchange, const Rule& rule, Findings& findings) {
  const auto refuse_unless_empty = [&](bool empty, const std::string& name) {
    if (!empty) findings.Refuse(absl::StrCat(rule.field, ".", name), "goes with style RFC8693 only: leave it out");
  };
  refuse_unless_empty(exchange.audience().empty(), "audience");
  refuse_unless_empty(exchange.resource().empty(), "resource");
  refuse_unless_empty(exchange.subject_token_type().empty(), "subjectTokenType");
  refuse_unless_empty(exchange.requested_token_type().empty(), "requestedTokenType");
  refuse_unless_empty(!exchange.actor_token(), "actorToken");
  if (exchange.subject_token() == v1::ID) {
    findings.Refuse(rule.field + ".subjectToken", "Entra exchanges access tokens only: leave it out");
  }
  if (exchange.scopes().empty()) {
    findings.Refuse(rule.field + ".scopes",
                    "is required: with ENTRA_OBO the scopes name the audience, such as "
                    "api://app/.default");
  }
}

}  // namespace

void Validate(const v1::AppAuth::ClientCredentials& credentials, const Rule& rule, const Checks& checks) {
  ValidateService(credentials, rule, checks);
}
void Lower(const v1::AppAuth::ClientCredentials& credentials, const Rule& rule, Plan& plan) {
  Plan::Piece& piece = AddPiece(rule, Plan::ORG, plan);
  piece.set_prefix("Bearer ");
  LowerService(credentials, piece);
}

void Validate(const v1::OutboundHeader::OAuth2ServiceToken& token, const Rule& rule, const Checks& checks) {
  ValidateService(token, rule, checks);
}
void Lower(const v1::OutboundHeader::OAuth2ServiceToken& token, const Rule& rule, Plan& plan) {
  LowerService(token, AddPiece(rule, Plan::ORG, plan));
}

void Validate(const OnBehalfOf& exchange, const Rule& rule, const Checks& checks) {
  ValidateClient(exchange, "exchangeUrl", rule, checks);
  ValidateParamNames(kExchangeParams, exchange, rule, checks.findings);
  ValidateTokenType(exchange.subject_token_type(), rule.field + ".subjectTokenType", checks.findings);
  ValidateTokenType(exchange.requested_token_type(), rule.field + ".requestedTokenType", checks.findings);
  if (exchange.style() == OnBehalfOf::ENTRA_OBO) ValidateEntra(exchange, rule, checks.findings);
  const v1::AgentAuth& agent = rule.server.agent_auth();
  if (!HasVerifiedCaller(agent)) {
    checks.findings.Refuse(rule.field, "needs a verified caller: set agentAuth.interactive or jwtValidation");
  }
  if (exchange.subject_token() == v1::ID && agent.has_passthrough()) {
    checks.findings.Refuse(rule.field + ".subjectToken", "a Passthrough caller has one token: leave it out");
  }
}
void Lower(const OnBehalfOf& exchange, const Rule& rule, Plan& plan) {
  const auto add = [&](Plan::Callers callers) {
    Plan::Piece& piece = AddPiece(rule, Plan::TOKEN, plan);
    piece.set_callers(callers);
    Plan::ExchangedToken& token = *piece.mutable_exchanged_token();
    LowerClient(exchange, exchange.exchange_url(), token.mutable_client());
    token.set_style(exchange.style() == OnBehalfOf::ENTRA_OBO ? Style::ENTRA_OBO : Style::RFC8693);
    token.set_subject(KindOf(exchange.subject_token()));
    *token.mutable_scopes() = exchange.scopes();
    token.set_audience(exchange.audience());
    token.set_resource(exchange.resource());
    token.set_subject_token_type(exchange.subject_token_type());
    token.set_requested_token_type(exchange.requested_token_type());
    token.set_actor(exchange.actor_token());
  };
  if (rule.server.agent_auth().has_interactive()) add(Plan::SIGNED_IN);
  add(Plan::WITH_OWN_TOKEN);
}

}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/oauth_endpoints.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/oauth/error.h"
#include "common/status_macros.h"
#include "common/text/json.h"
#include "services/authn/errors.h"
#include "services/authn/web/resource.h"

namespace sallyport::authn::web {
namespace {

constexpr size_t kMaxBody = 64 << 10;

absl::Status Bad(const char* oauth_error, absl::string_view message) {
  return WithOAuthError(absl::InvalidArgumentError(message), oauth_error);
}

// A refusal (it carries an OAuth error) as its response; anything else stays a status.
absl::StatusOr<WebResponse> RefusalOr(const absl::Status& status) {
  const std::string oauth_error = DetailOf(status).oauth_error;
  if (oauth_error.empty()) {
    return status;
  }
  return OAuthErrorJson(absl::IsUnauthenticated(status) ? 401 : 400, oauth_error, std::string(status.message()));
}

// What every form endpoint checks first. A response if it refuses.
std::optional<WebResponse> RefuseTransport(const WebRequest& request) {
  if (request.method() != "POST") {
    return MethodNotAllowed("POST");
  }
  if (!IsFormContent(request)) {
    return OAuthErrorJson(415, oauth::kInvalidRequest, "the body must be application/x-www-form-urlencoded");
  }
  if (request.body().size() > kMaxBody) {
    return OAuthErrorJson(413, oauth::kInvalidRequest, "the body is longer than 64 KiB");
  }
  return std::nullopt;
}

absl::StatusOr<Form> ParseParameters(const WebRequest& request) {
  const absl::StatusOr<Form> form = Form::Parse(request.body());
  if (!form.ok()) {
    return Bad(oauth::kInvalidRequest, "the body does not parse");
  }
  if (const std::string twice = form->Duplicate("resource"); !twice.empty()) {
    return Bad(oauth::kInvalidRequest, "a parameter occurs more than once");
  }
  if (form->Count("resource") > 1) {
    return Bad(oauth::kInvalidTarget, "one resource at a time");
  }
  return *form;
}

// Empty when it names no server: then the grant's own holds.
absl::StatusOr<std::string> ResourceOf(const Form& form, absl::string_view public_url) {
  if (NamesNoServer(form.Get("resource"), public_url)) {
    return std::string();
  }
  std::string resource = NormalizeResource(form.Get("resource"));
  if (resource.empty()) {
    return Bad(oauth::kInvalidTarget, "resource is not an absolute URL without a fragment");
  }
  return resource;
}

}  // namespace

absl::StatusOr<WebResponse> OAuthEndpoints::Register(const WebRequest& request, absl::Time now) {
  if (request.method() != "POST") {
    return MethodNotAllowed("POST");
  }
  if (request.body().size() > kMaxBody) {
    return OAuthErrorJson(413, oauth::kInvalidClientMetadata, "the body is longer than 64 KiB");
  }
  const std::string content_type = HeaderOf(request, "content-type");
  if (!absl::StartsWithIgnoreCase(content_type, "application/json")) {
    return OAuthErrorJson(415, oauth::kInvalidClientMetadata, "the body must be application/json");
  }
  const absl::StatusOr<ClientMetadata> metadata = ParseClientMetadata(request.body());
  if (!metadata.ok()) {
    return RefusalOr(metadata.status());
  }
  ASSIGN_OR_RETURN(const Clients::Registered registered, context_.clients.Register(*metadata, now));
  const Client& client = registered.client;
  nlohmann::json json = {{"client_id", client.id},
                         {"client_id_issued_at", absl::ToUnixSeconds(client.created_at)},
                         {"redirect_uris", client.metadata.redirect_uris},
                         {"grant_types", client.metadata.grant_types},
                         {"response_types", nlohmann::json::array({"code"})},
                         {"token_endpoint_auth_method", client.metadata.token_endpoint_auth_method},
                         {"application_type", client.metadata.application_type},
                         {"scope", "mcp"}};
  for (const auto& [name, value] :
       {std::pair("client_name", client.metadata.client_name), std::pair("client_uri", client.metadata.client_uri),
        std::pair("logo_uri", client.metadata.logo_uri), std::pair("software_id", client.metadata.software_id),
        std::pair("software_version", client.metadata.software_version)}) {
    if (!value.empty()) {
      json[name] = value;
    }
  }
  if (!registered.secret.empty()) {
    json["client_secret"] = std::string(registered.secret.Expose());
    json["client_secret_expires_at"] = 0;
  }
  if (!registered.existed) {
    audit::v1::Event event = EventOf("client.registered", audit::v1::DECISION_ALLOWED, "", request);
    event.set_client_id(client.id);
    NameClient(client.metadata.client_name, event);
    (*event.mutable_details())["redirect_host"] = RedirectHost(client.metadata.redirect_uris[0]);
    RETURN_IF_ERROR(context_.anonymous.Record(context_.parts.audit, std::move(event), now));
  }
  return PrivateJson(201, DumpJson(json));
}

absl::StatusOr<Client> OAuthEndpoints::AuthenticateClient(const Form& form, const WebRequest& request, absl::Time now) {
  absl::StatusOr<Client> client = context_.clients.Authenticate(HeaderOf(request, "authorization"), form);
  if (!client.ok() && absl::IsUnauthenticated(client.status())) {
    audit::v1::Event event = EventOf("client.refused", audit::v1::DECISION_DENIED, "", request);
    event.set_rule("invalid_client");
    RETURN_IF_ERROR(context_.anonymous.Record(context_.parts.audit, std::move(event), now));
  }
  return client;
}

absl::StatusOr<WebResponse> OAuthEndpoints::Token(const WebRequest& request, absl::Time now) {
  if (std::optional<WebResponse> refused = RefuseTransport(request); refused.has_value()) {
    return *std::move(refused);
  }
  const absl::StatusOr<Form> form = ParseParameters(request);
  if (!form.ok()) {
    return RefusalOr(form.status());
  }
  const std::string& grant_type = form->Get("grant_type");
  if (grant_type.empty()) {
    return RefusalOr(Bad(oauth::kInvalidRequest, "grant_type is missing"));
  }
  if (grant_type != "authorization_code" && grant_type != "refresh_token") {
    return RefusalOr(Bad(oauth::kUnsupportedGrantType, "grant_type must be authorization_code or refresh_token"));
  }
  const absl::StatusOr<Client> client = AuthenticateClient(*form, request, now);
  if (!client.ok()) {
    return RefusalOr(client.status());
  }
  absl::StatusOr<WebResponse> response = grant_type == "refresh_token"
                                             ? RedeemRefreshToken(*client, *form, request, now)
                                             : RedeemCode(*client, *form, request, now);
  if (!response.ok()) {
    return RefusalOr(response.status());
  }
  // Not for a mere attempt: clients that are used are kept when there is no room, and anybody can attempt.
  RETURN_IF_ERROR(context_.clients.Touch(*client, now));
  return response;
}

absl::StatusOr<WebResponse> OAuthEndpoints::RedeemCode(const Client& client, const Form& form,
                                                       const WebRequest& request, absl::Time now) {
  if (form.Get("code").empty()) {
    return Bad(oauth::kInvalidRequest, "code is missing");
  }
  ASSIGN_OR_RETURN(const std::string resource, ResourceOf(form, context_.parts.public_url));
  const std::string& verifier = form.Get("code_verifier");
  std::string revoked_grant;
  const absl::StatusOr<Grants::Tokens> tokens = context_.parts.grants.RedeemCode(
      form.Get("code"),
      {.client_id = client.id,
       .client_name = client.metadata.client_name,
       .redirect_uri = form.Get("redirect_uri"),
       // One that breaks the grammar fits no challenge, and uses the code up like any wrong one.
       .code_verifier = IsCodeVerifier(verifier) ? verifier : "",
       .resource = resource,
       .client_address = request.client_address()},
      client.metadata.may_refresh(), now, &revoked_grant);
  RETURN_IF_ERROR(PublishRevoked(revoked_grant, now));
  RETURN_IF_ERROR(tokens.status());
  if (const absl::Status allowed = CheckStillAllowed(tokens->grant); !allowed.ok()) {
    RETURN_IF_ERROR(context_.parts.grants.Revoke(tokens->grant.id, now).status());
    return allowed;
  }
  return Answer(*tokens, now);
}

absl::StatusOr<WebResponse> OAuthEndpoints::RedeemRefreshToken(const Client& client, const Form& form,
                                                               const WebRequest& request, absl::Time now) {
  const std::string& refresh_token = form.Get("refresh_token");
  if (refresh_token.empty()) {
    return Bad(oauth::kInvalidRequest, "refresh_token is missing");
  }
  ASSIGN_OR_RETURN(const std::string resource, ResourceOf(form, context_.parts.public_url));
  // Before anything is used up: a user or server that is switched off and on again must not cost everybody their
  // sessions.
  ASSIGN_OR_RETURN(const Grant grant, context_.parts.grants.FindByRefreshToken(refresh_token, client.id));
  RETURN_IF_ERROR(CheckStillAllowed(grant));
  std::string revoked_grant;
  const absl::StatusOr<Grants::Tokens> tokens =
      context_.parts.grants.RedeemRefreshToken(refresh_token,
                                               {.client_id = client.id,
                                                .scope = form.Get("scope"),
                                                .resource = resource,
                                                .client_address = request.client_address()},
                                               now, &revoked_grant);
  RETURN_IF_ERROR(PublishRevoked(revoked_grant, now));
  RETURN_IF_ERROR(tokens.status());
  return Answer(*tokens, now);
}

absl::Status OAuthEndpoints::CheckStillAllowed(const Grant& grant) const {
  const std::optional<Identity> user = context_.parts.connectors.Current(grant.user);
  if (!user.has_value()) {
    return Bad(oauth::kInvalidGrant, "the user is not known here any more");
  }
  if (grant.server_uid.empty()) {
    return absl::OkStatus();
  }
  if (!context_.parts.servers.ready()) {
    return ServersUnknown();
  }
  const auto server = context_.parts.servers.FindByUid(grant.server_uid);
  if (server == nullptr || !server->interactive) {
    return Bad(oauth::kInvalidGrant, "the server this grant is for is gone or does not take it any more");
  }
  if (!server->policy.Decide(*user, context_.parts.connectors.SpeaksFor(*user)).allowed) {
    return Bad(oauth::kInvalidGrant, "the user may not use this server any more");
  }
  if (server->forwards_sign_in_token) {
    // A new access token would be refused at the first call, and clients sign in again only when this one is.
    ASSIGN_OR_RETURN(const bool ended, context_.ended_sign_ins.Has(grant.user.subject, grant.created_at));
    if (ended) {
      return Bad(oauth::kInvalidGrant, "the sign-in has ended at the identity provider: sign in again");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<WebResponse> OAuthEndpoints::Answer(const Grants::Tokens& tokens, absl::Time now) const {
  const Grant& grant = tokens.grant;
  absl::StatusOr<MintedToken> minted = absl::InternalError("not minted");
  if (grant.server_uid.empty()) {
    minted = context_.parts.tokens.MintApi(
        {.subject = grant.user.subject, .client_id = grant.client_id, .grant_id = grant.id, .roles = {}}, now);
  } else {
    const auto server = context_.parts.servers.FindByUid(grant.server_uid);
    if (server == nullptr) {
      return Bad(oauth::kInvalidGrant, "the server this grant is for is gone");
    }
    minted = context_.parts.tokens.MintMcp({.subject = grant.user.subject,
                                            .client_id = grant.client_id,
                                            .grant_id = grant.id,
                                            .server_slug = server->slug(),
                                            .server_uid = server->uid()},
                                           now);
  }
  RETURN_IF_ERROR(minted.status());
  nlohmann::json json = {{"access_token", minted->token},
                         {"token_type", "Bearer"},
                         {"expires_in", std::max<int64_t>(minted->expires_in, 0)},
                         {"scope", grant.scope}};
  if (!tokens.refresh_token.empty()) {
    json["refresh_token"] = std::string(tokens.refresh_token.Expose());
  }
  return PrivateJson(200, DumpJson(json));
}

absl::Status OAuthEndpoints::PublishRevoked(const std::string& grant_id, absl::Time now) {
  return grant_id.empty() ? absl::OkStatus() : context_.parts.revocations.PublishSessions({grant_id}, now);
}

absl::StatusOr<WebResponse> OAuthEndpoints::Revoke(const WebRequest& request, absl::Time now) {
  if (std::optional<WebResponse> refused = RefuseTransport(request); refused.has_value()) {
    return *std::move(refused);
  }
  const absl::StatusOr<Form> form = ParseParameters(request);
  if (!form.ok()) {
    return RefusalOr(form.status());
  }
  const absl::StatusOr<Client> client = AuthenticateClient(*form, request, now);
  if (!client.ok()) {
    return RefusalOr(client.status());
  }
  const std::string& token = form->Get("token");
  if (token.empty()) {
    return RefusalOr(Bad(oauth::kInvalidRequest, "token is missing"));
  }
  ASSIGN_OR_RETURN(const std::optional<Grant> grant,
                   context_.parts.grants.RevokeByRefreshToken(token, client->id, now));
  if (grant.has_value()) {
    RETURN_IF_ERROR(PublishRevoked(grant->id, now));
  } else if (const absl::StatusOr<AccessToken> access = context_.parts.tokens.VerifyForRevocation(token);
             access.ok() && access->client_id == client->id) {
    RETURN_IF_ERROR(context_.parts.revocations.RevokeToken(access->jti, token, access->expires_at, now));
    audit::v1::Event event = EventOf("token.revoked", audit::v1::DECISION_ALLOWED, access->subject, request);
    event.set_client_id(client->id);
    event.set_server_uid(access->server_uid);
    event.set_rule("client");
    RETURN_IF_ERROR(context_.parts.audit.Record(std::move(event)));
  }
  WebResponse response;
  response.set_status(200);
  AddHeader(response, "cache-control", "no-store");
  return response;
}

}  // namespace sallyport::authn::web

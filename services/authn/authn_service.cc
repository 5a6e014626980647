// SPDX-License-Identifier: Apache-2.0
#include "services/authn/authn_service.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/proto_time.h"
#include "common/rpc/client_address.h"
#include "common/status_macros.h"
#include "common/text/utf8.h"
#include "services/authn/errors.h"
#include "services/authn/group_names.h"

namespace sallyport::authn {
namespace {

void AddRoles(const std::vector<std::string>& roles, v1::Principal& principal) {
  for (const std::string& role : roles) {
    principal.add_roles(role == "admin" ? v1::ADMIN : role == "credential-admin" ? v1::CREDENTIAL_ADMIN : v1::AUDITOR);
  }
}

v1::Principal ToPrincipal(const Passport& passport) {
  v1::Principal principal;
  principal.set_subject(passport.subject);
  principal.set_email(passport.email);
  principal.set_email_verified(passport.email_verified);
  principal.set_name(passport.name);
  principal.mutable_groups()->Assign(passport.groups.begin(), passport.groups.end());
  principal.set_client_id(passport.client_id);
  *principal.mutable_expires_at() = ToTimestamp(passport.expires_at);
  AddRoles(passport.roles, principal);
  return principal;
}

}  // namespace

std::map<std::string, MethodTable> AuthnMethodTables() {
  return {{"sallyport.authn.v1.Authn",
           {{"Authenticate", {"edge"}},
            {"GetPassport", {"edge"}},
            {"GetKeys", {"edge", "token_broker", "vault", "registry"}},
            {"GetEdgeKeys", {"edge"}},
            {"GetConnector", {"token_broker"}},
            {"ListConnectors", {"registry", "token_broker"}},
            {"RedeemAdminToken", {"edge"}},
            {"RedeemServiceAccountToken", {"edge"}},
            {"EndSignIn", {"token_broker"}},
            {"WhoAmI", {"edge"}},
            {"RevokeUser", {"edge"}}}},
          {"sallyport.authn.v1.Clients",
           {{"ListOwnClients", {"edge"}},
            {"RemoveOwnClient", {"edge"}},
            {"ListClients", {"edge"}},
            {"RemoveClient", {"edge"}}}},
          {"sallyport.authn.v1.Revocation", {{"RevokeConnections", {"edge"}}, {"RevokeServer", {"edge"}}}},
          {"sallyport.authn.v1.Issuers", {{"DescribeIssuer", {"registry"}}}},
          {"sallyport.authn.v1.Platforms", {{"AuthenticatePlatform", {"token_broker"}}}},
          {"sallyport.web.v1.Web", {{"Handle", {"edge"}}}}};
}

absl::StatusOr<v1::AuthenticateResponse> AuthnRpcs::Authenticate(const v1::AuthenticateRequest& request,
                                                                 absl::Time now) {
  Authenticator::Outcome outcome = parts_.authenticator.Authenticate(request, now);
  const absl::Status& status = outcome.response.status();
  refusals_.Note(status, outcome.server_slug, now);
  // Who is not known is not recorded here: anybody could fill the table. The edge's record of the call tells it.
  if (!outcome.subject.empty() && (status.ok() || absl::IsPermissionDenied(status))) {
    audit::v1::Event event =
        MakeEvent(status.ok() ? "mcp.admitted" : "mcp.denied",
                  status.ok() ? audit::v1::DECISION_ALLOWED : audit::v1::DECISION_DENIED, outcome.subject);
    event.set_rule(outcome.rule);
    event.set_client_id(std::string(Utf8Prefix(outcome.client_id, 256)));
    event.set_server_uid(request.server_uid());
    event.set_server_slug(outcome.server_slug);
    event.set_status(static_cast<int>(status.code()));
    // A token of the identity provider's own is all we see of its sign-in.
    if (status.ok() && outcome.response->session_id().empty()) {
      NameUser(outcome.response->principal().name(), outcome.response->principal().email(), event);
    }
    RETURN_IF_ERROR(parts_.audit.Record(std::move(event)));
  }
  return std::move(outcome.response);
}

std::vector<std::string> AuthnRpcs::LinkServers(const v1::GetPassportRequest& request, const Identity& identity) const {
  std::string app_uid = request.app_slug().empty() ? "" : parts_.servers.AppUid(request.app_slug());
  std::vector<std::string> uids;
  if (!request.server_slug().empty()) {
    const auto server = parts_.servers.FindBySlug(request.server_slug());
    app_uid = server == nullptr ? "" : server->app_uid();
    if (app_uid.empty() && server != nullptr && parts_.authenticator.MayUse(*server, identity)) {
      uids.push_back(server->uid());  // For a credential of their own there.
    }
  }
  for (const auto& server : parts_.servers.OfApp(app_uid)) {
    if (parts_.authenticator.MayUse(*server, identity)) {
      uids.push_back(server->uid());
    }
  }
  return uids;
}

absl::StatusOr<v1::GetPassportResponse> AuthnRpcs::GetPassport(const v1::GetPassportRequest& request, absl::Time now) {
  Authenticator::ApiCaller caller;
  if (request.credential_case() == v1::GetPassportRequest::kApiToken) {
    if (request.purpose() != v1::GetPassportRequest::API) {
      return InvalidField("apiToken", "is for the purpose API only");
    }
    absl::StatusOr<Authenticator::ApiCaller> found = parts_.authenticator.AuthenticateApi(request.api_token(), now);
    if (!found.ok()) {
      refusals_.Note(found.status(), "api", now);
      return found.status();
    }
    caller = *std::move(found);
  } else {
    ASSIGN_OR_RETURN(Session session, parts_.sessions.FindByHeader(request.cookie(), now));
    std::optional<Identity> user = parts_.connectors.Current(session.user);
    if (!user.has_value()) {
      return NotSignedIn();
    }
    caller.identity = *std::move(user);
    caller.client_id = "console";
    caller.session_id = session.id;
    caller.roles = parts_.roles.RolesOf(caller.identity);
    caller.expires_at = session.expires_at;
  }
  Passport passport;
  passport.subject = caller.identity.subject;
  passport.session_id = caller.session_id;
  passport.email = caller.identity.email;
  passport.email_verified = caller.identity.email_verified;
  passport.name = caller.identity.name;
  passport.groups = parts_.servers.NamedGroups(caller.identity);
  passport.client_id = caller.client_id;
  switch (request.purpose()) {
    case v1::GetPassportRequest::API:
      passport.purpose = Passport::Purpose::kApi;
      passport.roles = caller.roles;
      break;
    case v1::GetPassportRequest::LINK:
      passport.purpose = Passport::Purpose::kLink;
      passport.link_server_uids = LinkServers(request, caller.identity);
      break;
    default:
      return InvalidField("purpose", "must be API or LINK");
  }
  ASSIGN_OR_RETURN(passport, parts_.passports.Mint(std::move(passport), caller.expires_at, now));
  v1::GetPassportResponse response;
  response.set_passport(passport.jwt);
  *response.mutable_valid_until() = ToTimestamp(passport.expires_at);
  *response.mutable_principal() = ToPrincipal(passport);
  response.mutable_principal()->set_issuer(caller.identity.issuer);
  return response;
}

absl::StatusOr<v1::GetKeysResponse> AuthnRpcs::GetKeys() const {
  v1::GetKeysResponse response;
  ASSIGN_OR_RETURN(*response.mutable_jwks_json(), parts_.keys.Jwks());
  return response;
}

absl::StatusOr<v1::GetEdgeKeysResponse> AuthnRpcs::GetEdgeKeys(absl::Time now) {
  ASSIGN_OR_RETURN(EdgeKeys::Answer keys, parts_.edge_keys.Get(now));
  v1::GetEdgeKeysResponse response;
  for (std::string& key : keys.keys) {
    response.add_session_tag_keys(std::move(key));
  }
  *response.mutable_refresh_after() = ToTimestamp(keys.refresh_after);
  return response;
}

absl::StatusOr<v1::Connector> AuthnRpcs::GetConnector(const std::string& id, absl::Time now) const {
  const Connector* connector = parts_.connectors.Find(id);
  if (connector == nullptr) {
    return absl::NotFoundError("no such connector");
  }
  ASSIGN_OR_RETURN(auto discovery, connector->GetDiscovery(now));
  v1::Connector response;
  response.set_id(connector->id());
  response.set_issuer(connector->issuer());
  response.set_token_endpoint(discovery->token_endpoint);
  response.set_revocation_endpoint(discovery->revocation_endpoint);
  response.set_client_id(connector->client_id());
  if (connector->has_client_secret()) {
    *response.mutable_client_secret() = connector->ClientSecretRecord();
  }
  response.set_token_endpoint_auth_method(oauth::ClientAuthMethod(*discovery, connector->has_client_secret()));
  return response;
}

absl::StatusOr<v1::ListConnectorsResponse> AuthnRpcs::ListConnectors() const {
  v1::ListConnectorsResponse response;
  for (const auto& connector : parts_.connectors.all()) {
    auto* summary = response.add_connectors();
    summary->set_id(connector->id());
    summary->set_type(connector->type() == Connector::Type::kLocal ? "local" : "oidc");
    summary->set_without_groups(!GivesGroups(connector->config()));
  }
  return response;
}

absl::StatusOr<v1::RedeemAdminTokenResponse> AuthnRpcs::RedeemAdminToken(const std::string& token,
                                                                         const std::string& client_address,
                                                                         absl::Time now) {
  // Minted first: a redemption whose answer cannot be signed would be lost for good.
  ASSIGN_OR_RETURN(MintedToken minted, parts_.tokens.MintApi({.subject = kBootstrapSubject,
                                                              .client_id = kCliClientId,
                                                              .grant_id = "",
                                                              .roles = {"credential-admin", "admin"}},
                                                             now));
  RETURN_IF_ERROR(parts_.admin_token.Redeem(token, client_address, now));
  v1::RedeemAdminTokenResponse response;
  response.set_access_token(minted.token);
  *response.mutable_expires_at() = ToTimestamp(minted.expires_at);
  return response;
}

absl::StatusOr<v1::EndSignInResponse> AuthnRpcs::EndSignIn(const Caller& caller, absl::Time now) {
  if (!caller.passport.has_value() || caller.passport->purpose != Passport::Purpose::kCall ||
      caller.passport->session_id.empty()) {
    return WithReason(absl::PermissionDeniedError("needs the passport of a call by somebody who signed in"),
                      "passport_mismatch");
  }
  const std::string& subject = caller.passport->subject;
  const Connector* connector = parts_.connectors.Find(subject.substr(0, subject.find(':')));
  if (connector == nullptr || connector->type() != Connector::Type::kOidc) {
    return WithReason(absl::FailedPreconditionError("the caller's way to sign in gives no tokens"), "no_caller_token");
  }
  // First: a grant that is revoked while this is not known would be followed by one just like it.
  RETURN_IF_ERROR(parts_.ended_sign_ins.Mark(subject, now));
  const std::string& grant_id = caller.passport->session_id;
  ASSIGN_OR_RETURN(const bool was_live, parts_.grants.Revoke(grant_id, now));
  RETURN_IF_ERROR(parts_.revocations.PublishSessions({grant_id}, now));
  if (was_live) {
    audit::v1::Event event = MakeEvent("token.revoked", audit::v1::DECISION_ALLOWED, subject);
    event.set_rule("sign_in_ended");
    event.set_client_id(std::string(Utf8Prefix(caller.passport->client_id, 256)));
    event.set_server_uid(caller.passport->server_uid);
    (*event.mutable_details())["connector"] = connector->id();
    RETURN_IF_ERROR(parts_.audit.Record(std::move(event)));
  }
  return v1::EndSignInResponse();
}

absl::StatusOr<v1::Principal> AuthnRpcs::WhoAmI(const Caller& caller) const {
  if (!caller.passport.has_value()) {
    return NotSignedIn();
  }
  return ToPrincipal(*caller.passport);
}

grpc::Status AuthnService::Authenticate(grpc::ServerContext* context, const v1::AuthenticateRequest* request,
                                        v1::AuthenticateResponse* response) {
  return rpc_.Handle("Authenticate", context, response,
                     [&](const Caller&) { return rpcs_.Authenticate(*request, rpc_.clock().Now()); });
}

grpc::Status AuthnService::GetPassport(grpc::ServerContext* context, const v1::GetPassportRequest* request,
                                       v1::GetPassportResponse* response) {
  return rpc_.Handle("GetPassport", context, response,
                     [&](const Caller&) { return rpcs_.GetPassport(*request, rpc_.clock().Now()); });
}

grpc::Status AuthnService::GetKeys(grpc::ServerContext* context, const v1::GetKeysRequest* /*request*/,
                                   v1::GetKeysResponse* response) {
  return rpc_.Handle("GetKeys", context, response, [&](const Caller&) { return rpcs_.GetKeys(); });
}

grpc::Status AuthnService::GetEdgeKeys(grpc::ServerContext* context, const v1::GetEdgeKeysRequest* /*request*/,
                                       v1::GetEdgeKeysResponse* response) {
  return rpc_.Handle("GetEdgeKeys", context, response,
                     [&](const Caller&) { return rpcs_.GetEdgeKeys(rpc_.clock().Now()); });
}

grpc::Status AuthnService::GetConnector(grpc::ServerContext* context, const v1::GetConnectorRequest* request,
                                        v1::Connector* response) {
  return rpc_.Handle("GetConnector", context, response,
                     [&](const Caller&) { return rpcs_.GetConnector(request->id(), rpc_.clock().Now()); });
}

grpc::Status AuthnService::ListConnectors(grpc::ServerContext* context, const v1::ListConnectorsRequest* /*request*/,
                                          v1::ListConnectorsResponse* response) {
  return rpc_.Handle("ListConnectors", context, response, [&](const Caller&) { return rpcs_.ListConnectors(); });
}

grpc::Status AuthnService::RedeemAdminToken(grpc::ServerContext* context, const v1::RedeemAdminTokenRequest* request,
                                            v1::RedeemAdminTokenResponse* response) {
  return rpc_.Handle("RedeemAdminToken", context, response, [&](const Caller&) {
    return rpcs_.RedeemAdminToken(request->token(), ClientAddressOf(*context), rpc_.clock().Now());
  });
}

grpc::Status AuthnService::RedeemServiceAccountToken(grpc::ServerContext* context,
                                                     const v1::RedeemServiceAccountTokenRequest* request,
                                                     v1::RedeemServiceAccountTokenResponse* response) {
  return rpc_.Handle("RedeemServiceAccountToken", context, response, [&](const Caller&) -> absl::Status {
    ASSIGN_OR_RETURN(const MintedToken minted,
                     accounts_.Redeem(request->token(), ClientAddressOf(*context), rpc_.clock().Now()));
    response->set_access_token(minted.token);
    *response->mutable_expires_at() = ToTimestamp(minted.expires_at);
    return absl::OkStatus();
  });
}

grpc::Status AuthnService::EndSignIn(grpc::ServerContext* context, const v1::EndSignInRequest* /*request*/,
                                     v1::EndSignInResponse* response) {
  return rpc_.Handle("EndSignIn", context, response,
                     [&](const Caller& caller) { return rpcs_.EndSignIn(caller, rpc_.clock().Now()); });
}

grpc::Status AuthnService::WhoAmI(grpc::ServerContext* context, const v1::WhoAmIRequest* /*request*/,
                                  v1::Principal* response) {
  return rpc_.Handle("WhoAmI", context, response, [&](const Caller& caller) { return rpcs_.WhoAmI(caller); });
}

grpc::Status AuthnService::RevokeUser(grpc::ServerContext* context, const v1::RevokeUserRequest* request,
                                      v1::RevokeUserResponse* response) {
  return rpc_.Handle("RevokeUser", context, response, [&](const Caller& caller) {
    return revocation_.RevokeUser(caller, request->subject(), TimeBudget::Of(*context, rpc_.clock()),
                                  rpc_.clock().Now());
  });
}

}  // namespace sallyport::authn

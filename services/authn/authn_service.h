// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/caller/caller.h"
#include "common/clock.h"
#include "common/rpc/handler.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "services/authn/account_sign_in.h"
#include "services/authn/admin_token.h"
#include "services/authn/audit.h"
#include "services/authn/authenticator.h"
#include "services/authn/edge_keys.h"
#include "services/authn/ended_sign_ins.h"
#include "services/authn/refusals.h"
#include "services/authn/revocation_service.h"
#include "services/authn/sessions.h"

namespace sallyport::authn {

// Method → services that may call it, for Authn and Web.
std::map<std::string, MethodTable> AuthnMethodTables();

// What the RPCs do, without gRPC. One per process; thread-safe.
class AuthnRpcs {
 public:
  // All outlive this.
  struct Parts {
    const Authenticator& authenticator;
    const Servers& servers;
    const Connectors& connectors;
    const SigningKeys& keys;
    const AccessTokens& tokens;
    const Passports& passports;
    const RolePolicy& roles;
    Sessions& sessions;
    Grants& grants;
    Revocations& revocations;
    EdgeKeys& edge_keys;
    AdminToken& admin_token;
    Audit& audit;
    EndedSignIns& ended_sign_ins;
  };
  explicit AuthnRpcs(const Parts& parts) : parts_(parts) {}

  absl::StatusOr<v1::AuthenticateResponse> Authenticate(const v1::AuthenticateRequest& request, absl::Time now);
  absl::StatusOr<v1::GetPassportResponse> GetPassport(const v1::GetPassportRequest& request, absl::Time now);
  absl::StatusOr<v1::GetKeysResponse> GetKeys() const;
  absl::StatusOr<v1::GetEdgeKeysResponse> GetEdgeKeys(absl::Time now);
  absl::StatusOr<v1::Connector> GetConnector(const std::string& id, absl::Time now) const;
  absl::StatusOr<v1::ListConnectorsResponse> ListConnectors() const;
  absl::StatusOr<v1::RedeemAdminTokenResponse> RedeemAdminToken(const std::string& token,
                                                                const std::string& client_address, absl::Time now);
  absl::StatusOr<v1::EndSignInResponse> EndSignIn(const Caller& caller, absl::Time now);
  absl::StatusOr<v1::Principal> WhoAmI(const Caller& caller) const;

 private:
  std::vector<std::string> LinkServers(const v1::GetPassportRequest& request, const Identity& identity) const;

  const Parts parts_;
  Refusals refusals_;
};

// gRPC to AuthnRpcs; one per listener.
class AuthnService final : public v1::Authn::Service {
 public:
  // `rpcs`, `revocation`, `accounts` and what `options` points to outlive this.
  AuthnService(AuthnRpcs& rpcs, RevocationRpcs& revocation, AccountSignIn& accounts, RpcHandler::Options options)
      : rpcs_(rpcs), revocation_(revocation), accounts_(accounts), rpc_(std::move(options)) {}

  grpc::Status Authenticate(grpc::ServerContext* context, const v1::AuthenticateRequest* request,
                            v1::AuthenticateResponse* response) override;
  grpc::Status GetPassport(grpc::ServerContext* context, const v1::GetPassportRequest* request,
                           v1::GetPassportResponse* response) override;
  grpc::Status GetKeys(grpc::ServerContext* context, const v1::GetKeysRequest* request,
                       v1::GetKeysResponse* response) override;
  grpc::Status GetEdgeKeys(grpc::ServerContext* context, const v1::GetEdgeKeysRequest* request,
                           v1::GetEdgeKeysResponse* response) override;
  grpc::Status GetConnector(grpc::ServerContext* context, const v1::GetConnectorRequest* request,
                            v1::Connector* response) override;
  grpc::Status ListConnectors(grpc::ServerContext* context, const v1::ListConnectorsRequest* request,
                              v1::ListConnectorsResponse* response) override;
  grpc::Status RedeemAdminToken(grpc::ServerContext* context, const v1::RedeemAdminTokenRequest* request,
                                v1::RedeemAdminTokenResponse* response) override;
  grpc::Status RedeemServiceAccountToken(grpc::ServerContext* context,
                                         const v1::RedeemServiceAccountTokenRequest* request,
                                         v1::RedeemServiceAccountTokenResponse* response) override;
  grpc::Status EndSignIn(grpc::ServerContext* context, const v1::EndSignInRequest* request,
                         v1::EndSignInResponse* response) override;
  grpc::Status WhoAmI(grpc::ServerContext* context, const v1::WhoAmIRequest* request, v1::Principal* response) override;
  grpc::Status RevokeUser(grpc::ServerContext* context, const v1::RevokeUserRequest* request,
                          v1::RevokeUserResponse* response) override;

 private:
  AuthnRpcs& rpcs_;
  RevocationRpcs& revocation_;
  AccountSignIn& accounts_;
  RpcHandler rpc_;
};

}  // namespace sallyport::authn

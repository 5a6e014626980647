// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <utility>

#include "common/rpc/handler.h"
#include "sallyport/token_broker/v1/sign_ins.grpc.pb.h"
#include "sallyport/token_broker/v1/token_broker.grpc.pb.h"
#include "sallyport/web/v1/web.grpc.pb.h"
#include "services/token_broker/accounts.h"
#include "services/token_broker/renamer.h"
#include "services/token_broker/resolver.h"
#include "services/token_broker/sign_in_store.h"
#include "services/token_broker/web_pages.h"

namespace sallyport::token_broker {

// Who may call what: the edge, and authn its own method.
std::map<std::string, MethodTable> TokenBrokerMethodTables();

// gRPC to domain, no logic. ResolveCredentials is a callback method: whoever waits there for a refresh holds no thread.
class TokenBrokerService final
    : public v1::TokenBroker::WithCallbackMethod_ResolveCredentials<v1::TokenBroker::Service> {
 public:
  // All outlive this.
  TokenBrokerService(RpcHandler::Options options, Resolver& resolver, Accounts& accounts, Renamer& renamer,
                     UserCredentials& credentials);

  grpc::ServerUnaryReactor* ResolveCredentials(grpc::CallbackServerContext* context,
                                               const v1::ResolveCredentialsRequest* request,
                                               v1::ResolveCredentialsResponse* response) override;
  grpc::Status StartLink(grpc::ServerContext* context, const v1::StartLinkRequest* request,
                         v1::StartLinkResponse* response) override;
  grpc::Status ResumeLink(grpc::ServerContext* context, const v1::ResumeLinkRequest* request,
                          v1::ResumeLinkResponse* response) override;
  grpc::Status ListConnections(grpc::ServerContext* context, const v1::ListConnectionsRequest* request,
                               v1::ListConnectionsResponse* response) override;
  grpc::Status Disconnect(grpc::ServerContext* context, const v1::DisconnectRequest* request,
                          v1::DisconnectResponse* response) override;
  grpc::Status RenameConnection(grpc::ServerContext* context, const v1::RenameConnectionRequest* request,
                                v1::RenameConnectionResponse* response) override;
  grpc::Status ListOwnCredentials(grpc::ServerContext* context, const v1::ListOwnCredentialsRequest* request,
                                  v1::ListOwnCredentialsResponse* response) override;
  grpc::Status SetCredential(grpc::ServerContext* context, const v1::SetCredentialRequest* request,
                             v1::SetCredentialResponse* response) override;
  grpc::Status ClearCredential(grpc::ServerContext* context, const v1::ClearCredentialRequest* request,
                               v1::ClearCredentialResponse* response) override;

 private:
  RpcHandler rpc_;
  Resolver& resolver_;
  Accounts& accounts_;
  Renamer& renamer_;
  UserCredentials& credentials_;
};

class SignInsService final : public v1::SignIns::Service {
 public:
  // `store` outlives this.
  SignInsService(RpcHandler::Options options, SignInStore& store);
  grpc::Status StoreTokens(grpc::ServerContext* context, const v1::StoreTokensRequest* request,
                           v1::StoreTokensResponse* response) override;

 private:
  RpcHandler rpc_;
  SignInStore& store_;
};

class WebService final : public web::v1::Web::Service {
 public:
  WebService(RpcHandler::Options options, WebPages& pages);
  grpc::Status Handle(grpc::ServerContext* context, const web::v1::WebRequest* request,
                      web::v1::WebResponse* response) override;

 private:
  RpcHandler rpc_;
  WebPages& pages_;
};

}  // namespace sallyport::token_broker

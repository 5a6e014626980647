// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/token_broker_service.h"

namespace sallyport::token_broker {
namespace {

// Methods about a user's own accounts mean nothing without one.
absl::StatusOr<const Passport*> UserOf(const Caller& caller) {
  if (!caller.passport.has_value()) {
    return absl::UnauthenticatedError("this needs a signed-in user");
  }
  return &*caller.passport;
}

}  // namespace

std::map<std::string, MethodTable> TokenBrokerMethodTables() {
  const std::set<std::string> edge = {"edge"};
  return {{"sallyport.token_broker.v1.TokenBroker",
           {{"ResolveCredentials", edge},
            {"StartLink", edge},
            {"ResumeLink", edge},
            {"ListConnections", edge},
            {"Disconnect", edge},
            {"RenameConnection", edge},
            {"ListOwnCredentials", edge},
            {"SetCredential", edge},
            {"ClearCredential", edge}}},
          {"sallyport.token_broker.v1.Endings", {{"EndConnections", {"authn"}}}},
          {"sallyport.token_broker.v1.SignIns", {{"StoreTokens", {"authn"}}}},
          {"sallyport.web.v1.Web", {{"Handle", edge}}}};
}

TokenBrokerService::TokenBrokerService(RpcHandler::Options options, Resolver& resolver, Accounts& accounts,
                                       Renamer& renamer, UserCredentials& credentials)
    : rpc_(std::move(options)),
      resolver_(resolver),
      accounts_(accounts),
      renamer_(renamer),
      credentials_(credentials) {}

grpc::ServerUnaryReactor* TokenBrokerService::ResolveCredentials(grpc::CallbackServerContext* context,
                                                                 const v1::ResolveCredentialsRequest* request,
                                                                 v1::ResolveCredentialsResponse* response) {
  return rpc_.HandleAsync("ResolveCredentials", context, [&](const Caller& caller, RpcHandler::Done done) {
    resolver_.Resolve(
        *request, caller.passport, response, [context] { return context->IsCancelled(); }, std::move(done));
  });
}

grpc::Status TokenBrokerService::StartLink(grpc::ServerContext* context, const v1::StartLinkRequest* request,
                                           v1::StartLinkResponse* response) {
  return rpc_.Handle("StartLink", context, response,
                     [&](const Caller& caller) -> absl::StatusOr<v1::StartLinkResponse> {
                       const absl::StatusOr<const Passport*> user = UserOf(caller);
                       return user.ok() ? accounts_.StartLink(*request, **user) : user.status();
                     });
}

grpc::Status TokenBrokerService::ResumeLink(grpc::ServerContext* context, const v1::ResumeLinkRequest* request,
                                            v1::ResumeLinkResponse* response) {
  return rpc_.Handle("ResumeLink", context, response,
                     [&](const Caller& caller) -> absl::StatusOr<v1::ResumeLinkResponse> {
                       const absl::StatusOr<const Passport*> user = UserOf(caller);
                       return user.ok() ? accounts_.ResumeLink(*request, **user) : user.status();
                     });
}

grpc::Status TokenBrokerService::ListConnections(grpc::ServerContext* context,
                                                 const v1::ListConnectionsRequest* /*request*/,
                                                 v1::ListConnectionsResponse* response) {
  return rpc_.Handle("ListConnections", context, response,
                     [&](const Caller& caller) -> absl::StatusOr<v1::ListConnectionsResponse> {
                       const absl::StatusOr<const Passport*> user = UserOf(caller);
                       return user.ok() ? accounts_.List(**user) : user.status();
                     });
}

grpc::Status TokenBrokerService::Disconnect(grpc::ServerContext* context, const v1::DisconnectRequest* request,
                                            v1::DisconnectResponse* response) {
  return rpc_.Handle("Disconnect", context, response,
                     [&](const Caller& caller) -> absl::StatusOr<v1::DisconnectResponse> {
                       const absl::StatusOr<const Passport*> user = UserOf(caller);
                       return user.ok() ? accounts_.Disconnect(*request, **user) : user.status();
                     });
}

grpc::Status TokenBrokerService::RenameConnection(grpc::ServerContext* context,
                                                  const v1::RenameConnectionRequest* request,
                                                  v1::RenameConnectionResponse* response) {
  return rpc_.Handle("RenameConnection", context, response,
                     [&](const Caller& caller) -> absl::StatusOr<v1::RenameConnectionResponse> {
                       const absl::StatusOr<const Passport*> user = UserOf(caller);
                       return user.ok() ? renamer_.Rename(*request, **user) : user.status();
                     });
}

grpc::Status TokenBrokerService::ListOwnCredentials(grpc::ServerContext* context,
                                                    const v1::ListOwnCredentialsRequest* /*request*/,
                                                    v1::ListOwnCredentialsResponse* response) {
  return rpc_.Handle("ListOwnCredentials", context, response,
                     [&](const Caller& caller) -> absl::StatusOr<v1::ListOwnCredentialsResponse> {
                       const absl::StatusOr<const Passport*> user = UserOf(caller);
                       return user.ok() ? credentials_.List(**user) : user.status();
                     });
}

grpc::Status TokenBrokerService::SetCredential(grpc::ServerContext* context, const v1::SetCredentialRequest* request,
                                               v1::SetCredentialResponse* response) {
  return rpc_.Handle("SetCredential", context, response,
                     [&](const Caller& caller) -> absl::StatusOr<v1::SetCredentialResponse> {
                       const absl::StatusOr<const Passport*> user = UserOf(caller);
                       return user.ok() ? credentials_.Set(*request, **user) : user.status();
                     });
}

grpc::Status TokenBrokerService::ClearCredential(grpc::ServerContext* context,
                                                 const v1::ClearCredentialRequest* request,
                                                 v1::ClearCredentialResponse* response) {
  return rpc_.Handle("ClearCredential", context, response,
                     [&](const Caller& caller) -> absl::StatusOr<v1::ClearCredentialResponse> {
                       const absl::StatusOr<const Passport*> user = UserOf(caller);
                       return user.ok() ? credentials_.Clear(*request, **user) : user.status();
                     });
}

SignInsService::SignInsService(RpcHandler::Options options, SignInStore& store)
    : rpc_(std::move(options)), store_(store) {}

grpc::Status SignInsService::StoreTokens(grpc::ServerContext* context, const v1::StoreTokensRequest* request,
                                         v1::StoreTokensResponse* response) {
  return rpc_.Handle("StoreTokens", context, response,
                     [&](const Caller& caller) { return store_.Store(*request, caller.passport); });
}

WebService::WebService(RpcHandler::Options options, WebPages& pages) : rpc_(std::move(options)), pages_(pages) {}

grpc::Status WebService::Handle(grpc::ServerContext* context, const web::v1::WebRequest* request,
                                web::v1::WebResponse* response) {
  return rpc_.Handle(
      "Handle", context, response,
      [&](const Caller& /*caller*/) -> absl::StatusOr<web::v1::WebResponse> { return pages_.Handle(*request); });
}

}  // namespace sallyport::token_broker

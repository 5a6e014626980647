// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/rpc/handler.h"
#include "sallyport/web/v1/web.grpc.pb.h"
#include "services/authn/web/authorize.h"
#include "services/authn/web/context.h"
#include "services/authn/web/login.h"
#include "services/authn/web/metadata.h"
#include "services/authn/web/oauth_endpoints.h"

namespace sallyport::authn::web {

// Every page and endpoint of authn: /, /login*, /logout, /signed-out, /oauth/*, /.well-known/*. One per process;
// thread-safe.
class AuthnWeb {
 public:
  explicit AuthnWeb(const Parts& parts);

  // Always a response: what fails becomes a page, or JSON where clients look.
  WebResponse Handle(const WebRequest& request);
  // Drops what has expired: transactions, counts of attempts.
  absl::Status Prune(absl::Time now);

 private:
  absl::StatusOr<WebResponse> Page(const WebRequest& request, absl::Time now);
  absl::StatusOr<WebResponse> Endpoint(const WebRequest& request, absl::Time now);

  Context context_;
  Metadata metadata_;
  OAuthEndpoints endpoints_;
  AuthorizeFlow authorize_;
  LoginFlow login_;
};

// gRPC to AuthnWeb; one per listener.
class WebService final : public sallyport::web::v1::Web::Service {
 public:
  // `web` and what `options` points to outlive this. `options.service` is "sallyport.web.v1.Web".
  WebService(AuthnWeb& web, RpcHandler::Options options) : web_(web), rpc_(std::move(options)) {}

  grpc::Status Handle(grpc::ServerContext* context, const WebRequest* request, WebResponse* response) override;

 private:
  AuthnWeb& web_;
  RpcHandler rpc_;
};

}  // namespace sallyport::authn::web

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/endings_service.h"

#include <utility>

#include "services/token_broker/errors.h"

namespace sallyport::token_broker {

EndingsService::EndingsService(RpcHandler::Options options, Endings& endings)
    : rpc_(std::move(options)), endings_(endings) {}

grpc::Status EndingsService::EndConnections(grpc::ServerContext* context, const v1::EndConnectionsRequest* request,
                                            v1::EndConnectionsResponse* response) {
  return rpc_.Handle(
      "EndConnections", context, response, [&](const Caller& caller) -> absl::StatusOr<v1::EndConnectionsResponse> {
        return caller.passport.has_value() ? endings_.End(*request, *caller.passport) : error::PassportMismatch();
      });
}

}  // namespace sallyport::token_broker

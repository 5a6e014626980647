// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "common/rpc/handler.h"
#include "sallyport/token_broker/v1/endings.grpc.pb.h"
#include "services/token_broker/endings.h"

namespace sallyport::token_broker {

class EndingsService final : public v1::Endings::Service {
 public:
  // `endings` outlives this.
  EndingsService(RpcHandler::Options options, Endings& endings);
  grpc::Status EndConnections(grpc::ServerContext* context, const v1::EndConnectionsRequest* request,
                              v1::EndConnectionsResponse* response) override;

 private:
  RpcHandler rpc_;
  Endings& endings_;
};

}  // namespace sallyport::token_broker

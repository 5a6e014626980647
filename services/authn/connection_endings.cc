// SPDX-License-Identifier: Apache-2.0
#include "services/authn/connection_endings.h"

#include "common/error.h"
#include "common/rpc/server.h"
#include "common/status_macros.h"
#include "sallyport/token_broker/v1/endings.grpc.pb.h"

namespace sallyport::authn {
namespace {

class BrokerEndings final : public ConnectionEndings {
 public:
  explicit BrokerEndings(const std::shared_ptr<grpc::Channel>& broker)
      : stub_(token_broker::v1::Endings::NewStub(broker)) {}

  absl::StatusOr<token_broker::v1::EndConnectionsResponse> End(const token_broker::v1::EndConnectionsRequest& request,
                                                               const std::string& passport,
                                                               absl::Duration timeout) override {
    token_broker::v1::EndConnectionsResponse response;
    const auto context = MakeClientContext(timeout, passport);
    RETURN_IF_ERROR(FromGrpcStatus(stub_->EndConnections(context.get(), request, &response)));
    return response;
  }

 private:
  std::unique_ptr<token_broker::v1::Endings::Stub> stub_;
};

}  // namespace

std::unique_ptr<ConnectionEndings> MakeConnectionEndings(const std::shared_ptr<grpc::Channel>& broker) {
  return std::make_unique<BrokerEndings>(broker);
}

}  // namespace sallyport::authn

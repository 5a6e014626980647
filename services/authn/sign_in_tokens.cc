// SPDX-License-Identifier: Apache-2.0
#include "services/authn/sign_in_tokens.h"

#include "common/error.h"
#include "common/rpc/server.h"
#include "sallyport/token_broker/v1/sign_ins.grpc.pb.h"

namespace sallyport::authn {
namespace {

// The broker asks the vault, which may take 5 s.
constexpr absl::Duration kTimeout = absl::Seconds(10);

class BrokerSignInTokens final : public SignInTokens {
 public:
  explicit BrokerSignInTokens(const std::shared_ptr<grpc::Channel>& broker)
      : stub_(token_broker::v1::SignIns::NewStub(broker)) {}

  absl::Status Store(const token_broker::v1::StoreTokensRequest& tokens, const std::string& passport) override {
    token_broker::v1::StoreTokensResponse response;
    const auto context = MakeClientContext(kTimeout, passport);
    return FromGrpcStatus(stub_->StoreTokens(context.get(), tokens, &response));
  }

 private:
  std::unique_ptr<token_broker::v1::SignIns::Stub> stub_;
};

}  // namespace

std::unique_ptr<SignInTokens> MakeSignInTokens(const std::shared_ptr<grpc::Channel>& broker) {
  return std::make_unique<BrokerSignInTokens>(broker);
}

}  // namespace sallyport::authn

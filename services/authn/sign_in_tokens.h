// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include <grpcpp/channel.h>

#include "sallyport/token_broker/v1/sign_ins.pb.h"

namespace sallyport::authn {

// Where the tokens of a sign-in go: to the broker, whose they are from then on. Virtual for tests. Thread-safe.
class SignInTokens {
 public:
  virtual ~SignInTokens() = default;
  // `passport`: of purpose sign_in. UNAVAILABLE if they cannot be stored now. Blocks, at most 10 s.
  virtual absl::Status Store(const token_broker::v1::StoreTokensRequest& tokens, const std::string& passport) = 0;
};

// Lazy: `broker` may lead nowhere yet.
std::unique_ptr<SignInTokens> MakeSignInTokens(const std::shared_ptr<grpc::Channel>& broker);

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sign_ins.h"

#include <utility>

#include "common/error.h"
#include "common/rpc/server.h"
#include "services/token_broker/errors.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(5);

}  // namespace

SignIns::SignIns(const std::shared_ptr<grpc::Channel>& authn, TaskRunner& runner)
    : authn_(authn::v1::Authn::NewStub(authn)), runner_(runner) {}

void SignIns::End(const std::string& passport, std::function<void(absl::Status)> done) {
  const auto shared = std::make_shared<std::function<void(absl::Status)>>(std::move(done));
  if (!runner_.Post([this, shared, passport] { (*shared)(Tell(passport)); })) {
    (*shared)(error::TooManyWait());
  }
}

absl::Status SignIns::Tell(const std::string& passport) {
  authn::v1::EndSignInResponse response;
  const auto context = MakeClientContext(kTimeout, passport);
  const absl::Status told = FromGrpcStatus(authn_->EndSignIn(context.get(), authn::v1::EndSignInRequest(), &response));
  if (told.ok()) {
    return WithReason(absl::FailedPreconditionError("the sign-in has ended at the identity provider"), "sign_in_ended");
  }
  if (absl::IsFailedPrecondition(told)) {
    return NoCallerToken();
  }
  return WithRetryAfter(absl::UnavailableError("authn could not be told that the sign-in has ended"), absl::Seconds(1));
}

absl::Status NoCallerToken() {
  return WithReason(absl::FailedPreconditionError("the caller's sign-in gave no token that could be forwarded"),
                    "no_caller_token");
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include <grpcpp/channel.h>

#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "services/token_broker/task_runner.h"

namespace sallyport::token_broker {

// Tells authn that the tokens of somebody's sign-in have ended at the identity provider, before the caller hears it: a
// client that is sent to sign in again uses its refresh token first, and must find it dead. Thread-safe.
class SignIns {
 public:
  // `runner`, for what blocks, outlives this.
  SignIns(const std::shared_ptr<grpc::Channel>& authn, TaskRunner& runner);

  // Always ends with an error, the one to answer with. Of the caller of `passport`: FAILED_PRECONDITION reason
  // "sign_in_ended" once their grant has ended, or "no_caller_token" if their way to sign in gives no tokens;
  // UNAVAILABLE if authn cannot be told within 5 s. On a thread of the runner's: the one that brought the news may be
  // one of those that renew.
  void End(const std::string& passport, std::function<void(absl::Status)> done);

 private:
  absl::Status Tell(const std::string& passport);

  const std::unique_ptr<authn::v1::Authn::Stub> authn_;
  TaskRunner& runner_;
};

// The caller's sign-in gave no token that could be forwarded.
absl::Status NoCallerToken();

}  // namespace sallyport::token_broker

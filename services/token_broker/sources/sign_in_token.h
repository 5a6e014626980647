// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "common/clock.h"
#include "services/token_broker/connections.h"
#include "services/token_broker/secret_reader.h"
#include "services/token_broker/sign_ins.h"
#include "services/token_broker/sources/further_tokens.h"
#include "services/token_broker/sources/source.h"
#include "services/token_broker/task_runner.h"

namespace sallyport::token_broker {

// The identity provider's token of the caller's sign-in: the one it gave then, renewed, or one for another audience.
class SignInTokenSource final : public Source {
 public:
  // All outlive this; `runner` is for what blocks for vault and authn.
  SignInTokenSource(SecretReader& secrets, Connections& connections, SignIns& sign_ins, TaskRunner& runner,
                    const Clock& clock)
      : secrets_(secrets),
        connections_(connections),
        sign_ins_(sign_ins),
        clock_(clock),
        further_(connections, sign_ins, runner, clock) {}

  std::string CacheKey(const Need& need) const override;
  void Get(const std::shared_ptr<const Need>& need, Done done) override;

  // The token itself, wherever it goes.
  struct Wish {
    std::string subject;
    std::string connector;
    std::string passport;  // JWT of a passport of the subject.
    bool id_token = false;
    int64_t refused_generation = 0;
    int64_t refused_version = 0;
  };
  using TokenDone = std::function<void(absl::StatusOr<Value>)>;
  void Current(const Wish& wish, TokenDone done);

 private:
  // Another access token than the sign-in's own, of which `own` is the one that it has now.
  void GetFurther(const std::shared_ptr<const Need>& need, const Value& own, Done done);

  SecretReader& secrets_;
  Connections& connections_;
  SignIns& sign_ins_;
  const Clock& clock_;
  FurtherTokens further_;
};

// PERMISSION_DENIED reason origin_not_allowed unless the server's binding lets tokens that were not entered for it go
// to its upstream.
absl::Status CheckServerBinding(SecretReader& secrets, const Need& need, absl::string_view what);

}  // namespace sallyport::token_broker

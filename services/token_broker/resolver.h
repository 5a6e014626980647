// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"

#include "common/caller/caller.h"
#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "sallyport/token_broker/v1/token_broker.pb.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/connections.h"
#include "services/token_broker/secret_reader.h"
#include "services/token_broker/sign_ins.h"
#include "services/token_broker/task_runner.h"

namespace sallyport::token_broker {

// Door two for one server and caller: which credential goes out. Thread-safe.
class Resolver {
 public:
  // All outlive this.
  Resolver(const ControlStream& control, SecretReader& secrets, Connections& connections, SignIns& sign_ins,
           const AuditLog& audit, TaskRunner& runner, const Clock& clock);

  // Returns at once; `done` runs exactly once, `response` having been filled before. Errors as in the proto.
  void Resolve(const v1::ResolveCredentialsRequest& request, const std::optional<Passport>& passport,
               v1::ResolveCredentialsResponse* response, std::function<void(absl::Status)> done);

 private:
  struct Call;
  using CallPtr = std::shared_ptr<Call>;

  void Begin(const CallPtr& call);
  // Goes on with the next piece until one must be waited for.
  void Continue(const CallPtr& call);
  absl::Status Admit(Call& call) const;
  absl::Status AddStaticPieces(Call& call);
  absl::Status AddSecret(Call& call, const std::string& piece, const std::string& name, const std::string& prefix,
                         const common::v1::Secret& secret, bool in_query);
  absl::Status PlanUserPieces(Call& call);
  absl::Status AddUserPiece(Call& call, const SharedConnection& view);
  // Has the connection of the next piece, of an earlier release, sealed anew with where it came from.
  void SealBehind(const Call& call);
  // Ends `call` with what authn makes of a sign-in that has no tokens any more.
  void EndSignIn(const CallPtr& call);
  void Deny(const Call& call, const std::string& rule) const;

  const ControlStream& control_;
  SecretReader& secrets_;
  Connections& connections_;
  SignIns& sign_ins_;
  const AuditLog& audit_;
  TaskRunner& runner_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker

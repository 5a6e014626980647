// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"

#include "common/caller/caller.h"
#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "sallyport/token_broker/v1/token_broker.pb.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/sources/sources.h"
#include "services/token_broker/task_runner.h"

namespace sallyport::token_broker {

// Door two for one server and caller: carries out the server's plan, piece by piece. Thread-safe.
class Resolver {
 public:
  // All outlive this.
  Resolver(const ControlStream& control, const Sources& sources, const AuditLog& audit, TaskRunner& runner,
           const Clock& clock);

  // Returns at once; `done` runs exactly once, `response` having been filled before. Errors as in the proto. Nothing
  // more is begun once `abandoned` says that nobody waits.
  void Resolve(const v1::ResolveCredentialsRequest& request, const std::optional<Passport>& passport,
               v1::ResolveCredentialsResponse* response, std::function<bool()> abandoned,
               std::function<void(absl::Status)> done);

 private:
  struct Call;
  using CallPtr = std::shared_ptr<Call>;

  // What needs nobody else, on the thread that asks. False if Begin has to be called, on a thread that may be blocked.
  bool BeginHere(const CallPtr& call);
  void Begin(const CallPtr& call);
  absl::Status Admit(Call& call) const;
  // Which pieces this caller needs, those of the organization first.
  absl::Status MakeSteps(Call& call) const;
  // Goes on with the next piece until one must be waited for; on a thread that must not be blocked, with what is known.
  void Continue(const CallPtr& call, bool may_block);
  void Take(const CallPtr& call, absl::StatusOr<Outcome> outcome, bool may_block);
  void End(const CallPtr& call, const absl::Status& status, bool may_block) const;
  void Deny(const Call& call, const std::string& rule) const;

  const ControlStream& control_;
  const Sources& sources_;
  const AuditLog& audit_;
  TaskRunner& runner_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker

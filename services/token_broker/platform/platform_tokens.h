// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"

#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "sallyport/token_broker/v1/platform.pb.h"
#include "services/token_broker/account_check.h"
#include "services/token_broker/connections.h"
#include "services/token_broker/deferred_audit.h"
#include "services/token_broker/platform/admission.h"
#include "services/token_broker/platform/platform_accounts.h"
#include "services/token_broker/secret_reader.h"
#include "services/token_broker/task_runner.h"

namespace sallyport::token_broker {

// Tokens of users' accounts for platforms. Thread-safe.
class PlatformTokens {
 public:
  using Done = std::function<void(absl::Status)>;
  // Whether nobody waits for the answer any more.
  using Gone = std::function<bool()>;

  // All outlive this.
  PlatformTokens(const ControlStream& control, SecretReader& secrets, Connections& connections,
                 PlatformAccounts& accounts, DeferredAudit& audit, TaskRunner& runner, const Clock& clock);

  // Errors as in platform.proto. `done` runs once, `response` having been filled before: at once on this thread where
  // the answer is in memory, else on another. Never blocks. Request and response live until then.
  void Get(const v1::GetTokenRequest& request, SharedAdmission admission, v1::GetTokenResponse* response, Done done,
           Gone gone);
  // Says `linked` where Get would give a token.
  void StartLink(const v1::StartUserLinkRequest& request, SharedAdmission admission,
                 v1::StartUserLinkResponse* response, Done done, Gone gone);

 private:
  // One account that is asked for.
  struct Ask;
  using AskPtr = std::shared_ptr<Ask>;
  // `good`: the account is there, with everything that was asked of it. `lacking`: its user has to link it; may block.
  using Good = std::function<absl::Status(const Ask&, const SharedConnection&)>;
  using Lacking = std::function<absl::Status(const Ask&)>;

  // Fills the ask in from what is configured.
  absl::Status Prepare(const std::string& app_slug, Ask& ask) const;
  // Looks further than memory.
  void Look(const AskPtr& ask);
  void Judge(const AskPtr& ask, const absl::StatusOr<SharedConnection>& view);
  // Where the user links the account, on record.
  absl::Status AskForLink(const Ask& ask) const;
  // Runs it on a thread that may block, unless the caller has gone by then.
  void Behind(const AskPtr& ask, std::function<void()> task);
  absl::Status Give(const Ask& ask, const ConnectionView& view, v1::GetTokenResponse* response) const;

  const ControlStream& control_;
  SecretReader& secrets_;
  Connections& connections_;
  PlatformAccounts& accounts_;
  DeferredAudit& audit_;
  TaskRunner& runner_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker

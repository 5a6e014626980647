// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include <grpcpp/channel.h>

#include "common/clock.h"
#include "common/mutex.h"
#include "common/rpc/control_stream.h"
#include "sallyport/registry/v1/registry.grpc.pb.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/due_lane.h"
#include "services/token_broker/invalidations.h"
#include "services/token_broker/task_runner.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Deleted apps, which the registry keeps until their users' tokens are revoked: turns all of their connections into
// revocations, and tells the registry (FinishApp) when none is left. Every step may be done by several replicas and
// repeated after a restart. Thread-safe.
class EndingApps {
 public:
  // All outlive this. `lane`: where revocations are worked on.
  EndingApps(const std::shared_ptr<grpc::Channel>& registry, const ControlStream& control, VaultClient& vault,
             Invalidations& invalidations, DueLane& lane, const AuditLog& audit, const Clock& clock);

  // Looks after them behind the caller, for as long as there is one.
  void See(const RegistrySnapshot& snapshot);
  // One round, now. False if there is none any more.
  bool RunOnce();
  void Stop();

 private:
  void Schedule(absl::Duration delay);
  // True once nothing of it is left.
  absl::StatusOr<bool> OweAll(const registry::v1::App& app);
  absl::Status Tell(const registry::v1::App& app, const vault::v1::OweRevocationResponse& page);
  absl::Status Finish(const std::string& app_uid);

  std::unique_ptr<registry::v1::Registry::Stub> registry_;
  const ControlStream& control_;
  VaultClient& vault_;
  Invalidations& invalidations_;
  DueLane& lane_;
  const AuditLog& audit_;
  const Clock& clock_;
  Mutex mu_;
  bool scheduled_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  TaskRunner runner_{1, 10};
};

}  // namespace sallyport::token_broker

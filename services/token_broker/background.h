// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>

#include "common/clock.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "services/token_broker/connections.h"
#include "services/token_broker/refresher.h"
#include "services/token_broker/revoker.h"
#include "services/token_broker/task_runner.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Work that nobody calls for, taken from the vault's ListDue: refresh tokens that would die of idleness, revocations
// that are still owed, pending links that were abandoned. Each record is touched with a maintenance passport of its
// own. Replicas take turns by the records' leases.
class Background {
 public:
  // All outlive this; `runner` must be stopped before this is destroyed.
  Background(const std::shared_ptr<grpc::Channel>& authn, VaultClient& vault, Connections& connections,
             Refresher& refresher, Revoker& revoker, TaskRunner& runner, const Clock& clock, absl::Duration interval);

  // Rounds begin, `interval` apart with jitter.
  void Start();
  void Stop() { stopping_ = true; }
  // One round, now. For tests. Number of records taken up.
  int RunOnce();

 private:
  void Schedule();
  int RunKind(const std::string& kind);
  // Makes it due again in `delay`: what cannot be done now must not stand before what can.
  void PutOff(const vault::v1::RecordMetadata& metadata, const std::string& passport, absl::Duration delay);
  absl::StatusOr<std::string> Mint(const vault::v1::RecordName& record,
                                   authn::v1::MintMaintenancePassportRequest::Purpose purpose);
  void Take(const vault::v1::RecordMetadata& metadata);

  std::unique_ptr<authn::v1::Authn::Stub> authn_;
  VaultClient& vault_;
  Connections& connections_;
  Refresher& refresher_;
  Revoker& revoker_;
  TaskRunner& runner_;
  const Clock& clock_;
  const absl::Duration interval_;
  std::atomic<bool> stopping_{false};
};

}  // namespace sallyport::token_broker

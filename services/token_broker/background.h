// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>

#include "common/clock.h"
#include "services/token_broker/connections.h"
#include "services/token_broker/refresher.h"
#include "services/token_broker/revoker.h"
#include "services/token_broker/task_runner.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Work that nobody calls for, taken from the vault's ListDue: refresh tokens that would die of idleness, revocations
// that are still owed, pending links that were abandoned. No user is calling, so the vault gives nothing but a lease,
// and that only on a record that is due. Replicas take turns by these leases.
class Background {
 public:
  // All outlive this; `runner` must be stopped before this is destroyed.
  Background(VaultClient& vault, Connections& connections, Refresher& refresher, Revoker& revoker, TaskRunner& runner,
             const Clock& clock, absl::Duration interval);

  // Rounds begin, `interval` apart with jitter.
  void Start();
  void Stop() { stopping_ = true; }
  // One round, now. For tests. Number of records taken up.
  int RunOnce();

 private:
  void Schedule();
  int RunKind(const std::string& kind);
  // Makes it due again in `delay`: what cannot be done now must not stand before what can.
  void PutOff(const vault::v1::RecordMetadata& metadata, absl::Duration delay);
  void Take(const vault::v1::RecordMetadata& metadata);

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

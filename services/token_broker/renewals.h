// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "services/token_broker/app_pauses.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/connections.h"
#include "services/token_broker/invalidations.h"
#include "services/token_broker/refresher.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// What a connection that is due needs: to be renewed, so that its refresh token does not die of idleness; to be ended,
// for its user has not used it for too long; or, if an earlier release left it in state REVOKE_PENDING, to become a
// revocation that is owed. Thread-safe, blocking.
class Renewals {
 public:
  // All outlive this. `idle_revoke_after`: infinite if no connection is ended for not being used.
  Renewals(VaultClient& vault, Connections& connections, Refresher& refresher, Invalidations& invalidations,
           const AuditLog& audit, const Clock& clock, absl::Duration idle_revoke_after);

  // False if it was left as it is.
  bool Work(const vault::v1::RecordMetadata& due);
  // Apps that are left alone for now.
  const AppPauses& pauses() const { return pauses_; }

 private:
  using Lease = vault::v1::AcquireLeaseResponse::Lease;

  // Nothing if it is not due any more, or somebody is at it.
  absl::StatusOr<Lease> Acquire(const vault::v1::RecordName& record);
  bool IsIdle(const vault::v1::RecordMetadata& metadata) const;
  bool Renew(const vault::v1::RecordMetadata& due);
  // The tokens become a revocation that is owed; with `audited`, by this decision.
  bool Owe(const vault::v1::RecordMetadata& due, bool audited);
  // Makes it due again in `delay`: what cannot be done now must not stand before what can.
  void PutOff(const vault::v1::RecordName& record, absl::Duration delay);
  void PutOff(const Lease& lease, absl::Duration delay);

  VaultClient& vault_;
  Connections& connections_;
  Refresher& refresher_;
  Invalidations& invalidations_;
  const AuditLog& audit_;
  const Clock& clock_;
  const absl::Duration idle_revoke_after_;
  AppPauses pauses_;
};

}  // namespace sallyport::token_broker

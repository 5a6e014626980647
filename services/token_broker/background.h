// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"

#include "common/clock.h"
#include "services/token_broker/app_pauses.h"
#include "services/token_broker/due_lane.h"
#include "services/token_broker/renewals.h"
#include "services/token_broker/revocations.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Work that nobody calls for, each sort in a lane of its own: refresh tokens that would die of idleness, revocations
// that are still owed, pending links that were abandoned. No user is calling, so the vault gives nothing but a lease,
// and that only on a record that is due.
class Background {
 public:
  // All outlive this. `interval`: between rounds of a lane.
  Background(VaultClient& vault, Renewals& renewals, Revocations& revocations, const Clock& clock,
             absl::Duration interval);

  void Start();
  // Takes nothing up from now on.
  void StopTaking();
  // StopTaking, and waits for what goes on; the refresher must have been shut down before.
  void Stop();
  // One round of each lane, now. For tests. Number of records worked on.
  int RunOnce();

  DueLane& revocations() { return revocations_; }

 private:
  // Where nothing is left alone.
  const AppPauses none_;
  DueLane renewals_;
  DueLane revocations_;
  DueLane links_;
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"

#include "common/caller/caller.h"
#include "common/clock.h"
#include "common/sql/sql.h"
#include "sallyport/vault/v1/vault.pb.h"
#include "services/vault/audit_trail.h"
#include "services/vault/keyring.h"

namespace sallyport::vault {

// The methods of sallyport.vault.v1.VaultAdmin: nothing here reveals anything. Thread-safe.
class VaultAdmin {
 public:
  VaultAdmin(Database& database, Keyring& keyring, AuditTrail& trail, const Clock& clock)
      : database_(database), keyring_(keyring), trail_(trail), clock_(clock) {
    NoteRemaining();
  }

  // Answers while sealed, too.
  absl::StatusOr<v1::GetStatusResponse> GetStatus();
  absl::StatusOr<v1::RotateTermResponse> RotateTerm(const Caller& caller);
  // At most 2,000 data keys a call: `remaining` says whether to call again.
  absl::StatusOr<v1::RewrapResponse> Rewrap(const Caller& caller);
  absl::StatusOr<v1::DestroyTermResponse> DestroyTerm(const Caller& caller, const v1::DestroyTermRequest& request);
  absl::StatusOr<v1::SealResponse> Seal(const Caller& caller);

 private:
  // Into the metric, which is there from the start.
  void NoteRemaining();

  Database& database_;
  Keyring& keyring_;
  AuditTrail& trail_;
  const Clock& clock_;
};

}  // namespace sallyport::vault

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/caller/passport.h"
#include "common/clock.h"
#include "sallyport/token_broker/v1/sign_ins.pb.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/ended_subjects.h"
#include "services/token_broker/invalidations.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Keeps what authn hands over after a sign-in, as a connection "sso:<connector>" of the person. Thread-safe, blocking.
class SignInStore {
 public:
  // All outlive this. `idle_refresh`: when tokens that nobody uses are renewed.
  SignInStore(VaultClient& vault, Invalidations& invalidations, const EndedSubjects& ended, const AuditLog& audit,
              const Clock& clock, absl::Duration idle_refresh)
      : vault_(vault),
        invalidations_(invalidations),
        ended_(ended),
        audit_(audit),
        clock_(clock),
        idle_refresh_(idle_refresh) {}

  // PERMISSION_DENIED reason passport_mismatch without a passport of purpose sign_in, and if everything of the person
  // was ended meanwhile: then the tokens are revoked. Of more than the vault takes the ID token is left out: without it
  // the access token can still be forwarded, and renewed.
  absl::StatusOr<v1::StoreTokensResponse> Store(const v1::StoreTokensRequest& request,
                                                const std::optional<Passport>& passport);

 private:
  // The background makes a revocation of what `put` has stored.
  absl::Status Undo(vault::v1::PutRequest put, const Passport& passport);
  absl::Status RecordConsent(const v1::StoreTokensRequest& request, const ConnectionKey& key,
                             const vault::v1::PutResponse& stored) const;

  VaultClient& vault_;
  Invalidations& invalidations_;
  const EndedSubjects& ended_;
  const AuditLog& audit_;
  const Clock& clock_;
  const absl::Duration idle_refresh_;
};

}  // namespace sallyport::token_broker

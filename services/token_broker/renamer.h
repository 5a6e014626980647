// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"

#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "sallyport/token_broker/v1/token_broker.pb.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/invalidations.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Gives a user's account of an app another label. Thread-safe, blocking.
class Renamer {
 public:
  // All outlive this.
  Renamer(const ControlStream& control, VaultClient& vault, Invalidations& invalidations, const AuditLog& audit,
          const Clock& clock)
      : control_(control), vault_(vault), invalidations_(invalidations), audit_(audit), clock_(clock) {}

  // Errors as in the proto; UNAVAILABLE while the connection is being renewed.
  absl::StatusOr<v1::RenameConnectionResponse> Rename(const v1::RenameConnectionRequest& request,
                                                      const Passport& passport);

 private:
  // From one name to the other: both are forgotten wherever they are kept.
  absl::Status Move(const ConnectionKey& from, const ConnectionKey& to, const Passport& passport);

  const ControlStream& control_;
  VaultClient& vault_;
  Invalidations& invalidations_;
  const AuditLog& audit_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker

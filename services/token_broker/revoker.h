// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/invalidations.h"
#include "services/token_broker/token_endpoint.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Ends connections: here at once, at the provider as soon as it can be reached (RFC 7009, refresh token first). Until
// then the record stays, in state REVOKE_PENDING and a generation of its own, so that no refresh in flight can bring it
// back. Thread-safe, blocking.
class Revoker {
 public:
  // All outlive this.
  Revoker(VaultClient& vault, TokenEndpoint& endpoint, Invalidations& invalidations, const Clock& clock)
      : vault_(vault), endpoint_(endpoint), invalidations_(invalidations), clock_(clock) {}

  struct Outcome {
    std::string revocation;  // "revoked", "pending" or "unsupported"
    int64_t generation = 0;
  };
  // NOT_FOUND if there is no connection. `provider` null: it cannot be had now, so revocation is pending.
  absl::StatusOr<Outcome> Disconnect(const ConnectionKey& key, const Provider* provider, const std::string& passport);

  // Another attempt at one that is REVOKE_PENDING. Given up after 7 days.
  // For as long as its lease lasts, and only if it is due.
  void Retry(const ConnectionKey& key, const Provider* provider);

 private:
  RevocationResult RevokeAt(const Provider& provider, const v1::TokenSet& tokens,
                            const google::protobuf::Map<std::string, std::string>& labels);
  absl::Status Forget(const ConnectionKey& key, int64_t version, const std::string& passport);

  VaultClient& vault_;
  TokenEndpoint& endpoint_;
  Invalidations& invalidations_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/invalidations.h"
#include "services/token_broker/revocations.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Ends one connection by its user's word: here at once, at the provider as soon as it answers. Its tokens become a
// revocation that is owed, and it a tombstone of a new generation, so that no refresh in flight can bring it back, and
// linking anew takes nothing off what is owed. Thread-safe, blocking.
class Revoker {
 public:
  // All outlive this.
  Revoker(VaultClient& vault, Invalidations& invalidations, Revocations& revocations, const Clock& clock)
      : vault_(vault), invalidations_(invalidations), revocations_(revocations), clock_(clock) {}

  struct Ended {
    std::string revocation;  // "revoked", "pending" or "unsupported": of everything that is owed of it.
    int64_t generation = 0;  // Of the tombstone; 0 if it had been ended before.
  };
  // `passport`: JWT of one of key.subject. The provider is asked before this returns. NOT_FOUND if there is no
  // connection, and nothing is owed of one.
  absl::StatusOr<Ended> Disconnect(const ConnectionKey& key, const std::string& passport);
  // Asks the provider about what the vault has owed in place of storing it. What is not done at once the lane does.
  void Revoke(const vault::v1::RecordMetadata& owed) { revocations_.Attempt(owed, /*insist=*/true); }

 private:
  // Before it ends: should this process die before it can tell, no replica serves it on.
  void Foretell(const ConnectionKey& key, const std::string& passport);

  VaultClient& vault_;
  Invalidations& invalidations_;
  Revocations& revocations_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker

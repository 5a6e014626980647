// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

#include "common/caller/passport.h"
#include "common/clock.h"
#include "sallyport/token_broker/v1/token_set.pb.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/revoker.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Accounts that were linked at the provider, and whose user has still to confirm them. Their tokens must not get lost,
// nor be used: they are a connection of the user's under a name that no label leads to, in state REVOKE_PENDING and due
// in 10 minutes. So they are revoked by whatever revokes: the background when nobody answers, the end of their user or
// app before. One for each user, app and label: a later one takes its place, and it is revoked. Thread-safe, blocking.
class WaitingLinks {
 public:
  // All outlive this.
  WaitingLinks(VaultClient& vault, Revoker& revoker, const Clock& clock)
      : vault_(vault), revoker_(revoker), clock_(clock) {}

  struct Waiting {
    v1::TokenSet tokens;
    std::string bound_to;  // Label kBoundTo.
    int64_t version = 0;
  };
  // `key`: of the connection that it will be. For this session only. Its version. PERMISSION_DENIED if everything of
  // the user has ended since the passport was made: the tokens are revoked then.
  absl::StatusOr<int64_t> Keep(const ConnectionKey& key, const Waiting& waiting, const Passport& passport);
  // NOT_FOUND: there is none, it was answered already, its time is up, or another session's is.
  absl::StatusOr<Waiting> Find(const ConnectionKey& key, const Passport& passport);
  // Find, once: nobody else gets it. ABORTED if it is not `version` any more.
  absl::StatusOr<Waiting> Take(const ConnectionKey& key, int64_t version, const Passport& passport);
  // Revokes it: at once, or as soon as the provider answers. NOT_FOUND if there is none.
  absl::Status Refuse(const ConnectionKey& key, const Passport& passport);

 private:
  VaultClient& vault_;
  Revoker& revoker_;
  const Clock& clock_;
};

}  // namespace sallyport::token_broker

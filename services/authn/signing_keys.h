// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/jose/jwk.h"
#include "common/mutex.h"
#include "services/authn/vault_client.h"

namespace sallyport::authn {

// ES256 keys that sign access tokens and passports. They live in one vault record (SYSTEM "authn", signing_key,
// "keyset") that replicas change by compare-and-set, and in memory here.
//   next      published 24 h before use
//   active    signs, for 30 days
//   previous  verifies until the longest token life + 1 h after it stopped signing
struct SigningKey {
  std::shared_ptr<const PrivateKey> key;  // Its kid is the RFC 7638 thumbprint.
  absl::Time created_at = absl::InfinitePast();
  // InfiniteFuture until it became active / stopped being so.
  absl::Time active_at = absl::InfiniteFuture();
  absl::Time retired_at = absl::InfiniteFuture();
};

class SigningKeys {
 public:
  // `longest_token`: life of the longest-lived token signed.
  SigningKeys(VaultClient& vault, absl::Duration longest_token) : vault_(vault), longest_token_(longest_token) {}

  // Loads the keyset, makes the first key, moves keys on when due. Called at start and
  // every few seconds: the vault is asked every 10 min, or at once while there are no keys yet.
  // UNAVAILABLE while the vault is; keys held stay in use.
  absl::Status Refresh(absl::Time now);

  // The key that signs. UNAVAILABLE (reason "keys_unavailable") until the first Refresh succeeded.
  absl::StatusOr<std::shared_ptr<const PrivateKey>> Active() const;
  // Public halves of all three states, by kid. UNAVAILABLE until loaded.
  absl::StatusOr<JwkSet> PublicKeys() const;
  // The same as a document (RFC 7517 section 5).
  absl::StatusOr<std::string> Jwks() const;

 private:
  struct Loaded;
  absl::Status Store(const std::vector<SigningKey>& keys, int64_t expected_version);
  void Use(std::vector<SigningKey> keys, absl::Time now);
  std::shared_ptr<const Loaded> Current() const;

  VaultClient& vault_;
  const absl::Duration longest_token_;
  mutable Mutex mu_;
  std::shared_ptr<const Loaded> loaded_ ABSL_GUARDED_BY(mu_);
};

// Pure: what the keyset becomes at `now`. Empty `keys` give one active key. Unchanged if nothing is due.
absl::StatusOr<std::vector<SigningKey>> AdvanceKeyset(const std::vector<SigningKey>& keys, absl::Duration longest_token,
                                                      absl::Time now);

}  // namespace sallyport::authn

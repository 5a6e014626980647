// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/mutex.h"
#include "services/authn/vault_client.h"

namespace sallyport::authn {

// A key that binds Mcp-Session-Id to its user.
struct EdgeKey {
  std::string key;  // 32 bytes.
  absl::Time created_at = absl::InfinitePast();
};

inline constexpr absl::Duration kEdgeKeyRotation = absl::Hours(24);
// A new key verifies for this long before it signs, so that every edge has it by then.
inline constexpr absl::Duration kEdgeKeyNotice = absl::Hours(1);
inline constexpr absl::Duration kEdgeKeyRefresh = absl::Minutes(30);

// Pure. Keys at `now`: a new one (`fresh`, 32 random bytes) when the newest is due, without those whose successor has
// signed for a rotation. The key that signs comes first.
std::vector<EdgeKey> AdvanceEdgeKeys(std::vector<EdgeKey> keys, const std::string& fresh, absl::Time now);

// The keys in one vault record (SYSTEM "authn", session_key, "edge"), changed by compare-and-set. Thread-safe.
class EdgeKeys {
 public:
  explicit EdgeKeys(VaultClient& vault) : vault_(vault) {}

  struct Answer {
    std::vector<std::string> keys;
    absl::Time refresh_after;
  };
  // From memory for a minute, else from the vault. UNAVAILABLE while the vault is, unless keys are held.
  absl::StatusOr<Answer> Get(absl::Time now);

 private:
  absl::StatusOr<std::vector<EdgeKey>> Load(absl::Time now);

  VaultClient& vault_;
  Mutex mu_;
  std::vector<EdgeKey> keys_ ABSL_GUARDED_BY(mu_);
  absl::Time loaded_at_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
};

}  // namespace sallyport::authn

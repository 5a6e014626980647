// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "common/secret.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Static secrets at the version the configuration pins, kept in memory for 5 minutes: what stands under one version
// never changes, but a vault that was sealed must be noticed. Thread-safe, blocking.
class SecretReader {
 public:
  // Both outlive this.
  SecretReader(VaultClient& vault, const Clock& clock) : vault_(vault), clock_(clock) {}

  // `version` 0 is the head and is not kept. FAILED_PRECONDITION reason credential_missing if there is none.
  absl::StatusOr<std::shared_ptr<const Secret>> Read(const vault::v1::RecordName& record, int64_t version);
  // Forgets a record, by its name.
  void Invalidate(const std::string& name);

 private:
  struct Entry {
    std::shared_ptr<const Secret> secret;
    absl::Time until;
  };
  static constexpr size_t kMaxEntries = 4096;

  VaultClient& vault_;
  const Clock& clock_;
  Mutex mu_;
  // Key: kind, name, version.
  std::map<std::pair<std::string, int64_t>, Entry> entries_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker

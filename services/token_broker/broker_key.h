// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "absl/status/statusor.h"

#include "common/mutex.h"
#include "common/secret.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// The key behind what the broker hands out and must recognise again (links, request states): one for all replicas, made
// by whichever comes first, kept in the vault. Thread-safe, blocking on first use.
class BrokerKey {
 public:
  // Outlives this.
  explicit BrokerKey(VaultClient& vault) : vault_(vault) {}

  // 32 bytes for one purpose.
  absl::StatusOr<Secret> For(absl::string_view purpose);

 private:
  absl::StatusOr<std::shared_ptr<const Secret>> Root();

  VaultClient& vault_;
  Mutex mu_;
  std::shared_ptr<const Secret> root_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/service_main.h"
#include "sallyport/config/v1/services.pb.h"

namespace sallyport::vault {

// Channels to the services this one calls; they need not be up when it starts.
struct VaultPeers {
  std::shared_ptr<grpc::Channel> authn;     // Keys that verify passports. Null: no passport verifies.
  std::shared_ptr<grpc::Channel> registry;  // Where audit events are shipped. Null: they wait in the outbox.
};

// INVALID_ARGUMENT naming each field that is missing or wrong. In-process callers need no `server`.
absl::Status ValidateVaultConfig(const config::v1::VaultConfig& config);

// The same for a process of its own, which needs a listener with mTLS, authn and the public URL as well.
absl::Status ValidateSplitConfig(const config::v1::VaultConfig& config);

// The whole service. Starts sealed or active: which one Ready() tells.
class VaultServer final : public RunningService {
 public:
  // Fails if the store cannot be opened or the port be bound. `clock` must outlive it.
  static absl::StatusOr<std::unique_ptr<VaultServer>> Start(const config::v1::VaultConfig& config, const Clock& clock,
                                                            const VaultPeers& peers);
  ~VaultServer() override;

  // A channel on which `caller` ("token_broker") is who calls.
  std::shared_ptr<grpc::Channel> InProcessChannel(const std::string& caller);
  int port() const;  // 0 if not on the network.
  // UNAVAILABLE vault_sealed while sealed; tries to unseal.
  absl::Status Ready() const override;
  void SetServing(bool serving) override;
  void Shutdown(absl::Duration grace) override;

 private:
  VaultServer() = default;
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// For main: channels to the peers named in the configuration.
absl::StatusOr<std::unique_ptr<RunningService>> StartVault(const config::v1::VaultConfig& config, const Clock& clock);

}  // namespace sallyport::vault

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/rpc/server.h"
#include "common/service_main.h"
#include "sallyport/config/v1/services.pb.h"

namespace sallyport::registry {

struct RegistryPeers {
  std::shared_ptr<grpc::Channel> vault;
  std::shared_ptr<grpc::Channel> authn;
};

// INVALID_ARGUMENT naming the fields. In-process callers need no `server`.
absl::Status ValidateRegistryConfig(const config::v1::RegistryConfig& config);

// The same for a process of its own, which needs a listener with mTLS and its peers as well.
absl::Status ValidateSplitConfig(const config::v1::RegistryConfig& config);

// The registry with its listeners and background work.
class RegistryServer final : public RunningService {
 public:
  // Opens and migrates the database; peers need not be up yet.
  static absl::StatusOr<std::unique_ptr<RegistryServer>> Start(const config::v1::RegistryConfig& config,
                                                               const Clock& clock, const RegistryPeers& peers);
  ~RegistryServer() override;
  std::shared_ptr<grpc::Channel> InProcessChannel(const std::string& caller);
  // Connects a channel that a service which started earlier already holds.
  void Attach(const std::string& caller, InProcessLink& link);
  int port() const;
  absl::Status Ready() const override;
  void SetServing(bool serving) override;
  void Shutdown(absl::Duration grace) override;

 private:
  RegistryServer() = default;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sallyport::registry

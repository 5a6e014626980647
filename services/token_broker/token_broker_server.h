// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/rpc/server.h"
#include "common/service_main.h"
#include "sallyport/config/v1/services.pb.h"

namespace sallyport::token_broker {

// Channels to the services this one calls; they need not be up when it starts.
struct BrokerPeers {
  std::shared_ptr<grpc::Channel> registry;
  std::shared_ptr<grpc::Channel> authn;
  std::shared_ptr<grpc::Channel> vault;
};

// INVALID_ARGUMENT naming each field that is missing or wrong. In-process callers need no `server`.
absl::Status ValidateTokenBrokerConfig(const config::v1::TokenBrokerConfig& config);

// The same for a process of its own, which needs a listener with mTLS and its peers as well.
absl::Status ValidateSplitConfig(const config::v1::TokenBrokerConfig& config);

// The whole service: TokenBroker and Web on its listeners, the control stream, background work, audit.
class TokenBrokerServer final : public RunningService {
 public:
  // Fails if the audit directory cannot be used or the port be bound. `clock` outlives it.
  static absl::StatusOr<std::unique_ptr<TokenBrokerServer>> Start(const config::v1::TokenBrokerConfig& config,
                                                                  const Clock& clock, const BrokerPeers& peers);
  ~TokenBrokerServer() override;

  // A channel on which `caller` ("edge") is who calls.
  std::shared_ptr<grpc::Channel> InProcessChannel(const std::string& caller);
  // Lets calls on a channel made before go.
  void Attach(const std::string& caller, InProcessLink& link);
  int port() const;           // 0 if not on the network.
  int platform_port() const;  // Where platforms ask for tokens; 0 if nowhere.
  // UNAVAILABLE until the configuration has come.
  absl::Status Ready() const override;
  void SetServing(bool serving) override;
  // No refresh begins from now on. To be called first where other services are stopped before this one.
  void StopTaking();
  // Refuses new work, lets refreshes that have asked a provider store the answer (up to twice `grace`, 20 s at most).
  void Shutdown(absl::Duration grace) override;

 private:
  TokenBrokerServer() = default;
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// For main: channels to the peers named in the configuration.
absl::StatusOr<std::unique_ptr<RunningService>> StartTokenBroker(const config::v1::TokenBrokerConfig& config,
                                                                 const Clock& clock);

}  // namespace sallyport::token_broker

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

namespace sallyport::authn {

struct AuthnPeers {
  std::shared_ptr<grpc::Channel> registry;
  std::shared_ptr<grpc::Channel> vault;
  std::shared_ptr<grpc::Channel> token_broker;
};

// INVALID_ARGUMENT naming the fields. In-process callers need no `server`.
absl::Status ValidateAuthnConfig(const config::v1::AuthnConfig& config);

// The same for a process of its own, which needs a listener with mTLS and its peers as well.
absl::Status ValidateSplitConfig(const config::v1::AuthnConfig& config);

// Authn with its listeners (services Authn, Issuers, Platforms and Web) and background work.
class AuthnServer final : public RunningService {
 public:
  // Opens and migrates the database, reads connectors' files. Peers need not be up yet: until they are, Ready says what
  // is missing and RPCs that need it answer UNAVAILABLE.
  static absl::StatusOr<std::unique_ptr<AuthnServer>> Start(const config::v1::AuthnConfig& config, const Clock& clock,
                                                            const AuthnPeers& peers);
  ~AuthnServer() override;

  // What "edge", "token_broker", "registry" or "vault" calls authn by, in the same process.
  std::shared_ptr<grpc::Channel> InProcessChannel(const std::string& caller);
  // Connects a channel that a service which started earlier already holds.
  void Attach(const std::string& caller, InProcessLink& link);
  int port() const;
  absl::Status Ready() const override;
  void SetServing(bool serving) override;
  void Shutdown(absl::Duration grace) override;

 private:
  AuthnServer();
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sallyport::authn

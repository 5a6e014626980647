// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <grpcpp/channel.h>

#include "common/audit/segment.h"
#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/rpc/control_stream.h"
#include "sallyport/config/v1/services.pb.h"
#include "services/token_broker/accounts.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/broker_key.h"
#include "services/token_broker/connections.h"
#include "services/token_broker/secret_reader.h"

namespace sallyport::token_broker {

// INVALID_ARGUMENT naming each field that is missing or wrong.
absl::Status ValidatePlatformListener(const config::v1::PlatformListener& config);

// Where internal platforms ask for tokens (platform.proto), with everything that only they need: a listener, threads,
// what is known of callers, and records.
class PlatformListener {
 public:
  // All outlive this.
  struct Parts {
    const ControlStream& control;
    SecretReader& secrets;
    Connections& connections;
    Accounts& accounts;
    BrokerKey& key;
    const PassportVerifier& verifier;
    AuditSegments* segments;
    const AuditLog& audit;
    const Clock& clock;
  };
  // Fails if the port cannot be bound.
  static absl::StatusOr<std::unique_ptr<PlatformListener>> Start(const config::v1::PlatformListener& config,
                                                                 const std::string& public_url,
                                                                 const std::shared_ptr<grpc::Channel>& authn,
                                                                 const Parts& parts);
  ~PlatformListener();

  int port() const;
  void SetServing(bool serving);
  // On the control stream's thread.
  void Obey(const ControlUpdate& update);
  // Lets calls end for `grace`, then writes what is to be recorded.
  void Shutdown(absl::Duration grace);

 private:
  PlatformListener() = default;
  struct State;
  std::unique_ptr<State> state_;
};

// The metric of platforms is there from the start, whether or not there is a listener.
void ShowPlatformMetrics();

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/service_main.h"
#include "sallyport/config/v1/services.pb.h"

namespace sallyport::standalone {

// What each service of the suite runs with, all derived from one configuration.
struct ServiceConfigs {
  config::v1::VaultConfig vault;
  config::v1::RegistryConfig registry;
  config::v1::AuthnConfig authn;
  config::v1::TokenBrokerConfig token_broker;
  config::v1::EdgeConfig edge;
};
ServiceConfigs DeriveConfigs(const config::v1::StandaloneConfig& config);

// INVALID_ARGUMENT naming the fields.
absl::Status ValidateStandaloneConfig(const config::v1::StandaloneConfig& config);

// The whole suite in this process: embedded stores in one data directory, in-process channels between the services (one
// server per caller, so that who calls is known).
absl::StatusOr<std::unique_ptr<RunningService>> StartStandalone(const config::v1::StandaloneConfig& config,
                                                                const Clock& clock);

}  // namespace sallyport::standalone

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/http/client.h"
#include "common/http/networks.h"
#include "sallyport/config/v1/services.pb.h"

// What the configuration says, as the parts of the broker take it.
namespace sallyport::token_broker {

inline constexpr char kBacklogLimit[] = "auditBacklogLimit";

// InfiniteDuration: unused connections are not ended.
absl::Duration IdleRevokeAfter(const config::v1::TokenBrokerConfig& config);
absl::StatusOr<EgressPolicy> PolicyFrom(const config::v1::Deployment& deployment);
// `clock` outlives it.
absl::StatusOr<std::unique_ptr<HttpClient>> MakeHttpClient(const config::v1::Deployment& deployment,
                                                           const EgressPolicy& policy, const Clock& clock);

}  // namespace sallyport::token_broker

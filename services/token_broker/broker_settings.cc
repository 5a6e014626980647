// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/broker_settings.h"

#include <string>
#include <utility>
#include <vector>

#include "common/audit/segment.h"
#include "common/config/egress.h"
#include "common/config/service_config.h"
#include "common/error.h"
#include "common/files.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/token_broker/platform/platform_listener.h"
#include "services/token_broker/redis_settings.h"
#include "services/token_broker/refresh_flight.h"
#include "services/token_broker/token_broker_server.h"

namespace sallyport::token_broker {
namespace {

absl::Status ValidateIdle(const config::v1::TokenBrokerConfig& config) {
  const absl::Duration refresh =
      config.has_idle_refresh() ? FromProtoDuration(config.idle_refresh()) : RefreshFlight::Options().idle_refresh;
  std::vector<absl::Status> checks;
  if (refresh < absl::Hours(1)) {
    checks.push_back(InvalidField("idleRefresh", "must be at least 1h"));
  }
  if (IdleRevokeAfter(config) < absl::Hours(24)) {
    checks.push_back(InvalidField("idleRevokeAfter", "must be at least 24h"));
  } else if (IdleRevokeAfter(config) <= refresh) {
    // Nobody looks sooner.
    checks.push_back(InvalidField("idleRevokeAfter", "must be longer than idleRefresh (168h unless it is set)"));
  }
  return MergeViolations(checks);
}

}  // namespace

absl::Duration IdleRevokeAfter(const config::v1::TokenBrokerConfig& config) {
  return config.has_idle_revoke_after() ? FromProtoDuration(config.idle_revoke_after()) : absl::InfiniteDuration();
}

absl::StatusOr<EgressPolicy> PolicyFrom(const config::v1::Deployment& deployment) {
  const auto& texts = deployment.egress().oauth_networks();
  ASSIGN_OR_RETURN(std::vector<Network> networks,
                   ParseNetworks({texts.begin(), texts.end()}, "deployment.egress.oauthNetworks"));
  ASSIGN_OR_RETURN(auto proxy, EgressProxyFrom(deployment.egress()));
  return EgressPolicy(std::move(networks), EgressPolicy::PlainHttp::kLoopback, std::move(proxy));
}

absl::StatusOr<std::unique_ptr<HttpClient>> MakeHttpClient(const config::v1::Deployment& deployment,
                                                           const EgressPolicy& policy, const Clock& clock) {
  HttpClient::Options options;
  options.policy = policy;
  options.ca_bundle = deployment.egress().ca_bundle();
  options.gate.max_in_flight = 64;
  options.gate.open_for = absl::Seconds(5);
  options.clock = &clock;
  return HttpClient::Create(std::move(options));
}

absl::Status ValidateTokenBrokerConfig(const config::v1::TokenBrokerConfig& config) {
  std::vector<absl::Status> checks = {ValidateDeployment(config.deployment()),
                                      CheckEgressFiles(config.deployment().egress())};
  if (config.data_directory().empty()) {
    checks.push_back(InvalidField("dataDirectory", "is required: the directory of the audit segments"));
  }
  if (config.has_redis()) {
    checks.push_back(ValidateRedis(config.redis()));
  }
  if (config.has_platform()) {
    checks.push_back(ValidatePlatformListener(config.platform()));
  }
  checks.push_back(ValidateIdle(config));
  checks.push_back(AuditSegments::MaxBytesFrom(config.audit_backlog_limit(), kBacklogLimit).status());
  return MergeViolations(checks);
}

absl::Status ValidateSplitConfig(const config::v1::TokenBrokerConfig& config) {
  return MergeViolations({ValidateTokenBrokerConfig(config), ValidateServer(config.server()),
                          ValidatePeers(config.peers(), {"registry", "authn", "vault"})});
}

}  // namespace sallyport::token_broker

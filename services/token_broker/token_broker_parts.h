// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#include "common/audit/segment.h"
#include "common/audit/shipper.h"
#include "common/caller/caller.h"
#include "common/caller/passport.h"
#include "common/http/client.h"
#include "common/metrics.h"
#include "common/redis/client.h"
#include "common/rpc/control_stream.h"
#include "common/rpc/server.h"
#include "services/token_broker/account_identity.h"
#include "services/token_broker/accounts.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/background.h"
#include "services/token_broker/broker_key.h"
#include "services/token_broker/connections.h"
#include "services/token_broker/ended_subjects.h"
#include "services/token_broker/ending_apps.h"
#include "services/token_broker/endings.h"
#include "services/token_broker/http_token_endpoint.h"
#include "services/token_broker/invalidations.h"
#include "services/token_broker/linker.h"
#include "services/token_broker/platform/platform_listener.h"
#include "services/token_broker/providers.h"
#include "services/token_broker/refresher.h"
#include "services/token_broker/renamer.h"
#include "services/token_broker/renewals.h"
#include "services/token_broker/resolver.h"
#include "services/token_broker/revocations.h"
#include "services/token_broker/revoker.h"
#include "services/token_broker/secret_reader.h"
#include "services/token_broker/sign_in_store.h"
#include "services/token_broker/sign_ins.h"
#include "services/token_broker/sources/fetch_lanes.h"
#include "services/token_broker/sources/sign_in_token.h"
#include "services/token_broker/sources/sources.h"
#include "services/token_broker/sources/token_client.h"
#include "services/token_broker/task_runner.h"
#include "services/token_broker/token_broker_server.h"
#include "services/token_broker/token_cache.h"
#include "services/token_broker/user_credentials.h"
#include "services/token_broker/waiting_links.h"
#include "services/token_broker/web_pages.h"

namespace sallyport::token_broker {

// Members are destroyed from the last to the first: what is used stands before what uses it.
struct TokenBrokerServer::Parts {
  std::unique_ptr<AuditSegments> segments;
  std::unique_ptr<AuditShipper> shipper;
  std::unique_ptr<AuditLog> audit;
  std::unique_ptr<PassportVerifier> verifier;
  std::unique_ptr<CallGuard> guard;
  std::unique_ptr<HttpClient> http;
  std::unique_ptr<RedisClient> redis;
  std::unique_ptr<VaultClient> vault;
  std::unique_ptr<ControlStream> control;
  std::unique_ptr<SecretReader> secrets;
  std::unique_ptr<Providers> providers;
  std::unique_ptr<HttpTokenEndpoint> endpoint;
  std::unique_ptr<TokenCache> cache;
  std::unique_ptr<BrokerKey> key;
  // Requests: a thread each while it waits for the vault, started when there is none. What nobody waits for, and
  // refreshes, have threads of their own: neither a silent registry nor slow providers stand in a caller's way.
  std::unique_ptr<TaskRunner> runner;
  std::unique_ptr<TaskRunner> behind;
  std::unique_ptr<Invalidations> invalidations;
  std::unique_ptr<EndedSubjects> ended_subjects;
  std::unique_ptr<UserCredentials> user_credentials;
  std::unique_ptr<Refresher> refresher;
  std::unique_ptr<Connections> connections;
  std::unique_ptr<SignIns> sign_ins;
  std::unique_ptr<SignInStore> sign_in_store;
  std::unique_ptr<TokenClient> token_client;
  std::unique_ptr<FetchLanes> fetch_lanes;
  Sources sources;
  std::unique_ptr<TaskRunner> fetchers;  // After what its tasks use: it stops first.
  std::unique_ptr<Resolver> resolver;
  std::unique_ptr<Revocations> revocations;
  std::unique_ptr<Revoker> revoker;
  std::unique_ptr<AccountIdentity> account_identity;
  std::unique_ptr<WaitingLinks> waiting_links;
  std::unique_ptr<Linker> linker;
  std::unique_ptr<Accounts> accounts;
  std::unique_ptr<Renamer> renamer;
  std::unique_ptr<WebPages> pages;
  std::unique_ptr<Renewals> renewals;
  std::unique_ptr<Background> background;
  std::unique_ptr<EndingApps> ending_apps;
  std::unique_ptr<Endings> endings;
  std::unique_ptr<RedisSubscriber> doorbell;
  std::unique_ptr<RpcServer> server;
  std::unique_ptr<PlatformListener> platforms;
  std::atomic<bool> stopped{false};
  std::vector<std::unique_ptr<MetricProbe>> pool_probes;

  absl::Status Build(const config::v1::TokenBrokerConfig& config, const Clock& clock, const BrokerPeers& peers);
  absl::Status OpenAudit(const config::v1::TokenBrokerConfig& config, const Clock& clock, const BrokerPeers& peers);
  void AddSources(const Clock& clock);
  void AddBackground(const config::v1::TokenBrokerConfig& config, const Clock& clock, const BrokerPeers& peers);
  std::string AppNameOf(const std::string& connection) const;
  absl::Status ConnectRedis(const config::v1::TokenBrokerConfig& config);
  absl::Status Listen(const config::v1::TokenBrokerConfig& config, const Clock& clock);
  absl::Status ListenForPlatforms(const config::v1::TokenBrokerConfig& config, const Clock& clock,
                                  const BrokerPeers& peers);
  void Observe(const ConnectionKey& connection, const absl::StatusOr<SharedConnection>& result,
               const RefreshFlight::Report& report, const Clock& clock);
  void Obey(const ControlUpdate& update);
};

}  // namespace sallyport::token_broker

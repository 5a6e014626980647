// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/token_broker_server.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

#include "common/audit/segment.h"
#include "common/audit/shipper.h"
#include "common/config/egress.h"
#include "common/config/service_config.h"
#include "common/crypto/random.h"
#include "common/error.h"
#include "common/files.h"
#include "common/host_name.h"
#include "common/http/client.h"
#include "common/http/networks.h"
#include "common/json_log.h"
#include "common/proto_time.h"
#include "common/redis/client.h"
#include "common/rpc/control_stream.h"
#include "common/status_macros.h"
#include "services/token_broker/account_identity.h"
#include "services/token_broker/accounts.h"
#include "services/token_broker/audit_log.h"
#include "services/token_broker/background.h"
#include "services/token_broker/broker_key.h"
#include "services/token_broker/connections.h"
#include "services/token_broker/ended_subjects.h"
#include "services/token_broker/ending_apps.h"
#include "services/token_broker/endings.h"
#include "services/token_broker/endings_service.h"
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
#include "services/token_broker/sign_ins.h"
#include "services/token_broker/sources/exchanged_token.h"
#include "services/token_broker/sources/service_token.h"
#include "services/token_broker/sources/sign_in_token.h"
#include "services/token_broker/sources/sources.h"
#include "services/token_broker/sources/stored_credential.h"
#include "services/token_broker/sources/stored_secret.h"
#include "services/token_broker/sources/user_connection.h"
#include "services/token_broker/task_runner.h"
#include "services/token_broker/token_broker_service.h"
#include "services/token_broker/token_cache.h"
#include "services/token_broker/user_credentials.h"
#include "services/token_broker/waiting_links.h"
#include "services/token_broker/web_pages.h"

namespace sallyport::token_broker {
namespace {

constexpr char kBacklogLimit[] = "auditBacklogLimit";
constexpr absl::Duration kRefreshGrace = absl::Seconds(20);
// What waits at a time, and the threads of what nobody waits for.
constexpr size_t kMaxQueue = 20'000;
constexpr int kBehindThreads = 4;
constexpr int kFetcherThreads = 64;

// As the client has it: an IPv6 address stands without brackets.
absl::Status CheckRedisAddress(const std::string& address) {
  if (absl::StartsWith(address, "unix:/")) {
    return absl::OkStatus();
  }
  const size_t colon = address.rfind(':');
  uint32_t port = 0;
  if (colon == std::string::npos || colon == 0 || !absl::SimpleAtoi(address.substr(colon + 1), &port) || port < 1 ||
      port > 65535) {
    return InvalidField("redis.address", "must be host:port or unix:/path");
  }
  return absl::OkStatus();
}

absl::Status ValidateRedis(const config::v1::TokenBrokerConfig::Redis& redis) {
  std::vector<absl::Status> checks = {CheckRedisAddress(redis.address())};
  if (redis.has_timeout() && FromProtoDuration(redis.timeout()) <= absl::ZeroDuration()) {
    checks.push_back(InvalidField("redis.timeout", "must be more than nothing"));
  }
  if (!redis.username().empty() && redis.password_file().empty()) {
    checks.push_back(InvalidField("redis.passwordFile", "is required with a username"));
  }
  checks.push_back(CheckSecretFile("redis.passwordFile", redis.password_file()));
  return MergeViolations(checks);
}

absl::Duration IdleRevokeAfter(const config::v1::TokenBrokerConfig& config) {
  return config.has_idle_revoke_after() ? FromProtoDuration(config.idle_revoke_after()) : absl::InfiniteDuration();
}

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

absl::StatusOr<RedisOptions> RedisOptionsFrom(const config::v1::TokenBrokerConfig::Redis& redis) {
  RedisOptions options;
  options.address = redis.address();
  options.username = redis.username();
  if (redis.has_timeout()) {
    options.timeout = FromProtoDuration(redis.timeout());
  }
  if (!redis.password_file().empty()) {
    absl::StatusOr<Secret> password = ReadSecretFile(redis.password_file());
    if (!password.ok()) {
      return InvalidField("redis.passwordFile", password.status().message());
    }
    options.password = *std::move(password);
  }
  return options;
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

}  // namespace

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

  absl::Status Build(const config::v1::TokenBrokerConfig& config, const Clock& clock, const BrokerPeers& peers);
  absl::Status OpenAudit(const config::v1::TokenBrokerConfig& config, const Clock& clock, const BrokerPeers& peers);
  void AddSources(const Clock& clock);
  void AddBackground(const config::v1::TokenBrokerConfig& config, const Clock& clock, const BrokerPeers& peers);
  absl::Status ConnectRedis(const config::v1::TokenBrokerConfig& config);
  absl::Status Listen(const config::v1::TokenBrokerConfig& config, const Clock& clock);
  absl::Status ListenForPlatforms(const config::v1::TokenBrokerConfig& config, const Clock& clock,
                                  const BrokerPeers& peers);
  void Observe(const ConnectionKey& connection, const absl::StatusOr<SharedConnection>& result,
               const RefreshFlight::Report& report, const Clock& clock);
  void Obey(const ControlUpdate& update);
};

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

absl::Status TokenBrokerServer::Parts::OpenAudit(const config::v1::TokenBrokerConfig& config, const Clock& clock,
                                                 const BrokerPeers& peers) {
  AuditSegments::Options options;
  options.directory = absl::StrCat(config.data_directory(), "/audit");
  options.source = absl::StrCat("token_broker/", config.replica().empty() ? HostName("0") : config.replica());
  ASSIGN_OR_RETURN(options.max_bytes, AuditSegments::MaxBytesFrom(config.audit_backlog_limit(), kBacklogLimit));
  ASSIGN_OR_RETURN(segments, AuditSegments::Open(options, clock));
  audit = std::make_unique<AuditLog>(segments.get());
  AuditShipper::Options shipping;
  shipping.directory = options.directory;
  shipping.live_boot = segments->boot();
  shipping.max_bytes = options.max_bytes;
  shipper = std::make_unique<AuditShipper>(shipping, MakeAuditSink(peers.registry));
  return absl::OkStatus();
}

absl::Status TokenBrokerServer::Parts::ConnectRedis(const config::v1::TokenBrokerConfig& config) {
  if (!config.has_redis()) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(RedisOptions options, RedisOptionsFrom(config.redis()));
  ASSIGN_OR_RETURN(redis, RedisClient::Create(std::move(options)));
  return absl::OkStatus();
}

void TokenBrokerServer::Parts::Observe(const ConnectionKey& connection, const absl::StatusOr<SharedConnection>& result,
                                       const RefreshFlight::Report& report, const Clock& clock) {
  if (report.marked && result.ok()) {
    // Tokens of this very generation are no good either: name the one after it.
    invalidations->Connection(connection, (*result)->generation + 1, clock.Now());
  }
  if (!report.asked_provider && !report.adopted) {
    return;
  }
  AuditLog::Entry entry{.type = "credential.refreshed"};
  const bool good = report.renewed || report.adopted || report.further;
  entry.decision = good ? audit::v1::DECISION_ALLOWED : audit::v1::DECISION_FAILED;
  entry.rule = report.further   ? "further"
               : report.renewed ? "renewed"
               : report.adopted ? "adopted"
               : report.marked  ? "needs_user"
                                : "failed";
  entry.subject = connection.subject;
  if (result.ok()) {
    entry.credentials = {UseOf(connection.connection, (*result)->generation, (*result)->version)};
  }
  entry.details = {{"connection", connection.connection}};
  if (!report.failure.empty()) {
    entry.details.emplace_back("failure", report.failure);
  }
  if (!report.provider_error.empty() && report.provider_error != report.failure) {
    entry.details.emplace_back("provider_error", report.provider_error);
  }
  if (report.stray_revoked) {
    entry.details.emplace_back("stray", "revoked");
  } else if (report.stray_owed) {
    entry.details.emplace_back("stray", "owed");
  }
  // The refresh has happened; that its record is missing is logged and counted where it is written.
  audit->Record(entry).IgnoreError();
}

void TokenBrokerServer::Parts::Obey(const ControlUpdate& update) {
  if (update.full) {
    cache->Clear();
  }
  if (platforms != nullptr) {
    platforms->Obey(update);
  }
  if (update.full || update.config_changed) {
    providers->Examine(update.snapshot);
    revocations->Expect(*update.snapshot);
    ending_apps->See(*update.snapshot);
  }
  for (const registry::v1::Invalidation& invalidation : update.invalidations) {
    switch (invalidation.kind()) {
      case registry::v1::Invalidation::CONNECTION:
        cache->Invalidate(invalidation.key(), invalidation.generation());
        break;
      case registry::v1::Invalidation::SUBJECT:
        cache->InvalidateSubject(invalidation.key());
        if (invalidation.generation() > 0) {
          ended_subjects->Add(invalidation.key(), absl::FromUnixSeconds(invalidation.generation()));
        }
        break;
      case registry::v1::Invalidation::SECRET:
        secrets->Invalidate(invalidation.key());
        break;
      default:
        break;
    }
  }
}

absl::Status TokenBrokerServer::Parts::Build(const config::v1::TokenBrokerConfig& config, const Clock& clock,
                                             const BrokerPeers& peers) {
  const std::string& public_url = config.deployment().public_url();
  RETURN_IF_ERROR(OpenAudit(config, clock, peers));
  RETURN_IF_ERROR(ConnectRedis(config));
  ASSIGN_OR_RETURN(CallGuard call_guard, CallGuard::Create(TokenBrokerMethodTables()));
  guard = std::make_unique<CallGuard>(std::move(call_guard));
  verifier = std::make_unique<PassportVerifier>(public_url, std::make_unique<RpcKeySource>(peers.authn));
  ASSIGN_OR_RETURN(EgressPolicy policy, PolicyFrom(config.deployment()));
  ASSIGN_OR_RETURN(http, MakeHttpClient(config.deployment(), policy, clock));
  vault = MakeVaultClient(peers.vault);
  control = std::make_unique<ControlStream>(peers.registry, clock);
  secrets = std::make_unique<SecretReader>(*vault, clock);
  runner = std::make_unique<TaskRunner>(MaxThreads(config.server()), kMaxQueue);
  behind = std::make_unique<TaskRunner>(kBehindThreads, kMaxQueue);
  providers = std::make_unique<Providers>(peers.authn, *http, std::move(policy), *secrets, *behind, clock);
  endpoint = std::make_unique<HttpTokenEndpoint>(*http, clock);
  cache = std::make_unique<TokenCache>(*vault, redis.get(), clock);
  key = std::make_unique<BrokerKey>(*vault);
  invalidations = std::make_unique<Invalidations>(peers.registry, *cache, *behind);
  ended_subjects = std::make_unique<EndedSubjects>(clock);
  user_credentials = std::make_unique<UserCredentials>(*control, *vault, *invalidations, *audit, clock);
  Refresher::Options refreshing;
  if (config.has_idle_refresh()) {
    refreshing.flight.idle_refresh = FromProtoDuration(config.idle_refresh());
  }
  refreshing.flight.stays_due = IdleRevokeAfter(config) != absl::InfiniteDuration();
  refresher = std::make_unique<Refresher>(
      *vault, *endpoint, cache.get(), clock, refreshing,
      [this, &clock](const ConnectionKey& connection, const absl::StatusOr<SharedConnection>& result,
                     const RefreshFlight::Report& report) { Observe(connection, result, report, clock); });
  connections = std::make_unique<Connections>(*vault, *cache, *refresher, *providers, control.get(), clock);
  sign_ins = std::make_unique<SignIns>(peers.authn, *runner);
  sign_in_store = std::make_unique<SignInStore>(*vault, *invalidations, *ended_subjects, *audit, clock,
                                                refreshing.flight.idle_refresh);
  token_client = std::make_unique<TokenClient>(*secrets, *endpoint, clock);
  fetchers = std::make_unique<TaskRunner>(kFetcherThreads, kMaxQueue);
  fetch_lanes = std::make_unique<FetchLanes>(*fetchers, FetchLanes::Options{.max_waiting = kMaxQueue});
  AddSources(clock);
  resolver = std::make_unique<Resolver>(*control, sources, *audit, *runner, clock);
  revocations = std::make_unique<Revocations>(*vault, *control, *providers, *endpoint, *audit, clock);
  revoker = std::make_unique<Revoker>(*vault, *invalidations, *revocations, clock);
  account_identity = std::make_unique<AccountIdentity>(*http);
  ExpectAccountQuestions();
  waiting_links = std::make_unique<WaitingLinks>(*vault, *revoker, clock);
  linker = std::make_unique<Linker>(
      public_url, *vault, *secrets, *providers, *endpoint, *account_identity, *waiting_links, *revoker, *invalidations,
      *ended_subjects, *audit, clock,
      Linker::IdleTimes{.refresh = refreshing.flight.idle_refresh, .revoke_after = IdleRevokeAfter(config)});
  accounts = std::make_unique<Accounts>(public_url, *control, *vault, *key, *revoker, *providers, *user_credentials,
                                        *audit, clock);
  renamer = std::make_unique<Renamer>(*control, *vault, *invalidations, *audit, clock);
  pages = std::make_unique<WebPages>(public_url, *control, verifier.get(), *vault, *linker, *user_credentials, *key,
                                     *audit, clock);
  AddBackground(config, clock, peers);
  control->AddListener([this](const ControlUpdate& update) { Obey(update); });
  return absl::OkStatus();
}

void TokenBrokerServer::Parts::AddBackground(const config::v1::TokenBrokerConfig& config, const Clock& clock,
                                             const BrokerPeers& peers) {
  renewals = std::make_unique<Renewals>(*vault, *connections, *refresher, *invalidations, *audit, clock,
                                        IdleRevokeAfter(config));
  background = std::make_unique<Background>(*vault, *renewals, *revocations, clock, absl::Seconds(30));
  DueLane& lane = background->revocations();
  ending_apps = std::make_unique<EndingApps>(peers.registry, *control, *vault, *invalidations, lane, *audit, clock);
  endings = std::make_unique<Endings>(*control, *vault, *cache, *invalidations, *ended_subjects, *revocations, lane,
                                      *audit, clock);
}

// What a plan may name, and who gives it.
void TokenBrokerServer::Parts::AddSources(const Clock& clock) {
  using Piece = Plan::Piece;
  sources.Add(Piece::kLiteral, std::make_unique<LiteralSource>());
  sources.Add(Piece::kStoredSecret, std::make_unique<StoredSecretSource>(*secrets));
  sources.Add(Piece::kUserConnection, std::make_unique<UserConnectionSource>(*secrets, *connections, *runner, clock));
  sources.Add(Piece::kServiceToken,
              std::make_unique<ServiceTokenSource>(*secrets, *token_client, *fetch_lanes, cache.get(), clock));
  sources.Add(Piece::kStoredCredential, std::make_unique<StoredCredentialSource>(*secrets, *user_credentials, clock));
  auto sign_in_tokens = std::make_unique<SignInTokenSource>(*secrets, *connections, *sign_ins, *runner, clock);
  sources.Add(Piece::kExchangedToken,
              std::make_unique<ExchangedTokenSource>(*secrets, *token_client, *sign_in_tokens, *fetch_lanes, clock));
  sources.Add(Piece::kSignInToken, std::move(sign_in_tokens));
}

absl::Status TokenBrokerServer::Parts::Listen(const config::v1::TokenBrokerConfig& config, const Clock& clock) {
  RpcServer::Options options;
  if (!config.server().listen().empty()) {
    ASSIGN_OR_RETURN(options, RpcOptionsFrom(config.server()));
  }
  const auto factory = [this, &clock](const std::shared_ptr<const PeerIdentity>& peer) {
    RpcHandler::Options handler;
    handler.guard = guard.get();
    handler.peer = peer;
    handler.verifier = verifier.get();
    handler.clock = &clock;
    handler.service = "sallyport.token_broker.v1.TokenBroker";
    std::vector<std::unique_ptr<grpc::Service>> services;
    services.push_back(
        std::make_unique<TokenBrokerService>(handler, *resolver, *accounts, *renamer, *user_credentials));
    handler.service = "sallyport.token_broker.v1.SignIns";
    services.push_back(std::make_unique<SignInsService>(handler, *sign_in_store));
    handler.service = "sallyport.token_broker.v1.Endings";
    services.push_back(std::make_unique<EndingsService>(handler, *endings));
    handler.service = "sallyport.web.v1.Web";
    services.push_back(std::make_unique<WebService>(handler, *pages));
    return services;
  };
  ASSIGN_OR_RETURN(server, RpcServer::Start(options, factory));
  return absl::OkStatus();
}

absl::Status TokenBrokerServer::Parts::ListenForPlatforms(const config::v1::TokenBrokerConfig& config,
                                                          const Clock& clock, const BrokerPeers& peers) {
  ShowPlatformMetrics();
  if (!config.has_platform()) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(platforms, PlatformListener::Start(config.platform(), config.deployment().public_url(), peers.authn,
                                                      {*control, *secrets, *connections, *accounts, *key, *verifier,
                                                       segments.get(), *audit, clock}));
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<TokenBrokerServer>> TokenBrokerServer::Start(const config::v1::TokenBrokerConfig& config,
                                                                            const Clock& clock,
                                                                            const BrokerPeers& peers) {
  RETURN_IF_ERROR(ValidateTokenBrokerConfig(config));
  std::unique_ptr<TokenBrokerServer> broker(new TokenBrokerServer);
  broker->parts_ = std::make_unique<Parts>();
  Parts& parts = *broker->parts_;
  RETURN_IF_ERROR(parts.Build(config, clock, peers));
  if (config.has_redis()) {
    ASSIGN_OR_RETURN(RedisOptions options, RedisOptionsFrom(config.redis()));
    ASSIGN_OR_RETURN(parts.doorbell, RedisSubscriber::Start(
                                         std::move(options), TokenCache::kDoorbell,
                                         [&parts](const std::string& ring) { parts.refresher->Ring(ring); }, [] {}));
  }
  RETURN_IF_ERROR(parts.Listen(config, clock));
  RETURN_IF_ERROR(parts.ListenForPlatforms(config, clock, peers));
  parts.control->Start();
  parts.background->Start();
  return broker;
}

TokenBrokerServer::~TokenBrokerServer() {
  if (parts_ != nullptr) {
    Shutdown(absl::Seconds(1));
  }
}

void TokenBrokerServer::Attach(const std::string& caller, InProcessLink& link) { parts_->server->Attach(caller, link); }

std::shared_ptr<grpc::Channel> TokenBrokerServer::InProcessChannel(const std::string& caller) {
  return parts_->server->InProcessChannel(caller);
}

int TokenBrokerServer::port() const { return parts_->server->port(); }

int TokenBrokerServer::platform_port() const { return parts_->platforms == nullptr ? 0 : parts_->platforms->port(); }

absl::Status TokenBrokerServer::Ready() const {
  return parts_->control->has_snapshot() ? absl::OkStatus()
                                         : absl::UnavailableError("no configuration from the registry yet");
}

void TokenBrokerServer::SetServing(bool serving) {
  parts_->server->SetServing(serving);
  if (parts_->platforms != nullptr) {
    parts_->platforms->SetServing(serving);
  }
}

void TokenBrokerServer::StopTaking() {
  if (parts_->background != nullptr) {
    parts_->background->StopTaking();
  }
  if (parts_->refresher != nullptr) {
    parts_->refresher->StopTaking();
  }
}

void TokenBrokerServer::Shutdown(absl::Duration grace) {
  if (parts_->stopped.exchange(true)) {
    return;
  }
  const auto began = std::chrono::steady_clock::now();
  StopTaking();
  // Callers first: they may still be waiting for refreshes, which go on until they have stored what they were given.
  std::thread platforms([this, grace] {
    if (parts_->platforms != nullptr) {
      parts_->platforms->Shutdown(grace);
    }
  });
  if (parts_->server != nullptr) {
    parts_->server->Shutdown(grace);
  }
  platforms.join();
  if (parts_->refresher != nullptr) {
    // Beyond `grace`, but bound all the same: a token that a provider has just handed out exists nowhere else.
    const absl::Duration elapsed = absl::FromChrono(std::chrono::steady_clock::now() - began);
    parts_->refresher->Shutdown(std::clamp(2 * grace - elapsed, absl::Seconds(1), kRefreshGrace));
  }
  parts_->doorbell.reset();
  if (parts_->control != nullptr) {
    parts_->control->Stop();
  }
  if (parts_->ending_apps != nullptr) {
    parts_->ending_apps->Stop();
    parts_->background->Stop();
  }
  for (const std::unique_ptr<TaskRunner>* runner : {&parts_->fetchers, &parts_->runner, &parts_->behind}) {
    if (*runner != nullptr) {
      (*runner)->Stop();
    }
  }
  if (parts_->shipper != nullptr) {
    parts_->shipper->Flush(absl::Seconds(1));
    parts_->shipper->Stop();
  }
}

absl::StatusOr<std::unique_ptr<RunningService>> StartTokenBroker(const config::v1::TokenBrokerConfig& config,
                                                                 const Clock& clock) {
  const TlsFiles tls = TlsFilesFrom(config.server().tls());
  BrokerPeers peers;
  ASSIGN_OR_RETURN(peers.registry, MakeChannel(config.peers().registry(), tls, "registry"));
  ASSIGN_OR_RETURN(peers.authn, MakeChannel(config.peers().authn(), tls, "authn"));
  ASSIGN_OR_RETURN(peers.vault, MakeChannel(config.peers().vault(), tls, "vault"));
  ASSIGN_OR_RETURN(std::unique_ptr<TokenBrokerServer> server,
                   TokenBrokerServer::Start(config, clock, std::move(peers)));
  return std::unique_ptr<RunningService>(std::move(server));
}

}  // namespace sallyport::token_broker

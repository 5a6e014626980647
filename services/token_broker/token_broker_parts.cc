// SPDX-License-Identifier: Apache-2.0
// How the broker is put together, and what its parts tell each other.
#include "services/token_broker/token_broker_parts.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/host_name.h"
#include "common/http/networks.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/token_broker/broker_settings.h"
#include "services/token_broker/connection_name.h"
#include "services/token_broker/endings_service.h"
#include "services/token_broker/pool_metrics.h"
#include "services/token_broker/redis_settings.h"
#include "services/token_broker/refresh_metrics.h"
#include "services/token_broker/sources/exchanged_token.h"
#include "services/token_broker/sources/service_token.h"
#include "services/token_broker/sources/sources.h"
#include "services/token_broker/sources/stored_credential.h"
#include "services/token_broker/sources/stored_secret.h"
#include "services/token_broker/sources/user_connection.h"
#include "services/token_broker/token_broker_service.h"

namespace sallyport::token_broker {
namespace {

// What waits at a time, and the threads of what nobody waits for.
constexpr size_t kMaxQueue = 20'000;
constexpr int kBehindThreads = 4;
constexpr int kFetcherThreads = 64;

}  // namespace

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
  shipping.service = "token_broker";
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

// Of configured ones only, for a label.
std::string TokenBrokerServer::Parts::AppNameOf(const std::string& connection) const {
  if (KindOf(connection) == ConnectionKind::kSignIn) {
    return connection;
  }
  const std::shared_ptr<const RegistrySnapshot> snapshot = control->snapshot();
  const registry::v1::App* app = snapshot == nullptr ? nullptr : snapshot->AppByUid(AppUidOf(connection));
  return app == nullptr ? "deleted" : app->slug();
}

void TokenBrokerServer::Parts::Observe(const ConnectionKey& connection, const absl::StatusOr<SharedConnection>& result,
                                       const RefreshFlight::Report& report, const Clock& clock) {
  CountRefresh(AppNameOf(connection.connection), result, report);
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
    for (const auto& [uid, app] : update.snapshot->apps_by_uid) {
      ExpectRefreshes(app->slug());
      ExpectLinks(app->slug());
    }
    ending_apps->See(*update.snapshot);
  }
  for (const registry::v1::Invalidation& invalidation : update.invalidations) {
    switch (invalidation.kind()) {
      case registry::v1::Invalidation::CONNECTION:
        cache->Invalidate(invalidation.key(), invalidation.generation());
        break;
      case registry::v1::Invalidation::SUBJECT:
        cache->InvalidateSubject(invalidation.key());
        if (invalidation.has_ended_at()) {
          ended_subjects->Add(invalidation.key(), FromTimestamp(invalidation.ended_at()));
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
  pool_probes.push_back(WatchPool("requests", *runner));
  pool_probes.push_back(WatchPool("behind", *behind));
  pool_probes.push_back(WatchPool("fetches", *fetchers));
  pool_probes.push_back(WatchPool("refreshes", refresher->runner()));
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

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/authn_server.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/config/egress.h"
#include "common/config/service_config.h"
#include "common/error.h"
#include "common/http/client.h"
#include "common/json_log.h"
#include "common/mutex.h"
#include "common/proto_time.h"
#include "common/rpc/control_stream.h"
#include "common/status_macros.h"
#include "services/authn/account_sign_in.h"
#include "services/authn/authn_service.h"
#include "services/authn/authn_store.h"
#include "services/authn/clients_service.h"
#include "services/authn/group_names.h"
#include "services/authn/issuer_check.h"
#include "services/authn/issuers_service.h"
#include "services/authn/platforms/platform_callers.h"
#include "services/authn/platforms/platform_config.h"
#include "services/authn/platforms/platform_policy.h"
#include "services/authn/web/authn_web.h"
#include "services/authn/web/registered_clients.h"

namespace sallyport::authn {
namespace {

constexpr absl::Duration kDefaultSession = absl::Hours(12);
constexpr absl::Duration kDefaultAccessToken = absl::Hours(1);
constexpr absl::Duration kMinAccessToken = absl::Seconds(5);
constexpr absl::Duration kMaxAccessToken = absl::Hours(24);
constexpr absl::Duration kMinSession = absl::Minutes(1);
constexpr absl::Duration kMaxSession = absl::Hours(24 * 30);
constexpr absl::Duration kPruneEvery = absl::Minutes(15);

absl::Duration FromProto(bool given, const google::protobuf::Duration& duration, absl::Duration otherwise) {
  return given ? FromProtoDuration(duration) : otherwise;
}

absl::Duration SessionLifetime(const config::v1::AuthnConfig& config) {
  return FromProto(config.has_session_lifetime(), config.session_lifetime(), kDefaultSession);
}

absl::Duration AccessTokenLifetime(const config::v1::AuthnConfig& config) {
  return FromProto(config.has_access_token_lifetime(), config.access_token_lifetime(), kDefaultAccessToken);
}

absl::StatusOr<int64_t> AuditLimit(const config::v1::AuthnConfig& config) {
  return AuditOutbox::LimitFrom(config.database().audit_outbox_limit(), "database.auditOutboxLimit");
}

absl::StatusOr<EgressPolicy> OAuthPolicy(const config::v1::Egress& egress) {
  ASSIGN_OR_RETURN(std::vector<Network> networks,
                   ParseNetworks({egress.oauth_networks().begin(), egress.oauth_networks().end()},
                                 "deployment.egress.oauthNetworks"));
  ASSIGN_OR_RETURN(auto proxy, EgressProxyFrom(egress));
  return EgressPolicy(std::move(networks), EgressPolicy::PlainHttp::kLoopback, std::move(proxy));
}

absl::StatusOr<std::unique_ptr<HttpClient>> MakeHttpClient(const config::v1::Egress& egress, const Clock& clock) {
  HttpClient::Options options;
  ASSIGN_OR_RETURN(options.policy, OAuthPolicy(egress));
  options.ca_bundle = egress.ca_bundle();
  options.clock = &clock;
  return HttpClient::Create(std::move(options));
}

}  // namespace

absl::Status ValidateAuthnConfig(const config::v1::AuthnConfig& config) {
  std::vector<absl::Status> checks = {ValidateDatabase(config.database()),
                                      ValidateDeployment(config.deployment()),
                                      CheckEgressFiles(config.deployment().egress()),
                                      ValidateConnectors(config.connectors()),
                                      web::ValidateRegisteredClients(config.clients()),
                                      platforms::ValidateClusters(config.kubernetes()),
                                      platforms::ValidatePlatforms(config),
                                      ValidateRoleAccounts(config),
                                      CheckRoleGroups("roles", config.roles(), GroupNames(config.connectors()))};
  if (const absl::StatusOr<EgressPolicy> policy = OAuthPolicy(config.deployment().egress()); policy.ok()) {
    checks.push_back(CheckIssuerNetworks(config.connectors(), *policy));
    checks.push_back(platforms::CheckClusterNetworks(config.kubernetes(), *policy));
  }
  const absl::Duration token = AccessTokenLifetime(config);
  if (token < kMinAccessToken || token > kMaxAccessToken) {
    checks.push_back(InvalidField("accessTokenLifetime", "must be 5 s to 24 h"));
  }
  const absl::Duration session = SessionLifetime(config);
  if (session < kMinSession || session > kMaxSession) {
    checks.push_back(InvalidField("sessionLifetime", "must be 1 min to 30 days"));
  }
  return MergeViolations(checks);
}

absl::Status ValidateSplitConfig(const config::v1::AuthnConfig& config) {
  return MergeViolations({ValidateAuthnConfig(config), ValidateServer(config.server()),
                          ValidatePeers(config.peers(), {"registry", "vault", "tokenBroker"})});
}

// Members in order of construction: each uses only what stands above it.
struct AuthnServer::State {
  State(const config::v1::AuthnConfig& settings, const Clock& the_clock, const AuthnPeers& the_peers,
        std::unique_ptr<Database> the_database, std::unique_ptr<HttpClient> the_http)
      : config(settings),
        clock(the_clock),
        peers(the_peers),
        public_url(settings.deployment().public_url()),
        database(std::move(the_database)),
        http(std::move(the_http)),
        fetcher(*http),
        app_issuers(fetcher, AppIssuerOptions()),
        jwks(fetcher),
        vault(MakeVaultClient(the_peers.vault)),
        sign_in_tokens(MakeSignInTokens(the_peers.token_broker)),
        endings(MakeConnectionEndings(the_peers.token_broker)),
        keys(*vault, std::max(AccessTokenLifetime(settings), absl::Hours(1))),
        edge_keys(*vault),
        tokens(public_url, keys, AccessTokenLifetime(settings)),
        passports(public_url, keys),
        group_names(settings.connectors()),
        roles(settings.roles(), group_names, platforms::OnlyCluster(settings)),
        stream(the_peers.registry, the_clock),
        servers(stream, roles, group_names),
        audit(*database, the_clock, AuditLimit(settings).value_or(AuditOutbox::kDefaultLimit)),
        revocations(*database, the_peers.registry),
        sessions(*database, SessionLifetime(settings)),
        grants(*database, &audit),
        admin_token(*database, audit, settings.data_directory()),
        ended_sign_ins(*database),
        verifier(public_url, OwnKeySource(keys)) {}

  const config::v1::AuthnConfig config;
  const Clock& clock;
  const AuthnPeers peers;
  const std::string public_url;
  std::unique_ptr<Database> database;
  std::unique_ptr<HttpClient> http;
  oauth::HttpFetcher fetcher;
  oauth::MetadataCache app_issuers;
  JwksCache jwks;
  std::unique_ptr<VaultClient> vault;
  std::unique_ptr<SignInTokens> sign_in_tokens;
  std::unique_ptr<ConnectionEndings> endings;
  SigningKeys keys;
  EdgeKeys edge_keys;
  AccessTokens tokens;
  Passports passports;
  const GroupNames group_names;
  RolePolicy roles;
  ControlStream stream;
  Servers servers;
  Audit audit;
  Revocations revocations;
  Sessions sessions;
  Grants grants;
  AdminToken admin_token;
  EndedSignIns ended_sign_ins;
  PassportVerifier verifier;
  std::unique_ptr<Connectors> connectors;
  std::unique_ptr<Authenticator> authenticator;
  std::unique_ptr<AuthnRpcs> rpcs;
  std::unique_ptr<platforms::PlatformCallers> platform_callers;
  std::unique_ptr<AccountSignIn> accounts;
  std::unique_ptr<ClientDirectory> directory;
  std::unique_ptr<RevocationRpcs> revocation;
  std::unique_ptr<ClientsRpcs> client_rpcs;
  std::unique_ptr<web::AuthnWeb> web;
  std::unique_ptr<CallGuard> guard;
  std::unique_ptr<RpcServer> server;

  std::atomic<bool> secrets_stored{false};
  IssuerCheck issuers;
  bool waiting = false;  // Of the background thread.
  Mutex mu;
  std::condition_variable_any wake;
  bool stop ABSL_GUARDED_BY(mu) = false;
  std::thread background;

  absl::Status Build();
  absl::StatusOr<platforms::Clusters::Options> ClusterOptions() const;
  absl::StatusOr<std::unique_ptr<platforms::PlatformCallers>> MakePlatformCallers();
  std::vector<std::unique_ptr<grpc::Service>> Services(std::shared_ptr<const PeerIdentity> peer);
  void RunBackground();
  bool Tend();
  void Prune();
  void Stop();
};

absl::Status AuthnServer::State::Build() {
  ASSIGN_OR_RETURN(connectors, Connectors::Create(config.connectors(), jwks, *vault));
  authenticator = std::make_unique<Authenticator>(
      Authenticator::Parts{servers, *connectors, jwks, tokens, grants, revocations, roles, passports});
  rpcs = std::make_unique<AuthnRpcs>(AuthnRpcs::Parts{*authenticator, servers, *connectors, keys, tokens, passports,
                                                      roles, sessions, grants, revocations, edge_keys, admin_token,
                                                      audit, ended_sign_ins});
  ASSIGN_OR_RETURN(platform_callers, MakePlatformCallers());
  ASSIGN_OR_RETURN(const platforms::Clusters::Options cluster_options, ClusterOptions());
  ASSIGN_OR_RETURN(auto clusters, platforms::Clusters::Create(config.kubernetes(), cluster_options));
  accounts = std::make_unique<AccountSignIn>(std::move(clusters), AccountSignIn::Parts{roles, tokens, audit});
  ASSIGN_OR_RETURN(std::vector<web::Client> clients, web::ReadRegisteredClients(config.clients()));
  directory = std::make_unique<ClientDirectory>(*database, clients, tokens.lifetime());
  revocation = std::make_unique<RevocationRpcs>(
      RevocationRpcs::Parts{servers, passports, sessions, grants, revocations, *directory, *endings, audit});
  client_rpcs = std::make_unique<ClientsRpcs>(ClientsRpcs::Parts{servers, grants, revocations, *directory, audit});
  web = std::make_unique<web::AuthnWeb>(web::Parts{
      .public_url = public_url,
      .session_lifetime = SessionLifetime(config),
      .clock = clock,
      .database = *database,
      .sessions = sessions,
      .grants = grants,
      .revocations = revocations,
      .servers = servers,
      .connectors = *connectors,
      .tokens = tokens,
      .keys = keys,
      .passports = passports,
      .sign_in_tokens = *sign_in_tokens,
      .audit = audit,
      .fetch = [this](HttpRequest request) { return http->Fetch(std::move(request)); },
      .clients = std::move(clients),
  });
  ASSIGN_OR_RETURN(CallGuard made, CallGuard::Create(AuthnMethodTables()));
  guard = std::make_unique<CallGuard>(std::move(made));
  RETURN_IF_ERROR(admin_token.EnsureFile(clock.Now()));
  stream.Start();
  audit.StartShipping(peers.registry);
  revocations.Start();
  background = std::thread([this] { RunBackground(); });
  return absl::OkStatus();
}

absl::StatusOr<platforms::Clusters::Options> AuthnServer::State::ClusterOptions() const {
  const config::v1::Egress& egress = config.deployment().egress();
  platforms::Clusters::Options clusters;
  ASSIGN_OR_RETURN(clusters.policy, OAuthPolicy(egress));
  clusters.ca_bundle = egress.ca_bundle();
  return clusters;
}

absl::StatusOr<std::unique_ptr<platforms::PlatformCallers>> AuthnServer::State::MakePlatformCallers() {
  ASSIGN_OR_RETURN(const platforms::Clusters::Options clusters, ClusterOptions());
  return platforms::PlatformCallers::Create(
      config, clusters, {{*authenticator, tokens, servers, *connectors, revocations}, passports, audit});
}

std::vector<std::unique_ptr<grpc::Service>> AuthnServer::State::Services(std::shared_ptr<const PeerIdentity> peer) {
  RpcHandler::Options options;
  options.service = "sallyport.authn.v1.Authn";
  options.guard = guard.get();
  options.peer = std::move(peer);
  options.verifier = &verifier;
  options.clock = &clock;
  std::vector<std::unique_ptr<grpc::Service>> services;
  services.push_back(std::make_unique<AuthnService>(*rpcs, *revocation, *accounts, options));
  options.service = "sallyport.authn.v1.Clients";
  services.push_back(std::make_unique<ClientsService>(*client_rpcs, options));
  options.service = "sallyport.authn.v1.Revocation";
  services.push_back(std::make_unique<RevocationService>(*revocation, options));
  options.service = "sallyport.authn.v1.Issuers";
  services.push_back(std::make_unique<IssuersService>(app_issuers, options));
  options.service = "sallyport.authn.v1.Platforms";
  services.push_back(std::make_unique<platforms::PlatformsService>(*platform_callers, options));
  options.service = "sallyport.web.v1.Web";
  services.push_back(std::make_unique<web::WebService>(*web, options));
  return services;
}

// Everything that waits for a peer to come up. True when all is there.
bool AuthnServer::State::Tend() {
  const absl::Status refreshed = keys.Refresh(clock.Now());
  absl::Status stored;
  if (!secrets_stored) {
    stored = connectors->StoreClientSecrets();
    secrets_stored = stored.ok();
  }
  if (refreshed.ok() && stored.ok()) {
    waiting = false;
    return true;
  }
  // Once, not with every attempt: readiness says it, too.
  if (!std::exchange(waiting, true)) {
    Log(LogLevel::kWarning, "waiting_for_vault", {{"keys", refreshed}, {"client_secrets", stored}});
  }
  return false;
}

void AuthnServer::State::Prune() {
  const absl::Time now = clock.Now();
  for (const absl::Status& status : {revocations.Prune(now), sessions.Prune(now).status(), grants.Prune(now).status(),
                                     web->Prune(now), ended_sign_ins.Prune(now).status()}) {
    if (!status.ok()) {
      Log(LogLevel::kWarning, "prune_failed", {{"status", status}});
    }
  }
}

void AuthnServer::State::RunBackground() {
  absl::Duration pause = absl::Milliseconds(100);
  absl::Time prune_at = clock.Now() + kPruneEvery;
  while (true) {
    const bool complete = Tend();
    if (complete) {
      issuers.Run(*connectors, clock.Now());
    }
    if (clock.Now() >= prune_at) {
      Prune();
      prune_at = clock.Now() + kPruneEvery;
    }
    // Peers of one process come up within milliseconds, those of a cluster within seconds.
    pause = complete ? absl::Seconds(30) : std::min(pause * 2, absl::Seconds(2));
    MutexLock lock(mu);
    const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(pause);
    while (!stop && wake.wait_until(mu, deadline) != std::cv_status::timeout) {
    }
    if (stop) {
      return;
    }
  }
}

void AuthnServer::State::Stop() {
  {
    MutexLock lock(mu);
    stop = true;
  }
  wake.notify_all();
  if (background.joinable()) {
    background.join();
  }
  revocations.Stop();
  stream.Stop();
}

AuthnServer::AuthnServer() = default;

absl::StatusOr<std::unique_ptr<AuthnServer>> AuthnServer::Start(const config::v1::AuthnConfig& config,
                                                                const Clock& clock, const AuthnPeers& peers) {
  RETURN_IF_ERROR(ValidateAuthnConfig(config));
  ASSIGN_OR_RETURN(std::unique_ptr<Database> database, OpenAuthnDatabase(config.database(), clock));
  ASSIGN_OR_RETURN(std::unique_ptr<HttpClient> http, MakeHttpClient(config.deployment().egress(), clock));
  auto server = std::unique_ptr<AuthnServer>(new AuthnServer());
  server->state_ = std::make_unique<State>(config, clock, peers, std::move(database), std::move(http));
  State& state = *server->state_;
  RETURN_IF_ERROR(state.Build());
  RpcServer::Options options;
  if (!config.server().listen().empty()) {
    ASSIGN_OR_RETURN(options, RpcOptionsFrom(config.server()));
  }
  const auto services = [&state](std::shared_ptr<const PeerIdentity> peer) { return state.Services(std::move(peer)); };
  ASSIGN_OR_RETURN(state.server, RpcServer::Start(options, services));
  return server;
}

AuthnServer::~AuthnServer() {
  if (state_ != nullptr) {
    Shutdown(absl::ZeroDuration());
    state_->Stop();
  }
}

std::shared_ptr<grpc::Channel> AuthnServer::InProcessChannel(const std::string& caller) {
  return state_->server->InProcessChannel(caller);
}
void AuthnServer::Attach(const std::string& caller, InProcessLink& link) { state_->server->Attach(caller, link); }

int AuthnServer::port() const { return state_->server->port(); }

absl::Status AuthnServer::Ready() const {
  if (!state_->keys.Active().ok()) {
    return absl::UnavailableError("the signing keys are not loaded: the vault is not reachable or sealed");
  }
  if (!state_->secrets_stored) {
    return absl::UnavailableError("client secrets of connectors are not in the vault yet");
  }
  if (!state_->servers.ready()) {
    return absl::UnavailableError("no configuration from the registry yet");
  }
  return state_->issuers.Ready();
}

void AuthnServer::SetServing(bool serving) { state_->server->SetServing(serving); }

void AuthnServer::Shutdown(absl::Duration grace) {
  if (state_->server != nullptr) {
    state_->server->Shutdown(grace);
  }
  state_->Stop();
}

}  // namespace sallyport::authn

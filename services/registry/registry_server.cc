// SPDX-License-Identifier: Apache-2.0
#include "services/registry/registry_server.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include <google/protobuf/util/time_util.h>

#include "common/audit/outbox.h"
#include "common/caller/passport.h"
#include "common/config/egress.h"
#include "common/config/service_config.h"
#include "common/error.h"
#include "common/http/networks.h"
#include "common/json_log.h"
#include "common/sql/config.h"
#include "common/status_macros.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "sallyport/authn/v1/issuers.grpc.pb.h"
#include "services/registry/adoption.h"
#include "services/registry/registry_service.h"
#include "services/registry/secret_ledger.h"
#include "services/registry/store.h"

namespace sallyport::registry {
namespace {

constexpr char kLimit[] = "database.auditOutboxLimit";
constexpr absl::Duration kConnectorsFresh = absl::Seconds(30);
constexpr auto kHousekeepingInterval = std::chrono::minutes(10);
constexpr auto kAdoptionInterval = std::chrono::seconds(2);
constexpr absl::Duration kKeepChanges = absl::Hours(24);
constexpr absl::Duration kDefaultAuditRetention = absl::Hours(24 * 90);

// Authn's connectors, asked for at most every 30 s.
class ConnectorSource {
 public:
  ConnectorSource(const std::shared_ptr<grpc::Channel>& authn, const Clock& clock)
      : stub_(authn::v1::Authn::NewStub(authn)), clock_(clock) {}

  std::optional<Connectors> Get() {
    {
      MutexLock lock(mu_);
      if (clock_.Now() - fetched_ < kConnectorsFresh) return connectors_;
    }
    authn::v1::ListConnectorsResponse response;
    const auto context = MakeClientContext(absl::Seconds(2));
    if (!stub_->ListConnectors(context.get(), {}, &response).ok()) return std::nullopt;
    Connectors connectors;
    for (const auto& connector : response.connectors()) {
      connectors[connector.id()] = {connector.type(), connector.without_groups()};
    }
    MutexLock lock(mu_);
    connectors_ = connectors;
    fetched_ = clock_.Now();
    return connectors;
  }

 private:
  const std::unique_ptr<authn::v1::Authn::Stub> stub_;
  const Clock& clock_;
  Mutex mu_;
  std::optional<Connectors> connectors_ ABSL_GUARDED_BY(mu_);
  absl::Time fetched_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
};

// What issuers of apps announce, by way of authn: the registry itself reaches nothing outside.
class IssuerSource {
 public:
  explicit IssuerSource(const std::shared_ptr<grpc::Channel>& authn) : stub_(authn::v1::Issuers::NewStub(authn)) {}

  absl::StatusOr<std::vector<std::string>> AuthMethods(const std::string& issuer) {
    authn::v1::DescribeIssuerRequest request;
    request.set_issuer(issuer);
    authn::v1::DescribeIssuerResponse response;
    const auto context = MakeClientContext(absl::Seconds(3));
    if (const auto status = stub_->DescribeIssuer(context.get(), request, &response); !status.ok()) {
      return FromGrpcStatus(status);
    }
    const auto& methods = response.token_endpoint_auth_methods();
    return std::vector<std::string>(methods.begin(), methods.end());
  }

 private:
  const std::unique_ptr<authn::v1::Issuers::Stub> stub_;
};

std::vector<std::string> Texts(const google::protobuf::RepeatedPtrField<std::string>& values) {
  return {values.begin(), values.end()};
}

}  // namespace

struct RegistryServer::State {
  State(const Clock& clock_in, const RegistryPeers& peers)
      : clock(clock_in), connectors(peers.authn, clock_in), issuers(peers.authn), vault(peers.vault) {}

  const Clock& clock;
  ConnectorSource connectors;
  IssuerSource issuers;
  SecretVault vault;
  std::unique_ptr<Database> database;
  std::unique_ptr<AuditOutbox> audit;
  std::unique_ptr<AuditStore> audit_store;
  std::unique_ptr<Catalog> catalog;
  std::unique_ptr<WatchHub> hub;
  std::unique_ptr<PassportVerifier> verifier;
  std::unique_ptr<CallGuard> guard;
  std::unique_ptr<RpcServer> rpc;
  absl::Duration audit_retention = kDefaultAuditRetention;

  Mutex mu;
  std::condition_variable_any wake;
  bool stopped ABSL_GUARDED_BY(mu) = false;
  std::thread housekeeping;

  // Until it is done: gives what an earlier release stored its origins. Every ten minutes: what has become too old.
  void KeepHouse() {
    Adoption adoption(*database, vault);
    bool adopted = false;
    auto next = std::chrono::steady_clock::now() + kHousekeepingInterval;
    while (true) {
      if (!adopted) adopted = Adopt(adoption);
      const auto now = std::chrono::steady_clock::now();
      if (!WaitUntil(adopted ? next : std::min(next, now + kAdoptionInterval))) return;
      if (std::chrono::steady_clock::now() < next) continue;
      CleanUp();
      next = std::chrono::steady_clock::now() + kHousekeepingInterval;
    }
  }

  // False: stopped.
  bool WaitUntil(std::chrono::steady_clock::time_point time) {
    std::unique_lock lock(mu);
    return !wake.wait_until(lock, time, [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stopped; });
  }

  static bool Adopt(Adoption& adoption) {
    const absl::StatusOr<bool> finished = adoption.Run();
    // The vault may start later than this service, or be sealed.
    const bool silent = absl::IsUnavailable(finished.status()) || absl::IsDeadlineExceeded(finished.status());
    if (!finished.ok() && !silent) {
      Log(LogLevel::kWarning, "housekeeping_failed", {{"what", "adoption"}, {"status", finished.status()}});
    }
    return finished.ok() && *finished;
  }

  void CleanUp() {
    const absl::Time now = clock.Now();
    const auto report = [](absl::string_view what, const absl::Status& status) {
      if (!status.ok()) Log(LogLevel::kWarning, "housekeeping_failed", {{"what", what}, {"status", status}});
    };
    report("changes", database->Write([&](Transaction& tx) { return Store::PruneChanges(tx, now - kKeepChanges); }));
    report("audit", audit_store->DeleteBefore(now - audit_retention));
    report("ending_apps", catalog->FinishOldApps());
    report("secrets", catalog->EraseUnusedSecrets());
  }
};

absl::Status ValidateRegistryConfig(const config::v1::RegistryConfig& config) {
  std::vector<absl::Status> checks = {ValidateDatabase(config.database()), ValidateDeployment(config.deployment())};
  if (config.has_audit_retention() && config.audit_retention().seconds() < 3600) {
    checks.push_back(InvalidField("auditRetention", "must be at least 1h"));
  }
  return MergeViolations(checks);
}

absl::Status ValidateSplitConfig(const config::v1::RegistryConfig& config) {
  return MergeViolations({ValidateRegistryConfig(config), ValidateServer(config.server()),
                          ValidatePeers(config.peers(), {"vault", "authn"})});
}

absl::StatusOr<std::unique_ptr<RegistryServer>> RegistryServer::Start(const config::v1::RegistryConfig& config,
                                                                      const Clock& clock, const RegistryPeers& peers) {
  RETURN_IF_ERROR(ValidateRegistryConfig(config));
  std::unique_ptr<RegistryServer> server(new RegistryServer());
  server->state_ = std::make_unique<State>(clock, peers);
  State& state = *server->state_;
  if (config.has_audit_retention()) state.audit_retention = absl::Seconds(config.audit_retention().seconds());

  ASSIGN_OR_RETURN(Database::Options database_options, DatabaseOptionsFrom(config.database(), clock));
  ASSIGN_OR_RETURN(state.database, Database::Open(std::move(database_options)));
  RETURN_IF_ERROR(state.database->Migrate(Store::Migrations()));
  // The store's identity exists before anybody can ask for it: afterwards reading it never writes.
  RETURN_IF_ERROR(state.database->Write([](Transaction& tx) { return Store::StoreId(tx).status(); }));

  RETURN_IF_ERROR(state.database->Write(SecretLedger::RecordReferences));

  AuditOutbox::Options audit_options;
  audit_options.source = "registry";
  ASSIGN_OR_RETURN(audit_options.limit, AuditOutbox::LimitFrom(config.database().audit_outbox_limit(), kLimit));
  state.audit = std::make_unique<AuditOutbox>(*state.database, clock, audit_options);
  state.audit_store = std::make_unique<AuditStore>(*state.database);
  Catalog::Options options;
  options.upstream_networks = Texts(config.deployment().egress().upstream_networks());
  if (options.upstream_networks.empty()) {
    for (const Network& network : PrivateNetworks(false)) options.upstream_networks.push_back(network.ToString());
  }
  options.oauth_networks = Texts(config.deployment().egress().oauth_networks());
  ASSIGN_OR_RETURN(options.egress_proxy, EgressProxyWithoutPassword(config.deployment().egress()));
  options.connectors = [&state] { return state.connectors.Get(); };
  options.issuer_auth_methods = [&state](const std::string& issuer) { return state.issuers.AuthMethods(issuer); };
  state.catalog = std::make_unique<Catalog>(*state.database, *state.audit, state.vault, clock, std::move(options));
  state.hub = std::make_unique<WatchHub>(*state.database);
  state.verifier =
      std::make_unique<PassportVerifier>(config.deployment().public_url(), std::make_unique<RpcKeySource>(peers.authn));
  ASSIGN_OR_RETURN(CallGuard guard, MakeRegistryGuard());
  state.guard = std::make_unique<CallGuard>(std::move(guard));

  RpcServer::Options rpc_options;
  if (!config.server().listen().empty()) {
    ASSIGN_OR_RETURN(rpc_options, RpcOptionsFrom(config.server()));
  }
  ASSIGN_OR_RETURN(state.rpc, RpcServer::Start(rpc_options, [&state](const std::shared_ptr<const PeerIdentity>& peer) {
                     return MakeRegistryServices({*state.catalog, *state.database, *state.hub, *state.audit_store,
                                                  *state.audit, *state.guard, *state.verifier, state.clock},
                                                 peer);
                   }));
  // Its own events take the same way as everybody's, without the network.
  state.audit->StartShipping([&state](const audit::v1::AppendRequest& request) -> absl::StatusOr<uint64_t> {
    ASSIGN_OR_RETURN(const audit::v1::AppendResponse response, state.audit_store->Append(request));
    return response.stored_through();
  });
  state.housekeeping = std::thread([&state] { state.KeepHouse(); });
  return server;
}

RegistryServer::~RegistryServer() { Shutdown(absl::ZeroDuration()); }

std::shared_ptr<grpc::Channel> RegistryServer::InProcessChannel(const std::string& caller) {
  return state_->rpc->InProcessChannel(caller);
}
void RegistryServer::Attach(const std::string& caller, InProcessLink& link) { state_->rpc->Attach(caller, link); }
int RegistryServer::port() const { return state_->rpc->port(); }

absl::Status RegistryServer::Ready() const {
  return state_->database->Read([](Transaction& tx) { return Store::Revision(tx).status(); });
}

void RegistryServer::SetServing(bool serving) { state_->rpc->SetServing(serving); }

void RegistryServer::Shutdown(absl::Duration grace) {
  if (!state_) return;
  {
    MutexLock lock(state_->mu);
    if (state_->stopped) return;
    state_->stopped = true;
    state_->wake.notify_all();
  }
  if (state_->housekeeping.joinable()) state_->housekeeping.join();
  if (state_->hub) state_->hub->Stop();  // Ends the streams, which would otherwise hold the server open.
  if (state_->rpc) state_->rpc->Shutdown(grace);
  state_->audit.reset();
}

}  // namespace sallyport::registry

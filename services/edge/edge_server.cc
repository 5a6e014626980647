// SPDX-License-Identifier: Apache-2.0
#include "services/edge/edge_server.h"

#include <filesystem>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include <sys/resource.h>

#include "common/config/egress.h"
#include "common/config/service_config.h"
#include "common/crypto/certificate_expiry.h"
#include "common/error.h"
#include "common/host_name.h"
#include "common/http/egress_proxy.h"
#include "common/http/networks.h"
#include "common/http/url.h"
#include "common/json_log.h"
#include "common/proto_time.h"
#include "common/rpc/server.h"
#include "common/status_macros.h"
#include "common/text/string_view.h"
#include "services/edge/edge_gateway.h"
#include "services/edge/engine_metrics.h"
#include "services/edge/http/engine.h"
#include "services/edge/http/process_memory.h"
#include "services/edge/http/tls_context.h"
#include "services/edge/mcp/call_audit.h"
#include "services/edge/mcp/doors.h"
#include "services/edge/mcp/mcp_handler.h"
#include "services/edge/snapshot_file.h"

namespace sallyport::edge {
namespace {

constexpr char kBacklogLimit[] = "auditBacklogLimit";
constexpr absl::Duration kMaxAuthnOutageGrace = absl::Minutes(15);

std::vector<std::string> Texts(const google::protobuf::RepeatedPtrField<std::string>& values) {
  return {values.begin(), values.end()};
}

absl::StatusOr<SiteOptions> MakeSite(const config::v1::Deployment& deployment) {
  SiteOptions site;
  ASSIGN_OR_RETURN(const Url url, Url::Parse(deployment.public_url()));
  site.public_url = url.origin();
  site.public_host = url.authority();
  const auto literal = IpAddress::Parse(url.host());
  site.public_is_loopback = url.host() == "localhost" || (literal.ok() && literal->is_loopback());
  const auto add_host = [&](const std::string& host) {
    site.hosts.insert(absl::AsciiStrToLower(host));
    // RFC 9110 section 4.2.3: with the scheme's port it is the same.
    const bool has_port = !host.empty() && host.back() != ']' && absl::StrContains(host, ":");
    if (!has_port) site.hosts.insert(absl::StrCat(absl::AsciiStrToLower(host), url.is_https() ? ":443" : ":80"));
  };
  add_host(site.public_host);
  for (const std::string& host : deployment.extra_hosts()) add_host(host);
  for (const std::string& origin : deployment.allowed_origins()) site.allowed_origins.insert(origin);
  site.hosted_client_origins = HostedClientOrigins(deployment.hosted_client_origins());
  ASSIGN_OR_RETURN(site.trusted_proxies,
                   ParseNetworks(Texts(deployment.trusted_proxies()), "deployment.trustedProxies"));
  std::vector<Network> networks = PrivateNetworks(false);
  if (!deployment.egress().upstream_networks().empty()) {
    ASSIGN_OR_RETURN(
        networks, ParseNetworks(Texts(deployment.egress().upstream_networks()), "deployment.egress.upstreamNetworks"));
  }
  ASSIGN_OR_RETURN(auto proxy, EgressProxyFrom(deployment.egress()));
  site.upstream_policy = EgressPolicy(std::move(networks), EgressPolicy::PlainHttp::kPrivateNetworks, std::move(proxy));
  return site;
}

absl::Status CheckPublicListen(const std::string& listen) {
  if (listen.empty()) return InvalidField("listen", "is required: the public address, such as 0.0.0.0:8443");
  RETURN_IF_ERROR(CheckListenAddress("listen", listen));
  absl::string_view host = absl::string_view(listen).substr(0, listen.rfind(':'));
  if (absl::ConsumePrefix(&host, "[")) absl::ConsumeSuffix(&host, "]");
  return IpAddress::Parse(host).ok() ? absl::OkStatus()
                                     : InvalidField("listen", "must be a literal address and a port, no name");
}

absl::Status CheckPublicTls(const config::v1::EdgeConfig& config) {
  const config::v1::EdgeConfig::EdgeTls& tls = config.tls();
  if (tls.certificate().empty() != tls.private_key().empty())
    return InvalidField("tls", "needs both certificate and privateKey");
  if (tls.certificate().empty()) {
    return config.listen().empty() || IsLoopbackListen(config.listen()) || config.behind_tls_proxy()
               ? absl::OkStatus()
               : InvalidField("tls",
                              "is required: give certificate and privateKey, listen on loopback, or set "
                              "behindTlsProxy");
  }
  RETURN_IF_ERROR(CheckReadable("tls.certificate", tls.certificate()));
  RETURN_IF_ERROR(CheckReadable("tls.privateKey", tls.private_key()));
  const absl::Status usable = MakeServerContext(tls.certificate(), tls.private_key()).status();
  return usable.ok() ? usable : InvalidField("tls", usable.message());
}

std::string ReplicaName(const config::v1::EdgeConfig& config) {
  return config.replica().empty() ? HostName("edge") : config.replica();
}

absl::Duration AuthnOutageGrace(const config::v1::EdgeConfig& config) {
  return config.has_authn_outage_grace() ? FromProtoDuration(config.authn_outage_grace())
                                         : Doors::Options().authn_outage_grace;
}

// A call holds a connection on either side; the rest is for peers, files and idle connections upstream.
void CheckFileLimit(size_t connections) {
  constexpr size_t kOthers = 1000;
  const size_t needed = 2 * connections + kOthers;
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed) return;
  Log(LogLevel::kWarning, "file_limit_low",
      {{"limit", static_cast<uint64_t>(limit.rlim_cur)},
       {"needed", needed},
       {"remedy", "raise LimitNOFILE or ulimit -n"}});
}

}  // namespace

struct EdgeServer::State {
  SiteOptions site;
  std::unique_ptr<SnapshotFile> snapshot_file;
  std::unique_ptr<ControlStream> control;
  std::unique_ptr<Routes> routes;
  std::unique_ptr<CallAudit> audit;
  std::unique_ptr<Doors> doors;
  std::unique_ptr<McpHandler> mcp;
  std::unique_ptr<PageHandler> pages;
  std::unique_ptr<ApiHandler> api;
  std::unique_ptr<EdgeGateway> gateway;
  EngineMetrics engine_metrics;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<RpcServer> health;  // Null if nobody is to ask.
  std::unique_ptr<CertificateExpiry> certificate;
};

absl::Status ValidateEdgeConfig(const config::v1::EdgeConfig& config) {
  std::vector<absl::Status> checks = {CheckPublicListen(config.listen()), CheckPublicTls(config),
                                      ValidateDeployment(config.deployment()),
                                      CheckEgressFiles(config.deployment().egress())};
  const auto refuse = [&](const char* field, const std::string& message) {
    checks.push_back(InvalidField(field, message));
  };
  if (config.data_directory().empty())
    refuse("dataDirectory", "is required: holds the snapshot and the audit segments");
  if (config.threads() < 0 || config.threads() > static_cast<int>(CallAudit::kMaxWorkers)) {
    refuse("threads", absl::StrCat("must be 0 (number of cores) to ", CallAudit::kMaxWorkers));
  }
  checks.push_back(AuditSegments::MaxBytesFrom(config.audit_backlog_limit(), kBacklogLimit).status());
  const absl::Duration grace = AuthnOutageGrace(config);
  if (grace < absl::ZeroDuration() || grace > kMaxAuthnOutageGrace) refuse("authnOutageGrace", "must be 0 s to 15 min");
  return MergeViolations(checks);
}

absl::Status ValidateSplitConfig(const config::v1::EdgeConfig& config) {
  return MergeViolations({ValidateEdgeConfig(config), ValidateServer(config.server(), Listener::kOptional),
                          ValidatePeers(config.peers(), {"authn", "tokenBroker", "vault", "registry"})});
}

absl::StatusOr<std::unique_ptr<EdgeServer>> EdgeServer::Start(const config::v1::EdgeConfig& config, const Clock& clock,
                                                              const EdgePeers& peers) {
  RETURN_IF_ERROR(ValidateEdgeConfig(config));
  std::unique_ptr<EdgeServer> server(new EdgeServer());
  server->state_ = std::make_unique<State>();
  State& state = *server->state_;
  ASSIGN_OR_RETURN(state.site, MakeSite(config.deployment()));
  std::error_code error;
  std::filesystem::create_directories(config.data_directory(), error);
  if (error) return absl::UnavailableError(absl::StrCat(config.data_directory(), ": ", error.message()));

  state.control = std::make_unique<ControlStream>(peers.registry, clock);
  state.routes = std::make_unique<Routes>(state.site.public_url);
  const std::string source = absl::StrCat("edge/", ReplicaName(config));
  AuditSegments::Options segment_options;
  segment_options.directory = config.data_directory() + "/audit";
  segment_options.source = source;
  ASSIGN_OR_RETURN(segment_options.max_bytes, AuditSegments::MaxBytesFrom(config.audit_backlog_limit(), kBacklogLimit));
  ASSIGN_OR_RETURN(auto segments, AuditSegments::Open(segment_options, clock));
  AuditShipper::Options shipper_options;
  shipper_options.directory = segment_options.directory;
  shipper_options.live_boot = segments->boot();
  shipper_options.max_bytes = segment_options.max_bytes;
  shipper_options.service = "edge";
  state.audit = std::make_unique<CallAudit>(
      std::move(segments), source, std::make_unique<AuditShipper>(shipper_options, MakeAuditSink(peers.registry)));
  Doors::Options door_options;
  door_options.authn_outage_grace = AuthnOutageGrace(config);
  state.doors = std::make_unique<Doors>(peers.authn, peers.token_broker, *state.control, clock, door_options);
  state.doors->tagger();  // Begins to fetch the session keys.
  state.mcp = std::make_unique<McpHandler>(state.site, *state.routes, *state.doors, *state.audit, clock);
  state.pages = std::make_unique<PageHandler>(state.site, peers.authn, peers.token_broker);
  ASSIGN_OR_RETURN(state.api,
                   ApiHandler::Create(state.site, {peers.authn, peers.token_broker, peers.vault, peers.registry}));
  state.gateway = std::make_unique<EdgeGateway>(state.site, *state.mcp, *state.pages, *state.api);

  state.snapshot_file = std::make_unique<SnapshotFile>(config.data_directory() + "/snapshot");
  state.control->AddListener([&state](const ControlUpdate& update) {
    if (update.full || update.config_changed) {
      state.routes->Update(*update.snapshot);
      state.snapshot_file->Save(update.snapshot);
    }
    state.doors->OnUpdate(update);
    state.mcp->OnUpdate(update);
  });
  if (const absl::Status seeded = state.snapshot_file->Load(*state.control);
      !seeded.ok() && !absl::IsNotFound(seeded)) {
    Log(LogLevel::kWarning, "snapshot_unusable", {{"status", seeded}});
  }
  state.control->Start();

  EngineOptions engine_options;
  engine_options.listen = config.listen();
  engine_options.threads = config.threads() > 0
                               ? static_cast<size_t>(config.threads())
                               : std::min<size_t>(std::thread::hardware_concurrency(), CallAudit::kMaxWorkers);
  engine_options.certificate = config.tls().certificate();
  engine_options.private_key = config.tls().private_key();
  if (!config.tls().certificate().empty()) {
    state.certificate = std::make_unique<CertificateExpiry>(config.tls().certificate(), "public");
  }
  engine_options.upstream_ca_bundle = config.deployment().egress().ca_bundle();
  if (const EgressProxy* proxy = state.site.upstream_policy.proxy().get(); proxy != nullptr) {
    engine_options.proxy = std::make_shared<const UpstreamProxy>(
        UpstreamProxy{proxy->host(), proxy->port(), proxy->authorization().Clone()});
  }
  engine_options.memory = [memory = ProcessMemory()] { return memory.Read(); };
  engine_options.log = [](std::string_view text) { Log(LogLevel::kWarning, "http_engine", {{"detail", text}}); };
  CheckFileLimit(engine_options.limits.connections);
  ASSIGN_OR_RETURN(state.engine, Engine::Start(engine_options, *state.gateway));
  state.engine_metrics.Start(*state.engine, state.engine->worker(0));
  Log(LogLevel::kInfo, "listening", {{"address", config.listen()}, {"port", state.engine->port()}});
  if (!config.server().listen().empty()) {
    ASSIGN_OR_RETURN(const RpcServer::Options rpc_options, RpcOptionsFrom(config.server()));
    ASSIGN_OR_RETURN(state.health, RpcServer::Start(rpc_options, NoServices));
  }
  return server;
}

EdgeServer::~EdgeServer() { Shutdown(absl::ZeroDuration()); }

int EdgeServer::port() const { return state_->engine->port(); }

absl::Status EdgeServer::Ready() const {
  if (!state_->routes->table()->loaded)
    return absl::UnavailableError("no configuration yet: the registry has not answered");
  if (state_->doors->tagger() == nullptr) return absl::UnavailableError("no session keys yet: authn has not answered");
  return absl::OkStatus();
}

void EdgeServer::SetServing(bool serving) {
  if (state_->health) state_->health->SetServing(serving);
}

uint64_t EdgeServer::authenticate_calls() const { return state_->doors->authenticate_calls(); }
uint64_t EdgeServer::resolve_calls() const { return state_->doors->resolve_calls(); }

void EdgeServer::Shutdown(absl::Duration grace) {
  if (!state_) return;
  if (state_->health) state_->health->SetServing(false);
  if (state_->engine) state_->engine->Shutdown(std::chrono::milliseconds(absl::ToInt64Milliseconds(grace)));
  if (state_->control) state_->control->Stop();
  // Last: until then a health check hears NOT_SERVING.
  if (state_->health) state_->health->Shutdown(absl::ZeroDuration());
}

}  // namespace sallyport::edge

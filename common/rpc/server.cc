// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/server.h"

#include <map>
#include <unistd.h>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/server_posix.h>
#include <sys/socket.h>

#include "common/caller/passport_size.h"
#include "common/clock.h"
#include "common/config/service_config.h"
#include "common/crypto/certificate_expiry.h"
#include "common/error.h"
#include "common/mutex.h"
#include "common/rpc/acceptor.h"
#include "common/rpc/credentials.h"
#include "common/rpc/reflection.h"
#include "common/status_macros.h"
#include "sallyport/config/v1/common.pb.h"

namespace sallyport {
namespace {

constexpr int kMaxMetadataBytes = 32 * 1024;
// Answers come from our own services; a snapshot of many servers with inline key sets is large.
constexpr int kMaxResponseBytes = 64 << 20;
// Of callers from outside, who may mean no good: how many calls at a time on a connection, and how long it stays open
// without a call.
constexpr int kMaxOutsideStreams = 1'000;
constexpr int kOutsideIdleMs = 10 * 60 * 1'000;
constexpr int kOutsideAgeGraceMs = 30'000;
// Between services: a client that connects again also looks where its peers are now, and so finds a replica that was
// added.
constexpr int kInsideAgeMs = 30 * 60 * 1'000;
constexpr int kInsideAgeGraceMs = 60'000;
// The share of RLIMIT_NOFILE from which on new connections are closed.
constexpr int kFilePercent = 75;
constexpr int kHealthFilePercent = 95;

grpc::ChannelArguments CommonArguments() {
  grpc::ChannelArguments args;
  args.SetInt(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  args.SetMaxReceiveMessageSize(kMaxResponseBytes);
  return args;
}

grpc::ChannelArguments NetworkArguments() {
  grpc::ChannelArguments args = CommonArguments();
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // A restarted service must be in use again within seconds.
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1'000);
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2'000);
  // A replica that took another's place must be found within seconds; a name without records is asked again as soon.
  args.SetInt(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, 2'000);
  // The name server tells addresses, and not how to call them (TXT records).
  args.SetInt(GRPC_ARG_SERVICE_CONFIG_DISABLE_RESOLUTION, 1);
  // gRPC would send the services' own calls to a proxy that the environment names (grpc_proxy, https_proxy,
  // http_proxy).
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // Channels of one process must not share a connection whose certificate check was another channel's.
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return args;
}

// A name may stand for several replicas, which share the calls: all are connected to, and take turns. Of addresses that
// are written out (ipv4:a,b) the first that answers is used.
grpc::ChannelArguments ArgumentsFor(absl::string_view target) {
  grpc::ChannelArguments args = NetworkArguments();
  if (absl::StartsWith(target, "dns:")) {
    args.SetLoadBalancingPolicyName("round_robin");
  }
  return args;
}

// A channel over a pair of connected sockets that nobody else can reach. Not grpc::Server::InProcessChannel: with
// gRPC 1.51 a call on such a channel after its server's shutdown calls a null function, and in one process services end
// one after the other. Without `server` every call is UNAVAILABLE. No keepalive: the pair cannot be opened anew, and a
// suspended host is no dead peer.
std::shared_ptr<grpc::Channel> ChannelTo(grpc::Server* server) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
    return grpc::CreateChannel("unix:///dev/null/none", grpc::InsecureChannelCredentials());
  }
  if (server != nullptr) {
    grpc::AddInsecureChannelFromFd(server, pair[1]);
  } else {
    close(pair[1]);
  }
  return grpc::CreateCustomInsecureChannelFromFd("in-process", pair[0], CommonArguments());
}

}  // namespace

std::vector<std::unique_ptr<grpc::Service>> NoServices(const std::shared_ptr<const PeerIdentity>& /*peer*/) {
  return {};
}

InProcessLink::InProcessLink() {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0) {
    channel_ = grpc::CreateChannel("unix:///dev/null/none", grpc::InsecureChannelCredentials());
    return;
  }
  channel_ = grpc::CreateCustomInsecureChannelFromFd("in-process", pair[0], CommonArguments());
  server_end_ = pair[1];
}

InProcessLink::~InProcessLink() {
  if (server_end_ >= 0) {
    close(server_end_);
  }
}

// Services outlive the server that uses them.
struct Host {
  std::vector<std::unique_ptr<grpc::Service>> services;
  grpc::CallbackGenericService nothing;  // Answers UNIMPLEMENTED.
  std::unique_ptr<grpc::Server> server;
  // On the network only.
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> connections;
  std::unique_ptr<Acceptor> acceptor;

  // UNAVAILABLE if the port cannot be bound.
  absl::Status Listen(const std::string& address, const std::string& field) {
    ASSIGN_OR_RETURN(acceptor, Acceptor::Listen(address, field, services.empty() ? kHealthFilePercent : kFilePercent));
    acceptor->Start([this](int listener, int connection) {
      grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
      parameters.listener_fd = listener;
      parameters.fd = connection;
      connections->HandleNewConnection(&parameters);
    });
    return absl::OkStatus();
  }
  // After it gRPC would lose the connections that it is given.
  void StopListening() {
    if (acceptor != nullptr) {
      acceptor->Stop();
    }
  }

  ~Host() {
    StopListening();
    if (server != nullptr) {
      server->Shutdown(std::chrono::system_clock::now());
    }
  }
};

struct RpcServer::State {
  Options options;
  ServiceFactory factory;
  int port = 0;
  std::unique_ptr<CertificateExpiry> certificate;  // Null without TLS.

  Mutex mu;
  std::unique_ptr<Host> network ABSL_GUARDED_BY(mu);
  std::map<std::string, std::unique_ptr<Host>> in_process ABSL_GUARDED_BY(mu);
  bool serving ABSL_GUARDED_BY(mu) = false;
  bool stopped ABSL_GUARDED_BY(mu) = false;

  // Null if it could not be started. `credentials` null: no network.
  std::unique_ptr<Host> Build(std::shared_ptr<const PeerIdentity> peer,
                              const std::shared_ptr<grpc::ServerCredentials>& credentials) const;
  std::vector<grpc::Server*> Servers() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
};

std::unique_ptr<Host> RpcServer::State::Build(std::shared_ptr<const PeerIdentity> peer,
                                              const std::shared_ptr<grpc::ServerCredentials>& credentials) const {
  auto host = std::make_unique<Host>();
  host->services = factory(std::move(peer));
  if (credentials != nullptr && !options.reflected.empty()) {
    for (std::unique_ptr<grpc::Service>& service : MakeReflectionServices(options.reflected)) {
      host->services.push_back(std::move(service));
    }
  }
  grpc::ServerBuilder builder;
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  // Otherwise our own channels' keepalive is taken for an attack (default: one ping in 5 minutes).
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS,
                             static_cast<int>(absl::ToInt64Milliseconds(options.handshake_timeout)));
  builder.SetMaxReceiveMessageSize(options.max_request_bytes);
  if (!options.outside_peer.empty()) {
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxOutsideStreams);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kOutsideIdleMs);
    // A certificate is looked at when a connection begins: one that has ended, or is of an authority that is trusted no
    // more, must not count for as long as its owner keeps the connection.
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS,
                               static_cast<int>(absl::ToInt64Milliseconds(options.outside_age)));
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, kOutsideAgeGraceMs);
  }
  if (credentials != nullptr && options.outside_peer.empty()) {
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, kInsideAgeMs);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, kInsideAgeGraceMs);
  }
  grpc::ResourceQuota quota("rpc");
  quota.SetMaxThreads(options.max_threads);
  builder.SetResourceQuota(quota);
  if (credentials != nullptr) {
    host->connections = builder.experimental().AddExternalConnectionAcceptor(
        grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD, credentials);
  }
  for (const auto& service : host->services) {
    builder.RegisterService(service.get());
  }
  // gRPC starts no server that has only the health service.
  if (host->services.empty()) {
    builder.RegisterCallbackGenericService(&host->nothing);
  }
  host->server = builder.BuildAndStart();
  return host->server == nullptr ? nullptr : std::move(host);
}

std::vector<grpc::Server*> RpcServer::State::Servers() {
  std::vector<grpc::Server*> servers;
  if (network != nullptr) {
    servers.push_back(network->server.get());
  }
  for (const auto& [caller, host] : in_process) {
    servers.push_back(host->server.get());
  }
  return servers;
}

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const Options& options, ServiceFactory factory) {
  grpc::EnableDefaultHealthCheckService(true);
  auto server = std::unique_ptr<RpcServer>(new RpcServer);
  server->state_ = std::make_unique<State>();
  State& state = *server->state_;
  state.options = options;
  state.factory = std::move(factory);
  if (options.listen.empty()) {
    return server;
  }
  std::shared_ptr<grpc::ServerCredentials> credentials;
  std::shared_ptr<const PeerIdentity> peer;
  if (!options.outside_peer.empty()) {
    RETURN_IF_ERROR(CheckOutsideTlsFiles(options.tls));
    credentials = MakeOutsideCredentials(options.tls);
    peer = std::make_shared<FixedPeer>(options.outside_peer);
  } else if (!options.tls.empty()) {
    RETURN_IF_ERROR(CheckTlsFiles(options.tls));
    credentials = MakeServerCredentials(options.tls);
    peer = std::make_shared<MtlsPeer>(options.tls.trust_domain);
  } else {
    if (!IsLoopbackListen(options.listen) || options.insecure_peer.empty()) {
      return InvalidField("server.tls", "is required: without it any program on the network could pose as a service");
    }
    credentials = grpc::InsecureServerCredentials();
    peer = std::make_shared<FixedPeer>(options.insecure_peer);
  }
  if (!options.tls.empty()) {
    state.certificate = std::make_unique<CertificateExpiry>(
        options.tls.certificate, options.outside_peer.empty() ? "services" : options.outside_peer);
  }
  std::unique_ptr<Host> host = state.Build(std::move(peer), credentials);
  if (host == nullptr) {
    return absl::InternalError("gRPC did not start; its log lines say why");
  }
  host->server->GetHealthCheckService()->SetServingStatus(false);  // Before anybody can ask.
  RETURN_IF_ERROR(host->Listen(options.listen, options.outside_peer.empty() ? "server.listen" : "listen"));
  state.port = host->acceptor->port();
  MutexLock lock(state.mu);
  state.network = std::move(host);
  return server;
}

RpcServer::~RpcServer() {
  if (state_ != nullptr) {
    Shutdown(absl::ZeroDuration());
  }
}

std::shared_ptr<grpc::Channel> RpcServer::InProcessChannel(const std::string& caller) {
  MutexLock lock(state_->mu);
  if (state_->stopped) {
    return ChannelTo(nullptr);
  }
  std::unique_ptr<Host>& host = state_->in_process[caller];
  if (host == nullptr) {
    host = state_->Build(std::make_shared<FixedPeer>(caller), nullptr);
    if (host == nullptr) {
      state_->in_process.erase(caller);
      return ChannelTo(nullptr);
    }
    host->server->GetHealthCheckService()->SetServingStatus(state_->serving);
  }
  return ChannelTo(host->server.get());
}

void RpcServer::Attach(const std::string& caller, InProcessLink& link) {
  // Makes the caller's server if there is none yet.
  InProcessChannel(caller);
  MutexLock lock(state_->mu);
  const auto host = state_->in_process.find(caller);
  if (link.server_end_ < 0 || host == state_->in_process.end()) {
    return;
  }
  grpc::AddInsecureChannelFromFd(host->second->server.get(), link.server_end_);
  link.server_end_ = -1;
}

int RpcServer::port() const { return state_->port; }

void RpcServer::SetServing(bool serving) {
  MutexLock lock(state_->mu);
  // Who still follows readiness has not heard of the shutdown yet.
  serving = serving && !state_->stopped;
  state_->serving = serving;
  for (grpc::Server* server : state_->Servers()) {
    server->GetHealthCheckService()->SetServingStatus(serving);
  }
}

void RpcServer::Shutdown(absl::Duration grace) {
  {
    MutexLock lock(state_->mu);
    if (std::exchange(state_->stopped, true)) {
      return;
    }
  }
  SetServing(false);
  std::vector<grpc::Server*> servers;
  {
    MutexLock lock(state_->mu);
    if (state_->network != nullptr) {
      state_->network->StopListening();
    }
    servers = state_->Servers();
  }
  const auto deadline = absl::ToChronoTime(SystemClock().Now() + grace);
  // All at once: they share the grace.
  std::vector<std::thread> threads;
  threads.reserve(servers.size());
  for (grpc::Server* server : servers) {
    threads.emplace_back([server, deadline] { server->Shutdown(deadline); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(const std::string& target, const TlsFiles& tls,
                                                           const std::string& service) {
  if (target.empty()) {
    const google::protobuf::FieldDescriptor* field = config::v1::Peers::descriptor()->FindFieldByName(service);
    return InvalidField(absl::StrCat("peers.", field != nullptr ? field->json_name() : service), "is required");
  }
  if (tls.empty()) {
    absl::string_view address = target;
    for (absl::string_view scheme : {"dns:///", "ipv4:", "ipv6:"}) {
      absl::ConsumePrefix(&address, scheme);
    }
    if (!IsLoopbackListen(address)) {
      return InvalidField("server.tls", absl::StrCat("is required to reach ", target));
    }
    return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), ArgumentsFor(target));
  }
  RETURN_IF_ERROR(CheckTlsFiles(tls));
  return grpc::CreateCustomChannel(target, MakeChannelCredentials(tls, service), ArgumentsFor(target));
}

std::unique_ptr<grpc::ClientContext> MakeClientContext(absl::Duration timeout, const std::string& passport) {
  auto context = std::make_unique<grpc::ClientContext>();
  context->set_deadline(absl::ToChronoTime(SystemClock().Now() + timeout));
  if (!passport.empty()) {
    // One that is too long is refused, cut or not.
    context->AddMetadata(kPassportMetadata, passport.substr(0, kMaxPassportBytes + 1));
  }
  return context;
}

}  // namespace sallyport

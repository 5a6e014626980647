// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/resolve_world.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <unistd.h>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include <hiredis/hiredis.h>

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/status_macros.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/provider_binding.h"
#include "services/token_broker/vault_client.h"
#include "tests/bench/measure.h"
#include "tests/bench/resolve_echo.h"
#include "tests/testing/fakes/passport.h"
#include "tests/testing/process.h"

namespace sallyport::token_broker {
namespace {

using bench::FreePort;
using bench::PinThread;
using bench::Side;

constexpr char kPublicUrl[] = "https://gw.example.com";
constexpr char kOrigin[] = "https://api.example.com";
constexpr char kTokenUrl[] = "https://provider.example/token";
constexpr char kServer[] = "srv_bench";
constexpr char kApp[] = "app_bench";
constexpr char kBinding[] = "binding-of-bench";
// About as long as those of large providers; a JWT would be longer.
constexpr size_t kTokenBytes = 165;  // 220 characters.
constexpr absl::Duration kStartWait = absl::Seconds(60);

void AddConfiguration(::sallyport::testing::FakeRegistry& registry) {
  registry::v1::App* app = registry.AddApp();
  app->set_uid(kApp);
  app->set_slug("bench");
  app->set_display_name("Bench");
  app->set_authorization_url("https://provider.example/authorize");
  app->set_token_url(kTokenUrl);
  app->set_client_id("bench");
  app->add_default_scopes("repo");
  app->add_allowed_upstream_origins(kOrigin);
  app->mutable_binding()->set_version(1);
  registry::v1::McpServer* server = registry.AddServer();
  server->set_uid(kServer);
  server->set_slug("bench");
  server->set_version(1);
  server->set_upstream_url(absl::StrCat(kOrigin, "/mcp"));
  server->mutable_app_auth()->mutable_oauth_authorization()->set_app_uid(kApp);
  server->mutable_agent_auth()->mutable_interactive();
}

// Not about to be renewed, and the day's roots may not change meanwhile: runs over midnight UTC fail.
ConnectionView ViewOfToken(const std::string& token, absl::Time now) {
  ConnectionView view;
  view.state = ConnectionView::State::kLinked;
  view.generation = 1;
  view.version = 1;
  view.access_token = Secret::Copy(token);
  view.times.obtained_at = now - absl::Minutes(10);
  view.times.expires_at = now + absl::Hours(12);
  view.scopes = {"repo"};
  view.can_refresh = true;
  Provider provider;
  provider.token_url = kTokenUrl;
  view.provenance = MadeAt(provider, kBinding);
  view.provenance_sealed = true;
  return view;
}

}  // namespace

ResolveWorld::ResolveWorld(size_t users) : users_(users) {
  for (size_t i = 0; i <= users; ++i) {
    BenchUser& user = i < users ? users_[i] : probe_;
    user.subject = absl::StrCat("corp:user-", 100'000 + i);
    user.token = RandomToken("", kTokenBytes);
  }
  request_.set_server_uid(kServer);
  request_.set_server_version(1);
  request_.set_upstream_origin(kOrigin);
}

ResolveWorld::~ResolveWorld() {
  ::sallyport::testing::Terminate(echo_pid_, SIGTERM);
  ::sallyport::testing::Terminate(broker_pid_, SIGTERM);
}

absl::StatusOr<std::unique_ptr<ResolveWorld>> ResolveWorld::Start(const std::string& directory, size_t users) {
  std::unique_ptr<ResolveWorld> world(new ResolveWorld(users));
  RETURN_IF_ERROR(world->Begin(directory));
  return world;
}

absl::Status ResolveWorld::Begin(const std::string& directory) {
  ASSIGN_OR_RETURN(redis_, ::sallyport::testing::TestRedis::Start());
  WriteCertificates();
  RETURN_IF_ERROR(StartPeers());
  RETURN_IF_ERROR(StoreBinding());
  RenewPassports();
  RETURN_IF_ERROR(FillRedis());
  RETURN_IF_ERROR(StartBroker(directory + "/sallyport-token-broker"));
  return StartEcho();
}

void ResolveWorld::WriteCertificates() {
  using ::sallyport::testing::MakeTestCertificate;
  const auto authority = MakeTestCertificate(nullptr, {});
  directory_.Write("ca.pem", authority.CertificatePem());
  for (const char* service : {"token_broker", "edge", "vault", "registry", "authn"}) {
    const auto made = MakeTestCertificate(&authority, {absl::StrCat("spiffe://", kTrustDomain, "/", service)});
    directory_.Write(absl::StrCat(service, ".pem"), made.CertificatePem());
    directory_.Write(absl::StrCat(service, ".key"), made.KeyPem());
  }
}

absl::StatusOr<std::unique_ptr<RpcServer>> ResolveWorld::Serve(const std::string& service,
                                                               ServiceFactory factory) const {
  RpcServer::Options options;
  options.listen = "127.0.0.1:0";
  options.tls = TlsIn(directory_.path(), service);
  return RpcServer::Start(options, std::move(factory));
}

absl::Status ResolveWorld::StartPeers() {
  using Services = std::vector<std::unique_ptr<grpc::Service>>;
  using Peer = std::shared_ptr<const PeerIdentity>;
  ASSIGN_OR_RETURN(vault_server_, Serve("vault", [this](const Peer& /*peer*/) {
                     Services services;
                     services.push_back(std::make_unique<::sallyport::testing::FakeVaultService>(
                         vault_, "token_broker", [this](const std::string& method, const auto& /*request*/) {
                           vault_reads_ += method == "Get" || method == "GetCacheRoots" ? 1 : 0;
                         }));
                     return services;
                   }));
  ASSIGN_OR_RETURN(registry_server_, Serve("registry", [this](const Peer& /*peer*/) {
                     auto registry = std::make_unique<::sallyport::testing::FakeRegistry>();
                     registry_ = registry.get();
                     AddConfiguration(*registry);
                     Services services;
                     services.push_back(std::move(registry));
                     services.push_back(std::make_unique<::sallyport::testing::FakeAudit>());
                     return services;
                   }));
  ASSIGN_OR_RETURN(authn_server_, Serve("authn", [this](const Peer& /*peer*/) {
                     auto authn = std::make_unique<::sallyport::testing::FakeAuthn>(clock_, kPublicUrl);
                     authn_ = authn.get();
                     Services services;
                     services.push_back(std::move(authn));
                     return services;
                   }));
  return absl::OkStatus();
}

absl::Status ResolveWorld::StoreBinding() {
  vault::v1::PutRequest put;
  *put.mutable_record() = OrganizationRecord("app_binding", absl::StrCat(kApp, "/binding"));
  put.set_payload(kBinding);
  put.add_origins(kOrigin);
  const std::string administrator = ::sallyport::testing::FakePassport("local:root", {"admin", "credential-admin"});
  return vault_.Put({"registry", administrator}, put).status();
}

std::string ResolveWorld::Sign(const std::string& subject) const {
  Passport passport;
  passport.subject = subject;
  passport.server_uid = kServer;
  passport.session_id = absl::StrCat("ses_", subject);
  passport.email = absl::StrCat(subject, "@bench.example");
  passport.name = "A User Of The Bench";
  passport.groups = {"engineering", "everyone", "reviewers"};
  passport.client_id = "bench";
  passport.purpose = Passport::Purpose::kCall;
  return authn_->Sign(passport);
}

void ResolveWorld::RenewPassports() {
  for (BenchUser& user : users_) user.passport = Sign(user.subject);
  probe_.passport = Sign(probe_.subject);
}

absl::StatusOr<vault::v1::GetCacheRootsResponse> ResolveWorld::RootsOf(vault::v1::OwnerType type, const std::string& id,
                                                                       const std::string& passport) {
  vault::v1::GetCacheRootsRequest request;
  request.set_owner_type(type);
  request.set_owner_id(id);
  return vault_.GetCacheRoots({"token_broker", passport}, request);
}

absl::Status ResolveWorld::Share(RedisClient& redis, const CacheNames& names, BenchUser& user) {
  // The vault holds something of the user's, for they would have no root otherwise; but of the account nothing.
  vault::v1::PutRequest other;
  *other.mutable_record() = ConnectionRecord(user.subject, "app_other");
  other.set_payload("-");
  RETURN_IF_ERROR(vault_.Put({"token_broker", user.passport}, other).status());
  ASSIGN_OR_RETURN(vault::v1::GetCacheRootsResponse roots, RootsOf(vault::v1::USER, user.subject, user.passport));
  auto& root = *roots.mutable_roots(0);
  const CacheSealer sealer(Secret(std::move(*root.mutable_root())), root.day(), root.key_version());
  const ConnectionKey key = {user.subject, kApp};
  user.redis_key = names.KeyFor(key);
  ASSIGN_OR_RETURN(user.sealed, sealer.Seal(key, ViewOfToken(user.token, clock_.Now()), user.redis_key));
  return redis.Set(user.redis_key, user.sealed, absl::Hours(1));
}

absl::Status ResolveWorld::FillRedis() {
  RedisOptions options;
  options.address = redis_->address();
  options.timeout = absl::Seconds(5);
  ASSIGN_OR_RETURN(const std::unique_ptr<RedisClient> redis, RedisClient::Create(std::move(options)));
  ASSIGN_OR_RETURN(vault::v1::GetCacheRootsResponse roots, RootsOf(vault::v1::ORG, "default", ""));
  const CacheNames names(Secret(std::move(*roots.mutable_roots(0)->mutable_root())));
  for (BenchUser& user : users_) RETURN_IF_ERROR(Share(*redis, names, user));
  return Share(*redis, names, probe_);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> ResolveWorld::ChannelTo(const std::string& target) const {
  ASSIGN_OR_RETURN(std::shared_ptr<grpc::Channel> channel,
                   MakeChannel(target, TlsIn(directory_.path(), "edge"), "token_broker"));
  if (!channel->WaitForConnected(absl::ToChronoTime(absl::Now() + kStartWait))) {
    return absl::UnavailableError(absl::StrCat("nothing answers on ", target));
  }
  return channel;
}

absl::Status ResolveWorld::StartBroker(const std::string& program) {
  if (access(program.c_str(), X_OK) != 0) {
    return absl::NotFoundError(
        absl::StrCat("no program ", program, ": build it, or name another directory with --bin"));
  }
  ASSIGN_OR_RETURN(const int port, FreePort());
  const std::string target = absl::StrCat("127.0.0.1:", port);
  const TlsFiles tls = TlsIn(directory_.path(), "token_broker");
  const std::string config = directory_.Write(
      "broker.yaml",
      absl::StrCat("server:\n  listen: ", target, "\n  logLevel: warning\n  tls: {certificate: ", tls.certificate,
                   ", privateKey: ", tls.private_key, ", caBundle: ", tls.ca_bundle, ", trustDomain: ", kTrustDomain,
                   "}\npeers: {registry: \"127.0.0.1:", registry_server_->port(),
                   "\", authn: \"127.0.0.1:", authn_server_->port(), "\", vault: \"127.0.0.1:", vault_server_->port(),
                   "\"}\ndeployment: {publicUrl: \"", kPublicUrl, "\"}\ndataDirectory: ", directory_.File("data"),
                   // Not to give up on Redis because this machine was busy.
                   "\nredis: {address: \"", redis_->address(), "\", timeout: 5s}\n"));
  std::filesystem::permissions(config, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  PinThread(Side::kMeasured);
  const absl::StatusOr<pid_t> pid =
      ::sallyport::testing::Spawn({program, "--config", config}, directory_.File("broker.log"));
  PinThread(Side::kLoad);
  ASSIGN_OR_RETURN(broker_pid_, pid);
  ASSIGN_OR_RETURN(broker_, ChannelTo(target));
  // Until it has its configuration.
  const absl::Time deadline = absl::Now() + kStartWait;
  absl::StatusOr<v1::ResolveCredentialsResponse> asked = AskForProbe();
  while (!asked.ok() && absl::Now() < deadline) {
    absl::SleepFor(absl::Milliseconds(50));
    asked = AskForProbe();
  }
  if (!asked.ok()) {
    std::ifstream log(directory_.File("broker.log"));
    std::cerr << log.rdbuf();
  }
  ASSIGN_OR_RETURN(answer_, std::move(asked));
  return absl::OkStatus();
}

absl::StatusOr<v1::ResolveCredentialsResponse> ResolveWorld::AskForProbe() const {
  const auto stub = v1::TokenBroker::NewStub(broker_);
  const auto context = MakeClientContext(absl::Seconds(10), probe_.passport);
  v1::ResolveCredentialsResponse answer;
  RETURN_IF_ERROR(FromGrpcStatus(stub->ResolveCredentials(context.get(), request_, &answer)));
  if (answer.pieces_size() != 1 || answer.pieces(0).value() != "Bearer " + probe_.token) {
    return absl::UnavailableError("the broker answers without the token that is in Redis");
  }
  return answer;
}

absl::Status ResolveWorld::StartEcho() {
  ASSIGN_OR_RETURN(const int port, FreePort());
  const std::string target = absl::StrCat("127.0.0.1:", port);
  const std::string answer = directory_.Write("answer", answer_.SerializeAsString());
  const std::string self = std::filesystem::read_symlink("/proc/self/exe").string();
  PinThread(Side::kMeasured);
  const absl::StatusOr<pid_t> pid =
      ::sallyport::testing::Spawn({self, "--echo", target, directory_.path(), answer}, directory_.File("echo.log"));
  PinThread(Side::kLoad);
  ASSIGN_OR_RETURN(echo_pid_, pid);
  ASSIGN_OR_RETURN(echo_, ChannelTo(target));
  return absl::OkStatus();
}

absl::StatusOr<ResolveWorld::RedisReads> ResolveWorld::Reads() const {
  const std::unique_ptr<redisContext, decltype(&redisFree)> redis(redisConnectUnix(redis_socket().c_str()), &redisFree);
  const std::unique_ptr<void, decltype(&freeReplyObject)> reply(
      redis == nullptr || redis->err != 0 ? nullptr : redisCommand(redis.get(), "INFO stats"), &freeReplyObject);
  if (reply == nullptr) return absl::UnavailableError("Redis does not answer");
  const auto* text = static_cast<const redisReply*>(reply.get());
  if (text->type != REDIS_REPLY_STRING) return absl::UnavailableError("Redis gives no statistics");
  const std::string info(text->str, static_cast<size_t>(text->len));
  const auto number = [&info](const std::string& name) {
    int64_t value = -1;
    if (const size_t at = info.find(name + ":"); at != std::string::npos) {
      const size_t from = at + name.size() + 1;
      (void)absl::SimpleAtoi(info.substr(from, info.find('\r', from) - from), &value);
    }
    return value;
  };
  return RedisReads{number("keyspace_hits"), number("keyspace_misses")};
}

absl::Status ResolveWorld::EmptyMemory() {
  ASSIGN_OR_RETURN(const RedisReads before, Reads());
  // A snapshot in place of what came before, as after a gap in the control stream.
  registry_->Change([](registry::v1::WatchEvent::Snapshot& /*snapshot*/) {});
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (absl::Now() < deadline) {
    // It was in memory since the last time: once it is read from Redis, memory is empty.
    RETURN_IF_ERROR(AskForProbe().status());
    ASSIGN_OR_RETURN(const RedisReads now, Reads());
    if (now.hits > before.hits) return absl::OkStatus();
    absl::SleepFor(absl::Milliseconds(5));
  }
  return absl::DeadlineExceededError("the broker did not take a new snapshot");
}

}  // namespace sallyport::token_broker

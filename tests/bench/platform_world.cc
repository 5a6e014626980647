// SPDX-License-Identifier: Apache-2.0
#include "tests/bench/platform_world.h"

#include <csignal>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <unistd.h>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/provider_binding.h"
#include "services/token_broker/vault_client.h"
#include "tests/bench/measure.h"
#include "tests/testing/fakes/passport.h"
#include "tests/testing/process.h"

namespace sallyport::token_broker {
namespace {

using bench::FreePort;
using bench::PinThread;
using bench::Side;

constexpr char kPublicUrl[] = "https://gw.example.com";
constexpr char kTrustDomain[] = "bench.example";
constexpr char kOrigin[] = "https://api.example.com";
constexpr char kTokenUrl[] = "https://provider.example/token";
constexpr char kApp[] = "app_bench";
constexpr char kBinding[] = "binding-of-bench";
constexpr char kListenerName[] = "platforms.bench.example";
constexpr char kPlatformUri[] = "spiffe://bench.example/ns/chat/sa/bot";
// About as long as those of large providers; a JWT would be longer.
constexpr size_t kTokenBytes = 165;  // 220 characters.
// Of a user's token that the platform brings: about as long as one of ours.
constexpr size_t kSubjectTokenBytes = 500;
constexpr absl::Duration kStartWait = absl::Seconds(60);

TlsFiles TlsIn(const std::string& directory, const std::string& service) {
  return {absl::StrCat(directory, "/", service, ".pem"), absl::StrCat(directory, "/", service, ".key"),
          absl::StrCat(directory, "/ca.pem"), kTrustDomain};
}

std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
}

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
}

// Every answer is the same message: what a gRPC server costs that has nothing to do.
class EchoService final : public v1::Platform::CallbackService {
 public:
  explicit EchoService(v1::GetTokenResponse answer) : answer_(std::move(answer)) {}
  grpc::ServerUnaryReactor* GetToken(grpc::CallbackServerContext* context, const v1::GetTokenRequest* /*request*/,
                                     v1::GetTokenResponse* response) override {
    *response = answer_;
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    reactor->Finish(grpc::Status::OK);
    return reactor;
  }

 private:
  const v1::GetTokenResponse answer_;
};

}  // namespace

grpc::Status CountingAudit::Append(grpc::ServerContext* /*context*/, const audit::v1::AppendRequest* request,
                                   audit::v1::AppendResponse* response) {
  for (const auto& event : request->events()) {
    tokens_ += event.type() == "platform.token" ? 1 : 0;
    response->set_stored_through(event.sequence());
  }
  return grpc::Status::OK;
}

int ServePlatformEcho(const std::string& listen, const std::string& directory, const std::string& answer_file) {
  v1::GetTokenResponse answer;
  RpcServer::Options options;
  options.listen = listen;
  options.tls = TlsIn(directory, "platforms");
  options.outside_peer = "platform";
  if (!answer.ParseFromString(ReadAll(answer_file))) {
    std::cerr << "platform: cannot read " << answer_file << "\n";
    return 1;
  }
  const auto server = RpcServer::Start(options, [&](const std::shared_ptr<const PeerIdentity>& /*peer*/) {
    std::vector<std::unique_ptr<grpc::Service>> services;
    services.push_back(std::make_unique<EchoService>(answer));
    return services;
  });
  if (!server.ok()) {
    std::cerr << "platform: " << server.status() << "\n";
    return 1;
  }
  while (true) pause();  // Until a signal ends the process.
}

PlatformWorld::PlatformWorld(size_t users) : users_(users) {
  for (size_t i = 0; i <= users; ++i) {
    PlatformBenchUser& user = i < users ? users_[i] : probe_;
    const std::string name = absl::StrCat("user-", 100'000 + i);
    user.subject = absl::StrCat("corp:", name);
    user.token = RandomToken("", kTokenBytes);
    user.request.set_app("bench");
    // As FakePlatforms takes it; the rest of it is as long as a signature and claims.
    user.request.mutable_user()->set_subject_token(
        absl::StrCat("token.", name, ".", RandomToken("", kSubjectTokenBytes)));
  }
}

PlatformWorld::~PlatformWorld() {
  ::sallyport::testing::Terminate(echo_pid_, SIGTERM);
  ::sallyport::testing::Terminate(broker_pid_, SIGTERM);
}

absl::StatusOr<std::unique_ptr<PlatformWorld>> PlatformWorld::Start(const std::string& directory, size_t users) {
  std::unique_ptr<PlatformWorld> world(new PlatformWorld(users));
  RETURN_IF_ERROR(world->Begin(directory));
  return world;
}

absl::Status PlatformWorld::Begin(const std::string& directory) {
  WriteCertificates();
  RETURN_IF_ERROR(StartPeers());
  RETURN_IF_ERROR(FillVault());
  RETURN_IF_ERROR(StartBroker(directory + "/sallyport-token-broker"));
  return StartEcho();
}

void PlatformWorld::WriteCertificates() {
  using ::sallyport::testing::MakeTestCertificate;
  const auto authority = MakeTestCertificate(nullptr, {});
  directory_.Write("ca.pem", authority.CertificatePem());
  const auto write = [&](const std::string& name, const ::sallyport::testing::TestCertificate& made) {
    directory_.Write(name + ".pem", made.CertificatePem());
    directory_.Write(name + ".key", made.KeyPem());
  };
  for (const char* service : {"token_broker", "vault", "registry", "authn"}) {
    write(service, MakeTestCertificate(&authority, {absl::StrCat("spiffe://", kTrustDomain, "/", service)}));
  }
  write("platforms", MakeTestCertificate(&authority, {}, {kListenerName}));
  write("chat", MakeTestCertificate(&authority, {kPlatformUri}));
}

absl::StatusOr<std::unique_ptr<RpcServer>> PlatformWorld::Serve(const std::string& service,
                                                                ServiceFactory factory) const {
  RpcServer::Options options;
  options.listen = "127.0.0.1:0";
  options.tls = TlsIn(directory_.path(), service);
  return RpcServer::Start(options, std::move(factory));
}

absl::Status PlatformWorld::StartPeers() {
  using Services = std::vector<std::unique_ptr<grpc::Service>>;
  using Peer = std::shared_ptr<const PeerIdentity>;
  ASSIGN_OR_RETURN(vault_server_, Serve("vault", [this](const Peer& /*peer*/) {
                     Services services;
                     services.push_back(std::make_unique<::sallyport::testing::FakeVaultService>(
                         vault_, "token_broker", [this](const std::string& method, const auto& /*request*/) {
                           vault_reads_ += method == "Get" ? 1 : 0;
                         }));
                     return services;
                   }));
  ASSIGN_OR_RETURN(registry_server_, Serve("registry", [this](const Peer& /*peer*/) {
                     auto registry = std::make_unique<::sallyport::testing::FakeRegistry>();
                     registry_ = registry.get();
                     AddConfiguration(*registry);
                     Services services;
                     services.push_back(std::move(registry));
                     services.push_back(std::make_unique<CountingAudit>(recorded_));
                     return services;
                   }));
  ASSIGN_OR_RETURN(authn_server_, Serve("authn", [this](const Peer& /*peer*/) {
                     auto authn = std::make_unique<::sallyport::testing::FakeAuthn>(clock_, kPublicUrl);
                     auto platforms = std::make_unique<::sallyport::testing::FakePlatforms>(*authn, clock_);
                     platforms_ = platforms.get();
                     platforms->Put({.id = "chat", .uris = {kPlatformUri}, .rate_limit = 1e6, .rate_burst = 1'000'000});
                     Services services;
                     services.push_back(std::move(authn));
                     services.push_back(std::move(platforms));
                     return services;
                   }));
  return absl::OkStatus();
}

absl::Status PlatformWorld::FillVault() {
  vault::v1::PutRequest binding;
  *binding.mutable_record() = OrganizationRecord("app_binding", absl::StrCat(kApp, "/binding"));
  binding.set_payload(kBinding);
  binding.add_origins(kOrigin);
  const std::string administrator = ::sallyport::testing::FakePassport("local:root", {"admin", "credential-admin"});
  RETURN_IF_ERROR(vault_.Put({"registry", administrator}, binding).status());
  Provider provider;
  provider.token_url = kTokenUrl;
  const auto put = [&](const PlatformBenchUser& user) {
    v1::TokenSet tokens;
    tokens.set_access_token(user.token);
    tokens.set_refresh_token("refresh");
    tokens.add_scopes("repo");
    *tokens.mutable_obtained_at() = ToTimestamp(clock_.Now() - absl::Minutes(10));
    *tokens.mutable_expires_at() = ToTimestamp(clock_.Now() + absl::Hours(12));
    *tokens.mutable_provenance() = MadeAt(provider, kBinding);
    vault::v1::PutRequest connection;
    *connection.mutable_record() = ConnectionRecord(user.subject, kApp);
    connection.set_payload(tokens.SerializeAsString());
    return vault_.Put({"token_broker", ::sallyport::testing::FakePassport(user.subject)}, connection).status();
  };
  for (const PlatformBenchUser& user : users_) RETURN_IF_ERROR(put(user));
  return put(probe_);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> PlatformWorld::ChannelTo(const std::string& target) const {
  const TlsFiles files = TlsIn(directory_.path(), "chat");
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = ReadAll(files.ca_bundle);
  options.pem_cert_chain = ReadAll(files.certificate);
  options.pem_private_key = ReadAll(files.private_key);
  grpc::ChannelArguments arguments;
  arguments.SetSslTargetNameOverride(kListenerName);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  std::shared_ptr<grpc::Channel> channel = grpc::CreateCustomChannel(target, grpc::SslCredentials(options), arguments);
  if (!channel->WaitForConnected(absl::ToChronoTime(absl::Now() + kStartWait))) {
    return absl::UnavailableError(absl::StrCat("nothing answers on ", target));
  }
  return channel;
}

absl::Status PlatformWorld::StartBroker(const std::string& program) {
  if (access(program.c_str(), X_OK) != 0) {
    return absl::NotFoundError(
        absl::StrCat("no program ", program, ": build it, or name another directory with --bin"));
  }
  ASSIGN_OR_RETURN(const int internal_port, FreePort());
  ASSIGN_OR_RETURN(const int port, FreePort());
  const std::string target = absl::StrCat("127.0.0.1:", port);
  const TlsFiles tls = TlsIn(directory_.path(), "token_broker");
  const TlsFiles platforms = TlsIn(directory_.path(), "platforms");
  const std::string config = directory_.Write(
      "broker.yaml",
      absl::StrCat("server:\n  listen: 127.0.0.1:", internal_port, "\n  logLevel: warning\n  tls: {certificate: ",
                   tls.certificate, ", privateKey: ", tls.private_key, ", caBundle: ", tls.ca_bundle,
                   ", trustDomain: ", kTrustDomain, "}\npeers: {registry: \"127.0.0.1:", registry_server_->port(),
                   "\", authn: \"127.0.0.1:", authn_server_->port(), "\", vault: \"127.0.0.1:", vault_server_->port(),
                   "\"}\ndeployment: {publicUrl: \"", kPublicUrl, "\"}\ndataDirectory: ", directory_.File("data"),
                   "\nplatform: {listen: \"", target, "\", certificate: ", platforms.certificate,
                   ", privateKey: ", platforms.private_key, ", clientCaBundle: ", platforms.ca_bundle, "}\n"));
  std::filesystem::permissions(config, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  PinThread(Side::kMeasured);
  const absl::StatusOr<pid_t> pid =
      ::sallyport::testing::Spawn({program, "--config", config}, directory_.File("broker.log"));
  PinThread(Side::kLoad);
  ASSIGN_OR_RETURN(broker_pid_, pid);
  ASSIGN_OR_RETURN(broker_, ChannelTo(target));
  // Until it has its configuration.
  const absl::Time deadline = absl::Now() + kStartWait;
  absl::StatusOr<v1::GetTokenResponse> asked = AskForProbe();
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

absl::StatusOr<v1::GetTokenResponse> PlatformWorld::AskForProbe() {
  const auto stub = v1::Platform::NewStub(broker_);
  const auto context = MakeClientContext(absl::Seconds(10));
  v1::GetTokenResponse answer;
  RETURN_IF_ERROR(FromGrpcStatus(stub->GetToken(context.get(), probe_.request, &answer)));
  if (answer.access_token() != probe_.token) {
    return absl::InternalError("the broker answers with another token");
  }
  return answer;
}

absl::Status PlatformWorld::StartEcho() {
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

absl::Status PlatformWorld::EmptyMemory() {
  const int64_t before = questions();
  // A snapshot in place of what came before, as after a gap in the control stream.
  registry_->Change([](registry::v1::WatchEvent::Snapshot& /*snapshot*/) {});
  const absl::Time deadline = absl::Now() + absl::Seconds(10);
  while (absl::Now() < deadline) {
    // It was in memory since the last time: once somebody is asked for it, memory is empty.
    RETURN_IF_ERROR(AskForProbe().status());
    if (questions() > before) return absl::OkStatus();
    absl::SleepFor(absl::Milliseconds(5));
  }
  return absl::DeadlineExceededError("the broker did not take a new snapshot");
}

}  // namespace sallyport::token_broker

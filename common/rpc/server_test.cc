// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/server.h"

#include <cstdlib>

#include <gtest/gtest.h>

#include "common/error.h"
#include "common/rpc/handler.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "tests/testing/connect_proxy.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/health_check.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::IsServing;
using ::sallyport::testing::MakeTestCertificate;
using ::sallyport::testing::StatusIs;
using ::sallyport::testing::TempDirectory;
using ::sallyport::testing::TestCertificate;
using Code = absl::StatusCode;

constexpr char kTrustDomain[] = "sallyport.test";
constexpr char kAuthn[] = "sallyport.authn.v1.Authn";

// Answers GetKeys with the name of whoever calls.
class WhoCalls final : public authn::v1::Authn::Service {
 public:
  WhoCalls(const CallGuard& guard, std::shared_ptr<const PeerIdentity> peer, const Clock& clock)
      : rpc_({kAuthn, &guard, std::move(peer), nullptr, &clock}) {}
  grpc::Status GetKeys(grpc::ServerContext* context, const authn::v1::GetKeysRequest* /*request*/,
                       authn::v1::GetKeysResponse* response) override {
    return rpc_.Handle("GetKeys", context, response,
                       [&](const Caller& caller) -> absl::StatusOr<authn::v1::GetKeysResponse> {
                         authn::v1::GetKeysResponse answer;
                         answer.set_jwks_json(caller.service);
                         return answer;
                       });
  }
  grpc::Status GetConnector(grpc::ServerContext* context, const authn::v1::GetConnectorRequest* /*request*/,
                            authn::v1::Connector* response) override {
    return rpc_.Handle("GetConnector", context, response, [](const Caller& /*caller*/) {
      return WithReason(absl::InternalError("the table of passwords is gone"), "store_broken");
    });
  }

 private:
  RpcHandler rpc_;
};

CallGuard GuardFor(const std::set<std::string>& callers) {
  MethodTable table;
  const auto* service = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(kAuthn);
  for (int i = 0; i < service->method_count(); ++i) {
    table[service->method(i)->name()] = callers;
  }
  return *CallGuard::Create({{kAuthn, table}});
}

absl::StatusOr<std::string> Ask(const std::shared_ptr<grpc::Channel>& channel) {
  authn::v1::GetKeysResponse response;
  const auto context = MakeClientContext(absl::Seconds(30));
  const grpc::Status status = authn::v1::Authn::NewStub(channel)->GetKeys(context.get(), {}, &response);
  if (!status.ok()) {
    return FromGrpcStatus(status);
  }
  return response.jwks_json();
}

class RpcServerTest : public ::testing::Test {
 protected:
  ServiceFactory Factory() {
    return [this](std::shared_ptr<const PeerIdentity> peer) {
      std::vector<std::unique_ptr<grpc::Service>> services;
      services.push_back(std::make_unique<WhoCalls>(guard_, std::move(peer), clock_));
      return services;
    };
  }

  // Key, certificate and CA files of a service.
  TlsFiles Files(const std::string& name, const TestCertificate& ca, const std::vector<std::string>& uris) {
    const TestCertificate made = MakeTestCertificate(&ca, uris);
    return {directory_.Write(name + ".crt", made.CertificatePem()), directory_.Write(name + ".key", made.KeyPem()),
            directory_.Write(name + "-ca.crt", ca_.CertificatePem()), kTrustDomain};
  }
  TlsFiles Files(const std::string& name) { return Files(name, ca_, {Spiffe(name)}); }
  static std::string Spiffe(const std::string& name) { return "spiffe://sallyport.test/" + name; }

  std::unique_ptr<RpcServer> StartTls(const TlsFiles& tls) {
    RpcServer::Options options;
    options.listen = "127.0.0.1:0";
    options.tls = tls;
    return *RpcServer::Start(options, Factory());
  }
  static std::shared_ptr<grpc::Channel> Channel(const RpcServer& server, const TlsFiles& tls) {
    return *MakeChannel("127.0.0.1:" + std::to_string(server.port()), tls, "authn");
  }

  TempDirectory directory_;
  SystemClock clock_;
  CallGuard guard_ = GuardFor({"edge", "vault"});
  TestCertificate ca_ = MakeTestCertificate(nullptr, {});
};

TEST_F(RpcServerTest, EachInProcessCallerIsWhoItIs) {
  ASSERT_OK_AND_ASSIGN(const auto server, RpcServer::Start({}, Factory()));
  EXPECT_EQ(*Ask(server->InProcessChannel("edge")), "edge");
  EXPECT_EQ(*Ask(server->InProcessChannel("vault")), "vault");
  EXPECT_THAT(Ask(server->InProcessChannel("registry")), StatusIs(Code::kPermissionDenied));
}

TEST_F(RpcServerTest, AfterShutdownInProcessCallsAreUnavailable) {
  ASSERT_OK_AND_ASSIGN(const auto server, RpcServer::Start({}, Factory()));
  const auto channel = server->InProcessChannel("edge");
  ASSERT_THAT(Ask(channel), IsOk());
  server->Shutdown(absl::Seconds(1));
  EXPECT_THAT(Ask(channel), StatusIs(Code::kUnavailable));
  EXPECT_THAT(Ask(server->InProcessChannel("vault")), StatusIs(Code::kUnavailable));
}

TEST_F(RpcServerTest, HealthIsWhatItIsToldToBe) {
  const auto server = StartTls(Files("authn"));
  const std::shared_ptr<grpc::Channel> channels[] = {Channel(*server, Files("edge")), server->InProcessChannel("edge")};
  for (const auto& channel : channels) {
    ASSERT_OK_AND_ASSIGN(bool serving, IsServing(channel));
    EXPECT_FALSE(serving) << "nobody has said that it is ready";
    server->SetServing(true);
    ASSERT_OK_AND_ASSIGN(serving, IsServing(channel));
    EXPECT_TRUE(serving);
    server->SetServing(false);
    ASSERT_OK_AND_ASSIGN(serving, IsServing(channel));
    EXPECT_FALSE(serving);
  }
}

TEST_F(RpcServerTest, AListenerWithoutServicesAnswersHealthChecks) {
  RpcServer::Options options;
  options.listen = "127.0.0.1:0";
  options.insecure_peer = "probe";
  ASSERT_OK_AND_ASSIGN(const auto server, RpcServer::Start(options, NoServices));
  server->SetServing(true);
  ASSERT_OK_AND_ASSIGN(const bool serving, IsServing(Channel(*server, {})));
  EXPECT_TRUE(serving);
  EXPECT_THAT(Ask(Channel(*server, {})), StatusIs(Code::kUnimplemented));
}

TEST_F(RpcServerTest, InternalMessagesStayInside) {
  ASSERT_OK_AND_ASSIGN(const auto server, RpcServer::Start({}, Factory()));
  authn::v1::Connector response;
  const auto context = MakeClientContext(absl::Seconds(30));
  const grpc::Status status =
      authn::v1::Authn::NewStub(server->InProcessChannel("edge"))->GetConnector(context.get(), {}, &response);
  EXPECT_EQ(status.error_message(), "internal error");
  EXPECT_EQ(ReasonOf(FromGrpcStatus(status)), "store_broken");
}

TEST_F(RpcServerTest, MutualTlsNamesTheCaller) {
  const auto server = StartTls(Files("authn"));
  EXPECT_EQ(*Ask(Channel(*server, Files("edge"))), "edge");
  EXPECT_EQ(*Ask(Channel(*server, Files("vault"))), "vault");
}

TEST_F(RpcServerTest, TheEnvironmentsProxyIsNotForCallsBetweenServices) {
  ::sallyport::testing::ConnectProxy proxy;
  for (const char* name : {"grpc_proxy", "https_proxy", "http_proxy"}) setenv(name, proxy.url().c_str(), 1);
  const auto server = StartTls(Files("authn"));
  EXPECT_EQ(*Ask(Channel(*server, Files("edge"))), "edge");
  for (const char* name : {"grpc_proxy", "https_proxy", "http_proxy"}) unsetenv(name);
  EXPECT_EQ(proxy.connections(), 0);
}

TEST_F(RpcServerTest, ACallerOfAnotherTrustDomainIsNobody) {
  const auto server = StartTls(Files("authn"));
  EXPECT_THAT(Ask(Channel(*server, Files("foreign", ca_, {"spiffe://sallyport.test.evil/edge"}))),
              StatusIs(Code::kUnauthenticated));
}

TEST_F(RpcServerTest, ACallerWithTwoUriNamesIsNobody) {
  const auto server = StartTls(Files("authn"));
  EXPECT_FALSE(Ask(Channel(*server, Files("two", ca_, {Spiffe("edge"), Spiffe("vault")}))).ok());
}

TEST_F(RpcServerTest, ACallerWithoutUriNameIsNobody) {
  const auto server = StartTls(Files("authn"));
  EXPECT_THAT(Ask(Channel(*server, Files("none", ca_, {}))), StatusIs(Code::kUnauthenticated));
}

TEST_F(RpcServerTest, ACallerWithAPathBelowAServiceIsNobody) {
  const auto server = StartTls(Files("authn"));
  EXPECT_THAT(Ask(Channel(*server, Files("deep", ca_, {Spiffe("edge/x")}))), StatusIs(Code::kUnauthenticated));
}

TEST_F(RpcServerTest, ACertificateOfAnotherAuthorityDoesNotConnect) {
  const auto server = StartTls(Files("authn"));
  const TestCertificate other = MakeTestCertificate(nullptr, {});
  EXPECT_THAT(Ask(Channel(*server, Files("forged", other, {Spiffe("edge")}))), StatusIs(Code::kUnavailable));
}

TEST_F(RpcServerTest, ACallerWithoutCertificateDoesNotConnect) {
  const auto server = StartTls(Files("authn"));
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = ca_.CertificatePem();
  grpc::ChannelArguments args;
  args.SetSslTargetNameOverride("authn");
  const auto channel =
      grpc::CreateCustomChannel("127.0.0.1:" + std::to_string(server->port()), grpc::SslCredentials(options), args);
  EXPECT_THAT(Ask(channel), StatusIs(Code::kUnavailable));
}

TEST_F(RpcServerTest, APlaintextCallerDoesNotConnect) {
  const auto server = StartTls(Files("authn"));
  const auto channel =
      grpc::CreateChannel("127.0.0.1:" + std::to_string(server->port()), grpc::InsecureChannelCredentials());
  EXPECT_THAT(Ask(channel), StatusIs(Code::kUnavailable));
}

TEST_F(RpcServerTest, AServerThatIsAnotherServiceIsNotSpokenTo) {
  const auto server = StartTls(Files("token_broker"));
  EXPECT_THAT(Ask(Channel(*server, Files("edge"))), StatusIs(Code::kUnavailable));
}

TEST_F(RpcServerTest, AServerOfAnotherTrustDomainIsNotSpokenTo) {
  const auto server = StartTls(Files("other", ca_, {"spiffe://elsewhere/authn"}));
  EXPECT_THAT(Ask(Channel(*server, Files("edge"))), StatusIs(Code::kUnavailable));
}

TEST_F(RpcServerTest, AServerWithTwoUriNamesIsNotSpokenTo) {
  const auto server = StartTls(Files("both", ca_, {Spiffe("authn"), Spiffe("vault")}));
  EXPECT_THAT(Ask(Channel(*server, Files("edge"))), StatusIs(Code::kUnavailable));
}

TEST_F(RpcServerTest, ReplacedCertificatesAreTakenUpWithoutRestart) {
  const TlsFiles server_files = Files("authn");
  const auto server = StartTls(server_files);
  const TlsFiles edge_files = Files("edge");
  ASSERT_THAT(Ask(Channel(*server, edge_files)), IsOk());

  // A new authority for both sides; a client of the new one gets in as soon as the server has noticed.
  ca_ = MakeTestCertificate(nullptr, {});
  Files("authn");
  const TlsFiles fresh = Files("vault");
  absl::StatusOr<std::string> answer = Ask(Channel(*server, fresh));
  for (int i = 0; i < 300 && !answer.ok(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    answer = Ask(Channel(*server, fresh));
  }
  EXPECT_THAT(answer, IsOk());
}

TEST_F(RpcServerTest, ARestartedServerIsInUseAgainWithinSeconds) {
  const TlsFiles files = Files("authn");
  auto server = StartTls(files);
  const auto channel = Channel(*server, Files("edge"));
  ASSERT_THAT(Ask(channel), IsOk());
  RpcServer::Options options;
  options.listen = "127.0.0.1:" + std::to_string(server->port());
  options.tls = files;
  server.reset();
  EXPECT_THAT(Ask(channel), StatusIs(Code::kUnavailable));

  ASSERT_OK_AND_ASSIGN(server, RpcServer::Start(options, Factory()));
  EXPECT_TRUE(channel->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(30)));
  EXPECT_THAT(Ask(channel), IsOk());
}

// As WhoCalls, but answers from a thread of its own.
class SlowWhoCalls final : public authn::v1::Authn::WithCallbackMethod_GetKeys<authn::v1::Authn::Service> {
 public:
  SlowWhoCalls(const CallGuard& guard, std::shared_ptr<const PeerIdentity> peer, const Clock& clock)
      : rpc_({kAuthn, &guard, std::move(peer), nullptr, &clock}) {}
  ~SlowWhoCalls() override {
    for (std::thread& thread : threads_) {
      thread.join();
    }
  }
  grpc::ServerUnaryReactor* GetKeys(grpc::CallbackServerContext* context, const authn::v1::GetKeysRequest* /*request*/,
                                    authn::v1::GetKeysResponse* response) override {
    return rpc_.HandleAsync("GetKeys", context, [&](const Caller& caller, RpcHandler::Done done) {
      MutexLock lock(mu_);
      threads_.emplace_back([response, service = caller.service, done = std::move(done)] {
        response->set_jwks_json(service);
        done(absl::OkStatus());
      });
    });
  }

 private:
  RpcHandler rpc_;
  Mutex mu_;
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mu_);
};

TEST_F(RpcServerTest, CallbackMethodsAnswerLaterAndAreGuarded) {
  ASSERT_OK_AND_ASSIGN(const auto server, RpcServer::Start({}, [this](std::shared_ptr<const PeerIdentity> peer) {
                         std::vector<std::unique_ptr<grpc::Service>> services;
                         services.push_back(std::make_unique<SlowWhoCalls>(guard_, std::move(peer), clock_));
                         return services;
                       }));
  EXPECT_EQ(*Ask(server->InProcessChannel("edge")), "edge");
  EXPECT_THAT(Ask(server->InProcessChannel("registry")), StatusIs(Code::kPermissionDenied));
}

TEST_F(RpcServerTest, MetadataOfTwentyKilobytesPasses) {
  const auto server = StartTls(Files("authn"));
  const auto channel = Channel(*server, Files("edge"));
  authn::v1::GetKeysResponse response;
  const auto context = MakeClientContext(absl::Seconds(30), std::string(20'000, 'x'));
  const grpc::Status status = authn::v1::Authn::NewStub(channel)->GetKeys(context.get(), {}, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << status.error_message();  // It came, and is none.
}

TEST_F(RpcServerTest, APortInUseIsAnError) {
  const auto server = StartTls(Files("authn"));
  RpcServer::Options options;
  options.listen = "127.0.0.1:" + std::to_string(server->port());
  options.tls = Files("vault");
  EXPECT_THAT(RpcServer::Start(options, Factory()), StatusIs(Code::kUnavailable, options.listen));
}

TEST_F(RpcServerTest, PlaintextIsRefusedOffLoopbackAndWithoutName) {
  RpcServer::Options options;
  options.listen = "0.0.0.0:0";
  options.insecure_peer = "edge";
  EXPECT_THAT(RpcServer::Start(options, Factory()), StatusIs(Code::kInvalidArgument, "server.tls"));
  options.listen = "127.0.0.1:0";
  options.insecure_peer = "";
  EXPECT_THAT(RpcServer::Start(options, Factory()), StatusIs(Code::kInvalidArgument, "server.tls"));
}

TEST_F(RpcServerTest, AMissingKeyFileIsNamed) {
  RpcServer::Options options;
  options.listen = "127.0.0.1:0";
  options.tls = Files("authn");
  options.tls.private_key = directory_.File("nothing.key");
  EXPECT_THAT(RpcServer::Start(options, Factory()), StatusIs(Code::kInvalidArgument, "server.tls.privateKey"));
}

TEST(MakeChannelTest, WithoutTlsOnlyLoopbackIsReached) {
  EXPECT_THAT(MakeChannel("127.0.0.1:7001", {}, "authn"), IsOk());
  EXPECT_THAT(MakeChannel("dns:///localhost:7001", {}, "authn"), IsOk());
  EXPECT_THAT(MakeChannel("dns:///authn:7001", {}, "authn"), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(MakeChannel("", {}, "authn"), StatusIs(Code::kInvalidArgument, "peers.authn"));
  EXPECT_THAT(MakeChannel("", {}, "token_broker"), StatusIs(Code::kInvalidArgument, "peers.tokenBroker"));
}

}  // namespace
}  // namespace sallyport

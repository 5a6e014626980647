// SPDX-License-Identifier: Apache-2.0
// Listeners for callers that are no services of the suite.
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.pb.h>
#include <grpc/grpc_security.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/rpc/handler.h"
#include "common/rpc/peer_names.h"
#include "common/rpc/server.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"
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
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Not;
using Code = absl::StatusCode;

constexpr char kAuthn[] = "sallyport.authn.v1.Authn";

// Answers GetKeys with the names on the caller's certificate, and GetConnector with the caller's address (`id`) and
// with whether the TLS session was resumed (`issuer`).
class WhatNames final : public authn::v1::Authn::Service {
 public:
  WhatNames(std::shared_ptr<const PeerIdentity> peer, const Clock& clock) : peer_(std::move(peer)), clock_(clock) {}
  grpc::Status GetKeys(grpc::ServerContext* context, const authn::v1::GetKeysRequest* /*request*/,
                       authn::v1::GetKeysResponse* response) override {
    const absl::StatusOr<PeerNames> names = PeerNamesOf(*context, clock_.Now());
    if (!names.ok()) return ToGrpcStatus(names.status());
    response->set_jwks_json(absl::StrCat(*peer_->ServiceOf(*context), " uri:", absl::StrJoin(names->uris, ","),
                                         " dns:", absl::StrJoin(names->dns_names, ",")));
    return grpc::Status::OK;
  }
  grpc::Status GetConnector(grpc::ServerContext* context, const authn::v1::GetConnectorRequest* /*request*/,
                            authn::v1::Connector* response) override {
    response->set_id(context->peer());
    for (const grpc::string_ref& resumed : context->auth_context()->FindPropertyValues("ssl_session_reused")) {
      response->set_issuer(std::string(resumed.data(), resumed.size()));
    }
    return grpc::Status::OK;
  }

 private:
  const std::shared_ptr<const PeerIdentity> peer_;
  const Clock& clock_;
};

class OutsideServerTest : public ::testing::Test {
 protected:
  RpcServer::Options Options() {
    RpcServer::Options options;
    options.listen = "127.0.0.1:0";
    WriteServer();
    options.tls.certificate = directory_.File("server.crt");
    options.tls.private_key = directory_.File("server.key");
    options.tls.ca_bundle = directory_.Write("clients.crt", ca_.CertificatePem());
    options.outside_peer = "guest";
    return options;
  }
  void WriteServer() {
    const TestCertificate made = MakeTestCertificate(&ca_, {}, {"server.test"});
    directory_.Write("server.key", made.KeyPem());
    directory_.Write("server.crt", made.CertificatePem());
  }
  std::unique_ptr<RpcServer> Start(const RpcServer::Options& options) {
    auto server = RpcServer::Start(options, [clock = &clock_](std::shared_ptr<const PeerIdentity> peer) {
      std::vector<std::unique_ptr<grpc::Service>> services;
      services.push_back(std::make_unique<WhatNames>(std::move(peer), *clock));
      return services;
    });
    EXPECT_THAT(server, IsOk());
    return *std::move(server);
  }
  // With `sessions` it goes on with a TLS session that is there, and leaves its own.
  std::shared_ptr<grpc::Channel> Channel(const RpcServer& server, const TestCertificate* certificate = nullptr,
                                         grpc_ssl_session_cache* sessions = nullptr) {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = ca_.CertificatePem();
    if (certificate != nullptr) {
      options.pem_cert_chain = certificate->CertificatePem();
      options.pem_private_key = certificate->KeyPem();
    }
    grpc::ChannelArguments arguments;
    arguments.SetSslTargetNameOverride("server.test");
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    if (sessions != nullptr) {
      const grpc_arg cache = grpc_ssl_session_cache_create_channel_arg(sessions);
      arguments.SetPointerWithVtable(cache.key, cache.value.pointer.p, cache.value.pointer.vtable);
    }
    return grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", server.port()), grpc::SslCredentials(options),
                                     arguments);
  }
  static absl::StatusOr<std::string> Ask(const std::shared_ptr<grpc::Channel>& channel) {
    authn::v1::GetKeysResponse response;
    const auto context = MakeClientContext(absl::Seconds(30));
    const grpc::Status status = authn::v1::Authn::NewStub(channel)->GetKeys(context.get(), {}, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response.jwks_json();
  }
  // As the server sees it.
  struct Connection {
    std::string address;  // Each has a port of its own.
    bool resumed = false;
  };
  static absl::StatusOr<Connection> ConnectionOf(const std::shared_ptr<grpc::Channel>& channel) {
    authn::v1::Connector response;
    const auto context = MakeClientContext(absl::Seconds(30));
    const grpc::Status status = authn::v1::Authn::NewStub(channel)->GetConnector(context.get(), {}, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return Connection{response.id(), response.issuer() == "true"};
  }
  // False if it did not come about within a minute.
  template <typename Predicate>
  static bool Await(Predicate predicate) {
    for (int i = 0; i < 600; ++i) {
      if (predicate()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return false;
  }

  FakeClock clock_{absl::Now()};
  TempDirectory directory_;
  TestCertificate ca_ = MakeTestCertificate(nullptr, {});
};

TEST_F(OutsideServerTest, CertificateIsVerifiedAndNotRequired) {
  const auto server = Start(Options());
  EXPECT_EQ(*Ask(Channel(*server)), "guest uri: dns:");
  const auto known = MakeTestCertificate(&ca_, {"spiffe://x/a", "urn:b"}, {"a.example"});
  EXPECT_EQ(*Ask(Channel(*server, &known)), "guest uri:spiffe://x/a,urn:b dns:a.example");
  const auto other_ca = MakeTestCertificate(nullptr, {});
  const auto stranger = MakeTestCertificate(&other_ca, {"spiffe://x/a"});
  EXPECT_THAT(Ask(Channel(*server, &stranger)), StatusIs(Code::kUnavailable));
}

TEST_F(OutsideServerTest, WithoutAuthoritiesNoCertificateIsTaken) {
  RpcServer::Options options = Options();
  options.tls.ca_bundle.clear();
  const auto server = Start(options);
  const auto known = MakeTestCertificate(&ca_, {"spiffe://x/a"});
  EXPECT_EQ(*Ask(Channel(*server, &known)), "guest uri: dns:") << "nobody has verified it";
}

TEST_F(OutsideServerTest, PlaintextIsRefused) {
  const auto server = Start(Options());
  const auto channel =
      grpc::CreateChannel(absl::StrCat("127.0.0.1:", server->port()), grpc::InsecureChannelCredentials());
  EXPECT_THAT(Ask(channel), StatusIs(Code::kUnavailable));
}

TEST_F(OutsideServerTest, RenewedCertificateIsServed) {
  const auto server = Start(Options());
  ASSERT_THAT(Ask(Channel(*server)), IsOk());
  // Of another authority: who trusts the former only must not be served by it any more.
  const std::string former = ca_.CertificatePem();
  ca_ = MakeTestCertificate(nullptr, {});
  WriteServer();
  EXPECT_TRUE(Await([&] { return Ask(Channel(*server)).ok(); }));
}

// Each connection shows its certificate once. One that began while the certificate was good must not outlive its age
// (threat model T12).
TEST_F(OutsideServerTest, ConnectionIsEndedAtItsAgeAndTheNextOneMustVerify) {
  RpcServer::Options options = Options();
  EXPECT_EQ(options.outside_age, absl::Minutes(5)) << "as the documentation says";
  const auto by_default = Start(options);
  options.outside_age = absl::Seconds(2);
  const auto server = Start(options);
  const auto known = MakeTestCertificate(&ca_, {"spiffe://x/a"});
  const auto lasting = Channel(*by_default, &known);
  const auto channel = Channel(*server, &known);
  ASSERT_THAT(Ask(lasting), IsOk());
  ASSERT_THAT(Ask(channel), IsOk());

  // The authority of its certificate is trusted no more; new connections feel it when the server has read the file.
  directory_.Write("clients.crt", MakeTestCertificate(nullptr, {}).CertificatePem());

  absl::Status last;
  EXPECT_TRUE(Await([&] { return !(last = Ask(channel).status()).ok(); })) << "the connection goes on";
  EXPECT_THAT(last, StatusIs(Code::kUnavailable));
  EXPECT_THAT(Ask(channel), StatusIs(Code::kUnavailable)) << "not even for a call";
  EXPECT_THAT(Ask(lasting), IsOk()) << "a connection that has not reached its age was looked at when it began";
}

// A client whose certificate is good notices nothing: gRPC connects again.
TEST_F(OutsideServerTest, CallsGoOnWhenAConnectionIsEndedAtItsAge) {
  RpcServer::Options options = Options();
  options.outside_age = absl::Seconds(1);
  const auto server = Start(options);
  const auto known = MakeTestCertificate(&ca_, {"spiffe://x/a"});
  const auto channel = Channel(*server, &known);
  std::set<std::string> connections;
  absl::Status failed;
  EXPECT_TRUE(Await([&] {
    const absl::StatusOr<Connection> connection = ConnectionOf(channel);
    if (connection.ok()) connections.insert(connection->address);
    failed.Update(connection.status());
    return connections.size() == 3 || !failed.ok();
  }));
  EXPECT_THAT(failed, IsOk());
}

// A resumed session is taken for its former certificate, which is not even sent.
TEST_F(OutsideServerTest, ResumedSessionCountsNoLongerThanItsCertificate) {
  const auto server = Start(Options());
  const auto known = MakeTestCertificate(&ca_, {"spiffe://x/a"});
  grpc_ssl_session_cache* const sessions = grpc_ssl_session_cache_create_lru(10);
  ASSERT_EQ(*Ask(Channel(*server, &known, sessions)), "guest uri:spiffe://x/a dns:");
  const auto resumed = Channel(*server, nullptr, sessions);
  ASSERT_OK_AND_ASSIGN(const Connection connection, ConnectionOf(resumed));
  ASSERT_TRUE(connection.resumed);
  EXPECT_EQ(*Ask(resumed), "guest uri:spiffe://x/a dns:");

  clock_.Advance(absl::Hours(2));  // Beyond the end of the certificate.

  for (const auto& channel : {resumed, Channel(*server, nullptr, sessions)}) {
    EXPECT_THAT(Ask(channel), StatusIs(Code::kUnauthenticated, "the certificate has ended"));
  }
  grpc_ssl_session_cache_destroy(sessions);
}

TEST_F(OutsideServerTest, SessionIsNotResumedWhenOtherAuthoritiesAreTrusted) {
  const auto server = Start(Options());
  const auto known = MakeTestCertificate(&ca_, {"spiffe://x/a"});
  grpc_ssl_session_cache* const sessions = grpc_ssl_session_cache_create_lru(10);
  ASSERT_THAT(Ask(Channel(*server, &known, sessions)), IsOk());
  directory_.Write("clients.crt", MakeTestCertificate(nullptr, {}).CertificatePem());
  EXPECT_TRUE(Await([&] { return !Ask(Channel(*server, &known)).ok(); })) << "the file has been read";
  ASSERT_OK_AND_ASSIGN(const Connection connection, ConnectionOf(Channel(*server, nullptr, sessions)));
  EXPECT_FALSE(connection.resumed);
  EXPECT_EQ(*Ask(Channel(*server, nullptr, sessions)), "guest uri: dns:");
  grpc_ssl_session_cache_destroy(sessions);
}

TEST_F(OutsideServerTest, LargeRequestIsRefused) {
  RpcServer::Options options = Options();
  options.max_request_bytes = 1'000;
  const auto server = Start(options);
  authn::v1::GetConnectorRequest request;
  request.set_id(std::string(2'000, 'x'));
  authn::v1::Connector response;
  const auto context = MakeClientContext(absl::Seconds(30));
  EXPECT_EQ(authn::v1::Authn::NewStub(Channel(*server))->GetConnector(context.get(), request, &response).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(OutsideServerTest, FilesMustBeThere) {
  RpcServer::Options options = Options();
  options.tls.private_key = directory_.File("none");
  EXPECT_THAT(RpcServer::Start(options, NoServices), StatusIs(Code::kInvalidArgument, "privateKey: cannot read"));
  options = Options();
  options.tls.certificate.clear();
  EXPECT_THAT(RpcServer::Start(options, NoServices), StatusIs(Code::kInvalidArgument, "certificate: is required"));
}

TEST_F(OutsideServerTest, HealthIsAnswered) {
  const auto server = Start(Options());
  server->SetServing(true);
  ASSERT_OK_AND_ASSIGN(const bool serving, IsServing(Channel(*server)));
  EXPECT_TRUE(serving);
}

// One request on a stream of its own.
template <typename Api, typename Request, typename Response>
absl::StatusOr<Response> Reflect(const std::shared_ptr<grpc::Channel>& channel, const Request& request) {
  const auto stub = Api::NewStub(channel);
  const auto context = MakeClientContext(absl::Seconds(30));
  const auto stream = stub->ServerReflectionInfo(context.get());
  Response response;
  const bool answered = stream->Write(request) && stream->Read(&response);
  stream->WritesDone();
  const grpc::Status status = stream->Finish();
  if (!status.ok()) return FromGrpcStatus(status);
  if (!answered) return absl::InternalError("no answer");
  return response;
}

std::set<std::string> FilesIn(const grpc::reflection::v1::ServerReflectionResponse& response) {
  std::set<std::string> names;
  for (const std::string& bytes : response.file_descriptor_response().file_descriptor_proto()) {
    google::protobuf::FileDescriptorProto file;
    EXPECT_TRUE(file.ParseFromString(bytes));
    names.insert(file.name());
  }
  return names;
}

class ReflectionTest : public OutsideServerTest {
 protected:
  absl::StatusOr<grpc::reflection::v1::ServerReflectionResponse> Tell(
      const grpc::reflection::v1::ServerReflectionRequest& request) {
    using grpc::reflection::v1::ServerReflection;
    return Reflect<ServerReflection, grpc::reflection::v1::ServerReflectionRequest,
                   grpc::reflection::v1::ServerReflectionResponse>(Channel(*server_), request);
  }
  void Begin(const std::vector<std::string>& reflected) {
    RpcServer::Options options = Options();
    options.reflected = reflected;
    server_ = Start(options);
  }
  std::unique_ptr<RpcServer> server_;
};

TEST_F(ReflectionTest, TellsOfItsServicesOnly) {
  Begin({kAuthn});
  grpc::reflection::v1::ServerReflectionRequest request;
  request.set_list_services("*");
  ASSERT_OK_AND_ASSIGN(const auto services, Tell(request));
  ASSERT_EQ(services.list_services_response().service_size(), 1);
  EXPECT_EQ(services.list_services_response().service(0).name(), kAuthn);

  request.set_file_containing_symbol(kAuthn);
  ASSERT_OK_AND_ASSIGN(const auto file, Tell(request));
  EXPECT_THAT(FilesIn(file), Contains("sallyport/authn/v1/authn.proto"));
  EXPECT_THAT(FilesIn(file), Contains("sallyport/common/v1/options.proto"));

  request.set_file_containing_symbol("sallyport.config.v1.TokenBrokerConfig");
  ASSERT_OK_AND_ASSIGN(const auto hidden, Tell(request));
  EXPECT_EQ(hidden.error_response().error_code(), grpc::StatusCode::NOT_FOUND);
  request.set_file_by_filename("sallyport/config/v1/services.proto");
  ASSERT_OK_AND_ASSIGN(const auto hidden_file, Tell(request));
  EXPECT_EQ(hidden_file.error_response().error_code(), grpc::StatusCode::NOT_FOUND);

  request.mutable_file_containing_extension()->set_containing_type("google.protobuf.MethodOptions");
  request.mutable_file_containing_extension()->set_extension_number(1);
  ASSERT_OK_AND_ASSIGN(const auto nothing, Tell(request));
  EXPECT_EQ(nothing.error_response().error_code(), grpc::StatusCode::NOT_FOUND);
  request.set_all_extension_numbers_of_type("google.protobuf.MethodOptions");
  ASSERT_OK_AND_ASSIGN(const auto numbers, Tell(request));
  EXPECT_GE(numbers.all_extension_numbers_response().extension_number_size(), 1);
}

TEST_F(ReflectionTest, SpeaksWithOlderClients) {
  Begin({kAuthn});
  namespace v1alpha = grpc::reflection::v1alpha;
  v1alpha::ServerReflectionRequest request;
  request.set_list_services("");
  const auto services =
      Reflect<v1alpha::ServerReflection, v1alpha::ServerReflectionRequest, v1alpha::ServerReflectionResponse>(
          Channel(*server_), request);
  ASSERT_THAT(services, IsOk());
  EXPECT_EQ(services->list_services_response().service(0).name(), kAuthn);
}

TEST_F(ReflectionTest, IsThereOnlyWhereItWasAskedFor) {
  Begin({});
  grpc::reflection::v1::ServerReflectionRequest request;
  request.set_list_services("*");
  EXPECT_THAT(Tell(request), StatusIs(Code::kUnimplemented));
  // Another listener of the same process has it.
  RpcServer::Options options = Options();
  options.reflected = {kAuthn};
  const auto other = Start(options);
  EXPECT_THAT(Tell(request), StatusIs(Code::kUnimplemented));
}

}  // namespace
}  // namespace sallyport

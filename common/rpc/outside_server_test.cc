// SPDX-License-Identifier: Apache-2.0
// Listeners for callers that are no services of the suite.
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include <gmock/gmock.h>
#include <google/protobuf/descriptor.pb.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/rpc/handler.h"
#include "common/rpc/peer_names.h"
#include "common/rpc/server.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"
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

// Answers GetKeys with the names on the caller's certificate.
class WhatNames final : public authn::v1::Authn::Service {
 public:
  explicit WhatNames(std::shared_ptr<const PeerIdentity> peer) : peer_(std::move(peer)) {}
  grpc::Status GetKeys(grpc::ServerContext* context, const authn::v1::GetKeysRequest* /*request*/,
                       authn::v1::GetKeysResponse* response) override {
    const PeerNames names = PeerNamesOf(*context);
    response->set_jwks_json(absl::StrCat(*peer_->ServiceOf(*context), " uri:", absl::StrJoin(names.uris, ","),
                                         " dns:", absl::StrJoin(names.dns_names, ",")));
    return grpc::Status::OK;
  }

 private:
  const std::shared_ptr<const PeerIdentity> peer_;
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
  static std::unique_ptr<RpcServer> Start(const RpcServer::Options& options) {
    auto server = RpcServer::Start(options, [](std::shared_ptr<const PeerIdentity> peer) {
      std::vector<std::unique_ptr<grpc::Service>> services;
      services.push_back(std::make_unique<WhatNames>(std::move(peer)));
      return services;
    });
    EXPECT_THAT(server, IsOk());
    return *std::move(server);
  }
  std::shared_ptr<grpc::Channel> Channel(const RpcServer& server, const TestCertificate* certificate = nullptr) {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = ca_.CertificatePem();
    if (certificate != nullptr) {
      options.pem_cert_chain = certificate->CertificatePem();
      options.pem_private_key = certificate->KeyPem();
    }
    grpc::ChannelArguments arguments;
    arguments.SetSslTargetNameOverride("server.test");
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
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
  absl::StatusOr<std::string> answer = absl::UnavailableError("not asked yet");
  for (int i = 0; i < 300 && !answer.ok(); ++i) {
    answer = Ask(Channel(*server));
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  EXPECT_THAT(answer, IsOk());
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

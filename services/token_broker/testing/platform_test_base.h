// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <grpcpp/security/credentials.h>

#include "sallyport/token_broker/v1/platform.grpc.pb.h"
#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/test_certs.h"

namespace sallyport::token_broker::testing {

// A broker with a listener for platforms. The platform "chat" has a certificate with the URI kChat.
class PlatformTestBase : public BrokerTestBase {
 protected:
  static constexpr char kChat[] = "spiffe://example.org/ns/chat/sa/bot";
  using Platform = ::sallyport::testing::FakePlatforms::Platform;

  PlatformTestBase() : BrokerTestBase(clock_for_all_) {
    using ::sallyport::testing::MakeTestCertificate;
    const auto server = MakeTestCertificate(&authority_, {}, {"broker.test"});
    certificate_ = certificates_.Write("server.crt", server.CertificatePem());
    private_key_ = certificates_.Write("server.key", server.KeyPem());
    client_ca_ = certificates_.Write("clients.crt", authority_.CertificatePem());
    configure_ = [this](config::v1::TokenBrokerConfig& config) {
      config::v1::PlatformListener& listener = *config.mutable_platform();
      listener.set_listen("127.0.0.1:0");
      listener.set_certificate(certificate_);
      listener.set_private_key(private_key_);
      listener.set_client_ca_bundle(client_ca_);
      if (change_listener_ != nullptr) change_listener_(listener);
    };
    peers_.platforms.Put({.id = "chat", .uris = {kChat}, .return_origins = {"https://chat.example.com"}});
  }

  // Over TLS to the platforms' listener; with these names in a certificate, or without one.
  std::shared_ptr<grpc::Channel> Channel(const TokenBrokerServer& broker, const std::vector<std::string>& uris,
                                         const std::vector<std::string>& dns_names = {}) {
    if (uris.empty() && dns_names.empty()) return ChannelWith(broker, nullptr);
    const auto made = ::sallyport::testing::MakeTestCertificate(&authority_, uris, dns_names);
    return ChannelWith(broker, &made);
  }
  std::shared_ptr<grpc::Channel> ChannelWith(const TokenBrokerServer& broker,
                                             const ::sallyport::testing::TestCertificate* certificate) {
    grpc::SslCredentialsOptions options;
    options.pem_root_certs = authority_.CertificatePem();
    if (certificate != nullptr) {
      options.pem_cert_chain = certificate->CertificatePem();
      options.pem_private_key = certificate->KeyPem();
    }
    grpc::ChannelArguments arguments;
    arguments.SetSslTargetNameOverride("broker.test");
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    return grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", broker.platform_port()), grpc::SslCredentials(options),
                                     arguments);
  }
  std::shared_ptr<grpc::Channel> Chat(const TokenBrokerServer& broker) { return Channel(broker, {kChat}); }

  static v1::PlatformUser Token(const std::string& name) {
    v1::PlatformUser user;
    user.set_subject_token(absl::StrCat("token.", name, ".x"));
    return user;
  }
  static v1::PlatformUser Subject(const std::string& subject) {
    v1::PlatformUser user;
    user.set_subject(subject);
    return user;
  }
  static v1::GetTokenRequest TokenFor(const std::string& name, const std::string& app = "github") {
    v1::GetTokenRequest request;
    *request.mutable_user() = Token(name);
    request.set_app(app);
    return request;
  }

  using Metadata = std::vector<std::pair<std::string, std::string>>;
  static std::unique_ptr<grpc::ClientContext> ContextWith(const Metadata& metadata) {
    auto context = MakeClientContext(absl::Seconds(60));
    for (const auto& [name, value] : metadata) context->AddMetadata(name, value);
    return context;
  }
  static absl::StatusOr<v1::GetTokenResponse> GetToken(const std::shared_ptr<grpc::Channel>& channel,
                                                       const v1::GetTokenRequest& request,
                                                       const Metadata& metadata = {}) {
    v1::GetTokenResponse response;
    const auto context = ContextWith(metadata);
    const grpc::Status status = v1::Platform::NewStub(channel)->GetToken(context.get(), request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }
  static absl::StatusOr<v1::StartUserLinkResponse> StartLink(const std::shared_ptr<grpc::Channel>& channel,
                                                             const v1::StartUserLinkRequest& request) {
    v1::StartUserLinkResponse response;
    const auto context = ContextWith({});
    const grpc::Status status = v1::Platform::NewStub(channel)->StartLink(context.get(), request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }
  static absl::StatusOr<v1::ListConnectionsResponse> List(const std::shared_ptr<grpc::Channel>& channel,
                                                          const v1::PlatformUser& user) {
    v1::ListUserConnectionsRequest request;
    *request.mutable_user() = user;
    v1::ListConnectionsResponse response;
    const auto context = ContextWith({});
    const grpc::Status status = v1::Platform::NewStub(channel)->ListConnections(context.get(), request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }
  static absl::StatusOr<v1::DisconnectResponse> Disconnect(const std::shared_ptr<grpc::Channel>& channel,
                                                           const v1::PlatformUser& user, const std::string& app,
                                                           const std::string& account = "") {
    v1::DisconnectUserRequest request;
    *request.mutable_user() = user;
    request.set_app(app);
    request.set_account(account);
    v1::DisconnectResponse response;
    const auto context = ContextWith({});
    const grpc::Status status = v1::Platform::NewStub(channel)->Disconnect(context.get(), request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }
  // The event of this type that came last; empty if there is none within a minute.
  audit::v1::Event Audited(const std::string& type, const std::string& rule = "") {
    if (!peers_.audit.Await(type, rule)) return {};
    audit::v1::Event last;
    for (const audit::v1::Event& event : peers_.audit.events()) {
      if (event.type() == type) last = event;
    }
    return last;
  }

  FakeClock clock_for_all_{absl::FromUnixSeconds(1'700'000'000)};
  ::sallyport::testing::TempDirectory certificates_;
  ::sallyport::testing::TestCertificate authority_ = ::sallyport::testing::MakeTestCertificate(nullptr, {});
  std::string certificate_;
  std::string private_key_;
  std::string client_ca_;
  std::function<void(config::v1::PlatformListener&)> change_listener_;
};

}  // namespace sallyport::token_broker::testing

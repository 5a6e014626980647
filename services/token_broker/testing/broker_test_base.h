// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/crypto/random.h"
#include "common/http/url.h"
#include "common/proto_time.h"
#include "common/rpc/server.h"
#include "sallyport/token_broker/v1/token_broker.grpc.pb.h"
#include "sallyport/web/v1/web.grpc.pb.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/provider_binding.h"
#include "services/token_broker/testing/fake_peers.h"
#include "services/token_broker/testing/http_provider.h"
#include "services/token_broker/token_broker_server.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::token_broker::testing {

// The whole broker in front of fake peers and a provider on loopback. One app "github" and one server "gh" that uses
// it.
class BrokerTestBase : public ::testing::Test {
 protected:
  static constexpr char kOrigin[] = "https://api.example.com";
  static constexpr char kServer[] = "srv_gh";
  static constexpr char kApp[] = "app_gh";
  // Name of the app's binding, which allows kOrigin.
  static constexpr char kBinding[] = "binding-of-gh";

  explicit BrokerTestBase(const Clock& clock)
      : clock_(clock), peers_(clock), provider_([](const HttpProvider::Request&) {
          return HttpProvider::Response{500, "", "", ""};
        }) {
    registry::v1::App* app = peers_.registry.AddApp();
    app->set_uid(kApp);
    app->set_slug("github");
    app->set_display_name("GitHub");
    app->set_authorization_url("https://provider.example/authorize");
    app->set_token_url(provider_.Url("/token"));
    app->set_revocation_url(provider_.Url("/revoke"));
    app->set_client_id("client");
    app->add_default_scopes("repo");
    app->add_allowed_upstream_origins(kOrigin);
    app_ = app;
    app->mutable_binding()->set_version(1);
    registry::v1::McpServer* server = AddServer(kServer, "gh");
    server->mutable_app_auth()->mutable_oauth_authorization()->set_app_uid(kApp);
    server->mutable_agent_auth()->mutable_interactive();
  }
  // Not before: the clock is a member of the fixture.
  void SetUp() override { PutSecret("app_binding", absl::StrCat(kApp, "/binding"), kBinding, {kOrigin}); }
  // Before the members of a fixture go, the clock above all, which the brokers' threads read.
  void TearDown() override { brokers_.clear(); }
  ~BrokerTestBase() override {
    for (const std::string& directory : directories_) std::filesystem::remove_all(directory);
  }

  registry::v1::McpServer* AddServer(const std::string& uid, const std::string& slug) {
    registry::v1::McpServer* server = peers_.registry.AddServer();
    server->set_uid(uid);
    server->set_slug(slug);
    server->set_version(1);
    server->set_upstream_url(absl::StrCat(kOrigin, "/mcp"));
    return server;
  }

  // Starts one and waits until it is ready.
  TokenBrokerServer& StartBroker() {
    TokenBrokerServer& broker = LaunchBroker();
    for (int i = 0; i < 10'000 && !broker.Ready().ok(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_TRUE(broker.Ready().ok());
    return broker;
  }
  // Starts one that may have no configuration yet.
  TokenBrokerServer& LaunchBroker() {
    config::v1::TokenBrokerConfig config;
    config.mutable_deployment()->set_public_url(kPublicUrl);
    config.mutable_deployment()->mutable_egress()->add_oauth_networks("127.0.0.0/8");
    directories_.push_back((std::filesystem::temp_directory_path() / MakeUid("broker_test_")).string());
    config.set_data_directory(directories_.back());
    if (idle_refresh_.has_value()) *config.mutable_idle_refresh() = ToProtoDuration(*idle_refresh_);
    if (!redis_address_.empty()) {
      config.mutable_redis()->set_address(redis_address_);
      config.mutable_redis()->mutable_timeout()->set_seconds(30);
    }
    if (configure_ != nullptr) configure_(config);
    absl::StatusOr<std::unique_ptr<TokenBrokerServer>> broker =
        TokenBrokerServer::Start(config, clock_, {peers_.Channel(), peers_.Channel(), peers_.Channel()});
    EXPECT_TRUE(broker.ok()) << broker.status();
    brokers_.push_back(*std::move(broker));
    return *brokers_.back();
  }

  Passport CallPassport(const std::string& subject = "corp:ada", const std::string& server = kServer) const {
    Passport passport;
    passport.subject = subject;
    passport.server_uid = server;
    passport.session_id = "ses_" + subject;
    passport.purpose = Passport::Purpose::kCall;
    return passport;
  }
  Passport LinkPassport(const std::string& subject = "corp:ada") const {
    Passport passport;
    passport.subject = subject;
    passport.session_id = "ses_" + subject;
    passport.purpose = Passport::Purpose::kLink;
    passport.link_server_uids = {kServer};
    return passport;
  }

  // As the edge.
  absl::StatusOr<v1::ResolveCredentialsResponse> Resolve(TokenBrokerServer& broker,
                                                         v1::ResolveCredentialsRequest request,
                                                         const std::string& passport) {
    if (request.server_uid().empty()) request.set_server_uid(kServer);
    if (request.server_version() == 0) request.set_server_version(1);
    if (request.upstream_origin().empty()) request.set_upstream_origin(kOrigin);
    const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
    v1::ResolveCredentialsResponse response;
    const auto context = MakeClientContext(absl::Seconds(60), passport);
    const grpc::Status status = stub->ResolveCredentials(context.get(), request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }

  // As a browser: a POST tells the page it comes from.
  web::v1::WebResponse Browse(TokenBrokerServer& broker, const std::string& method, const std::string& target,
                              const std::string& passport, const std::string& body = "") {
    return Browse(broker, method, target, passport, body,
                  method == "POST" ? std::vector<std::pair<std::string, std::string>>{{"origin", kPublicUrl}}
                                   : std::vector<std::pair<std::string, std::string>>());
  }
  web::v1::WebResponse Browse(TokenBrokerServer& broker, const std::string& method, const std::string& target,
                              const std::string& passport, const std::string& body,
                              const std::vector<std::pair<std::string, std::string>>& headers) {
    web::v1::WebRequest request;
    request.set_method(method);
    const size_t mark = target.find('?');
    request.set_path(target.substr(0, mark));
    if (mark != std::string::npos) request.set_query(target.substr(mark + 1));
    request.set_body(body);
    request.set_passport(passport);
    for (const auto& [name, value] : headers) {
      web::v1::Header* header = request.add_headers();
      header->set_name(name);
      header->set_value(value);
    }
    const auto stub = web::v1::Web::NewStub(broker.InProcessChannel("edge"));
    web::v1::WebResponse response;
    const auto context = MakeClientContext(absl::Seconds(30));
    const grpc::Status status = stub->Handle(context.get(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }
  static std::string HeaderOf(const web::v1::WebResponse& response, const std::string& name) {
    for (const auto& header : response.headers()) {
      if (header.name() == name) return header.value();
    }
    return "";
  }

  // Puts a connection into the vault as a link would. A `ttl` without end: so is the token.
  void PutConnection(const std::string& subject, const std::string& connection, absl::Duration age, absl::Duration ttl,
                     const std::string& refresh_token = "rt0", const std::map<std::string, std::string>& labels = {}) {
    v1::TokenSet tokens;
    tokens.set_access_token("at0-of-" + subject);
    tokens.set_refresh_token(refresh_token);
    tokens.add_scopes("repo");
    *tokens.mutable_obtained_at() = ToTimestamp(clock_.Now() - age);
    if (ttl != absl::InfiniteDuration()) *tokens.mutable_expires_at() = ToTimestamp(clock_.Now() - age + ttl);
    vault::v1::PutRequest put;
    *put.mutable_record() = ConnectionRecord(subject, connection);
    put.set_payload(tokens.SerializeAsString());
    for (const auto& [name, value] : LabelsOf(tokens, connection)) (*put.mutable_labels())[name] = value;
    if (connection == kApp) {
      Provider provider;
      provider.token_url = app_->token_url();
      provider.revocation_url = app_->revocation_url();
      (*put.mutable_labels())[kBoundTo] = BoundTo(provider);
      // With a label of the test's own it is a connection of an earlier release.
      if (labels.count(kBoundTo) == 0) {
        *tokens.mutable_provenance() = MadeAt(provider, kBinding);
        put.set_payload(tokens.SerializeAsString());
      }
    }
    for (const auto& [name, value] : labels) (*put.mutable_labels())[name] = value;
    EXPECT_TRUE(peers_.vault.Put(put, "passport-of:" + subject).ok());
  }
  // The app is configured anew, and the broker has heard of it.
  void PointAppAt(TokenBrokerServer& broker, const std::string& token_url) {
    const std::string marker = MakeUid("srv_");
    peers_.registry.Change([&](registry::v1::WatchEvent::Snapshot& snapshot) {
      app_->set_token_url(token_url);
      // A server that comes with it shows that it has arrived.
      registry::v1::McpServer* server = snapshot.add_mcp_servers();
      server->set_uid(marker);
      server->set_slug(absl::StrCat("marker", snapshot.mcp_servers_size()));
      server->set_version(1);
      server->set_upstream_url(absl::StrCat(kOrigin, "/mcp"));
      server->mutable_app_auth()->mutable_passthrough();
    });
    v1::ResolveCredentialsRequest request;
    request.set_server_uid(marker);
    for (int i = 0; i < 5'000 && !Resolve(broker, request, "").ok(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_TRUE(Resolve(broker, request, "").ok());
  }
  // Until the broker has heard what the registry has said so far.
  void AwaitHeard(TokenBrokerServer& broker) {
    registry::v1::McpServer marker;
    marker.set_uid(MakeUid("srv_"));
    marker.set_slug(absl::StrCat("heard", ++markers_));
    marker.set_version(1);
    marker.set_upstream_url(absl::StrCat(kOrigin, "/mcp"));
    marker.mutable_app_auth()->mutable_passthrough();
    peers_.registry.Put(marker);
    v1::ResolveCredentialsRequest request;
    request.set_server_uid(marker.uid());
    for (int i = 0; i < 5'000 && !Resolve(broker, request, "").ok(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_TRUE(Resolve(broker, request, "").ok());
  }
  // May be sent to the upstream and to the provider, unless the test says otherwise.
  void PutSecret(const std::string& kind, const std::string& name, const std::string& value) {
    PutSecret(kind, name, value, {kOrigin, Url::Parse(provider_.Url("/"))->origin()});
  }
  void PutSecret(const std::string& kind, const std::string& name, const std::string& value,
                 const std::vector<std::string>& origins) {
    vault::v1::PutRequest put;
    *put.mutable_record() = OrganizationRecord(kind, name);
    put.set_payload(value);
    put.mutable_origins()->Assign(origins.begin(), origins.end());
    EXPECT_TRUE(peers_.vault.Put(FakeVaultClient::Registry(), put).ok());
  }

  const Clock& clock_;
  FakePeers peers_;
  HttpProvider provider_;
  registry::v1::App* app_ = nullptr;
  // Of brokers started from now on.
  std::string redis_address_;
  std::optional<absl::Duration> idle_refresh_;
  std::function<void(config::v1::TokenBrokerConfig&)> configure_;
  std::vector<std::string> directories_;
  int markers_ = 0;
  std::vector<std::unique_ptr<TokenBrokerServer>> brokers_;
};

}  // namespace sallyport::token_broker::testing

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/authn_server.h"

#include <atomic>
#include <chrono>
#include <thread>

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "common/crypto/crypto.h"
#include "common/text/base64url.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "sallyport/authn/v1/clients.grpc.pb.h"
#include "sallyport/authn/v1/issuers.grpc.pb.h"
#include "sallyport/authn/v1/platforms.grpc.pb.h"
#include "sallyport/token_broker/v1/endings.grpc.pb.h"
#include "sallyport/web/v1/web.grpc.pb.h"
#include "services/authn/admin_token.h"
#include "services/authn/authn_service.h"
#include "services/authn/authn_testing.h"
#include "services/authn/platforms/platforms_testing.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fakes/fake_audit.h"
#include "tests/testing/fakes/fake_registry.h"
#include "tests/testing/fakes/in_process.h"
#include "tests/testing/http_server.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr char kUrl[] = "https://gw.example";
constexpr char kIssuer[] = "https://idp.example";

registry::v1::McpServer Server(const std::string& slug, const std::string& group) {
  registry::v1::McpServer server;
  server.set_uid("srv_" + slug);
  server.set_slug(slug);
  server.set_version(1);
  auto& interactive = *server.mutable_agent_auth()->mutable_interactive();
  interactive.mutable_allow()->add_groups(group);
  auto& trusted = *interactive.add_trusted_connectors();
  trusted.set_connector("corp");
  trusted.add_audiences("api://mcp");
  server.mutable_app_auth()->mutable_oauth_authorization()->set_app("hub");
  server.mutable_app_auth()->mutable_oauth_authorization()->set_app_uid("app_hub");
  return server;
}

// The broker's part of ending things.
class FakeEndings final : public token_broker::v1::Endings::Service {
 public:
  grpc::Status EndConnections(grpc::ServerContext* context, const token_broker::v1::EndConnectionsRequest* request,
                              token_broker::v1::EndConnectionsResponse* response) override {
    MutexLock lock(mu_);
    subjects_.push_back(request->subject());
    app_uids_.push_back(request->app_uid());
    with_passport_ = context->client_metadata().count(kPassportMetadata) == 1;
    response->set_keys_destroyed(request->whole_user());
    return grpc::Status::OK;
  }
  std::vector<std::string> subjects() {
    MutexLock lock(mu_);
    return subjects_;
  }
  std::vector<std::string> app_uids() {
    MutexLock lock(mu_);
    return app_uids_;
  }
  bool with_passport() {
    MutexLock lock(mu_);
    return with_passport_;
  }

 private:
  Mutex mu_;
  std::vector<std::string> subjects_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> app_uids_ ABSL_GUARDED_BY(mu_);
  bool with_passport_ ABSL_GUARDED_BY(mu_) = false;
};

class AuthnServerTest : public ::testing::Test {
 protected:
  AuthnServerTest()
      : idp_(kIssuer), vault_service_(vault_, "authn"), peers_({&vault_service_, &registry_, &audit_, &endings_}) {
    registry::v1::App hub;
    hub.set_uid("app_hub");
    hub.set_slug("hub");
    registry_.PutApp(hub);
    registry_.Put(Server("a", "team"));
    registry_.Put(Server("b", "other-team"));
    config_.mutable_database()->set_sqlite(directory_.path() + "/authn.db");
    config_.mutable_deployment()->set_public_url(kUrl);
    config_.set_data_directory(directory_.path());
    EXPECT_THAT(WriteFileAtomic(directory_.path() + "/jwks", idp_.Jwks()), IsOk());
    auto& corp = *config_.add_connectors();
    corp.set_id("corp");
    corp.mutable_oidc()->set_issuer(kIssuer);
    corp.mutable_oidc()->set_jwks_file(directory_.path() + "/jwks");
  }
  ~AuthnServerTest() override { server_.reset(); }

  void Start() {
    auto started = AuthnServer::Start(config_, clock_, {peers_.channel(), peers_.channel(), peers_.channel()});
    ASSERT_THAT(started, IsOk());
    server_ = *std::move(started);
  }
  template <typename Condition>
  bool Eventually(Condition condition) {
    for (int i = 0; i < 1000; ++i) {
      if (condition()) {
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  void StartReady() {
    Start();
    ASSERT_TRUE(Eventually([this] { return server_->Ready().ok(); }));
  }
  std::unique_ptr<v1::Authn::Stub> As(const std::string& caller) {
    return v1::Authn::NewStub(server_->InProcessChannel(caller));
  }
  absl::StatusOr<v1::AuthenticateResponse> Authenticate(const std::string& slug, const std::string& token) {
    v1::AuthenticateRequest request;
    request.set_server_uid("srv_" + slug);
    request.set_server_version(1);
    request.set_token(token);
    v1::AuthenticateResponse response;
    const grpc::Status status = As("edge")->Authenticate(MakeClientContext(absl::Minutes(1)).get(), request, &response);
    return status.ok() ? absl::StatusOr<v1::AuthenticateResponse>(response) : FromGrpcStatus(status);
  }
  // The bootstrap administrator's passport.
  std::string AdminPassport() {
    v1::RedeemAdminTokenRequest redeem;
    redeem.set_token(std::string(ReadSecretFile(directory_.path() + "/" + AdminToken::kFileName)->Expose()));
    v1::RedeemAdminTokenResponse redeemed;
    EXPECT_TRUE(As("edge")->RedeemAdminToken(MakeClientContext(absl::Minutes(1)).get(), redeem, &redeemed).ok());
    v1::GetPassportRequest request;
    request.set_api_token(redeemed.access_token());
    request.set_purpose(v1::GetPassportRequest::API);
    v1::GetPassportResponse response;
    const grpc::Status status = As("edge")->GetPassport(MakeClientContext(absl::Minutes(1)).get(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.passport();
  }

  FakeClock clock_{absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()))};
  TempDirectory directory_;
  TestIssuer idp_;
  FakeVaultClient vault_;
  sallyport::testing::FakeVaultService vault_service_;
  sallyport::testing::FakeRegistry registry_;
  sallyport::testing::FakeAudit audit_;
  FakeEndings endings_;
  sallyport::testing::InProcessServer peers_;
  config::v1::AuthnConfig config_;
  std::unique_ptr<AuthnServer> server_;
};

TEST_F(AuthnServerTest, StartsWithoutItsVaultSaysSoAndRecovers) {
  vault_.Fail(absl::UnavailableError("sealed"));
  Start();
  EXPECT_THAT(server_->Ready(), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(Authenticate("a", idp_.Token(clock_.Now(), {{"groups", {"team"}}})),
              StatusIs(absl::StatusCode::kUnavailable));

  vault_.Fail(absl::OkStatus());
  ASSERT_TRUE(Eventually([this] { return server_->Ready().ok(); }));
  EXPECT_THAT(Authenticate("a", idp_.Token(clock_.Now(), {{"groups", {"team"}}})), IsOk());
}

TEST_F(AuthnServerTest, AServiceAccountOfTheConfigurationAdministers) {
  const platforms::TestCluster cluster;
  EXPECT_THAT(WriteFileAtomic(directory_.path() + "/cluster", cluster.Jwks()), IsOk());
  *config_.add_kubernetes() = cluster.Config("main");
  config_.mutable_kubernetes(0)->set_jwks_file(directory_.path() + "/cluster");
  config_.mutable_roles()->add_admin_service_accounts("ops/admin");
  StartReady();
  v1::RedeemServiceAccountTokenRequest redeem;
  redeem.set_token(cluster.TokenOf(clock_.Now(), "ops", "admin"));
  v1::RedeemServiceAccountTokenResponse redeemed;
  ASSERT_TRUE(As("edge")->RedeemServiceAccountToken(MakeClientContext(absl::Minutes(1)).get(), redeem, &redeemed).ok());

  v1::GetPassportRequest request;
  request.set_api_token(redeemed.access_token());
  request.set_purpose(v1::GetPassportRequest::API);
  v1::GetPassportResponse response;
  ASSERT_TRUE(As("edge")->GetPassport(MakeClientContext(absl::Minutes(1)).get(), request, &response).ok());
  EXPECT_THAT(response.principal().roles(), ElementsAre(v1::ADMIN));
  EXPECT_EQ(response.principal().subject(), "sallyport:service-account:main:ops/admin");
  EXPECT_EQ(As("token_broker")
                ->RedeemServiceAccountToken(MakeClientContext(absl::Minutes(1)).get(), redeem, &redeemed)
                .error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(AuthnServerTest, DecisionsAboutKnownCallersReachTheAuditStore) {
  StartReady();
  EXPECT_THAT(Authenticate("a", idp_.Token(clock_.Now(), {{"groups", {"team"}}})), IsOk());
  EXPECT_THAT(Authenticate("b", idp_.Token(clock_.Now(), {{"groups", {"team"}}})),
              StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(Authenticate("a", "garbage"), StatusIs(absl::StatusCode::kUnauthenticated));

  ASSERT_TRUE(Eventually([this] { return audit_.types().size() >= 2; }));
  EXPECT_THAT(audit_.types(), ElementsAre("mcp.admitted", "mcp.denied"));
}

TEST_F(AuthnServerTest, RefusedTokensSayWhichCheckFailed) {
  StartReady();
  const int64_t now = absl::ToUnixSeconds(clock_.Now());
  const auto reason = [this](const std::string& token) {
    const absl::Status status = Authenticate("a", token).status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnauthenticated));
    EXPECT_EQ(DetailOf(status).oauth_error, "invalid_token");
    EXPECT_EQ(status.message(), "the access token was not accepted") << "one message whatever was wrong";
    return ReasonOf(status);
  };
  const auto with = [this](const nlohmann::json& change) { return idp_.Token(clock_.Now(), change); };
  EXPECT_EQ(reason(with({{"exp", now - 60}})), "expired");
  EXPECT_EQ(reason(with({{"exp", now}})), "expired") << "within the leeway for clocks, too";
  EXPECT_EQ(reason(with({{"nbf", now + 3600}})), "not_yet_valid");
  EXPECT_EQ(reason(with({{"aud", "api://other"}})), "wrong_audience");
  EXPECT_EQ(reason(with({{"iss", "https://idp.example/"}})), "wrong_issuer");
  const std::string good = with({});
  const std::string input = good.substr(0, good.rfind('.'));
  EXPECT_EQ(reason(absl::StrCat(input, ".", Base64UrlEncode(std::string(64, '\1')))), "bad_signature");
  EXPECT_EQ(reason(TestIssuer(kIssuer).Token(clock_.Now())), "unknown_key");
  for (const char* algorithm : {"none", "HS256"}) {
    const std::string header = Base64UrlEncode(absl::StrCat(R"({"alg":")", algorithm, "\"}"));
    EXPECT_EQ(reason(absl::StrCat(header, input.substr(input.find('.')), ".AAAA")), "algorithm");
  }
  EXPECT_EQ(reason("garbage"), "malformed_token");
}

TEST_F(AuthnServerTest, OnlyThoseInTheTableMayCall) {
  StartReady();
  v1::AuthenticateResponse response;
  const grpc::Status status =
      As("token_broker")->Authenticate(MakeClientContext(absl::Minutes(1)).get(), v1::AuthenticateRequest(), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::PERMISSION_DENIED);
  v1::Connector connector;
  EXPECT_EQ(As("edge")
                ->GetConnector(MakeClientContext(absl::Minutes(1)).get(), v1::GetConnectorRequest(), &connector)
                .error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(AuthnServerTest, TheBrokerAloneAsksAboutPlatforms) {
  auto& chat = *config_.add_platforms();
  chat.set_id("chat");
  chat.add_certificate_uris("spiffe://example.org/chat");
  chat.add_subject_token_audiences("api://chat");
  chat.add_grants()->add_apps("hub");
  StartReady();
  v1::AuthenticatePlatformRequest request;
  request.add_certificate_uris("spiffe://example.org/chat");
  request.set_subject_token(idp_.Token(clock_.Now(), {{"aud", "api://chat"}}));
  const auto ask = [&](const std::string& caller, v1::AuthenticatePlatformResponse& response) {
    return v1::Platforms::NewStub(server_->InProcessChannel(caller))
        ->AuthenticatePlatform(MakeClientContext(absl::Minutes(1)).get(), request, &response);
  };
  v1::AuthenticatePlatformResponse response;
  for (const char* caller : {"edge", "registry", "vault"}) {
    EXPECT_EQ(ask(caller, response).error_code(), grpc::StatusCode::PERMISSION_DENIED) << caller;
  }
  const grpc::Status status = ask("token_broker", response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.platform(), "chat");
  EXPECT_THAT(response.apps(), ElementsAre("hub"));
  EXPECT_THAT(response.passport(), Not(IsEmpty()));
}

TEST_F(AuthnServerTest, AnAdministratorComesInOnceAndMayRevoke) {
  StartReady();
  const std::string passport = AdminPassport();
  v1::Principal me;
  ASSERT_TRUE(As("edge")->WhoAmI(MakeClientContext(absl::Minutes(1), passport).get(), v1::WhoAmIRequest(), &me).ok());
  EXPECT_EQ(me.subject(), kBootstrapSubject);
  EXPECT_THAT(me.roles(), Contains(v1::ADMIN));

  registry_.SetPublishFails(true);
  v1::RevokeUserRequest request;
  request.set_subject("corp:ann");
  v1::RevokeUserResponse response;
  const grpc::Status status =
      As("edge")->RevokeUser(MakeClientContext(absl::Minutes(1), passport).get(), request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_TRUE(response.keys_destroyed());
  EXPECT_THAT(endings_.subjects(), ElementsAre("corp:ann"));
  EXPECT_TRUE(endings_.with_passport());
  // A registry that was down hears of it later.
  registry_.SetPublishFails(false);
  EXPECT_TRUE(Eventually([this] { return !registry_.invalidations().empty(); }));
  ASSERT_EQ(registry_.invalidations().size(), 1U);
  EXPECT_EQ(registry_.invalidations()[0].kind(), registry::v1::Invalidation::SUBJECT);
  EXPECT_EQ(registry_.invalidations()[0].key(), "corp:ann");
}

TEST_F(AuthnServerTest, AdministratorsEndConnectionsAndServersAndOthersDoNot) {
  StartReady();
  const std::string admin = AdminPassport();
  ASSERT_OK_AND_ASSIGN(auto user, Authenticate("a", idp_.Token(clock_.Now(), {{"groups", {"team"}}})));
  auto revocation = v1::Revocation::NewStub(server_->InProcessChannel("edge"));
  auto clients = v1::Clients::NewStub(server_->InProcessChannel("edge"));
  const auto codes = [&](const std::string& passport) {
    v1::RevokeConnectionsRequest connections;
    connections.set_app("hub");
    v1::RevokeConnectionsResponse ended;
    v1::RevokeServerRequest of_server;
    of_server.set_server("a");
    v1::RevokeServerResponse server;
    v1::ListClientsResponse all;
    v1::RemoveClientRequest remove;
    remove.set_client_id("sallyport-cli");
    v1::RemoveClientResponse removed;
    v1::ListOwnClientsResponse own;
    const auto context = [&] { return MakeClientContext(absl::Minutes(1), passport); };
    return std::vector<int>{revocation->RevokeConnections(context().get(), connections, &ended).error_code(),
                            revocation->RevokeServer(context().get(), of_server, &server).error_code(),
                            clients->ListClients(context().get(), {}, &all).error_code(),
                            clients->RemoveClient(context().get(), remove, &removed).error_code(),
                            clients->ListOwnClients(context().get(), {}, &own).error_code()};
  };
  constexpr int kDenied = grpc::StatusCode::PERMISSION_DENIED;
  constexpr int kUnknown = grpc::StatusCode::UNAUTHENTICATED;
  EXPECT_THAT(codes(""), ElementsAre(kUnknown, kUnknown, kUnknown, kUnknown, kUnknown));
  EXPECT_THAT(codes(user.passport()), ElementsAre(kDenied, kDenied, kDenied, kDenied, 0));
  EXPECT_THAT(endings_.app_uids(), ::testing::IsEmpty());
  EXPECT_THAT(codes(admin), ElementsAre(0, 0, 0, 0, 0));
  EXPECT_THAT(endings_.app_uids(), ElementsAre("app_hub"));
  for (const char* other : {"token_broker", "vault", "registry"}) {
    v1::ListClientsResponse all;
    EXPECT_EQ(v1::Clients::NewStub(server_->InProcessChannel(other))
                  ->ListClients(MakeClientContext(absl::Minutes(1), admin).get(), {}, &all)
                  .error_code(),
              kDenied)
        << other;
  }
}

TEST_F(AuthnServerTest, RevokingAUserRefusesTokensOfConnectorsIssuedBefore) {
  StartReady();
  const std::string passport = AdminPassport();
  const std::string old = idp_.Token(clock_.Now(), {{"groups", {"team"}}});
  ASSERT_THAT(Authenticate("a", old), IsOk());
  v1::RevokeUserRequest request;
  request.set_subject("corp:ann");
  v1::RevokeUserResponse response;
  ASSERT_TRUE(As("edge")->RevokeUser(MakeClientContext(absl::Minutes(1), passport).get(), request, &response).ok());

  EXPECT_THAT(Authenticate("a", old), StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_TRUE(Eventually([this] { return !registry_.invalidations().empty(); })) << "edges forget what they know";
  clock_.Advance(absl::Seconds(2));
  EXPECT_THAT(Authenticate("a", idp_.Token(clock_.Now(), {{"groups", {"team"}}})), IsOk());
}

TEST_F(AuthnServerTest, ConnectorsSayWhetherTheyCanGiveGroups) {
  auto& local = *config_.add_connectors();
  local.set_id("local");
  auto& lena = *local.mutable_local()->add_users();
  lena.set_username("lena");
  lena.set_password_hash(HashPassword(Secret(std::string("secret"))));
  StartReady();
  v1::ListConnectorsResponse response;
  ASSERT_TRUE(As("registry")->ListConnectors(MakeClientContext(absl::Minutes(1)).get(), {}, &response).ok());
  ASSERT_EQ(response.connectors_size(), 2);
  EXPECT_FALSE(response.connectors(0).without_groups());
  EXPECT_TRUE(response.connectors(1).without_groups());
}

TEST(ValidateAuthnConfigTest, GroupOfARoleMustSayWhoseItIsWhileSeveralConnectorsGiveGroups) {
  config::v1::AuthnConfig config;
  config.mutable_database()->set_sqlite("/tmp/authn.db");
  config.mutable_deployment()->set_public_url(kUrl);
  for (const char* id : {"corp", "partner"}) {
    auto& connector = *config.add_connectors();
    connector.set_id(id);
    connector.mutable_oidc()->set_issuer(kIssuer);
  }
  config.mutable_roles()->add_admin_groups("platform-team");
  EXPECT_THAT(ValidateAuthnConfig(config),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "roles.adminGroups[0]: \"platform-team\" may be a group of several connectors: write "
                       "corp:platform-team or partner:platform-team"));
  config.mutable_roles()->set_admin_groups(0, "corp:platform-team");
  EXPECT_THAT(ValidateAuthnConfig(config), IsOk());
  config.mutable_roles()->set_admin_groups(0, "platform-team");
  config.mutable_connectors()->RemoveLast();
  EXPECT_THAT(ValidateAuthnConfig(config), IsOk());
}

TEST_F(AuthnServerTest, RevokingNeedsThePassportOfAnAdministrator) {
  StartReady();
  v1::RevokeUserRequest request;
  request.set_subject("corp:ann");
  v1::RevokeUserResponse response;
  EXPECT_EQ(As("edge")->RevokeUser(MakeClientContext(absl::Minutes(1)).get(), request, &response).error_code(),
            grpc::StatusCode::UNAUTHENTICATED);
  ASSERT_OK_AND_ASSIGN(auto user, Authenticate("a", idp_.Token(clock_.Now(), {{"groups", {"team"}}})));
  EXPECT_EQ(As("edge")
                ->RevokeUser(MakeClientContext(absl::Minutes(1), user.passport()).get(), request, &response)
                .error_code(),
            grpc::StatusCode::PERMISSION_DENIED);
}

TEST_F(AuthnServerTest, ThePagesAreServedToTheEdge) {
  StartReady();
  auto stub = sallyport::web::v1::Web::NewStub(server_->InProcessChannel("edge"));
  ::sallyport::web::v1::WebRequest request;
  request.set_method("GET");
  request.set_path("/.well-known/oauth-authorization-server");
  ::sallyport::web::v1::WebResponse response;
  ASSERT_TRUE(stub->Handle(MakeClientContext(absl::Minutes(1)).get(), request, &response).ok());
  EXPECT_EQ(response.status(), 200);
  EXPECT_NE(response.body().find(kUrl), std::string::npos);
}

TEST_F(AuthnServerTest, ConnectorsAreListedAndUnknownOnesAreNotFound) {
  StartReady();
  v1::ListConnectorsResponse list;
  ASSERT_TRUE(As("registry")
                  ->ListConnectors(MakeClientContext(absl::Minutes(1)).get(), v1::ListConnectorsRequest(), &list)
                  .ok());
  ASSERT_EQ(list.connectors_size(), 1);
  EXPECT_EQ(list.connectors(0).id(), "corp");
  v1::GetConnectorRequest request;
  request.set_id("none");
  v1::Connector connector;
  EXPECT_EQ(
      As("token_broker")->GetConnector(MakeClientContext(absl::Minutes(1)).get(), request, &connector).error_code(),
      grpc::StatusCode::NOT_FOUND);
}

TEST_F(AuthnServerTest, TheRegistryHearsWhatAnIssuerAnnouncesAndNobodyElseDoes) {
  std::atomic<int> asked{0};
  std::string document;
  ::sallyport::testing::TestHttpServer provider([&](const auto& /*request*/) {
    ++asked;
    return ::sallyport::testing::TestHttpServer::Response{.headers = {{"Content-Type", "application/json"}},
                                                          .body = document};
  });
  const std::string issuer = absl::StrCat("http://127.0.0.1:", provider.port());
  document =
      absl::StrCat(R"({"issuer":")", issuer, R"(","token_endpoint_auth_methods_supported":["client_secret_post"]})");
  config_.mutable_deployment()->mutable_egress()->add_oauth_networks("127.0.0.0/8");
  StartReady();
  v1::DescribeIssuerRequest request;
  request.set_issuer(issuer);
  v1::DescribeIssuerResponse response;
  const auto ask = [&](const std::string& caller) {
    return v1::Issuers::NewStub(server_->InProcessChannel(caller))
        ->DescribeIssuer(MakeClientContext(absl::Seconds(30)).get(), request, &response)
        .error_code();
  };
  for (const char* other : {"edge", "token_broker", "vault"}) {
    EXPECT_EQ(ask(other), grpc::StatusCode::PERMISSION_DENIED) << other;
  }
  EXPECT_EQ(asked, 0);
  ASSERT_EQ(ask("registry"), grpc::StatusCode::OK);
  ASSERT_EQ(response.token_endpoint_auth_methods_size(), 1);
  EXPECT_EQ(response.token_endpoint_auth_methods(0), "client_secret_post");
  EXPECT_EQ(ask("registry"), grpc::StatusCode::OK);
  EXPECT_EQ(asked, 1) << "kept";
  // Said by nobody: basic (RFC 8414 section 2).
  document = absl::StrCat(R"({"issuer":")", issuer, R"("})");
  clock_.Advance(absl::Minutes(11));
  ASSERT_EQ(ask("registry"), grpc::StatusCode::OK);
  ASSERT_EQ(response.token_endpoint_auth_methods_size(), 1);
  EXPECT_EQ(response.token_endpoint_auth_methods(0), "client_secret_basic");
  // Outside the networks that may be reached.
  request.set_issuer("http://10.1.2.3");
  EXPECT_NE(ask("registry"), grpc::StatusCode::OK);
}

TEST_F(AuthnServerTest, WithoutACredentialThereIsNoPassport) {
  StartReady();
  for (const char* cookie : {"", "__Host-sallyport-session=guess", "other=1"}) {
    v1::GetPassportRequest request;
    request.set_cookie(cookie);
    request.set_purpose(v1::GetPassportRequest::API);
    v1::GetPassportResponse response;
    EXPECT_EQ(As("edge")->GetPassport(MakeClientContext(absl::Minutes(1)).get(), request, &response).error_code(),
              grpc::StatusCode::UNAUTHENTICATED);
  }
}

struct BadSetting {
  const char* name;
  void (*change)(config::v1::AuthnConfig&);
  const char* field;
};
class AuthnConfigTest : public ::testing::TestWithParam<BadSetting> {};
TEST_P(AuthnConfigTest, IsRefusedByField) {
  config::v1::AuthnConfig config;
  config.mutable_deployment()->set_public_url(kUrl);
  config.mutable_database()->set_sqlite("authn.db");
  ASSERT_THAT(ValidateAuthnConfig(config), IsOk());
  GetParam().change(config);
  EXPECT_THAT(ValidateAuthnConfig(config), StatusIs(absl::StatusCode::kInvalidArgument, GetParam().field));
}
using A = config::v1::AuthnConfig;
TEST(AuthnConfig, AProcessOfItsOwnNeedsAListenerAndPeers) {
  A config;
  config.mutable_deployment()->set_public_url(kUrl);
  config.mutable_database()->set_sqlite("authn.db");
  const absl::Status status = ValidateSplitConfig(config);
  for (const char* field :
       {"server.listen", "server.tls.certificate", "server.tls.trustDomain", "peers.registry", "peers.vault"}) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, field));
  }
}
INSTANTIATE_TEST_SUITE_P(
    Config, AuthnConfigTest,
    ::testing::Values(
        BadSetting{"NoUrl", [](A& a) { a.mutable_deployment()->clear_public_url(); }, "deployment.publicUrl"},
        BadSetting{"TrailingSlash", [](A& a) { a.mutable_deployment()->set_public_url("https://gw.example/"); },
                   "publicUrl"},
        BadSetting{"Path", [](A& a) { a.mutable_deployment()->set_public_url("https://gw.example/x"); }, "publicUrl"},
        BadSetting{"UpperCase", [](A& a) { a.mutable_deployment()->set_public_url("https://GW.example"); },
                   "publicUrl"},
        BadSetting{"DefaultPort", [](A& a) { a.mutable_deployment()->set_public_url("https://gw.example:443"); },
                   "publicUrl"},
        BadSetting{"PlainHttp", [](A& a) { a.mutable_deployment()->set_public_url("http://gw.example"); }, "publicUrl"},
        BadSetting{"ShortToken", [](A& a) { a.mutable_access_token_lifetime()->set_seconds(4); },
                   "accessTokenLifetime"},
        BadSetting{"LongToken", [](A& a) { a.mutable_access_token_lifetime()->set_seconds(90'000); },
                   "accessTokenLifetime"},
        BadSetting{"NoDatabase", [](A& a) { a.clear_database(); }, "database"},
        BadSetting{"OutboxLimit", [](A& a) { a.mutable_database()->set_audit_outbox_limit(5); },
                   "database.auditOutboxLimit"},
        BadSetting{"NoPasswordFile", [](A& a) { a.mutable_database()->set_password_file("/none"); },
                   "database.passwordFile"},
        BadSetting{"Network", [](A& a) { a.mutable_deployment()->mutable_egress()->add_oauth_networks("x"); },
                   "deployment.egress.oauthNetworks"},
        BadSetting{"CaBundle", [](A& a) { a.mutable_deployment()->mutable_egress()->set_ca_bundle("/none"); },
                   "deployment.egress.caBundle"},
        BadSetting{"Connector", [](A& a) { a.add_connectors()->set_id("corp"); }, "connectors[0]"},
        BadSetting{"RoleAccount", [](A& a) { a.mutable_roles()->add_admin_service_accounts("ops/admin"); },
                   "roles.adminServiceAccounts[0]"},
        BadSetting{"FurtherHost", [](A& a) { a.mutable_deployment()->add_extra_hosts("https://gw.internal"); },
                   "deployment.extraHosts[0]"},
        BadSetting{"NegativeToken", [](A& a) { a.mutable_access_token_lifetime()->set_seconds(-3600); },
                   "accessTokenLifetime"},
        BadSetting{"LongSession", [](A& a) { a.mutable_session_lifetime()->set_seconds(30 * 86'400 + 1); },
                   "sessionLifetime"},
        BadSetting{"ShortSession", [](A& a) { a.mutable_session_lifetime()->set_seconds(1); }, "sessionLifetime"}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace sallyport::authn

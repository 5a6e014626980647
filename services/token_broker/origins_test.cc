// SPDX-License-Identifier: Apache-2.0
// Where credentials go is sealed with them: whoever writes the configuration's database, or is the registry, can name
// another place, and gets nothing there.
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/error.h"
#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;

constexpr char kEvil[] = "https://evil.example";

class OriginsTest : public testing::BrokerTestBase {
 protected:
  OriginsTest() : BrokerTestBase(clock_for_all_) { peers_.vault.SetAdopted(true); }

  registry::v1::McpServer* BearerServer(const std::string& url, const std::vector<std::string>& sealed_for) {
    registry::v1::McpServer* server = AddServer("srv_b", "bearer");
    server->set_upstream_url(url);
    server->mutable_agent_auth()->mutable_passthrough();
    PutSecret("server_secret", "srv_b/app_auth.bearer.token", "canary", sealed_for);
    common::v1::Secret* token = server->mutable_app_auth()->mutable_bearer()->mutable_token();
    token->set_set(true);
    token->set_version(1);
    token->set_vault_record("srv_b/app_auth.bearer.token");
    return server;
  }
  static v1::ResolveCredentialsRequest At(const std::string& uid, const std::string& origin) {
    v1::ResolveCredentialsRequest request;
    request.set_server_uid(uid);
    request.set_server_version(1);
    request.set_upstream_origin(origin);
    return request;
  }
  // As a server that forwards the tokens of its users' sign-ins.
  void ForwardSignIns() {
    registry::v1::McpServer* server = AddServer("srv_f", "forwarding");
    server->mutable_agent_auth()->mutable_interactive();
    server->mutable_app_auth()->mutable_passthrough();
    auto* header = server->add_outbound_headers();
    header->set_name("X-Idp-Token");
    header->mutable_forward_caller_token();
    PutConnection("corp:ada", "sso:corp", absl::Minutes(1), absl::Hours(1));
  }
  std::string Ada(const std::string& server) { return peers_.authn.Sign(CallPassport("corp:ada", server)); }

  FakeClock clock_for_all_{absl::Now()};
};

TEST_F(OriginsTest, AServerThatWasPointedElsewhereGetsNoKey) {
  BearerServer(absl::StrCat(kEvil, "/mcp"), {kOrigin});
  const auto refused = Resolve(StartBroker(), At("srv_b", kEvil), "");
  EXPECT_THAT(refused, StatusIs(Code::kPermissionDenied));
  EXPECT_EQ(ReasonOf(refused.status()), "origin_not_allowed");
  EXPECT_TRUE(peers_.audit.Await("credential.refused", "origin_not_allowed"));
}

TEST_F(OriginsTest, ReadOnceAtTheRightPlaceItStillGoesNowhereElse) {
  registry::v1::McpServer* server = BearerServer(absl::StrCat(kOrigin, "/mcp"), {kOrigin});
  TokenBrokerServer& broker = StartBroker();
  ASSERT_THAT(Resolve(broker, At("srv_b", kOrigin), ""), IsOk());
  peers_.registry.Change([&](registry::v1::WatchEvent::Snapshot&) {
    server->set_upstream_url(absl::StrCat(kEvil, "/mcp"));
    server->set_version(2);
  });
  v1::ResolveCredentialsRequest request = At("srv_b", kEvil);
  request.set_server_version(2);
  EXPECT_THAT(Resolve(broker, request, ""), StatusIs(Code::kPermissionDenied));
}

TEST_F(OriginsTest, ASecretThatNamesNoPlaceGoesNowhere) {
  BearerServer(absl::StrCat(kOrigin, "/mcp"), {});
  EXPECT_THAT(Resolve(StartBroker(), At("srv_b", kOrigin), ""), StatusIs(Code::kPermissionDenied));
}

TEST_F(OriginsTest, OfAnEarlierReleaseItGoesWhereTheConfigurationSaysUntilItIsAdopted) {
  BearerServer(absl::StrCat(kOrigin, "/mcp"), {});
  peers_.vault.Unbind(OrganizationRecord("server_secret", "srv_b/app_auth.bearer.token"));
  peers_.vault.SetAdopted(false);
  TokenBrokerServer& broker = StartBroker();
  EXPECT_THAT(Resolve(broker, At("srv_b", kOrigin), ""), IsOk());
  peers_.vault.SetAdopted(true);  // Without this one: nobody told where it may go.
  EXPECT_THAT(Resolve(broker, At("srv_b", kOrigin), ""), StatusIs(Code::kPermissionDenied));
}

TEST_F(OriginsTest, AnOriginThatOnlyTheConfigurationAllowsGetsNoUsersToken) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  app_->add_allowed_upstream_origins(kEvil);
  registry::v1::McpServer* server = AddServer("srv_e", "evil");
  server->set_upstream_url(absl::StrCat(kEvil, "/mcp"));
  server->mutable_app_auth()->mutable_oauth_authorization()->set_app_uid(kApp);
  server->mutable_agent_auth()->mutable_interactive();
  TokenBrokerServer& broker = StartBroker();
  const auto refused = Resolve(broker, At("srv_e", kEvil), Ada("srv_e"));
  EXPECT_THAT(refused, StatusIs(Code::kPermissionDenied));
  EXPECT_EQ(ReasonOf(refused.status()), "origin_not_allowed");
  EXPECT_THAT(Resolve(broker, At(kServer, kOrigin), Ada(kServer)), IsOk());
}

TEST_F(OriginsTest, TheConfigurationNarrows) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  app_->clear_allowed_upstream_origins();
  app_->add_allowed_upstream_origins("https://other.example");
  EXPECT_THAT(Resolve(StartBroker(), At(kServer, kOrigin), Ada(kServer)), StatusIs(Code::kPermissionDenied));
}

TEST_F(OriginsTest, ABindingThatWasMadeAnewDoesNotSpeakForFormerLinks) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  // Deleted and made again, by somebody who may not change it.
  PutSecret("app_binding", absl::StrCat(kApp, "/binding"), "another-name", {kOrigin, kEvil});
  app_->mutable_binding()->set_version(2);
  ASSERT_OK_AND_ASSIGN(const auto response, Resolve(StartBroker(), At(kServer, kOrigin), Ada(kServer)));
  EXPECT_EQ(response.pieces_size(), 0);
  EXPECT_EQ(response.link().reason(), v1::LinkRequired::NEEDS_REAUTH);
}

TEST_F(OriginsTest, WithoutABindingNothingGoesOut) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  vault::v1::DeleteRequest erase;
  *erase.mutable_record() = OrganizationRecord("app_binding", absl::StrCat(kApp, "/binding"));
  ASSERT_THAT(peers_.vault.Delete(testing::FakeVaultClient::Registry(), erase), IsOk());
  const auto refused = Resolve(StartBroker(), At(kServer, kOrigin), Ada(kServer));
  EXPECT_THAT(refused, StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(refused.status()), "credential_missing");
}

TEST_F(OriginsTest, AConnectionOfAnEarlierReleaseIsSealedAnewAtItsFirstUse) {
  Provider provider;
  provider.token_url = app_->token_url();
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1), "rt0", {{kBoundTo, BoundTo(provider)}});
  TokenBrokerServer& broker = StartBroker();
  const int writes = peers_.vault.writes();
  ASSERT_OK_AND_ASSIGN(const auto first, Resolve(broker, At(kServer, kOrigin), Ada(kServer)));
  ASSERT_EQ(first.pieces_size(), 1);
  const auto record = ConnectionRecord("corp:ada", kApp);
  ASSERT_TRUE(peers_.vault.AwaitWrites(writes + 1));
  v1::TokenSet tokens;
  ASSERT_TRUE(tokens.ParseFromString(peers_.vault.Head(record)));
  EXPECT_EQ(tokens.provenance().binding(), kBinding);
  EXPECT_EQ(tokens.provenance().token_origin(), Url::Parse(app_->token_url())->origin());
  EXPECT_EQ(tokens.refresh_token(), "rt0");
  EXPECT_EQ(peers_.vault.MetadataOf(record).generation(), 1) << "the same link";
}

TEST_F(OriginsTest, SignInTokensGoWhereTheServersBindingSays) {
  ForwardSignIns();
  TokenBrokerServer& broker = StartBroker();
  EXPECT_EQ(ReasonOf(Resolve(broker, At("srv_f", kOrigin), Ada("srv_f")).status()), "credential_missing");
  PutSecret("server_binding", "srv_f/binding", "name", {kEvil});
  EXPECT_EQ(ReasonOf(Resolve(broker, At("srv_f", kOrigin), Ada("srv_f")).status()), "origin_not_allowed");
  PutSecret("server_binding", "srv_f/binding", "name", {kOrigin});
  ASSERT_OK_AND_ASSIGN(const auto response, Resolve(broker, At("srv_f", kOrigin), Ada("srv_f")));
  EXPECT_EQ(response.pieces_size(), 1);
}

TEST_F(OriginsTest, AClientSecretGoesToTheProviderItWasEnteredFor) {
  PutConnection("corp:ada", kApp, absl::Hours(2), absl::Hours(1));  // Has ended: it must be renewed.
  PutSecret("app_secret", "app_gh/client_secret", "canary", {"https://provider.example"});
  common::v1::Secret* secret = app_->mutable_client_secret();
  secret->set_set(true);
  secret->set_version(1);
  secret->set_vault_record("app_gh/client_secret");
  std::atomic<int> asked{0};
  provider_.SetHandler([&](const testing::HttpProvider::Request&) -> testing::HttpProvider::Response {
    ++asked;
    return {200, R"({"access_token":"at1","expires_in":3600})"};
  });
  EXPECT_FALSE(Resolve(StartBroker(), At(kServer, kOrigin), Ada(kServer)).ok());
  EXPECT_EQ(asked, 0);
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/resolver.h"

#include <atomic>
#include <chrono>
#include <map>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/text/base64url.h"
#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;
using Code = absl::StatusCode;

class ResolverTest : public testing::BrokerTestBase {
 protected:
  ResolverTest() : BrokerTestBase(clock_for_all_) {}

  void SetSecret(common::v1::Secret* secret, const std::string& record, const std::string& value) {
    PutSecret("server_secret", record, value);
    secret->set_set(true);
    secret->set_version(1);
    secret->set_vault_record(record);
  }
  registry::v1::McpServer* Passthrough() {
    registry::v1::McpServer* server = AddServer("srv_p", "plain");
    server->mutable_agent_auth()->mutable_passthrough();
    return server;
  }
  static v1::ResolveCredentialsRequest For(const std::string& uid, int64_t version = 1) {
    v1::ResolveCredentialsRequest request;
    request.set_server_uid(uid);
    request.set_server_version(version);
    return request;
  }
  static std::string Jwt(absl::Time exp) {
    return absl::StrCat("e30.", Base64UrlEncode(absl::StrCat("{\"exp\":", absl::ToUnixSeconds(exp), "}")), ".sig");
  }

  FakeClock clock_for_all_{absl::Now()};
};

TEST_F(ResolverTest, ApiKeyGoesOutWithItsPrefixForAnybody) {
  auto* key = Passthrough()->mutable_app_auth()->mutable_api_key();
  key->set_name("X-API-Key");
  key->set_prefix("Token ");
  SetSecret(key->mutable_value(), "srv_p/app_auth.api_key.value", "s3cret");

  ASSERT_OK_AND_ASSIGN(const auto response, Resolve(StartBroker(), For("srv_p"), ""));

  ASSERT_EQ(response.pieces_size(), 1);
  EXPECT_EQ(response.pieces(0).piece(), "app_auth");
  EXPECT_EQ(response.pieces(0).scope(), v1::ORG);
  EXPECT_EQ(response.pieces(0).location(), v1::ResolveCredentialsResponse::HEADER);
  EXPECT_EQ(response.pieces(0).name(), "X-API-Key");
  EXPECT_EQ(response.pieces(0).value(), "Token s3cret");
  EXPECT_EQ(response.pieces(0).uid(), "srv_p");
  EXPECT_EQ(response.pieces(0).version(), 1);
}

TEST_F(ResolverTest, ApiKeyInTheQueryHasNoPrefix) {
  auto* key = Passthrough()->mutable_app_auth()->mutable_api_key();
  key->set_name("key");
  key->set_location(registry::v1::QUERY);
  SetSecret(key->mutable_value(), "srv_p/app_auth.api_key.value", "s3cret");

  ASSERT_OK_AND_ASSIGN(const auto response, Resolve(StartBroker(), For("srv_p"), ""));

  EXPECT_EQ(response.pieces(0).location(), v1::ResolveCredentialsResponse::QUERY);
  EXPECT_EQ(response.pieces(0).value(), "s3cret");
}

TEST_F(ResolverTest, BearerAndBasicBecomeAuthorization) {
  registry::v1::McpServer* bearer = Passthrough();
  SetSecret(bearer->mutable_app_auth()->mutable_bearer()->mutable_token(), "srv_p/app_auth.bearer.token", "tok");
  registry::v1::McpServer* basic = AddServer("srv_b", "basic");
  basic->mutable_app_auth()->mutable_basic()->set_username("Aladdin");
  SetSecret(basic->mutable_app_auth()->mutable_basic()->mutable_password(), "srv_b/app_auth.basic.password",
            "open sesame");
  TokenBrokerServer& broker = StartBroker();

  ASSERT_OK_AND_ASSIGN(const auto first, Resolve(broker, For("srv_p"), ""));
  ASSERT_OK_AND_ASSIGN(const auto second, Resolve(broker, For("srv_b"), ""));

  EXPECT_EQ(first.pieces(0).value(), "Bearer tok");
  EXPECT_EQ(second.pieces(0).value(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");  // RFC 7617 section 2.
}

TEST_F(ResolverTest, LiteralsGoOutAndWhatTheEdgeRendersDoesNot) {
  registry::v1::McpServer* server = Passthrough();
  server->mutable_app_auth()->mutable_passthrough();
  auto* plain = server->add_outbound_headers();
  plain->set_name("X-Team");
  plain->mutable_literal()->set_value("red");
  auto* secret = server->add_outbound_headers();
  secret->set_name("X-Key");
  secret->set_prefix("k=");
  SetSecret(secret->mutable_literal()->mutable_secret_value(), "srv_p/outbound_headers.x-key.literal", "s3cret");
  server->add_outbound_headers()->mutable_caller_identity()->set_claim("sub");
  server->add_outbound_headers()->mutable_forward_caller_token();

  ASSERT_OK_AND_ASSIGN(const auto response, Resolve(StartBroker(), For("srv_p"), ""));

  ASSERT_EQ(response.pieces_size(), 2);
  EXPECT_EQ(response.pieces(0).piece(), "outbound_headers[x-team]");
  EXPECT_EQ(response.pieces(0).value(), "red");
  EXPECT_EQ(response.pieces(1).value(), "k=s3cret");
}

TEST_F(ResolverTest, SecretThatIsNotInTheVaultIsCredentialMissing) {
  auto* token = Passthrough()->mutable_app_auth()->mutable_bearer()->mutable_token();
  token->set_set(true);
  token->set_version(7);
  token->set_vault_record("srv_p/app_auth.bearer.token");

  const auto response = Resolve(StartBroker(), For("srv_p"), "");

  EXPECT_THAT(response, StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(response.status()), "credential_missing");
}

TEST_F(ResolverTest, SecretWithALineBreakFailsTheRequestAndIsNotQuoted) {
  SetSecret(Passthrough()->mutable_app_auth()->mutable_bearer()->mutable_token(), "srv_p/app_auth.bearer.token",
            "tok\r\nX: y");

  const auto response = Resolve(StartBroker(), For("srv_p"), "");

  EXPECT_THAT(response, StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(std::string(response.status().message()).find("tok"), std::string::npos);
}

TEST_F(ResolverTest, SecretGoesToNoOtherOriginThanItsServers) {
  SetSecret(Passthrough()->mutable_app_auth()->mutable_bearer()->mutable_token(), "srv_p/app_auth.bearer.token", "tok");
  TokenBrokerServer& broker = StartBroker();
  for (const char* origin : {"https://evil.example", "http://api.example.com", "https://api.example.com:8443",
                             "https://api.example.com/", "https://API.example.com"}) {
    v1::ResolveCredentialsRequest request = For("srv_p");
    request.set_upstream_origin(origin);

    const auto response = Resolve(broker, request, "");

    EXPECT_THAT(response, StatusIs(Code::kPermissionDenied)) << origin;
    EXPECT_EQ(ReasonOf(response.status()), "origin_not_allowed") << origin;
  }
  EXPECT_TRUE(peers_.audit.Await("credential.refused", "origin_not_allowed"));
}

TEST_F(ResolverTest, AppTokenGoesToAllowedOriginsOnly) {
  app_->clear_allowed_upstream_origins();
  app_->add_allowed_upstream_origins("https://other.example.com");
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));

  const auto response = Resolve(StartBroker(), {}, peers_.authn.Sign(CallPassport()));

  EXPECT_THAT(response, StatusIs(Code::kPermissionDenied));
  EXPECT_EQ(ReasonOf(response.status()), "origin_not_allowed");
}

TEST_F(ResolverTest, LinkedUserGetsTheirOwnToken) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  PutConnection("corp:bob", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();

  ASSERT_OK_AND_ASSIGN(const auto ada, Resolve(broker, {}, peers_.authn.Sign(CallPassport("corp:ada"))));
  ASSERT_OK_AND_ASSIGN(const auto bob, Resolve(broker, {}, peers_.authn.Sign(CallPassport("corp:bob"))));

  EXPECT_EQ(ada.pieces(0).value(), "Bearer at0-of-corp:ada");
  EXPECT_EQ(bob.pieces(0).value(), "Bearer at0-of-corp:bob");
  EXPECT_EQ(ada.pieces(0).scope(), v1::USER);
  EXPECT_EQ(ada.pieces(0).connection(), kApp);
  EXPECT_EQ(ada.pieces(0).generation(), 1);
  EXPECT_LT(ada.pieces(0).renew_at().seconds(), ada.pieces(0).expires_at().seconds());
}

TEST_F(ResolverTest, SubjectsThatOnlyLookAlikeShareNothing) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  for (const char* subject : {"corp:Ada", "corp:ada ", "corp:ada.", "corp", "cor:pada"}) {
    ASSERT_OK_AND_ASSIGN(const auto response, Resolve(broker, {}, peers_.authn.Sign(CallPassport(subject))));

    EXPECT_EQ(response.link().reason(), v1::LinkRequired::NOT_LINKED) << subject;
    EXPECT_EQ(response.pieces_size(), 0) << subject;
  }
}

TEST_F(ResolverTest, UserWithoutTheNeededScopeIsAskedForAStepUp) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  app_->add_default_scopes("read:org");

  ASSERT_OK_AND_ASSIGN(const auto response, Resolve(StartBroker(), {}, peers_.authn.Sign(CallPassport())));

  EXPECT_EQ(response.link().reason(), v1::LinkRequired::MISSING_SCOPE);
  EXPECT_EQ(response.link().app_slug(), "github");
  EXPECT_EQ(response.link().app_display_name(), "GitHub");
}

TEST_F(ResolverTest, UserServerWithoutPassportIsUnauthenticated) {
  EXPECT_THAT(Resolve(StartBroker(), {}, ""), StatusIs(Code::kUnauthenticated));
}

TEST_F(ResolverTest, PassportOfAnotherServerOrPurposeIsRefused) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  Passport api = CallPassport();
  api.purpose = Passport::Purpose::kApi;

  EXPECT_THAT(Resolve(broker, {}, peers_.authn.Sign(CallPassport("corp:ada", "srv_other"))),
              StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Resolve(broker, {}, peers_.authn.Sign(api)), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Resolve(broker, {}, peers_.authn.Sign(LinkPassport())), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Resolve(broker, {}, "e30.e30.e30"), StatusIs(Code::kUnauthenticated));
}

TEST_F(ResolverTest, OnlyTheEdgeMayAsk) {
  TokenBrokerServer& broker = StartBroker();
  for (const char* caller : {"authn", "registry", "vault", "token_broker"}) {
    const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel(caller));
    v1::ResolveCredentialsResponse response;
    const auto context = MakeClientContext(absl::Minutes(1));

    EXPECT_EQ(stub->ResolveCredentials(context.get(), For("srv_p"), &response).error_code(),
              grpc::StatusCode::PERMISSION_DENIED)
        << caller;
  }
}

TEST_F(ResolverTest, VersionAheadOfTheCallersIsAborted) {
  AddServer("srv_p", "plain")->set_version(5);
  EXPECT_THAT(Resolve(StartBroker(), For("srv_p", 4), ""), StatusIs(Code::kAborted));
}

TEST_F(ResolverTest, ForwardedTokenOfASignInComesFromTheVault) {
  registry::v1::McpServer* server = AddServer("srv_f", "forward");
  server->mutable_agent_auth()->mutable_interactive();
  server->mutable_app_auth()->mutable_passthrough();
  auto* header = server->add_outbound_headers();
  header->set_name("X-User-Token");
  header->set_prefix("Bearer ");
  header->mutable_forward_caller_token();
  PutConnection("corp:ada", "sso:corp", absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();

  ASSERT_OK_AND_ASSIGN(const auto ours,
                       Resolve(broker, For("srv_f"), peers_.authn.Sign(CallPassport("corp:ada", "srv_f"))));
  const auto local = Resolve(broker, For("srv_f"), peers_.authn.Sign(CallPassport("local:eve", "srv_f")));
  Passport presented = CallPassport("corp:ada", "srv_f");
  presented.session_id = "";
  ASSERT_OK_AND_ASSIGN(const auto theirs, Resolve(broker, For("srv_f"), peers_.authn.Sign(presented)));

  ASSERT_EQ(ours.pieces_size(), 1);
  EXPECT_EQ(ours.pieces(0).value(), "Bearer at0-of-corp:ada");
  EXPECT_EQ(ours.pieces(0).scope(), v1::TOKEN);
  EXPECT_EQ(ours.pieces(0).connection(), "sso:corp");
  EXPECT_THAT(local, StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(local.status()), "no_caller_token");
  EXPECT_EQ(theirs.pieces_size(), 0) << "a presented token is the edge's to forward";
}

TEST_F(ResolverTest, RefusedSignInTokenIsRenewedOnceAndThenThereIsNone) {
  registry::v1::McpServer* server = AddServer("srv_f", "forward");
  server->mutable_agent_auth()->mutable_interactive();
  server->mutable_app_auth()->mutable_passthrough();
  auto* header = server->add_outbound_headers();
  header->set_name("X-User-Token");
  header->mutable_forward_caller_token();
  PutConnection("corp:ada", "sso:corp", absl::Minutes(1), absl::Hours(1));
  std::atomic<int> asked{0};
  provider_.SetHandler([&](const testing::HttpProvider::Request& /*request*/) -> testing::HttpProvider::Response {
    ++asked;
    return {200, R"({"access_token":"at1","refresh_token":"rt1","expires_in":3600})", "application/json", ""};
  });
  peers_.authn.connector.set_token_endpoint(provider_.Url("/idp/token"));
  peers_.authn.connector.set_client_id("rp");
  TokenBrokerServer& broker = StartBroker();
  const std::string passport = peers_.authn.Sign(CallPassport("corp:ada", "srv_f"));
  ASSERT_OK_AND_ASSIGN(const auto first, Resolve(broker, For("srv_f"), passport));
  v1::ResolveCredentialsRequest refused = For("srv_f");
  refused.set_refused_generation(first.pieces(0).generation());
  refused.set_refused_version(first.pieces(0).version());

  ASSERT_OK_AND_ASSIGN(const auto second, Resolve(broker, refused, passport));
  ASSERT_OK_AND_ASSIGN(const auto late, Resolve(broker, refused, passport));
  refused.set_refused_version(second.pieces(0).version());
  const auto again = Resolve(broker, refused, passport);

  EXPECT_EQ(first.pieces(0).value(), "at0-of-corp:ada");
  EXPECT_EQ(second.pieces(0).value(), "at1");
  EXPECT_EQ(late.pieces(0).value(), "at1") << "who saw the old one refused gets the new one";
  EXPECT_THAT(again, StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(again.status()), "no_caller_token");
  EXPECT_EQ(asked, 1) << "forced at most once per 30 s";
}

// The account is linked and its tokens are renewed: an upstream that stumbles is no reason to ask anybody for a link.
TEST_F(ResolverTest, UpstreamThatRefusesTwoRenewalsAndRecoversAsksNobodyForALink) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  std::atomic<int> asked{0};
  provider_.SetHandler([&](const testing::HttpProvider::Request& /*request*/) -> testing::HttpProvider::Response {
    return {200, absl::StrCat(R"({"access_token":"at)", ++asked, R"(","refresh_token":"rt","expires_in":3600})"),
            "application/json", ""};
  });
  TokenBrokerServer& broker = StartBroker();
  const std::string passport = peers_.authn.Sign(CallPassport());
  v1::ResolveCredentialsRequest refused;
  const auto refuse = [&](const v1::ResolveCredentialsResponse& response) {
    refused.set_refused_generation(response.pieces(0).generation());
    refused.set_refused_version(response.pieces(0).version());
    return Resolve(broker, refused, passport);
  };
  ASSERT_OK_AND_ASSIGN(const auto first, Resolve(broker, {}, passport));

  ASSERT_OK_AND_ASSIGN(const auto second, refuse(first));
  const auto again = refuse(second);
  ASSERT_OK_AND_ASSIGN(const auto others, Resolve(broker, {}, passport));

  EXPECT_EQ(second.pieces(0).value(), "Bearer at1");
  EXPECT_THAT(again, StatusIs(Code::kUnavailable, "GitHub"));
  EXPECT_EQ(ReasonOf(again.status()), "renewed_token_refused");
  EXPECT_GT(DetailOf(again.status()).retry_after, absl::ZeroDuration());
  EXPECT_FALSE(others.has_link()) << "who was not refused is served";
  EXPECT_EQ(others.pieces(0).value(), "Bearer at1");
  EXPECT_EQ(asked, 1) << "forced at most once per 30 s";
}

TEST_F(ResolverTest, UpstreamThatRefusesEveryRenewalEndsInTheLink) {
  const std::string now = absl::FormatTime(absl::RFC3339_full, clock_.Now(), absl::UTCTimeZone());
  for (const auto& [row, link] : std::map<std::string, bool>{{"2", false}, {"4", false}, {"5", true}}) {
    PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1), "rt0",
                  {{"forced_at", now}, {"forced_in_a_row", row}});
    TokenBrokerServer& broker = StartBroker();
    const std::string passport = peers_.authn.Sign(CallPassport());
    ASSERT_OK_AND_ASSIGN(const auto first, Resolve(broker, {}, passport));
    v1::ResolveCredentialsRequest refused;
    refused.set_refused_generation(first.pieces(0).generation());
    refused.set_refused_version(first.pieces(0).version());

    const auto response = Resolve(broker, refused, passport);

    if (link) {
      ASSERT_THAT(response, IsOk());
      EXPECT_EQ(response->link().reason(), v1::LinkRequired::NEEDS_REAUTH);
    } else {
      EXPECT_EQ(ReasonOf(response.status()), "renewed_token_refused") << row;
    }
  }
}

TEST_F(ResolverTest, OneUsersRefusalLeavesTheOtherUsersOfTheAppAlone) {
  for (const char* user : {"corp:ada", "corp:bob"}) {
    PutConnection(user, kApp, absl::Hours(2), absl::Hours(1), absl::StrCat("rt-of-", user));
  }
  provider_.SetHandler([](const testing::HttpProvider::Request& request) -> testing::HttpProvider::Response {
    if (request.form.at("refresh_token") == "rt-of-corp:ada") {
      return {403, R"({"error":"unauthorized_client"})", "application/json", ""};
    }
    return {200, R"({"access_token":"bobs","expires_in":3600})", "application/json", ""};
  });
  TokenBrokerServer& broker = StartBroker();

  const auto ada = Resolve(broker, {}, peers_.authn.Sign(CallPassport("corp:ada")));
  ASSERT_OK_AND_ASSIGN(const auto bob, Resolve(broker, {}, peers_.authn.Sign(CallPassport("corp:bob"))));

  EXPECT_THAT(ada, StatusIs(Code::kUnavailable, "GitHub did not renew the connection (unauthorized_client)"));
  EXPECT_EQ(ReasonOf(ada.status()), "provider_unavailable");
  EXPECT_EQ(bob.pieces(0).value(), "Bearer bobs");
  // Bob's was renewed since: once ada's is refused again, it is hers that has ended.
  clock_for_all_.Advance(absl::Minutes(2));
  ASSERT_OK_AND_ASSIGN(const auto later, Resolve(broker, {}, peers_.authn.Sign(CallPassport("corp:ada"))));
  EXPECT_EQ(later.link().reason(), v1::LinkRequired::NEEDS_REAUTH);
  EXPECT_TRUE(peers_.audit.Await("credential.refreshed", "needs_user"));
}

TEST_F(ResolverTest, ProviderThatFailsIsNamedAsPeopleKnowIt) {
  struct Case {
    int status;
    std::string body;
    Code code;
    std::string reason;
    std::string words;
  };
  for (const Case& c :
       {Case{503, "", Code::kUnavailable, "provider_unavailable", "GitHub answers with an error (http_503)"},
        Case{401, R"({"error":"invalid_client"})", Code::kFailedPrecondition, "provider_rejects_client",
             "GitHub does not accept this gateway's client ID or secret (invalid_client)"},
        Case{200, "<html>", Code::kUnavailable, "provider_unavailable", "malformed_answer"}}) {
    provider_.SetHandler([&](const testing::HttpProvider::Request&) -> testing::HttpProvider::Response {
      return {c.status, c.body, "application/json", ""};
    });
    PutConnection("corp:ada", kApp, absl::Hours(2), absl::Hours(1));
    TokenBrokerServer& broker = StartBroker();
    for (const char* when : {"first", "while it is left alone"}) {
      const auto response = Resolve(broker, {}, peers_.authn.Sign(CallPassport()));

      EXPECT_THAT(response, StatusIs(c.code, c.words)) << when;
      EXPECT_EQ(ReasonOf(response.status()), c.reason) << when;
      EXPECT_EQ(DetailOf(response.status()).retry_after > absl::ZeroDuration(), c.code == Code::kUnavailable);
    }
  }
  app_->set_token_url(testing::HttpProvider::UrlOfNobody("/token"));
  PutConnection("corp:ada", kApp, absl::Hours(2), absl::Hours(1));
  EXPECT_THAT(Resolve(StartBroker(), {}, peers_.authn.Sign(CallPassport())),
              StatusIs(Code::kUnavailable, "GitHub does not answer"));
}

TEST_F(ResolverTest, ExpiredIdTokenIsRenewedAtTheConnector) {
  registry::v1::McpServer* server = AddServer("srv_f", "forward");
  server->mutable_agent_auth()->mutable_interactive();
  server->mutable_app_auth()->mutable_passthrough();
  auto* header = server->add_outbound_headers();
  header->set_name("X-Id");
  header->mutable_forward_caller_token()->set_token(registry::v1::ID);
  v1::TokenSet tokens;
  tokens.set_access_token("at");
  tokens.set_refresh_token("rt");
  tokens.set_id_token(Jwt(clock_.Now() - absl::Minutes(1)));
  vault::v1::PutRequest put;
  *put.mutable_record() = ConnectionRecord("corp:ada", "sso:corp");
  put.set_payload(tokens.SerializeAsString());
  ASSERT_TRUE(peers_.vault.Put(put, "passport-of:corp:ada").ok());
  const std::string renewed = Jwt(clock_.Now() + absl::Hours(1));
  provider_.SetHandler([&](const testing::HttpProvider::Request& request) -> testing::HttpProvider::Response {
    EXPECT_EQ(request.form.at("client_id"), "rp");
    return {200, absl::StrCat(R"({"access_token":"at2","id_token":")", renewed, R"("})"), "application/json", ""};
  });
  peers_.authn.connector.set_token_endpoint(provider_.Url("/idp/token"));
  peers_.authn.connector.set_client_id("rp");

  ASSERT_OK_AND_ASSIGN(const auto response,
                       Resolve(StartBroker(), For("srv_f"), peers_.authn.Sign(CallPassport("corp:ada", "srv_f"))));

  EXPECT_EQ(response.pieces(0).value(), renewed);
}

TEST_F(ResolverTest, VaultThatIsDownIsUnavailableAndLinkedTokensGoOn) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  const std::string passport = peers_.authn.Sign(CallPassport());
  ASSERT_TRUE(Resolve(broker, {}, passport).ok());
  peers_.vault.SetDown(true);

  EXPECT_TRUE(Resolve(broker, {}, passport).ok());
  EXPECT_THAT(Resolve(broker, {}, peers_.authn.Sign(CallPassport("corp:bob"))), StatusIs(Code::kUnavailable));
}

// A record that cannot be read in time must not cost those anything who need not read it.
TEST_F(ResolverTest, KnownUsersGoOnWhileTheVaultHangsForManyOthers) {
  constexpr int kOthers = 40;
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  const std::string passport = peers_.authn.Sign(CallPassport());
  ASSERT_TRUE(Resolve(broker, {}, passport).ok());
  peers_.vault.SetHanging(true);
  std::vector<std::thread> others;
  for (int i = 0; i < kOthers; ++i) {
    others.emplace_back([this, &broker, i] {
      EXPECT_THAT(Resolve(broker, {}, peers_.authn.Sign(CallPassport(absl::StrCat("corp:user", i)))), Not(IsOk()));
    });
  }
  for (int i = 0; i < 4'000 && peers_.vault.hanging() < kOthers; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(peers_.vault.hanging(), kOthers);

  EXPECT_TRUE(Resolve(broker, {}, passport).ok());

  EXPECT_EQ(peers_.vault.hanging(), kOthers) << "it waited for none of them";
  peers_.vault.SetDown(true);
  peers_.vault.SetHanging(false);
  for (std::thread& other : others) other.join();
}

TEST_F(ResolverTest, TokenOfAFormerProviderIsNotGivenOut) {
  for (const absl::Duration ttl : {absl::InfiniteDuration(), absl::Hours(1)}) {
    PutConnection("corp:ada", kApp, absl::Minutes(1), ttl, ttl == absl::InfiniteDuration() ? "" : "rt0");
    const std::string passport = peers_.authn.Sign(CallPassport());
    const std::string here = app_->token_url();
    TokenBrokerServer& broker = StartBroker();
    ASSERT_OK_AND_ASSIGN(const auto before, Resolve(broker, {}, passport));
    ASSERT_EQ(before.pieces_size(), 1);

    PointAppAt(broker, "https://elsewhere.example/token");
    ASSERT_OK_AND_ASSIGN(const auto cached, Resolve(broker, {}, passport));
    ASSERT_OK_AND_ASSIGN(const auto read, Resolve(StartBroker(), {}, passport));
    PointAppAt(broker, absl::StrCat(here, "/v2"));
    ASSERT_OK_AND_ASSIGN(const auto back, Resolve(broker, {}, passport));
    PointAppAt(broker, here);

    EXPECT_EQ(cached.link().reason(), v1::LinkRequired::NEEDS_REAUTH) << ttl;
    EXPECT_EQ(cached.pieces_size(), 0) << ttl;
    EXPECT_EQ(read.link().reason(), v1::LinkRequired::NEEDS_REAUTH) << ttl;
    EXPECT_EQ(back.pieces_size(), 1) << "the same origin, nothing lost";
  }
}

TEST_F(ResolverTest, ConnectionThatALateAnswerHealedIsKeptInMemoryAgain) {
  provider_.SetHandler([](const testing::HttpProvider::Request&) -> testing::HttpProvider::Response {
    return {400, R"({"error":"invalid_grant"})", "application/json", ""};
  });
  PutConnection("corp:ada", kApp, absl::Hours(2), absl::Hours(1));
  vault::v1::AcquireLeaseRequest acquire;
  *acquire.mutable_record() = ConnectionRecord("corp:ada", kApp);
  acquire.mutable_ttl()->set_seconds(30);
  ASSERT_OK_AND_ASSIGN(const auto lost, peers_.vault.AcquireLease(acquire, "passport-of:corp:ada"));
  peers_.vault.LapseLeases();
  TokenBrokerServer& broker = StartBroker();
  const std::string passport = peers_.authn.Sign(CallPassport());
  ASSERT_OK_AND_ASSIGN(const auto refused, Resolve(broker, {}, passport));
  ASSERT_EQ(refused.link().reason(), v1::LinkRequired::NEEDS_REAUTH);

  vault::v1::PutRequest late;
  *late.mutable_record() = acquire.record();
  late.set_lease(lost.lease().id());
  *late.mutable_labels() = lost.lease().metadata().labels();
  v1::TokenSet tokens;
  v1::TokenSet before;
  ASSERT_TRUE(before.ParseFromString(lost.lease().payload()));
  *tokens.mutable_provenance() = before.provenance();
  tokens.set_access_token("late");
  tokens.set_refresh_token("rt1");
  tokens.add_scopes("repo");
  *tokens.mutable_expires_at() = ToTimestamp(clock_.Now() + absl::Hours(1));
  late.set_payload(tokens.SerializeAsString());
  ASSERT_OK_AND_ASSIGN(const auto healed, peers_.vault.Put(late, ""));
  ASSERT_FALSE(healed.side());

  // Its own invalidation comes back to the broker at some moment.
  bool kept = false;
  for (int i = 0; i < 100 && !kept; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    ASSERT_OK_AND_ASSIGN(const auto first, Resolve(broker, {}, passport));
    ASSERT_EQ(first.pieces(0).value(), "Bearer late");
    const int reads = peers_.vault.gets();
    ASSERT_OK_AND_ASSIGN(const auto second, Resolve(broker, {}, passport));
    ASSERT_EQ(second.pieces(0).value(), "Bearer late");
    kept = peers_.vault.gets() == reads;
  }
  EXPECT_TRUE(kept);
  peers_.vault.SetDown(true);
  EXPECT_TRUE(Resolve(broker, {}, passport).ok());
}

}  // namespace
}  // namespace sallyport::token_broker

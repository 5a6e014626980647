// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/oauth_endpoints.h"

#include <atomic>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/authn/web/web_testing.h"

namespace sallyport::authn::web {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::TestPostgres;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kLoopback[] = "http://127.0.0.1:5/cb";

class EndpointsTest : public ::testing::Test {
 protected:
  EndpointsTest() : browser_(world_) {
    browser_.SignIn("ann");
    client_ = RegisterClient(browser_, kLoopback);
  }
  std::string Code(const std::string& resource = "https://gw.example.com/mcp/github") {
    return ObtainCode(browser_, AuthorizeFields(client_, kLoopback, resource));
  }
  FormFields CodeFields(const std::string& code) const {
    return {{"grant_type", "authorization_code"},
            {"code", code},
            {"code_verifier", kVerifier},
            {"redirect_uri", kLoopback},
            {"client_id", client_}};
  }
  FormFields RefreshFields(const std::string& token) const {
    return {{"grant_type", "refresh_token"}, {"refresh_token", token}, {"client_id", client_}};
  }
  static FormFields With(FormFields fields, const std::string& name, const std::string& value) {
    std::erase_if(fields, [&](const auto& field) { return field.first == name; });
    if (!value.empty()) {
      fields.emplace_back(name, value);
    }
    return fields;
  }
  WebResponse Token(const FormFields& fields) { return RequestToken(browser_, fields); }
  static std::string ErrorOf(const WebResponse& response) {
    EXPECT_EQ(ResponseHeader(response, "cache-control"), "no-store");
    EXPECT_EQ(ResponseHeader(response, "content-type"), "application/json");
    return JsonString(JsonOf(response), "error").value_or("");
  }

  World world_;
  TestBrowser browser_;
  std::string client_;
};

TEST_F(EndpointsTest, CodeBecomesTokens) {
  const WebResponse response = Token(With(CodeFields(Code()), "resource", "https://gw.example.com/mcp/github"));
  ASSERT_EQ(response.status(), 200) << response.body();
  EXPECT_EQ(ResponseHeader(response, "cache-control"), "no-store");
  EXPECT_EQ(ResponseHeader(response, "access-control-allow-origin"), "");
  const nlohmann::json json = JsonOf(response);
  EXPECT_EQ(json["token_type"], "Bearer");
  EXPECT_EQ(json["scope"], "mcp");
  EXPECT_EQ(json["expires_in"], 3600);
  EXPECT_THAT(std::string(json["refresh_token"]), StartsWith("spr_"));
  const std::string token = json["access_token"];
  ASSERT_OK_AND_ASSIGN(const AccessToken access,
                       world_.tokens.VerifyMcp(token, "github", "srv_github", world_.clock.Now()));
  EXPECT_EQ(access.subject, "local:ann");
  EXPECT_EQ(access.client_id, client_);
  ASSERT_OK_AND_ASSIGN(const Grant grant, world_.grants.Find(access.grant_id));
  EXPECT_EQ(grant.user.email, "ann@example.com");
  // RFC 8707: for that server and no other.
  EXPECT_THAT(world_.tokens.VerifyMcp(token, "notes", "srv_notes", world_.clock.Now()), Not(IsOk()));
  EXPECT_THAT(world_.tokens.VerifyApi(token, world_.clock.Now()), Not(IsOk()));
}

TEST_F(EndpointsTest, RefusesByTransport) {
  EXPECT_EQ(browser_.Get("/oauth/token").status(), 405);
  WebRequest json = browser_.Begin("POST", "/oauth/token");
  TestBrowser::Add(json, "content-type", "application/json");
  json.set_body("{}");
  EXPECT_EQ(browser_.Send(json).status(), 415);
  WebRequest charset = browser_.Begin("POST", "/oauth/token");
  TestBrowser::Add(charset, "content-type", "application/x-www-form-urlencoded; charset=utf-7");
  EXPECT_EQ(browser_.Send(charset).status(), 415);
  WebRequest large = browser_.Begin("POST", "/oauth/token");
  TestBrowser::Add(large, "content-type", "application/x-www-form-urlencoded");
  large.set_body(std::string(1 << 20, 'a'));
  EXPECT_EQ(browser_.Send(large).status(), 413);
}

TEST_F(EndpointsTest, RefusesByParameters) {
  const FormFields good = CodeFields("x");
  EXPECT_EQ(ErrorOf(Token(With(good, "grant_type", ""))), "invalid_request");
  for (const char* grant :
       {"password", "implicit", "client_credentials", "urn:ietf:params:oauth:grant-type:jwt-bearer"}) {
    EXPECT_EQ(ErrorOf(Token(With(good, "grant_type", grant))), "unsupported_grant_type");
  }
  EXPECT_EQ(ErrorOf(Token(With(good, "code", ""))), "invalid_request");
  FormFields twice = good;
  twice.emplace_back("code", "y");
  EXPECT_EQ(ErrorOf(Token(twice)), "invalid_request");
  FormFields resources = With(good, "resource", "https://gw.example.com/mcp/github");
  resources.emplace_back("resource", "https://gw.example.com/mcp/notes");
  EXPECT_EQ(ErrorOf(Token(resources)), "invalid_target");
  EXPECT_EQ(ErrorOf(Token(With(good, "resource", "not a url"))), "invalid_target");
}

TEST_F(EndpointsTest, UnknownClientIs401) {
  const WebResponse response = Token(With(CodeFields(Code()), "client_id", "clt_gone"));
  EXPECT_EQ(response.status(), 401);
  EXPECT_EQ(ErrorOf(response), "invalid_client");
  EXPECT_EQ(world_.Events("client.refused").size(), 1U);
}

TEST_F(EndpointsTest, WrongVerifierRedirectOrResourceIsRefused) {
  EXPECT_EQ(ErrorOf(Token(With(CodeFields(Code()), "code_verifier", ""))), "invalid_grant");
  EXPECT_EQ(ErrorOf(Token(With(CodeFields(Code()), "code_verifier", std::string(43, 'b')))), "invalid_grant");
  EXPECT_EQ(ErrorOf(Token(With(CodeFields(Code()), "redirect_uri", "http://127.0.0.1:6/cb"))), "invalid_grant");
  EXPECT_EQ(ErrorOf(Token(With(CodeFields(Code()), "redirect_uri", ""))), "invalid_grant");
  EXPECT_EQ(ErrorOf(Token(With(CodeFields(Code()), "resource", "https://gw.example.com/mcp/notes"))), "invalid_target");
}

TEST_F(EndpointsTest, CodeOfAnotherClientIsRefused) {
  const std::string code = Code();
  const std::string other = RegisterClient(browser_, kLoopback, {{"client_name", "Other"}});
  EXPECT_EQ(ErrorOf(Token(With(CodeFields(code), "client_id", other))), "invalid_grant");
  EXPECT_EQ(Token(CodeFields(code)).status(), 200);
}

TEST_F(EndpointsTest, ReusedCodeRevokesItsGrant) {
  const std::string code = Code();
  const nlohmann::json tokens = JsonOf(Token(CodeFields(code)));
  EXPECT_EQ(ErrorOf(Token(CodeFields(code))), "invalid_grant");
  EXPECT_EQ(ErrorOf(Token(RefreshFields(tokens["refresh_token"]))), "invalid_grant");
  EXPECT_EQ(world_.Events("code_reuse").size(), 1U);
}

TEST_F(EndpointsTest, EventsNameTheUserAndTheClientOnceAndNotAtEveryRefresh) {
  const nlohmann::json tokens = JsonOf(Token(CodeFields(Code())));
  ASSERT_EQ(Token(RefreshFields(tokens["refresh_token"])).status(), 200);
  EXPECT_EQ(world_.Events("client.registered")[0].client_name(), "Cursor");
  const audit::v1::Event issued = world_.Events("token.issued")[0];
  EXPECT_EQ(issued.user_email(), "ann@example.com");
  EXPECT_EQ(issued.client_name(), "Cursor");
  const audit::v1::Event refreshed = world_.Events("token.refreshed")[0];
  EXPECT_EQ(refreshed.subject(), issued.subject());
  EXPECT_EQ(refreshed.user_email() + refreshed.user_name() + refreshed.client_name(), "")
      << "an erased name comes back with its person, not with a program";
}

TEST_F(EndpointsTest, AClientsNameIsBoundedInTheAudit) {
  RegisterClient(browser_, kLoopback, {{"client_name", absl::StrCat("\x1b[2Jadmin", std::string(200, 'x'))}});
  const std::string name = world_.Events("client.registered").back().client_name();
  EXPECT_THAT(name, HasSubstr("[2Jadmin"));
  EXPECT_THAT(name, Not(HasSubstr("\x1b")));
  EXPECT_LE(name.size(), 256U);
}

TEST_F(EndpointsTest, RefreshRotatesAndKeepsScope) {
  const nlohmann::json first = JsonOf(Token(CodeFields(Code())));
  const WebResponse response = Token(RefreshFields(first["refresh_token"]));
  ASSERT_EQ(response.status(), 200);
  const nlohmann::json second = JsonOf(response);
  EXPECT_NE(first["refresh_token"], second["refresh_token"]);
  EXPECT_EQ(second["scope"], "mcp");
  EXPECT_EQ(
      ErrorOf(Token(With(RefreshFields(second["refresh_token"]), "resource", "https://gw.example.com/mcp/notes"))),
      "invalid_target");
  EXPECT_EQ(ErrorOf(Token(RefreshFields(""))), "invalid_request");
  EXPECT_EQ(world_.Events("token.refreshed").size(), 1U);
}

TEST_F(EndpointsTest, UnknownScopesAreIgnoredAtRefreshAsAtAuthorize) {
  const std::string code = ObtainCode(browser_, With(AuthorizeFields(client_, kLoopback), "scope", "openid mcp admin"));
  nlohmann::json tokens = JsonOf(Token(CodeFields(code)));
  EXPECT_EQ(tokens["scope"], "mcp");
  for (const char* scope : {"openid mcp admin", "openid email profile", "offline_access", "api"}) {
    const WebResponse response = Token(With(RefreshFields(tokens["refresh_token"]), "scope", scope));
    ASSERT_EQ(response.status(), 200) << scope << response.body();
    tokens = JsonOf(response);
    EXPECT_EQ(tokens["scope"], "mcp") << scope;
  }
}

TEST_F(EndpointsTest, ResourceThatNamesNoServerIsTheGrantsOwn) {
  for (const char* resource : {"", "https://gw.example.com", "https://gw.example.com/"}) {
    FormFields fields = CodeFields(Code());
    fields.emplace_back("resource", resource);
    const nlohmann::json tokens = JsonOf(Token(fields));
    const std::string token = tokens["access_token"];
    EXPECT_THAT(world_.tokens.VerifyMcp(token, "github", "srv_github", world_.clock.Now()), IsOk()) << resource;
    FormFields refresh = RefreshFields(tokens["refresh_token"]);
    refresh.emplace_back("resource", resource);
    EXPECT_EQ(Token(refresh).status(), 200) << resource;
  }
  EXPECT_EQ(ErrorOf(Token(With(CodeFields(Code()), "resource", "https://evil.example"))), "invalid_target");
}

TEST_F(EndpointsTest, LostAnswerCanBeFetchedAgainAndLateReplayEndsTheFamily) {
  const nlohmann::json first = JsonOf(Token(CodeFields(Code())));
  const nlohmann::json second = JsonOf(Token(RefreshFields(first["refresh_token"])));
  world_.clock.Advance(absl::Seconds(29));
  EXPECT_EQ(JsonOf(Token(RefreshFields(first["refresh_token"])))["refresh_token"], second["refresh_token"]);
  world_.clock.Advance(absl::Seconds(10));
  EXPECT_EQ(ErrorOf(Token(RefreshFields(first["refresh_token"]))), "invalid_grant");
  EXPECT_EQ(ErrorOf(Token(RefreshFields(second["refresh_token"]))), "invalid_grant");
  EXPECT_EQ(world_.Events("refresh_reuse").size(), 1U);
}

TEST_F(EndpointsTest, ClientWithoutRefreshGrantGetsNone) {
  client_ = RegisterClient(browser_, kLoopback, {{"grant_types", nlohmann::json::array({"authorization_code"})}});
  EXPECT_FALSE(JsonOf(Token(CodeFields(Code()))).contains("refresh_token"));
}

TEST_F(EndpointsTest, UserOrServerThatIsNoLongerAllowedGetsNothing) {
  TestBrowser bob(world_);
  bob.SignIn("bob");
  const FormFields fields = AuthorizeFields(client_, kLoopback, "https://gw.example.com/mcp/staff");
  const std::string code = ObtainCode(bob, fields);
  const nlohmann::json tokens = JsonOf(Token(CodeFields(ObtainCode(bob, fields))));
  auto servers = TestServers();
  servers[5].mutable_agent_auth()->mutable_interactive()->mutable_allow()->clear_subjects();
  servers[5].set_version(2);
  ASSERT_THAT(world_.stream.Seed(SnapshotOf(servers)), IsOk());
  EXPECT_EQ(ErrorOf(Token(RefreshFields(tokens["refresh_token"]))), "invalid_grant");
  EXPECT_EQ(ErrorOf(Token(CodeFields(code))), "invalid_grant");
  // Allowed again: the refresh token was not used up meanwhile.
  ASSERT_THAT(world_.stream.Seed(SnapshotOf(TestServers())), IsOk());
  EXPECT_EQ(Token(RefreshFields(tokens["refresh_token"])).status(), 200);
}

TEST_F(EndpointsTest, CommandLineGetsApiTokens) {
  client_ = kCliClientId;
  const WebResponse response = Token(CodeFields(Code("https://gw.example.com/api")));
  ASSERT_EQ(response.status(), 200) << response.body();
  const nlohmann::json json = JsonOf(response);
  EXPECT_EQ(json["scope"], "api");
  EXPECT_THAT(world_.tokens.VerifyApi(std::string(json["access_token"]), world_.clock.Now()), IsOk());
  EXPECT_EQ(Token(RefreshFields(json["refresh_token"])).status(), 200);
}

TEST_F(EndpointsTest, RevokedRefreshTokenEndsTheGrantForItsClientOnly) {
  const nlohmann::json tokens = JsonOf(Token(CodeFields(Code())));
  const std::string other = RegisterClient(browser_, kLoopback, {{"client_name", "Other"}});
  const FormFields revoke = {{"token", tokens["refresh_token"]}, {"client_id", client_}};
  EXPECT_EQ(browser_.Post("/oauth/revoke", With(revoke, "client_id", other)).status(), 200);
  const nlohmann::json next = JsonOf(Token(RefreshFields(tokens["refresh_token"])));
  EXPECT_EQ(browser_.Post("/oauth/revoke", With(revoke, "token", next["refresh_token"])).status(), 200);
  EXPECT_EQ(ErrorOf(Token(RefreshFields(next["refresh_token"]))), "invalid_grant");
}

TEST_F(EndpointsTest, RevokedAccessTokenIsRememberedForItsClientOnly) {
  const nlohmann::json tokens = JsonOf(Token(CodeFields(Code())));
  const std::string token = tokens["access_token"];
  ASSERT_OK_AND_ASSIGN(const AccessToken access, world_.tokens.VerifyForRevocation(token));
  const std::string other = RegisterClient(browser_, kLoopback, {{"client_name", "Other"}});
  EXPECT_EQ(browser_.Post("/oauth/revoke", {{"token", token}, {"client_id", other}}).status(), 200);
  EXPECT_FALSE(*world_.revocations.IsRevoked(access.jti));
  EXPECT_EQ(browser_.Post("/oauth/revoke", {{"token", token}, {"client_id", client_}}).status(), 200);
  EXPECT_TRUE(*world_.revocations.IsRevoked(access.jti));
}

TEST_F(EndpointsTest, RevocationOfNonsenseIsFineButOfNothingIsNot) {
  EXPECT_EQ(browser_.Post("/oauth/revoke", {{"token", "nonsense"}, {"client_id", client_}}).status(), 200);
  EXPECT_EQ(browser_.Post("/oauth/revoke", {{"client_id", client_}}).status(), 400);
  EXPECT_EQ(browser_.Post("/oauth/revoke", {{"token", "x"}, {"client_id", "clt_nobody"}}).status(), 401);
}

TEST_F(EndpointsTest, RegistrationEchoesWhatWasRegistered) {
  WebRequest request = browser_.Begin("POST", "/oauth/register");
  TestBrowser::Add(request, "content-type", "application/json");
  request.set_body(R"({"redirect_uris":["https://client.example/cb"],"client_name":"Claude",
    "token_endpoint_auth_method":"client_secret_post"})");
  const WebResponse response = browser_.Send(request);
  EXPECT_EQ(response.status(), 201);
  EXPECT_EQ(ResponseHeader(response, "cache-control"), "no-store");
  const nlohmann::json json = JsonOf(response);
  EXPECT_EQ(json["redirect_uris"], nlohmann::json::array({"https://client.example/cb"}));
  EXPECT_EQ(json["response_types"], nlohmann::json::array({"code"}));
  EXPECT_EQ(json["client_secret_expires_at"], 0);
  EXPECT_FALSE(std::string(json["client_secret"]).empty());
  EXPECT_EQ(world_.Events("client.registered").size(), 2U);
}

TEST_F(EndpointsTest, RegistrationOfAPublicClientHasNoSecret) {
  WebRequest request = browser_.Begin("POST", "/oauth/register");
  TestBrowser::Add(request, "content-type", "application/json");
  request.set_body(R"({"redirect_uris":["http://localhost:3118/callback"]})");
  const nlohmann::json json = JsonOf(browser_.Send(request));
  EXPECT_EQ(json["token_endpoint_auth_method"], "none");
  EXPECT_FALSE(json.contains("client_secret"));
}

TEST_F(EndpointsTest, RegistrationRefusesByTransportAndContent) {
  EXPECT_EQ(browser_.Get("/oauth/register").status(), 405);
  EXPECT_EQ(browser_.Post("/oauth/register", {{"redirect_uris", "x"}}).status(), 415);
  WebRequest request = browser_.Begin("POST", "/oauth/register");
  TestBrowser::Add(request, "content-type", "application/json");
  request.set_body(R"({"redirect_uris":["http://evil.example/"]})");
  const WebResponse refused = browser_.Send(request);
  EXPECT_EQ(refused.status(), 400);
  EXPECT_EQ(ErrorOf(refused), "invalid_redirect_uri");
}

// The whole flow on the engine of larger deployments.
TEST(EndpointsOnPostgresqlTest, FlowAndFiftyParallelRedemptions) {
  World::Options options;
  ASSERT_OK_AND_ASSIGN(options.postgresql, TestPostgres::CreateDatabase());
  World world(options);
  TestBrowser browser(world);
  browser.SignIn("ann");
  const std::string client = RegisterClient(browser, kLoopback);
  const std::string code = ObtainCode(browser, AuthorizeFields(client, kLoopback));
  ASSERT_NE(code, "");
  std::atomic<int> succeeded{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 50; ++i) {
    threads.emplace_back([&] {
      TestBrowser caller(world);
      const WebResponse response = RequestToken(caller, {{"grant_type", "authorization_code"},
                                                         {"code", code},
                                                         {"code_verifier", kVerifier},
                                                         {"redirect_uri", kLoopback},
                                                         {"client_id", client}});
      succeeded += response.status() == 200 ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(succeeded, 1);
}

}  // namespace
}  // namespace sallyport::authn::web

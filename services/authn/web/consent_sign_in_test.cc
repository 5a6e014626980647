// SPDX-License-Identifier: Apache-2.0
// Signing in again to agree to what a server's token exchange needs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/authn/web/web_testing.h"

namespace sallyport::authn::web {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kClaims[] = R"({"access_token":{"c":1}})";

registry::v1::McpServer ExchangingServer(const std::string& slug,
                                         registry::v1::OutboundHeader::OnBehalfOf::Style style) {
  registry::v1::McpServer server = MakeServer(slug, "srv_" + slug);
  for (const char* scope : {"api://down/read", "openid", "api://down/write"}) {
    auto* header = server.add_outbound_headers();
    header->set_name(absl::StrCat("X-Token-", server.outbound_headers_size()));
    auto* exchange = header->mutable_on_behalf_of();
    exchange->set_exchange_url("https://idp.example.com/token");
    exchange->set_client_id("gateway");
    exchange->set_style(style);
    exchange->add_scopes(scope);
  }
  return server;
}

World::Options WithExchangingServers() {
  using OnBehalfOf = registry::v1::OutboundHeader::OnBehalfOf;
  World::Options options;
  options.servers.push_back(ExchangingServer("entra", OnBehalfOf::ENTRA_OBO));
  options.servers.push_back(ExchangingServer("rfc", OnBehalfOf::RFC8693));
  options.servers.push_back(ExchangingServer("closed", OnBehalfOf::ENTRA_OBO));
  auto* allow = options.servers.back().mutable_agent_auth()->mutable_interactive()->mutable_allow();
  allow->set_everyone(false);
  allow->add_subjects("okta:bob");
  return options;
}

class ConsentSignInTest : public ::testing::Test {
 protected:
  ConsentSignInTest() : world_(WithExchangingServers()), browser_(world_) {}

  void SignIn() {
    const WebResponse begun = browser_.Get("/login?connector=okta");
    ASSERT_EQ(Return(QueryOf(Location(begun))).status(), 303);
  }
  // The provider's answer, for `sub`.
  WebResponse Return(const Form& asked, const std::string& sub = "ann") {
    const nlohmann::json claims = {{"aud", "gateway"}, {"nonce", asked.Get("nonce")}, {"sub", sub}};
    world_.token_endpoint.body = DumpJson({{"access_token", "of-" + sub},
                                           {"id_token", world_.issuer.Token(world_.clock.Now(), claims, "JWT")},
                                           {"token_type", "Bearer"}});
    return browser_.Get(
        absl::StrCat("/oauth/callback/okta?", FormEncode({{"code", "c"}, {"state", asked.Get("state")}})));
  }
  WebResponse Ask(const std::string& server, FormFields more = {}) {
    FormFields fields = {{"connector", "okta"}, {"consent", server}, {"return_to", "/connect/entra/done?consent=1"}};
    fields.insert(fields.end(), more.begin(), more.end());
    return browser_.Get("/login?" + FormEncode(fields));
  }
  token_broker::v1::StoreTokensRequest LastStored() { return world_.sign_in_tokens.stored().back().first; }

  World world_;
  TestBrowser browser_;
};

TEST_F(ConsentSignInTest, AsksForTheExchangesScopesWithPromptAndClaims) {
  SignIn();
  const WebResponse response = Ask("entra", {{"claims", kClaims}});
  ASSERT_EQ(response.status(), 303) << response.body();
  EXPECT_THAT(Location(response), StartsWith("https://idp.example.com/authorize?"));
  const Form asked = QueryOf(Location(response));
  EXPECT_EQ(asked.Get("scope"), "openid email profile api://down/read api://down/write");
  EXPECT_EQ(asked.Get("prompt"), "consent");
  EXPECT_EQ(asked.Get("claims"), kClaims);
  EXPECT_EQ(asked.Get("client_id"), "gateway");
  EXPECT_TRUE(IsS256Challenge(asked.Get("code_challenge")));

  const WebResponse back = Return(asked);
  EXPECT_EQ(Location(back), "/connect/entra/done?consent=1");
  EXPECT_EQ(LastStored().consent_server_uid(), "srv_entra");
  const Form redeemed = *Form::Parse(world_.token_endpoint.requests.back().body);
  EXPECT_EQ(redeemed.Get("scope"), "openid email profile") << "the token is for the gateway, as of any sign-in";
}

TEST_F(ConsentSignInTest, OfAnotherProvidersExchangeNoScopesAreAskedFor) {
  SignIn();
  const Form asked = QueryOf(Location(Ask("rfc")));
  EXPECT_EQ(asked.Get("scope"), "openid email profile");
  EXPECT_EQ(asked.Get("prompt"), "consent");
  EXPECT_FALSE(asked.Has("claims"));
  Return(asked);
  EXPECT_EQ(LastStored().consent_server_uid(), "srv_rfc");
  EXPECT_FALSE(Form::Parse(world_.token_endpoint.requests.back().body)->Has("scope"));
}

TEST_F(ConsentSignInTest, AnOrdinarySignInIsNoConsent) {
  SignIn();
  EXPECT_EQ(LastStored().consent_server_uid(), "");
  const Form asked = QueryOf(Location(browser_.Get("/login?connector=okta&claims=%7B%22a%22%3A1%7D&scope=x")));
  EXPECT_FALSE(asked.Has("claims"));
  EXPECT_FALSE(asked.Has("prompt"));
  EXPECT_EQ(asked.Get("scope"), "openid email profile");
}

TEST_F(ConsentSignInTest, ScopesComeFromThePlanAndNeverFromTheAddress) {
  SignIn();
  const Form asked = QueryOf(Location(Ask("entra", {{"scope", "Directory.ReadWrite.All"}, {"prompt", "none"}})));
  EXPECT_EQ(asked.Get("scope"), "openid email profile api://down/read api://down/write");
  EXPECT_EQ(asked.Get("prompt"), "consent");
}

TEST_F(ConsentSignInTest, ClaimsThatAreNoneAreLeftOut) {
  SignIn();
  for (const std::string& claims : {std::string("x"), std::string("[1]"), std::string(3000, ' ') + "{}"}) {
    const WebResponse response = Ask("entra", {{"claims", claims}});
    ASSERT_EQ(response.status(), 303);
    EXPECT_FALSE(QueryOf(Location(response)).Has("claims")) << claims.substr(0, 10);
  }
}

TEST_F(ConsentSignInTest, IsForWhoIsSignedInThereAndMayUseTheServer) {
  EXPECT_EQ(Ask("entra").status(), 401) << "nobody is signed in";
  SignIn();
  for (const char* server : {"closed", "github", "raw", "off", "none", ""}) {
    const WebResponse response = Ask(server);
    EXPECT_EQ(response.status(), 403) << server;
    EXPECT_THAT(response.body(), HasSubstr("consent_not_possible"));
  }
  EXPECT_EQ(browser_.Get("/login?connector=other&consent=entra").status(), 403);
  EXPECT_EQ(browser_.Get("/login?consent=entra").status(), 403);
  EXPECT_EQ(Ask("entra", {{"consent", "rfc"}}).status(), 400);
  TestBrowser local(world_);
  local.SignIn("ann");
  EXPECT_EQ(local.Get("/login?connector=local&consent=entra").status(), 403);
  EXPECT_EQ(local.Get("/login?connector=okta&consent=entra").status(), 403);
}

TEST_F(ConsentSignInTest, SomebodyElseIsNotLedIntoTheFormerPersonsLink) {
  SignIn();
  const Form asked = QueryOf(Location(Ask("entra")));
  const std::string former = browser_.cookies[kSessionCookie];
  const WebResponse back = Return(asked, "bob");
  EXPECT_EQ(Location(back), "/");
  EXPECT_EQ(LastStored().consent_server_uid(), "");
  EXPECT_FALSE(world_.sessions.Find(former, world_.clock.Now()).ok());
  ASSERT_OK_AND_ASSIGN(const Session now, world_.sessions.Find(browser_.cookies[kSessionCookie], world_.clock.Now()));
  EXPECT_EQ(now.user.subject, "okta:bob");
}

TEST_F(ConsentSignInTest, WhoDoesNotAgreeStaysSignedIn) {
  SignIn();
  const Form asked = QueryOf(Location(Ask("entra")));
  const std::string session = browser_.cookies[kSessionCookie];
  const size_t stored = world_.sign_in_tokens.stored().size();
  const WebResponse page = browser_.Get(
      absl::StrCat("/oauth/callback/okta?", FormEncode({{"error", "access_denied"}, {"state", asked.Get("state")}})));
  EXPECT_EQ(page.status(), 400);
  EXPECT_THAT(page.body(), AllOf(HasSubstr("You have not agreed at Test okta"), HasSubstr("access_denied"),
                                 HasSubstr("make the call again")));
  EXPECT_TRUE(world_.sessions.Find(session, world_.clock.Now()).ok());
  EXPECT_EQ(world_.sign_in_tokens.stored().size(), stored);
  EXPECT_EQ(world_.Events("login.failed").size(), 1U);
}

TEST_F(ConsentSignInTest, LeadsBackToPathsOfOurOwnOnly) {
  SignIn();
  const WebResponse response =
      browser_.Get("/login?connector=okta&consent=entra&return_to=https%3A%2F%2Fevil.example%2F");
  EXPECT_EQ(Location(Return(QueryOf(Location(response)))), "/");
}

}  // namespace
}  // namespace sallyport::authn::web

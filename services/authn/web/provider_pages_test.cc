// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/provider_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/authn/web/web_testing.h"

namespace sallyport::authn::web {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class ProviderPagesTest : public ::testing::Test {
 protected:
  ProviderPagesTest() : browser_(world_) {}

  Form Begin() { return QueryOf(Location(browser_.Get("/login?connector=okta&return_to=%2Fconsole"))); }
  WebResponse Finish(const Form& begun) {
    return browser_.Get("/oauth/callback/okta?" + FormEncode({{"code", "c0de"}, {"state", begun.Get("state")}}));
  }
  void SignIn() {
    const Form begun = Begin();
    world_.token_endpoint.body =
        DumpJson({{"access_token", "idp-access"},
                  {"id_token",
                   world_.issuer.Token(world_.clock.Now(), {{"aud", "gateway"}, {"nonce", begun.Get("nonce")}}, "JWT")},
                  {"token_type", "Bearer"},
                  {"expires_in", 300}});
    ASSERT_EQ(Finish(begun).status(), 303);
  }
  WebResponse SignOut() {
    const WebResponse page = browser_.Get("/logout");
    return browser_.Post("/logout", {{"csrf", Between(page.body(), "name=\"csrf\" value=\"", "\"")}});
  }
  void Announce(const std::string& end_session_endpoint) {
    nlohmann::json discovery = nlohmann::json::parse(world_.issuer.Discovery());
    discovery["end_session_endpoint"] = end_session_endpoint;
    world_.fetcher.Serve(std::string(kIssuer) + "/.well-known/openid-configuration", DumpJson(discovery));
  }
  std::string ErrorInAudit() {
    const auto events = world_.Events("login.failed");
    EXPECT_FALSE(events.empty());
    if (events.empty()) return "";
    const auto found = events.back().details().find("error");
    return found == events.back().details().end() ? "" : found->second;
  }

  World world_;
  TestBrowser browser_;
};

TEST_F(ProviderPagesTest, ProviderThatDoesNotAnswerIsNamed) {
  world_.fetcher.TakeDown(std::string(kIssuer) + "/.well-known/openid-configuration");
  const WebResponse begin = browser_.Get("/login?connector=okta");
  EXPECT_EQ(begin.status(), 503);
  EXPECT_EQ(ResponseHeader(begin, "retry-after"), "2");
  EXPECT_THAT(begin.body(), AllOf(HasSubstr("Test okta does not answer"), HasSubstr("keys_unavailable")));
}

TEST_F(ProviderPagesTest, TokenEndpointThatFailsIsNamed) {
  const Form begun = Begin();
  world_.token_endpoint.status = 502;
  const WebResponse page = Finish(begun);
  EXPECT_EQ(page.status(), 503);
  EXPECT_THAT(page.body(), AllOf(HasSubstr("Test okta does not answer"), HasSubstr("provider_unavailable"),
                                 HasSubstr("/login?connector=okta&amp;return_to=%2Fconsole")));
}

TEST_F(ProviderPagesTest, WrongClientSecretSaysSoAndDoesNotAskToRetry) {
  for (const auto& [status, body] :
       {std::pair(401, R"({"error":"invalid_client","error_description":"AADSTS7000215: canary"})"),
        std::pair(400, R"({"error":"invalid_client"})"), std::pair(400, R"({"error":"unauthorized_client"})"),
        std::pair(200, R"({"error":"invalid_client"})"), std::pair(401, "")}) {
    const Form begun = Begin();
    world_.token_endpoint.status = status;
    world_.token_endpoint.body = body;
    const WebResponse page = Finish(begun);
    EXPECT_EQ(page.status(), 502) << body;
    EXPECT_THAT(page.body(), AllOf(HasSubstr("Test okta does not accept this gateway"), HasSubstr("client secret"),
                                   HasSubstr("client_refused"), Not(HasSubstr("Try again")), Not(HasSubstr("canary"))))
        << body;
    EXPECT_EQ(ResponseHeader(page, "retry-after"), "") << body;
  }
  const Form begun = Begin();
  world_.token_endpoint.status = 401;
  world_.token_endpoint.body = R"({"error":"invalid_client"})";
  EXPECT_THAT(Finish(begun).body(), HasSubstr("client_refused (invalid_client)"));
  EXPECT_EQ(ErrorInAudit(), "invalid_client");
}

TEST_F(ProviderPagesTest, ErrorCodeOfTheProviderIsOnThePageAndInTheAudit) {
  const Form begun = Begin();
  world_.token_endpoint.status = 400;
  world_.token_endpoint.body = R"({"error":"invalid_grant"})";
  const WebResponse page = Finish(begun);
  EXPECT_EQ(page.status(), 401);
  EXPECT_THAT(page.body(), HasSubstr("code_refused (invalid_grant)"));
  EXPECT_EQ(ErrorInAudit(), "invalid_grant");

  const Form refused = Begin();
  browser_.Get("/oauth/callback/okta?" + FormEncode({{"error", "access_denied"}, {"state", refused.Get("state")}}));
  EXPECT_EQ(ErrorInAudit(), "access_denied");
}

TEST_F(ProviderPagesTest, ErrorCodeThatIsNoneIsNotRepeated) {
  const Form begun = Begin();
  world_.token_endpoint.status = 400;
  world_.token_endpoint.body = R"({"error":"<b>canary</b>"})";
  EXPECT_THAT(Finish(begun).body(), AllOf(HasSubstr("unreadable_error"), Not(HasSubstr("canary"))));
  EXPECT_EQ(ErrorInAudit(), "unreadable_error");
}

TEST_F(ProviderPagesTest, IdTokenThatDoesNotHoldIsNotCalledTheProvidersError) {
  const Form begun = Begin();
  world_.token_endpoint.body = DumpJson(
      {{"access_token", "a"},
       {"id_token", world_.issuer.Token(world_.clock.Now(), {{"aud", "else"}, {"nonce", begun.Get("nonce")}}, "JWT")},
       {"token_type", "Bearer"}});
  const WebResponse page = Finish(begun);
  EXPECT_EQ(page.status(), 401);
  EXPECT_THAT(page.body(), AllOf(HasSubstr("Test okta did not sign you in"), Not(HasSubstr("invalid_token"))));
  EXPECT_EQ(ErrorInAudit(), "");
}

TEST_F(ProviderPagesTest, MetadataOfAnotherIssuerIsCalledASettingToMend) {
  world_.fetcher.Serve(std::string(kIssuer) + "/.well-known/openid-configuration", world_.other_issuer.Discovery());
  const WebResponse page = browser_.Get("/login?connector=okta");
  EXPECT_EQ(page.status(), 502);
  EXPECT_THAT(page.body(), AllOf(HasSubstr("Test okta cannot be used"), Not(HasSubstr("Try again"))));
}

TEST_F(ProviderPagesTest, SigningOutOffersTheProvidersSignOut) {
  Announce("https://idp.example.com/logout?tenant=a");
  SignIn();
  const WebResponse page = SignOut();
  EXPECT_EQ(page.status(), 200);
  EXPECT_EQ(Between(page.body(), "<a class=\"btn wide primary\" href=\"", "\""),
            "https://idp.example.com/logout?tenant=a&client_id=gateway&post_logout_redirect_uri="
            "https%3A%2F%2Fgw.example.com%2Fsigned-out");
  EXPECT_THAT(page.body(), AllOf(HasSubstr("You are signed out"), HasSubstr("Your session at Test okta goes on."),
                                 HasSubstr("Sign out of Test okta")));
  EXPECT_EQ(browser_.cookies.count(kSessionCookie), 0U);
  EXPECT_EQ(browser_.Get("/logout").status(), 303);
}

TEST_F(ProviderPagesTest, SigningOutSaysThatTheProvidersSessionGoesOn) {
  SignIn();
  const WebResponse page = SignOut();
  EXPECT_EQ(page.status(), 200);
  EXPECT_THAT(page.body(), AllOf(HasSubstr("Your session at Test okta goes on."),
                                 HasSubstr("Sign out at Test okta, too"), Not(HasSubstr("Sign out of Test okta"))));
}

TEST_F(ProviderPagesTest, SigningOutWorksWhileTheProviderIsDown) {
  Announce("https://idp.example.com/logout");
  SignIn();
  world_.fetcher.TakeDown(std::string(kIssuer) + "/.well-known/openid-configuration");
  world_.clock.Advance(absl::Hours(2));
  EXPECT_THAT(SignOut().body(), HasSubstr("Sign out of Test okta")) << "what was known serves";
}

TEST_F(ProviderPagesTest, SignInAgainAfterSigningOutEndsAtAPageForPeople) {
  SignIn();
  const WebResponse signed_out = SignOut();
  EXPECT_THAT(signed_out.body(), HasSubstr("href=\"/login\">Sign in again"));
  EXPECT_THAT(browser_.Get("/signed-out").body(), HasSubstr("href=\"/login\">Sign in again"));

  const WebResponse in = browser_.SignIn("ann", "");
  EXPECT_EQ(RefreshTarget(in), "/");
  const WebResponse home = browser_.Get("/");
  EXPECT_EQ(home.status(), 200);
  EXPECT_THAT(home.body(), AllOf(HasSubstr("You are signed in"), HasSubstr("ann@example.com"),
                                 HasSubstr("https://gw.example.com/mcp/"), HasSubstr("href=\"/logout\"")));
  TestBrowser nobody(world_);
  EXPECT_EQ(Location(nobody.Get("/")), "/login");
}

}  // namespace
}  // namespace sallyport::authn::web

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/login.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/metrics.h"
#include "services/authn/web/web_testing.h"

namespace sallyport::authn::web {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class LoginTest : public ::testing::Test {
 protected:
  LoginTest() : browser_(world_) {}

  // Begins at the connector; the parameters the provider was given.
  Form BeginOidc(const std::string& connector = "okta", const std::string& return_to = "/console") {
    const WebResponse response =
        browser_.Get(WithParameters("/login", {{"connector", connector}, {"return_to", return_to}}));
    EXPECT_EQ(response.status(), 303);
    return QueryOf(Location(response));
  }
  // What the provider's token endpoint gives for that request.
  void Answer(const Form& begun, const nlohmann::json& change = nlohmann::json::object()) {
    nlohmann::json claims = {{"aud", "gateway"}, {"nonce", begun.Get("nonce")}, {"email", "ann@example.com"}};
    claims.update(change);
    const std::string id_token = world_.issuer.Token(world_.clock.Now(), claims, "JWT");
    world_.token_endpoint.body = DumpJson({{"access_token", "idp-access"},
                                           {"id_token", id_token},
                                           {"refresh_token", "idp-refresh"},
                                           {"token_type", "Bearer"},
                                           {"expires_in", 300}});
  }
  WebResponse Callback(const std::string& connector, const FormFields& fields) {
    return browser_.Get(absl::StrCat("/oauth/callback/", connector, "?", FormEncode(fields)));
  }
  WebResponse Finish(const Form& begun) { return Callback("okta", {{"code", "c0de"}, {"state", begun.Get("state")}}); }
  bool SignedIn() { return browser_.Get("/logout").status() == 200; }

  World world_;
  TestBrowser browser_;
};

TEST_F(LoginTest, OffersEveryConnectorThatCanSignIn) {
  const WebResponse page = browser_.Get("/login?return_to=/console");
  EXPECT_EQ(page.status(), 200);
  EXPECT_THAT(page.body(), AllOf(HasSubstr("Continue with Test okta"), HasSubstr("Continue with Test other"),
                                 HasSubstr("Use a local account")));
}

TEST_F(LoginTest, GoesStraightOnWhenThereIsOneWay) {
  World::Options options;
  options.only_local = true;
  World world(options);
  TestBrowser browser(world);
  EXPECT_THAT(Location(browser.Get("/login?return_to=/console")), StartsWith("/login/local?"));
}

TEST_F(LoginTest, UnknownConnectorIsNotFound) { EXPECT_EQ(browser_.Get("/login?connector=nope").status(), 404); }

TEST_F(LoginTest, AsksTheProviderWithPkceStateAndNonce) {
  const WebResponse response = browser_.Get("/login?connector=okta");
  EXPECT_THAT(Location(response), StartsWith("https://idp.example.com/authorize?"));
  const Form asked = QueryOf(Location(response));
  EXPECT_EQ(asked.Get("response_type"), "code");
  EXPECT_EQ(asked.Get("client_id"), "gateway");
  EXPECT_EQ(asked.Get("redirect_uri"), "https://gw.example.com/oauth/callback/okta");
  EXPECT_EQ(asked.Get("code_challenge_method"), "S256");
  EXPECT_TRUE(IsS256Challenge(asked.Get("code_challenge")));
  EXPECT_EQ(asked.Get("nonce").size(), 43U);
  EXPECT_EQ(asked.Get("state").size(), 43U);
  EXPECT_THAT(asked.Get("scope"), HasSubstr("openid"));
}

TEST_F(LoginTest, ProviderSignInMakesASessionAndKeepsItsTokens) {
  const Form begun = BeginOidc();
  Answer(begun);
  const WebResponse response = Finish(begun);
  ASSERT_EQ(response.status(), 303) << response.body();
  EXPECT_EQ(Location(response), "/console");
  EXPECT_TRUE(SignedIn());
  // The code was redeemed with the verifier of the challenge.
  ASSERT_EQ(world_.token_endpoint.requests.size(), 1U);
  EXPECT_TRUE(world_.token_endpoint.requests[0].once);
  const Form redeemed = *Form::Parse(world_.token_endpoint.requests[0].body);
  EXPECT_EQ(Base64UrlEncode(Sha256(redeemed.Get("code_verifier"))), begun.Get("code_challenge"));
  EXPECT_EQ(redeemed.Get("redirect_uri"), "https://gw.example.com/oauth/callback/okta");

  ASSERT_EQ(world_.sign_in_tokens.stored().size(), 1U);
  const auto [tokens, passport] = world_.sign_in_tokens.stored()[0];
  EXPECT_EQ(tokens.connector(), "okta");
  EXPECT_EQ(tokens.access_token(), "idp-access");
  EXPECT_EQ(tokens.refresh_token(), "idp-refresh");
  EXPECT_EQ(tokens.expires_at().seconds(), absl::ToUnixSeconds(world_.clock.Now()) + 300);
  PassportVerifier verifier(kPublicUrl, OwnKeySource(world_.keys));
  ASSERT_OK_AND_ASSIGN(const Passport of, verifier.Verify(passport, world_.clock.Now()));
  EXPECT_EQ(of.subject, "okta:ann");
  EXPECT_EQ(of.purpose, Passport::Purpose::kSignIn);
  ASSERT_EQ(world_.Events("login").size(), 1U);
  EXPECT_EQ(world_.Events("login")[0].user_email(), "ann@example.com");
}

TEST_F(LoginTest, ABrokerThatIsDownKeepsNobodyOut) {
  world_.sign_in_tokens.Fail(absl::UnavailableError("down"));
  const Form begun = BeginOidc();
  Answer(begun);
  EXPECT_EQ(Finish(begun).status(), 303);
  EXPECT_TRUE(SignedIn());
}

// What an administrator took away must not live on in an older browser, token or API token of the same person.
TEST_F(LoginTest, ANewerSignInDecidesForOlderSessions) {
  const Form first = BeginOidc();
  Answer(first, {{"groups", {"staff", "admins"}}, {"name", "Ann"}});
  ASSERT_EQ(Finish(first).status(), 303);
  TestBrowser older = browser_;
  browser_.cookies.clear();

  const Form second = BeginOidc();
  Answer(second, {{"groups", {"staff"}}, {"name", "Ann"}});
  ASSERT_EQ(Finish(second).status(), 303);

  ASSERT_OK_AND_ASSIGN(const Session session, world_.sessions.Find(older.cookies[kSessionCookie], world_.clock.Now()));
  EXPECT_EQ(session.user.groups, std::vector<std::string>{"staff"});
}

TEST_F(LoginTest, GroupsThatWereLeftOutAreRecordedAndCounted) {
  const auto counted = [] {
    return MetricCounter("sallyport_authn_groups_overage_total",
                         "People whose provider sent no groups because there are too many, by connector and what told "
                         "of them",
                         {{"connector", "okta"}, {"told_by", "sign_in"}})
        .Value();
  };
  const double before = counted();
  const Form begun = BeginOidc();
  Answer(begun, {{"_claim_names", {{"groups", "src1"}}}, {"name", "Ann"}});
  ASSERT_EQ(Finish(begun).status(), 303);
  EXPECT_EQ(counted(), before + 1);
  const auto events = world_.Events("login");
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].details().at("groups"), "overage");
}

TEST_F(LoginTest, PageSaysThatTheProviderLeftTheGroupsOut) {
  std::vector<registry::v1::McpServer> servers = TestServers();
  servers.push_back(MakeServer("crew", "srv_crew"));
  auto& allow = *servers.back().mutable_agent_auth()->mutable_interactive()->mutable_allow();
  allow.set_everyone(false);
  allow.add_groups("okta:crew");
  ASSERT_THAT(world_.stream.Seed(web::SnapshotOf(servers)), IsOk());
  const Form begun = BeginOidc();
  Answer(begun, {{"_claim_names", {{"groups", "src1"}}}, {"name", "Ann"}});
  ASSERT_EQ(Finish(begun).status(), 303);
  const std::string redirect = "http://127.0.0.1:3000/cb";
  const std::string client = RegisterClient(browser_, redirect);

  const WebResponse page = browser_.Get(
      "/oauth/authorize?" + FormEncode(AuthorizeFields(client, redirect, "https://gw.example.com/mcp/crew")));

  EXPECT_EQ(page.status(), 403);
  EXPECT_THAT(page.body(), AllOf(HasSubstr("Test okta sent none of yours because there are too many"),
                                 HasSubstr("Groups assigned to the application"), HasSubstr("groups_overage")));
  const auto denied = world_.Events("code.issued");
  ASSERT_EQ(denied.size(), 1U);
  EXPECT_EQ(denied[0].rule(), "interactive.allow.groups_overage");
}

class UserInfoTest : public LoginTest {
 protected:
  UserInfoTest() {
    nlohmann::json discovery = nlohmann::json::parse(world_.issuer.Discovery());
    discovery["userinfo_endpoint"] = "https://idp.example.com/userinfo";
    world_.fetcher.Serve(world_.issuer.issuer() + "/.well-known/openid-configuration", DumpJson(discovery));
  }
  // Signs in with an ID token that says nothing but who it is.
  WebResponse SignIn(int userinfo_status, const std::string& userinfo) {
    const Form begun = BeginOidc();
    Answer(begun, {{"email", nullptr}});
    world_.userinfo.status = userinfo_status;
    world_.userinfo.body = userinfo;
    return Finish(begun);
  }
  Identity User() {
    const absl::StatusOr<Session> session = world_.sessions.Find(browser_.cookies[kSessionCookie], world_.clock.Now());
    EXPECT_THAT(session, IsOk());
    return session.ok() ? session->user : Identity();
  }
};

TEST_F(UserInfoTest, ClaimsOfItsScopesComeFromThere) {
  ASSERT_EQ(SignIn(200, R"({"sub":"ann","email":"ann@example.com","email_verified":true,"groups":["staff"]})").status(),
            303);
  EXPECT_EQ(User().email, "ann@example.com");
  EXPECT_TRUE(User().email_verified);
  EXPECT_EQ(User().groups, std::vector<std::string>{"staff"});
  ASSERT_EQ(world_.userinfo.requests.size(), 1U);
  EXPECT_EQ(world_.userinfo.requests[0].url, "https://idp.example.com/userinfo");
}

TEST_F(UserInfoTest, AnAnswerAboutSomebodyElseIsNotUsed) {
  ASSERT_EQ(SignIn(200, R"({"sub":"eve","email":"ceo@example.com","email_verified":true})").status(), 303);
  EXPECT_EQ(User().email, "");
}

TEST_F(UserInfoTest, OneThatRefusesSignsInWithWhatTheIdTokenSays) {
  ASSERT_EQ(SignIn(403, "").status(), 303);
  EXPECT_EQ(User().subject, "okta:ann");
}

TEST_F(UserInfoTest, OneThatFailsSignsNobodyIn) {
  EXPECT_EQ(SignIn(503, "").status(), 503);
  EXPECT_FALSE(SignedIn());
}

TEST_F(UserInfoTest, IsNotAskedForWhatTheIdTokenSays) {
  const Form begun = BeginOidc();
  Answer(begun, {{"name", "Ann"}, {"groups", {"staff"}}});
  ASSERT_EQ(Finish(begun).status(), 303);
  EXPECT_TRUE(world_.userinfo.requests.empty());
}

TEST_F(LoginTest, VaultThatIsDownDoesNotKeepPeopleOut) {
  const Form begun = BeginOidc();
  Answer(begun);
  world_.vault.Fail(absl::UnavailableError("down"));
  EXPECT_EQ(Finish(begun).status(), 303);
  EXPECT_TRUE(SignedIn());
}

TEST_F(LoginTest, StateIsNeededOnceInItsBrowserForTenMinutes) {
  const Form begun = BeginOidc();
  Answer(begun);
  EXPECT_EQ(Callback("okta", {{"code", "c"}}).status(), 400);
  EXPECT_EQ(Callback("okta", {{"code", "c"}, {"state", "wrong"}}).status(), 400);
  EXPECT_EQ(Callback("okta", {{"code", "c"}, {"state", begun.Get("state")}, {"state", "x"}}).status(), 400);
  TestBrowser other(world_);
  other.Get("/login/local");
  EXPECT_EQ(other.Get("/oauth/callback/okta?code=c&state=" + begun.Get("state")).status(), 400);
  TestBrowser bare(world_);
  EXPECT_EQ(bare.Get("/oauth/callback/okta?code=c&state=" + begun.Get("state")).status(), 400);
  EXPECT_FALSE(SignedIn());
  EXPECT_TRUE(world_.token_endpoint.requests.empty());

  EXPECT_EQ(Finish(begun).status(), 303);
  EXPECT_EQ(Finish(begun).status(), 400);
  const Form late = BeginOidc();
  Answer(late);
  world_.clock.Advance(absl::Minutes(10));
  EXPECT_EQ(Finish(late).status(), 400);
}

TEST_F(LoginTest, AnswerOfAnotherProviderAbortsBeforeTheCodeIsRedeemed) {
  const Form begun = BeginOidc("okta");
  EXPECT_EQ(Callback("other", {{"code", "c"}, {"state", begun.Get("state")}}).status(), 400);
  const Form again = BeginOidc("okta");
  const WebResponse mixed = Callback("okta", {{"code", "c"}, {"state", again.Get("state")}, {"iss", kOtherIssuer}});
  EXPECT_EQ(mixed.status(), 400);
  EXPECT_THAT(mixed.body(), HasSubstr("issuer_mismatch"));
  EXPECT_TRUE(world_.token_endpoint.requests.empty());
  EXPECT_FALSE(SignedIn());
  EXPECT_EQ(world_.Events("login.failed").size(), 2U);
}

TEST_F(LoginTest, MissingIssIsRefusedWhereTheProviderPromisesIt) {
  nlohmann::json discovery = *ParseJsonObject(world_.issuer.Discovery());
  discovery["authorization_response_iss_parameter_supported"] = true;
  world_.fetcher.Serve(std::string(kIssuer) + "/.well-known/openid-configuration", discovery.dump());
  const Form begun = BeginOidc();
  Answer(begun);
  EXPECT_EQ(Finish(begun).status(), 400);
  EXPECT_TRUE(world_.token_endpoint.requests.empty());
  const Form again = BeginOidc();
  Answer(again);
  EXPECT_EQ(Callback("okta", {{"code", "c"}, {"state", again.Get("state")}, {"iss", kIssuer}}).status(), 303);
}

struct BadIdToken {
  const char* name;
  nlohmann::json change;
};
class SignInWithBadIdTokenTest : public LoginTest, public ::testing::WithParamInterface<BadIdToken> {};

TEST_P(SignInWithBadIdTokenTest, SignsNobodyIn) {
  const Form begun = BeginOidc();
  Answer(begun, GetParam().change);
  EXPECT_EQ(Finish(begun).status(), 401);
  EXPECT_FALSE(SignedIn());
  EXPECT_EQ(world_.Events("login.failed").size(), 1U);
}

INSTANTIATE_TEST_SUITE_P(Claims, SignInWithBadIdTokenTest,
                         ::testing::Values(BadIdToken{"NoNonce", {{"nonce", nullptr}}},
                                           BadIdToken{"OtherNonce", {{"nonce", "of-another-flow"}}},
                                           BadIdToken{"OtherAudience", {{"aud", "somebody-else"}}},
                                           BadIdToken{"OtherIssuer", {{"iss", kOtherIssuer}}},
                                           BadIdToken{"OtherAuthorizedParty", {{"azp", "somebody-else"}}},
                                           BadIdToken{"AccessTokenHash", {{"at_hash", "AAAAAAAAAAAAAAAAAAAAAA"}}},
                                           BadIdToken{"Expired", {{"exp", 1}}},
                                           BadIdToken{"NoSubject", {{"sub", nullptr}}}),
                         [](const auto& test) { return test.param.name; });

TEST_F(LoginTest, ProviderThatRefusesTheCodeSignsNobodyIn) {
  for (const auto& [status, body] : {std::pair(400, R"({"error":"invalid_grant"})"), std::pair(200, "<html>"),
                                     std::pair(200, R"({"access_token":"x"})"),
                                     std::pair(200, R"({"access_token":"x","id_token":"a.b.c","token_type":"mac"})")}) {
    const Form begun = BeginOidc();
    world_.token_endpoint.status = status;
    world_.token_endpoint.body = body;
    EXPECT_EQ(Finish(begun).status(), 401) << body;
  }
  const Form begun = BeginOidc();
  world_.token_endpoint.status = 502;
  const WebResponse unavailable = Finish(begun);
  EXPECT_EQ(unavailable.status(), 503);
  EXPECT_EQ(ResponseHeader(unavailable, "retry-after"), "2");
  EXPECT_FALSE(SignedIn());
}

TEST_F(LoginTest, ProviderErrorsAreShownAsText) {
  const Form begun = BeginOidc();
  const WebResponse page =
      Callback("okta", {{"error", "access_denied"},
                        {"error_description", "<img src=x onerror=alert(1)>" + std::string(5000, 'x')},
                        {"state", begun.Get("state")}});
  EXPECT_EQ(page.status(), 400);
  EXPECT_THAT(page.body(), HasSubstr("access_denied"));
  EXPECT_THAT(page.body(), Not(HasSubstr("<img")));
  EXPECT_THAT(page.body(), Not(HasSubstr(std::string(300, 'x'))));
}

TEST_F(LoginTest, SameAddressAtAnotherProviderIsAnotherUser) {
  const Form begun = BeginOidc();
  Answer(begun);
  Finish(begun);
  ASSERT_OK_AND_ASSIGN(const Session okta, world_.sessions.Find(browser_.cookies[kSessionCookie], world_.clock.Now()));
  TestBrowser local(world_);
  local.SignIn("ann");
  ASSERT_OK_AND_ASSIGN(const Session own, world_.sessions.Find(local.cookies[kSessionCookie], world_.clock.Now()));
  EXPECT_EQ(okta.user.email, own.user.email);
  EXPECT_NE(okta.user.subject, own.user.subject);
}

TEST_F(LoginTest, SessionCookieIsNewAtSignInAndOutOfReachOfScripts) {
  browser_.cookies[kSessionCookie] = std::string(43, 'p');  // Planted.
  const Form begun = BeginOidc();
  Answer(begun);
  const WebResponse response = Finish(begun);
  EXPECT_THAT(ResponseHeader(response, "set-cookie"),
              AllOf(StartsWith("__Host-sallyport-session="), HasSubstr("; Path=/"), HasSubstr("; HttpOnly"),
                    HasSubstr("; Secure"), HasSubstr("; SameSite=Lax"), Not(HasSubstr("Domain"))));
  EXPECT_NE(browser_.cookies[kSessionCookie], std::string(43, 'p'));
  const std::string first = browser_.cookies[kSessionCookie];
  browser_.SignIn("ann");
  EXPECT_NE(browser_.cookies[kSessionCookie], first);
  EXPECT_THAT(world_.sessions.Find(first, world_.clock.Now()), Not(IsOk()));
}

TEST_F(LoginTest, ReturnsOnlyToPathsOfOurOwn) {
  for (const char* evil :
       {"https://evil.example/", "//evil.example", "/\\evil.example", "/%2f/evil.example", "javascript:alert(1)"}) {
    const Form begun = BeginOidc("okta", evil);
    Answer(begun);
    EXPECT_EQ(Location(Finish(begun)), "/") << evil;
    TestBrowser local(world_);
    EXPECT_EQ(RefreshTarget(local.SignIn("ann", evil)), "/") << evil;
  }
}

TEST_F(LoginTest, LocalSignInAnswersTheFormWithAPage) {
  const WebResponse response = browser_.SignIn("ann", "/console");
  EXPECT_EQ(response.status(), 200);
  EXPECT_EQ(RefreshTarget(response), "/console");
  EXPECT_TRUE(SignedIn());
}

TEST_F(LoginTest, WrongNameAndWrongPasswordLookTheSame) {
  const auto attempt = [&](const std::string& name, const std::string& password) {
    TestBrowser browser(world_);
    browser.address = absl::StrCat("192.0.2.", name.size());
    const WebResponse form = browser.Get("/login/local?connector=local");
    WebResponse response = browser.Post("/login/local", {{"csrf", Between(form.body(), "name=\"csrf\" value=\"", "\"")},
                                                         {"connector", "local"},
                                                         {"username", name},
                                                         {"password", password}});
    EXPECT_EQ(browser.cookies.count(kSessionCookie), 0U);
    // What differs by chance or is the reader's own input.
    return std::pair(response.status(), Between(response.body(), "role=\"alert\">", "</div>"));
  };
  const auto wrong_password = attempt("ann", "wrong");
  const auto wrong_name = attempt("nob", "wrong");
  EXPECT_EQ(wrong_password, wrong_name);
  EXPECT_EQ(wrong_password.first, 401);
  EXPECT_THAT(wrong_password.second, HasSubstr("Name or password is wrong."));
}

TEST_F(LoginTest, SixthWrongAttemptIsPausedEvenWithTheRightPassword) {
  const WebResponse form = browser_.Get("/login/local?connector=local");
  FormFields fields = {{"csrf", Between(form.body(), "name=\"csrf\" value=\"", "\"")},
                       {"connector", "local"},
                       {"username", "ann"},
                       {"password", "wrong"}};
  const auto counted = [](const char* outcome) {
    return MetricCounter("sallyport_authn_sign_ins_total", "Sign-ins of people, by connector and outcome",
                         {{"connector", "local"}, {"outcome", outcome}})
        .Value();
  };
  const double refused_before = counted("refused");
  const double paused_before = counted("paused");
  for (int i = 0; i < 5; ++i) {
    browser_.Post("/login/local", fields);
  }
  EXPECT_EQ(counted("refused"), refused_before + 5);
  fields.back().second = kPassword;
  const WebResponse paused = browser_.Post("/login/local", fields);
  EXPECT_EQ(paused.status(), 429);
  EXPECT_FALSE(SignedIn());
  world_.clock.Advance(absl::Minutes(15));
  EXPECT_EQ(browser_.Post("/login/local", fields).status(), 200);
  EXPECT_EQ(world_.Events("login.failed").size(), 6U);
  EXPECT_EQ(counted("paused"), paused_before + 1);
}

TEST_F(LoginTest, LocalFormNeedsItsTokenCookieAndOrigin) {
  const WebResponse form = browser_.Get("/login/local?connector=local");
  const FormFields good = {{"csrf", Between(form.body(), "name=\"csrf\" value=\"", "\"")},
                           {"connector", "local"},
                           {"username", "ann"},
                           {"password", kPassword}};
  FormFields bad = good;
  bad[0].second = "x";
  EXPECT_EQ(browser_.Post("/login/local", bad).status(), 403);
  TestBrowser victim(world_);
  EXPECT_EQ(victim.Post("/login/local", good).status(), 403);
  browser_.origin = "https://evil.example";
  EXPECT_EQ(browser_.Post("/login/local", good).status(), 403);
  browser_.origin = "";
  EXPECT_EQ(browser_.Post("/login/local", good).status(), 403);
}

TEST_F(LoginTest, SignedInUsersAreTakenOnAndMaySwitch) {
  browser_.SignIn("ann");
  EXPECT_EQ(Location(browser_.Get("/login?return_to=/console")), "/console");
  const WebResponse page = browser_.Get("/login?switch=1&return_to=/console");
  EXPECT_EQ(page.status(), 200);
  EXPECT_THAT(page.body(), HasSubstr("switch=1"));
  EXPECT_EQ(QueryOf(Location(browser_.Get("/login?switch=1&connector=okta"))).Get("prompt"), "login");
}

TEST_F(LoginTest, SigningOutNeedsTheFormOfThePage) {
  browser_.SignIn("ann");
  const std::string cookie = browser_.cookies[kSessionCookie];
  const WebResponse page = browser_.Get("/logout");
  EXPECT_THAT(page.body(), HasSubstr("Sign out?"));
  EXPECT_EQ(browser_.Post("/logout", {{"csrf", "x"}}).status(), 403);
  EXPECT_TRUE(SignedIn());
  const WebResponse done = browser_.Post("/logout", {{"csrf", Between(page.body(), "name=\"csrf\" value=\"", "\"")}});
  EXPECT_EQ(Location(done), "/signed-out");
  EXPECT_THAT(world_.sessions.Find(cookie, world_.clock.Now()), Not(IsOk()));
  EXPECT_EQ(browser_.cookies.count(kSessionCookie), 0U);
  EXPECT_EQ(world_.Events("logout").size(), 1U);
  EXPECT_THAT(browser_.Get("/signed-out").body(), HasSubstr("You are signed out"));
}

TEST_F(LoginTest, SessionEndsAfterTwelveHours) {
  browser_.SignIn("ann");
  world_.clock.Advance(absl::Hours(12));
  EXPECT_FALSE(SignedIn());
}

}  // namespace
}  // namespace sallyport::authn::web

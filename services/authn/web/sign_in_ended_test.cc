// SPDX-License-Identifier: Apache-2.0
// A sign-in whose tokens have ended at the identity provider, while our session and grants go on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/status_macros.h"
#include "services/authn/authenticator.h"
#include "services/authn/authn_service.h"
#include "services/authn/ended_sign_ins.h"
#include "services/authn/web/web_testing.h"

namespace sallyport::authn::web {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kLoopback[] = "http://127.0.0.1:5/cb";
constexpr char kForwarding[] = "https://gw.example.com/mcp/forwarding";
constexpr char kProvider[] = "https://idp.example.com/authorize?";

World::Options WithForwardingServer() {
  World::Options options;
  options.servers.push_back(MakeServer("forwarding", "srv_forwarding"));
  auto* header = options.servers.back().add_outbound_headers();
  header->set_name("X-Token");
  header->mutable_forward_caller_token();
  return options;
}

class SignInEndedTest : public ::testing::Test {
 protected:
  SignInEndedTest()
      : world_(WithForwardingServer()),
        browser_(world_),
        edge_keys_(world_.vault),
        admin_token_(*world_.database, world_.audit, world_.directory.path()),
        ended_(*world_.database),
        authenticator_({world_.servers, *world_.connectors, world_.jwks, world_.tokens, world_.grants,
                        world_.revocations, world_.roles, world_.passports}),
        rpcs_({authenticator_, world_.servers, *world_.connectors, world_.keys, world_.tokens, world_.passports,
               world_.roles, world_.sessions, world_.grants, world_.revocations, edge_keys_, admin_token_, world_.audit,
               ended_}) {
    client_ = RegisterClient(browser_, kLoopback);
  }

  // Through the provider, from the redirect that leads there, back to where the sign-in was begun.
  WebResponse SignInAt(const std::string& provider_url) {
    const Form begun = QueryOf(provider_url);
    const std::string id_token = world_.issuer.Token(
        world_.clock.Now(), {{"aud", "gateway"}, {"nonce", begun.Get("nonce")}, {"email", "ann@example.com"}}, "JWT");
    world_.token_endpoint.body = DumpJson({{"access_token", "idp-access"},
                                           {"id_token", id_token},
                                           {"refresh_token", "idp-refresh"},
                                           {"token_type", "Bearer"},
                                           {"expires_in", 300}});
    return browser_.Get("/oauth/callback/okta?" + FormEncode({{"code", "c0de"}, {"state", begun.Get("state")}}));
  }
  void SignIn() { SignInAt(Location(browser_.Get("/login?connector=okta"))); }
  std::string Authorize(const std::string& resource = kForwarding) {
    return Location(browser_.Get("/oauth/authorize?" + FormEncode(AuthorizeFields(client_, kLoopback, resource))));
  }
  nlohmann::json Redeem(const std::string& code) {
    return JsonOf(RequestToken(browser_, {{"grant_type", "authorization_code"},
                                          {"code", code},
                                          {"code_verifier", kVerifier},
                                          {"redirect_uri", kLoopback},
                                          {"client_id", client_}}));
  }
  nlohmann::json Refresh(const nlohmann::json& tokens) {
    return JsonOf(RequestToken(browser_, {{"grant_type", "refresh_token"},
                                          {"refresh_token", tokens.value("refresh_token", "")},
                                          {"client_id", client_}}));
  }
  nlohmann::json Connect(const std::string& resource = kForwarding) {
    return Redeem(ObtainCode(browser_, AuthorizeFields(client_, kLoopback, resource)));
  }
  // A call with these tokens, as the broker knows its caller.
  absl::StatusOr<Caller> CallerOf(const nlohmann::json& tokens, const std::string& slug = "forwarding") {
    v1::AuthenticateRequest request;
    request.set_server_uid("srv_" + slug);
    request.set_server_version(1);
    request.set_token(tokens.value("access_token", ""));
    ASSIGN_OR_RETURN(const v1::AuthenticateResponse response,
                     authenticator_.Authenticate(request, world_.clock.Now()).response);
    PassportVerifier verifier(kPublicUrl, OwnKeySource(world_.keys));
    Caller caller{"token_broker", std::nullopt};
    ASSIGN_OR_RETURN(caller.passport, verifier.Verify(response.passport(), world_.clock.Now()));
    return caller;
  }
  void EndSignInOf(const nlohmann::json& tokens) {
    world_.clock.Advance(absl::Minutes(10));
    ASSERT_OK_AND_ASSIGN(const Caller caller, CallerOf(tokens));
    ASSERT_THAT(rpcs_.EndSignIn(caller, world_.clock.Now()), IsOk());
    world_.clock.Advance(absl::Seconds(1));
  }

  World world_;
  TestBrowser browser_;
  EdgeKeys edge_keys_;
  AdminToken admin_token_;
  EndedSignIns ended_;
  Authenticator authenticator_;
  AuthnRpcs rpcs_;
  std::string client_;
};

TEST_F(SignInEndedTest, TheGrantEndsAndItsRefreshTokenWithIt) {
  SignIn();
  const nlohmann::json tokens = Connect();
  EndSignInOf(tokens);
  EXPECT_THAT(CallerOf(tokens), StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_EQ(Refresh(tokens).value("error", ""), "invalid_grant");
  ASSERT_EQ(world_.Events("token.revoked").size(), 1U);
  EXPECT_EQ(world_.Events("token.revoked")[0].rule(), "sign_in_ended");
}

TEST_F(SignInEndedTest, AuthorizationGoesToTheProviderThoughOurSessionLives) {
  SignIn();
  EndSignInOf(Connect());
  EXPECT_EQ(browser_.Get("/logout").status(), 200) << "the session lives";

  const std::string login = Authorize();
  ASSERT_THAT(login, StartsWith("/login?connector=okta&"));
  const std::string provider = Location(browser_.Get(login));
  ASSERT_THAT(provider, StartsWith(kProvider));
  EXPECT_EQ(QueryOf(provider).Get("prompt"), "") << "whether it asks for a password is the provider's affair";

  const std::string back = Location(SignInAt(provider));
  ASSERT_THAT(back, StartsWith("/oauth/continue"));
  EXPECT_THAT(Location(browser_.Get(back)), Not(StartsWith("/login")));
  EXPECT_THAT(Authorize(), Not(StartsWith("/login"))) << "once";
  EXPECT_THAT(CallerOf(Connect()), IsOk());
}

TEST_F(SignInEndedTest, ServersThatForwardNoTokenAreNotConcerned) {
  SignIn();
  const nlohmann::json other = Connect("https://gw.example.com/mcp/github");
  EndSignInOf(Connect());
  EXPECT_THAT(Authorize("https://gw.example.com/mcp/github"), Not(StartsWith("/login")));
  EXPECT_THAT(CallerOf(other, "github"), IsOk());
  EXPECT_EQ(Refresh(other).value("error", ""), "");
}

TEST_F(SignInEndedTest, AnotherGrantForSuchAServerIsRefusedAtItsRefreshUntilTheNextSignIn) {
  SignIn();
  const nlohmann::json first = Connect();
  const nlohmann::json second = Connect();
  EndSignInOf(first);
  EXPECT_EQ(Refresh(second).value("error", ""), "invalid_grant");
  SignIn();
  EXPECT_EQ(Refresh(second).value("error", ""), "") << "it was not used up";
}

TEST_F(SignInEndedTest, ComingBackWithoutASignInLeadsToTheProviderAgainAndToNoCode) {
  SignIn();
  EndSignInOf(Connect());
  std::string login = Authorize();
  for (int i = 0; i < 3; ++i) {
    const std::string back = QueryOf(login).Get("return_to");
    ASSERT_THAT(back, StartsWith("/oauth/continue"));
    login = Location(browser_.Get(back));
    EXPECT_THAT(login, StartsWith("/login?connector=okta&"));
  }
}

TEST_F(SignInEndedTest, AProviderThatRefusesIsShownWithItsReason) {
  SignIn();
  EndSignInOf(Connect());
  const Form asked = QueryOf(Location(browser_.Get(Authorize())));
  const WebResponse page =
      browser_.Get("/oauth/callback/okta?" + FormEncode({{"error", "access_denied"},
                                                         {"error_description", "this account is disabled"},
                                                         {"state", asked.Get("state")}}));
  EXPECT_EQ(page.status(), 400);
  EXPECT_THAT(page.body(), HasSubstr("Test okta did not sign you in"));
  EXPECT_THAT(page.body(), HasSubstr("access_denied: this account is disabled"));
  EXPECT_THAT(Authorize(), StartsWith("/login?connector=okta&"));
}

// The vault is away: the person gets in, and is asked no second time for what the vault owes.
TEST_F(SignInEndedTest, ASignInWhoseTokensCannotBeStoredDoesNotGoRoundInCircles) {
  SignIn();
  EndSignInOf(Connect());
  const std::string provider = Location(browser_.Get(Authorize()));
  world_.vault.Fail(absl::UnavailableError("down"));
  const std::string back = Location(SignInAt(provider));
  EXPECT_THAT(Location(browser_.Get(back)), Not(StartsWith("/login")));
  world_.vault.Fail(absl::OkStatus());
  EXPECT_THAT(Authorize(), Not(StartsWith("/login")));
}

TEST_F(SignInEndedTest, ALocalAccountHasNoTokensThatCouldEnd) {
  browser_.SignIn("ann");
  const nlohmann::json tokens = Connect();
  ASSERT_OK_AND_ASSIGN(const Caller caller, CallerOf(tokens));
  const absl::Status refused = rpcs_.EndSignIn(caller, world_.clock.Now()).status();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(refused), "no_caller_token");
  EXPECT_THAT(CallerOf(tokens), IsOk());
  EXPECT_THAT(Authorize(), Not(StartsWith("/login")));
}

TEST_F(SignInEndedTest, OnlyTheCallersOwnGrantCanEnd) {
  SignIn();
  const nlohmann::json tokens = Connect();
  ASSERT_OK_AND_ASSIGN(Caller caller, CallerOf(tokens));
  Caller nobody = caller;
  nobody.passport.reset();
  Caller presented = caller;  // A connector's own token: no grant of ours.
  presented.passport->session_id = "";
  Caller api = caller;
  api.passport->purpose = Passport::Purpose::kApi;
  for (const Caller& other : {nobody, presented, api}) {
    EXPECT_THAT(rpcs_.EndSignIn(other, world_.clock.Now()), StatusIs(absl::StatusCode::kPermissionDenied));
  }
  EXPECT_THAT(CallerOf(tokens), IsOk());
}

class EndedSignInsTest : public EnginesTest {};
INSTANTIATE_ENGINES(EndedSignInsTest);

TEST_P(EndedSignInsTest, EndsWhatBeganBeforeUntilItIsCleared) {
  EndedSignIns ended(*database_);
  const absl::Time now = clock_.Now();
  const auto has = [&](absl::string_view subject, absl::Time begun_at) { return *ended.Has(subject, begun_at); };
  EXPECT_FALSE(has("okta:ann", now));
  ASSERT_THAT(ended.Mark("okta:ann", now), IsOk());
  EXPECT_TRUE(has("okta:ann", now - absl::Hours(1)));
  EXPECT_TRUE(has("okta:ann", now));
  EXPECT_FALSE(has("okta:ann", now + absl::Microseconds(1)));
  EXPECT_FALSE(has("okta:bob", now));
  ASSERT_THAT(ended.Mark("okta:ann", now + absl::Hours(1)), IsOk());
  EXPECT_TRUE(has("okta:ann", now + absl::Hours(1)));
  ASSERT_THAT(ended.Clear("okta:ann"), IsOk());
  EXPECT_FALSE(has("okta:ann", now));
  ASSERT_THAT(ended.Mark("okta:ann", now), IsOk());
  EXPECT_EQ(*ended.Prune(now + kRefreshAbsolute - absl::Seconds(1)), 0);
  EXPECT_EQ(*ended.Prune(now + kRefreshAbsolute), 1);
  EXPECT_FALSE(has("okta:ann", now));
}

}  // namespace
}  // namespace sallyport::authn::web

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/authorize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/sql/sql.h"
#include "common/status_macros.h"
#include "services/authn/web/web_testing.h"

namespace sallyport::authn::web {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kLoopback[] = "http://127.0.0.1:5/cb";
constexpr char kHosted[] = "https://client.example/cb";

class AuthorizeTest : public ::testing::Test {
 protected:
  AuthorizeTest() : browser_(world_) {}

  WebResponse Authorize(const FormFields& fields) { return browser_.Get("/oauth/authorize?" + FormEncode(fields)); }
  // The standard request with one parameter replaced (or taken out, when empty).
  static FormFields With(FormFields fields, const std::string& name, const std::string& value) {
    std::erase_if(fields, [&](const auto& field) { return field.first == name; });
    if (!value.empty()) {
      fields.emplace_back(name, value);
    }
    return fields;
  }

  World world_;
  TestBrowser browser_;
};

TEST_F(AuthorizeTest, WalksFromTheRequestThroughSignInAndConsentToACode) {
  const std::string client = RegisterClient(browser_, kLoopback);
  const WebResponse begin = Authorize(AuthorizeFields(client, "http://127.0.0.1:49152/cb"));
  ASSERT_EQ(begin.status(), 303);
  ASSERT_THAT(Location(begin), StartsWith("/login?return_to=%2Foauth%2Fcontinue"));
  const std::string return_to = QueryOf(Location(begin)).Get("return_to");
  // The page before the sign-in says for whom it is.
  EXPECT_THAT(browser_.Get(Location(begin)).body(), HasSubstr("Cursor wants to use GitHub"));

  const WebResponse signed_in = browser_.SignIn("ann", return_to);
  ASSERT_EQ(signed_in.status(), 200);
  EXPECT_EQ(RefreshTarget(signed_in), return_to);
  const WebResponse proceed = browser_.Get(return_to);
  ASSERT_THAT(Location(proceed), StartsWith("/oauth/consent?txn="));
  const WebResponse consent = browser_.Get(Location(proceed));
  EXPECT_THAT(consent.body(), HasSubstr("Cursor"));
  EXPECT_THAT(consent.body(), HasSubstr("127.0.0.1"));
  EXPECT_THAT(consent.body(), HasSubstr("Did you just start this from Cursor?"));
  EXPECT_THAT(consent.body(), HasSubstr("https://gw.example.com/mcp/github"));

  const WebResponse allowed = browser_.Consent(Location(proceed), "allow");
  // A form must not be answered by a redirect off the origin.
  ASSERT_EQ(allowed.status(), 200);
  const std::string target = RefreshTarget(allowed);
  EXPECT_THAT(target, StartsWith("http://127.0.0.1:49152/cb?code="));
  EXPECT_EQ(QueryOf(target).Get("state"), "st");
  EXPECT_EQ(QueryOf(target).Get("iss"), kPublicUrl);
  for (const char* type : {"consent", "code.issued"}) {
    ASSERT_EQ(world_.Events(type).size(), 1U);
    EXPECT_EQ(world_.Events(type)[0].user_email(), "ann@example.com") << type;
    EXPECT_EQ(world_.Events(type)[0].client_name(), "Cursor") << type;
  }
}

TEST_F(AuthorizeTest, DatabaseHoldsNeitherTheStateOfTheClientNorTheIdOfAStep) {
  constexpr char kState[] = "what the client knows its browser by";
  const std::string client = RegisterClient(browser_, kLoopback);
  const WebResponse begin = Authorize(With(AuthorizeFields(client, kLoopback), "state", kState));
  const std::string return_to = QueryOf(Location(begin)).Get("return_to");
  const std::string id = return_to.substr(return_to.find("txn=") + 4);
  ASSERT_EQ(id.size(), 43U);
  // Two rows: the request, and the sign-in that goes back to it.
  ASSERT_EQ(browser_.Get(Location(begin) + "&connector=okta").status(), 303);
  std::string rows;
  ASSERT_THAT(world_.database->Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows found, tx.Query("SELECT hash, browser, kind, payload FROM browser_transactions"));
    EXPECT_EQ(found.size(), 2U);
    for (const Row& row : found) {
      for (const char* column : {"hash", "browser", "kind", "payload"}) {
        absl::StrAppend(&rows, row.Text(column), "\n", row.BytesAt(column), "\n");
      }
    }
    return absl::OkStatus();
  }),
              testing::IsOk());
  EXPECT_THAT(rows, Not(HasSubstr(kState)));
  EXPECT_THAT(rows, Not(HasSubstr(id)));
}

TEST_F(AuthorizeTest, UnknownClientAndForeignRedirectGetAPageAndNoRedirect) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kHosted);
  const FormFields good = AuthorizeFields(client, kHosted);
  for (const FormFields& bad :
       {With(good, "client_id", "clt_nobody"), With(good, "client_id", ""), With(good, "redirect_uri", ""),
        With(good, "redirect_uri", "https://evil.example/cb"), With(good, "redirect_uri", "https://client.example/cb/"),
        With(good, "redirect_uri", "https://client.example/c"),
        With(good, "redirect_uri", "https://client.example/cb?x=1"),
        With(good, "redirect_uri", "https://client.example/cb#f"),
        With(good, "redirect_uri", "https://client.example/%63b"),
        With(good, "redirect_uri", "https://Client.example/cb"),
        With(good, "redirect_uri", "https://u@client.example/cb"), With(good, "redirect_uri", "javascript:alert(1)"),
        With(good, "redirect_uri", "data:text/html,x"), With(good, "redirect_uri", "http://client.example/cb")}) {
    const WebResponse response = Authorize(bad);
    EXPECT_EQ(response.status(), 400);
    EXPECT_EQ(Location(response), "");
    EXPECT_EQ(RefreshTarget(response), "");
    EXPECT_THAT(response.body(), Not(HasSubstr("evil.example")));
  }
  FormFields twice = good;
  twice.emplace_back("redirect_uri", "https://evil.example/");
  EXPECT_EQ(Authorize(twice).status(), 400);
}

struct BadRequest {
  const char* name;
  const char* parameter;
  std::string value;
  const char* error;
};
class BadAuthorizeTest : public AuthorizeTest, public ::testing::WithParamInterface<BadRequest> {};

TEST_P(BadAuthorizeTest, IsRefusedToTheClientWithOurIssuerBeforeAnySignIn) {
  const std::string client = RegisterClient(browser_, kLoopback);
  const WebResponse response =
      Authorize(With(AuthorizeFields(client, kLoopback), GetParam().parameter, GetParam().value));
  ASSERT_EQ(response.status(), 303);
  ASSERT_THAT(Location(response), StartsWith(std::string(kLoopback) + "?error="));
  const Form answer = QueryOf(Location(response));
  EXPECT_EQ(answer.Get("error"), GetParam().error);
  EXPECT_EQ(answer.Get("iss"), kPublicUrl);
  EXPECT_FALSE(answer.Has("code"));
}

INSTANTIATE_TEST_SUITE_P(
    Parameters, BadAuthorizeTest,
    ::testing::Values(BadRequest{"NoResponseType", "response_type", "", "invalid_request"},
                      BadRequest{"TokenResponseType", "response_type", "token", "unsupported_response_type"},
                      BadRequest{"IdTokenResponseType", "response_type", "id_token", "unsupported_response_type"},
                      BadRequest{"NoChallenge", "code_challenge", "", "invalid_request"},
                      BadRequest{"ShortChallenge", "code_challenge", std::string(42, 'a'), "invalid_request"},
                      BadRequest{"LongChallenge", "code_challenge", std::string(129, 'a'), "invalid_request"},
                      BadRequest{"BadChallenge", "code_challenge", std::string(42, 'a') + "=", "invalid_request"},
                      BadRequest{"PlainChallenge", "code_challenge_method", "plain", "invalid_request"},
                      BadRequest{"NoMethod", "code_challenge_method", "", "invalid_request"},
                      BadRequest{"FragmentMode", "response_mode", "fragment", "invalid_request"},
                      BadRequest{"RequestObject", "request", "e30", "request_not_supported"},
                      BadRequest{"ForeignResource", "resource", "https://evil.example/mcp/github", "invalid_target"},
                      BadRequest{"HttpResource", "resource", "http://gw.example.com/mcp/github", "invalid_target"},
                      BadRequest{"FragmentResource", "resource", "https://gw.example.com/mcp/github#x",
                                 "invalid_target"},
                      BadRequest{"UnknownServer", "resource", "https://gw.example.com/mcp/nope", "invalid_target"},
                      BadRequest{"DisabledServer", "resource", "https://gw.example.com/mcp/off", "invalid_target"},
                      BadRequest{"PassthroughServer", "resource", "https://gw.example.com/mcp/raw", "invalid_target"},
                      BadRequest{"ApiForAnyClient", "resource", "https://gw.example.com/api", "invalid_target"},
                      BadRequest{"LongState", "state", std::string(2049, 's'), "invalid_request"},
                      BadRequest{"PromptNone", "prompt", "none", "interaction_required"}),
    [](const auto& test) { return test.param.name; });

TEST_F(AuthorizeTest, TwoResourcesAreInvalidTarget) {
  FormFields fields = AuthorizeFields(RegisterClient(browser_, kLoopback), kLoopback);
  fields.emplace_back("resource", "https://gw.example.com/mcp/notes");
  EXPECT_EQ(QueryOf(Location(Authorize(fields))).Get("error"), "invalid_target");
}

TEST_F(AuthorizeTest, RepeatedParameterIsRefused) {
  FormFields fields = AuthorizeFields(RegisterClient(browser_, kLoopback), kLoopback);
  fields.emplace_back("state", "other");
  EXPECT_EQ(QueryOf(Location(Authorize(fields))).Get("error"), "invalid_request");
}

// RFC 9700 section 4.11.2: no open redirector through an error of a self-registered client.
TEST_F(AuthorizeTest, ErrorForAnUntrustedHostIsAPageWithALink) {
  const std::string client = RegisterClient(browser_, kHosted);
  const WebResponse response =
      Authorize(With(AuthorizeFields(client, kHosted), "resource", "https://gw.example.com/mcp/nope"));
  EXPECT_EQ(response.status(), 400);
  EXPECT_EQ(Location(response), "");
  EXPECT_THAT(response.body(), HasSubstr("https://client.example/cb?error=invalid_target"));
}

TEST_F(AuthorizeTest, StateIsEchoedEncoded) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kLoopback);
  const std::string state = "a&code=evil#<script>" + std::string(1000, 'x');
  const WebResponse consent = Authorize(With(AuthorizeFields(client, kLoopback), "state", state));
  const std::string target = RefreshTarget(browser_.Consent(Location(consent), "allow"));
  EXPECT_EQ(QueryOf(target).Count("code"), 1);
  EXPECT_EQ(QueryOf(target).Get("state"), state);
}

// The audience of the token is the address as we write it, whatever the client's user typed.
TEST_F(AuthorizeTest, SlashQueryAndUpperCaseHostNameTheSameServer) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kLoopback);
  for (const std::string resource :
       {"https://gw.example.com/mcp/github/", "HTTPS://GW.example.com:443/mcp/github",
        "https://gw.example.com/mcp/github?tenant=a", "https://gw.example.com/mcp/github/?x"}) {
    for (const std::string& again : {resource, std::string("https://gw.example.com/mcp/github")}) {
      const WebResponse tokens =
          RequestToken(browser_, {{"grant_type", "authorization_code"},
                                  {"code", ObtainCode(browser_, AuthorizeFields(client, kLoopback, resource))},
                                  {"code_verifier", kVerifier},
                                  {"redirect_uri", kLoopback},
                                  {"client_id", client},
                                  {"resource", again}});
      ASSERT_EQ(tokens.status(), 200) << resource << tokens.body();
      const std::string token = JsonOf(tokens)["access_token"];
      EXPECT_THAT(world_.tokens.VerifyMcp(token, "github", "srv_github", world_.clock.Now()), testing::IsOk());
    }
  }
}

TEST_F(AuthorizeTest, ConsentIsRememberedForTheSameServerOnly) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kHosted);
  EXPECT_NE(ObtainCode(browser_, AuthorizeFields(client, kHosted)), "");
  // Seen: straight to the client.
  const WebResponse again = Authorize(AuthorizeFields(client, kHosted));
  EXPECT_THAT(Location(again), StartsWith("https://client.example/cb?code="));
  // Another server, another client, another user: asked again.
  EXPECT_THAT(Location(Authorize(AuthorizeFields(client, kHosted, "https://gw.example.com/mcp/notes"))),
              StartsWith("/oauth/consent"));
  const std::string other = RegisterClient(browser_, kHosted, {{"client_name", "Other"}});
  EXPECT_THAT(Location(Authorize(AuthorizeFields(other, kHosted))), StartsWith("/oauth/consent"));
  TestBrowser bob(world_);
  bob.SignIn("bob");
  EXPECT_THAT(Location(bob.Get("/oauth/authorize?" + FormEncode(AuthorizeFields(client, kHosted)))),
              StartsWith("/oauth/consent"));
}

TEST_F(AuthorizeTest, ConsentForOneRedirectHostIsNotForAnother) {
  browser_.SignIn("ann");
  const nlohmann::json both = {{"redirect_uris", nlohmann::json::array({kHosted, "https://other.example/cb"})}};
  const std::string client = RegisterClient(browser_, kHosted, both);
  EXPECT_NE(ObtainCode(browser_, AuthorizeFields(client, kHosted)), "");
  EXPECT_THAT(Location(Authorize(AuthorizeFields(client, "https://other.example/cb"))), StartsWith("/oauth/consent"));
}

class LocalProgramConsentTest : public AuthorizeTest, public ::testing::WithParamInterface<const char*> {};

// RFC 8252 section 8.6. Any program on the computer can register what another did, and gets the same client id.
TEST_P(LocalProgramConsentTest, IsAskedForEachTime) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, GetParam());
  const std::string first = Location(Authorize(AuthorizeFields(client, GetParam())));
  ASSERT_THAT(first, StartsWith("/oauth/consent?txn="));
  const WebResponse full = browser_.Get(first);
  EXPECT_THAT(full.body(), HasSubstr(">Allow</button>"));
  EXPECT_THAT(full.body(), HasSubstr("Call the tools of GitHub in your name"));
  EXPECT_NE(QueryOf(RefreshTarget(browser_.Consent(first, "allow"))).Get("code"), "");

  const std::string impostor = RegisterClient(browser_, GetParam());
  ASSERT_EQ(impostor, client) << "equal registrations are one client";
  const WebResponse again = Authorize(AuthorizeFields(impostor, GetParam()));
  ASSERT_THAT(Location(again), StartsWith("/oauth/consent?txn="));
  const WebResponse page = browser_.Get(Location(again));
  EXPECT_THAT(page.body(), HasSubstr(">Continue as ann</button>"));
  EXPECT_THAT(page.body(), HasSubstr("Did you just start this from Cursor?"));
  EXPECT_THAT(page.body(), HasSubstr("a program on this computer"));
  EXPECT_NE(QueryOf(RefreshTarget(browser_.Consent(Location(again), "allow"))).Get("code"), "");
}

INSTANTIATE_TEST_SUITE_P(Redirects, LocalProgramConsentTest,
                         ::testing::Values("http://127.0.0.1:5/cb", "http://localhost:3118/callback",
                                           "http://[::1]:7/cb", "https://localhost/cb",
                                           "cursor://anysphere.cursor-mcp/oauth/callback", "com.example.app:/cb",
                                           "https://vscode.dev/redirect", "https://insiders.vscode.dev/redirect"));

TEST_F(AuthorizeTest, ProgramThatWasNeverAllowedHasTheWholePage) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kLoopback);
  EXPECT_NE(ObtainCode(browser_, AuthorizeFields(client, kLoopback)), "");
  for (const FormFields& fields :
       {AuthorizeFields(client, kLoopback, "https://gw.example.com/mcp/notes"),
        With(AuthorizeFields(client, kLoopback), "prompt", "consent"),
        AuthorizeFields(RegisterClient(browser_, kLoopback, {{"client_name", "Other"}}), kLoopback)}) {
    const WebResponse page = browser_.Get(Location(Authorize(fields)));
    EXPECT_THAT(page.body(), HasSubstr(">Allow</button>"));
    EXPECT_THAT(page.body(), Not(HasSubstr("Continue as")));
  }
}

TEST_F(AuthorizeTest, PromptConsentAsksAgain) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kHosted);
  EXPECT_NE(ObtainCode(browser_, AuthorizeFields(client, kHosted)), "");
  EXPECT_THAT(Location(Authorize(With(AuthorizeFields(client, kHosted), "prompt", "consent"))),
              StartsWith("/oauth/consent"));
}

TEST_F(AuthorizeTest, PromptLoginWantsANewSession) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kLoopback);
  world_.clock.Advance(absl::Minutes(1));
  const WebResponse response = Authorize(With(AuthorizeFields(client, kLoopback), "prompt", "login"));
  ASSERT_THAT(Location(response), StartsWith("/login?switch=1"));
  const std::string return_to = QueryOf(Location(response)).Get("return_to");
  // Coming back without having signed in again leads to the sign-in again.
  const WebResponse unchanged = browser_.Get(return_to);
  ASSERT_THAT(Location(unchanged), StartsWith("/login?switch=1"));
  world_.clock.Advance(absl::Minutes(1));
  const std::string second = QueryOf(Location(unchanged)).Get("return_to");
  browser_.SignIn("ann", second);
  EXPECT_THAT(Location(browser_.Get(second)), StartsWith("/oauth/consent"));
}

TEST_F(AuthorizeTest, DenyingGoesBackWithAccessDenied) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kLoopback);
  const WebResponse denied = browser_.Consent(Location(Authorize(AuthorizeFields(client, kLoopback))), "deny");
  EXPECT_EQ(denied.status(), 200);
  const Form answer = QueryOf(RefreshTarget(denied));
  EXPECT_EQ(answer.Get("error"), "access_denied");
  EXPECT_EQ(answer.Get("iss"), kPublicUrl);
  // And was not remembered as consent.
  EXPECT_THAT(Location(Authorize(AuthorizeFields(client, kLoopback))), StartsWith("/oauth/consent"));
}

TEST_F(AuthorizeTest, ConsentFormNeedsItsTokenOriginAndOwnTransaction) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kLoopback);
  const WebResponse page = browser_.Get(Location(Authorize(AuthorizeFields(client, kLoopback))));
  const std::string txn = Between(page.body(), "name=\"txn\" value=\"", "\"");
  const std::string csrf = Between(page.body(), "name=\"csrf\" value=\"", "\"");
  const FormFields good = {{"txn", txn}, {"csrf", csrf}, {"decision", "allow"}};
  EXPECT_EQ(browser_.Post("/oauth/consent", With(good, "csrf", "")).status(), 403);
  EXPECT_EQ(browser_.Post("/oauth/consent", With(good, "csrf", std::string(43, 'a'))).status(), 403);
  // The token of one client's page does not fit another's.
  const std::string other = RegisterClient(browser_, kLoopback, {{"client_name", "Other"}});
  const WebResponse other_page = browser_.Get(Location(Authorize(AuthorizeFields(other, kLoopback))));
  EXPECT_EQ(
      browser_.Post("/oauth/consent", With(good, "csrf", Between(other_page.body(), "name=\"csrf\" value=\"", "\"")))
          .status(),
      403);
  browser_.origin = "https://evil.example";
  EXPECT_EQ(browser_.Post("/oauth/consent", good).status(), 403);
  browser_.origin = "null";
  EXPECT_EQ(browser_.Post("/oauth/consent", good).status(), 403);
  browser_.origin = kPublicUrl;
  WebRequest cross = browser_.Begin("POST", "/oauth/consent");
  TestBrowser::Add(cross, "origin", kPublicUrl);
  TestBrowser::Add(cross, "sec-fetch-site", "cross-site");
  TestBrowser::Add(cross, "content-type", "application/x-www-form-urlencoded");
  cross.set_body(FormEncode(good));
  EXPECT_EQ(browser_.Send(cross).status(), 403);
  // None of that used it up.
  EXPECT_EQ(browser_.Post("/oauth/consent", good).status(), 200);
  EXPECT_EQ(browser_.Post("/oauth/consent", good).status(), 400);
}

TEST_F(AuthorizeTest, StepOfAnotherBrowserIsAMismatchAndStaysGoodForItsOwn) {
  const std::string client = RegisterClient(browser_, kLoopback);
  const std::string return_to = QueryOf(Location(Authorize(AuthorizeFields(client, kLoopback)))).Get("return_to");
  TestBrowser victim(world_);
  victim.SignIn("bob");
  const WebResponse mismatch = victim.Get(return_to);
  EXPECT_EQ(mismatch.status(), 400);
  EXPECT_THAT(mismatch.body(), HasSubstr("transaction_mismatch"));
  browser_.SignIn("ann");
  EXPECT_THAT(Location(browser_.Get(return_to)), StartsWith("/oauth/consent"));
}

TEST_F(AuthorizeTest, StepIsGoodOnceAndForTenMinutes) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kLoopback);
  TestBrowser stranger(world_);
  const std::string return_to = [&] {
    browser_.cookies.erase(kSessionCookie);
    return QueryOf(Location(Authorize(AuthorizeFields(client, kLoopback)))).Get("return_to");
  }();
  browser_.SignIn("ann");
  EXPECT_EQ(browser_.Get(return_to).status(), 303);
  const WebResponse again = browser_.Get(return_to);
  EXPECT_EQ(again.status(), 400);
  EXPECT_THAT(again.body(), HasSubstr("transaction_expired"));
  const std::string consent = Location(Authorize(AuthorizeFields(client, kLoopback)));
  world_.clock.Advance(absl::Minutes(10));
  EXPECT_EQ(browser_.Get(consent).status(), 400);
}

TEST_F(AuthorizeTest, UserWhoMayNotUseTheServerGetsNoCode) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kLoopback);
  const FormFields fields = AuthorizeFields(client, kLoopback, "https://gw.example.com/mcp/staff");
  const WebResponse refused = Authorize(fields);
  EXPECT_EQ(refused.status(), 403);
  EXPECT_THAT(refused.body(), HasSubstr("error=access_denied"));
  TestBrowser bob(world_);
  bob.SignIn("bob");
  EXPECT_NE(ObtainCode(bob, fields), "");
}

TEST_F(AuthorizeTest, ServerWithLinkedAccountsSendsTheUserThereBeforeTheCode) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kHosted);
  const FormFields fields = AuthorizeFields(client, kHosted, "https://gw.example.com/mcp/linked");
  const WebResponse allowed = browser_.Consent(Location(Authorize(fields)), "allow");
  const std::string link = RefreshTarget(allowed);
  ASSERT_THAT(link, StartsWith("/connect/linked?txn="));
  const std::string back = "/oauth/continue?txn=" + QueryOf(link).Get("txn");
  EXPECT_THAT(Location(browser_.Get(back)), StartsWith("https://client.example/cb?code="));
  EXPECT_EQ(browser_.Get(back).status(), 400);
  // Remembered consent: straight to the link step, as a redirect.
  EXPECT_THAT(Location(Authorize(fields)), StartsWith("/connect/linked?txn="));
}

TEST_F(AuthorizeTest, WhoComesBackFromLinkingAsAnotherUserConsentsFirst) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kLoopback);
  const FormFields fields = AuthorizeFields(client, kLoopback, "https://gw.example.com/mcp/linked");
  const std::string link = RefreshTarget(browser_.Consent(Location(Authorize(fields)), "allow"));
  browser_.SignIn("bob");
  EXPECT_THAT(Location(browser_.Get("/oauth/continue?txn=" + QueryOf(link).Get("txn"))), StartsWith("/oauth/consent"));
}

TEST_F(AuthorizeTest, ClientNameCannotBecomeMarkup) {
  browser_.SignIn("ann");
  const std::string client =
      RegisterClient(browser_, kLoopback, {{"client_name", "<script>alert(1)</script>\"'\xE2\x80\xAE"}});
  const WebResponse page = browser_.Get(Location(Authorize(AuthorizeFields(client, kLoopback))));
  EXPECT_EQ(page.status(), 200);
  EXPECT_THAT(page.body(), Not(HasSubstr("<script")));
  EXPECT_THAT(page.body(), Not(HasSubstr("\xE2\x80\xAE")));
}

TEST_F(AuthorizeTest, PagesCannotBeFramedOrCached) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kLoopback);
  const WebResponse page = browser_.Get(Location(Authorize(AuthorizeFields(client, kLoopback))));
  EXPECT_THAT(ResponseHeader(page, "content-security-policy"), HasSubstr("frame-ancestors 'none'"));
  EXPECT_THAT(ResponseHeader(page, "content-security-policy"), HasSubstr("form-action 'self'"));
  EXPECT_EQ(ResponseHeader(page, "x-frame-options"), "DENY");
  EXPECT_EQ(ResponseHeader(page, "cache-control"), "no-store");
}

TEST_F(AuthorizeTest, PostToTheAuthorizationEndpointIsNotAllowed) {
  EXPECT_EQ(browser_.Post("/oauth/authorize", {}).status(), 405);
}

TEST_F(AuthorizeTest, CommandLineGetsACodeForTheApi) {
  browser_.SignIn("ann");
  const FormFields fields =
      AuthorizeFields(kCliClientId, "http://127.0.0.1:7777/callback", "https://gw.example.com/api");
  EXPECT_NE(ObtainCode(browser_, fields), "");
  // And for nothing else.
  EXPECT_EQ(QueryOf(Location(Authorize(AuthorizeFields(kCliClientId, "http://127.0.0.1:7777/callback")))).Get("error"),
            "invalid_target");
}

}  // namespace
}  // namespace sallyport::authn::web

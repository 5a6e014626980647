// SPDX-License-Identifier: Apache-2.0
// Clients that name no server (RFC 8707 `resource` absent), and clients that the administrator registered.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/authn/web/web_testing.h"

namespace sallyport::authn::web {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kHosted[] = "https://client.example/cb";
constexpr char kSecret[] = "0123456789abcdef0123456789abcdef";

// Ann and Bob may use all of TestServers but "staff", which is Bob's alone.
class ServerChoiceTest : public ::testing::Test {
 protected:
  ServerChoiceTest() : ServerChoiceTest(TestServers()) {}
  explicit ServerChoiceTest(std::vector<registry::v1::McpServer> servers)
      : world_(World::Options{.servers = std::move(servers), .clients = {Chatbot()}}), browser_(world_) {}

  static Client Chatbot() {
    Client client;
    client.id = "chatbot";
    client.configured = true;
    client.secret_hash = ClientSecretHash(kSecret);
    client.approved_servers = {"notes", "staff", "gone"};
    client.metadata.client_name = "Chat Platform";
    client.metadata.redirect_uris = {kHosted};
    client.metadata.grant_types = {"authorization_code", "refresh_token"};
    return client;
  }
  static FormFields Without(FormFields fields, const std::string& name) {
    std::erase_if(fields, [&](const auto& field) { return field.first == name; });
    return fields;
  }
  static FormFields NoResource(const std::string& client, const std::string& redirect_uri = kHosted) {
    return Without(AuthorizeFields(client, redirect_uri), "resource");
  }
  WebResponse Authorize(const FormFields& fields) { return browser_.Get("/oauth/authorize?" + FormEncode(fields)); }
  WebResponse Redeem(const std::string& code, FormFields more) {
    FormFields fields = {
        {"grant_type", "authorization_code"}, {"code", code}, {"code_verifier", kVerifier}, {"redirect_uri", kHosted}};
    fields.insert(fields.end(), more.begin(), more.end());
    return RequestToken(browser_, fields);
  }
  // Is the access token for this server, and for no other?
  void ExpectTokenFor(const WebResponse& response, const std::string& slug) {
    ASSERT_EQ(response.status(), 200) << response.body();
    const std::string token = JsonOf(response)["access_token"];
    for (const char* other : {"github", "notes", "linked", "staff"}) {
      const auto verified = world_.tokens.VerifyMcp(token, other, absl::StrCat("srv_", other), world_.clock.Now());
      EXPECT_EQ(verified.ok(), other == slug) << other;
    }
    EXPECT_THAT(world_.tokens.VerifyApi(token, world_.clock.Now()), Not(IsOk()));
  }

  World world_;
  TestBrowser browser_;
};

TEST_F(ServerChoiceTest, UserChoosesAmongTheServersTheyMayUse) {
  const std::string client = RegisterClient(browser_, kHosted);
  const WebResponse begin = Authorize(NoResource(client));
  ASSERT_THAT(Location(begin), StartsWith("/login?"));
  EXPECT_THAT(browser_.Get(Location(begin)).body(), HasSubstr("Cursor wants to use a server of this gateway"));
  const std::string return_to = QueryOf(Location(begin)).Get("return_to");
  browser_.SignIn("ann", return_to);
  const std::string location = Location(browser_.Get(return_to));
  ASSERT_THAT(location, StartsWith("/oauth/consent?txn="));
  const WebResponse page = browser_.Get(location);
  for (const char* offered : {"github", "linked", "notes"}) {
    EXPECT_THAT(page.body(), HasSubstr(absl::StrCat("name=\"server\" value=\"", offered, "\" required>")));
    EXPECT_THAT(page.body(), HasSubstr(absl::StrCat("https://gw.example.com/mcp/", offered)));
  }
  for (const char* other : {"staff", "off", "raw"}) {
    EXPECT_THAT(page.body(), Not(HasSubstr(absl::StrCat("value=\"", other, "\"")))) << other;
  }
  EXPECT_THAT(page.body(), Not(HasSubstr("checked"))) << "nobody chooses for the user";
  const WebResponse allowed = browser_.Consent(location, "allow", "notes");
  ASSERT_EQ(allowed.status(), 200);
  ExpectTokenFor(Redeem(QueryOf(RefreshTarget(allowed)).Get("code"), {{"client_id", client}}), "notes");
  ASSERT_EQ(world_.Events("consent").size(), 1U);
  EXPECT_EQ(world_.Events("consent")[0].server_uid(), "srv_notes");
}

TEST_F(ServerChoiceTest, ChoiceIsMadeEachTimeAlsoAfterAConsent) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kHosted);
  browser_.Consent(Location(Authorize(NoResource(client))), "allow", "notes");
  const std::string again = Location(Authorize(NoResource(client)));
  ASSERT_THAT(again, StartsWith("/oauth/consent?txn="));
  const WebResponse allowed = browser_.Consent(again, "allow", "github");
  ExpectTokenFor(Redeem(QueryOf(RefreshTarget(allowed)).Get("code"), {{"client_id", client}}), "github");
}

TEST_F(ServerChoiceTest, FormWithoutAGoodChoiceIsShownAgainAndStaysGood) {
  browser_.SignIn("ann");
  const std::string location = Location(Authorize(NoResource(RegisterClient(browser_, kHosted))));
  for (const char* bad :
       {"", "staff", "off", "raw", "nope", "srv_notes", "../api", "https://gw.example.com/mcp/notes"}) {
    const WebResponse again = browser_.Consent(location, "allow", bad);
    EXPECT_EQ(again.status(), 400) << bad;
    EXPECT_THAT(again.body(), HasSubstr("Choose a server first.")) << bad;
    EXPECT_EQ(RefreshTarget(again), "") << bad;
  }
  EXPECT_THAT(world_.Events("code.issued"), ::testing::IsEmpty());
  EXPECT_NE(QueryOf(RefreshTarget(browser_.Consent(location, "allow", "notes"))).Get("code"), "");
}

TEST_F(ServerChoiceTest, DenyingNeedsNoChoice) {
  browser_.SignIn("ann");
  const WebResponse denied =
      browser_.Consent(Location(Authorize(NoResource(RegisterClient(browser_, kHosted)))), "deny");
  EXPECT_EQ(QueryOf(RefreshTarget(denied)).Get("error"), "access_denied");
}

TEST_F(ServerChoiceTest, EmptyAndBareOriginCountAsMissingAndForeignOnesDoNot) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kHosted);
  for (const char* none : {"", "https://gw.example.com", "https://gw.example.com/", "https://gw.example.com/?x=1"}) {
    FormFields fields = NoResource(client);
    fields.emplace_back("resource", none);
    const std::string location = Location(Authorize(fields));
    ASSERT_THAT(location, StartsWith("/oauth/consent")) << none;
    EXPECT_THAT(browser_.Get(location).body(), HasSubstr("name=\"server\"")) << none;
  }
  for (const char* foreign : {"https://evil.example", "https://evil.example/", "http://gw.example.com",
                              "https://gw.example.com/mcp", "https://gw.example.com/mcp/", "nonsense"}) {
    const WebResponse refused = Authorize(AuthorizeFields(client, kHosted, foreign));
    EXPECT_EQ(refused.status(), 400) << foreign;
    EXPECT_THAT(refused.body(), HasSubstr("error=invalid_target")) << foreign;
  }
}

TEST_F(ServerChoiceTest, ChosenServerWithAccountsLeadsToThemFirst) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kHosted);
  const WebResponse allowed = browser_.Consent(Location(Authorize(NoResource(client))), "allow", "linked");
  const std::string link = RefreshTarget(allowed);
  ASSERT_THAT(link, StartsWith("/connect/linked?txn="));
  const WebResponse back = browser_.Get("/oauth/continue?txn=" + QueryOf(link).Get("txn"));
  ExpectTokenFor(Redeem(QueryOf(Location(back)).Get("code"), {{"client_id", client}}), "linked");
}

// What one user chose is not for the next.
TEST_F(ServerChoiceTest, AnotherUserWhoComesBackFromLinkingChoosesAnew) {
  browser_.SignIn("ann");
  const std::string client = RegisterClient(browser_, kHosted);
  const std::string link = RefreshTarget(browser_.Consent(Location(Authorize(NoResource(client))), "allow", "linked"));
  browser_.SignIn("bob");
  const std::string location = Location(browser_.Get("/oauth/continue?txn=" + QueryOf(link).Get("txn")));
  ASSERT_THAT(location, StartsWith("/oauth/consent"));
  EXPECT_THAT(browser_.Get(location).body(), HasSubstr("value=\"staff\""));
}

TEST_F(ServerChoiceTest, CommandLineAlwaysNamesTheApi) {
  browser_.SignIn("ann");
  const std::string redirect = "http://127.0.0.1:7777/callback";
  EXPECT_EQ(QueryOf(Location(Authorize(NoResource(kCliClientId, redirect)))).Get("error"), "invalid_target");
}

TEST_F(ServerChoiceTest, ApprovedClientShowsNoPage) {
  browser_.SignIn("ann");
  const WebResponse issued = Authorize(AuthorizeFields("chatbot", kHosted, "https://gw.example.com/mcp/notes"));
  ASSERT_THAT(Location(issued), StartsWith("https://client.example/cb?code="));
  const std::string code = QueryOf(Location(issued)).Get("code");
  ExpectTokenFor(Redeem(code, {{"client_id", "chatbot"}, {"client_secret", kSecret}}), "notes");
  EXPECT_THAT(world_.Events("consent"), ::testing::IsEmpty());
  ASSERT_EQ(world_.Events("code.issued").size(), 1U);
  EXPECT_EQ(world_.Events("code.issued")[0].rule(), "client.approved");
}

TEST_F(ServerChoiceTest, ApprovedClientIsWorthNothingWithoutItsSecret) {
  browser_.SignIn("ann");
  const std::string code =
      QueryOf(Location(Authorize(AuthorizeFields("chatbot", kHosted, "https://gw.example.com/mcp/notes")))).Get("code");
  for (const char* secret : {"", "0123456789abcdef0123456789abcdeF", "wrong"}) {
    const WebResponse refused = Redeem(code, {{"client_id", "chatbot"}, {"client_secret", secret}});
    EXPECT_EQ(refused.status(), 401) << secret;
    EXPECT_EQ(JsonString(JsonOf(refused), "error"), "invalid_client") << secret;
  }
  EXPECT_EQ(Redeem(code, {{"client_id", "chatbot"}}).status(), 401);
  EXPECT_EQ(Authorize(AuthorizeFields("chatbot", "https://evil.example/cb")).status(), 400);
}

TEST_F(ServerChoiceTest, ApprovalIsForItsServersAndUsersOnly) {
  browser_.SignIn("ann");
  const std::string location = Location(Authorize(AuthorizeFields("chatbot", kHosted)));
  ASSERT_THAT(location, StartsWith("/oauth/consent")) << "GitHub is not approved";
  const WebResponse page = browser_.Get(location);
  EXPECT_THAT(page.body(), HasSubstr("Chat Platform"));
  EXPECT_THAT(page.body(), HasSubstr("registered by your administrator"));
  EXPECT_THAT(page.body(), Not(HasSubstr("not verified")));
  const WebResponse denied = Authorize(AuthorizeFields("chatbot", kHosted, "https://gw.example.com/mcp/staff"));
  EXPECT_EQ(denied.status(), 403) << "the client is approved, Ann is not";
  FormFields prompt = AuthorizeFields("chatbot", kHosted, "https://gw.example.com/mcp/notes");
  prompt.emplace_back("prompt", "consent");
  EXPECT_THAT(Location(Authorize(prompt)), StartsWith("/oauth/consent")) << "as the client asked";
}

TEST_F(ServerChoiceTest, ApprovedClientWithoutResourceGetsTheOneItIsApprovedFor) {
  browser_.SignIn("ann");
  const WebResponse issued = Authorize(NoResource("chatbot"));
  ASSERT_THAT(Location(issued), StartsWith("https://client.example/cb?code="));
  ExpectTokenFor(Redeem(QueryOf(Location(issued)).Get("code"), {{"client_id", "chatbot"}, {"client_secret", kSecret}}),
                 "notes");
  // Bob may use two of them.
  TestBrowser bob(world_);
  bob.SignIn("bob");
  const std::string location = Location(bob.Get("/oauth/authorize?" + FormEncode(NoResource("chatbot"))));
  ASSERT_THAT(location, StartsWith("/oauth/consent"));
  const WebResponse page = bob.Get(location);
  EXPECT_THAT(page.body(), HasSubstr("value=\"staff\""));
  EXPECT_THAT(page.body(), Not(HasSubstr("value=\"github\"")));
}

std::vector<registry::v1::McpServer> OneInteractive() {
  auto servers = TestServers();
  return {servers[1], servers[3], servers[4]};  // notes, off, raw
}

class OneServerTest : public ServerChoiceTest {
 protected:
  OneServerTest() : ServerChoiceTest(OneInteractive()) {}
};

TEST_F(OneServerTest, IsTheOneThatIsMeant) {
  const std::string client = RegisterClient(browser_, kHosted);
  const WebResponse begin = Authorize(NoResource(client));
  EXPECT_THAT(browser_.Get(Location(begin)).body(), HasSubstr("Cursor wants to use notes"));
  browser_.SignIn("ann");
  const std::string code = ObtainCode(browser_, NoResource(client));
  ExpectTokenFor(Redeem(code, {{"client_id", client}}), "notes");
  // And as if it had been named, also from now on.
  EXPECT_THAT(Location(Authorize(NoResource(client))), StartsWith("https://client.example/cb?code="));
}

class NobodysServerTest : public ServerChoiceTest {
 protected:
  NobodysServerTest() : ServerChoiceTest({TestServers()[5], MakeStaff("crew")}) {}
  static registry::v1::McpServer MakeStaff(const std::string& slug) {
    registry::v1::McpServer server = TestServers()[5];
    server.set_slug(slug);
    server.set_uid("srv_" + slug);
    return server;
  }
};

TEST_F(NobodysServerTest, UserWithoutAnyIsToldSo) {
  browser_.SignIn("ann");
  const WebResponse denied = Authorize(NoResource(RegisterClient(browser_, kHosted)));
  EXPECT_EQ(denied.status(), 403);
  EXPECT_THAT(denied.body(), HasSubstr("You may not use any server of this gateway"));
  EXPECT_THAT(denied.body(), HasSubstr("error=access_denied"));
}

class NoServerTest : public ServerChoiceTest {
 protected:
  NoServerTest() : ServerChoiceTest({TestServers()[4]}) {}
};

TEST_F(NoServerTest, IsInvalidTarget) {
  const WebResponse refused = Authorize(NoResource(RegisterClient(browser_, kHosted)));
  EXPECT_EQ(refused.status(), 400);
  EXPECT_THAT(refused.body(), HasSubstr("error=invalid_target"));
}

}  // namespace
}  // namespace sallyport::authn::web

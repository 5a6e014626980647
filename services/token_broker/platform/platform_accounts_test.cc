// SPDX-License-Identifier: Apache-2.0
// Links that platforms hand to their users, and connections as platforms see them.
#include <atomic>
#include <map>
#include <memory>

#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/http/url.h"
#include "services/token_broker/platform/platform_link.h"
#include "services/token_broker/testing/platform_test_base.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;
using testing::HttpProvider;
using ::testing::Not;
using ::testing::StartsWith;
using Code = absl::StatusCode;

class PlatformAccountsTest : public testing::PlatformTestBase {
 protected:
  PlatformAccountsTest() {
    provider_.SetHandler([](const HttpProvider::Request& request) -> HttpProvider::Response {
      if (request.path != "/token") return {200, "", "application/json", ""};
      return {
          200,
          R"({"access_token":"at","refresh_token":"rt","token_type":"bearer","expires_in":3600,"scope":"repo gist"})",
          "application/json", ""};
    });
  }
  static v1::StartUserLinkRequest LinkRequest(const std::string& name, const std::string& return_to = "") {
    v1::StartUserLinkRequest request;
    *request.mutable_user() = Token(name);
    request.set_app("github");
    request.add_scopes("gist");
    request.set_return_to(return_to);
    return request;
  }
  // Path and query of the link.
  static std::string TargetOf(const v1::StartUserLinkResponse& response) {
    return std::string(absl::StripPrefix(response.url(), testing::kPublicUrl));
  }
  // The value of a hidden field of a page.
  static std::string Hidden(const std::string& page, const std::string& name) {
    const std::string mark = absl::StrCat("name=\"", name, "\" value=\"");
    const size_t at = page.find(mark);
    if (at == std::string::npos) return "";
    const size_t begin = at + mark.size();
    return page.substr(begin, page.find('"', begin) - begin);
  }
  // Of somebody who may use no server that takes the app.
  Passport Outsider(const std::string& subject) const {
    Passport passport = LinkPassport(subject);
    passport.link_server_uids.clear();
    return passport;
  }
  static std::map<std::string, std::string> QueryOf(const std::string& location) {
    return *FormDecodeUnique(location.substr(location.find('?') + 1));
  }
};

TEST_F(PlatformAccountsTest, LinkLeadsToTheProviderAndBackToThePlatform) {
  TokenBrokerServer& broker = StartBroker();
  const std::string home = "https://chat.example.com/done?room=1";
  ASSERT_OK_AND_ASSIGN(const auto link, StartLink(Chat(broker), LinkRequest("ada", home)));
  EXPECT_FALSE(link.linked());
  EXPECT_EQ(link.message(), "Connect your GitHub account to continue.");

  // The platform's grant counts, not who may use the server.
  const std::string ada = peers_.authn.Sign(Outsider("corp:ada"));
  const auto on = Browse(broker, "GET", TargetOf(link), ada);
  ASSERT_EQ(on.status(), 302) << on.body();
  EXPECT_THAT(HeaderOf(on, "location"), StartsWith("https://provider.example/authorize?"));
  const auto asked = QueryOf(HeaderOf(on, "location"));
  EXPECT_EQ(asked.at("scope"), "repo gist");
  const auto back = Browse(broker, "GET", absl::StrCat("/callback/github?code=c&state=", asked.at("state")), ada);
  EXPECT_EQ(HeaderOf(back, "location"), home);

  EXPECT_EQ(GetToken(Chat(broker), TokenFor("ada"))->access_token(), "at");
  ASSERT_OK_AND_ASSIGN(const auto again, StartLink(Chat(broker), LinkRequest("ada", home)));
  EXPECT_TRUE(again.linked());
  EXPECT_EQ(again.url(), "");
  EXPECT_EQ(Audited("link.offered").actor(), "chat");
  EXPECT_EQ(Audited("link.completed").actor(), "chat");
}

TEST_F(PlatformAccountsTest, LinkWithoutAWayBackShowsThePage) {
  TokenBrokerServer& broker = StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto link, StartLink(Chat(broker), LinkRequest("ada")));
  const std::string ada = peers_.authn.Sign(Outsider("corp:ada"));
  const auto page = Browse(broker, "GET", TargetOf(link), ada);
  ASSERT_EQ(page.status(), 200);
  EXPECT_THAT(page.body(), HasSubstr("Asked for: repo gist"));
  std::string form;
  for (const char* name : {"csrf", "for", "platform", "scopes"}) {
    const std::string mark = absl::StrCat("name=\"", name, "\" value=\"");
    const size_t at = page.body().find(mark);
    ASSERT_NE(at, std::string::npos) << name;
    const size_t begin = at + mark.size();
    absl::StrAppend(&form, form.empty() ? "" : "&", name, "=",
                    PercentEncode(page.body().substr(begin, page.body().find('"', begin) - begin)));
  }
  const auto on = Browse(broker, "POST", "/connect/gh", ada, form);
  EXPECT_EQ(on.status(), 200) << on.body();
  EXPECT_THAT(on.body(), HasSubstr("https://provider.example/authorize?"));
}

TEST_F(PlatformAccountsTest, LinkIsGoodForItsUserOnly) {
  TokenBrokerServer& broker = StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto link, StartLink(Chat(broker), LinkRequest("ada", "https://chat.example.com/")));
  const auto mallory = Browse(broker, "GET", TargetOf(link), peers_.authn.Sign(LinkPassport("corp:mallory")));
  EXPECT_EQ(mallory.status(), 403);
  EXPECT_THAT(mallory.body(), HasSubstr("link_user_mismatch"));
  clock_for_all_.Advance(absl::Minutes(11));
  EXPECT_EQ(Browse(broker, "GET", TargetOf(link), peers_.authn.Sign(LinkPassport())).status(), 410);
}

TEST_F(PlatformAccountsTest, NothingOfALinkCanBeChanged) {
  registry::v1::McpServer* other = AddServer("srv_other", "other");
  other->mutable_app_auth()->mutable_oauth_authorization()->set_app_uid(kApp);
  other->mutable_agent_auth()->mutable_interactive();
  TokenBrokerServer& broker = StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto link, StartLink(Chat(broker), LinkRequest("ada", "https://chat.example.com/")));
  const std::string ada = peers_.authn.Sign(LinkPassport());
  const std::pair<std::string, std::string> changes[] = {{"chat.example.com", "evil.example"},
                                                         {"scopes=gist", "scopes=admin"},
                                                         {"platform=chat", "platform=jobs"},
                                                         {"account=", "account=other"},
                                                         {"scopes=gist&", ""},
                                                         {"/connect/gh?", "/connect/other?"}};
  for (const auto& [from, to] : changes) {
    const std::string changed = absl::StrReplaceAll(TargetOf(link), {{from, to}});
    ASSERT_NE(changed, TargetOf(link)) << from;
    const auto refused = Browse(broker, "GET", changed, ada);
    EXPECT_EQ(refused.status(), 403) << to;
    EXPECT_EQ(HeaderOf(refused, "location"), "") << to;
  }
  // Without a ticket of its own nobody comes round what the server allows.
  const auto without = Browse(broker, "GET", "/connect/gh?platform=chat&return_to=https%3A%2F%2Fevil.example%2F", ada);
  EXPECT_EQ(without.status(), 403);
  const auto consent =
      Browse(broker, "GET", "/connect/gh?consent=1&platform=chat&return_to=https%3A%2F%2Fevil.example%2F", ada);
  EXPECT_EQ(consent.status(), 403);
}

TEST_F(PlatformAccountsTest, WayBackMustBeThePlatformsOwn) {
  TokenBrokerServer& broker = StartBroker();
  for (const char* elsewhere : {"https://evil.example/", "https://chat.example.com.evil.example/",
                                "javascript:alert(1)", "http://chat.example.com/", "//chat.example.com/"}) {
    EXPECT_THAT(StartLink(Chat(broker), LinkRequest("ada", elsewhere)), StatusIs(Code::kInvalidArgument, "return_to"))
        << elsewhere;
  }
}

TEST_F(PlatformAccountsTest, LinkOfAnAppThatIsNotGrantedIsNotMade) {
  peers_.platforms.Put({.id = "chat", .uris = {kChat}, .apps = {"mail"}});
  TokenBrokerServer& broker = StartBroker();
  EXPECT_THAT(StartLink(Chat(broker), LinkRequest("ada")), StatusIs(Code::kPermissionDenied));
}

TEST_F(PlatformAccountsTest, ListHasGrantedAppsOnly) {
  registry::v1::App* mail = peers_.registry.AddApp();
  mail->set_uid("app_mail");
  mail->set_slug("mail");
  mail->set_token_url(provider_.Url("/token"));
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  PutConnection("corp:ada", "app_mail", absl::Minutes(1), absl::Hours(1));
  PutConnection("corp:bob", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto all, List(Chat(broker), Token("ada")));
  EXPECT_EQ(all.connections_size(), 2);
  peers_.platforms.Put({.id = "chat", .uris = {kChat}, .apps = {"github"}});
  clock_for_all_.Advance(absl::Minutes(6));
  ASSERT_OK_AND_ASSIGN(const auto granted, List(Chat(broker), Token("ada")));
  ASSERT_EQ(granted.connections_size(), 1);
  EXPECT_EQ(granted.connections(0).app_slug(), "github");
}

TEST_F(PlatformAccountsTest, DisconnectRevokesAndForgets) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  PutConnection("corp:bob", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  ASSERT_THAT(GetToken(Chat(broker), TokenFor("ada")), IsOk());
  ASSERT_OK_AND_ASSIGN(const auto ended, Disconnect(Chat(broker), Token("ada"), "github"));
  EXPECT_EQ(ended.revocation(), "revoked");
  EXPECT_EQ(ReasonOf(GetToken(Chat(broker), TokenFor("ada")).status()), "link_required");
  EXPECT_THAT(GetToken(Chat(broker), TokenFor("bob")), IsOk());
  EXPECT_THAT(Disconnect(Chat(broker), Token("ada"), "github"), StatusIs(Code::kNotFound));
  EXPECT_THAT(Disconnect(Chat(broker), Token("ada"), "nothing"), StatusIs(Code::kNotFound));
  const audit::v1::Event event = Audited("link.disconnected", "");
  EXPECT_EQ(event.actor(), "chat");
  EXPECT_EQ(event.subject(), "corp:ada");
}

TEST_F(PlatformAccountsTest, PlatformsDoNotTakeEachOthersScopes) {
  provider_.SetHandler([](const HttpProvider::Request& request) -> HttpProvider::Response {
    if (request.path != "/token") return {200, "", "application/json", ""};
    return {200, R"({"access_token":"at","refresh_token":"rt","expires_in":3600,"scope":"repo gist admin"})",
            "application/json", ""};
  });
  const std::string home = "https://chat.example.com/";
  peers_.platforms.Put(
      {.id = "jobs", .dns_names = {"jobs.example.org"}, .return_origins = {"https://chat.example.com"}});
  TokenBrokerServer& broker = StartBroker();
  const auto jobs = Channel(broker, {}, {"jobs.example.org"});
  const std::string ada = peers_.authn.Sign(Outsider("corp:ada"));
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  v1::StartUserLinkRequest request = LinkRequest("ada", home);
  request.set_scopes(0, "admin");
  ASSERT_OK_AND_ASSIGN(const auto link, StartLink(jobs, request));
  const auto on = Browse(broker, "GET", TargetOf(link), ada);
  ASSERT_EQ(on.status(), 302) << on.body();
  const auto asked = QueryOf(HeaderOf(on, "location"));
  EXPECT_EQ(asked.at("scope"), "repo admin");
  ASSERT_EQ(HeaderOf(Browse(broker, "GET", absl::StrCat("/callback/github?code=c&state=", asked.at("state")), ada),
                     "location"),
            home);
  // What it has been given now is asked for again when the other links it.
  clock_for_all_.Advance(absl::Minutes(1));
  request.set_scopes(0, "other");
  ASSERT_OK_AND_ASSIGN(const auto next, StartLink(Chat(broker), request));
  const auto leaving = Browse(broker, "GET", TargetOf(next), ada);
  EXPECT_EQ(QueryOf(HeaderOf(leaving, "location")).at("scope"), "repo other gist admin");
}

TEST_F(PlatformAccountsTest, ServersPageAsksForNoMoreThanServersNeed) {
  TokenBrokerServer& broker = StartBroker();
  const std::string ada = peers_.authn.Sign(LinkPassport());
  ASSERT_OK_AND_ASSIGN(const auto link, StartLink(Chat(broker), LinkRequest("ada", "https://chat.example.com/")));
  const auto asked = QueryOf(HeaderOf(Browse(broker, "GET", TargetOf(link), ada), "location"));
  Browse(broker, "GET", absl::StrCat("/callback/github?code=c&state=", asked.at("state")), ada);
  ASSERT_THAT(GetToken(Chat(broker), TokenFor("ada")), IsOk());
  EXPECT_THAT(Browse(broker, "GET", "/connect/gh", ada).body(), HasSubstr("Asked for: repo<"));
}

TEST_F(PlatformAccountsTest, FailedLinkLeadsBackToThePlatformOnly) {
  TokenBrokerServer& broker = StartBroker();
  const std::string home = "https://chat.example.com/done";
  const std::string ada = peers_.authn.Sign(Outsider("corp:ada"));
  ASSERT_OK_AND_ASSIGN(const auto link, StartLink(Chat(broker), LinkRequest("ada", home)));
  const auto asked = QueryOf(HeaderOf(Browse(broker, "GET", TargetOf(link), ada), "location"));
  const auto refused =
      Browse(broker, "GET", absl::StrCat("/callback/github?error=access_denied&state=", asked.at("state")), ada);
  EXPECT_EQ(refused.status(), 200);
  EXPECT_THAT(refused.body(), HasSubstr("was not connected"));
  EXPECT_THAT(refused.body(), HasSubstr("Back to where you came from"));
  EXPECT_THAT(refused.body(), HasSubstr(home));
  EXPECT_THAT(refused.body(), Not(HasSubstr("Try again")));
  EXPECT_THAT(refused.body(), Not(HasSubstr("/connect/gh"))) << "its user may not use that page";
}

TEST_F(PlatformAccountsTest, LinkOfAnotherAccountLeadsBackToThePlatformWhateverBecomesOfIt) {
  app_->mutable_account_identity()->set_userinfo_url(provider_.Url("/user"));
  const auto accounts = std::make_shared<std::atomic<int>>(0);
  provider_.SetHandler([accounts](const HttpProvider::Request& request) -> HttpProvider::Response {
    if (request.path == "/user") return {200, absl::StrCat(R"({"sub":"id)", ++*accounts, R"("})")};
    return {200,
            R"({"access_token":"at","refresh_token":"rt","token_type":"bearer","expires_in":3600,"scope":"repo"})"};
  });
  TokenBrokerServer& broker = StartBroker();
  const std::string ada = peers_.authn.Sign(LinkPassport());
  // Through the page of a link without a way back, and back from the provider.
  const auto link = [&](const std::string& account) {
    v1::StartUserLinkRequest request = LinkRequest("ada");
    request.set_account(account);
    const auto given = StartLink(Chat(broker), request);
    EXPECT_THAT(given, IsOk());
    const auto page = Browse(broker, "GET", TargetOf(*given), ada);
    const auto on = Browse(broker, "POST", "/connect/gh", ada,
                           absl::StrCat("csrf=", PercentEncode(Hidden(page.body(), "csrf")), "&",
                                        TargetOf(*given).substr(sizeof("/connect/gh"))));
    const size_t state = on.body().find("state=") + 6;
    return HeaderOf(Browse(broker, "GET",
                           absl::StrCat("/callback/github?code=c&state=",
                                        on.body().substr(state, on.body().find('&', state) - state)),
                           ada),
                    "location");
  };
  for (const std::string account : {"", "work"}) {
    EXPECT_THAT(link(account), StartsWith("/connect/gh/done"));
    for (const std::string answer : {"no", "yes"}) {
      const std::string confirm = link(account);
      ASSERT_THAT(confirm, StartsWith("/connect/gh/confirm?"));
      const auto page = Browse(broker, "GET", confirm, ada);
      ASSERT_EQ(page.status(), 200) << page.body();
      const std::string form = absl::StrCat("answer=", answer, "&csrf=", PercentEncode(Hidden(page.body(), "csrf")),
                                            "&back=", PercentEncode(Hidden(page.body(), "back")), "&account=", account);
      const auto first = Browse(broker, "POST", "/connect/gh/confirm", ada, form);
      EXPECT_EQ(first.status(), 200) << first.body();
      EXPECT_THAT(first.body(), HasSubstr(answer == "yes" ? "/connect/gh/done" : "Begin again where you came from."));
      const auto again = Browse(broker, "POST", "/connect/gh/confirm", ada, form);
      EXPECT_EQ(again.status(), 410);
      EXPECT_THAT(again.body(), HasSubstr("Begin again where you came from."));
      for (const auto& shown : {first, again}) EXPECT_THAT(shown.body(), Not(HasSubstr("Connect again")));
    }
  }
}

TEST_F(PlatformAccountsTest, FormThatIsTooOldLeadsToNoServersPage) {
  TokenBrokerServer& broker = StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto link, StartLink(Chat(broker), LinkRequest("ada")));
  const std::string target = TargetOf(link);
  const auto refused = Browse(broker, "POST", "/connect/gh", peers_.authn.Sign(Outsider("corp:ada")),
                              absl::StrCat("csrf=x&", target.substr(target.find('?') + 1)));
  EXPECT_EQ(refused.status(), 403);
  EXPECT_THAT(refused.body(), HasSubstr("Begin again where you came from."));
  EXPECT_THAT(refused.body(), Not(HasSubstr("/connect/gh")));
}

TEST_F(PlatformAccountsTest, AccountsOfOneAppAreToldApart) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  const auto chat = Chat(broker);
  v1::GetTokenRequest work = TokenFor("ada");
  work.set_account("work");
  const auto unlinked = GetToken(chat, work);
  ASSERT_EQ(ReasonOf(unlinked.status()), "link_required");
  EXPECT_THAT(DetailOf(unlinked.status()).link, HasSubstr("account=work"));

  v1::StartUserLinkRequest request = LinkRequest("ada", "https://chat.example.com/");
  request.set_account("work");
  ASSERT_OK_AND_ASSIGN(const auto link, StartLink(chat, request));
  const std::string ada = peers_.authn.Sign(Outsider("corp:ada"));
  const auto asked = QueryOf(HeaderOf(Browse(broker, "GET", TargetOf(link), ada), "location"));
  Browse(broker, "GET", absl::StrCat("/callback/github?code=c&state=", asked.at("state")), ada);
  EXPECT_EQ(GetToken(chat, work)->access_token(), "at");
  EXPECT_EQ(GetToken(chat, TokenFor("ada"))->access_token(), "at0-of-corp:ada");
  EXPECT_EQ(List(chat, Token("ada"))->connections_size(), 2);

  ASSERT_OK_AND_ASSIGN(const auto ended, Disconnect(chat, Token("ada"), "github", "work"));
  EXPECT_EQ(ended.revocation(), "revoked");
  EXPECT_EQ(ReasonOf(GetToken(chat, work).status()), "link_required");
  EXPECT_EQ(GetToken(chat, TokenFor("ada"))->access_token(), "at0-of-corp:ada");
}

TEST(PlatformLinkTest, TicketCoversEveryPart) {
  const Secret key = Secret::Copy(std::string(32, 'k'));
  const absl::Time now = absl::FromUnixSeconds(1'800'000'000);
  const PlatformLink link = {"chat", "work", "a b", "https://chat.example.com/"};
  const PlatformLinkTarget target = {"corp:ada", "srv", "app"};
  const std::string query = PlatformLinkQuery(key, link, target, now + absl::Minutes(10));
  const auto fields = *FormDecodeUnique(query);
  const std::string ticket = fields.at("for");
  EXPECT_THAT(CheckPlatformLink(key, ticket, PlatformLinkIn(fields), target, now), IsOk());
  EXPECT_THAT(CheckPlatformLink(key, ticket, link, target, now + absl::Minutes(10)), StatusIs(Code::kDeadlineExceeded));
  const PlatformLink others[] = {{"jobs", "work", "a b", link.return_to},
                                 {"chat", "", "a b", link.return_to},
                                 {"chat", "work", "a", link.return_to},
                                 {"chat", "work", "a b", ""}};
  for (const PlatformLink& other : others) {
    EXPECT_THAT(CheckPlatformLink(key, ticket, other, target, now), StatusIs(Code::kPermissionDenied));
  }
  for (const PlatformLinkTarget& other :
       {PlatformLinkTarget{"corp:bob", "srv", "app"}, {"corp:ada", "srv2", "app"}, {"corp:ada", "srv", "app2"}}) {
    EXPECT_THAT(CheckPlatformLink(key, ticket, link, other, now), StatusIs(Code::kPermissionDenied));
  }
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
// What an administrator is told of users and callers when a server, app or credential changes, or would.
#include "absl/strings/str_cat.h"

#include "services/registry/catalog_testing.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Code = absl::StatusCode;
using Labels = std::map<std::string, std::string>;
using Consequences = std::vector<v1::Consequence>;

constexpr char kGitlab[] =
    R"({"slug": "gitlab", "displayName": "GitLab", "tokenUrl": "https://gitlab.example.com/token",
    "authorizationUrl": "https://gitlab.example.com/authorize", "clientId": "me", "clientSecret": {"value": "s3cret"}})";
constexpr char kOwn[] = R"({"slug": "wiki-key", "displayName": "Wiki key", "kind": "API_KEY", "owner": "USER",
    "allowedUpstreamOrigins": ["https://api.example.com", "https://new.example.com"]})";
constexpr char kPeople[] = R"({"interactive": {"allow": {"everyone": true}}})";
constexpr char kOwnKey[] = R"({"passthrough": {}}, "outboundHeaders": [
    {"name": "X-Key", "storedCredential": {"credential": "wiki-key"}}])";

std::string Server(const std::string& app_auth, const std::string& agent_auth = kPeople,
                   const std::string& upstream = "https://api.example.com/mcp") {
  return absl::StrCat(R"({"slug": "gh", "upstreamUrl": ")", upstream, R"(", "agentAuth": )", agent_auth,
                      R"(, "appAuth": )", app_auth, "}");
}
std::string OAuth(const std::string& app, const std::string& scopes = "") {
  return absl::StrCat(R"({"oauthAuthorization": {"app": ")", app, R"(", "scopes": [)", scopes, "]}}");
}
std::string Github(const std::string& more) {
  const std::string app = kApp;
  return absl::StrCat(app.substr(0, app.size() - 1), ", ", more, "}");
}

std::vector<std::string> Texts(const Consequences& consequences) {
  std::vector<std::string> texts;
  for (const auto& consequence : consequences) texts.push_back(consequence.message());
  return texts;
}

class ConsequencesTest : public CatalogTest {
 protected:
  void Keep(const std::string& user, const std::string& kind, const std::string& name, const Labels& labels,
            const std::string& state = "") {
    vault::v1::PutRequest put;
    auto& record = *put.mutable_record();
    record.set_owner_type(vault::v1::USER);
    record.set_owner_id(user);
    record.set_kind(kind);
    record.set_name(name);
    put.set_payload("theirs");
    put.mutable_labels()->insert(labels.begin(), labels.end());
    put.set_state(state);
    const std::string passport = kind == "credential"
                                     ? sallyport::testing::FakePassport("local:root", {"credential-admin"})
                                     : sallyport::testing::FakePassport(user);
    ASSERT_THAT(vault_.Put({"token_broker", passport}, put), IsOk());
  }
  void Link(const std::string& user, const std::string& app, const std::string& scopes, const std::string& state = "") {
    const char* const origin = app == "gitlab" ? "https://gitlab.example.com" : "https://idp.example.com";
    Keep(user, "connection", UidOf(app), {{"scope", scopes}, {"bound_to", absl::StrCat(origin, " ", origin)}}, state);
  }
  std::string UidOf(const std::string& slug) {
    const auto stored = Stored();
    for (const auto& app : stored.apps()) {
      if (app.slug() == slug) return app.uid();
    }
    for (const auto& credential : stored.credentials()) {
      if (credential.slug() == slug) return credential.uid();
    }
    ADD_FAILURE() << "no " << slug;
    return "";
  }
  template <typename T = v1::McpServer>
  Consequences Preview(const std::string& json) {
    const int64_t revision = Revision();
    const std::string vault = vault_.Fingerprint();
    const auto written = Update<T>(json, /*dry_run=*/true);
    EXPECT_THAT(written, IsOk());
    EXPECT_EQ(Revision(), revision) << "nothing is changed";
    EXPECT_EQ(vault_.Fingerprint(), vault) << "nothing is changed";
    return written.ok() ? written->consequences : Consequences();
  }
  // Two of three have scope write.
  void SetUpUsers() {
    ASSERT_THAT(Create<v1::App>(Github(R"("displayName": "GitHub", "defaultScopes": ["read"])")), IsOk());
    ASSERT_THAT(Create<v1::App>(kGitlab), IsOk());
    ASSERT_THAT(Create<v1::Credential>(kOwn), IsOk());
    ASSERT_THAT(Create<v1::McpServer>(Server(OAuth("github"))), IsOk());
    Link("okta:ada", "github", "read write");
    Link("okta:bob", "github", "read write");
    Link("okta:cleo", "github", "read");
    Link("okta:dan", "github", "read", "NEEDS_REAUTH");
    Link("okta:ada", "gitlab", "");
  }
};
INSTANTIATE_ENGINES(ConsequencesTest);

TEST_P(ConsequencesTest, AScopeIsAskedForThatSomeConnectionsLack) {
  SetUpUsers();
  const Consequences found = Preview(Server(OAuth("github", R"("write", "openid")")));
  ASSERT_THAT(Texts(found), ElementsAre("1 user must connect GitHub again: scope write is asked for and their "
                                        "connection lacks it"));
  EXPECT_EQ(found[0].kind(), v1::Consequence::MUST_CONNECT_AGAIN);
  EXPECT_EQ(found[0].resource_slug(), "github");
  EXPECT_EQ(found[0].users().number(), 1);
  EXPECT_EQ(found[0].field(), "appAuth");
  EXPECT_THAT(Preview(Server(OAuth("github", R"("read", "offline_access")"))), IsEmpty());
}

TEST_P(ConsequencesTest, AnotherAppIsConnectedByThoseWhoHaveNotYet) {
  SetUpUsers();
  const Consequences found = Preview(Server(OAuth("gitlab")));
  EXPECT_THAT(Texts(found),
              ElementsAre("callers must connect GitLab before their next call, 2 of the 3 users who have "
                          "connected GitHub among them; 1 user has done so already",
                          "3 users have connected GitHub: this server does not use it any more; the connection stays "
                          "until they disconnect it"));
  EXPECT_EQ(found[0].users().number(), 2);
  EXPECT_EQ(found[0].ready().number(), 1);
  EXPECT_EQ(found[1].kind(), v1::Consequence::NOT_USED);
}

TEST_P(ConsequencesTest, AnotherTypeLeavesConnectionsAndTellsWhoseValuesRemain) {
  SetUpUsers();
  Keep("okta:ada", "credential", UidOf("wiki-key"), {{"origins", "https://api.example.com"}});
  Keep("okta:eve", "credential", UidOf("wiki-key"), {{"origins", "https://other.example.com"}});
  EXPECT_THAT(Texts(Preview(Server(kOwnKey))),
              Contains("callers must enter Wiki key before their next call, 2 of the 3 users who have connected "
                       "GitHub among them; 1 user has done so already"));
  EXPECT_THAT(Texts(Preview(Server(R"({"bearer": {"token": {"value": "t"}}})"))),
              ElementsAre(HasSubstr("have connected GitHub: this server does not use it any more")));
}

TEST_P(ConsequencesTest, ValuesThatMayNotGoToTheNewAddressAreEnteredAgain) {
  ASSERT_THAT(Create<v1::Credential>(kOwn), IsOk());
  ASSERT_THAT(Create<v1::McpServer>(Server(kOwnKey)), IsOk());
  Keep("okta:ada", "credential", UidOf("wiki-key"), {{"origins", "https://api.example.com"}});
  Keep("okta:bob", "credential", UidOf("wiki-key"), {{"origins", "https://api.example.com https://new.example.com"}});
  EXPECT_THAT(Texts(Preview(Server(kOwnKey, kPeople, "https://new.example.com/mcp"))),
              ElementsAre("1 user must enter Wiki key again: what they entered may not be sent to "
                          "https://new.example.com"));
}

TEST_P(ConsequencesTest, AnAppThatMovesOrAsksForMore) {
  SetUpUsers();
  std::string moved = Github(R"("displayName": "GitHub", "defaultScopes": ["read"])");
  moved.replace(moved.find("https://idp.example.com/token"), 29, "https://new.example.com/token");
  EXPECT_THAT(Texts(Preview<v1::App>(moved)),
              ElementsAre("3 users must connect GitHub again: their tokens are of https://idp.example.com"));
  EXPECT_THAT(Texts(Preview<v1::App>(Github(R"("displayName": "GitHub", "defaultScopes": ["read", "write"])"))),
              ElementsAre(HasSubstr("1 user must connect GitHub again: scope write")));
  std::string client = Github(R"("displayName": "GitHub", "defaultScopes": ["read"])");
  client.replace(client.find("\"me\""), 4, "\"you\"");
  EXPECT_THAT(Texts(Preview<v1::App>(client)), ElementsAre(HasSubstr("again once their token ends: it was given to")));
  EXPECT_THAT(Texts(Preview<v1::App>(Github(R"("displayName": "GitHub", "defaultScopes": ["read"],
      "allowedUpstreamOrigins": ["https://elsewhere.example.com"])"))),
              ElementsAre("every call of server gh is refused: nothing may be sent to https://api.example.com"));
}

TEST_P(ConsequencesTest, AWriteSaysTheSameAsItsDryRun) {
  SetUpUsers();
  const std::string json = Server(OAuth("github", R"("write")"));
  const Consequences previewed = Preview(json);
  const std::string file = File({}, {json});
  ASSERT_OK_AND_ASSIGN(const auto preview, Apply(file, admin_, /*dry_run=*/true));
  ASSERT_OK_AND_ASSIGN(const auto applied, Apply(file, admin_));
  ASSERT_EQ(applied.results(0).consequences_size(), 1);
  EXPECT_EQ(applied.results(0).consequences(0).message(), previewed[0].message());
  EXPECT_EQ(preview.results(0).consequences(0).message(), previewed[0].message());
  ASSERT_OK_AND_ASSIGN(const auto again, Apply(file, admin_));
  EXPECT_THAT(again.results(0).consequences(), IsEmpty()) << "nothing changes the second time";
}

TEST_P(ConsequencesTest, WithoutTheVaultTheNumberIsNotKnownAndTheAnswerComesAllTheSame) {
  SetUpUsers();
  vault_.SetDown(true);
  const auto down = Update<v1::McpServer>(Server(OAuth("gitlab")), /*dry_run=*/true);
  ASSERT_THAT(down, IsOk());
  EXPECT_THAT(Texts(down->consequences),
              ElementsAre("callers must connect GitLab before their next call; how many have done so already is not "
                          "known",
                          HasSubstr("users who have connected GitHub (how many is not known)")));
  for (const auto& consequence : down->consequences) EXPECT_FALSE(consequence.has_users() || consequence.has_ready());
  EXPECT_THAT(Update<v1::McpServer>(Server(OAuth("github", R"("write")"))), IsOk()) << "a write without secrets";
}

TEST_P(ConsequencesTest, NobodyIsNamedAndARefusedWriteTellsNothing) {
  SetUpUsers();
  std::string all;
  for (const auto& app : {OAuth("gitlab"), OAuth("github", R"("write")"), std::string(kOwnKey)}) {
    for (const auto& consequence : Preview(Server(app))) all += consequence.ShortDebugString();
  }
  for (const char* user : {"ada", "bob", "cleo", "dan"}) EXPECT_THAT(all, Not(HasSubstr(user)));
  const auto refused = Update<v1::McpServer>(Server(OAuth("nowhere")), /*dry_run=*/true);
  EXPECT_THAT(refused, StatusIs(Code::kInvalidArgument));
  // The vault goes by the writer's own passport: a name without the role learns no number.
  Writer stranger = admin_;
  stranger.passport = sallyport::testing::FakePassport("local:eve", {"auditor"});
  const auto asked = catalog_->Update(FromJson<v1::McpServer>(Server(OAuth("gitlab"))), true, stranger);
  ASSERT_THAT(asked, IsOk());
  for (const auto& consequence : asked->consequences) EXPECT_FALSE(consequence.has_users() || consequence.has_ready());
}

TEST_P(ConsequencesTest, WhatIsDeletedIsMissedByThoseWhoUseIt) {
  SetUpUsers();
  ASSERT_OK_AND_ASSIGN(const Consequences previewed, catalog_->Delete<v1::McpServer>("gh", 0, admin_, true));
  EXPECT_THAT(Texts(previewed), ElementsAre("every call is refused with 404", HasSubstr("have connected GitHub")));
  EXPECT_THAT(catalog_->Delete<v1::App>("github", 0, admin_, true), StatusIs(Code::kFailedPrecondition, "gh"));
  EXPECT_EQ(Stored().mcp_servers_size(), 1);
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("gh", 0, admin_), IsOk());
  ASSERT_OK_AND_ASSIGN(const Consequences app, catalog_->Delete<v1::App>("github", 0, admin_, true));
  EXPECT_THAT(Texts(app),
              ElementsAre("3 users have connected GitHub: all of their accounts are disconnected; they cannot be "
                          "revoked at the provider, because the app has no revocationUrl and no issuer"));
  EXPECT_EQ(Stored().apps_size(), 2);
}

TEST_P(ConsequencesTest, DeletingAnAppSaysHowManyAccountsAreRevoked) {
  ASSERT_THAT(Create<v1::App>(Github(R"("displayName": "GitHub", "revocationUrl": "https://idp.example.com/revoke")")),
              IsOk());
  Link("okta:ada", "github", "");
  Link("okta:bob", "github", "");
  const char* const text =
      "2 users have connected GitHub: all of their accounts are disconnected and revoked at the provider";
  ASSERT_OK_AND_ASSIGN(const Consequences previewed, catalog_->Delete<v1::App>("github", 0, admin_, true));
  ASSERT_THAT(Texts(previewed), ElementsAre(text));
  EXPECT_EQ(previewed[0].users().number(), 2);
  EXPECT_EQ(Stored().apps_size(), 1);
  EXPECT_EQ(Stored().ending_apps_size(), 0);
  ASSERT_OK_AND_ASSIGN(const Consequences deleted, catalog_->Delete<v1::App>("github", 0, admin_));
  EXPECT_THAT(Texts(deleted), ElementsAre(text));
  ASSERT_THAT(Create<v1::App>(Github(R"("issuer": "https://idp.example.com")")), IsOk());
  Link("okta:ada", "github", "");
  ASSERT_OK_AND_ASSIGN(const Consequences issuer, catalog_->Delete<v1::App>("github", 0, admin_, true));
  EXPECT_THAT(Texts(issuer), ElementsAre(HasSubstr("and revoked at the provider")));
}

TEST_P(ConsequencesTest, WhoHasAccountsUnderLabelsOnlyIsCountedWhereEveryAccountIsConcerned) {
  SetUpUsers();
  Keep("okta:ada", "connection", absl::StrCat(UidOf("github"), "/work"), {});
  Keep("okta:eve", "connection", absl::StrCat(UidOf("github"), "/home"), {});
  Keep("okta:eve", "connection", absl::StrCat(UidOf("github"), "/work"), {});
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("gh", 0, admin_), IsOk());
  ASSERT_OK_AND_ASSIGN(const Consequences deleted, catalog_->Delete<v1::App>("github", 0, admin_, true));
  ASSERT_EQ(deleted.size(), 1);
  EXPECT_EQ(deleted[0].users().number(), 4) << deleted[0].message();
}

TEST_P(ConsequencesTest, AnotherAccountIsConnectedByThoseWhoHaveItUnderAnotherLabel) {
  SetUpUsers();
  const std::string work = R"({"oauthAuthorization": {"app": "github", "account": "work"}})";
  Keep("okta:ada", "connection", absl::StrCat(UidOf("github"), "/work"),
       {{"scope", "read"}, {"bound_to", "https://idp.example.com https://idp.example.com"}});
  const Consequences found = Preview(Server(work));
  EXPECT_THAT(Texts(found),
              ElementsAre("callers must connect GitHub account \"work\" before their next call, 2 of the 3 users who "
                          "have connected GitHub among them; 1 user has done so already",
                          HasSubstr("3 users have connected GitHub: this server does not use it any more")));
  EXPECT_EQ(found[0].kind(), v1::Consequence::MUST_CONNECT);
  EXPECT_EQ(found[0].users().number(), 2);
  EXPECT_EQ(found[0].ready().number(), 1);
  ASSERT_THAT(Update<v1::McpServer>(Server(work)), IsOk());
  EXPECT_THAT(Preview(Server(work)), IsEmpty());
  EXPECT_THAT(Texts(Preview(Server(OAuth("github")))),
              ElementsAre(HasSubstr("callers must connect GitHub before their next call"),
                          HasSubstr("1 user has connected GitHub account \"work\"")));
}

TEST_P(ConsequencesTest, NewAndDisabledServersHaveNoUsers) {
  SetUpUsers();
  std::string other = Server(OAuth("gitlab"));
  other.replace(other.find("\"gh\""), 4, "\"other\"");
  ASSERT_OK_AND_ASSIGN(const auto created, Create<v1::McpServer>(other));
  EXPECT_THAT(created.consequences, IsEmpty());
  std::string disabled = Server(OAuth("github"));
  disabled.insert(disabled.size() - 1, R"(, "enabled": false)");
  EXPECT_THAT(Texts(Preview(disabled)), ElementsAre(HasSubstr("404 until the server is enabled again")));
  ASSERT_THAT(Update<v1::McpServer>(disabled), IsOk());
  EXPECT_THAT(Preview(Server(OAuth("gitlab"))), IsEmpty());
}

}  // namespace
}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/cli.h"

#include <gmock/gmock.h>

#include "common/crypto/crypto.h"
#include "tools/cli/cli_testing.h"

namespace sallyport::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kWhoAmI[] = "/api/sallyport.authn.v1.Authn/WhoAmI";
constexpr char kList[] = "/api/sallyport.registry.v1.Registry/ListMcpServers";

TEST_F(CliTest, HelpNamesEveryCommand) {
  EXPECT_EQ(Run({"--help"}), kDone);
  for (const char* command : {"login", "logout", "whoami", "apply", "diff", "get", "delete", "connections",
                              "credentials", "users", "servers", "clients", "audit", "vault", "hash-password"}) {
    EXPECT_THAT(out_.str(), HasSubstr(command));
  }
}

TEST_F(CliTest, PrintsItsVersion) {
  EXPECT_EQ(Run({"--version"}), kDone);
  EXPECT_THAT(out_.str(), StartsWith("sallyport "));
}

struct BadUsage {
  const char* name;
  std::vector<std::string> arguments;
  const char* says;
};
class BadUsageTest : public CliTest, public ::testing::WithParamInterface<BadUsage> {};

TEST_P(BadUsageTest, EndsWithTwoAndSendsNothing) {
  SignIn();

  EXPECT_EQ(Run(GetParam().arguments), kBadUsage);

  EXPECT_THAT(err_.str(), HasSubstr(GetParam().says));
  EXPECT_TRUE(requests_.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Cli, BadUsageTest,
    ::testing::Values(
        BadUsage{"NoCommand", {}, "subcommand is required"},
        BadUsage{"UnknownCommand", {"frobnicate"}, "subcommand is required"},
        BadUsage{"ApplyWithoutFile", {"apply"}, "--file is required"},
        BadUsage{"ApplyOfAFileThatIsNotThere", {"apply", "-f", "/nowhere.yaml", "--url", "ftp://x"}, "bare origin"},
        BadUsage{"GetWithoutKind", {"get"}, "kind is required"},
        BadUsage{"GetOfAnUnknownKind", {"get", "people"}, "must be servers, apps or credentials"},
        BadUsage{"UnknownOutput", {"get", "servers", "-o", "xml"}, "must be yaml or json"},
        BadUsage{"DeleteWithoutSlug", {"delete", "server"}, "slug is required"},
        BadUsage{"UrlWithPath", {"whoami", "--url", "https://gw.example.com/mcp"}, "bare origin"},
        BadUsage{"PlainHttpAcrossTheNetwork", {"whoami", "--url", "http://gw.example.com"}, "use https"},
        BadUsage{"VaultWithoutVerb", {"vault"}, "subcommand is required"},
        BadUsage{"SealWithoutYes", {"vault", "seal"}, "add --yes"},
        BadUsage{"UsersWithoutVerb", {"users"}, "subcommand is required"},
        BadUsage{"RevokeNobody", {"users", "revoke"}, "subject is required"},
        BadUsage{"RevokeUnconfirmed", {"users", "revoke", "okta:00u1"}, "add --yes"},
        BadUsage{"RevokeConnectionsOfNoApp", {"connections", "revoke", "--yes"}, "--app is required"},
        BadUsage{"RevokeConnectionsUnconfirmed", {"connections", "revoke", "--app", "github"}, "add --yes"},
        BadUsage{"AccountOfNobody",
                 {"connections", "revoke", "--app", "github", "--account", "work", "--yes"},
                 "need --user"},
        BadUsage{"TwoAccounts",
                 {"connections", "revoke", "--app", "github", "--user", "a:b", "--account", "work", "--default-account",
                  "--yes"},
                 "one of --account"},
        BadUsage{"RenameToNothing", {"connections", "rename", "github"}, "label is required"},
        BadUsage{"RevokeNoServer", {"servers", "revoke"}, "slug is required"},
        BadUsage{"ClientsWithoutVerb", {"clients"}, "subcommand is required"},
        BadUsage{"RemoveAllForOneServer", {"clients", "remove", "c", "--all", "--server", "echo"}, "one of --all"},
        BadUsage{"AuditSinceNonsense", {"audit", "--since", "yesterday"}, "--since"},
        BadUsage{"AuditLimitZero", {"audit", "--limit", "0"}, "--limit"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST_F(CliTest, SendsTheSavedTokenAndShowsWhoItIs) {
  SignIn();
  Reply(kWhoAmI, R"({"subject":"local:ada","roles":["ADMIN","CREDENTIAL_ADMIN"]})");

  EXPECT_EQ(Run({"whoami"}), kDone);

  ASSERT_EQ(requests_.size(), 1U);
  EXPECT_EQ(requests_[0].headers["authorization"], "Bearer saved-token");
  EXPECT_THAT(out_.str(), HasSubstr("subject  local:ada"));
  EXPECT_THAT(out_.str(), HasSubstr("roles    admin credential-admin"));
  EXPECT_THAT(out_.str(), Not(HasSubstr("saved-token")));
}

TEST_F(CliTest, WithoutALoginSaysHowToGetOne) {
  EXPECT_EQ(Run({"whoami"}), kFailed);

  EXPECT_THAT(err_.str(), HasSubstr("run `sallyport login`"));
  EXPECT_TRUE(requests_.empty());
}

TEST_F(CliTest, NeverSendsATokenToAnotherGateway) {
  SignIn();
  testing::TestHttpServer other([](const auto&) { return testing::TestHttpServer::Response{}; });

  EXPECT_EQ(Run({"whoami", "--url", other.origin()}), kFailed);

  EXPECT_EQ(other.requests(), 0);
}

TEST_F(CliTest, UsesTheLatestLoginsGatewayWhenNoneIsNamed) {
  SignIn();
  environment_.erase("SALLYPORT_URL");
  Reply(kWhoAmI, R"({"subject":"local:ada"})");

  EXPECT_EQ(Run({"whoami"}), kDone);
}

TEST_F(CliTest, NoGatewayKnownIsBadUsage) {
  environment_.erase("SALLYPORT_URL");

  EXPECT_EQ(Run({"whoami"}), kBadUsage);

  EXPECT_THAT(err_.str(), HasSubstr("SALLYPORT_URL"));
}

TEST_F(CliTest, AnErrorBodyBecomesMessageAndFields) {
  SignIn();
  Reply(
      "/api/sallyport.registry.v1.Registry/DeleteApp",
      R"({"error":"in_use","message":"app google is in use","violations":[{"field":"slug","message":"used by gmail"}]})",
      400);

  EXPECT_EQ(Run({"delete", "app", "google"}), kFailed);

  EXPECT_THAT(err_.str(), HasSubstr("sallyport: app google is in use"));
  EXPECT_THAT(err_.str(), HasSubstr("slug: used by gmail"));
}

TEST_F(CliTest, AnAnswerThatIsNoGatewaysIsSaidSo) {
  SignIn();
  Reply(kWhoAmI, "<html>nginx</html>", 502);

  EXPECT_EQ(Run({"whoami"}), kFailed);

  EXPECT_THAT(err_.str(), HasSubstr("is this a sallyport gateway?"));
}

TEST_F(CliTest, RefusedTokenSaysSignIn) {
  SignIn();
  Reply(kWhoAmI, R"({"error":"invalid_token","message":"the token has ended"})", 401);

  EXPECT_EQ(Run({"whoami"}), kFailed);

  EXPECT_THAT(err_.str(), HasSubstr("run `sallyport login`"));
}

TEST_F(CliTest, ListsAreTablesAndFollowPages) {
  SignIn();
  Reply(kList, R"({"mcpServers":[{"slug":"echo","upstreamUrl":"http://127.0.0.1:9/mcp","version":"3",
                   "agentAuth":{"passthrough":{}},"appAuth":{"apiKey":{"name":"X-API-Key","value":{"set":true}}}}]})");

  EXPECT_EQ(Run({"get", "servers"}), kDone);

  EXPECT_THAT(out_.str(), HasSubstr("echo  yes      passthrough  apiKey    3        http://127.0.0.1:9/mcp"));
}

TEST_F(CliTest, HashPasswordVerifiesAndShowsNoPassword) {
  in_.str("correct horse\n");

  EXPECT_EQ(Run({"hash-password"}), kDone);

  std::string hash = out_.str();
  ASSERT_THAT(hash, StartsWith("$scrypt$ln="));
  hash.pop_back();
  const auto verified = VerifyPassword(Secret(std::string("correct horse")), hash);
  EXPECT_TRUE(verified.ok() && *verified);
  EXPECT_THAT(out_.str() + err_.str(), Not(HasSubstr("horse")));
}

TEST_F(CliTest, HashPasswordRefusesAnEmptyOne) {
  in_.str("\n");

  EXPECT_EQ(Run({"hash-password"}), kBadUsage);
}

TEST_F(CliTest, DisconnectIsNotTheList) {
  SignIn();
  Reply("/api/sallyport.token_broker.v1.TokenBroker/Disconnect", R"({"revocation":"unsupported"})");

  EXPECT_EQ(Run({"connections", "disconnect", "github"}), kDone);

  ASSERT_EQ(requests_.size(), 1U);
  EXPECT_THAT(requests_[0].body, HasSubstr("github"));
  EXPECT_THAT(out_.str(), HasSubstr("no revocation endpoint"));
}

TEST_F(CliTest, ConnectionsSayWhichAccountAndWhatIsOwed) {
  SignIn();
  Reply("/api/sallyport.token_broker.v1.TokenBroker/ListConnections",
        R"({"connections":[{"appSlug":"github","state":"linked","label":"work","accountName":"octocat",
            "lastUsedAt":"2026-01-02T00:00:00Z"},
            {"appSlug":"github","state":"revoke_pending","revokeSince":"2026-01-02T03:04:05Z"}]})");

  const std::vector<std::vector<std::string>> commands = {{"connections"}, {"connections", "list"}};
  for (const std::vector<std::string>& command : commands) {
    out_.str("");
    EXPECT_EQ(Run(command), kDone);
    EXPECT_THAT(out_.str(), HasSubstr("work     octocat"));
    EXPECT_THAT(out_.str(), HasSubstr("2026-01-02 "));
    EXPECT_THAT(out_.str(), HasSubstr("revoke_pending since 2026-01-02T03:04:05Z"));
  }
}

TEST_F(CliTest, DisconnectsAndRenamesOneOfSeveralAccounts) {
  SignIn();
  Reply("/api/sallyport.token_broker.v1.TokenBroker/Disconnect", R"({"revocation":"revoked"})");
  Reply("/api/sallyport.token_broker.v1.TokenBroker/RenameConnection", "{}");

  EXPECT_EQ(Run({"connections", "disconnect", "github", "--account", "work"}), kDone);
  EXPECT_EQ(Run({"connections", "rename", "github", "private", "--account", "work"}), kDone);
  EXPECT_EQ(Run({"connections", "rename", "github", "", "--account", "private"}), kDone);

  ASSERT_EQ(requests_.size(), 3U);
  EXPECT_EQ(requests_[0].body, R"({"appSlug":"github","label":"work"})");
  EXPECT_EQ(requests_[1].body, R"({"appSlug":"github","label":"work","newLabel":"private"})");
  EXPECT_EQ(requests_[2].body, R"({"appSlug":"github","label":"private"})");
  EXPECT_THAT(out_.str(), HasSubstr("github (private) is the default account now"));
}

TEST_F(CliTest, ACredentialOfOnesOwnComesFromStandardInput) {
  SignIn();
  Reply("/api/sallyport.token_broker.v1.TokenBroker/SetCredential", R"({"origins":["https://wiki.example.com"]})");
  in_.str("k3y-of-ada\n");

  EXPECT_EQ(Run({"credentials", "set", "wiki", "--username", "ada"}), kDone);

  ASSERT_EQ(requests_.size(), 1U);
  EXPECT_EQ(requests_[0].body, R"({"credential":"wiki","value":{"value":"k3y-of-ada"},"username":"ada"})");
  EXPECT_EQ(out_.str(), "stored your wiki; it may be sent to https://wiki.example.com\n");
  EXPECT_THAT(out_.str() + err_.str(), Not(HasSubstr("k3y")));
}

TEST_F(CliTest, AnEmptyCredentialIsNotSent) {
  SignIn();
  in_.str("\n");
  EXPECT_EQ(Run({"credentials", "set", "wiki"}), kBadUsage);
  EXPECT_EQ(requests_.size(), 0U);
}

TEST_F(CliTest, ErasesACredentialOfAnotherUser) {
  SignIn();
  Reply("/api/sallyport.token_broker.v1.TokenBroker/ClearCredential", "{}");

  EXPECT_EQ(Run({"credentials", "clear", "wiki", "--user", "corp:ada"}), kDone);

  EXPECT_EQ(requests_[0].body, R"({"credential":"wiki","subject":"corp:ada"})");
  EXPECT_EQ(out_.str(), "erased wiki of corp:ada\n");
}

TEST_F(CliTest, ListsCredentialsOfOnesOwn) {
  SignIn();
  Reply("/api/sallyport.token_broker.v1.TokenBroker/ListOwnCredentials",
        R"({"credentials":[{"credential":"wiki","state":"needs_entry",
            "origins":["https://wiki.example.com"]}]})");

  EXPECT_EQ(Run({"credentials"}), kDone);

  EXPECT_THAT(out_.str(), HasSubstr("wiki        needs_entry  -        https://wiki.example.com"));
}

TEST_F(CliTest, AuditAsksForWhatTheOptionsSay) {
  SignIn();
  Reply("/api/sallyport.audit.v1.Audit/ListEvents",
        R"({"events":[{"type":"mcp.call","at":"2026-01-02T03:04:05Z","decision":"DECISION_ALLOWED","serverSlug":"echo",
            "mcpMethod":"tools/call","mcpName":"headers","status":200}]})");

  EXPECT_EQ(Run({"audit", "--server", "echo", "--since", "1h", "--limit", "5"}), kDone);

  EXPECT_THAT(requests_[0].body, HasSubstr(R"("serverSlug":"echo")"));
  EXPECT_THAT(requests_[0].body, HasSubstr("since"));
  EXPECT_THAT(out_.str(), HasSubstr("tools/call headers"));
  EXPECT_THAT(out_.str(), HasSubstr("allowed"));
}

TEST_F(CliTest, AuditShowsPeopleByNameAndMarksWhatClientsCallThemselves) {
  SignIn();
  Reply(
      "/api/sallyport.audit.v1.Audit/ListEvents",
      R"({"events":[{"type":"login","subject":"okta:00u1","userName":"Ada \"Root\" Lovelace","userEmail":"ada@example.com"},
            {"type":"mcp.call","clientId":"mcp_1","selfDeclaredClientName":"sallyport-cli\u001b[2J\u202e\nadmin  x"},
            {"type":"mcp.call","clientId":"sallyport-cli","mcpName":"\u001b]0;owned\u0007"}]})");

  EXPECT_EQ(Run({"audit"}), kDone);

  EXPECT_THAT(out_.str(), HasSubstr(R"(okta:00u1  "Ada \"Root\" Lovelace" <ada@example.com>)"));
  EXPECT_THAT(out_.str(), HasSubstr("mcp_1 (calls itself \"sallyport-cli\uFFFD[2J\uFFFD\uFFFDadmin  x\")"));
  EXPECT_THAT(out_.str(), HasSubstr("sallyport-cli "));
  const std::string table = out_.str();
  EXPECT_EQ(table.find('\x1b'), std::string::npos) << "nothing acts on the terminal";
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 4) << "a title and three events";
}

TEST_F(CliTest, AuditAsJsonMarksWhatClientsCallThemselves) {
  SignIn();
  Reply("/api/sallyport.audit.v1.Audit/ListEvents",
        R"({"events":[{"clientId":"mcp_1","selfDeclaredClientName":"Claude","userName":"Ada"}]})");

  EXPECT_EQ(Run({"audit", "-o", "json"}), kDone);

  EXPECT_THAT(out_.str(), HasSubstr(R"("selfDeclaredClientName":"Claude")"));
  EXPECT_THAT(out_.str(), HasSubstr(R"("userName":"Ada")"));
}

TEST_F(CliTest, EraseNamesNamesWhose) {
  SignIn();
  Reply("/api/sallyport.audit.v1.Audit/EraseNames", R"({"erased":true})");

  EXPECT_EQ(Run({"audit", "erase-names", "--subject", "okta:00u1"}), kDone);

  ASSERT_EQ(requests_.size(), 1U);
  EXPECT_THAT(requests_[0].body, HasSubstr(R"("subject":"okta:00u1")"));
  EXPECT_THAT(out_.str(), HasSubstr("erased"));
  EXPECT_NE(Run({"audit", "erase-names"}), kDone);
  EXPECT_NE(Run({"audit", "erase-names", "--subject", "a", "--client", "b"}), kDone);
  EXPECT_EQ(requests_.size(), 1U);
}

TEST_F(CliTest, RewrapGoesOnUntilNothingIsLeft) {
  SignIn();
  Reply("/api/sallyport.vault.v1.VaultAdmin/Rewrap", R"({"rewrapped":"7","records":"9"})");

  EXPECT_EQ(Run({"vault", "rewrap"}), kDone);

  EXPECT_THAT(out_.str(), HasSubstr("7 keys brought over, with 9 records; 0 left"));
}

TEST_F(CliTest, RewrapTellsWhatIsDamaged) {
  SignIn();
  Reply("/api/sallyport.vault.v1.VaultAdmin/Rewrap", R"({"remaining":"2","damaged":"2"})");

  EXPECT_NE(Run({"vault", "rewrap"}), kDone);

  EXPECT_THAT(err_.str(), HasSubstr("2 keys cannot be brought over"));
}

TEST_F(CliTest, ATermIsDestroyedOnlyWithYes) {
  SignIn();
  Reply("/api/sallyport.vault.v1.VaultAdmin/DestroyTerm", "{}");

  EXPECT_NE(Run({"vault", "destroy-term", "3"}), kDone);
  EXPECT_TRUE(requests_.empty());
  EXPECT_EQ(Run({"vault", "destroy-term", "3", "--yes"}), kDone);

  ASSERT_EQ(requests_.size(), 1U);
  EXPECT_THAT(requests_[0].body, HasSubstr(R"("term":3)"));
}

}  // namespace
}  // namespace sallyport::cli

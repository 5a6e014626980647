// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/endings.h"

#include <gmock/gmock.h>

#include "tools/cli/cli_testing.h"

namespace sallyport::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Response = testing::TestHttpServer::Response;

constexpr char kRevokeUser[] = "/api/sallyport.authn.v1.Authn/RevokeUser";
constexpr char kRevokeConnections[] = "/api/sallyport.authn.v1.Revocation/RevokeConnections";

class EndingsTest : public CliTest {
 protected:
  EndingsTest() { SignIn(); }

  // The answers a gateway gives one after the other; the last one again and again. One that begins with an error has
  // its status.
  void Replies(const std::string& target, const std::vector<std::string>& bodies) {
    auto next = std::make_shared<size_t>(0);
    scripts_[target] = [next, bodies] { return bodies[std::min((*next)++, bodies.size() - 1)]; };
  }
  Response Answer(const testing::TestHttpServer::Request& request) override {
    const auto script = scripts_.find(request.target);
    if (script != scripts_.end()) {
      const std::string body = script->second();
      const bool error = absl::StartsWith(body, R"({"error")");
      Reply(request.target, body, !error ? 200 : absl::StrContains(body, "not_found") ? 404 : 503);
    }
    return CliTest::Answer(request);
  }

 private:
  std::map<std::string, std::function<std::string()>> scripts_;
};

constexpr char kRevokeServer[] = "/api/sallyport.authn.v1.Revocation/RevokeServer";
constexpr char kRemoveClient[] = "/api/sallyport.authn.v1.Clients/RemoveClient";
constexpr char kRemoveOwnClient[] = "/api/sallyport.authn.v1.Clients/RemoveOwnClient";
constexpr char kGrantsRemain[] =
    R"({"error":"grants_remain","message":"500 grants have ended, others remain: call again"})";

TEST_F(EndingsTest, RevokingAUserTellsWhatBecameOfEachConnection) {
  Reply(kRevokeUser,
        R"({"sessionsRevoked":3,"grantsRevoked":2,"credentialsErased":1,"keysDestroyed":true,"connections":[
      {"subject":"okta:00u1","appSlug":"hub","appUid":"app_1","revocation":"revoked"},
      {"subject":"okta:00u1","appSlug":"wiki","appUid":"app_2","label":"work","revocation":"unsupported"},
      {"subject":"okta:00u1","appUid":"app_gone","revocation":"revoked"}]})");

  EXPECT_EQ(Run({"users", "revoke", "okta:00u1", "--yes"}), kDone);

  ASSERT_EQ(requests_.size(), 1U);
  EXPECT_EQ(requests_[0].body, R"({"subject":"okta:00u1"})");
  EXPECT_THAT(out_.str(), HasSubstr("sessions revoked    3\ngrants revoked      2\nconnections ended   3\n"
                                    "credentials erased  1\nkeys destroyed      yes\n"));
  EXPECT_THAT(out_.str(), HasSubstr("okta:00u1  hub       -        revoked\n"));
  EXPECT_THAT(out_.str(), HasSubstr("okta:00u1  wiki      work     unsupported\n"));
  EXPECT_THAT(out_.str(), HasSubstr("okta:00u1  app_gone  -        revoked\n"));
  EXPECT_THAT(out_.str(), HasSubstr("1 unsupported: the provider has no revocation endpoint"));
}

TEST_F(EndingsTest, PendingRevocationsHaveAnExitCodeOfTheirOwn) {
  Reply(kRevokeUser, R"({"keysDestroyed":true,"connections":[{"appSlug":"hub","revocation":"pending"}]})");
  Reply(kRevokeConnections, R"({"ended":[{"appSlug":"hub","revocation":"pending"}]})");

  EXPECT_EQ(Run({"users", "revoke", "okta:00u1", "--yes"}), kPending);
  EXPECT_EQ(Run({"connections", "revoke", "--app", "hub", "--yes"}), kPending);

  EXPECT_THAT(out_.str(), HasSubstr("1 pending: the provider did not answer"));
}

TEST_F(EndingsTest, GoesOnWhileThereIsMoreAndCountsEachConnectionOnce) {
  Replies(kRevokeUser, {R"({"sessionsRevoked":500,"more":true})",
                        R"({"grantsRevoked":7,"connections":[{"appSlug":"hub","revocation":"pending"}],"more":true})",
                        R"({"connections":[{"appSlug":"hub","revocation":"revoked"},
                                           {"appSlug":"wiki","revocation":"revoked"}],"keysDestroyed":true})"});

  EXPECT_EQ(Run({"users", "revoke", "okta:00u1", "--yes"}), kDone) << "what was pending has been revoked meanwhile";

  EXPECT_EQ(requests_.size(), 3U);
  EXPECT_THAT(out_.str(), HasSubstr("sessions revoked    500\ngrants revoked      7\nconnections ended   2\n"));
  EXPECT_THAT(err_.str(), HasSubstr("500 ended, going on"));
  EXPECT_THAT(err_.str(), HasSubstr("508 ended, going on"));
}

TEST_F(EndingsTest, OfSeveralTokensOfOneConnectionTheLeastThatWasReachedIsShown) {
  Reply(kRevokeConnections,
        R"({"ended":[{"appSlug":"hub","revocation":"pending"},{"appSlug":"hub","revocation":"revoked"},
                                         {"appSlug":"wiki","revocation":"unsupported"},
                                         {"appSlug":"wiki","revocation":"revoked"}]})");

  EXPECT_EQ(Run({"connections", "revoke", "--app", "hub", "--yes"}), kPending);

  EXPECT_THAT(out_.str(), HasSubstr("connections ended   2\n"));
  EXPECT_THAT(out_.str(), HasSubstr("1 pending"));
  EXPECT_THAT(out_.str(), HasSubstr("1 unsupported"));
}

TEST_F(EndingsTest, AGatewayThatNeverComesToAnEndIsGivenUp) {
  Reply(kRevokeUser, R"({"more":true})");

  EXPECT_EQ(Run({"users", "revoke", "okta:00u1", "--yes"}), kFailed);

  EXPECT_EQ(requests_.size(), 5U);
  EXPECT_THAT(out_.str(), HasSubstr("keys destroyed      no"));
  EXPECT_THAT(err_.str(), HasSubstr("run the command again"));
}

TEST_F(EndingsTest, ABrokerThatIsAwayIsAnErrorThatSaysWhatHasEnded) {
  Reply(kRevokeUser,
        R"j({"error":"connections_remain","message":"sessions and tokens of the user have ended (1 sessions)"})j", 503);

  EXPECT_EQ(Run({"users", "revoke", "okta:00u1", "--yes"}), kFailed);

  EXPECT_THAT(err_.str(), HasSubstr("sessions and tokens of the user have ended"));
}

TEST_F(EndingsTest, AsksBeforeItRevokes) {
  Reply(kRevokeUser, R"({"keysDestroyed":true})");
  in_.str("y\n");
  EXPECT_EQ(Run({"users", "revoke", "okta:00u1"}), kBadUsage);
  EXPECT_TRUE(requests_.empty());
  in_.clear();
  in_.str("yes\n");
  EXPECT_EQ(Run({"users", "revoke", "okta:00u1"}), kDone);
  EXPECT_EQ(requests_.size(), 1U);
  EXPECT_THAT(err_.str(), HasSubstr("okta:00u1"));
}

TEST_F(EndingsTest, ConnectionsOfAnAppOfAUserOfAnAccount) {
  Reply(kRevokeConnections, R"({"ended":[{"subject":"a:b","appSlug":"hub","revocation":"revoked"}]})");

  EXPECT_EQ(Run({"connections", "revoke", "--app", "hub", "--yes"}), kDone);
  EXPECT_EQ(Run({"connections", "revoke", "--app", "hub", "--user", "a:b", "--yes"}), kDone);
  EXPECT_EQ(Run({"connections", "revoke", "--app", "hub", "--user", "a:b", "--account", "work", "--yes"}), kDone);
  EXPECT_EQ(Run({"connections", "revoke", "--app", "hub", "--user", "a:b", "--default-account", "--yes"}), kDone);

  ASSERT_EQ(requests_.size(), 4U);
  EXPECT_EQ(requests_[0].body, R"({"app":"hub"})");
  EXPECT_EQ(requests_[1].body, R"({"app":"hub","subject":"a:b"})");
  EXPECT_EQ(requests_[2].body, R"({"app":"hub","subject":"a:b","label":"work"})");
  EXPECT_EQ(requests_[3].body, R"({"app":"hub","subject":"a:b","defaultLabel":true})");
}

TEST_F(EndingsTest, AUserOfWhomNothingIsKnownIsSaidToBeNobody) {
  Replies(kRevokeUser, {R"({"keysDestroyed":true})", R"({"grantsRevoked":1,"keysDestroyed":true})"});

  EXPECT_EQ(Run({"users", "revoke", "okta:mistyped", "--yes"}), kDone);
  EXPECT_THAT(err_.str(), HasSubstr("nothing of okta:mistyped was found"));
  err_.str("");
  EXPECT_EQ(Run({"users", "revoke", "okta:00u1", "--yes"}), kDone);
  EXPECT_THAT(err_.str(), Not(HasSubstr("was found")));
}

TEST_F(EndingsTest, TokensOfAServer) {
  Reply(kRevokeServer, R"({"grantsRevoked":4,"consentsForgotten":3})");

  EXPECT_EQ(Run({"servers", "revoke", "echo", "--user", "a:b"}), kDone);

  EXPECT_EQ(requests_[0].body, R"({"server":"echo","subject":"a:b"})");
  EXPECT_EQ(out_.str(), "grants revoked      4\nconsents forgotten  3\n");
}

TEST_F(EndingsTest, AsksBeforeItEndsEverybodysTokens) {
  Reply(kRevokeServer, R"({"grantsRevoked":4})");
  Reply(kRemoveClient, R"({"registered":true})");
  const std::vector<std::vector<std::string>> commands = {{"servers", "revoke", "echo"},
                                                          {"clients", "remove", "clt_1", "--all"}};
  for (const std::vector<std::string>& command : commands) {
    in_.clear();
    in_.str("y\n");
    EXPECT_EQ(Run(command), kBadUsage);
    EXPECT_TRUE(requests_.empty());
  }
  EXPECT_THAT(err_.str(), HasSubstr("every user's tokens for echo"));
  EXPECT_THAT(err_.str(), HasSubstr("every user's tokens of clt_1"));
  for (const std::vector<std::string>& command : commands) {
    in_.clear();
    in_.str("yes\n");
    EXPECT_EQ(Run(command), kDone);
  }
  EXPECT_EQ(requests_.size(), 2U);
}

TEST_F(EndingsTest, GoesOnWhileGrantsRemain) {
  Replies(kRevokeServer, {kGrantsRemain, kGrantsRemain, R"({"grantsRevoked":4})"});
  Replies(kRemoveClient, {kGrantsRemain, R"({"grantsRevoked":9})"});
  Replies(kRemoveOwnClient, {kGrantsRemain, R"({"error":"not_found","message":"no client clt_1"})"});

  EXPECT_EQ(Run({"servers", "revoke", "echo", "--yes"}), kDone);
  EXPECT_EQ(requests_.size(), 3U);
  EXPECT_EQ(out_.str(), "grants revoked      all\nconsents forgotten  all\n");
  EXPECT_THAT(err_.str(), HasSubstr("500 grants have ended, others remain, going on\n"));
  out_.str("");

  EXPECT_EQ(Run({"clients", "remove", "clt_1", "--all", "--yes"}), kDone);
  EXPECT_EQ(requests_.size(), 5U);
  EXPECT_EQ(out_.str(), "ended for everybody: clt_1; grants revoked: all\n");
  out_.str("");

  EXPECT_EQ(Run({"clients", "remove", "clt_1"}), kDone) << "the last ones ended by themselves";
  EXPECT_EQ(out_.str(), "removed clt_1: it must ask you again; grants revoked: all\n");
}

TEST_F(EndingsTest, AClientNobodyKnowsIsAnError) {
  Reply(kRemoveOwnClient, R"({"error":"not_found","message":"no client clt_1"})", 404);

  EXPECT_EQ(Run({"clients", "remove", "clt_1"}), kFailed);

  EXPECT_THAT(err_.str(), HasSubstr("no client clt_1"));
}

TEST_F(EndingsTest, ListsTheClientsOneHasLetIn) {
  Reply("/api/sallyport.authn.v1.Clients/ListOwnClients",
        R"({"clients":[{"clientId":"clt_1","clientName":"Cursor\u001b[2J","servers":[
            {"serverSlug":"echo","consentRemembered":true,"agreedAt":"2026-01-02T03:04:05Z",
             "tokenExpiresAt":"2026-01-09T03:04:05Z"},
            {"serverDisplayName":"HTTP API of this gateway","agreedAt":"2026-01-02T03:04:05Z"}]}]})");

  EXPECT_EQ(Run({"clients", "list"}), kDone);

  EXPECT_THAT(out_.str(), HasSubstr("clt_1   calls itself \"Cursor"));
  EXPECT_THAT(out_.str(), HasSubstr("echo        2026-01-02T03:04:05Z  yes         2026-01-09T03:04:05Z"));
  EXPECT_THAT(out_.str(), HasSubstr("(HTTP API)  2026-01-02T03:04:05Z  no          none"));
  EXPECT_THAT(out_.str(), Not(HasSubstr("\x1b")));
}

TEST_F(EndingsTest, ListsEveryClientPageByPage) {
  Replies("/api/sallyport.authn.v1.Clients/ListClients",
          {R"({"clients":[{"clientId":"sallyport-cli","clientName":"sallyport command line","configured":true}],
              "nextPageToken":"t1"})",
           R"({"clients":[{"clientId":"clt_1","clientName":"Cursor","registeredAt":"2026-01-02T03:04:05Z","users":"2",
              "redirectUris":["https://c.example/cb"]}]})"});

  EXPECT_EQ(Run({"clients", "list", "--all"}), kDone);

  ASSERT_EQ(requests_.size(), 2U);
  EXPECT_THAT(requests_[1].body, HasSubstr(R"("pageToken":"t1")"));
  EXPECT_THAT(out_.str(), HasSubstr("sallyport command line"));
  EXPECT_THAT(out_.str(), HasSubstr("by configuration"));
  EXPECT_THAT(out_.str(), HasSubstr("calls itself \"Cursor\""));
  EXPECT_THAT(out_.str(), HasSubstr("https://c.example/cb"));
}

TEST_F(EndingsTest, RemovesAClientForOneselfOrForEverybody) {
  Reply(kRemoveOwnClient, R"({"grantsRevoked":2})");
  Reply(kRemoveClient, R"({"registered":true,"grantsRevoked":9})");

  EXPECT_EQ(Run({"clients", "remove", "clt_1"}), kDone);
  EXPECT_EQ(Run({"clients", "remove", "clt_1", "--server", "echo"}), kDone);
  EXPECT_EQ(Run({"clients", "remove", "clt_1", "--all", "--yes"}), kDone);

  ASSERT_EQ(requests_.size(), 3U);
  EXPECT_EQ(requests_[0].body, R"({"clientId":"clt_1"})");
  EXPECT_EQ(requests_[1].body, R"({"clientId":"clt_1","serverSlug":"echo"})");
  EXPECT_THAT(requests_[2].target, HasSubstr("Clients/RemoveClient"));
  EXPECT_THAT(out_.str(), HasSubstr("removed clt_1 for echo: it must ask you again; grants revoked: 2"));
  EXPECT_THAT(out_.str(), HasSubstr("removed clt_1; grants revoked: 9"));
}

}  // namespace
}  // namespace sallyport::cli

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/clients_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/authn/web/web_testing.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;
using web::TestBrowser;
using web::World;

constexpr char kCallback[] = "https://c.example/cb";

web::Client Chatbot() {
  web::Client client;
  client.id = "chatbot";
  client.configured = true;
  client.metadata.client_name = "Company chatbot";
  client.metadata.redirect_uris = {"https://chat.example/cb"};
  client.metadata.grant_types = {"authorization_code", "refresh_token"};
  client.metadata.token_endpoint_auth_method = "client_secret_post";
  client.secret_hash = web::ClientSecretHash("s3cret");
  return client;
}

class ClientsServiceTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    World::Options options;
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_OK_AND_ASSIGN(options.postgresql, testing::TestPostgres::CreateDatabase());
    }
    options.clients = {Chatbot()};
    world_ = std::make_unique<World>(options);
    directory_ = std::make_unique<ClientDirectory>(*world_->database, options.clients, absl::Hours(1));
    rpcs_ = std::make_unique<ClientsRpcs>(
        ClientsRpcs::Parts{world_->servers, world_->grants, world_->revocations, *directory_, world_->audit});
  }

  static Caller By(const std::string& user) {
    Caller caller{"edge", Passport()};
    caller.passport->subject = "local:" + user;
    caller.passport->purpose = Passport::Purpose::kApi;
    return caller;
  }
  TimeBudget Budget() const { return TimeBudget(world_->clock, TimeBudget::kMost); }
  TestBrowser SignIn(const std::string& user) {
    TestBrowser browser(*world_);
    browser.SignIn(user);
    return browser;
  }
  // Lets a client in and gives its tokens.
  nlohmann::json LetIn(TestBrowser& browser, const std::string& client, const std::string& server,
                       const std::string& redirect_uri = kCallback, const std::string& secret = "") {
    const std::string code = web::ObtainCode(
        browser, web::AuthorizeFields(client, redirect_uri, absl::StrCat("https://gw.example.com/mcp/", server)));
    FormFields fields = {{"grant_type", "authorization_code"},
                         {"code", code},
                         {"code_verifier", web::kVerifier},
                         {"redirect_uri", redirect_uri},
                         {"client_id", client}};
    if (!secret.empty()) fields.emplace_back("client_secret", secret);
    return web::JsonOf(web::RequestToken(browser, fields));
  }
  bool Refreshes(TestBrowser& browser, const nlohmann::json& tokens, const std::string& client) {
    const auto answer = web::RequestToken(
        browser,
        {{"grant_type", "refresh_token"}, {"refresh_token", tokens.value("refresh_token", "")}, {"client_id", client}});
    return answer.status() == 200;
  }
  // Does the browser go straight on, without the consent page?
  bool IsRemembered(TestBrowser& browser, const std::string& client, const std::string& server) {
    const std::string target = web::Location(browser.Get(
        "/oauth/authorize?" +
        FormEncode(web::AuthorizeFields(client, kCallback, absl::StrCat("https://gw.example.com/mcp/", server)))));
    EXPECT_NE(target, "");
    return !absl::StartsWith(target, "/oauth/consent");
  }
  v1::ListOwnClientsResponse Own(const std::string& user) {
    auto response = rpcs_->ListOwnClients(By(user), world_->clock.Now());
    EXPECT_THAT(response, IsOk());
    return *response;
  }
  absl::StatusOr<v1::RemoveOwnClientResponse> RemoveOwn(const std::string& user, const std::string& client,
                                                        const std::string& server = "") {
    v1::RemoveOwnClientRequest request;
    request.set_client_id(client);
    request.set_server_slug(server);
    return rpcs_->RemoveOwnClient(By(user), request, Budget(), world_->clock.Now());
  }
  absl::StatusOr<v1::RemoveClientResponse> Remove(const std::string& client) {
    v1::RemoveClientRequest request;
    request.set_client_id(client);
    return rpcs_->RemoveClient(By("root"), request, Budget(), world_->clock.Now());
  }
  absl::StatusOr<v1::ListClientsResponse> List(int size = 0, const std::string& token = "") {
    v1::ListClientsRequest request;
    request.set_page_size(size);
    request.set_page_token(token);
    return rpcs_->ListClients(request, world_->clock.Now());
  }

  std::unique_ptr<World> world_;
  std::unique_ptr<ClientDirectory> directory_;
  std::unique_ptr<ClientsRpcs> rpcs_;
};
INSTANTIATE_ENGINES(ClientsServiceTest);

TEST_P(ClientsServiceTest, ListsWhatItsUserLetInAndNothingOfOthers) {
  TestBrowser ann = SignIn("ann");
  TestBrowser bob = SignIn("bob");
  const std::string client = web::RegisterClient(ann, kCallback);
  LetIn(ann, client, "github");
  world_->clock.Advance(absl::Minutes(1));
  LetIn(ann, client, "notes");
  const v1::ListOwnClientsResponse own = Own("ann");
  ASSERT_EQ(own.clients_size(), 1);
  EXPECT_EQ(own.clients(0).client_id(), client);
  EXPECT_EQ(own.clients(0).client_name(), "Cursor");
  ASSERT_EQ(own.clients(0).servers_size(), 2);
  const auto& github = own.clients(0).servers(0);
  EXPECT_EQ(github.server_slug(), "github");
  EXPECT_EQ(github.server_display_name(), "GitHub");
  EXPECT_TRUE(github.consent_remembered());
  EXPECT_EQ(FromTimestamp(github.agreed_at()), world_->clock.Now() - absl::Minutes(1));
  EXPECT_EQ(FromTimestamp(github.token_expires_at()), world_->clock.Now() - absl::Minutes(1) + kRefreshIdle);
  EXPECT_THAT(Own("bob").clients(), IsEmpty());
}

TEST_P(ClientsServiceTest, AConsentWithoutATokenIsStillShown) {
  TestBrowser ann = SignIn("ann");
  const std::string client = web::RegisterClient(ann, kCallback);
  LetIn(ann, client, "github");
  world_->clock.Advance(kRefreshIdle);
  const v1::ListOwnClientsResponse own = Own("ann");
  ASSERT_EQ(own.clients_size(), 1);
  EXPECT_TRUE(own.clients(0).servers(0).consent_remembered());
  EXPECT_FALSE(own.clients(0).servers(0).has_token_expires_at());
}

TEST_P(ClientsServiceTest, ATokenOfAClientThatDoesNotRefreshEndsByItself) {
  TestBrowser ann = SignIn("ann");
  const std::string client = web::RegisterClient(ann, kCallback, {{"grant_types", {"authorization_code"}}});
  LetIn(ann, client, "github");
  EXPECT_EQ(FromTimestamp(Own("ann").clients(0).servers(0).token_expires_at()), world_->clock.Now() + absl::Hours(1));
  world_->clock.Advance(absl::Hours(1));
  EXPECT_FALSE(Own("ann").clients(0).servers(0).has_token_expires_at());
}

// The promise of the consent page: "or until you remove it".
TEST_P(ClientsServiceTest, ARemovedClientLosesItsTokensAndMustAskAgain) {
  TestBrowser ann = SignIn("ann");
  TestBrowser bob = SignIn("bob");
  const std::string client = web::RegisterClient(ann, kCallback);
  const auto of_ann = LetIn(ann, client, "github");
  const auto of_bob = LetIn(bob, client, "github");
  EXPECT_TRUE(IsRemembered(ann, client, "github"));
  ASSERT_OK_AND_ASSIGN(const v1::RemoveOwnClientResponse removed, RemoveOwn("ann", client));
  EXPECT_EQ(removed.grants_revoked(), 1);
  EXPECT_FALSE(Refreshes(ann, of_ann, client));
  EXPECT_FALSE(IsRemembered(ann, client, "github"));
  EXPECT_THAT(Own("ann").clients(), IsEmpty());
  EXPECT_TRUE(Refreshes(bob, of_bob, client)) << "another user's";
  EXPECT_TRUE(IsRemembered(bob, client, "github"));
  EXPECT_THAT(RemoveOwn("ann", client), StatusIs(absl::StatusCode::kNotFound)) << "there is nothing any more";
  ASSERT_THAT(world_->Events("client.removed"), SizeIs(1));
  const audit::v1::Event event = world_->Events("client.removed")[0];
  EXPECT_EQ(event.subject(), "local:ann");
  EXPECT_EQ(event.client_id(), client);
  EXPECT_EQ(event.rule(), "user");
}

TEST_P(ClientsServiceTest, ForOneServerTheOthersStay) {
  TestBrowser ann = SignIn("ann");
  const std::string client = web::RegisterClient(ann, kCallback);
  const auto github = LetIn(ann, client, "github");
  const auto notes = LetIn(ann, client, "notes");
  ASSERT_THAT(RemoveOwn("ann", client, "github"), IsOk());
  EXPECT_FALSE(Refreshes(ann, github, client));
  EXPECT_TRUE(Refreshes(ann, notes, client));
  EXPECT_FALSE(IsRemembered(ann, client, "github"));
  EXPECT_TRUE(IsRemembered(ann, client, "notes"));
  EXPECT_THAT(RemoveOwn("ann", client, "github"), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(RemoveOwn("ann", client, "staff"), StatusIs(absl::StatusCode::kNotFound));
}

TEST_P(ClientsServiceTest, NobodyRemovesWhatAnotherLetIn) {
  TestBrowser ann = SignIn("ann");
  const std::string client = web::RegisterClient(ann, kCallback);
  const auto tokens = LetIn(ann, client, "github");
  EXPECT_THAT(RemoveOwn("bob", client), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(RemoveOwn("bob", client, "github"), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(RemoveOwn("bob", ""), StatusIs(absl::StatusCode::kInvalidArgument, "clientId"));
  EXPECT_THAT(rpcs_->RemoveOwnClient(Caller{"edge", std::nullopt}, {}, Budget(), world_->clock.Now()),
              StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_TRUE(Refreshes(ann, tokens, client));
  EXPECT_THAT(world_->Events("client.removed"), IsEmpty());
}

TEST_P(ClientsServiceTest, WhatAServerThatIsGoneLeftIsNamedByItsUid) {
  TestBrowser ann = SignIn("ann");
  const std::string client = web::RegisterClient(ann, kCallback);
  LetIn(ann, client, "github");
  ASSERT_THAT(world_->database->Write(
                  [](Transaction& tx) { return tx.Exec("UPDATE consents SET server_uid = 'srv_gone'").status(); }),
              IsOk());
  ASSERT_EQ(Own("ann").clients(0).servers_size(), 2);
  EXPECT_EQ(Own("ann").clients(0).servers(1).server_slug(), "srv_gone");
  EXPECT_THAT(RemoveOwn("ann", client, "srv_gone"), IsOk());
  EXPECT_EQ(Own("ann").clients(0).servers_size(), 1);
}

TEST_P(ClientsServiceTest, AnAdministratorRemovesTheRegistrationAndEveryTokenOfIt) {
  TestBrowser ann = SignIn("ann");
  TestBrowser bob = SignIn("bob");
  const std::string client = web::RegisterClient(ann, kCallback);
  const std::string other = web::RegisterClient(ann, kCallback, {{"client_name", "Other"}});
  const auto of_ann = LetIn(ann, client, "github");
  const auto of_bob = LetIn(bob, client, "notes");
  const auto of_other = LetIn(ann, other, "github");
  ASSERT_OK_AND_ASSIGN(const v1::RemoveClientResponse removed, Remove(client));
  EXPECT_TRUE(removed.registered());
  EXPECT_EQ(removed.grants_revoked(), 2);
  EXPECT_FALSE(Refreshes(ann, of_ann, client));
  EXPECT_FALSE(Refreshes(bob, of_bob, client));
  EXPECT_TRUE(Refreshes(ann, of_other, other));
  EXPECT_THAT(web::Location(ann.Get("/oauth/authorize?" + FormEncode(web::AuthorizeFields(client, kCallback)))),
              Not(StartsWith(kCallback)));
  EXPECT_THAT(Remove(client), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(Remove("clt_never"), StatusIs(absl::StatusCode::kNotFound, "clt_never"));
  EXPECT_THAT(Remove(""), StatusIs(absl::StatusCode::kInvalidArgument, "clientId"));
  ASSERT_THAT(world_->Events("client.removed"), SizeIs(1));
  EXPECT_EQ(world_->Events("client.removed")[0].rule(), "admin");
  EXPECT_EQ(world_->Events("client.removed")[0].subject(), "local:root");
  // The same program may register again, and is another client.
  EXPECT_NE(web::RegisterClient(ann, kCallback), client);
}

TEST_P(ClientsServiceTest, OneOfTheConfigurationKeepsItsRegistrationAndLosesItsTokens) {
  TestBrowser ann = SignIn("ann");
  const auto tokens = LetIn(ann, "chatbot", "github", "https://chat.example/cb", "s3cret");
  ASSERT_NE(tokens.value("access_token", ""), "");
  ASSERT_OK_AND_ASSIGN(const v1::RemoveClientResponse removed, Remove("chatbot"));
  EXPECT_FALSE(removed.registered());
  EXPECT_EQ(removed.grants_revoked(), 1);
  ASSERT_OK_AND_ASSIGN(const v1::ListClientsResponse list, List());
  EXPECT_EQ(list.clients(1).client_id(), "chatbot");
  EXPECT_THAT(Remove("chatbot"), IsOk()) << "there is such a client";
}

TEST_P(ClientsServiceTest, ListsEveryClientWithItsUsersAndItsUse) {
  TestBrowser ann = SignIn("ann");
  TestBrowser bob = SignIn("bob");
  const std::string old = web::RegisterClient(ann, kCallback);
  world_->clock.Advance(absl::Minutes(1));
  const absl::Time used = world_->clock.Now();
  LetIn(ann, old, "github");
  LetIn(ann, old, "notes");
  LetIn(bob, old, "github");
  LetIn(bob, "chatbot", "github", "https://chat.example/cb", "s3cret");
  world_->clock.Advance(absl::Minutes(1));
  const std::string fresh = web::RegisterClient(ann, kCallback, {{"client_name", "Fresh\n\x1b[2J"}});
  ASSERT_OK_AND_ASSIGN(const v1::ListClientsResponse list, List());
  ASSERT_EQ(list.clients_size(), 4);
  EXPECT_EQ(list.clients(0).client_id(), kCliClientId);
  EXPECT_TRUE(list.clients(0).configured());
  EXPECT_FALSE(list.clients(0).has_last_used_at());
  EXPECT_EQ(list.clients(1).client_id(), "chatbot");
  EXPECT_TRUE(list.clients(1).configured());
  EXPECT_FALSE(list.clients(1).has_registered_at());
  EXPECT_EQ(list.clients(1).users(), 1);
  EXPECT_EQ(FromTimestamp(list.clients(1).last_used_at()), used);
  EXPECT_EQ(list.clients(2).client_id(), fresh) << "the newest first";
  EXPECT_EQ(list.clients(2).users(), 0);
  EXPECT_FALSE(list.clients(2).has_last_used_at()) << "registering is no use";
  EXPECT_EQ(list.clients(2).client_name().find('\x1b'), std::string::npos);
  EXPECT_EQ(list.clients(3).client_id(), old);
  EXPECT_EQ(list.clients(3).users(), 2) << "people, not grants";
  EXPECT_EQ(FromTimestamp(list.clients(3).last_used_at()), used);
  EXPECT_THAT(list.clients(3).redirect_uris(), ElementsAre(kCallback));
  EXPECT_EQ(list.next_page_token(), "");
}

TEST_P(ClientsServiceTest, PagesHoldEachClientOnceWhateverTheirSize) {
  TestBrowser ann = SignIn("ann");
  std::vector<std::string> all = {kCliClientId, "chatbot"};
  std::vector<std::string> registered;
  for (int i = 0; i < 7; ++i) {
    // Some at the same moment.
    if (i % 3 == 0) world_->clock.Advance(absl::Seconds(1));
    registered.push_back(web::RegisterClient(ann, kCallback, {{"client_name", absl::StrCat("Client ", i)}}));
  }
  all.insert(all.end(), registered.begin(), registered.end());
  for (int size = 1; size <= 10; ++size) {
    std::vector<std::string> seen;
    std::string token;
    do {
      ASSERT_OK_AND_ASSIGN(const v1::ListClientsResponse page, List(size, token));
      ASSERT_LE(page.clients_size(), size);
      for (const v1::Client& client : page.clients()) seen.push_back(client.client_id());
      token = page.next_page_token();
    } while (!token.empty() && seen.size() < 20);
    EXPECT_THAT(seen, ::testing::UnorderedElementsAreArray(all)) << size;
  }
  EXPECT_THAT(List(-1), StatusIs(absl::StatusCode::kInvalidArgument, "pageSize"));
  EXPECT_THAT(List(1001), StatusIs(absl::StatusCode::kInvalidArgument, "pageSize"));
  for (const char* token : {"x", "!", "MSAy"}) {
    EXPECT_THAT(List(5, token), StatusIs(absl::StatusCode::kInvalidArgument, "pageToken")) << token;
  }
}

}  // namespace
}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/revocation_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/status_macros.h"
#include "services/authn/authenticator.h"
#include "services/authn/web/web_testing.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using token_broker::v1::EndConnectionsRequest;
using token_broker::v1::EndConnectionsResponse;
using web::World;

constexpr char kAdmin[] = "local:root";

class RevocationServiceTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    World::Options options;
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_OK_AND_ASSIGN(options.postgresql, testing::TestPostgres::CreateDatabase());
    }
    registry::v1::App app;
    app.set_uid("app_hub");
    app.set_slug("hub");
    options.apps = {app};
    world_ = std::make_unique<World>(options);
    clients_ = std::make_unique<ClientDirectory>(*world_->database, std::vector<web::Client>(), absl::Hours(1));
    rpcs_ = std::make_unique<RevocationRpcs>(RevocationRpcs::Parts{world_->servers, world_->passports, world_->sessions,
                                                                   world_->grants, world_->revocations, *clients_,
                                                                   broker_, world_->audit});
  }

  static Caller By(const std::string& subject) {
    Caller caller{"edge", Passport()};
    caller.passport->subject = subject;
    caller.passport->purpose = Passport::Purpose::kApi;
    caller.passport->roles = {"admin"};
    return caller;
  }
  TimeBudget Budget() const { return TimeBudget(world_->clock, TimeBudget::kMost); }
  absl::StatusOr<v1::RevokeUserResponse> RevokeUser(const std::string& subject, const std::string& by = kAdmin) {
    return rpcs_->RevokeUser(By(by), subject, Budget(), world_->clock.Now());
  }
  absl::StatusOr<v1::RevokeConnectionsResponse> RevokeConnections(const v1::RevokeConnectionsRequest& request) {
    return rpcs_->RevokeConnections(By(kAdmin), request, Budget(), world_->clock.Now());
  }
  absl::StatusOr<v1::RevokeServerResponse> RevokeServer(const std::string& server, const std::string& subject = "") {
    v1::RevokeServerRequest request;
    request.set_server(server);
    request.set_subject(subject);
    return rpcs_->RevokeServer(By(kAdmin), request, Budget(), world_->clock.Now());
  }
  // What a passport that was given to the broker says.
  Passport Read(const std::string& jwt) {
    PassportVerifier verifier(web::kPublicUrl, OwnKeySource(world_->keys));
    auto passport = verifier.Verify(jwt, world_->clock.Now());
    EXPECT_THAT(passport, IsOk());
    return *passport;
  }
  // The pages a broker gives one after the other; after the last an empty one.
  void Pages(std::vector<absl::StatusOr<EndConnectionsResponse>> pages) {
    auto next = std::make_shared<size_t>(0);
    broker_.Answers([next, pages = std::move(pages)](const EndConnectionsRequest&) {
      return *next < pages.size() ? pages[(*next)++] : EndConnectionsResponse();
    });
  }
  static EndConnectionsResponse PageOf(const std::string& app, const std::string& revocation, bool more) {
    EndConnectionsResponse page;
    auto& ended = *page.add_ended();
    ended.set_subject("local:ann");
    ended.set_app_slug(app);
    ended.set_revocation(revocation);
    page.set_more(more);
    return page;
  }
  // Signs `user` in and lets a client in at each server; the tokens' grants.
  std::vector<std::string> Connect(const std::string& user, const std::vector<std::string>& servers) {
    web::TestBrowser browser(*world_);
    browser.SignIn(user);
    const std::string client = web::RegisterClient(browser, kCallback);
    std::vector<std::string> grants;
    for (const std::string& server : servers) {
      const std::string code = web::ObtainCode(
          browser, web::AuthorizeFields(client, kCallback, absl::StrCat("https://gw.example.com/mcp/", server)));
      const auto tokens = web::JsonOf(web::RequestToken(browser, {{"grant_type", "authorization_code"},
                                                                  {"code", code},
                                                                  {"code_verifier", web::kVerifier},
                                                                  {"redirect_uri", kCallback},
                                                                  {"client_id", client}}));
      const auto token =
          world_->tokens.VerifyMcp(tokens.value("access_token", ""), server, "srv_" + server, world_->clock.Now());
      EXPECT_THAT(token, IsOk());
      grants.push_back(token.ok() ? token->grant_id : "");
    }
    return grants;
  }
  bool IsLive(const std::string& grant) {
    const auto found = world_->grants.Find(grant);
    return found.ok() && !found->revoked;
  }
  bool HasConsents(const std::string& subject) {
    const auto has = clients_->HasConsents({.subject = subject});
    EXPECT_THAT(has, IsOk());
    return *has;
  }

  static constexpr char kCallback[] = "https://c.example/cb";
  std::unique_ptr<World> world_;
  FakeConnectionEndings broker_;
  std::unique_ptr<ClientDirectory> clients_;
  std::unique_ptr<RevocationRpcs> rpcs_;
};
INSTANTIATE_ENGINES(RevocationServiceTest);

TEST_P(RevocationServiceTest, EndsSessionsAndGrantsAndHasTheBrokerEndTheRest) {
  const std::vector<std::string> ann = Connect("ann", {"github", "notes"});
  const std::vector<std::string> bob = Connect("bob", {"github"});
  EndConnectionsResponse last = PageOf("wiki", "unsupported", false);
  last.set_credentials_erased(2);
  last.set_keys_destroyed(true);
  Pages({PageOf("hub", "pending", true), last});
  ASSERT_OK_AND_ASSIGN(const v1::RevokeUserResponse response, RevokeUser("local:ann"));
  EXPECT_EQ(response.sessions_revoked(), 1);
  EXPECT_EQ(response.grants_revoked(), 2);
  ASSERT_EQ(response.connections_size(), 2);
  EXPECT_EQ(response.connections(0).revocation(), "pending");
  EXPECT_EQ(response.connections(1).app_slug(), "wiki");
  EXPECT_EQ(response.credentials_erased(), 2);
  EXPECT_TRUE(response.keys_destroyed());
  EXPECT_FALSE(response.more());
  for (const std::string& grant : ann) EXPECT_FALSE(IsLive(grant));
  EXPECT_TRUE(IsLive(bob[0]));
  EXPECT_FALSE(HasConsents("local:ann")) << "who signs in again is asked";
  EXPECT_TRUE(HasConsents("local:bob"));
  ASSERT_THAT(world_->Events("user.revoked"), SizeIs(1));
  EXPECT_EQ(world_->Events("user.revoked")[0].subject(), kAdmin);
  EXPECT_EQ(world_->Events("user.revoked")[0].details().at("user"), "local:ann");
}

TEST_P(RevocationServiceTest, ThePassportNamesTheUserAndNothingElse) {
  ASSERT_THAT(RevokeUser("local:ann"), IsOk());
  ASSERT_THAT(broker_.asked(), SizeIs(1));
  const auto asked = broker_.asked()[0];
  EXPECT_EQ(asked.request.subject(), "local:ann");
  EXPECT_TRUE(asked.request.whole_user());
  EXPECT_EQ(asked.request.app_uid(), "");
  const Passport passport = Read(asked.passport);
  EXPECT_EQ(passport.purpose, Passport::Purpose::kEnd);
  EXPECT_EQ(passport.subject, kAdmin);
  EXPECT_EQ(passport.end, (Passport::End{.subject = "local:ann", .app_uid = "", .label = "*"}));
  EXPECT_TRUE(passport.roles.empty()) << "it is good for nothing but ending";
}

TEST_P(RevocationServiceTest, SessionsEndThoughTheBrokerIsAwayAndCallingAgainGoesOn) {
  const std::vector<std::string> grants = Connect("ann", {"github"});
  broker_.Answers([](const auto&) { return absl::UnavailableError("connection refused"); });
  const auto away = RevokeUser("local:ann");
  EXPECT_THAT(away, StatusIs(absl::StatusCode::kUnavailable, "1 sessions, 1 grants"));
  EXPECT_THAT(away, StatusIs(absl::StatusCode::kUnavailable, "call again"));
  EXPECT_EQ(ReasonOf(away.status()), "connections_remain");
  EXPECT_FALSE(IsLive(grants[0]));
  Pages({PageOf("hub", "revoked", false)});
  ASSERT_OK_AND_ASSIGN(const v1::RevokeUserResponse again, RevokeUser("local:ann"));
  EXPECT_EQ(again.sessions_revoked(), 0);
  EXPECT_EQ(again.grants_revoked(), 0);
  EXPECT_EQ(again.connections_size(), 1);
  EXPECT_FALSE(again.more());
}

TEST_P(RevocationServiceTest, WhateverTheBrokersFaultIsItIsNotTakenForDone) {
  for (const absl::Status& fault :
       {absl::UnimplementedError("an older broker"), absl::PermissionDeniedError("passport"),
        absl::InternalError("secret detail"), absl::DeadlineExceededError("slow"), absl::InvalidArgumentError("x")}) {
    broker_.Answers([&fault](const auto&) { return fault; });
    const auto answer = RevokeUser("local:ann");
    EXPECT_EQ(ReasonOf(answer.status()), "connections_remain") << fault;
    EXPECT_THAT(std::string(answer.status().message()), Not(HasSubstr("secret detail")));
  }
}

TEST_P(RevocationServiceTest, APageThatFailsLaterLosesNothingOfTheFormerOnes) {
  Pages({PageOf("hub", "revoked", true), absl::UnavailableError("restarting")});
  ASSERT_OK_AND_ASSIGN(const v1::RevokeUserResponse response, RevokeUser("local:ann"));
  EXPECT_EQ(response.connections_size(), 1);
  EXPECT_TRUE(response.more());
  EXPECT_FALSE(response.keys_destroyed());
}

// A broker that never comes to an end must not hold the call.
TEST_P(RevocationServiceTest, PagesEndWithTheTimeAndTheRestIsLeft) {
  broker_.Answers([this](const auto&) {
    world_->clock.Advance(absl::Seconds(5));
    return PageOf("hub", "revoked", true);
  });
  ASSERT_OK_AND_ASSIGN(const v1::RevokeUserResponse response, RevokeUser("local:ann"));
  EXPECT_TRUE(response.more());
  EXPECT_EQ(response.connections_size(), 3) << "begun at 0, 5 and 10 of 12 s";
  for (const auto& asked : broker_.asked()) {
    EXPECT_LE(asked.timeout, absl::Seconds(10));
    EXPECT_GT(asked.timeout, absl::ZeroDuration());
  }
}

TEST_P(RevocationServiceTest, WithoutTimeNothingIsTakenForDone) {
  const std::vector<std::string> grants = Connect("ann", {"github"});
  const TimeBudget over(world_->clock, -absl::Seconds(1));
  ASSERT_OK_AND_ASSIGN(const auto response, rpcs_->RevokeUser(By(kAdmin), "local:ann", over, world_->clock.Now()));
  EXPECT_TRUE(response.more());
  EXPECT_THAT(broker_.asked(), IsEmpty()) << "sessions first";
  EXPECT_TRUE(IsLive(grants[0]));
  v1::RevokeServerRequest request;
  request.set_server("github");
  EXPECT_EQ(ReasonOf(rpcs_->RevokeServer(By(kAdmin), request, over, world_->clock.Now()).status()), "grants_remain");
}

TEST_P(RevocationServiceTest, SomebodyNobodyEverSawIsRevokedAllTheSame) {
  ASSERT_OK_AND_ASSIGN(const v1::RevokeUserResponse response, RevokeUser("corp:never-seen"));
  EXPECT_EQ(response.sessions_revoked(), 0);
  EXPECT_EQ(response.grants_revoked(), 0);
  EXPECT_FALSE(response.more());
  EXPECT_THAT(broker_.asked(), SizeIs(1)) << "the broker may know them";
  EXPECT_THAT(RevokeUser(""), StatusIs(absl::StatusCode::kInvalidArgument, "subject"));
  EXPECT_THAT(broker_.asked(), SizeIs(1));
}

TEST_P(RevocationServiceTest, AnAdministratorMayRevokeThemselves) {
  const std::vector<std::string> grants = Connect("ann", {"github"});
  ASSERT_OK_AND_ASSIGN(const v1::RevokeUserResponse response, RevokeUser("local:ann", "local:ann"));
  EXPECT_EQ(response.grants_revoked(), 1);
  EXPECT_FALSE(IsLive(grants[0]));
  const Passport passport = Read(broker_.asked()[0].passport);
  EXPECT_EQ(passport.subject, "local:ann");
  EXPECT_EQ(passport.end.subject, "local:ann");
}

struct AccountCase {
  const char* name;
  const char* subject;
  const char* label;
  bool default_label;
  EndConnectionsRequest asked;
  const char* end_label;
};

EndConnectionsRequest Asked(const std::string& subject, const std::string& label, bool every_label) {
  EndConnectionsRequest request;
  request.set_subject(subject);
  request.set_app_uid("app_hub");
  request.set_label(label);
  request.set_every_label(every_label);
  return request;
}

TEST_P(RevocationServiceTest, ConnectionsOfAnAppAreNamedByItsUidAndTheAccount) {
  for (const AccountCase& each :
       {AccountCase{"everybody's", "", "", false, Asked("", "", false), "*"},
        AccountCase{"everybody's, said so", "", "*", false, Asked("", "", false), "*"},
        AccountCase{"all of one user", "local:ann", "", false, Asked("local:ann", "", true), "*"},
        AccountCase{"all of one user, said so", "local:ann", "*", false, Asked("local:ann", "", true), "*"},
        AccountCase{"the default one", "local:ann", "", true, Asked("local:ann", "", false), ""},
        AccountCase{"one of several", "local:ann", "work", false, Asked("local:ann", "work", false), "work"}}) {
    SCOPED_TRACE(each.name);
    v1::RevokeConnectionsRequest request;
    request.set_app("hub");
    request.set_subject(each.subject);
    request.set_label(each.label);
    request.set_default_label(each.default_label);
    ASSERT_THAT(RevokeConnections(request), IsOk());
    const auto asked = broker_.asked().back();
    EXPECT_EQ(asked.request.SerializeAsString(), each.asked.SerializeAsString()) << asked.request.ShortDebugString();
    EXPECT_EQ(Read(asked.passport).end,
              (Passport::End{.subject = each.subject, .app_uid = "app_hub", .label = each.end_label}));
  }
  EXPECT_THAT(world_->Events("connections.revoked"), SizeIs(6));
  EXPECT_EQ(world_->Events("connections.revoked")[5].details().at("account"), "work");
  EXPECT_EQ(world_->Events("connections.revoked")[5].details().at("app"), "hub");
}

TEST_P(RevocationServiceTest, WhatIsNotSaidWellEndsNothing) {
  v1::RevokeConnectionsRequest request;
  EXPECT_THAT(RevokeConnections(request), StatusIs(absl::StatusCode::kInvalidArgument, "app"));
  request.set_app("nope");
  EXPECT_THAT(RevokeConnections(request), StatusIs(absl::StatusCode::kNotFound, "nope"));
  request.set_app("app_hub");
  EXPECT_THAT(RevokeConnections(request), StatusIs(absl::StatusCode::kNotFound)) << "a uid is no slug";
  request.set_app("hub");
  request.set_label("work");
  EXPECT_THAT(RevokeConnections(request), StatusIs(absl::StatusCode::kInvalidArgument, "label"))
      << "everybody's account of a label is nobody's wish";
  request.set_label("");
  request.set_default_label(true);
  EXPECT_THAT(RevokeConnections(request), StatusIs(absl::StatusCode::kInvalidArgument, "label"));
  request.set_subject("local:ann");
  request.set_label("work");
  EXPECT_THAT(RevokeConnections(request), StatusIs(absl::StatusCode::kInvalidArgument, "defaultLabel"));
  EXPECT_THAT(broker_.asked(), IsEmpty());
  EXPECT_THAT(world_->Events("connections.revoked"), IsEmpty());
}

TEST_P(RevocationServiceTest, ABrokerThatIsAwayIsSaidAndOneThatRefusesIsBelieved) {
  v1::RevokeConnectionsRequest request;
  request.set_app("hub");
  broker_.Answers([](const auto&) { return absl::UnavailableError("away"); });
  EXPECT_EQ(ReasonOf(RevokeConnections(request).status()), "connections_remain");
  broker_.Answers([](const auto&) { return InvalidField("label", "has a blank"); });
  EXPECT_THAT(RevokeConnections(request), StatusIs(absl::StatusCode::kInvalidArgument, "label"));
}

TEST_P(RevocationServiceTest, TokensAndConsentsOfOneServerEndAndThoseOfOthersStay) {
  const std::vector<std::string> ann = Connect("ann", {"github", "notes"});
  const std::vector<std::string> bob = Connect("bob", {"github"});
  ASSERT_OK_AND_ASSIGN(const v1::RevokeServerResponse one, RevokeServer("github", "local:ann"));
  EXPECT_EQ(one.grants_revoked(), 1);
  EXPECT_EQ(one.consents_forgotten(), 1);
  EXPECT_FALSE(IsLive(ann[0]));
  EXPECT_TRUE(IsLive(ann[1])) << "of another server";
  EXPECT_TRUE(IsLive(bob[0])) << "of another user";
  ASSERT_OK_AND_ASSIGN(const v1::RevokeServerResponse all, RevokeServer("github"));
  EXPECT_EQ(all.grants_revoked(), 1);
  EXPECT_FALSE(IsLive(bob[0]));
  EXPECT_TRUE(IsLive(ann[1]));
  EXPECT_THAT(broker_.asked(), IsEmpty()) << "connections are the app's";
  EXPECT_THAT(RevokeServer("nope"), StatusIs(absl::StatusCode::kNotFound, "nope"));
  EXPECT_THAT(RevokeServer(""), StatusIs(absl::StatusCode::kInvalidArgument, "server"));
  EXPECT_THAT(RevokeServer("off"), IsOk()) << "one that is disabled has tokens, too";
  EXPECT_THAT(world_->Events("server.revoked"), SizeIs(3));
}

}  // namespace
}  // namespace sallyport::authn

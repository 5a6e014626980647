// SPDX-License-Identifier: Apache-2.0
// Which account a user has linked: another one than before, one that the app does not take, several of one app.
#include <functional>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/http/url.h"
#include "sallyport/token_broker/v1/endings.grpc.pb.h"
#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::HttpProvider;
using ::testing::IsEmpty;
using ::testing::Not;
using Code = absl::StatusCode;
using registry::v1::App;

class LinkedAccountsTest : public testing::BrokerTestBase {
 protected:
  LinkedAccountsTest() : BrokerTestBase(clock_for_all_) {
    app_->mutable_account_identity()->set_userinfo_url(provider_.Url("/user"));
    // Codes are named after the account that gives them.
    provider_.SetHandler([this](const HttpProvider::Request& request) -> HttpProvider::Response {
      std::function<void()> meanwhile;
      if (request.form.count("code") > 0) {
        MutexLock lock(mu_);
        meanwhile = std::exchange(meanwhile_, nullptr);
      }
      if (meanwhile != nullptr) meanwhile();
      MutexLock lock(mu_);
      if (request.path == "/revoke") {
        if (revoke_status_ == 200) revoked_.insert(request.form.at("token"));
        return {revoke_status_, "{}"};
      }
      if (request.path == "/user") {
        if (user_status_ != 200) return {user_status_, "{}"};
        const std::string name = request.authorization.substr(request.authorization.find("at-") + 3);
        return {200, absl::StrCat(R"({"sub":"id-of-)", name, R"(","preferred_username":")", name, R"(","email":")",
                                  name, R"(@)", domain_, R"(","email_verified":true})")};
      }
      const std::string name = request.form.count("code") > 0 ? request.form.at("code") : "";
      return {200, absl::StrCat(R"({"access_token":"at-)", name, R"(","refresh_token":"rt-)", name,
                                R"(","expires_in":3600,"scope":"repo"})")};
    });
  }

  static std::string Between(const std::string& text, const std::string& before, const std::string& after) {
    const size_t begin = text.find(before);
    if (begin == std::string::npos) return "";
    return text.substr(begin + before.size(), text.find(after, begin + before.size()) - begin - before.size());
  }
  static std::string Csrf(const web::v1::WebResponse& page) {
    return Between(page.body(), "name=\"csrf\" value=\"", "\"");
  }
  static Passport Session(const std::string& session, const std::string& subject = "corp:ada") {
    Passport passport;
    passport.subject = subject;
    passport.session_id = session;
    passport.purpose = Passport::Purpose::kLink;
    passport.link_server_uids = {kServer};
    passport.email = "ada@example.com";
    passport.email_verified = true;
    return passport;
  }
  std::string Browser(const Passport& user = Session("ses_1")) const { return peers_.authn.Sign(user); }

  // From the page to the provider; its state.
  std::string Leave(TokenBrokerServer& broker, const std::string& label = "", const Passport& user = Session("ses_1")) {
    const std::string query = label.empty() ? "" : absl::StrCat("account=", PercentEncode(label));
    const web::v1::WebResponse page =
        Browse(broker, "GET", absl::StrCat("/connect/gh", query.empty() ? "" : "?", query), Browser(user));
    const web::v1::WebResponse on = Browse(broker, "POST", "/connect/gh", Browser(user),
                                           absl::StrCat("csrf=", PercentEncode(Csrf(page)), "&", query));
    EXPECT_EQ(on.status(), 200) << page.body();
    return Between(on.body(), "state=", "&");
  }
  // Back with the code of `account`.
  web::v1::WebResponse Return(TokenBrokerServer& broker, const std::string& state, const std::string& account,
                              const Passport& user = Session("ses_1")) {
    return Browse(broker, "GET", absl::StrCat("/callback/github?code=", account, "&state=", state), Browser(user));
  }
  web::v1::WebResponse Link(TokenBrokerServer& broker, const std::string& account, const std::string& label = "",
                            const Passport& user = Session("ses_1")) {
    return Return(broker, Leave(broker, label, user), account, user);
  }
  web::v1::WebResponse Answer(TokenBrokerServer& broker, const std::string& page, const std::string& answer,
                              const Passport& user = Session("ses_1"), const std::string& label = "") {
    const std::string csrf = Csrf(Browse(broker, "GET", page, Browser(user)));
    return Browse(broker, "POST", "/connect/gh/confirm", Browser(user),
                  absl::StrCat("answer=", answer, "&csrf=", PercentEncode(csrf), "&account=", label));
  }
  v1::TokenSet Stored(const std::string& label = "") {
    v1::TokenSet tokens;
    tokens.ParseFromString(peers_.vault.Head(ConnectionRecord("corp:ada", ConnectionName(kApp, label))));
    return tokens;
  }
  // What goes out for a call that chooses this account; of an account that is missing its label, in brackets.
  std::string Goes(TokenBrokerServer& broker, const std::string& account = "",
                   const std::string& subject = "corp:ada") {
    v1::ResolveCredentialsRequest request;
    request.set_account(account);
    const auto response = Resolve(broker, request, peers_.authn.Sign(CallPassport(subject)));
    if (!response.ok()) return std::string(absl::StatusCodeToString(response.status().code()));
    return response->has_link() ? absl::StrCat("[", response->link().account(), "]") : response->pieces(0).value();
  }
  std::set<std::string> revoked() {
    MutexLock lock(mu_);
    return revoked_;
  }
  bool AwaitRevoked(const std::string& token) {
    for (int i = 0; i < 1'000 && revoked().count(token) == 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return revoked().count(token) > 0;
  }
  // Already, or it is owed.
  bool WillBeRevoked(const std::string& refresh_token) {
    if (revoked().count(refresh_token) > 0) return true;
    for (const auto& owed : peers_.vault.Revocations()) {
      v1::TokenSet tokens;
      if (tokens.ParseFromString(peers_.vault.Head(owed.record())) && tokens.refresh_token() == refresh_token)
        return true;
    }
    return false;
  }
  // Connections that are there, whatever their state.
  int CountConnections(const std::string& subject = "corp:ada") {
    int count = 0;
    for (const auto& name : peers_.vault.Live()) {
      count += name.owner_id() == subject && name.kind() == "connection" ? 1 : 0;
    }
    return count;
  }
  // As authn has it done for an administrator.
  void EndEverythingOf(TokenBrokerServer& broker, const std::string& subject) {
    Passport passport;
    passport.subject = "local:root";
    passport.purpose = Passport::Purpose::kEnd;
    passport.end.subject = subject;
    v1::EndConnectionsRequest request;
    request.set_subject(subject);
    request.set_whole_user(true);
    v1::EndConnectionsResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(passport));
    const grpc::Status ended =
        v1::Endings::NewStub(broker.InProcessChannel("authn"))->EndConnections(context.get(), request, &response);
    EXPECT_TRUE(ended.ok()) << ended.error_message();
    EXPECT_TRUE(response.keys_destroyed());
  }
  // While the provider makes the tokens of the next code.
  void Meanwhile(std::function<void()> what) {
    MutexLock lock(mu_);
    meanwhile_ = std::move(what);
  }
  // Tokens of it are stored as nobody's connection, and will be revoked.
  size_t Waiting() {
    size_t count = 0;
    for (const auto& name : peers_.vault.Live()) {
      count += name.kind() == "connection" && KindOf(name.name()) == ConnectionKind::kWaiting ? size_t{1} : 0;
    }
    return count;
  }

  FakeClock clock_for_all_{absl::Now()};
  Mutex mu_;
  std::function<void()> meanwhile_ ABSL_GUARDED_BY(mu_);
  int user_status_ ABSL_GUARDED_BY(mu_) = 200;
  int revoke_status_ ABSL_GUARDED_BY(mu_) = 200;
  std::string domain_ ABSL_GUARDED_BY(mu_) = "example.com";
  std::set<std::string> revoked_ ABSL_GUARDED_BY(mu_);
};

TEST_F(LinkedAccountsTest, AccountIsAskedForAtTheLinkAndShown) {
  TokenBrokerServer& broker = StartBroker();
  EXPECT_EQ(HeaderOf(Link(broker, "octocat"), "location"), "/connect/gh/done");

  EXPECT_EQ(Stored().account().id(), "id-of-octocat");
  EXPECT_EQ(Stored().account().email(), "octocat@example.com");
  EXPECT_THAT(Browse(broker, "GET", "/connect/gh/done", Browser()).body(),
              HasSubstr("Your GitHub account is octocat."));
  const auto labels = peers_.vault.MetadataOf(ConnectionRecord("corp:ada", kApp)).labels();
  for (const auto& [name, value] : labels) EXPECT_THAT(value, Not(HasSubstr("octocat"))) << name;
}

TEST_F(LinkedAccountsTest, AnotherAccountThanBeforeIsUsedOnlyOnceItsUserHasConfirmedIt) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");

  const web::v1::WebResponse back = Link(broker, "hubot");

  EXPECT_EQ(HeaderOf(back, "location"), "/connect/gh/confirm");
  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
  const web::v1::WebResponse page = Browse(broker, "GET", "/connect/gh/confirm", Browser());
  EXPECT_THAT(page.body(), HasSubstr("you connected octocat before; now it is hubot. Use hubot?"));
  EXPECT_EQ(Goes(broker), "Bearer at-octocat") << "a page that is only looked at changes nothing";
  EXPECT_THAT(revoked(), IsEmpty());

  EXPECT_EQ(Answer(broker, "/connect/gh/confirm", "yes").status(), 200);
  EXPECT_EQ(Goes(broker), "Bearer at-hubot");
  EXPECT_EQ(Waiting(), 0U);
  EXPECT_EQ(Answer(broker, "/connect/gh/confirm", "yes").status(), 410) << "once";
  EXPECT_TRUE(peers_.audit.Await("link.unconfirmed", ""));
}

TEST_F(LinkedAccountsTest, NoLeavesTheFormerAccountAndRevokesTheOther) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  Link(broker, "hubot");

  const web::v1::WebResponse page = Answer(broker, "/connect/gh/confirm", "no");

  EXPECT_THAT(page.body(), HasSubstr("hubot was not connected"));
  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
  EXPECT_TRUE(AwaitRevoked("rt-hubot"));
  EXPECT_EQ(revoked().count("rt-octocat"), 0U);
  EXPECT_EQ(Waiting(), 0U);
  EXPECT_TRUE(peers_.audit.Await("link.refused", "account_declined"));
}

TEST_F(LinkedAccountsTest, WhatNobodyConfirmsCannotBeConfirmedAfterTenMinutes) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  Link(broker, "hubot");
  const std::string csrf = Csrf(Browse(broker, "GET", "/connect/gh/confirm", Browser()));
  const vault::v1::RecordMetadata waiting =
      peers_.vault.MetadataOf(ConnectionRecord("corp:ada", WaitingName(kApp, "")));
  EXPECT_EQ(waiting.state(), "REVOKE_PENDING") << "the background revokes it";
  EXPECT_EQ(FromTimestamp(waiting.next_at()), FromTimestamp(ToTimestamp(clock_.Now() + absl::Minutes(10))));

  clock_for_all_.Advance(absl::Minutes(10));

  EXPECT_EQ(
      Browse(broker, "POST", "/connect/gh/confirm", Browser(), absl::StrCat("answer=yes&csrf=", PercentEncode(csrf)))
          .status(),
      410);
  EXPECT_EQ(Stored().access_token(), "at-octocat");
}

TEST_F(LinkedAccountsTest, OnlyTheSessionThatLinkedItMayConfirm) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  Link(broker, "hubot");
  const std::string csrf = Csrf(Browse(broker, "GET", "/connect/gh/confirm", Browser()));
  for (const Passport& other : {Session("ses_2"), Session("ses_1", "corp:eve")}) {
    EXPECT_EQ(Browse(broker, "GET", "/connect/gh/confirm", Browser(other)).status(), 410);
    EXPECT_EQ(Browse(broker, "POST", "/connect/gh/confirm", Browser(other),
                     absl::StrCat("answer=yes&csrf=", PercentEncode(csrf)))
                  .status(),
              410);
  }
  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
  EXPECT_EQ(Answer(broker, "/connect/gh/confirm", "yes").status(), 200);
}

TEST_F(LinkedAccountsTest, AnswerWithoutOurFormChangesNothing) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  Link(broker, "hubot");
  const std::string connect = Csrf(Browse(broker, "GET", "/connect/gh", Browser()));
  for (const std::string& form :
       {std::string("answer=yes"), absl::StrCat("answer=yes&csrf=", PercentEncode(connect)), std::string("csrf=1.x")}) {
    EXPECT_EQ(Browse(broker, "POST", "/connect/gh/confirm", Browser(), form).status(), 403) << form;
  }
  const std::string csrf = Csrf(Browse(broker, "GET", "/connect/gh/confirm", Browser()));
  const std::string form = absl::StrCat("answer=yes&csrf=", PercentEncode(csrf));
  EXPECT_EQ(
      Browse(broker, "POST", "/connect/gh/confirm", Browser(), form, {{"origin", "https://evil.example"}}).status(),
      403);
  EXPECT_EQ(
      Browse(broker, "POST", "/connect/gh/confirm", Browser(), absl::StrCat("csrf=", PercentEncode(csrf))).status(),
      403)
      << "neither yes nor no";
  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
}

// The form was shown for one account, and another one waits since.
TEST_F(LinkedAccountsTest, YesIsForTheAccountThatWasShown) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  Link(broker, "hubot");
  const std::string csrf = Csrf(Browse(broker, "GET", "/connect/gh/confirm", Browser()));
  Link(broker, "mallory");

  EXPECT_EQ(
      Browse(broker, "POST", "/connect/gh/confirm", Browser(), absl::StrCat("answer=yes&csrf=", PercentEncode(csrf)))
          .status(),
      403);
  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
  EXPECT_EQ(Waiting(), 1U) << "one for each user, app and label";
  EXPECT_TRUE(AwaitRevoked("rt-hubot")) << "whose place was taken";
}

TEST_F(LinkedAccountsTest, AppThatWantsTheSameAccountRefusesAnother) {
  app_->mutable_account_identity()->set_same_account(App::REQUIRED);
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");

  const web::v1::WebResponse refused = Link(broker, "hubot");

  EXPECT_EQ(refused.status(), 403);
  EXPECT_THAT(refused.body(), HasSubstr("you connected octocat before, and hubot may not take its place"));
  EXPECT_THAT(refused.body(), HasSubstr("(account_changed)"));
  EXPECT_TRUE(AwaitRevoked("rt-hubot"));
  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
  EXPECT_EQ(revoked().count("rt-octocat"), 0U);
  EXPECT_TRUE(peers_.audit.Await("link.refused", "account_changed"));
  EXPECT_EQ(Link(broker, "octocat").status(), 302) << "the same one";
  EXPECT_EQ(Link(broker, "hubot", "work").status(), 302) << "or another label";
}

TEST_F(LinkedAccountsTest, AppThatTakesAnyAccountComparesNothing) {
  app_->mutable_account_identity()->set_same_account(App::ANY);
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  EXPECT_EQ(HeaderOf(Link(broker, "hubot"), "location"), "/connect/gh/done");
  EXPECT_EQ(Goes(broker), "Bearer at-hubot");
  EXPECT_TRUE(WillBeRevoked("rt-octocat")) << "whose place was taken";
  EXPECT_FALSE(WillBeRevoked("rt-hubot"));
  EXPECT_EQ(Waiting(), 0U);
  Link(broker, "hubot");
  EXPECT_FALSE(WillBeRevoked("rt-hubot")) << "the same one";
}

// The new account's tokens are always somewhere, and the former one's are owed.
TEST_F(LinkedAccountsTest, AStoreThatFailsAtTheConfirmationLosesNeitherAccount) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  Link(broker, "hubot");
  peers_.vault.FailPuts(1);

  EXPECT_EQ(Answer(broker, "/connect/gh/confirm", "yes").status(), 503);

  EXPECT_TRUE(WillBeRevoked("rt-octocat"));
  EXPECT_EQ(Waiting(), 1U) << "and is revoked unless it is confirmed";
  EXPECT_EQ(Goes(broker), "[]") << "the former one is served nowhere any more";
  EXPECT_EQ(Answer(broker, "/connect/gh/confirm", "yes").status(), 200);
  EXPECT_EQ(Goes(broker), "Bearer at-hubot");
  EXPECT_EQ(Waiting(), 0U);
  EXPECT_FALSE(WillBeRevoked("rt-hubot"));
}

TEST_F(LinkedAccountsTest, AnAccountThatSomethingElseHasPrecededIsJudgedAnew) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  const std::string state = Leave(broker);
  Meanwhile([&] { peers_.vault.FailPuts(1, absl::AbortedError("the version is not the head")); });

  EXPECT_EQ(Return(broker, state, "octocat").status(), 302);

  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
  EXPECT_FALSE(WillBeRevoked("rt-octocat"));
}

// Each has looked and found nothing: one of them is first all the same.
TEST_F(LinkedAccountsTest, OfTwoAccountsThatComeBackAtOnceOneIsLinkedAndTheOtherRefused) {
  app_->mutable_account_identity()->set_same_account(App::REQUIRED);
  TokenBrokerServer& broker = StartBroker();
  for (int i = 0; i < 8; ++i) {
    const std::string label = absl::StrCat("label", i);
    const std::vector<std::string> accounts = {absl::StrCat("octocat", i), absl::StrCat("hubot", i)};
    const std::vector<std::string> states = {Leave(broker, label), Leave(broker, label)};
    std::vector<int> statuses(2);
    std::thread other([&] { statuses[1] = Return(broker, states[1], accounts[1]).status(); });
    statuses[0] = Return(broker, states[0], accounts[0]).status();
    other.join();

    const size_t winner = statuses[0] == 302 ? 0 : 1;
    EXPECT_EQ(statuses[winner], 302);
    EXPECT_EQ(statuses[1 - winner], 403);
    EXPECT_EQ(Stored(label).account().name(), accounts[winner]);
    EXPECT_TRUE(AwaitRevoked(absl::StrCat("rt-", accounts[1 - winner])));
    EXPECT_FALSE(WillBeRevoked(absl::StrCat("rt-", accounts[winner])));
  }
}

// At many providers a revocation ends all that the account has given: what is linked would die of it.
TEST_F(LinkedAccountsTest, AnAccountThatMayBeTheLinkedOneIsRefusedWithoutARevocation) {
  app_->mutable_account_identity()->set_same_account(App::REQUIRED);
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  {
    MutexLock lock(mu_);
    user_status_ = 503;
  }

  EXPECT_THAT(Link(broker, "octocat").body(), HasSubstr("(account_unknown)"));

  EXPECT_FALSE(WillBeRevoked("rt-octocat"));
  EXPECT_EQ(Waiting(), 0U);
  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
}

// --- Links in flight while everything of their user ends ---

TEST_F(LinkedAccountsTest, ALinkInFlightDoesNotOutliveTheEndOfItsUser) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  const std::string state = Leave(broker);
  Meanwhile([&] { EndEverythingOf(broker, "corp:ada"); });

  EXPECT_EQ(Return(broker, state, "hubot").status(), 403);

  EXPECT_EQ(CountConnections(), 0);
  EXPECT_TRUE(WillBeRevoked("rt-octocat"));
  EXPECT_TRUE(WillBeRevoked("rt-hubot"));
  EXPECT_TRUE(peers_.audit.Await("link.disconnected", "user_ended"));
  clock_for_all_.Advance(absl::Seconds(1));
  EXPECT_EQ(Link(broker, "hubot").status(), 302) << "who may sign in again may link again";
}

TEST_F(LinkedAccountsTest, AnotherReplicaHearsOfTheEndByTheControlStream) {
  TokenBrokerServer& broker = StartBroker();
  const std::string state = Leave(broker);
  Meanwhile([&] {
    peers_.registry.EndSubject("corp:ada", clock_.Now());
    AwaitHeard(broker);
  });

  EXPECT_EQ(Return(broker, state, "octocat").status(), 403);

  EXPECT_EQ(CountConnections(), 0);
  EXPECT_TRUE(WillBeRevoked("rt-octocat"));
}

TEST_F(LinkedAccountsTest, AReplicaThatHasNotHeardOfTheEndStoresNothing) {
  TokenBrokerServer& broker = StartBroker();
  const std::string state = Leave(broker);
  Meanwhile([&] {
    Passport passport;
    passport.subject = "local:root";
    passport.purpose = Passport::Purpose::kEnd;
    passport.end.subject = "corp:ada";
    vault::v1::DeleteOwnerRequest erase;
    erase.set_owner_type(vault::v1::USER);
    erase.set_owner_id("corp:ada");
    EXPECT_TRUE(peers_.vault.DeleteOwner(erase, peers_.authn.Sign(passport)).ok());
  });

  EXPECT_EQ(Return(broker, state, "octocat").status(), 403);

  EXPECT_EQ(CountConnections(), 0);
  EXPECT_TRUE(AwaitRevoked("rt-octocat"));
  EXPECT_TRUE(peers_.audit.Await("link.disconnected", "user_ended"));
  clock_for_all_.Advance(absl::Seconds(1));
  EXPECT_EQ(Link(broker, "octocat").status(), 302) << "who may sign in again may link again";
}

TEST_F(LinkedAccountsTest, AUserOfWhomSomethingElseChangesKeepsTheirLinkInFlight) {
  TokenBrokerServer& broker = StartBroker();
  const std::string state = Leave(broker);
  Meanwhile([&] {
    peers_.registry.Invalidate(registry::v1::Invalidation::SUBJECT, "corp:ada");
    peers_.registry.EndSubject("corp:bob", clock_.Now());
    AwaitHeard(broker);
  });
  EXPECT_EQ(Return(broker, state, "octocat").status(), 302);
}

TEST_F(LinkedAccountsTest, LinkOfAnEarlierReleaseIsNotCompared) {
  app_->mutable_account_identity()->set_same_account(App::REQUIRED);
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  EXPECT_EQ(Link(broker, "hubot").status(), 302);
  EXPECT_EQ(Stored().account().name(), "hubot");
}

TEST_F(LinkedAccountsTest, ProviderThatDoesNotSayWhichAccountItIsLosesNoTokens) {
  TokenBrokerServer& broker = StartBroker();
  {
    MutexLock lock(mu_);
    user_status_ = 503;
  }
  EXPECT_EQ(Link(broker, "octocat").status(), 302);
  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
  EXPECT_FALSE(Stored().has_account());
}

TEST_F(LinkedAccountsTest, AppThatHasToKnowTheAccountRefusesOneNobodyKnows) {
  {
    MutexLock lock(mu_);
    user_status_ = 503;
  }
  for (const bool by_domain : {false, true}) {
    app_->mutable_account_identity()->set_same_account(by_domain ? App::WARN : App::REQUIRED);
    app_->mutable_account_identity()->set_account_domain(by_domain ? App::SAME_AS_SIGN_IN : App::ANY_DOMAIN);
    TokenBrokerServer& broker = StartBroker();
    const std::string account = by_domain ? "second" : "first";
    const web::v1::WebResponse refused = Link(broker, account);
    EXPECT_EQ(refused.status(), 403);
    EXPECT_THAT(refused.body(), HasSubstr("(account_unknown)"));
    EXPECT_TRUE(AwaitRevoked(absl::StrCat("rt-", account)));
    EXPECT_EQ(Goes(broker), "[]");
  }
}

TEST_F(LinkedAccountsTest, AccountOfAnotherDomainThanTheSignInIsRefused) {
  app_->mutable_account_identity()->set_account_domain(App::SAME_AS_SIGN_IN);
  TokenBrokerServer& broker = StartBroker();
  {
    MutexLock lock(mu_);
    domain_ = "private.example";
  }
  const web::v1::WebResponse refused = Link(broker, "octocat");
  EXPECT_EQ(refused.status(), 403);
  EXPECT_THAT(refused.body(), HasSubstr("Only accounts with an email address of example.com"));
  EXPECT_TRUE(AwaitRevoked("rt-octocat"));
  {
    MutexLock lock(mu_);
    domain_ = "EXAMPLE.com";
  }
  EXPECT_EQ(Link(broker, "hubot").status(), 302);
}

TEST_F(LinkedAccountsTest, WhatWasRefusedIsRevokedThoughTheProviderIsAwayNow) {
  app_->mutable_account_identity()->set_same_account(App::REQUIRED);
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  {
    MutexLock lock(mu_);
    revoke_status_ = 503;
  }
  EXPECT_EQ(Link(broker, "hubot").status(), 403);
  EXPECT_EQ(Waiting(), 0U);
  EXPECT_EQ(peers_.vault.CountRecords("revocation"), 1U) << "kept until it is done";
  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
}

TEST_F(LinkedAccountsTest, AccountWhoseUserHasConfirmedAnotherIsRevoked) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  Link(broker, "hubot");
  {
    MutexLock lock(mu_);
    revoke_status_ = 503;
  }
  Answer(broker, "/connect/gh/confirm", "yes");
  EXPECT_EQ(Goes(broker), "Bearer at-hubot");
  EXPECT_EQ(peers_.vault.CountRecords("revocation"), 1U);
}

// --- several accounts ---

TEST_F(LinkedAccountsTest, CallChoosesItsAccountByLabel) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  const web::v1::WebResponse page = Browse(broker, "GET", "/connect/gh?account=work", Browser());
  EXPECT_THAT(page.body(), HasSubstr("GitHub account &quot;work&quot;"));
  EXPECT_EQ(HeaderOf(Link(broker, "hubot", "work"), "location"), "/connect/gh/done?account=work");

  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
  EXPECT_EQ(Goes(broker, "work"), "Bearer at-hubot");
  EXPECT_EQ(Goes(broker, "home"), "[home]") << "what is not linked is asked for under its label";
  EXPECT_EQ(Goes(broker, "work", "corp:eve"), "[work]") << "labels are each user's own";
  EXPECT_EQ(Goes(broker, "work"), "Bearer at-hubot") << "from the cache";
  EXPECT_EQ(peers_.registry.invalidations().back().key(), "corp:ada\napp_gh\nwork");
}

TEST_F(LinkedAccountsTest, ServerChoosesTheAccountWhereTheCallDoesNot) {
  registry::v1::McpServer* server = AddServer("srv_work", "work");
  server->mutable_agent_auth()->mutable_interactive();
  server->mutable_app_auth()->mutable_oauth_authorization()->set_app_uid(kApp);
  server->mutable_app_auth()->mutable_oauth_authorization()->set_account("work");
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  v1::ResolveCredentialsRequest request;
  request.set_server_uid("srv_work");
  const std::string ada = peers_.authn.Sign(CallPassport("corp:ada", "srv_work"));
  ASSERT_OK_AND_ASSIGN(auto response, Resolve(broker, request, ada));
  EXPECT_EQ(response.link().account(), "work");
  Passport user = Session("ses_1");
  user.link_server_uids = {"srv_work"};
  EXPECT_THAT(Browse(broker, "GET", "/connect/work", Browser(user)).body(), HasSubstr("&quot;work&quot;"));
  EXPECT_THAT(Browse(broker, "GET", "/connect/work?account=", Browser(user)).body(),
              Not(HasSubstr("&quot;work&quot;")));

  Link(broker, "hubot", "work");
  ASSERT_OK_AND_ASSIGN(response, Resolve(broker, request, ada));
  EXPECT_EQ(response.pieces(0).value(), "Bearer at-hubot");
}

TEST_F(LinkedAccountsTest, OneAccountMayHaveTwoLabels) {
  TokenBrokerServer& broker = StartBroker();
  EXPECT_EQ(Link(broker, "octocat").status(), 302);
  EXPECT_EQ(Link(broker, "octocat", "work").status(), 302);
  EXPECT_EQ(Stored("work").account().id(), Stored().account().id());
}

TEST_F(LinkedAccountsTest, CallbacksOfTwoTabsComeHomeToTheirOwnLabels) {
  TokenBrokerServer& broker = StartBroker();
  const std::string first = Leave(broker);
  const std::string second = Leave(broker, "work");

  Return(broker, second, "hubot");
  Return(broker, first, "octocat");

  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
  EXPECT_EQ(Goes(broker, "work"), "Bearer at-hubot");
  EXPECT_EQ(Return(broker, second, "octocat").status(), 400) << "used";
}

TEST_F(LinkedAccountsTest, FormOfOneLabelBeginsNoLinkOfAnother) {
  TokenBrokerServer& broker = StartBroker();
  const std::string csrf = Csrf(Browse(broker, "GET", "/connect/gh", Browser()));
  EXPECT_EQ(Browse(broker, "POST", "/connect/gh", Browser(), absl::StrCat("account=work&csrf=", PercentEncode(csrf)))
                .status(),
            403);
}

TEST_F(LinkedAccountsTest, LabelsThatAreNoneAreRefusedEverywhere) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  Link(broker, "hubot");  // Waits.
  const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
  for (const std::string& label : {std::string("a/b"), std::string("a\nb"), std::string("a\0b", 3), std::string("~"),
                                   std::string(65, 'x'), std::string("*"), std::string("\xc3\xbc")}) {
    EXPECT_EQ(Goes(broker, label), "INVALID_ARGUMENT") << label;
    for (const char* page : {"", "/done", "/confirm"}) {
      EXPECT_EQ(Browse(broker, "GET", absl::StrCat("/connect/gh", page, "?account=", PercentEncode(label)), Browser())
                    .status(),
                400)
          << label;
    }
    v1::StartLinkRequest start;
    start.set_server_uid(kServer);
    start.set_app_uid(kApp);
    start.set_account(label);
    v1::StartLinkResponse started;
    const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(CallPassport()));
    EXPECT_EQ(stub->StartLink(context.get(), start, &started).error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  }
}

TEST_F(LinkedAccountsTest, AccountIsChosenOnlyWhereThereIsOne) {
  registry::v1::McpServer* server = AddServer("srv_free", "free");
  server->mutable_agent_auth()->mutable_interactive();
  server->mutable_app_auth()->mutable_passthrough();
  v1::ResolveCredentialsRequest request;
  request.set_server_uid("srv_free");
  request.set_account("work");
  EXPECT_THAT(Resolve(StartBroker(), request, peers_.authn.Sign(CallPassport("corp:ada", "srv_free"))),
              StatusIs(Code::kInvalidArgument));
}

TEST_F(LinkedAccountsTest, LinkOfACallIsForTheAccountItChose) {
  TokenBrokerServer& broker = StartBroker();
  const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
  v1::StartLinkRequest start;
  start.set_server_uid(kServer);
  start.set_app_uid(kApp);
  start.set_account("work");
  start.mutable_call()->set_method("tools/call");
  v1::StartLinkResponse started;
  {
    const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(CallPassport()));
    ASSERT_TRUE(stub->StartLink(context.get(), start, &started).ok());
  }
  EXPECT_THAT(started.url(), HasSubstr("&account=work"));
  EXPECT_EQ(started.message(), "Connect your GitHub account \"work\" to continue.");
  const auto linked = [&] {
    v1::ResumeLinkRequest resume;
    resume.set_server_uid(kServer);
    *resume.mutable_call() = start.call();
    resume.set_request_state(started.request_state());
    v1::ResumeLinkResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(CallPassport()));
    EXPECT_TRUE(stub->ResumeLink(context.get(), resume, &response).ok());
    return response.linked();
  };
  Link(broker, "octocat");
  EXPECT_FALSE(linked()) << "the default account is another";
  Link(broker, "hubot", "work");
  EXPECT_TRUE(linked());
}

TEST_F(LinkedAccountsTest, ListNamesLabelsAndAccountsAndNothingThatWaits) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  Link(broker, "hubot", "work");
  Link(broker, "mallory");  // Waits to be confirmed.
  Passport api = CallPassport();
  api.purpose = Passport::Purpose::kApi;
  const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
  v1::ListConnectionsResponse list;
  const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(api));
  ASSERT_TRUE(stub->ListConnections(context.get(), {}, &list).ok());

  std::set<std::string> seen;
  for (const v1::Connection& one : list.connections()) {
    seen.insert(absl::StrCat(one.app_slug(), "/", one.label(), "=", one.account_name()));
  }
  EXPECT_THAT(seen, ElementsAre("github/=octocat", "github/work=hubot"));
}

TEST_F(LinkedAccountsTest, RenamedAccountGoesByItsNewLabelOnly) {
  TokenBrokerServer& broker = StartBroker();
  Link(broker, "octocat");
  Link(broker, "hubot", "work");
  const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
  const auto rename = [&](const std::string& from, const std::string& to, Passport passport) {
    v1::RenameConnectionRequest request;
    request.set_app_slug("github");
    request.set_label(from);
    request.set_new_label(to);
    v1::RenameConnectionResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(passport));
    return FromGrpcStatus(stub->RenameConnection(context.get(), request, &response));
  };
  Passport api = CallPassport();
  api.purpose = Passport::Purpose::kApi;
  Passport eve = api;
  eve.subject = "corp:eve";
  EXPECT_EQ(Goes(broker, "work"), "Bearer at-hubot");

  EXPECT_THAT(rename("work", "", api), StatusIs(Code::kAlreadyExists));
  EXPECT_THAT(rename("work", "a/b", api), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(rename("~", "mine", api), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(rename("work", "work", api), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(rename("home", "mine", api), StatusIs(Code::kNotFound));
  EXPECT_THAT(rename("work", "mine", eve), StatusIs(Code::kNotFound)) << "another user's";
  EXPECT_THAT(rename("work", "mine", CallPassport()), StatusIs(Code::kPermissionDenied)) << "no call does that";
  EXPECT_THAT(rename("work", "mine", api), StatusIs(Code::kOk));

  EXPECT_EQ(Goes(broker, "work"), "[work]");
  EXPECT_EQ(Goes(broker, "mine"), "Bearer at-hubot");
  EXPECT_EQ(Goes(broker), "Bearer at-octocat");
  std::set<std::string> told;
  for (const auto& invalidation : peers_.registry.invalidations()) told.insert(invalidation.key());
  EXPECT_EQ(told.count("corp:ada\napp_gh\nwork"), 1U);
  EXPECT_EQ(told.count("corp:ada\napp_gh\nmine"), 1U);
  EXPECT_TRUE(peers_.audit.Await("link.renamed", ""));
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
// Which account a user has linked: another one than before, one that the app does not take.
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/http/url.h"
#include "common/proto_time.h"
#include "services/token_broker/testing/linked_accounts_test_base.h"

namespace sallyport::token_broker {
namespace {

using registry::v1::App;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class LinkedAccountsTest : public testing::LinkedAccountsTestBase {};

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

}  // namespace
}  // namespace sallyport::token_broker

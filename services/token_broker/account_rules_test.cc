// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/account_rules.h"

#include <gtest/gtest.h>

namespace sallyport::token_broker {
namespace {

using registry::v1::App;
using Account = v1::TokenSet::Account;

Account Of(const std::string& id, const std::string& email = "") {
  Account account;
  account.set_id(id);
  account.set_email(email);
  return account;
}

class AccountRulesTest : public ::testing::Test {
 protected:
  AccountVerdict Judge(const Account* former, const Account& now) {
    return JudgeAccount(rules_, former, now, passport_);
  }

  App::AccountIdentity rules_;
  Passport passport_;
};

TEST_F(AccountRulesTest, AnotherAccountHasToBeConfirmedUnlessTheAppSaysOtherwise) {
  const Account octocat = Of("1");
  EXPECT_EQ(Judge(&octocat, Of("2")), AccountVerdict::kAnother) << "WARN when absent";
  rules_.set_same_account(App::WARN);
  EXPECT_EQ(Judge(&octocat, Of("2")), AccountVerdict::kAnother);
  rules_.set_same_account(App::REQUIRED);
  EXPECT_EQ(Judge(&octocat, Of("2")), AccountVerdict::kRefusedAnother);
  rules_.set_same_account(App::ANY);
  EXPECT_EQ(Judge(&octocat, Of("2")), AccountVerdict::kTaken);
}

TEST_F(AccountRulesTest, WhatIsNotKnownIsNotCompared) {
  const Account octocat = Of("1");
  const Account legacy = Of("");
  EXPECT_EQ(Judge(nullptr, Of("2")), AccountVerdict::kTaken) << "nothing before";
  EXPECT_EQ(Judge(&legacy, Of("2")), AccountVerdict::kTaken) << "linked by an earlier release";
  EXPECT_EQ(Judge(&octocat, Of("1")), AccountVerdict::kTaken);
  EXPECT_EQ(Judge(&octocat, Of("")), AccountVerdict::kTaken) << "the provider did not say";
  rules_.set_same_account(App::REQUIRED);
  EXPECT_EQ(Judge(&legacy, Of("2")), AccountVerdict::kTaken);
  EXPECT_EQ(Judge(&octocat, Of("")), AccountVerdict::kRefusedUnknown);
  EXPECT_EQ(Judge(nullptr, Of("")), AccountVerdict::kRefusedUnknown);
}

TEST_F(AccountRulesTest, DomainIsThatOfTheVerifiedAddressOfTheSignIn) {
  rules_.set_account_domain(App::SAME_AS_SIGN_IN);
  passport_.email = "ada@Example.com";
  passport_.email_verified = true;
  EXPECT_EQ(Judge(nullptr, Of("1", "octo@example.COM")), AccountVerdict::kTaken);
  EXPECT_EQ(Judge(nullptr, Of("1", "octo@evil.example")), AccountVerdict::kRefusedDomain);
  EXPECT_EQ(Judge(nullptr, Of("1", "octo@sub.example.com")), AccountVerdict::kRefusedDomain);
  EXPECT_EQ(Judge(nullptr, Of("1", "octo@example.com@evil.example")), AccountVerdict::kRefusedDomain);
  EXPECT_EQ(Judge(nullptr, Of("1", "example.com")), AccountVerdict::kRefusedDomain) << "no address";
  EXPECT_EQ(Judge(nullptr, Of("1")), AccountVerdict::kRefusedUnknown);
  passport_.email_verified = false;
  EXPECT_EQ(Judge(nullptr, Of("1", "octo@example.com")), AccountVerdict::kRefusedDomain) << "anybody can say that";
  passport_.email_verified = true;
  passport_.email.clear();
  EXPECT_EQ(Judge(nullptr, Of("1", "octo@")), AccountVerdict::kRefusedDomain) << "nothing equals nothing";
}

TEST_F(AccountRulesTest, EveryRefusalHasAReasonOfItsOwn) {
  EXPECT_EQ(RefusalOf(AccountVerdict::kRefusedAnother), "account_changed");
  EXPECT_EQ(RefusalOf(AccountVerdict::kRefusedUnknown), "account_unknown");
  EXPECT_EQ(RefusalOf(AccountVerdict::kRefusedDomain), "account_domain");
  EXPECT_EQ(RefusalOf(AccountVerdict::kTaken), "");
  EXPECT_EQ(RefusalOf(AccountVerdict::kAnother), "");
}

}  // namespace
}  // namespace sallyport::token_broker

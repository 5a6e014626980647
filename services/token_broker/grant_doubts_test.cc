// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/grant_doubts.h"

#include <gtest/gtest.h>

namespace sallyport::token_broker {
namespace {

const ConnectionKey kAda{"u:ada", "app_1"};
const ConnectionKey kBob{"u:bob", "app_1"};
const ConnectionKey kElsewhere{"u:bob", "app_2"};

TEST(GrantDoubtsTest, RenewalOfAnotherUserOfTheAppSinceTheFirstRefusalTellsThatItIsTheGrant) {
  GrantDoubts doubts;
  doubts.Renewed(kBob);
  EXPECT_FALSE(doubts.Refused(kAda, 1)) << "before it was refused, this says nothing";
  EXPECT_FALSE(doubts.Refused(kAda, 1)) << "the provider may refuse everybody";
  doubts.Renewed(kElsewhere);
  EXPECT_FALSE(doubts.Refused(kAda, 1)) << "another app";

  doubts.Renewed(kBob);

  EXPECT_TRUE(doubts.Refused(kAda, 1));
  EXPECT_FALSE(doubts.Refused(kAda, 2)) << "a new link begins anew";
}

TEST(GrantDoubtsTest, RenewalOrLateAnswerOfTheConnectionItselfEndsTheDoubt) {
  GrantDoubts doubts;
  EXPECT_FALSE(doubts.Refused(kAda, 1));
  doubts.Renewed(kAda);
  EXPECT_FALSE(doubts.Refused(kAda, 1));
  doubts.Renewed(kBob);
  doubts.Forget(kAda);
  EXPECT_FALSE(doubts.Refused(kAda, 1));
}

TEST(GrantDoubtsTest, AnswersWithoutATokenEndAfterAWhileEvenIfNobodyIsRenewed) {
  GrantDoubts doubts;
  for (int i = 1; i < GrantDoubts::kMaxEmptyAnswers; ++i) EXPECT_FALSE(doubts.AnsweredEmpty(kAda, 1)) << i;
  EXPECT_TRUE(doubts.AnsweredEmpty(kAda, 1));

  EXPECT_FALSE(doubts.AnsweredEmpty(kBob, 1));
  doubts.Renewed(kAda);
  EXPECT_TRUE(doubts.AnsweredEmpty(kBob, 1)) << "others are renewed";
}

TEST(GrantDoubtsTest, RefusalBetweenEmptyAnswersBeginsTheRowAgain) {
  GrantDoubts doubts;
  for (int i = 1; i < GrantDoubts::kMaxEmptyAnswers; ++i) EXPECT_FALSE(doubts.AnsweredEmpty(kAda, 1));
  EXPECT_FALSE(doubts.Refused(kAda, 1));
  EXPECT_FALSE(doubts.AnsweredEmpty(kAda, 1));
}

TEST(GrantDoubtsTest, NoNumberOfRefusedGrantsFillsTheMemory) {
  GrantDoubts doubts;
  for (int i = 0; i < 20'000; ++i) EXPECT_FALSE(doubts.Refused({"u:" + std::to_string(i), "app_1"}, 1));
  doubts.Renewed(kBob);
  EXPECT_TRUE(doubts.Refused({"u:9999", "app_1"}, 1)) << "the newest are kept";
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/freshness.h"

#include <gtest/gtest.h>

namespace sallyport::token_broker {
namespace {

const absl::Time kStart = absl::FromUnixSeconds(1'800'000'000);
TokenTimes Living(absl::Duration ttl) { return {.obtained_at = kStart, .expires_at = kStart + ttl}; }

TEST(FreshnessTest, HourTokenIsUsableUntilThirtySecondsBeforeItsEnd) {
  EXPECT_TRUE(IsUsable(Living(absl::Hours(1)), kStart + absl::Minutes(59)));
  EXPECT_FALSE(IsUsable(Living(absl::Hours(1)), kStart + absl::Minutes(60) - absl::Seconds(30)));
}

TEST(FreshnessTest, FiveSecondTokenIsUsableAtFirst) {
  EXPECT_TRUE(IsUsable(Living(absl::Seconds(5)), kStart + absl::Seconds(4)));
  EXPECT_FALSE(IsUsable(Living(absl::Seconds(5)), kStart + absl::Milliseconds(4600)));
}

TEST(FreshnessTest, RenewalNeverBeginsInTheFirstTwoThirdsOfALife) {
  EXPECT_TRUE(IsFresh(Living(absl::Seconds(30)), "key", kStart + absl::Seconds(19)));
  EXPECT_FALSE(IsFresh(Living(absl::Seconds(30)), "key", kStart + absl::Seconds(21)));
}

TEST(FreshnessTest, RenewalOfAnHourTokenBeginsFiveToSevenMinutesBeforeItsEnd) {
  const absl::Duration lead = RenewalLead(Living(absl::Hours(1)), "key");

  EXPECT_GE(lead, absl::Minutes(5));
  EXPECT_LT(lead, absl::Minutes(7));
}

TEST(FreshnessTest, JitterDependsOnTheKeyAlone) {
  EXPECT_EQ(RenewalLead(Living(absl::Hours(1)), "a"), RenewalLead(Living(absl::Hours(1)), "a"));
  EXPECT_NE(RenewalLead(Living(absl::Hours(1)), "a"), RenewalLead(Living(absl::Hours(1)), "b"));
}

TEST(FreshnessTest, TokenWithoutAnEndIsAlwaysFresh) {
  EXPECT_TRUE(IsFresh(TokenTimes{}, "key", kStart));
  EXPECT_TRUE(IsUsable(TokenTimes{}, kStart));
}

TEST(FreshnessTest, ExpiredTokenIsNeitherFreshNorUsable) {
  EXPECT_FALSE(IsUsable(Living(absl::Hours(1)), kStart + absl::Hours(2)));
  EXPECT_FALSE(IsFresh(Living(absl::Hours(1)), "key", kStart + absl::Hours(2)));
}

TEST(FreshnessTest, TokenOutlastsWhatItsSkewLeavesOfIt) {
  const TokenTimes hour = Living(absl::Hours(1));
  EXPECT_TRUE(Outlasts(hour, absl::Minutes(30), kStart + absl::Minutes(29)));
  EXPECT_TRUE(Outlasts(hour, absl::Minutes(30), kStart + absl::Minutes(30) - absl::Seconds(30)));
  EXPECT_FALSE(Outlasts(hour, absl::Minutes(30), kStart + absl::Minutes(30)));
  EXPECT_TRUE(Outlasts(TokenTimes{}, absl::Hours(1000), kStart));
}

TEST(FreshnessTest, NewTokenIsAsLongAsItsProviderMakesThem) {
  const TokenTimes minutes = Living(absl::Minutes(5));
  EXPECT_TRUE(Outlasts(minutes, absl::Minutes(30), kStart + absl::Seconds(59)));
  EXPECT_FALSE(Outlasts(minutes, absl::Minutes(30), kStart + absl::Seconds(60)));
  EXPECT_FALSE(Outlasts(Living(absl::Seconds(30)), absl::Minutes(1), kStart + absl::Seconds(29)))
      << "one that has ended does not last, however new";
}

}  // namespace
}  // namespace sallyport::token_broker

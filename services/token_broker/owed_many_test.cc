// SPDX-License-Identifier: Apache-2.0
// A provider that is down when a whole company's connections to it have ended.
#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/token_broker/background.h"
#include "services/token_broker/testing/background_test_base.h"

namespace sallyport::token_broker {
namespace {

using ::testing::Contains;

class OwedManyTest : public testing::BackgroundTestBase {};

TEST_F(OwedManyTest, AHundredThousandOwedRevocationsDelayNobodyElse) {
  constexpr int kRounds = 3;
  constexpr int kMostTried = 8;  // Of one app at a time.
  Answer(503);
  Owe("gone", 100'000);
  int tried = 0;
  for (int round = 0; round < kRounds; ++round) {
    const std::string bob = absl::StrCat("corp:bob", round);
    const std::string zoe = absl::StrCat("zoe", round, "-");
    // Due last of all, in the lane of its own and in the one that the many wait in.
    clock_for_all_.Advance(absl::Hours(1));
    PutDue(bob, kUp);
    Owe(zoe, 1, kUp);
    clock_for_all_.Advance(absl::Seconds(11));

    background_->RunOnce();

    EXPECT_GT(NextAt(bob, kUp), clock_.Now()) << "renewed in the first round";
    EXPECT_THAT(asked(), Contains(absl::StrCat("/up/revoke rt-", zoe, "0")));
    EXPECT_LE(CountAsked("/revoke") - tried, kMostTried);
    tried = CountAsked("/revoke");
  }
  EXPECT_GE(tried, kRounds) << "the provider is asked again";
  EXPECT_EQ(Owed().size(), 100'000U);
}

}  // namespace
}  // namespace sallyport::token_broker

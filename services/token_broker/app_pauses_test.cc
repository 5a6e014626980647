// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/app_pauses.h"

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class AppPausesTest : public ::testing::Test {
 protected:
  FakeClock clock_;
  AppPauses pauses_{clock_};
};

TEST_F(AppPausesTest, EachIsTwiceAsLongAsTheOneBeforeUpToHalfAnHour) {
  const absl::Duration lengths[] = {absl::Seconds(30), absl::Minutes(1),  absl::Minutes(2),  absl::Minutes(4),
                                    absl::Minutes(8),  absl::Minutes(16), absl::Minutes(30), absl::Minutes(30)};
  for (const absl::Duration length : lengths) {
    pauses_.Away("app_a");
    EXPECT_EQ(pauses_.UntilNext(), length);
    clock_.Advance(length - absl::Seconds(1));
    EXPECT_TRUE(pauses_.IsPaused("app_a")) << length;
    clock_.Advance(absl::Seconds(1));
    EXPECT_FALSE(pauses_.IsPaused("app_a")) << length;
  }
}

TEST_F(AppPausesTest, SeveralWhoFindSoAtOnceAreOne) {
  for (int i = 0; i < 8; ++i) pauses_.Away("app_a");
  clock_.Advance(absl::Seconds(30));
  EXPECT_FALSE(pauses_.IsPaused("app_a"));
  pauses_.Away("app_a");
  EXPECT_EQ(pauses_.UntilNext(), absl::Minutes(1));
}

TEST_F(AppPausesTest, OneThatAnswersBeginsAnew) {
  pauses_.Away("app_a");
  clock_.Advance(absl::Seconds(30));
  pauses_.Away("app_a");
  pauses_.Back("app_a");
  EXPECT_FALSE(pauses_.IsPaused("app_a"));
  pauses_.Away("app_a");
  EXPECT_EQ(pauses_.UntilNext(), absl::Seconds(30));
}

TEST_F(AppPausesTest, AnotherAppIsNotConcerned) {
  pauses_.Away("app_a");
  EXPECT_FALSE(pauses_.IsPaused("app_b"));
  EXPECT_THAT(pauses_.Paused(), ElementsAre("app_a"));
  clock_.Advance(absl::Seconds(10));
  pauses_.Away("app_b");
  EXPECT_THAT(pauses_.Paused(), ElementsAre("app_b", "app_a")) << "the longest first";
}

TEST_F(AppPausesTest, WorkThatIsOfNoAppNeverWaits) {
  pauses_.Away("");
  EXPECT_FALSE(pauses_.IsPaused(""));
  EXPECT_THAT(pauses_.Paused(), IsEmpty());
  EXPECT_EQ(pauses_.UntilNext(), absl::InfiniteDuration());
}

TEST_F(AppPausesTest, SettingTheClockBackProlongsNothing) {
  pauses_.Away("app_a");
  clock_.Set(clock_.Now() - absl::Hours(24));
  clock_.Advance(absl::Seconds(30));
  EXPECT_FALSE(pauses_.IsPaused("app_a"));
}

TEST_F(AppPausesTest, NoMoreAreNamedThanTheVaultTakes) {
  for (int i = 0; i < 1'200; ++i) pauses_.Away(absl::StrCat("app_", i));
  EXPECT_EQ(pauses_.Paused().size(), 1'000U);
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/timer_wheel.h"

#include <functional>

#include <gtest/gtest.h>

namespace sallyport::edge {
namespace {

class TestTimer final : public Timer {
 public:
  int fired = 0;
  std::function<void()> then;

 private:
  void OnTimer() override {
    ++fired;
    if (then) {
      then();
    }
  }
};

TEST(TimerWheelTest, FiresOnceAndNeverEarly) {
  TimerWheel wheel(0);
  TestTimer timer;
  wheel.Set(timer, 250);

  wheel.Advance(249);
  EXPECT_EQ(timer.fired, 0);
  wheel.Advance(300);
  EXPECT_EQ(timer.fired, 1);
  wheel.Advance(10'000);
  EXPECT_EQ(timer.fired, 1);
  EXPECT_TRUE(wheel.empty());
}

TEST(TimerWheelTest, AMovedDeadlineCounts) {
  TimerWheel wheel(0);
  TestTimer later;
  TestTimer earlier;
  TestTimer cleared;
  wheel.Set(later, 500);
  wheel.Set(later, 900);
  wheel.Set(earlier, 900);
  wheel.Set(earlier, 300);
  wheel.Set(cleared, 400);
  wheel.Clear(cleared);

  wheel.Advance(600);
  EXPECT_EQ(later.fired, 0);
  EXPECT_EQ(earlier.fired, 1);
  wheel.Advance(1000);
  EXPECT_EQ(later.fired, 1);
  EXPECT_EQ(cleared.fired, 0);
}

TEST(TimerWheelTest, DeadlinesBeyondOneRoundFireInTheirOwn) {
  TimerWheel wheel(0);
  TestTimer timer;
  wheel.Set(timer, 300'000);

  for (Millis now = 0; now < 300'000; now += 1'000) {
    wheel.Advance(now);
  }
  EXPECT_EQ(timer.fired, 0);
  wheel.Advance(300'100);
  EXPECT_EQ(timer.fired, 1);
}

TEST(TimerWheelTest, ALongPauseMissesNothing) {
  TimerWheel wheel(0);
  TestTimer timer;
  wheel.Set(timer, 100);

  wheel.Advance(10'000'000);
  EXPECT_EQ(timer.fired, 1);
}

TEST(TimerWheelTest, ATimerMaySetItselfAndOthersAndDie) {
  TimerWheel wheel(0);
  TestTimer again;
  auto victim = std::make_unique<TestTimer>();
  wheel.Set(*victim, 100);
  wheel.Set(again, 100);
  again.then = [&] {
    victim.reset();
    if (again.fired < 3) {
      wheel.Set(again, again.fired * 100 + 100);
    }
  };

  wheel.Advance(1'000);
  EXPECT_EQ(again.fired, 3);
}

}  // namespace
}  // namespace sallyport::edge

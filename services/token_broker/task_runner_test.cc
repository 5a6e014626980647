// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/task_runner.h"

#include <atomic>
#include <condition_variable>
#include <mutex>

#include <gtest/gtest.h>

namespace sallyport::token_broker {
namespace {

// Counts down; waits for zero.
class Latch {
 public:
  explicit Latch(int count) : count_(count) {}
  void Down() {
    std::lock_guard<std::mutex> lock(mu_);
    --count_;
    changed_.notify_all();
  }
  bool Wait() {
    std::unique_lock<std::mutex> lock(mu_);
    return changed_.wait_for(lock, std::chrono::seconds(20), [this] { return count_ <= 0; });
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  int count_;
};

TEST(TaskRunnerTest, TasksThatBlockDoNotWaitForEachOther) {
  TaskRunner runner(8, 100);
  Latch all(8);
  for (int i = 0; i < 8; ++i) {
    // Each waits until all eight run.
    ASSERT_TRUE(runner.Post([&] {
      all.Down();
      all.Wait();
    }));
  }
  EXPECT_TRUE(all.Wait());
}

TEST(TaskRunnerTest, DelayedTaskRunsWhileAnotherBlocks) {
  TaskRunner runner(2, 100);
  Latch later(1);
  Latch blocked(1);
  ASSERT_TRUE(runner.Post([&] { blocked.Wait(); }));
  runner.PostAfter(absl::Milliseconds(20), [&] { later.Down(); });
  EXPECT_TRUE(later.Wait());
  blocked.Down();
}

TEST(TaskRunnerTest, EarlierTaskOvertakesALaterOne) {
  TaskRunner runner(1, 100);
  Latch soon(1);
  std::atomic<bool> late{false};
  runner.PostAfter(absl::Hours(1), [&] { late = true; });
  runner.PostAfter(absl::Milliseconds(1), [&] { soon.Down(); });
  EXPECT_TRUE(soon.Wait());
  EXPECT_FALSE(late);
}

TEST(TaskRunnerTest, FullQueueRefuses) {
  TaskRunner runner(1, 2);
  Latch running(1);
  Latch blocked(1);
  ASSERT_TRUE(runner.Post([&] {
    running.Down();
    blocked.Wait();
  }));
  ASSERT_TRUE(running.Wait());
  EXPECT_TRUE(runner.Post([] {}));
  EXPECT_TRUE(runner.Post([] {}));
  EXPECT_FALSE(runner.Post([] {}));
  blocked.Down();
}

TEST(TaskRunnerTest, LoadTellsOfBusyThreadsAndOfTasksThatWaitForOne) {
  TaskRunner runner(1, 10);
  Latch running(1);
  Latch blocked(1);
  runner.PostAfter(absl::Hours(1), [] {});
  EXPECT_EQ(runner.load().wait, absl::ZeroDuration()) << "it is not due yet";
  ASSERT_TRUE(runner.Post([&] {
    running.Down();
    blocked.Wait();
  }));
  ASSERT_TRUE(running.Wait());
  EXPECT_EQ(runner.load().busy, 1U);
  EXPECT_EQ(runner.load().wait, absl::ZeroDuration());

  ASSERT_TRUE(runner.Post([] {}));
  EXPECT_GT(runner.load().wait, absl::ZeroDuration());
  blocked.Down();
}

TEST(TaskRunnerTest, StoppedRunnerRefusesAndDropsWhatWaits) {
  TaskRunner runner(1, 10);
  std::atomic<bool> ran{false};
  runner.PostAfter(absl::Hours(1), [&] { ran = true; });
  runner.Stop();
  EXPECT_FALSE(runner.Post([&] { ran = true; }));
  EXPECT_FALSE(ran);
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "common/thread_pool.h"

#include <atomic>
#include <future>

#include <gtest/gtest.h>

#include "common/backoff.h"

namespace sallyport {
namespace {

TEST(ThreadPoolTest, RefusesWhatDoesNotFitAndRunsTheRest) {
  std::atomic<int> ran{0};
  std::promise<void> started;
  std::promise<void> release;
  auto released = release.get_future().share();
  {
    ThreadPool pool(1, 2);
    ASSERT_TRUE(pool.Submit([&] {
      started.set_value();
      released.wait();
    }));
    started.get_future().wait();
    EXPECT_TRUE(pool.Submit([&] { ++ran; }));
    EXPECT_TRUE(pool.Submit([&] { ++ran; }));
    EXPECT_FALSE(pool.Submit([&] { ++ran; }));
    EXPECT_EQ(pool.queued(), 2U);
    release.set_value();
  }
  EXPECT_EQ(ran, 2);
}

TEST(BackoffTest, DoublesToItsBoundWithJitterInTheUpperHalf) {
  Backoff backoff(absl::Seconds(1), absl::Seconds(3));
  EXPECT_EQ(backoff.Next(0), absl::Milliseconds(500));
  EXPECT_EQ(backoff.Next(0), absl::Seconds(1));
  EXPECT_EQ(backoff.Next(1), absl::Seconds(3));
  EXPECT_EQ(backoff.Next(1), absl::Seconds(3));
  backoff.Reset();
  EXPECT_EQ(backoff.Next(1), absl::Seconds(1));
}

}  // namespace
}  // namespace sallyport

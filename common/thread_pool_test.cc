// SPDX-License-Identifier: Apache-2.0
#include "common/thread_pool.h"

#include <atomic>
#include <future>

#include <gtest/gtest.h>

#include "common/backoff.h"
#include "common/utf8.h"

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

TEST(Utf8Test, FollowsRfc3629) {
  for (const char* text :
       {"", "a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x9a\xaa", "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(IsValidUtf8(text)) << text;
  }
  for (const char* text : {"\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x80\x80", "\xe2\x82", "\xed\xa0\x80",
                           "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xfe"}) {
    EXPECT_FALSE(IsValidUtf8(text)) << text;
  }
}

}  // namespace
}  // namespace sallyport

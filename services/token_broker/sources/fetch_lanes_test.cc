// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/fetch_lanes.h"

#include <atomic>
#include <chrono>
#include <thread>

#include <gtest/gtest.h>

#include "tests/testing/fakes/gate.h"

namespace sallyport::token_broker {
namespace {

class FetchLanesTest : public ::testing::Test {
 protected:
  ~FetchLanesTest() override {
    slow_.Open();
    runner_.Stop();
  }
  static void Await(const std::atomic<int>& count, int wanted) {
    for (int i = 0; i < 60'000 && count < wanted; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_EQ(count, wanted);
  }
  bool PostSlow() {
    return lanes_.Post("slow", [this] {
      ++begun_;
      slow_.Pass();
      ++ended_;
    });
  }

  ::sallyport::testing::Gate slow_;
  std::atomic<int> begun_{0};
  std::atomic<int> ended_{0};
  TaskRunner runner_{4, 1000};
  FetchLanes lanes_{runner_, {.width = 2, .max_waiting = 8}};
};

TEST_F(FetchLanesTest, ALaneThatIsSlowLeavesThreadsToTheOthers) {
  slow_.Close();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(PostSlow());
  Await(begun_, 2);
  std::atomic<int> others{0};
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(lanes_.Post("other " + std::to_string(i), [&others] { ++others; }));
  Await(others, 100);
  EXPECT_EQ(begun_, 2) << "no more than its width";
  slow_.Open();
  Await(ended_, 10);
}

TEST_F(FetchLanesTest, WhatWaitsIsBounded) {
  slow_.Close();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(PostSlow());
  EXPECT_FALSE(PostSlow());
  slow_.Open();
  Await(ended_, 10);
  ASSERT_TRUE(PostSlow()) << "as if nothing had been";
  Await(ended_, 11);
}

TEST_F(FetchLanesTest, ATaskMayPostToItsOwnLane) {
  std::atomic<int> nested{0};
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(lanes_.Post("own", [this, &nested] { nested += lanes_.Post("own", [&nested] { ++nested; }) ? 1 : 0; }));
  }
  Await(nested, 8);
}

}  // namespace
}  // namespace sallyport::token_broker

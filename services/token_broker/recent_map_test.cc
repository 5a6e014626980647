// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/recent_map.h"

#include <gtest/gtest.h>

namespace sallyport::token_broker {
namespace {

TEST(RecentMapTest, TheOneUsedLongestAgoGoesWhateverItsName) {
  RecentMap<int> map(3);
  map.At("a") = 1;
  map.At("b") = 2;
  map.At("c") = 3;
  EXPECT_NE(map.Find("a"), nullptr);

  map.At("d") = 4;
  map.At("c") = 5;
  map.At("e") = 6;

  EXPECT_EQ(map.size(), 3U);
  EXPECT_EQ(map.Find("b"), nullptr);
  EXPECT_EQ(map.Find("a"), nullptr);
  ASSERT_NE(map.Find("c"), nullptr);
  EXPECT_EQ(*map.Find("c"), 5);
  EXPECT_NE(map.Find("d"), nullptr);
  EXPECT_NE(map.Find("e"), nullptr);
}

TEST(RecentMapTest, WhatIsErasedLeavesRoomAndNoTrace) {
  RecentMap<int> map(2);
  map.At("ada\n1") = 1;
  map.At("ada2\n1") = 2;
  map.ErasePrefix("ada\n");
  EXPECT_EQ(map.Find("ada\n1"), nullptr);
  EXPECT_NE(map.Find("ada2\n1"), nullptr);
  map.At("x") = 3;
  EXPECT_NE(map.Find("ada2\n1"), nullptr) << "nothing had to go";
  map.Erase("x");
  map.Erase("x");
  EXPECT_EQ(map.size(), 1U);
  map.Clear();
  EXPECT_EQ(map.At("ada2\n1"), 0);
  EXPECT_EQ(map.size(), 1U);
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/synthetic_sessions.h"

#include <gtest/gtest.h>

namespace sallyport::edge {
namespace {

TEST(SyntheticSessions, RemembersWhatIsReplayed) {
  SyntheticSessions sessions;
  const std::string id = sessions.Create(R"({"a":1})", "2025-11-25", 1);
  EXPECT_TRUE(SyntheticSessions::IsSynthetic(id));
  const auto found = sessions.Find(id);
  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->initialize_params, R"({"a":1})");
  EXPECT_FALSE(found->replayed);
  sessions.SetReplayed(id, "up-1");
  EXPECT_TRUE(sessions.Find(id)->replayed);
  EXPECT_EQ(sessions.Find(id)->upstream_id, "up-1");
  sessions.Erase(id);
  EXPECT_EQ(sessions.Find(id), nullptr);
  sessions.Erase(id);
  sessions.SetReplayed(id, "x");
  EXPECT_EQ(sessions.Find(id), nullptr);
}

TEST(SyntheticSessions, IdsAreRandomAndUpstreamsIdsAreNotOurs) {
  SyntheticSessions sessions;
  EXPECT_NE(sessions.Create("{}", "", 0), sessions.Create("{}", "", 0));
  EXPECT_FALSE(SyntheticSessions::IsSynthetic(""));
  EXPECT_FALSE(SyntheticSessions::IsSynthetic("abc"));
  EXPECT_EQ(sessions.Find("sallyport-link-guess"), nullptr);
}

TEST(SyntheticSessions, ParametersAreKeptUpToTwoKilobytes) {
  SyntheticSessions sessions;
  EXPECT_FALSE(sessions.Create(std::string(2048, 'x'), "", 0).empty());
  EXPECT_TRUE(sessions.Create(std::string(2049, 'x'), "", 0).empty());
}

TEST(SyntheticSessions, TheLongestUnusedGoesFirst) {
  SyntheticSessions sessions;
  const std::string first = sessions.Create("{}", "", 0);
  const std::string second = sessions.Create("{}", "", 0);
  for (size_t i = 2; i < SyntheticSessions::kMaxSessions; ++i) sessions.Create("{}", "", 0);
  EXPECT_NE(sessions.Find(first), nullptr) << "and used now";
  sessions.Create("{}", "", 0);
  EXPECT_NE(sessions.Find(first), nullptr);
  EXPECT_EQ(sessions.Find(second), nullptr);
}

}  // namespace
}  // namespace sallyport::edge

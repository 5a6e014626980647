// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/synthetic_sessions.h"

#include <array>

#include <gmock/gmock.h>

namespace sallyport::edge {
namespace {

using Step = SyntheticSessions::Step;
using Kind = SyntheticSessions::Step::Kind;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

const SessionIdentity kAda = {"srv_a", "okta:ada", "app_x 1\n"};

class SyntheticSessionsTest : public ::testing::Test {
 protected:
  std::string Create(const std::string& params = "{}") { return sessions_.Create("srv_a", "okta:ada", params); }
  Kind Enter(const std::string& id, int caller, const SessionIdentity& identity = kAda) {
    last_ = sessions_.Enter(id, identity, CallerOf(caller), [this, caller](const Step& step) {
      woken_.push_back({caller, step.kind});
      last_ = step;
    });
    return last_.kind;
  }
  static SyntheticSessions::Caller CallerOf(int caller) {
    static const std::array<char, 8> addresses{};
    return &addresses.at(static_cast<size_t>(caller));
  }
  // A session that caller 0 replays, and for which 1 and 2 wait.
  std::string CreateContended() {
    std::string id = Create();
    EXPECT_EQ(Enter(id, 0), Kind::kReplay);
    EXPECT_EQ(Enter(id, 1), Kind::kWait);
    EXPECT_EQ(Enter(id, 2), Kind::kWait);
    return id;
  }
  std::vector<std::pair<int, Kind>> TakeWoken() { return std::exchange(woken_, {}); }

  SyntheticSessions sessions_;
  Step last_;
  std::vector<std::pair<int, Kind>> woken_;
};

TEST_F(SyntheticSessionsTest, OneReplaysAndTheOthersWaitForIt) {
  const std::string id = CreateContended();
  EXPECT_THAT(woken_, IsEmpty());
  sessions_.Replayed(id, CallerOf(0), "up-1");
  EXPECT_THAT(TakeWoken(), ElementsAre(std::pair(1, Kind::kReady), std::pair(2, Kind::kReady)));
  for (int caller = 0; caller < 4; ++caller) {
    EXPECT_EQ(Enter(id, caller), Kind::kReady);
    EXPECT_EQ(last_.upstream_id, "up-1");
  }
  EXPECT_THAT(woken_, IsEmpty());
}

TEST_F(SyntheticSessionsTest, WhoReplaysGetsTheClientsParameters) {
  const std::string id = Create(R"({"a":1})");
  EXPECT_TRUE(SyntheticSessions::IsSynthetic(id));
  EXPECT_EQ(Enter(id, 0), Kind::kReplay);
  EXPECT_EQ(last_.initialize_params, R"({"a":1})");
}

TEST_F(SyntheticSessionsTest, AnUpstreamWithoutSessionsIsReadyToo) {
  const std::string id = Create();
  Enter(id, 0);
  sessions_.Replayed(id, CallerOf(0), "");
  EXPECT_EQ(Enter(id, 1), Kind::kReady);
  EXPECT_EQ(last_.upstream_id, "");
}

TEST_F(SyntheticSessionsTest, ASessionIsItsOwnersOnItsServer) {
  const std::string id = Create();
  EXPECT_EQ(Enter(id, 0, {"srv_a", "okta:bob", "app_x 1\n"}), Kind::kNotFound);
  EXPECT_EQ(Enter(id, 0, {"srv_b", "okta:ada", "app_x 1\n"}), Kind::kNotFound);
  Enter(id, 0);
  sessions_.Replayed(id, CallerOf(0), "up-1");
  EXPECT_EQ(Enter(id, 1, {"srv_a", "okta:bob", "app_x 1\n"}), Kind::kNotFound);
}

TEST_F(SyntheticSessionsTest, WhatOneAccountOpenedIsNotUsedWithAnother) {
  const SessionIdentity other = {"srv_a", "okta:ada", "app_x 2\n"};
  const std::string id = CreateContended();
  EXPECT_EQ(Enter(id, 3, other), Kind::kReplay) << "not waiting for the other account's";
  sessions_.Replayed(id, CallerOf(0), "up-1");
  EXPECT_THAT(TakeWoken(), ElementsAre(std::pair(1, Kind::kReady), std::pair(2, Kind::kReady)));
  EXPECT_EQ(Enter(id, 4, other), Kind::kWait);
  sessions_.Replayed(id, CallerOf(3), "up-2");
  EXPECT_THAT(TakeWoken(), ElementsAre(std::pair(4, Kind::kReady)));
  EXPECT_EQ(Enter(id, 4, other), Kind::kReady);
  EXPECT_EQ(last_.upstream_id, "up-2");
}

TEST_F(SyntheticSessionsTest, ALeaderThatLeavesHandsOnAndThatIsNoFailure) {
  const std::string id = CreateContended();
  sessions_.Leave(id, CallerOf(0));
  EXPECT_THAT(TakeWoken(), ElementsAre(std::pair(1, Kind::kReplay)));
  EXPECT_EQ(Enter(id, 1), Kind::kReplay);
  EXPECT_EQ(last_.initialize_params, "{}");
  sessions_.Leave(id, CallerOf(1));
  EXPECT_THAT(TakeWoken(), ElementsAre(std::pair(2, Kind::kReplay)));
  sessions_.Failed(id, CallerOf(2), std::nullopt);
  EXPECT_THAT(woken_, IsEmpty());
}

TEST_F(SyntheticSessionsTest, WhoWaitsMayLeaveAndIsNotWoken) {
  const std::string id = CreateContended();
  sessions_.Leave(id, CallerOf(1));
  sessions_.Replayed(id, CallerOf(0), "up-1");
  EXPECT_THAT(TakeWoken(), ElementsAre(std::pair(2, Kind::kReady)));
}

TEST_F(SyntheticSessionsTest, OnlyTheLeaderSaysWhatCameOfIt) {
  const std::string id = CreateContended();
  sessions_.Replayed(id, CallerOf(1), "forged");
  sessions_.Failed(id, CallerOf(2), std::nullopt);
  sessions_.Failed(id, CallerOf(5), std::nullopt);
  EXPECT_THAT(woken_, IsEmpty());
  sessions_.Replayed(id, CallerOf(0), "up-1");
  EXPECT_EQ(Enter(id, 0), Kind::kReady);
  EXPECT_EQ(last_.upstream_id, "up-1");
}

TEST_F(SyntheticSessionsTest, AfterAFailureTheNextTriesOnce) {
  const std::string id = CreateContended();
  sessions_.Failed(id, CallerOf(0), UpstreamError::kClosed);
  EXPECT_THAT(TakeWoken(), ElementsAre(std::pair(1, Kind::kReplay)));
  sessions_.Failed(id, CallerOf(1), UpstreamError::kConnect);
  EXPECT_THAT(TakeWoken(), ElementsAre(std::pair(2, Kind::kFailed))) << "not one after the other";
  EXPECT_EQ(last_.error, UpstreamError::kConnect);
  EXPECT_EQ(Enter(id, 3), Kind::kReplay) << "an upstream that was down may be back";
}

TEST_F(SyntheticSessionsTest, ARefusedSessionIsGone) {
  const std::string alone = Create();
  Enter(alone, 0);
  sessions_.Failed(alone, CallerOf(0), std::nullopt);
  EXPECT_EQ(Enter(alone, 1), Kind::kNotFound);

  const std::string id = CreateContended();
  sessions_.Failed(id, CallerOf(0), std::nullopt);
  EXPECT_THAT(TakeWoken(), ElementsAre(std::pair(1, Kind::kReplay)));
  EXPECT_EQ(Enter(id, 3), Kind::kWait);
  sessions_.Failed(id, CallerOf(1), std::nullopt);
  EXPECT_THAT(TakeWoken(), ElementsAre(std::pair(2, Kind::kFailed), std::pair(3, Kind::kFailed)));
  EXPECT_EQ(last_.error, std::nullopt);
  EXPECT_EQ(Enter(id, 4), Kind::kNotFound);
}

TEST_F(SyntheticSessionsTest, WhoIsToReplayWithAnotherAccountHandsOn) {
  const SessionIdentity other = {"srv_a", "okta:ada", "app_x 2\n"};
  const std::string id = CreateContended();
  sessions_.Leave(id, CallerOf(0));
  ASSERT_THAT(TakeWoken(), ElementsAre(std::pair(1, Kind::kReplay)));
  EXPECT_EQ(Enter(id, 1, other), Kind::kReplay);
  EXPECT_THAT(TakeWoken(), ElementsAre(std::pair(2, Kind::kReplay))) << "nobody waits for somebody who is not at it";
}

TEST_F(SyntheticSessionsTest, ErasingTellsWhoWaits) {
  const std::string id = CreateContended();
  sessions_.Erase(id);
  EXPECT_THAT(TakeWoken(), ElementsAre(std::pair(1, Kind::kNotFound), std::pair(2, Kind::kNotFound)));
  sessions_.Erase(id);
  sessions_.Replayed(id, CallerOf(0), "x");
  sessions_.Failed(id, CallerOf(0), std::nullopt);
  sessions_.Leave(id, CallerOf(0));
  EXPECT_EQ(Enter(id, 0), Kind::kNotFound);
}

TEST_F(SyntheticSessionsTest, IdsAreRandomAndUpstreamsIdsAreNotOurs) {
  EXPECT_NE(Create(), Create());
  EXPECT_FALSE(SyntheticSessions::IsSynthetic(""));
  EXPECT_FALSE(SyntheticSessions::IsSynthetic("abc"));
  EXPECT_EQ(Enter("sallyport-link-guess", 0), Kind::kNotFound);
}

TEST_F(SyntheticSessionsTest, ParametersAreKeptUpToTwoKilobytes) {
  EXPECT_FALSE(Create(std::string(2048, 'x')).empty());
  EXPECT_TRUE(Create(std::string(2049, 'x')).empty());
}

TEST_F(SyntheticSessionsTest, TheLongestUnusedGoesFirst) {
  const std::string first = Create();
  const std::string second = Create();
  for (size_t i = 2; i < SyntheticSessions::kMaxSessions; ++i) Create();
  EXPECT_EQ(Enter(first, 0), Kind::kReplay) << "and used now";
  EXPECT_EQ(Enter(second, 0), Kind::kReplay);
  EXPECT_EQ(Enter(second, 1), Kind::kWait);
  EXPECT_EQ(Enter(first, 1), Kind::kWait);
  for (size_t i = 2; i < SyntheticSessions::kMaxSessions; ++i) Create();
  Create();
  EXPECT_THAT(TakeWoken(), ElementsAre(std::pair(1, Kind::kNotFound))) << "nobody is forgotten";
  EXPECT_EQ(Enter(second, 2), Kind::kNotFound);
  EXPECT_EQ(Enter(first, 2), Kind::kWait);
}

}  // namespace
}  // namespace sallyport::edge

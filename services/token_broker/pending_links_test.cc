// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/pending_links.h"

#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/proto_time.h"
#include "services/token_broker/testing/fake_vault_client.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::HasSubstr;
using ::testing::Not;

class PendingLinksTest : public ::testing::Test {
 protected:
  // As the linker begins one.
  std::string Begin(const std::string& subject, const std::string& app_uid) {
    const std::string state = PendingLinks::NewState(subject, app_uid);
    vault::v1::PutRequest put;
    *put.mutable_record() = PendingLinks::RecordOf(state);
    put.set_payload("flow");
    put.set_expected_version(0);
    *put.mutable_next_at() = ToTimestamp(clock_.Now() + absl::Minutes(10));
    EXPECT_THAT(vault_.Put(put, "").status(), IsOk());
    EXPECT_THAT(links_.Bound(state), IsOk());
    return state;
  }
  bool IsPending(const std::string& state) { return !vault_.Head(PendingLinks::RecordOf(state)).empty(); }

  FakeClock clock_;
  testing::FakeVaultClient vault_{clock_};
  PendingLinks links_{vault_};
};

TEST_F(PendingLinksTest, AStateIsNotForGuessingAndNamesNobody) {
  const std::string state = PendingLinks::NewState("corp:ada", "app_1");
  EXPECT_NE(state, PendingLinks::NewState("corp:ada", "app_1"));
  EXPECT_GE(state.size(), 43U + 1 + 32);
  EXPECT_THAT(state, Not(HasSubstr("ada")));
  EXPECT_THAT(PendingLinks::RecordOf(state).name(), Not(HasSubstr(state.substr(0, 20)))) << "only its hash is kept";
}

TEST_F(PendingLinksTest, AStateOfAnEarlierReleaseIsFoundUnderItsHash) {
  EXPECT_EQ(PendingLinks::RecordOf("abc").name(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(PendingLinks::RecordOf("abc.not-a-tag").name().size(), 64U);
}

TEST_F(PendingLinksTest, WithTheEleventhTheOldestGoes) {
  std::vector<std::string> states;
  for (int i = 0; i < 12; ++i) {
    states.push_back(Begin("corp:ada", "app_1"));
    clock_.Advance(absl::Seconds(1));
  }

  EXPECT_FALSE(IsPending(states[0]));
  EXPECT_FALSE(IsPending(states[1]));
  for (size_t i = 2; i < states.size(); ++i) EXPECT_TRUE(IsPending(states[i])) << i;
}

TEST_F(PendingLinksTest, OthersAndOtherAppsAreNotCounted) {
  const std::string bobs = Begin("corp:bob", "app_1");
  const std::string other = Begin("corp:ada", "app_2");
  for (int i = 0; i < 30; ++i) Begin("corp:ada", "app_1");

  EXPECT_TRUE(IsPending(bobs));
  EXPECT_TRUE(IsPending(other));
  EXPECT_EQ(vault_.CountRecords("link_flow"), 12U);
}

TEST_F(PendingLinksTest, TheOneThatWasJustBegunStaysThoughAllAreOfOneMoment) {
  for (int i = 0; i < 40; ++i) EXPECT_TRUE(IsPending(Begin("corp:ada", "app_1"))) << i;
  EXPECT_EQ(vault_.CountRecords("link_flow"), 10U);
}

TEST_F(PendingLinksTest, HoweverManyAreBegunAtOnce) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 10; ++n) Begin("corp:ada", "app_1");
    });
  }
  for (std::thread& thread : threads) thread.join();

  EXPECT_LE(vault_.CountRecords("link_flow"), 10U);
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/fetched_tokens.h"

#include <atomic>
#include <future>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fakes/gate.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;

class FetchedTokensTest : public ::testing::Test {
 protected:
  ~FetchedTokensTest() override {
    gate_.Open();
    runner_.Stop();
  }
  // Gives "token-<n>", good for an hour, unless the test says otherwise.
  FetchedTokens::Fetch Fetch() {
    return [this]() -> absl::StatusOr<std::shared_ptr<ConnectionView>> {
      gate_.Pass();
      const int n = ++fetches_;
      if (!failure_.ok()) return failure_;
      auto view = std::make_shared<ConnectionView>();
      view->state = ConnectionView::State::kLinked;
      view->access_token = Secret("token-" + std::to_string(n));
      view->times = {clock_.Now(), clock_.Now() + life_};
      return view;
    };
  }
  std::future<absl::StatusOr<SharedConnection>> Start(const std::string& key, int64_t refused = 0) {
    auto promise = std::make_shared<std::promise<absl::StatusOr<SharedConnection>>>();
    tokens_.Get(key, refused, FetchedTokens::InLane(lanes_, "endpoint", Fetch()),
                [promise](const auto& token) { promise->set_value(token); });
    return promise->get_future();
  }
  absl::StatusOr<SharedConnection> Get(const std::string& key, int64_t refused = 0) {
    return Start(key, refused).get();
  }
  static std::string Text(const absl::StatusOr<SharedConnection>& token) {
    return token.ok() ? std::string((*token)->access_token.Expose()) : token.status().ToString();
  }
  void AwaitFetches(int count) {
    for (int i = 0; i < 60'000 && fetches_ < count; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    ASSERT_EQ(fetches_, count);
  }

  FakeClock clock_{absl::FromUnixSeconds(1'700'000'000)};
  ::sallyport::testing::Gate gate_;
  std::atomic<int> fetches_{0};
  absl::Status failure_;
  absl::Duration life_ = absl::Hours(1);
  TaskRunner runner_{4, 1000};
  FetchLanes lanes_{runner_, {}};
  FetchedTokens tokens_{clock_, {.max_tokens = 3}};
};

TEST_F(FetchedTokensTest, IsFetchedOnceAndKeptByKey) {
  EXPECT_EQ(Text(Get("a")), "token-1");
  EXPECT_EQ(Text(Get("a")), "token-1");
  EXPECT_EQ(Text(Get("b")), "token-2");
}

TEST_F(FetchedTokensTest, ThoseWhoComeMeanwhileWaitForTheSameFetch) {
  gate_.Close();
  std::vector<std::future<absl::StatusOr<SharedConnection>>> all;
  for (int i = 0; i < 500; ++i) all.push_back(Start("a"));
  gate_.Open();
  for (auto& one : all) EXPECT_EQ(Text(one.get()), "token-1");
  EXPECT_EQ(fetches_, 1);
}

TEST_F(FetchedTokensTest, IsRenewedBeforeItsEndBehindTheCaller) {
  ASSERT_THAT(Get("a"), IsOk());
  clock_.Advance(absl::Minutes(57));
  gate_.Close();
  for (int i = 0; i < 20; ++i) EXPECT_EQ(Text(Get("a")), "token-1") << "still good, and nobody waits";
  gate_.Open();
  AwaitFetches(2);
  for (int i = 0; i < 60'000 && Text(Get("a")) != "token-2"; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(Text(Get("a")), "token-2");
  EXPECT_EQ(fetches_, 2) << "one renewal, however many noticed";
}

TEST_F(FetchedTokensTest, AnEndedTokenIsNeverGiven) {
  ASSERT_THAT(Get("a"), IsOk());
  clock_.Advance(absl::Hours(2));
  failure_ = absl::UnavailableError("down");
  EXPECT_THAT(Get("a"), StatusIs(Code::kUnavailable));
}

TEST_F(FetchedTokensTest, AFailureIsNotTriedAgainAtOnceAndLessAndLessOften) {
  failure_ = absl::UnavailableError("down");
  EXPECT_THAT(Get("a"), StatusIs(Code::kUnavailable));
  const auto again = Get("a");
  EXPECT_THAT(again, StatusIs(Code::kUnavailable));
  EXPECT_GE(DetailOf(again.status()).retry_after, absl::Seconds(1));
  EXPECT_EQ(fetches_, 1);
  int tries = 1;
  absl::Duration pause;
  for (int i = 0; i < 10; ++i) {
    pause = absl::ZeroDuration();
    while (fetches_ == tries) {
      clock_.Advance(absl::Seconds(1));
      pause += absl::Seconds(1);
      Get("a").status().IgnoreError();
    }
    ++tries;
  }
  EXPECT_EQ(pause, absl::Seconds(60)) << "the longest";
  failure_ = absl::OkStatus();
  clock_.Advance(absl::Seconds(60));
  EXPECT_THAT(Get("a"), IsOk());
  clock_.Advance(absl::Hours(2));
  failure_ = absl::UnavailableError("down");
  Get("a").status().IgnoreError();
  clock_.Advance(absl::Seconds(1));
  const int before = fetches_;
  Get("a").status().IgnoreError();
  EXPECT_EQ(fetches_, before + 1) << "begun anew";
}

TEST_F(FetchedTokensTest, WhatTheProviderSaysAboutWaitingIsObeyed) {
  failure_ = WithRetryAfter(absl::UnavailableError("slow down"), absl::Minutes(5));
  Get("a").status().IgnoreError();
  clock_.Advance(absl::Minutes(4));
  EXPECT_EQ(DetailOf(Get("a").status()).retry_after, absl::Minutes(1));
  EXPECT_EQ(fetches_, 1);
}

TEST_F(FetchedTokensTest, AFailedRenewalLeavesTheTokenThatIsStillGood) {
  ASSERT_THAT(Get("a"), IsOk());
  clock_.Advance(absl::Minutes(57));
  failure_ = absl::UnavailableError("down");
  EXPECT_EQ(Text(Get("a")), "token-1");
  AwaitFetches(2);
  EXPECT_EQ(Text(Get("a")), "token-1");
  EXPECT_EQ(fetches_, 2) << "and is not asked for again with every call";
}

TEST_F(FetchedTokensTest, ARefusedTokenIsFetchedAnewOnceAndItsSuccessorNotAtOnce) {
  const int64_t first = (*Get("a"))->version;
  ASSERT_OK_AND_ASSIGN(const SharedConnection second, Get("a", first));
  EXPECT_EQ(second->access_token.Expose(), "token-2");
  EXPECT_GT(second->version, first);
  EXPECT_EQ(Text(Get("a", first)), "token-2") << "those who were refused the first one get what is there now";
  const auto refused = Get("a", second->version);
  EXPECT_THAT(refused, StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(refused.status()), "credential_refused");
  EXPECT_EQ(Text(Get("a")), "token-2") << "who was not refused gets it";
  EXPECT_EQ(fetches_, 2);
  clock_.Advance(absl::Seconds(31));
  EXPECT_EQ(Text(Get("a", second->version)), "token-3");
}

TEST_F(FetchedTokensTest, TheLeastLatelyUsedGoesFirst) {
  for (const char* key : {"a", "b", "c"}) Get(key).status().IgnoreError();
  Get("a").status().IgnoreError();
  Get("d").status().IgnoreError();
  EXPECT_EQ(tokens_.size(), 3U);
  EXPECT_EQ(Text(Get("a")), "token-1");
  EXPECT_EQ(Text(Get("b")), "token-5");
}

TEST_F(FetchedTokensTest, ATokenThatLivesForSecondsIsUsable) {
  life_ = absl::Seconds(3);
  EXPECT_EQ(Text(Get("a")), "token-1");
  EXPECT_EQ(Text(Get("a")), "token-1");
}

}  // namespace
}  // namespace sallyport::token_broker

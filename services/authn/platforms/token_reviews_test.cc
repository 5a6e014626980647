// SPDX-License-Identifier: Apache-2.0
#include "services/authn/platforms/token_reviews.h"

#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "services/authn/platforms/platforms_testing.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fakes/gate.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn::platforms {
namespace {

using ::sallyport::testing::Gate;
using ::sallyport::testing::IsOk;

constexpr char kBot[] = "system:serviceaccount:chat:bot";

class TokenReviewsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto http = ClusterHttp::Create({.policy = LoopbackAllowed().policy, .timeout = absl::Seconds(60)});
    ASSERT_THAT(http, IsOk());
    http_ = *std::move(http);
    reviews_ = std::make_unique<TokenReviews>(*http_, "main", api_.origin(), kAudience);
  }
  // Asks about each token on a thread of its own while the API server holds its answers. Returns when `asked` of them
  // are with the API server and all others wait for one of those.
  std::vector<std::thread> AskAtOnce(const std::vector<std::string>& tokens, int asked) {
    api_.AnswerReview(kBot, nlohmann::json::object(), [this] { gate_.Pass(); });
    gate_.Close();
    std::vector<std::thread> callers;
    for (const std::string& token : tokens) {
      callers.emplace_back([this, token] {
        const auto review = reviews_->Ask(token, clock_.Now());
        ASSERT_THAT(review, IsOk());
        EXPECT_EQ(review->username, kBot);
      });
    }
    EXPECT_TRUE(gate_.AwaitArrivals(asked));
    const int others = static_cast<int>(tokens.size()) - asked;
    for (int i = 0; i < 6'000 && reviews_->waiting() != others; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_EQ(reviews_->waiting(), others);
    return callers;
  }
  void LetThrough(std::vector<std::thread> callers) {
    gate_.Open();
    for (std::thread& caller : callers) caller.join();
    EXPECT_EQ(reviews_->waiting(), 0);
  }

  FakeClock clock_;
  Gate gate_;
  TestApiServer api_;
  std::unique_ptr<ClusterHttp> http_;
  std::unique_ptr<TokenReviews> reviews_;
};

TEST_F(TokenReviewsTest, ManyCallersWithOneTokenAreOneQuestion) {
  LetThrough(AskAtOnce(std::vector<std::string>(8, "one"), /*asked=*/1));
  EXPECT_EQ(api_.requests(), 1);
  EXPECT_THAT(reviews_->Ask("one", clock_.Now()), IsOk());
  EXPECT_EQ(api_.requests(), 1) << "and whoever comes later finds the answer";
}

TEST_F(TokenReviewsTest, CallersWithOtherTokensDoNotWaitForEachOther) {
  LetThrough(AskAtOnce({"one", "two", "one", "three"}, /*asked=*/3));
  EXPECT_EQ(api_.requests(), 3);
}

}  // namespace
}  // namespace sallyport::authn::platforms

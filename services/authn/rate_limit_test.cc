// SPDX-License-Identifier: Apache-2.0
#include "services/authn/rate_limit.h"

#include <gtest/gtest.h>

namespace sallyport::authn {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

TEST(RateLimitTest, ABurstThenOneEveryInterval) {
  RateLimit limit(2, absl::Seconds(10));
  EXPECT_TRUE(limit.Take(kNow));
  EXPECT_TRUE(limit.Take(kNow));
  EXPECT_FALSE(limit.Take(kNow));
  EXPECT_EQ(limit.RetryAfter(kNow), absl::Seconds(10));
  EXPECT_TRUE(limit.Take(kNow + absl::Seconds(10)));
  EXPECT_FALSE(limit.Take(kNow + absl::Seconds(19)));
}

TEST(RateLimitsTest, EachKeyHasItsOwnBucket) {
  RateLimits limits(1, absl::Seconds(10), 100);
  EXPECT_EQ(limits.Take("a", kNow), absl::ZeroDuration());
  EXPECT_EQ(limits.Take("a", kNow + absl::Seconds(4)), absl::Seconds(6));
  EXPECT_EQ(limits.Take("b", kNow), absl::ZeroDuration());
  EXPECT_EQ(limits.Take("a", kNow + absl::Seconds(10)), absl::ZeroDuration());
}

TEST(RateLimitsTest, BeyondItsBoundTheKeyUnusedLongestIsForgotten) {
  RateLimits limits(1, absl::Seconds(10), 2);
  EXPECT_EQ(limits.Take("a", kNow), absl::ZeroDuration());
  EXPECT_EQ(limits.Take("b", kNow), absl::ZeroDuration());
  EXPECT_EQ(limits.Take("a", kNow), absl::Seconds(10)) << "a refused attempt is a use, too";
  EXPECT_EQ(limits.Take("c", kNow), absl::ZeroDuration()) << "b is forgotten";
  EXPECT_EQ(limits.Take("a", kNow), absl::Seconds(10));
  EXPECT_EQ(limits.Take("b", kNow), absl::ZeroDuration());
}

}  // namespace
}  // namespace sallyport::authn

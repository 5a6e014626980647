// SPDX-License-Identifier: Apache-2.0
#include "services/authn/jwks_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/authn/authn_testing.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);
const std::string kUrl = "https://idp.example/jwks";

class JwksCacheTest : public ::testing::Test {
 protected:
  JwksCacheTest() : idp_("https://idp.example"), cache_(fetcher_) { fetcher_.Serve(kUrl, idp_.Jwks()); }
  TestIssuer idp_;
  FakeFetcher fetcher_;
  JwksCache cache_;
};

TEST_F(JwksCacheTest, ABurstOfUnknownKeysIsOneFetchAMinute) {
  ASSERT_THAT(cache_.Get(kUrl, idp_.key().kid(), kNow), IsOk());
  for (int i = 0; i < 10'000; ++i) {
    ASSERT_THAT(cache_.Get(kUrl, absl::StrCat("kid", i), kNow + absl::Seconds(59)), IsOk());
  }
  EXPECT_EQ(fetcher_.fetches(kUrl), 1);
  ASSERT_THAT(cache_.Get(kUrl, "other", kNow + absl::Seconds(60)), IsOk());
  EXPECT_EQ(fetcher_.fetches(kUrl), 2);
}

TEST_F(JwksCacheTest, ANewKeyIsFoundByOneFetch) {
  ASSERT_THAT(cache_.Get(kUrl, idp_.key().kid(), kNow), IsOk());
  const TestIssuer rotated("https://idp.example");
  fetcher_.Serve(kUrl, rotated.Jwks());

  ASSERT_OK_AND_ASSIGN(auto set, cache_.Get(kUrl, rotated.key().kid(), kNow + absl::Minutes(2)));

  EXPECT_EQ(set->keys().at(0).kid(), rotated.key().kid());
}

// Verifies a token of `issuer`, made at `issued_at`.
absl::Status VerifyAt(JwksCache& cache, const TestIssuer& issuer, absl::Time issued_at, absl::Time now) {
  const auto validator = JwtValidator::Builder().IgnoreIssuer().IgnoreAudience().IgnoreType().IgnoreSubject().Build();
  return cache.Verify(issuer.Token(issued_at), kUrl, *validator, now).status();
}

TEST_F(JwksCacheTest, TwoRotationsWithinAMinuteThrowNobodyOut) {
  ASSERT_THAT(VerifyAt(cache_, idp_, kNow, kNow), IsOk());
  const TestIssuer second("https://idp.example");
  fetcher_.Serve(kUrl, second.Jwks());
  ASSERT_THAT(VerifyAt(cache_, second, kNow + absl::Seconds(60), kNow + absl::Seconds(60)), IsOk());
  const TestIssuer third("https://idp.example");
  fetcher_.Serve(kUrl, third.Jwks());
  const absl::Time now = kNow + absl::Seconds(80);

  const absl::Status early = VerifyAt(cache_, third, now, now);

  EXPECT_THAT(early, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(ReasonOf(early), "unknown_key");
  EXPECT_EQ(DetailOf(early).retry_after, absl::Seconds(40));
  EXPECT_THAT(VerifyAt(cache_, third, now, now + absl::Seconds(40)), IsOk());
}

TEST_F(JwksCacheTest, AKeyThatWasLookedForAndIsNotThereIsUnknown) {
  ASSERT_THAT(VerifyAt(cache_, idp_, kNow, kNow), IsOk());
  const TestIssuer stranger("https://idp.example");
  const absl::Time now = kNow + absl::Minutes(2);
  EXPECT_THAT(VerifyAt(cache_, stranger, now, now), StatusIs(absl::StatusCode::kNotFound)) << "fetched for this token";
  EXPECT_THAT(VerifyAt(cache_, stranger, now, now + absl::Seconds(1)), StatusIs(absl::StatusCode::kUnavailable));
}

// Whoever holds a token of a key that is long gone must be sent to sign in, also while strangers use up the lookups.
TEST_F(JwksCacheTest, ATokenOlderThanTheKeysIsRefusedAtOnce) {
  ASSERT_THAT(VerifyAt(cache_, idp_, kNow, kNow), IsOk());
  const TestIssuer gone("https://idp.example");
  const absl::Time now = kNow + absl::Seconds(30);
  EXPECT_THAT(VerifyAt(cache_, gone, kNow - absl::Hours(1), now), StatusIs(absl::StatusCode::kNotFound));
  EXPECT_THAT(VerifyAt(cache_, gone, kNow - absl::Seconds(59), now), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(fetcher_.fetches(kUrl), 1);
}

TEST_F(JwksCacheTest, StrangersKidsForceNoFetchAndLockNobodyOut) {
  ASSERT_THAT(VerifyAt(cache_, idp_, kNow, kNow), IsOk());
  absl::Time now = kNow;
  for (int i = 0; i < 240; ++i, now += absl::Seconds(1)) {
    const TestIssuer stranger("https://idp.example");
    EXPECT_FALSE(VerifyAt(cache_, stranger, now, now).ok());
    EXPECT_THAT(VerifyAt(cache_, idp_, kNow, now), IsOk());
  }
  EXPECT_LE(fetcher_.fetches(kUrl), 4) << "once a minute";
}

TEST_F(JwksCacheTest, ANewKeyOfAnIssuerThatIsDownIsNotTheCallersFault) {
  ASSERT_THAT(VerifyAt(cache_, idp_, kNow, kNow), IsOk());
  fetcher_.TakeDown(kUrl);
  const double failures = oauth::FetchFailures("jwks").Value();
  const TestIssuer rotated("https://idp.example");
  const absl::Time now = kNow + absl::Minutes(10);
  EXPECT_EQ(ReasonOf(VerifyAt(cache_, rotated, now, now)), "unknown_key");
  EXPECT_THAT(VerifyAt(cache_, rotated, now, now), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(VerifyAt(cache_, idp_, kNow, now), IsOk());
  EXPECT_EQ(oauth::FetchFailures("jwks").Value(), failures + 1);
}

TEST_F(JwksCacheTest, ARemovedKeyIsGoneAfterFiveMinutes) {
  ASSERT_THAT(cache_.Get(kUrl, idp_.key().kid(), kNow), IsOk());
  fetcher_.Serve(kUrl, TestIssuer("https://idp.example").Jwks());

  ASSERT_OK_AND_ASSIGN(auto held, cache_.Get(kUrl, idp_.key().kid(), kNow + absl::Minutes(5) - absl::Seconds(1)));
  EXPECT_EQ(held->keys().at(0).kid(), idp_.key().kid());
  ASSERT_OK_AND_ASSIGN(auto fetched, cache_.Get(kUrl, idp_.key().kid(), kNow + absl::Minutes(5)));
  EXPECT_NE(fetched->keys().at(0).kid(), idp_.key().kid());
}

TEST_F(JwksCacheTest, TheLastGoodSetIsUsedForADayAndThenNothing) {
  ASSERT_THAT(cache_.Get(kUrl, idp_.key().kid(), kNow), IsOk());
  fetcher_.TakeDown(kUrl);

  EXPECT_THAT(cache_.Get(kUrl, idp_.key().kid(), kNow + absl::Hours(24) - absl::Seconds(1)), IsOk());
  EXPECT_THAT(cache_.Get(kUrl, idp_.key().kid(), kNow + absl::Hours(24)), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(JwksCacheTest, WhatIsNoKeySetNeverReplacesAGoodOne) {
  ASSERT_THAT(cache_.Get(kUrl, idp_.key().kid(), kNow), IsOk());
  for (const std::string& garbage : {std::string("<html>"), std::string(R"({"keys":[]})"), std::string(300'000, ' ')}) {
    fetcher_.Serve(kUrl, garbage);
    ASSERT_OK_AND_ASSIGN(auto set, cache_.Get(kUrl, idp_.key().kid(), kNow + absl::Hours(1)));
    EXPECT_EQ(set->keys().at(0).kid(), idp_.key().kid());
  }
}

TEST_F(JwksCacheTest, AnIssuerThatNeverAnsweredIsAskedAgainSoon) {
  fetcher_.TakeDown(kUrl);
  EXPECT_THAT(cache_.Get(kUrl, std::nullopt, kNow), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(cache_.Get(kUrl, std::nullopt, kNow + absl::Seconds(4)), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(fetcher_.fetches(kUrl), 1);
  fetcher_.Serve(kUrl, idp_.Jwks());
  EXPECT_THAT(cache_.Get(kUrl, std::nullopt, kNow + absl::Seconds(5)), IsOk());
}

TEST_F(JwksCacheTest, UrlsAreBoundedOldestUnusedFirst) {
  ASSERT_THAT(cache_.Get(kUrl, std::nullopt, kNow), IsOk());
  for (size_t i = 0; i < JwksCache::kMaxUrls; ++i) {
    cache_.Get(absl::StrCat("https://idp.example/", i), std::nullopt, kNow + absl::Seconds(1)).status().IgnoreError();
  }
  ASSERT_THAT(cache_.Get(kUrl, std::nullopt, kNow + absl::Seconds(2)), IsOk());
  EXPECT_EQ(fetcher_.fetches(kUrl), 2);
}

}  // namespace
}  // namespace sallyport::authn

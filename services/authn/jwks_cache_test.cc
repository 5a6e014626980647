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

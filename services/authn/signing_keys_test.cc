// SPDX-License-Identifier: Apache-2.0
#include "services/authn/signing_keys.h"

#include <algorithm>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/authn/authn_testing.h"
#include "services/authn/edge_keys.h"
#include "services/authn/passports.h"
#include "services/authn/rate_limit.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::SizeIs;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);
constexpr absl::Duration kDay = absl::Hours(24);

std::vector<SigningKey> Advance(const std::vector<SigningKey>& keys, absl::Time now) {
  auto out = AdvanceKeyset(keys, absl::Hours(1), now);
  EXPECT_THAT(out, IsOk());
  return *out;
}

TEST(AdvanceKeysetTest, TheFirstKeySignsAtOnce) {
  const auto keys = Advance({}, kNow);
  ASSERT_THAT(keys, SizeIs(1));
  EXPECT_EQ(keys[0].active_at, kNow);
  EXPECT_EQ(keys[0].retired_at, absl::InfiniteFuture());
}

TEST(AdvanceKeysetTest, TheNextKeyIsPublishedADayBeforeItSigns) {
  const auto first = Advance({}, kNow);
  EXPECT_THAT(Advance(first, kNow + 28 * kDay), SizeIs(1));

  const auto published = Advance(first, kNow + 29 * kDay);
  ASSERT_THAT(published, SizeIs(2));
  EXPECT_EQ(published[1].active_at, absl::InfiniteFuture());

  const auto switched = Advance(published, kNow + 30 * kDay);
  EXPECT_EQ(switched[0].retired_at, kNow + 30 * kDay);
  EXPECT_EQ(switched[1].active_at, kNow + 30 * kDay);
}

TEST(AdvanceKeysetTest, ALatePublicationStillGivesADaysNotice) {
  const auto published = Advance(Advance({}, kNow), kNow + 60 * kDay);
  ASSERT_THAT(published, SizeIs(2));
  EXPECT_EQ(Advance(published, kNow + 60 * kDay + kDay - absl::Seconds(1))[1].active_at, absl::InfiniteFuture());
  EXPECT_NE(Advance(published, kNow + 61 * kDay)[1].active_at, absl::InfiniteFuture());
}

TEST(AdvanceKeysetTest, AFormerKeyVerifiesUntilTheLastTokenItSignedIsOver) {
  auto keys = Advance(Advance({}, kNow), kNow + 29 * kDay);
  keys = Advance(keys, kNow + 30 * kDay);
  EXPECT_THAT(Advance(keys, kNow + 30 * kDay + absl::Hours(2) - absl::Seconds(1)), SizeIs(2));
  EXPECT_THAT(Advance(keys, kNow + 30 * kDay + absl::Hours(2)), SizeIs(1));
}

TEST(SigningKeysTest, ReplicasShareOneKeyset) {
  FakeVaultClient vault;
  SigningKeys one(vault, absl::Hours(1));
  SigningKeys two(vault, absl::Hours(1));
  ASSERT_THAT(one.Refresh(kNow), IsOk());
  ASSERT_THAT(two.Refresh(kNow), IsOk());

  EXPECT_EQ((*one.Active())->kid(), (*two.Active())->kid());
  EXPECT_EQ(vault.writes(), 1);
}

TEST(SigningKeysTest, PublishesNoPrivateHalf) {
  FakeVaultClient vault;
  SigningKeys keys(vault, absl::Hours(1));
  ASSERT_THAT(keys.Refresh(kNow), IsOk());
  ASSERT_OK_AND_ASSIGN(std::string jwks, keys.Jwks());

  EXPECT_EQ(jwks.find("\"d\""), std::string::npos);
  EXPECT_THAT(JwkSet::Parse(jwks), IsOk());
}

TEST(SigningKeysTest, WithoutTheVaultThereAreNoKeysAndHeldOnesStay) {
  FakeVaultClient vault;
  vault.Fail(absl::UnavailableError("sealed"));
  SigningKeys keys(vault, absl::Hours(1));
  EXPECT_THAT(keys.Refresh(kNow), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(keys.Active(), StatusIs(absl::StatusCode::kUnavailable));

  vault.Fail(absl::OkStatus());
  ASSERT_THAT(keys.Refresh(kNow), IsOk());
  vault.Fail(absl::UnavailableError("sealed"));
  EXPECT_THAT(keys.Refresh(kNow + absl::Hours(1)), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_THAT(keys.Active(), IsOk());
}

TEST(EdgeKeysTest, ANewKeyVerifiesAnHourBeforeItSigns) {
  const auto first = AdvanceEdgeKeys({}, "1", kNow);
  ASSERT_THAT(first, SizeIs(1));

  const auto noticed = AdvanceEdgeKeys(first, "2", kNow + kDay);
  ASSERT_THAT(noticed, SizeIs(2));
  EXPECT_EQ(noticed[0].key, "1");

  const auto switched = AdvanceEdgeKeys(noticed, "3", kNow + kDay + absl::Hours(1));
  ASSERT_THAT(switched, SizeIs(2));
  EXPECT_EQ(switched[0].key, "2");
  EXPECT_EQ(switched[1].key, "1");
}

TEST(EdgeKeysTest, TheKeyBeforeThePreviousIsForgotten) {
  auto keys = AdvanceEdgeKeys(AdvanceEdgeKeys({}, "1", kNow), "2", kNow + kDay);
  keys = AdvanceEdgeKeys(keys, "3", kNow + 2 * kDay);
  keys = AdvanceEdgeKeys(keys, "4", kNow + 2 * kDay + absl::Hours(1));

  ASSERT_THAT(keys, SizeIs(2));
  EXPECT_EQ(keys[0].key, "3");
  EXPECT_EQ(keys[1].key, "2");
}

TEST(EdgeKeysTest, ReplicasGiveTheSameKeysAndKeepThemWhileTheVaultIsDown) {
  FakeVaultClient vault;
  EdgeKeys one(vault);
  EdgeKeys two(vault);
  ASSERT_OK_AND_ASSIGN(EdgeKeys::Answer a, one.Get(kNow));
  ASSERT_OK_AND_ASSIGN(EdgeKeys::Answer b, two.Get(kNow));
  EXPECT_EQ(a.keys, b.keys);
  EXPECT_EQ(a.keys[0].size(), 32u);

  vault.Fail(absl::UnavailableError("sealed"));
  EXPECT_THAT(one.Get(kNow + absl::Hours(2)), IsOk());
  EdgeKeys fresh(vault);
  EXPECT_THAT(fresh.Get(kNow), StatusIs(absl::StatusCode::kUnavailable));
}

class PassportsTest : public ::testing::Test {
 protected:
  PassportsTest() : keys_(vault_, absl::Hours(1)), passports_("https://gw.example", keys_) {
    EXPECT_THAT(keys_.Refresh(kNow), IsOk());
    passport_.subject = "corp:ann";
  }
  FakeVaultClient vault_;
  SigningKeys keys_;
  Passports passports_;
  Passport passport_;
};

TEST_F(PassportsTest, LivesFiveMinutesAtMost) {
  ASSERT_OK_AND_ASSIGN(Passport minted, passports_.Mint(passport_, kNow + absl::Hours(1), kNow));
  EXPECT_EQ(minted.expires_at, kNow + absl::Minutes(5));

  PassportVerifier verifier("https://gw.example", OwnKeySource(keys_));
  EXPECT_THAT(verifier.Verify(minted.jwt, kNow + absl::Minutes(5) - absl::Seconds(1)), IsOk());
  EXPECT_THAT(verifier.Verify(minted.jwt, kNow + absl::Minutes(5)), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(PassportsTest, NeverOutlivesItsToken) {
  ASSERT_OK_AND_ASSIGN(Passport minted, passports_.Mint(passport_, kNow + absl::Seconds(20), kNow));
  EXPECT_EQ(minted.expires_at, kNow + absl::Seconds(20));
  EXPECT_THAT(passports_.Mint(passport_, kNow, kNow), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST(RateLimitTest, GivesABurstAndThenOneAnInterval) {
  RateLimit limit(3, absl::Seconds(10));
  EXPECT_TRUE(limit.Take(kNow));
  EXPECT_TRUE(limit.Take(kNow));
  EXPECT_TRUE(limit.Take(kNow));
  EXPECT_FALSE(limit.Take(kNow));
  EXPECT_EQ(limit.RetryAfter(kNow), absl::Seconds(10));
  EXPECT_FALSE(limit.Take(kNow + absl::Seconds(9)));
  EXPECT_TRUE(limit.Take(kNow + absl::Seconds(10)));
  EXPECT_FALSE(limit.Take(kNow + absl::Seconds(10)));
}

}  // namespace
}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/token_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/token_broker/testing/failing_vault_client.h"
#include "services/token_broker/testing/fake_vault_client.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/redis.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::token_broker {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const ConnectionKey kAda{"corp:ada", "app_1"};
constexpr char kPassport[] = "passport-of:corp:ada";

std::shared_ptr<ConnectionView> View(int64_t generation, int64_t version, absl::Time now) {
  auto view = std::make_shared<ConnectionView>();
  view->state = ConnectionView::State::kLinked;
  view->generation = generation;
  view->version = version;
  view->access_token = Secret(absl::StrCat("canary-", generation, "-", version));
  view->times = {now, now + absl::Hours(1)};
  view->scopes = {"repo"};
  view->can_refresh = true;
  view->provenance.set_token_origin("https://a.example");
  view->provenance.set_binding("binding");
  view->provenance_sealed = true;
  return view;
}

constexpr char kRedisKey[] = "sallyport:token:ab";

TEST(CacheSealerTest, ValueOpensForItsConnectionOnly) {
  const CacheSealer sealer(Secret(std::string(32, 'r')), 20'000, 1);
  const CacheSealer other(Secret(std::string(32, 's')), 20'000, 1);
  ASSERT_OK_AND_ASSIGN(const std::string value,
                       sealer.Seal(kAda, *View(7, 9, absl::FromUnixSeconds(1'800'000'000)), kRedisKey));

  ASSERT_OK_AND_ASSIGN(const SharedConnection view, sealer.Open(kAda, value, kRedisKey));
  EXPECT_EQ(view->access_token.Expose(), "canary-7-9");
  EXPECT_EQ(view->generation, 7);
  EXPECT_EQ(view->version, 9);
  EXPECT_EQ(view->provenance.token_origin(), "https://a.example");
  EXPECT_EQ(view->provenance.binding(), "binding");
  EXPECT_EQ(CacheSealer::GenerationOf(value), 7);
  EXPECT_FALSE(sealer.Open({"corp:bob", "app_1"}, value, kRedisKey).ok());
  EXPECT_FALSE(sealer.Open({"corp:ada", "app_2"}, value, kRedisKey).ok());
  EXPECT_FALSE(sealer.Open({"corp:adaa", "pp_1"}, value, kRedisKey).ok());
  EXPECT_FALSE(sealer.Open(kAda, value, "sallyport:token:cd").ok());
  EXPECT_TRUE(absl::IsDataLoss(other.Open(kAda, value, kRedisKey).status()));
}

TEST(CacheSealerTest, AnotherRootIsToldFromDamage) {
  const CacheSealer sealer(Secret(std::string(32, 'r')), 20'000, 1);
  ASSERT_OK_AND_ASSIGN(const std::string value, sealer.Seal(kAda, *View(7, 9, absl::Now()), kRedisKey));
  for (const auto& [day, key_version] : {std::pair<int64_t, int32_t>{20'001, 1}, {20'000, 2}}) {
    const CacheSealer later(Secret(std::string(32, 's')), day, key_version);
    EXPECT_TRUE(absl::IsNotFound(later.Open(kAda, value, kRedisKey).status()));
  }
}

TEST(CacheSealerTest, EveryChangedByteIsNoticedAndNothingShows) {
  const CacheSealer sealer(Secret(std::string(32, 'r')), 20'000, 1);
  ASSERT_OK_AND_ASSIGN(const std::string value, sealer.Seal(kAda, *View(7, 9, absl::Now()), kRedisKey));
  for (size_t i = 0; i < value.size(); ++i) {
    std::string changed = value;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    EXPECT_FALSE(sealer.Open(kAda, changed, kRedisKey).ok()) << i;
  }
  EXPECT_FALSE(sealer.Open(kAda, "", kRedisKey).ok());
  EXPECT_FALSE(sealer.Open(kAda, value.substr(0, 20), kRedisKey).ok());
  EXPECT_THAT(value, Not(HasSubstr("canary")));
  EXPECT_THAT(CacheNames(Secret(std::string(32, 'r'))).KeyFor(kAda), Not(HasSubstr("ada")));
}

class TokenCacheTest : public ::testing::Test {
 protected:
  // Whose values are cached has a connection, and with it a key of their own.
  TokenCacheTest() : cache_(vault_, nullptr, clock_) {
    vault::v1::PutRequest put;
    *put.mutable_record() = ConnectionRecord("corp:ada", "app_1");
    EXPECT_TRUE(vault_.Put(put, kPassport).ok());
  }
  FakeClock clock_{absl::Now()};
  testing::FakeVaultClient vault_{clock_};
  TokenCache cache_;
};

TEST_F(TokenCacheTest, EntryIsBelievedAsLongAsTheCallerAllows) {
  cache_.Put(kAda, View(1, 1, clock_.Now()), false, kPassport);
  clock_.Advance(absl::Seconds(6));

  EXPECT_EQ(cache_.Get(kAda, absl::Seconds(5)), nullptr);
  EXPECT_NE(cache_.Get(kAda, absl::Seconds(60)), nullptr);
  EXPECT_EQ(cache_.Get({"corp:ada", "app_2"}, absl::Seconds(60)), nullptr);
}

TEST_F(TokenCacheTest, OlderGenerationIsForgottenAndDoesNotComeBack) {
  cache_.Put(kAda, View(1, 1, clock_.Now()), false, kPassport);

  cache_.Invalidate(kAda.ToString(), 2);
  cache_.Put(kAda, View(1, 5, clock_.Now()), false, kPassport);

  EXPECT_EQ(cache_.Get(kAda, absl::Hours(1)), nullptr);
  cache_.Put(kAda, View(2, 6, clock_.Now()), false, kPassport);
  EXPECT_NE(cache_.Get(kAda, absl::Hours(1)), nullptr);
}

TEST_F(TokenCacheTest, VersionThatTheVaultStillGivesIsBelievedAndNoOtherOfItsGeneration) {
  cache_.Invalidate(kAda.ToString(), 2);

  cache_.PutRead(kAda, View(1, 5, clock_.Now()), cache_.Mark());
  EXPECT_NE(cache_.Get(kAda, absl::Hours(1)), nullptr);
  cache_.Put(kAda, View(1, 6, clock_.Now()), false, kPassport);
  EXPECT_EQ(cache_.Get(kAda, absl::Hours(1)), nullptr);
}

TEST_F(TokenCacheTest, ReadThatBeganBeforeAnInvalidationHealsNothing) {
  cache_.Invalidate(kAda.ToString(), 2);
  const uint64_t before = cache_.Mark();
  cache_.PutRead(kAda, View(1, 5, clock_.Now()), before);
  ASSERT_NE(cache_.Get(kAda, absl::Hours(1)), nullptr);

  cache_.Invalidate(kAda.ToString(), 2);
  EXPECT_EQ(cache_.Get(kAda, absl::Hours(1)), nullptr);
  cache_.PutRead(kAda, View(1, 5, clock_.Now()), before);
  cache_.Put(kAda, View(1, 5, clock_.Now()), false, kPassport);

  EXPECT_EQ(cache_.Get(kAda, absl::Hours(1)), nullptr);
}

TEST_F(TokenCacheTest, ReadThatBeganBeforeANewLinkWasSeenHealsNothing) {
  const uint64_t before = cache_.Mark();
  cache_.Put(kAda, View(2, 6, clock_.Now()), false, kPassport);

  cache_.PutRead(kAda, View(1, 5, clock_.Now()), before);

  EXPECT_EQ(cache_.Get(kAda, absl::Hours(1)), nullptr);
  cache_.PutRead(kAda, View(2, 6, clock_.Now()), before);
  EXPECT_EQ(cache_.Get(kAda, absl::Hours(1))->generation, 2);
}

TEST_F(TokenCacheTest, LateReadDoesNotReplaceANewerVersion) {
  cache_.Put(kAda, View(1, 5, clock_.Now()), false, kPassport);
  cache_.Put(kAda, View(1, 4, clock_.Now()), false, kPassport);
  EXPECT_EQ(cache_.Get(kAda, absl::Hours(1))->version, 5);
}

TEST_F(TokenCacheTest, SubjectIsForgottenWholeAndNobodyElse) {
  cache_.Put(kAda, View(1, 1, clock_.Now()), false, kPassport);
  cache_.Put({"corp:ada2", "app_1"}, View(1, 1, clock_.Now()), false, kPassport);

  cache_.InvalidateSubject("corp:ada");

  EXPECT_EQ(cache_.Get(kAda, absl::Hours(1)), nullptr);
  EXPECT_NE(cache_.Get({"corp:ada2", "app_1"}, absl::Hours(1)), nullptr);
}

TEST_F(TokenCacheTest, FullCacheLosesWhoCalledLongestAgoWhateverTheirName) {
  TokenCache small(vault_, nullptr, clock_, 2);
  small.Put({"corp:ada", "app_1"}, View(1, 1, clock_.Now()), false, kPassport);
  small.Put({"corp:zoe", "app_1"}, View(1, 1, clock_.Now()), false, kPassport);
  EXPECT_NE(small.Get({"corp:ada", "app_1"}, absl::Hours(1)), nullptr);

  small.Put({"corp:mia", "app_1"}, View(1, 1, clock_.Now()), false, kPassport);

  EXPECT_EQ(small.Get({"corp:zoe", "app_1"}, absl::Hours(1)), nullptr);
  EXPECT_NE(small.Get({"corp:ada", "app_1"}, absl::Hours(1)), nullptr);
  EXPECT_NE(small.Get({"corp:mia", "app_1"}, absl::Hours(1)), nullptr);
}

class SharedTokenCacheTest : public TokenCacheTest {
 protected:
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(server_, ::sallyport::testing::TestRedis::Start());
    RedisOptions options;
    options.address = server_->address();
    options.timeout = absl::Seconds(1);
    redis_ = *RedisClient::Create(std::move(options));
    mine_ = std::make_unique<TokenCache>(vault_, redis_.get(), clock_);
    other_ = std::make_unique<TokenCache>(vault_, redis_.get(), clock_);
  }
  std::unique_ptr<::sallyport::testing::TestRedis> server_;
  std::unique_ptr<RedisClient> redis_;
  std::unique_ptr<TokenCache> mine_;
  std::unique_ptr<TokenCache> other_;
};

TEST_F(SharedTokenCacheTest, WhatOneReplicaPutsAnotherFinds) {
  mine_->Put(kAda, View(3, 4, clock_.Now()), true, kPassport);

  const SharedConnection found = other_->GetShared(kAda, kPassport);

  ASSERT_NE(found, nullptr);
  EXPECT_EQ(found->access_token.Expose(), "canary-3-4");
  EXPECT_EQ(other_->GetShared({"corp:bob", "app_1"}, "passport-of:corp:bob"), nullptr);
  const auto raw = redis_->Get(other_->DoorbellKey(kAda));
  ASSERT_TRUE(raw.ok() && raw->has_value());
  EXPECT_THAT(**raw, Not(HasSubstr("canary")));
}

TEST_F(SharedTokenCacheTest, OlderGenerationThanHeardOfIsAMiss) {
  mine_->Put(kAda, View(3, 4, clock_.Now()), true, kPassport);
  other_->Invalidate(kAda.ToString(), 4);
  EXPECT_EQ(other_->GetShared(kAda, kPassport), nullptr);
}

// Read from the vault, without an invalidation: what Redis still holds is older.
TEST_F(SharedTokenCacheTest, OlderGenerationThanSeenIsAMiss) {
  mine_->Put(kAda, View(3, 4, clock_.Now()), true, kPassport);
  other_->Put(kAda, View(4, 5, clock_.Now()), false, kPassport);
  EXPECT_EQ(other_->GetShared(kAda, kPassport), nullptr);
}

TEST_F(SharedTokenCacheTest, WhatIsForgottenIsTakenAwayForAll) {
  mine_->Put(kAda, View(3, 4, clock_.Now()), true, kPassport);
  mine_->Forget(kAda, 4);
  EXPECT_EQ(mine_->Get(kAda, absl::Hours(1)), nullptr);
  EXPECT_EQ(other_->GetShared(kAda, kPassport), nullptr) << "though it has heard of nothing";
}

TEST_F(SharedTokenCacheTest, ValueThatDoesNotOpenIsAMissAndRemoved) {
  mine_->Put(kAda, View(3, 4, clock_.Now()), true, kPassport);
  const std::string key = mine_->DoorbellKey(kAda);
  std::string value = **redis_->Get(key);
  value.back() = static_cast<char>(value.back() ^ 1);
  ASSERT_TRUE(redis_->Set(key, value, absl::Minutes(1)).ok());

  EXPECT_EQ(other_->GetShared(kAda, kPassport), nullptr);
  EXPECT_FALSE(redis_->Get(key)->has_value());
}

TEST_F(SharedTokenCacheTest, HealedVersionIsFoundAndNoOtherOfItsGeneration) {
  other_->Invalidate(kAda.ToString(), 4);
  other_->PutRead(kAda, View(3, 5, clock_.Now()), other_->Mark());
  mine_->Put(kAda, View(3, 4, clock_.Now()), true, kPassport);
  EXPECT_EQ(other_->GetShared(kAda, kPassport), nullptr);
  mine_->Put(kAda, View(3, 5, clock_.Now()), true, kPassport);
  EXPECT_NE(other_->GetShared(kAda, kPassport), nullptr);
}

TEST_F(SharedTokenCacheTest, ValueThatDoesNotSayWhoseProviderItIsOfIsAMiss) {
  std::shared_ptr<ConnectionView> view = View(3, 4, clock_.Now());
  view->provenance.clear_token_origin();
  mine_->Put(kAda, view, true, kPassport);
  EXPECT_EQ(other_->GetShared(kAda, kPassport), nullptr);
}

TEST_F(SharedTokenCacheTest, OpensOnlyWithAPassportOfItsUser) {
  mine_->Put(kAda, View(3, 4, clock_.Now()), true, kPassport);
  EXPECT_EQ(other_->GetShared(kAda, ""), nullptr);
  EXPECT_EQ(other_->GetShared(kAda, "passport-of:corp:eve"), nullptr);
  clock_.Advance(absl::Seconds(2));
  EXPECT_NE(other_->GetShared(kAda, kPassport), nullptr);
}

TEST_F(SharedTokenCacheTest, WhatIsRenewedWhileNobodyCallsIsNotShared) {
  mine_->Put(kAda, View(3, 4, clock_.Now()), true, "");
  EXPECT_FALSE(redis_->Get(mine_->DoorbellKey(kAda))->has_value());
  EXPECT_NE(mine_->Get(kAda, absl::Hours(1)), nullptr);
}

TEST_F(SharedTokenCacheTest, AReplacedDataKeyIsAMissAndNoFailure) {
  mine_->Put(kAda, View(3, 4, clock_.Now()), true, kPassport);
  const std::string key = mine_->DoorbellKey(kAda);
  EXPECT_NE(other_->DoorbellKey(kAda), "");  // The organization's root is known before.
  vault_.RotateDataKeys();
  EXPECT_EQ(other_->GetShared(kAda, kPassport), nullptr);
  EXPECT_TRUE(redis_->Get(key)->has_value()) << "it is good for those who know the former root";
}

TEST_F(SharedTokenCacheTest, EndedTokenIsAMiss) {
  mine_->Put(kAda, View(3, 4, clock_.Now()), true, kPassport);
  clock_.Advance(absl::Hours(1) - absl::Seconds(30));
  EXPECT_EQ(other_->GetShared(kAda, kPassport), nullptr);
}

TEST_F(SharedTokenCacheTest, WithoutRedisItIsAMiss) {
  mine_->Put(kAda, View(3, 4, clock_.Now()), true, kPassport);
  server_->Stop();
  EXPECT_EQ(other_->GetShared(kAda, kPassport), nullptr);
  mine_->Put(kAda, View(3, 5, clock_.Now()), true, kPassport);
  EXPECT_EQ(mine_->Get(kAda, absl::Hours(1))->version, 5);
}

// A value that was written ten minutes before midnight (UTC), when the roots change.
class TokenCacheAtMidnightTest : public SharedTokenCacheTest {
 protected:
  void SetUp() override {
    SharedTokenCacheTest::SetUp();
    clock_.Set(midnight_ - absl::Minutes(10));
    mine_->Put(kAda, Lasting(3, 4), true, kPassport);
    former_key_ = mine_->DoorbellKey(kAda);
  }
  std::shared_ptr<ConnectionView> Lasting(int64_t generation, int64_t version) const {
    std::shared_ptr<ConnectionView> view = View(generation, version, clock_.Now());
    view->times.expires_at = clock_.Now() + absl::Hours(24);
    return view;
  }
  // Of the value that a replica without memory finds; 0 if it finds none.
  int64_t VersionFound() {
    const SharedConnection found = TokenCache(vault_, redis_.get(), clock_).GetShared(kAda, kPassport);
    return found == nullptr ? 0 : found->version;
  }
  const absl::Time midnight_ = absl::FromUnixSeconds((absl::ToUnixSeconds(absl::Now()) / 86'400 + 1) * 86'400);
  std::string former_key_;
};

TEST_F(TokenCacheAtMidnightTest, ValueOfYesterdayIsFoundForAnHour) {
  ASSERT_NE(other_->GetShared(kAda, kPassport), nullptr);
  for (const absl::Duration after : {absl::ZeroDuration(), absl::Minutes(59)}) {
    clock_.Set(midnight_ + after);
    EXPECT_EQ(VersionFound(), 4);
    EXPECT_NE(other_->GetShared(kAda, kPassport), nullptr) << "a replica that ran before midnight";
    EXPECT_EQ(other_->GetShared(kAda, "")->version, 4) << "whose root of this day is known";
  }
  clock_.Set(midnight_ + absl::Hours(1));
  EXPECT_EQ(VersionFound(), 0);
  EXPECT_EQ(other_->GetShared(kAda, kPassport), nullptr);
}

TEST_F(TokenCacheAtMidnightTest, NewValueTakesTheFormerOnesPlace) {
  clock_.Set(midnight_ + absl::Minutes(1));
  mine_->Put(kAda, Lasting(3, 5), true, kPassport);
  EXPECT_EQ(VersionFound(), 5);
  EXPECT_NE(mine_->DoorbellKey(kAda), former_key_);
  EXPECT_FALSE(redis_->Get(former_key_)->has_value());
}

TEST_F(TokenCacheAtMidnightTest, WhatIsForgottenIsTakenAwayUnderBothNames) {
  clock_.Set(midnight_ + absl::Minutes(1));
  mine_->Forget(kAda, 4);
  EXPECT_EQ(VersionFound(), 0);
  EXPECT_FALSE(redis_->Get(former_key_)->has_value());
}

TEST_F(TokenCacheAtMidnightTest, AReplacedDataKeyOpensNothingOfYesterday) {
  clock_.Set(midnight_ + absl::Minutes(1));
  ASSERT_EQ(VersionFound(), 4);
  const OfDay<CacheNames> names = CacheRoots(vault_, clock_, 10).Names();
  vault_.RotateDataKeys();
  const OfDay<CacheSealer> sealers = CacheRoots(vault_, clock_, 10).SealerOf(kAda.subject, kPassport);
  const std::string value = **redis_->Get(former_key_);
  EXPECT_EQ(names.former->KeyFor(kAda), former_key_);
  EXPECT_TRUE(absl::IsNotFound(sealers.current->Open(kAda, value, former_key_).status()));
  EXPECT_TRUE(absl::IsNotFound(sealers.former->Open(kAda, value, former_key_).status()));
}

TEST_F(TokenCacheAtMidnightTest, ReplicaThatCannotAskTheVaultGoesOnWithYesterdaysRootsForAnHour) {
  testing::FailingVaultClient vault(vault_);
  TokenCache cut_off(vault, redis_.get(), clock_);
  ASSERT_NE(cut_off.GetShared(kAda, kPassport), nullptr);
  vault.before_roots_ = [] { return absl::UnavailableError("down"); };
  clock_.Set(midnight_ + absl::Minutes(59));
  EXPECT_NE(cut_off.GetShared(kAda, kPassport), nullptr);
  clock_.Set(midnight_ + absl::Hours(1));
  EXPECT_EQ(cut_off.GetShared(kAda, kPassport), nullptr);
}

TEST_F(TokenCacheAtMidnightTest, WhatIsRenewedWhileNobodyCallsIsSharedUnderYesterdaysRootForAnHour) {
  clock_.Set(midnight_ + absl::Minutes(1));
  mine_->Put(kAda, Lasting(3, 5), true, "");
  EXPECT_EQ(VersionFound(), 5);
  clock_.Set(midnight_ + absl::Hours(1));
  mine_->Put(kAda, Lasting(3, 6), true, "");
  EXPECT_EQ(VersionFound(), 0) << "5 is under a root that is over, and 6 was not shared";
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/admission_cache.h"

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "services/token_broker/platform/budgets.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);
constexpr absl::Duration kAnyAge = absl::InfiniteDuration();

AdmissionCache::Answer Admitted(std::vector<std::string> ended_by, absl::Time until = kNow + absl::Minutes(5)) {
  auto admission = std::make_shared<Admission>();
  admission->platform = "chat";
  admission->asked_at = kNow;
  admission->valid_until = until;
  admission->ended_by = std::move(ended_by);
  return SharedAdmission(std::move(admission));
}

TEST(AdmissionCacheTest, AdmissionIsKeptUntilItEnds) {
  AdmissionCache cache;
  cache.Put("a", Admitted({}), cache.Mark(), kNow);
  EXPECT_TRUE(cache.Find("a", kAnyAge, kNow + absl::Minutes(4)).has_value());
  EXPECT_FALSE(cache.Find("a", kAnyAge, kNow + absl::Minutes(5)).has_value());
  EXPECT_FALSE(cache.Find("b", kAnyAge, kNow).has_value());
  EXPECT_FALSE(cache.Find("a", absl::Seconds(5), kNow + absl::Seconds(6)).has_value());
}

TEST(AdmissionCacheTest, EndOfOneThingEndsWhatHangsOnIt) {
  AdmissionCache cache;
  cache.Put("a1", Admitted({"TOKEN 1", "SUBJECT ada"}), cache.Mark(), kNow);
  cache.Put("a2", Admitted({"TOKEN 2", "SUBJECT ada"}), cache.Mark(), kNow);
  cache.Put("b", Admitted({"TOKEN 3", "SUBJECT bob"}), cache.Mark(), kNow);
  cache.End({"TOKEN 1"});
  EXPECT_FALSE(cache.Find("a1", kAnyAge, kNow).has_value());
  EXPECT_TRUE(cache.Find("a2", kAnyAge, kNow).has_value());
  cache.End({"SUBJECT ada"});
  EXPECT_FALSE(cache.Find("a2", kAnyAge, kNow).has_value());
  EXPECT_TRUE(cache.Find("b", kAnyAge, kNow).has_value());
  cache.Clear();
  EXPECT_FALSE(cache.Find("b", kAnyAge, kNow).has_value());
}

TEST(AdmissionCacheTest, AnswerOfBeforeAnEndIsNotKept) {
  AdmissionCache cache;
  const uint64_t mark = cache.Mark();
  cache.End({"SUBJECT ada"});
  cache.Put("a", Admitted({"SUBJECT ada"}), mark, kNow);
  EXPECT_FALSE(cache.Find("a", kAnyAge, kNow).has_value());
}

TEST(AdmissionCacheTest, StrangersDisplaceNobody) {
  AdmissionCache cache;
  cache.Put("a", Admitted({}), cache.Mark(), kNow);
  for (size_t i = 0; i < AdmissionCache::kMaxRefused + 10; ++i) {
    cache.Put(absl::StrCat("x", i), absl::UnauthenticatedError("no"), cache.Mark(), kNow);
  }
  EXPECT_TRUE(cache.Find("a", kAnyAge, kNow).has_value());
  EXPECT_FALSE(cache.Find("x0", kAnyAge, kNow).has_value());
  ASSERT_TRUE(cache.Find("x100", kAnyAge, kNow).has_value());
  EXPECT_FALSE(cache.Find("x100", kAnyAge, kNow + AdmissionCache::kRefusalKept).has_value());
  cache.Put("down", absl::UnavailableError("down"), cache.Mark(), kNow);
  EXPECT_FALSE(cache.Find("down", kAnyAge, kNow).has_value());
}

TEST(AdmissionCacheTest, ThoseNotUsedForLongestGoFirst) {
  AdmissionCache cache;
  for (size_t i = 0; i < AdmissionCache::kMaxAdmitted; ++i) {
    cache.Put(absl::StrCat(i), Admitted({absl::StrCat("TOKEN ", i)}), cache.Mark(), kNow);
  }
  ASSERT_TRUE(cache.Find("0", kAnyAge, kNow).has_value());
  cache.Put("new", Admitted({}), cache.Mark(), kNow);
  EXPECT_TRUE(cache.Find("0", kAnyAge, kNow).has_value());
  EXPECT_FALSE(cache.Find("1", kAnyAge, kNow).has_value());
  // What has gone is not found by what would have ended it.
  cache.End({"TOKEN 1"});
  EXPECT_TRUE(cache.Find("new", kAnyAge, kNow).has_value());
}

TEST(BudgetsTest, SoManyAtOnceAndSoManyASecond) {
  Budgets budgets(10);
  const Budgets::Limit limit = {.per_second = 2, .at_once = 3};
  const absl::Duration now = absl::Hours(1);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(budgets.Take("a", limit, now), absl::ZeroDuration());
  EXPECT_EQ(budgets.Take("a", limit, now), absl::Milliseconds(500));
  EXPECT_EQ(budgets.Peek("a", limit, now), absl::Milliseconds(500));
  EXPECT_EQ(budgets.Take("b", limit, now), absl::ZeroDuration());
  EXPECT_EQ(budgets.Take("a", limit, now + absl::Milliseconds(500)), absl::ZeroDuration());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(budgets.Take("a", limit, now + absl::Hours(1)), absl::ZeroDuration());
  EXPECT_NE(budgets.Take("a", limit, now + absl::Hours(1)), absl::ZeroDuration());
}

TEST(BudgetsTest, ManyNewKeysDoNotMakeASpentOneForgotten) {
  Budgets budgets(100);
  const Budgets::Limit limit = {.per_second = 1, .at_once = 10};
  for (int i = 0; i < 10; ++i) ASSERT_EQ(budgets.Take("spent", limit, absl::Hours(1)), absl::ZeroDuration());
  for (int i = 0; i < 1'000; ++i) {
    EXPECT_EQ(budgets.Take(absl::StrCat("key", i), limit, absl::Hours(1)), absl::ZeroDuration());
  }
  EXPECT_NE(budgets.Take("spent", limit, absl::Hours(1)), absl::ZeroDuration());
}

TEST(BudgetsTest, NewKeysForgetThoseThatSpentNothing) {
  Budgets budgets(2);
  const Budgets::Limit limit = {.per_second = 1, .at_once = 1};
  EXPECT_EQ(budgets.Take("spent", limit, absl::Hours(1)), absl::ZeroDuration());
  EXPECT_EQ(budgets.Take("idle", limit, absl::Hours(1) - absl::Minutes(1)), absl::ZeroDuration());
  EXPECT_EQ(budgets.Take("new", limit, absl::Hours(1)), absl::ZeroDuration());
  EXPECT_NE(budgets.Take("spent", limit, absl::Hours(1)), absl::ZeroDuration());
}

}  // namespace
}  // namespace sallyport::token_broker

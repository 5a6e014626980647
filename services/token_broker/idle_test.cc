// SPDX-License-Identifier: Apache-2.0
// Accounts that nobody uses.
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/proto_time.h"
#include "services/token_broker/background.h"
#include "services/token_broker/testing/background_test_base.h"
#include "services/token_broker/testing/failing_vault_client.h"

namespace sallyport::token_broker {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsSupersetOf;
using ::testing::Not;

class IdleTest : public testing::BackgroundTestBase {
 protected:
  // What is configured, and a day: the vault notes no use sooner than a day after the one before.
  static constexpr absl::Duration kIdle = absl::Hours(24 * 30);

  void SetUp() override {
    BackgroundTestBase::SetUp();
    MakeBackground(kIdle - absl::Hours(24));
  }
  void Use(const std::string& subject, const std::string& connection = kUp) {
    vault::v1::GetRequest get;
    *get.mutable_record() = ConnectionRecord(subject, connection);
    EXPECT_TRUE(peers_.vault.Get(get, PassportOf(subject)).ok());
  }
};

TEST_F(IdleTest, AConnectionThatIsNotUsedForLongIsEndedAndRevoked) {
  PutLinked("corp:idle", kUp, "rt-idle");
  PutLinked("corp:busy", kUp, "rt-busy");
  Use("corp:idle");
  clock_for_all_.Advance(kIdle + absl::Hours(1));
  Use("corp:busy");
  MakeDue("corp:idle", kUp, "OK");
  MakeDue("corp:busy", kUp, "OK");

  background_->RunOnce();

  EXPECT_FALSE(IsThere({"corp:idle", kUp}));
  EXPECT_TRUE(IsThere({"corp:busy", kUp}));
  EXPECT_THAT(asked(), IsSupersetOf({"/up/revoke rt-idle", "/up/token "}));
  EXPECT_THAT(asked(), Not(Contains("/up/revoke rt-busy")));
  EXPECT_THAT(Audited(), IsSupersetOf({"link.idle_revoked  corp:idle", "link.revoked revoked corp:idle"}));
  EXPECT_EQ(peers_.registry.invalidations().at(0).key(), absl::StrCat("corp:idle\n", kUp, "\n"));
}

TEST_F(IdleTest, AUseThatTheVaultDidNotNoteCountsToo) {
  PutLinked("corp:ada", kUp, "rt0");
  Use("corp:ada");
  clock_for_all_.Advance(absl::Hours(23));
  Use("corp:ada");
  clock_for_all_.Advance(kIdle - absl::Hours(24));
  MakeDue("corp:ada", kUp, "OK");

  background_->RunOnce();

  EXPECT_TRUE(IsThere({"corp:ada", kUp}));
}

TEST_F(IdleTest, AnAccountThatNeedsItsUserIsEndedToo) {
  PutLinked("corp:ada", kUp, "rt0");
  Use("corp:ada");
  clock_for_all_.Advance(kIdle + absl::Hours(1));
  MakeDue("corp:ada", kUp, "NEEDS_REAUTH");

  background_->RunOnce();

  EXPECT_FALSE(IsThere({"corp:ada", kUp}));
  EXPECT_THAT(asked(), Contains("/up/revoke rt0"));
}

TEST_F(IdleTest, WhatCouldNotBeEndedIsNotSaidToHaveEnded) {
  PutLinked("corp:ada", kUp, "rt0");
  clock_for_all_.Advance(kIdle + absl::Hours(1));
  MakeDue("corp:ada", kUp, "OK");
  const vault::v1::RecordMetadata due = peers_.vault.MetadataOf(ConnectionRecord("corp:ada", kUp));
  testing::FailingVaultClient vault(peers_.vault);
  vault.before_owe_ = [] { return absl::UnavailableError("down"); };
  Renewals renewals(vault, *connections_, *refresher_, *invalidations_, *audit_, clock_, kIdle - absl::Hours(24));

  EXPECT_FALSE(renewals.Work(due));

  EXPECT_TRUE(IsThere({"corp:ada", kUp}));
  EXPECT_TRUE(Events().empty());
  EXPECT_GT(NextAt("corp:ada", kUp), clock_.Now()) << "and it is tried again";
}

TEST_F(IdleTest, ByDefaultNothingIsEnded) {
  MakeBackground(absl::InfiniteDuration());
  PutLinked("corp:idle", kUp, "rt-idle");
  Use("corp:idle");
  clock_for_all_.Advance(absl::Hours(24 * 365));
  MakeDue("corp:idle", kUp, "OK");

  background_->RunOnce();

  EXPECT_TRUE(IsThere({"corp:idle", kUp}));
  EXPECT_THAT(asked(), ElementsAre("/up/token "));
}

// Whoever used it while the lane had its name is not disconnected.
TEST_F(IdleTest, UseBetweenTheListAndTheLeaseCounts) {
  PutLinked("corp:ada", kUp, "rt0");
  Use("corp:ada");
  clock_for_all_.Advance(kIdle + absl::Hours(1));
  MakeDue("corp:ada", kUp, "OK");
  const vault::v1::RecordMetadata listed = peers_.vault.MetadataOf(ConnectionRecord("corp:ada", kUp));
  Use("corp:ada");

  EXPECT_FALSE(renewals_->Work(listed));

  EXPECT_TRUE(IsThere({"corp:ada", kUp}));
  EXPECT_TRUE(Owed().empty());
}

TEST_F(IdleTest, AConnectionWithoutARefreshTokenIsLookedAtAgainWhenItWillBeIdle) {
  PutLinked("corp:ada", kUp, "");
  Use("corp:ada");
  clock_for_all_.Advance(absl::Hours(24 * 29 + 12));
  MakeDue("corp:ada", kUp, "OK");

  background_->RunOnce();

  EXPECT_TRUE(asked().empty());
  EXPECT_EQ(NextAt("corp:ada", kUp), FromTimestamp(ToTimestamp(clock_.Now() + absl::Hours(12))));
  clock_for_all_.Advance(absl::Hours(13));
  background_->RunOnce();
  EXPECT_FALSE(IsThere({"corp:ada", kUp}));
  EXPECT_THAT(asked(), ElementsAre("/up/revoke at0-of-corp:ada"));
}

TEST_F(IdleTest, TheTokensOfASignInEndWithIt) {
  PutLinked("corp:ada", "sso:corp", "rt0");
  Use("corp:ada", "sso:corp");
  clock_for_all_.Advance(kIdle + absl::Hours(1));
  MakeDue("corp:ada", "sso:corp", "OK");

  background_->RunOnce();

  EXPECT_TRUE(IsThere({"corp:ada", "sso:corp"}));
  EXPECT_TRUE(Owed().empty());
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
// Links that were in flight when everything of their user was ended; on both engines.
#include "services/vault/testing/revocations.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using testing::Broker;
using testing::Connection;
using testing::Ending;
using testing::kUser;
using testing::Name;

class EndedOwnersTest : public testing::RevocationTest {
 protected:
  static absl::Time At(int second) { return absl::FromUnixSeconds(second); }
  static Caller IssuedAt(int second, const std::string& user = kUser) {
    Caller caller = Broker(user, Passport::Purpose::kLink);
    caller.passport->issued_at = At(second);
    return caller;
  }
  void End(int second, const std::string& user = kUser) {
    Caller caller = Ending({.subject = user});
    caller.passport->issued_at = At(second);
    ASSERT_THAT(DeleteOwner(caller, user), IsOk());
  }
};

INSTANTIATE_TEST_SUITE_P(Engines, EndedOwnersTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(EndedOwnersTest, LinkOfBeforeIsOwedAndNotStored) {
  // One that waits for its user to confirm it, too.
  for (const std::string state : {"", "REVOKE_PENDING"}) {
    const std::string name = state.empty() ? "app_1" : "app_1/~";
    const std::string user = state.empty() ? "corp:bob" : "corp:eve";
    Link(user, name, "rt0", {}, state);
    End(100, user);
    for (const int second : {99, 100}) {
      v1::PutRequest put;
      *put.mutable_record() = Connection(user, name);
      put.set_payload("late");
      put.set_state(state);
      put.set_expected_version(0);
      (*put.mutable_labels())["scope"] = "read";
      const auto stored = harness_->vault->Put(IssuedAt(second, user), put);
      ASSERT_THAT(stored, IsOk());
      EXPECT_EQ(stored->version(), 0);
      EXPECT_EQ(stored->owed().connection().name(), name);
      const v1::RecordMetadata& revocation = stored->owed().revocation();
      EXPECT_EQ(revocation.labels().at("app_uid"), "app_1");
      EXPECT_EQ(revocation.labels().at("subject"), user);
      EXPECT_EQ(revocation.labels().at("scope"), "read");
      EXPECT_EQ(PayloadOf(revocation), "late");
    }
    EXPECT_TRUE(IsGone(name, user));
  }
  EXPECT_TRUE(harness_->Query("SELECT owner_id FROM data_key WHERE owner_type = 'user' AND wrapped <> ''").empty())
      << "no key of theirs comes back with it";
  const auto events = Audited("vault.revocation_owed");
  ASSERT_EQ(events.size(), 6U) << "of two users: what was linked, and twice what came late";
  EXPECT_EQ(events.back().rule(), "user_ended");
}

TEST_P(EndedOwnersTest, LinkThatNeverWasThereIsATombstoneThen) {
  End(100);
  const auto stored = harness_->Put(IssuedAt(99), Connection(), "late");
  ASSERT_THAT(stored, IsOk());
  EXPECT_EQ(stored->generation(), 2);
  EXPECT_TRUE(IsGone());
  const auto again = harness_->Put(IssuedAt(101), Connection(), "of a new sign-in");
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(again->generation(), 3) << "no cache takes it for the one that ended";
}

TEST_P(EndedOwnersTest, LinkOfANewSignInStays) {
  End(100);
  ASSERT_THAT(harness_->Put(IssuedAt(101), Connection(), "of a new sign-in"), IsOk());
  const auto late = harness_->Put(IssuedAt(100), Connection(), "late");
  ASSERT_THAT(late, IsOk());
  EXPECT_EQ(PayloadOf(late->owed().revocation()), "late");
  EXPECT_EQ(Read(), "of a new sign-in");
  EXPECT_FALSE(harness_->Put(IssuedAt(100, "corp:bob"), Connection("corp:bob"), "of bob")->has_owed());
  EXPECT_EQ(Read("app_1", "corp:bob"), "of bob");
}

// Its payload may be the tokens of the link that is there.
TEST_P(EndedOwnersTest, AnotherVersionOfALinkIsRefusedAndNotOwed) {
  End(100);
  ASSERT_THAT(harness_->Put(IssuedAt(101), Connection(), "of a new sign-in"), IsOk());
  v1::PutRequest put;
  *put.mutable_record() = Connection();
  put.set_payload("of a new sign-in");
  put.set_keep_generation(true);
  EXPECT_EQ(ReasonOf(harness_->vault->Put(IssuedAt(100), put).status()), "user_ended");
  EXPECT_TRUE(Revocations().empty());
  EXPECT_EQ(Read(), "of a new sign-in");
}

TEST_P(EndedOwnersTest, CredentialOfBeforeIsRefused) {
  End(100);
  v1::PutRequest put;
  *put.mutable_record() = Name(v1::USER, kUser, "credential", "crd_1");
  put.set_payload("key");
  put.add_origins("https://api.example");
  EXPECT_EQ(ReasonOf(harness_->vault->Put(IssuedAt(100), put).status()), "user_ended");
  EXPECT_THAT(harness_->vault->Put(IssuedAt(101), put), IsOk());
}

TEST_P(EndedOwnersTest, WhatIsNotedLateTakesNothingBackAndIsForgottenAfterAnHour) {
  End(100);
  End(50);
  EXPECT_TRUE(harness_->Put(IssuedAt(99), Connection(), "late")->has_owed());
  harness_->Sql("UPDATE ended_owner SET noted_at = noted_at - 3700000000");
  End(100, "corp:bob");
  const Rows rows = harness_->Query("SELECT owner_id FROM ended_owner");
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].Text("owner_id"), "corp:bob");
}

TEST_P(EndedOwnersTest, WithoutATokenNothingIsOwed) {
  End(100);
  const auto stored = harness_->Put(IssuedAt(99), Connection(), "");
  ASSERT_THAT(stored, IsOk());
  EXPECT_TRUE(stored->has_owed());
  EXPECT_FALSE(stored->owed().has_revocation());
  EXPECT_TRUE(Revocations().empty());
}

}  // namespace
}  // namespace sallyport::vault

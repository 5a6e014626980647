// SPDX-License-Identifier: Apache-2.0
#include "services/vault/rewrap.h"

#include <atomic>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/error.h"
#include "services/vault/testing/harness.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using testing::Broker;
using testing::Connection;
using testing::Harness;
using testing::Registry;
using testing::ServerSecret;
using testing::Service;
using Code = absl::StatusCode;

class RewrapTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_THAT(sallyport::testing::TestPostgres::Start(), IsOk());
    }
    harness_ = std::make_unique<Harness>(GetParam());
  }
  static std::string User(int i) { return absl::StrCat("corp:user-", i); }
  void Populate(int users) {
    for (int i = 0; i < users; ++i) {
      ASSERT_THAT(harness_->Put(Broker(User(i)), Connection(User(i)), absl::StrCat("token-", i)), IsOk());
    }
  }
  void Rotate() { ASSERT_THAT(harness_->admin->RotateTerm(Service("edge")), IsOk()); }
  absl::StatusOr<RewrapJob::Result> Run(int limit) {
    return RewrapJob(*harness_->database, *harness_->keyring).Run(limit);
  }
  int64_t Count(const std::string& where) {
    return harness_->Query(absl::StrCat("SELECT COUNT(*) AS n FROM data_key WHERE ", where))[0].Int("n");
  }
  absl::StatusOr<v1::DestroyTermResponse> Destroy(int term) {
    v1::DestroyTermRequest request;
    request.set_term(term);
    return harness_->admin->DestroyTerm(Service("edge"), request);
  }
  std::unique_ptr<Harness> harness_;
};

INSTANTIATE_TEST_SUITE_P(Engines, RewrapTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(RewrapTest, ANewTermMakesNewDataKeysAndLeavesTheOldReadable) {
  Populate(1);
  Rotate();
  EXPECT_EQ(harness_->Payload(Broker(User(0)), Connection(User(0))), "token-0");
  EXPECT_EQ(Count("owner_id = 'corp:user-0'"), 1);
  // Lazily: the next write takes a key of the new term.
  ASSERT_THAT(harness_->Put(Broker(User(0)), Connection(User(0), "app_2"), "second"), IsOk());
  EXPECT_EQ(Count("owner_id = 'corp:user-0' AND term = 2"), 1);
  EXPECT_EQ(Count("owner_id = 'corp:user-0' AND term = 1"), 1);
  EXPECT_EQ(harness_->Payload(Broker(User(0)), Connection(User(0))), "token-0");
  EXPECT_EQ(harness_->Payload(Broker(User(0)), Connection(User(0), "app_2")), "second");
}

TEST_P(RewrapTest, OwnersOfEveryTypeAreBroughtOver) {
  Populate(3);
  ASSERT_THAT(harness_->Put(Registry(), ServerSecret(), "key"), IsOk());
  ASSERT_THAT(harness_->Put(Service("authn"), testing::Name(v1::SYSTEM, "authn", "signing_key", "k"), "sk"), IsOk());
  Rotate();
  const auto done = Run(100);
  ASSERT_THAT(done, IsOk());
  EXPECT_EQ(done->keys, 6);  // The vault's own among them.
  EXPECT_EQ(done->records, 6);
  EXPECT_EQ(done->remaining, 0);
  EXPECT_EQ(Count("term = 1"), 0);
  harness_->Restart();
  EXPECT_EQ(harness_->Payload(Broker(User(2)), Connection(User(2))), "token-2");
  EXPECT_EQ(harness_->Payload(Service("token_broker"), ServerSecret()), "key");
  EXPECT_EQ(harness_->Payload(Service("authn"), testing::Name(v1::SYSTEM, "authn", "signing_key", "k")), "sk");
}

TEST_P(RewrapTest, GoesOnWhereItWasInterrupted) {
  Populate(25);
  Rotate();
  EXPECT_EQ(Run(10)->remaining, 16);
  harness_->Restart();  // Dies.
  for (int i = 0; i < 25; ++i) {
    EXPECT_EQ(harness_->Payload(Broker(User(i)), Connection(User(i))), absl::StrCat("token-", i));
  }
  EXPECT_EQ(Run(10)->remaining, 6);
  EXPECT_EQ(Run(10)->remaining, 0);
  EXPECT_EQ(Run(10)->keys, 0);
}

TEST_P(RewrapTest, AnOwnerOfManyRecordsIsBroughtOverInParts) {
  for (int i = 0; i < 450; ++i) {
    ASSERT_THAT(harness_->Put(Registry(), ServerSecret(absl::StrCat("srv_", i, "/x")), absl::StrCat("key-", i)),
                IsOk());
  }
  Rotate();
  const auto done = Run(100);
  ASSERT_THAT(done, IsOk());
  EXPECT_EQ(done->records, 451);
  EXPECT_EQ(done->remaining, 0);
  EXPECT_EQ(harness_->Payload(Service("token_broker"), ServerSecret("srv_449/x")), "key-449");
}

TEST_P(RewrapTest, WhatIsDamagedStaysAndHoldsUpNobody) {
  Populate(3);
  Rotate();
  harness_->Sql(
      "UPDATE record_version SET sealed = :x WHERE rid = (SELECT rid FROM record WHERE owner_id = "
      "'corp:user-1')",
      {{"x", Bytes{std::string("SP\x02\x01\0\0\0\x01", 8) + std::string(124, 'x')}}});
  const auto done = Run(100);
  ASSERT_THAT(done, IsOk());
  EXPECT_EQ(done->damaged, 1);
  EXPECT_EQ(done->remaining, 1);
  EXPECT_EQ(harness_->Payload(Broker(User(2)), Connection(User(2))), "token-2");
  EXPECT_THAT(Destroy(1), StatusIs(Code::kFailedPrecondition, "1 data keys are under it"));
}

TEST_P(RewrapTest, ALeaseThatIsOutstandingIsAnsweredAllTheSame) {
  Populate(1);
  const std::string lease = harness_->Acquire(Connection(User(0)), Broker(User(0)))->lease().id();
  Rotate();
  EXPECT_EQ(Run(100)->remaining, 0);
  ASSERT_THAT(harness_->PutLeased(Connection(User(0)), lease, "renewed"), IsOk());
  EXPECT_EQ(harness_->Payload(Broker(User(0)), Connection(User(0))), "renewed");
  EXPECT_EQ(Count("term = 1"), 0);
}

TEST_P(RewrapTest, ReadersAndWritersGoOnMeanwhile) {
  constexpr int kUsers = 40;
  Populate(kUsers);
  Rotate();
  std::atomic<bool> stop{false};
  std::atomic<int> failed{0};
  std::thread others([&] {
    for (int n = 0; !stop; ++n) {
      const std::string user = User(n % kUsers);
      if (!harness_->Get(Broker(user), Connection(user)).ok()) {
        ++failed;
      }
      if (n % 7 == 0 && !harness_->Put(Broker(user), Connection(user, "app_2"), "again").ok()) {
        ++failed;
      }
    }
  });
  int64_t remaining = 1;
  for (int i = 0; i < 100 && remaining > 0; ++i) {
    const auto done = Run(5);
    ASSERT_THAT(done, IsOk());
    remaining = done->remaining;
  }
  stop = true;
  others.join();
  EXPECT_EQ(remaining, 0);
  EXPECT_EQ(failed, 0);
}

TEST_P(RewrapTest, ATermIsDestroyedOnceNothingIsUnderIt) {
  Populate(1);
  EXPECT_THAT(Destroy(1), StatusIs(Code::kFailedPrecondition, "active"));
  EXPECT_THAT(Destroy(7), StatusIs(Code::kNotFound));
  EXPECT_THAT(Destroy(0), StatusIs(Code::kInvalidArgument));
  Rotate();
  const auto early = Destroy(1);
  EXPECT_THAT(early, StatusIs(Code::kFailedPrecondition, "rewrap first"));
  EXPECT_EQ(ReasonOf(early.status()), "term_in_use");
  ASSERT_EQ(Run(100)->remaining, 0);
  ASSERT_THAT(Destroy(1), IsOk());
  ASSERT_THAT(Destroy(1), IsOk()) << "said twice";
  const Rows rows = harness_->Query("SELECT state, wrapped FROM keyring WHERE term = 1");
  EXPECT_EQ(rows[0].Text("state"), "destroyed");
  EXPECT_EQ(rows[0].Text("wrapped"), "");
  harness_->Restart();
  EXPECT_EQ(harness_->Payload(Broker(User(0)), Connection(User(0))), "token-0");
}

TEST_P(RewrapTest, AShreddedOwnerIsNotBroughtBack) {
  Populate(2);
  Rotate();
  ASSERT_THAT(harness_->Put(Broker(User(0)), Connection(User(0), "app_2"), "second"), IsOk());
  v1::DeleteOwnerRequest request;
  request.set_owner_type(v1::USER);
  request.set_owner_id(User(0));
  ASSERT_THAT(harness_->vault->DeleteOwner(Broker(User(0)), request), IsOk());
  EXPECT_EQ(Count("owner_id = 'corp:user-0' AND wrapped <> ''"), 0);
  EXPECT_EQ(Run(100)->remaining, 0);
  EXPECT_THAT(harness_->Get(Broker(User(0)), Connection(User(0))), StatusIs(Code::kNotFound));
}

}  // namespace
}  // namespace sallyport::vault

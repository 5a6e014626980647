// SPDX-License-Identifier: Apache-2.0
// The refresh lease: at most one holder, no answer lost, no old generation brought back.
#include <atomic>
#include <memory>
#include <random>
#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "common/error.h"
#include "common/status_macros.h"
#include "services/vault/testing/harness.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using testing::Broker;
using testing::Connection;
using testing::Harness;
using testing::Service;
using Code = absl::StatusCode;

class LeaseTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_THAT(sallyport::testing::TestPostgres::Start(), IsOk());
    }
    harness_ = std::make_unique<Harness>(GetParam());
    ASSERT_THAT(harness_->Put(Broker(), Connection(), "rt0"), IsOk());
  }
  v1::AcquireLeaseResponse::Lease Take() {
    const auto acquired = harness_->Acquire(Connection());
    EXPECT_THAT(acquired, IsOk());
    EXPECT_TRUE(acquired.ok() && acquired->has_lease());
    return acquired.ok() ? acquired->lease() : v1::AcquireLeaseResponse::Lease();
  }
  std::string Head() { return harness_->Payload(Broker(), Connection()); }
  std::unique_ptr<Harness> harness_;
};

INSTANTIATE_TEST_SUITE_P(Engines, LeaseTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(LeaseTest, HolderGetsHeadPayloadAndGeneration) {
  const auto lease = Take();
  EXPECT_EQ(lease.payload(), "rt0");
  EXPECT_EQ(lease.head(), 1);
  EXPECT_EQ(lease.generation(), 1);
  EXPECT_EQ(lease.epoch(), 1);
  EXPECT_EQ(lease.side_size(), 0);
  EXPECT_FALSE(lease.took_over());
  EXPECT_EQ(lease.remaining().seconds(), 30);
}

TEST_P(LeaseTest, SecondComerIsHeldOff) {
  Take();
  const auto second = harness_->Acquire(Connection());
  ASSERT_TRUE(second->has_held());
  EXPECT_EQ(second->held().metadata().epoch(), 1);
  EXPECT_GT(second->held().retry_after().nanos(), 0);
}

TEST_P(LeaseTest, OfManyAtOnceExactlyOneHolds) {
  std::atomic<int> held = 0;
  std::atomic<int> leases = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      const auto acquired = harness_->Acquire(Connection());
      EXPECT_THAT(acquired, IsOk());
      ++(acquired.ok() && acquired->has_lease() ? leases : held);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(leases, 1);
  EXPECT_EQ(held, 7);
}

TEST_P(LeaseTest, AnswerBecomesTheHeadAndEndsTheLease) {
  const auto lease = Take();
  const auto put = harness_->PutLeased(Connection(), lease.id(), "rt1");
  ASSERT_THAT(put, IsOk());
  EXPECT_EQ(put->version(), 2);
  EXPECT_EQ(put->generation(), 1);
  EXPECT_FALSE(put->side());
  EXPECT_EQ(Head(), "rt1");
  EXPECT_FALSE(Take().took_over());
}

TEST_P(LeaseTest, RepeatedAnswerIsTheSameAnswer) {
  const auto lease = Take();
  ASSERT_EQ(harness_->PutLeased(Connection(), lease.id(), "rt1")->version(), 2);
  const auto again = harness_->PutLeased(Connection(), lease.id(), "rt1");
  EXPECT_EQ(again->version(), 2);
  EXPECT_FALSE(again->side());
  EXPECT_EQ(Take().side_size(), 0);
}

TEST_P(LeaseTest, SecondDifferentAnswerIsKeptAside) {
  const auto lease = Take();
  ASSERT_THAT(harness_->PutLeased(Connection(), lease.id(), "rt1"), IsOk());
  EXPECT_TRUE(harness_->PutLeased(Connection(), lease.id(), "rt1b")->side());
  EXPECT_EQ(Head(), "rt1");
  EXPECT_EQ(Take().side(0).payload(), "rt1b");
}

TEST_P(LeaseTest, LapsedLeaseIsTakenOver) {
  Take();
  harness_->LapseLeases();
  const auto next = Take();
  EXPECT_TRUE(next.took_over());
  EXPECT_EQ(next.epoch(), 2);
}

TEST_P(LeaseTest, LateAnswerWithoutASuccessorIsTheHead) {
  const auto lease = Take();
  harness_->LapseLeases();
  EXPECT_FALSE(harness_->PutLeased(Connection(), lease.id(), "rt1")->side());
  EXPECT_EQ(Head(), "rt1");
  EXPECT_FALSE(Take().took_over());
}

TEST_P(LeaseTest, LateAnswerBesideASuccessorIsKeptAsideAndAdopted) {
  const auto first = Take();
  harness_->LapseLeases();
  const auto second = Take();
  const auto late = harness_->PutLeased(Connection(), first.id(), "rt1");
  ASSERT_THAT(late, IsOk());
  EXPECT_TRUE(late->side());
  EXPECT_EQ(Head(), "rt0");
  ASSERT_THAT(harness_->Release(Connection(), second.id()), IsOk());

  const auto third = Take();
  ASSERT_EQ(third.side_size(), 1);
  EXPECT_EQ(third.side(0).payload(), "rt1");
  EXPECT_EQ(third.side(0).version(), late->version());
  EXPECT_FALSE(harness_->PutLeased(Connection(), third.id(), "rt1")->side());
  EXPECT_EQ(Head(), "rt1");
  EXPECT_EQ(Take().side_size(), 0) << "what was adopted is not offered again";
}

TEST_P(LeaseTest, SideArrivingAfterTheSuccessorsAnswerIsOfferedWithItsOwnNumber) {
  const auto first = Take();
  harness_->LapseLeases();
  const auto second = Take();
  ASSERT_EQ(harness_->PutLeased(Connection(), second.id(), "rt2")->version(), 3);
  EXPECT_EQ(harness_->PutLeased(Connection(), first.id(), "rt1")->version(), 2);
  EXPECT_EQ(Head(), "rt2");
  const auto third = Take();
  ASSERT_EQ(third.side_size(), 1);
  EXPECT_LT(third.side(0).version(), third.head());
}

TEST_P(LeaseTest, SideThatTheHolderHasNotSeenOutlivesItsAnswer) {
  const auto first = Take();
  harness_->LapseLeases();
  const auto second = Take();
  ASSERT_TRUE(harness_->PutLeased(Connection(), first.id(), "rt1")->side());
  ASSERT_FALSE(harness_->PutLeased(Connection(), second.id(), "rt2")->side());
  EXPECT_EQ(Take().side_size(), 1);
}

TEST_P(LeaseTest, UserIsNotCalledForOverAnUnseenSide) {
  const auto first = Take();
  harness_->LapseLeases();
  const auto second = Take();
  ASSERT_TRUE(harness_->PutLeased(Connection(), first.id(), "rt1")->side());
  for (const char* state : {"NEEDS_REAUTH", "NEEDS_INTERACTION"}) {
    EXPECT_EQ(ReasonOf(harness_->PutStatus(Connection(), second.id(), state).status()), "side_exists") << state;
  }
  ASSERT_THAT(harness_->Release(Connection(), second.id()), IsOk());
  EXPECT_EQ(Take().side(0).payload(), "rt1");
}

TEST_P(LeaseTest, LateAnswerHealsARecordMarkedForReauth) {
  const auto first = Take();
  harness_->LapseLeases();
  const auto second = Take();
  ASSERT_THAT(harness_->PutStatus(Connection(), second.id(), "NEEDS_REAUTH"), IsOk());
  const auto late = harness_->PutLeased(Connection(), first.id(), "rt1");
  ASSERT_THAT(late, IsOk());
  EXPECT_FALSE(late->side());
  const auto got = harness_->Get(Broker(), Connection());
  EXPECT_EQ(got->payload(), "rt1");
  EXPECT_EQ(got->metadata().state(), "OK");
}

TEST_P(LeaseTest, LateAnswerHealsARecordMarkedForInteraction) {
  const auto first = Take();
  harness_->LapseLeases();
  const auto second = Take();
  ASSERT_THAT(harness_->PutStatus(Connection(), second.id(), "NEEDS_INTERACTION"), IsOk());
  const auto late = harness_->PutLeased(Connection(), first.id(), "rt1");
  ASSERT_THAT(late, IsOk());
  EXPECT_FALSE(late->side());
  EXPECT_EQ(harness_->Get(Broker(), Connection())->metadata().state(), "OK");
}

TEST_P(LeaseTest, RelinkRefusesTheOldGeneration) {
  const auto lease = Take();
  ASSERT_EQ(harness_->Put(Broker(), Connection(), "relinked")->generation(), 2);
  EXPECT_EQ(ReasonOf(harness_->PutLeased(Connection(), lease.id(), "rt1").status()), "wrong_generation");
  EXPECT_EQ(ReasonOf(harness_->PutStatus(Connection(), lease.id(), "NEEDS_REAUTH").status()), "wrong_generation");
  EXPECT_THAT(harness_->Release(Connection(), lease.id()), IsOk());
  EXPECT_EQ(Head(), "relinked");
  EXPECT_FALSE(Take().took_over()) << "a new generation owes nothing to the old lease";
}

TEST_P(LeaseTest, RelinkDropsSidesOfTheOldGeneration) {
  const auto first = Take();
  harness_->LapseLeases();
  const auto second = Take();
  ASSERT_TRUE(harness_->PutLeased(Connection(), first.id(), "rt1")->side());
  ASSERT_THAT(harness_->Put(Broker(), Connection(), "relinked"), IsOk());
  EXPECT_EQ(Take().side_size(), 0);
  EXPECT_EQ(ReasonOf(harness_->PutLeased(Connection(), second.id(), "rt2").status()), "wrong_generation");
}

TEST_P(LeaseTest, UnlinkStoresNoLateAnswer) {
  const auto lease = Take();
  ASSERT_THAT(harness_->Delete(Broker(), Connection()), IsOk());
  const auto late = harness_->PutLeased(Connection(), lease.id(), "rt1");
  ASSERT_THAT(late, IsOk());
  EXPECT_EQ(late->version(), 0);
  EXPECT_TRUE(late->owed().has_revocation());
  EXPECT_THAT(harness_->Acquire(Connection()), StatusIs(Code::kNotFound));
  EXPECT_EQ(ReasonOf(harness_->PutStatus(Connection(), lease.id(), "NEEDS_REAUTH").status()), "wrong_generation");
}

TEST_P(LeaseTest, ReleasedRecordIsFreeAtOnce) {
  const auto lease = Take();
  ASSERT_THAT(harness_->Release(Connection(), lease.id()), IsOk());
  EXPECT_THAT(harness_->Release(Connection(), lease.id()), IsOk()) << "idempotent";
  EXPECT_FALSE(Take().took_over());
}

TEST_P(LeaseTest, ReleaseOfAFormerHolderDoesNotFreeTheNext) {
  const auto first = Take();
  harness_->LapseLeases();
  Take();
  ASSERT_THAT(harness_->Release(Connection(), first.id()), IsOk());
  EXPECT_TRUE(harness_->Acquire(Connection())->has_held());
}

TEST_P(LeaseTest, AnswerAfterReleaseIsNotLost) {
  const auto lease = Take();
  ASSERT_THAT(harness_->Release(Connection(), lease.id()), IsOk());
  ASSERT_THAT(harness_->PutLeased(Connection(), lease.id(), "rt1"), IsOk());
  EXPECT_EQ(Head(), "rt1");
}

TEST_P(LeaseTest, StatusOfAFormerHolderIsRefused) {
  const auto first = Take();
  harness_->LapseLeases();
  Take();
  EXPECT_EQ(ReasonOf(harness_->PutStatus(Connection(), first.id(), "NEEDS_REAUTH").status()), "lease_lost");
}

TEST_P(LeaseTest, StatusIsStoredAndEndsTheLease) {
  const auto lease = Take();
  v1::PutStatusRequest request;
  *request.mutable_record() = Connection();
  request.set_lease(lease.id());
  request.set_reason("provider_unavailable");
  request.mutable_backoff_until()->set_seconds(1'900'000'000);
  request.mutable_next_at()->set_seconds(1'900'000'001);
  ASSERT_THAT(harness_->vault->PutStatus(Service("token_broker"), request), IsOk());
  const auto got = harness_->Get(Broker(), Connection());
  EXPECT_EQ(got->metadata().state(), "OK");
  EXPECT_EQ(got->metadata().reason(), "provider_unavailable");
  EXPECT_EQ(got->metadata().backoff_until().seconds(), 1'900'000'000);
  EXPECT_EQ(got->metadata().next_at().seconds(), 1'900'000'001);
  EXPECT_TRUE(harness_->Acquire(Connection())->has_lease());
}

TEST_P(LeaseTest, LeaseIsBoundToRecordAndCaller) {
  const auto lease = Take();
  const v1::RecordName other = Connection(testing::kUser, "app_2");
  ASSERT_THAT(harness_->Put(Broker(), other, "x"), IsOk());
  EXPECT_EQ(ReasonOf(harness_->PutLeased(other, lease.id(), "rt1").status()), "lease_unknown");
  EXPECT_EQ(ReasonOf(harness_->PutLeased(Connection(), "lse_guess", "rt1").status()), "lease_unknown");
  EXPECT_THAT(harness_->PutLeased(Connection(), lease.id(), "rt1", Service("authn")),
              StatusIs(Code::kPermissionDenied));
  harness_->Sql("UPDATE lease SET caller = 'authn'");
  EXPECT_THAT(harness_->PutLeased(Connection(), lease.id(), "rt1"), StatusIs(Code::kPermissionDenied));
}

TEST_P(LeaseTest, LeaseIdIsNotInTheStore) {
  const auto lease = Take();
  EXPECT_TRUE(harness_->Query("SELECT digest FROM lease WHERE digest = :id", {{"id", lease.id()}}).empty());
}

TEST_P(LeaseTest, SpaceForTheAnswerIsHeldAndGivenBack) {
  const auto pending = [&] { return harness_->Query("SELECT sealed FROM record_version WHERE role = 3"); };
  const auto lease = Take();
  ASSERT_EQ(pending().size(), 1u);
  EXPECT_GT(pending()[0].BytesAt("sealed").size(), 1024u);
  ASSERT_THAT(harness_->Release(Connection(), lease.id()), IsOk());
  EXPECT_TRUE(pending().empty());
}

TEST_P(LeaseTest, AbandonedReservationsDoNotPileUp) {
  for (int i = 0; i < 5; ++i) {
    Take();
    harness_->LapseLeases();
  }
  EXPECT_EQ(harness_->Query("SELECT version FROM record_version WHERE role = 3").size(), 1u);
}

TEST_P(LeaseTest, SidesAreBounded) {
  for (int i = 0; i < 12; ++i) {
    const auto lease = Take();
    harness_->LapseLeases();
    Take();
    ASSERT_TRUE(harness_->PutLeased(Connection(), lease.id(), absl::StrCat("late", i))->side());
    harness_->LapseLeases();
  }
  const auto last = Take();
  EXPECT_EQ(last.side_size(), 8);
  EXPECT_EQ(last.side(0).payload(), "late11") << "newest first";
}

TEST_P(LeaseTest, TermsOfTheLeaseAreChecked) {
  v1::AcquireLeaseRequest request;
  *request.mutable_record() = Connection();
  for (const int64_t seconds : {0, -1, 61, 1'000'000'000}) {
    request.mutable_ttl()->set_seconds(seconds);
    EXPECT_THAT(harness_->vault->AcquireLease(Broker(), request), StatusIs(Code::kInvalidArgument)) << seconds;
  }
  EXPECT_THAT(harness_->Acquire(Connection("corp:nobody"), Broker("corp:nobody")), StatusIs(Code::kNotFound));
  EXPECT_THAT(harness_->Acquire(Connection(), Broker("corp:eve")), StatusIs(Code::kPermissionDenied));
  v1::PutRequest mixed;
  *mixed.mutable_record() = Connection();
  mixed.set_lease("lse_x");
  mixed.set_expected_version(1);
  EXPECT_THAT(harness_->vault->Put(Service("token_broker"), mixed), StatusIs(Code::kInvalidArgument));
}

TEST(LeaseClockTest, LapseIsJudgedByTheProcessClockOnSqlite) {
  Harness harness;
  ASSERT_THAT(harness.Put(Broker(), Connection(), "rt0"), IsOk());
  ASSERT_TRUE(harness.Acquire(Connection())->has_lease());
  harness.clock.Advance(absl::Seconds(30) - absl::Microseconds(1));
  EXPECT_TRUE(harness.Acquire(Connection())->has_held());
  harness.clock.Advance(absl::Microseconds(1));
  EXPECT_TRUE(harness.Acquire(Connection())->lease().took_over());
}

// Two holders, a provider that rotates and revokes the family on reuse, lapses and a re-link, in every order up to a
// depth and in long random walks, each driven through the real code. Checked after every step: the newest token is
// known to somebody, an old link never returns, a healthy account is never marked for the user. Not held against the
// vault: a holder that sends after its lease lapsed, which no lease can prevent.
class World {
 public:
  World(Harness& harness, const std::string& user) : harness_(harness), user_(user), record_(Connection(user)) {
    EXPECT_THAT(harness_.Put(Broker(user_), record_, newest_), IsOk());
  }

  // a/b: holder acquires, s/t: sends to the provider, p/q: stores what it got, x: leases lapse, r: the user links anew.
  // False, and nothing changed, if the step is not possible now.
  bool Step(char step) {
    path_ += step;
    switch (step) {
      case 'a':
        return Acquire(holders_[0]);
      case 'b':
        return Acquire(holders_[1]);
      case 's':
        return Send(holders_[0]);
      case 't':
        return Send(holders_[1]);
      case 'p':
        return Store(holders_[0]);
      case 'q':
        return Store(holders_[1]);
      case 'x':
        return Lapse();
      default:
        return Relink();
    }
  }

  void Check() {
    const auto head = harness_.Get(Broker(user_), record_);
    ASSERT_THAT(head, IsOk()) << path_;
    EXPECT_EQ(head->payload().substr(0, 2), family_) << path_ << ": an older link overwrote a newer one";
    if (revoked_) {
      return;
    }
    EXPECT_EQ(Known(head->payload()).count(newest_), 1u) << path_ << ": the newest token is known to nobody";
    EXPECT_EQ(head->metadata().state(), "OK") << path_ << ": a healthy account was marked for the user";
  }
  int adopted() const { return adopted_; }
  int sides() const { return sides_; }

 private:
  struct Holder {
    std::string lease;
    int64_t generation = 0;
    std::string token;   // What it would send.
    std::string answer;  // What the provider gave: a token, or "refused".
    bool sent = false;
  };

  bool Acquire(Holder& holder) {
    if (!holder.lease.empty()) {
      return false;
    }
    const auto got = harness_.Acquire(record_, Broker(user_));
    if (!got.ok() || !got->has_lease()) {
      return false;
    }
    holder.lease = got->lease().id();
    holder.generation = got->lease().generation();
    holder.token = got->lease().payload();
    if (got->lease().side_size() > 0 && got->lease().side(0).version() > got->lease().head()) {
      holder.answer = got->lease().side(0).payload();
      holder.sent = true;
      ++adopted_;
    }
    lapsed_ = false;
    return true;
  }
  bool Send(Holder& holder) {
    if (holder.lease.empty() || holder.sent) {
      return false;
    }
    holder.sent = true;
    if (!revoked_ && holder.token == newest_) {
      newest_ = absl::StrCat(family_, ".", ++serial_);
      holder.answer = newest_;
    } else {
      revoked_ = revoked_ || holder.token.substr(0, 2) == family_;
      holder.answer = "refused";
    }
    return true;
  }
  bool Store(Holder& holder) {
    if (holder.answer.empty()) {
      return false;
    }
    if (holder.answer == "refused") {
      if (!harness_.PutStatus(record_, holder.lease, "NEEDS_REAUTH").ok()) {
        EXPECT_THAT(harness_.Release(record_, holder.lease), IsOk());
      }
    } else {
      const auto put = harness_.PutLeased(record_, holder.lease, holder.answer);
      EXPECT_EQ(put.ok(), holder.generation == generation_) << path_;
      EXPECT_EQ(ReasonOf(put.status()), put.ok() ? "" : "wrong_generation") << path_;
      sides_ += put.ok() && put->side() ? 1 : 0;
    }
    holder = Holder();
    return true;
  }
  bool Lapse() {
    if (lapsed_) {
      return false;
    }
    lapsed_ = true;
    harness_.LapseLeases();
    return true;
  }
  bool Relink() {
    if (generation_ == 2) {
      return false;
    }
    generation_ = 2;
    family_ = "g2";
    serial_ = 0;
    newest_ = "g2.0";
    revoked_ = false;
    return harness_.Put(Broker(user_), record_, newest_).ok();
  }
  // In the store, aside, or in a holder's hands.
  std::set<std::string> Known(const std::string& head) {
    std::set<std::string> known = {head, holders_[0].answer, holders_[1].answer};
    EXPECT_THAT(harness_.database->Read([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(const auto row, FindRecord(tx, *ParseRecordName(record_)));
      ASSIGN_OR_RETURN(const std::vector<VersionRow> versions, ListVersions(tx, row->rid));
      for (const VersionRow& version : versions) {
        if (version.role == VersionRole::kSide) {
          const auto opened = Ledger(*harness_.keyring).Open(tx, *row, **FindVersion(tx, row->rid, version.version));
          EXPECT_THAT(opened, IsOk());
          known.insert(opened.ok() ? std::string(opened->payload.Expose()) : "");
        }
      }
      return absl::OkStatus();
    }),
                IsOk());
    return known;
  }

  Harness& harness_;
  const std::string user_;
  const v1::RecordName record_;
  Holder holders_[2];
  std::string path_;
  std::string family_ = "g1";
  std::string newest_ = "g1.0";
  int serial_ = 0;
  int64_t generation_ = 1;
  int adopted_ = 0;
  int sides_ = 0;
  bool revoked_ = false;
  bool lapsed_ = false;
};

constexpr char kSteps[] = "abstpqxr";

class InterleavingTest : public ::testing::Test {
 protected:
  std::unique_ptr<World> NewWorld(const std::string& path) {
    auto world = std::make_unique<World>(harness_, absl::StrCat("corp:user", ++worlds_));
    for (const char step : path) {
      world->Step(step);
    }
    return world;
  }
  void Explore(const std::string& path, int depth) {
    if (depth == 0) {
      return;
    }
    std::unique_ptr<World> world;
    for (const char step : absl::string_view(kSteps)) {
      if (world == nullptr) {
        world = NewWorld(path);
      }
      if (world->Step(step)) {
        world->Check();
        world.reset();
        Explore(path + step, depth - 1);
      }
    }
  }
  Harness harness_;
  int worlds_ = 0;
};

TEST_F(InterleavingTest, NoShortOrderOfStepsBreaksAnInvariant) {
  Explore("", 4);
  EXPECT_GT(worlds_, 50);
}

TEST_F(InterleavingTest, NoLongWalkBreaksAnInvariant) {
  std::mt19937 random(20261122);
  int adopted = 0;
  int sides = 0;
  for (int walk = 0; walk < 60; ++walk) {
    const std::unique_ptr<World> world = NewWorld("");
    for (int i = 0; i < 30; ++i) {
      if (world->Step(kSteps[random() % 8])) {
        world->Check();
      }
    }
    adopted += world->adopted();
    sides += world->sides();
  }
  EXPECT_GT(sides, 5) << "the walks must reach late answers";
  EXPECT_GT(adopted, 5) << "and their adoption";
}

}  // namespace
}  // namespace sallyport::vault

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/due_lane.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/mutex.h"
#include "common/proto_time.h"
#include "services/token_broker/testing/fake_vault_client.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fakes/gate.h"

namespace sallyport::token_broker {
namespace {

class DueLaneTest : public ::testing::Test {
 protected:
  void Make(DueLane::Work work, int threads = 8, size_t per_app = 4) {
    lane_ = std::make_unique<DueLane>(
        vault_, pauses_, clock_,
        DueLane::Options{
            .name = "test", .kind = "connection", .threads = threads, .per_app = per_app, .interval = absl::Hours(1)},
        std::move(work));
  }
  void PutDue(const std::string& subject, const std::string& app) {
    vault::v1::PutRequest put;
    *put.mutable_record() = ConnectionRecord(subject, app);
    put.set_payload("tokens");
    (*put.mutable_labels())["app_uid"] = app;
    *put.mutable_next_at() = ToTimestamp(clock_.Now());
    ASSERT_TRUE(vault_.Put(put, "passport-of:" + subject).ok());
  }
  // What most work does: the record is not due any more.
  bool Settle(const vault::v1::RecordMetadata& due) {
    vault::v1::AcquireLeaseRequest acquire;
    *acquire.mutable_record() = due.record();
    acquire.set_maintenance(true);
    const auto lease = vault_.AcquireLease(acquire, "");
    if (!lease.ok() || !lease->has_lease()) return false;
    vault::v1::PutStatusRequest status;
    *status.mutable_record() = due.record();
    status.set_lease(lease->lease().id());
    return vault_.PutStatus(status).ok();
  }

  FakeClock clock_;
  testing::FakeVaultClient vault_{clock_};
  AppPauses pauses_{clock_};
  std::unique_ptr<DueLane> lane_;
};

TEST_F(DueLaneTest, GoesOnUntilNothingIsDue) {
  for (int i = 0; i < 230; ++i) PutDue(absl::StrCat("corp:", i), "app_a");
  Make([this](const auto& due) { return Settle(due); });

  EXPECT_EQ(lane_->Drain(), 230);
  EXPECT_EQ(lane_->Drain(), 0);
}

TEST_F(DueLaneTest, WorkThatLeavesEverythingAsItIsEndsToo) {
  for (int i = 0; i < 120; ++i) PutDue(absl::StrCat("corp:", i), "app_a");
  std::atomic<int> looked_at{0};
  Make([&](const auto& /*due*/) {
    ++looked_at;
    return false;
  });

  EXPECT_EQ(lane_->Drain(), 0);

  EXPECT_EQ(looked_at, 120) << "each once: they are claimed";
}

TEST_F(DueLaneTest, ReplicasAreToldOfDifferentRecords) {
  for (int i = 0; i < 200; ++i) PutDue(absl::StrCat("corp:", i), "app_a");
  Mutex mu;
  std::multiset<std::string> worked_on;
  const auto work = [&](const vault::v1::RecordMetadata& due) {
    MutexLock lock(mu);
    worked_on.insert(due.record().owner_id());
    return true;
  };
  Make(work);
  DueLane other(vault_, pauses_, clock_,
                {.name = "test", .kind = "connection", .threads = 4, .interval = absl::Hours(1)}, work);

  std::thread replica([&] { other.Drain(); });
  lane_->Drain();
  replica.join();

  EXPECT_EQ(worked_on.size(), 200U);
  EXPECT_EQ(std::set<std::string>(worked_on.begin(), worked_on.end()).size(), 200U);
}

// One whose provider works, and which has many: it takes turns.
TEST_F(DueLaneTest, AnAppWithManyHoldsUpNoOther) {
  for (int i = 0; i < 300; ++i) PutDue(absl::StrCat("corp:", i), "app_many");
  for (int i = 0; i < 120; ++i) PutDue(absl::StrCat("corp:", i), "app_more");
  clock_.Advance(absl::Seconds(1));
  PutDue("corp:ada", "app_few");
  Mutex mu;
  std::vector<std::string> order;
  Make([&](const vault::v1::RecordMetadata& due) {
    {
      MutexLock lock(mu);
      order.push_back(due.record().name());
    }
    return Settle(due);
  });

  EXPECT_EQ(lane_->Drain(), 421);

  const auto few = std::find(order.begin(), order.end(), "app_few") - order.begin();
  EXPECT_LE(few, 100) << "after a page of each of the others";
  EXPECT_EQ(std::set<std::string>(order.end() - 50, order.end()), std::set<std::string>{"app_many"});
}

TEST_F(DueLaneTest, AnAppThatIsPausedIsLeftOut) {
  PutDue("corp:ada", "app_away");
  PutDue("corp:bob", "app_there");
  pauses_.Away("app_away");
  Mutex mu;
  std::set<std::string> worked_on;
  Make([&](const vault::v1::RecordMetadata& due) {
    MutexLock lock(mu);
    worked_on.insert(due.record().name());
    return true;
  });

  lane_->Drain();

  EXPECT_EQ(worked_on, std::set<std::string>{"app_there"});
}

// A provider that hangs holds some threads and leaves the rest.
TEST_F(DueLaneTest, OneAppTakesSomeOfTheThreadsOnly) {
  for (int i = 0; i < 20; ++i) PutDue(absl::StrCat("corp:", i), "app_hangs");
  clock_.Advance(absl::Seconds(1));
  PutDue("corp:ada", "app_there");
  ::sallyport::testing::Gate gate;
  gate.Close();
  std::atomic<bool> served{false};
  std::atomic<int> hanging{0};
  Make(
      [&](const vault::v1::RecordMetadata& due) {
        if (due.record().name() == "app_there") {
          served = true;
        } else {
          ++hanging;
          gate.Pass();
        }
        return true;
      },
      /*threads=*/4, /*per_app=*/2);

  std::thread round([&] { lane_->Drain(); });
  for (int i = 0; i < 6'000 && !served; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_TRUE(served);
  EXPECT_LE(hanging, 2);
  gate.Open();
  round.join();
  EXPECT_EQ(hanging, 20);
}

TEST_F(DueLaneTest, StoppingEndsARoundAndItsWaits) {
  for (int i = 0; i < 200; ++i) PutDue(absl::StrCat("corp:", i), "app_a");
  ::sallyport::testing::Gate gate;
  gate.Close();
  std::atomic<int> begun{0};
  Make(
      [&](const auto& /*due*/) {
        ++begun;
        gate.Pass();
        return true;
      },
      /*threads=*/2, /*per_app=*/2);
  std::thread round([&] { lane_->Drain(); });
  EXPECT_TRUE(gate.AwaitArrivals(2));

  lane_->StopTaking();
  round.join();
  EXPECT_FALSE(lane_->Post("app_a", [] {}));
  gate.Open();
  lane_->Stop();

  EXPECT_LE(begun, 4) << "what was taken up went on, and nothing else began";
}

TEST_F(DueLaneTest, AWakeBeginsARoundAtOnce) {
  std::atomic<int> worked_on{0};
  Make([&](const auto& due) {
    ++worked_on;
    return Settle(due);
  });
  lane_->Start();
  PutDue("corp:ada", "app_a");

  lane_->Wake();

  for (int i = 0; i < 6'000 && worked_on == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(worked_on, 1);
}

}  // namespace
}  // namespace sallyport::token_broker

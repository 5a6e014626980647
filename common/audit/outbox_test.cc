// SPDX-License-Identifier: Apache-2.0
#include "common/audit/outbox.h"

#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "common/error.h"
#include "common/metrics.h"
#include "common/status_macros.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/postgres.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using audit::v1::AppendRequest;
using audit::v1::Event;
using testing::IsOk;
using testing::StatusIs;
using testing::TestPostgres;

// An audit store: idempotent by (source, boot, sequence), stored through the last number before the first gap.
class FakeStore {
 public:
  AuditOutbox::Sink sink() {
    return [this](const AppendRequest& request) { return Append(request); };
  }
  absl::StatusOr<uint64_t> Append(const AppendRequest& request) {
    const std::lock_guard<std::mutex> lock(mu_);
    ++calls_;
    if (down_) return absl::UnavailableError("down");
    for (const Event& event : request.events()) {
      const auto known = events_.find({event.boot(), event.sequence()});
      if (known != events_.end() && known->second.type() != event.type()) {
        return WithReason(absl::FailedPreconditionError("another one"), "sequence_reused");
      }
    }
    uint64_t& through = stored_through_[request.events(0).boot()];
    for (const Event& event : request.events()) {
      events_[{event.boot(), event.sequence()}] = event;
      const uint64_t from = event.type() == "lost" ? event.lost_from() : event.sequence();
      if (from <= through + 1) through = std::max(through, event.sequence());
    }
    changed_.notify_all();
    return through;
  }
  // Restored from a backup of the time when it held nothing of any boot.
  void Forget() {
    const std::lock_guard<std::mutex> lock(mu_);
    events_.clear();
    stored_through_.clear();
  }
  void SetDown(bool down) {
    const std::lock_guard<std::mutex> lock(mu_);
    down_ = down;
  }
  bool WaitFor(size_t count) {
    std::unique_lock<std::mutex> lock(mu_);
    return changed_.wait_for(lock, std::chrono::seconds(60), [&] { return events_.size() >= count; });
  }
  std::vector<Event> events() {
    const std::lock_guard<std::mutex> lock(mu_);
    std::vector<Event> out;
    for (const auto& [key, event] : events_) out.push_back(event);
    return out;
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::map<std::pair<std::string, uint64_t>, Event> events_;
  std::map<std::string, uint64_t> stored_through_;
  bool down_ = false;
  int calls_ = 0;
};

class AuditOutboxTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    std::string pattern = "/tmp/sallyport-outbox-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    if (GetParam()) {
      ASSERT_OK_AND_ASSIGN(connection_, TestPostgres::CreateDatabase());
    }
    database_ = Open();
    ASSERT_THAT(database_->Migrate({{1, AuditOutbox::Schema()}}), IsOk());
    outbox_ = MakeOutbox(*database_);
  }
  void TearDown() override {
    outbox_.reset();
    database_.reset();
    std::filesystem::remove_all(directory_);
  }
  std::unique_ptr<Database> Open() {
    Database::Options options;
    (GetParam() ? options.postgresql : options.sqlite_path) = GetParam() ? connection_ : directory_ + "/store.db";
    return *Database::Open(std::move(options));
  }
  std::unique_ptr<AuditOutbox> MakeOutbox(Database& database) {
    return std::make_unique<AuditOutbox>(
        database, clock_,
        AuditOutbox::Options{
            .source = "vault", .batch_size = 3, .poll = absl::Milliseconds(10), .max_backoff = absl::Milliseconds(50)});
  }
  static Event Typed(const std::string& type) {
    Event event;
    event.set_type(type);
    return event;
  }

  FakeClock clock_;
  std::string directory_;
  std::string connection_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<AuditOutbox> outbox_;
  FakeStore store_;
};

INSTANTIATE_TEST_SUITE_P(Engines, AuditOutboxTest, ::testing::Values(false, true),
                         [](const auto& engine) { return engine.param ? "Postgresql" : "Sqlite"; });

TEST_P(AuditOutboxTest, NumbersWithoutGapsAlsoAfterRollback) {
  EXPECT_THAT(outbox_->Record(Typed("a")), IsOk());
  EXPECT_THAT(database_->Write([&](Transaction& tx) -> absl::Status {
    EXPECT_THAT(outbox_->Append(tx, Typed("rolled back")), IsOk());
    return absl::CancelledError();
  }),
              StatusIs(absl::StatusCode::kCancelled));
  EXPECT_THAT(outbox_->Record(Typed("b")), IsOk());

  ASSERT_THAT(outbox_->ShipOnce(store_.sink()), IsOk());

  const std::vector<Event> events = store_.events();
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].sequence(), 1U);
  EXPECT_EQ(events[1].sequence(), 2U);
  EXPECT_EQ(events[1].type(), "b");
  EXPECT_EQ(events[0].source(), "vault");
  EXPECT_EQ(events[0].boot(), events[1].boot());
  EXPECT_FALSE(events[0].boot().empty());
  EXPECT_EQ(events[0].at().seconds(), absl::ToUnixSeconds(clock_.Now()));
  EXPECT_EQ(*outbox_->Pending(), 0);
}

TEST_P(AuditOutboxTest, KeepsEverythingWhileTheStoreIsDown) {
  store_.SetDown(true);
  outbox_->StartShipping(store_.sink());
  for (int i = 0; i < 10; ++i) EXPECT_THAT(outbox_->Record(Typed("x")), IsOk());
  EXPECT_EQ(*outbox_->Pending(), 10);
  store_.SetDown(false);
  ASSERT_TRUE(store_.WaitFor(10));
}

TEST_P(AuditOutboxTest, ReplicasShareOneSequenceAndShipTogether) {
  auto other_database = Open();
  auto other = MakeOutbox(*other_database);
  outbox_->StartShipping(store_.sink());
  other->StartShipping(store_.sink());
  std::vector<std::thread> threads;
  for (AuditOutbox* outbox : {outbox_.get(), other.get()}) {
    threads.emplace_back([outbox] {
      for (int i = 0; i < 20; ++i) EXPECT_THAT(outbox->Record(Typed("x")), IsOk());
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(store_.WaitFor(40));
  EXPECT_EQ(store_.events().back().sequence(), 40U);
  EXPECT_EQ(store_.events().front().boot(), store_.events().back().boot());
}

TEST_P(AuditOutboxTest, DeletesNoMoreThanItSent) {
  for (int i = 0; i < 5; ++i) EXPECT_THAT(outbox_->Record(Typed("x")), IsOk());
  EXPECT_EQ(outbox_->ShipOnce([](const AppendRequest&) -> absl::StatusOr<uint64_t> { return 999; }).value_or(-1), 3);
  EXPECT_EQ(*outbox_->Pending(), 2);
  EXPECT_EQ(outbox_->ShipOnce([](const AppendRequest&) -> absl::StatusOr<uint64_t> { return 4; }).value_or(-1), 1);
  EXPECT_EQ(*outbox_->Pending(), 1);
}

TEST_P(AuditOutboxTest, ADamagedRowBecomesALoss) {
  EXPECT_THAT(outbox_->Record(Typed("a")), IsOk());
  EXPECT_THAT(outbox_->Record(Typed("b")), IsOk());
  ASSERT_THAT(database_->Write([](Transaction& tx) {
    return tx.Exec("UPDATE audit_outbox SET event = 'not base64url!' WHERE sequence = 1").status();
  }),
              IsOk());
  ASSERT_THAT(outbox_->ShipOnce(store_.sink()), IsOk());
  const std::vector<Event> events = store_.events();
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].type(), "lost");
  EXPECT_EQ(events[0].lost_from(), 1U);
  EXPECT_EQ(events[1].type(), "b");
}

TEST_P(AuditOutboxTest, AStoreThatLostEventsIsToldSoAndGoesOn) {
  EXPECT_THAT(outbox_->Record(Typed("a")), IsOk());
  EXPECT_THAT(outbox_->Record(Typed("b")), IsOk());
  ASSERT_THAT(outbox_->ShipOnce(store_.sink()), IsOk());
  store_.Forget();
  EXPECT_THAT(outbox_->Record(Typed("c")), IsOk());

  EXPECT_EQ(outbox_->ShipOnce(store_.sink()).value_or(-1), 1);

  const std::vector<Event> events = store_.events();
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].type(), "lost");
  EXPECT_EQ(events[0].lost_from(), 1U);
  EXPECT_EQ(events[0].lost_to(), 2U);
  EXPECT_EQ(events[1].type(), "c");
  EXPECT_EQ(*outbox_->Pending(), 0);
}

TEST_P(AuditOutboxTest, AfterItsOwnDatabaseWasRestoredNumbersGivenOutAgainGetANewBoot) {
  EXPECT_THAT(outbox_->Record(Typed("a")), IsOk());
  ASSERT_THAT(outbox_->ShipOnce(store_.sink()), IsOk());
  EXPECT_THAT(outbox_->Record(Typed("b")), IsOk());
  EXPECT_THAT(outbox_->Record(Typed("c")), IsOk());
  ASSERT_THAT(outbox_->ShipOnce(store_.sink()), IsOk());
  // As in a backup made before "b".
  ASSERT_THAT(database_->Write(
                  [](Transaction& tx) { return tx.Exec("UPDATE audit_outbox_state SET last_sequence = 1").status(); }),
              IsOk());
  for (const char* type : {"d", "e", "f", "g"}) EXPECT_THAT(outbox_->Record(Typed(type)), IsOk());

  for (int i = 0; i < 10 && *outbox_->Pending() > 0; ++i) ASSERT_THAT(outbox_->ShipOnce(store_.sink()), IsOk());

  std::map<std::string, std::string> types;  // By boot.
  for (const Event& event : store_.events()) types[event.boot()] += event.type();
  ASSERT_EQ(types.size(), 2U);
  EXPECT_EQ(std::min(types.begin()->second, types.rbegin()->second), "abc");
  EXPECT_EQ(std::max(types.begin()->second, types.rbegin()->second), "defg") << "none taken for one that is known";
}

class FullOutboxTest : public AuditOutboxTest {
 protected:
  void SetUp() override {
    AuditOutboxTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    AuditOutbox::Options options;
    options.source = "vault";
    options.batch_size = 2;
    options.limit = 3;
    outbox_ = std::make_unique<AuditOutbox>(*database_, clock_, options);
    for (int i = 0; i < 3; ++i) ASSERT_THAT(outbox_->Record(Typed("x")), IsOk());
  }
  absl::Status Append(AuditOutbox::Admit admit = AuditOutbox::Admit::kIfRoom) {
    return database_->Write([&](Transaction& tx) { return outbox_->Append(tx, Typed("y"), admit); });
  }
  static void ExpectRefused(const absl::Status& status) {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_EQ(ReasonOf(status), "audit_unavailable");
    EXPECT_GT(DetailOf(status).retry_after, absl::ZeroDuration());
  }
};
INSTANTIATE_TEST_SUITE_P(Engines, FullOutboxTest, ::testing::Values(false, true),
                         [](const auto& engine) { return engine.param ? "Postgresql" : "Sqlite"; });

TEST_P(FullOutboxTest, RefusesDecisionsAndWhatStandsInTheirTransaction) {
  ExpectRefused(outbox_->Record(Typed("y")));
  ASSERT_THAT(database_->Write([](Transaction& tx) { return tx.Exec("CREATE TABLE thing (id BIGINT)").status(); }),
              IsOk());
  ExpectRefused(database_->Write([&](Transaction& tx) -> absl::Status {
    RETURN_IF_ERROR(tx.Exec("INSERT INTO thing (id) VALUES (1)").status());
    return outbox_->Append(tx, Typed("y"));
  }));
  EXPECT_THAT(database_->Read([](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows rows, tx.Query("SELECT id FROM thing"));
    EXPECT_TRUE(rows.empty()) << "nothing happens unrecorded";
    return absl::OkStatus();
  }),
              IsOk());
  EXPECT_EQ(*outbox_->Pending(), 3);
}

TEST_P(FullOutboxTest, StillTakesTheEndOfWhatWasAdmitted) {
  EXPECT_THAT(Append(AuditOutbox::Admit::kAlways), IsOk());
  EXPECT_EQ(*outbox_->Pending(), 4);
  ExpectRefused(Append());
}

TEST_P(FullOutboxTest, GoesOnWithoutAGapOnceTheStoreTakesEventsAgain) {
  ExpectRefused(Append());
  ASSERT_THAT(outbox_->ShipOnce(store_.sink()), IsOk());
  EXPECT_THAT(Append(), IsOk());
  EXPECT_THAT(outbox_->Record(Typed("y")), IsOk());
  ExpectRefused(Append());
  while (*outbox_->ShipOnce(store_.sink()) > 0) {
  }
  ASSERT_EQ(store_.events().size(), 5U);
  EXPECT_EQ(store_.events().back().sequence(), 5U);
  EXPECT_THAT(Append(), IsOk()) << "and when it is empty";
}

TEST_P(FullOutboxTest, ItsDepthAndRefusalsAreMetrics) {
  ExpectRefused(Append());
  EXPECT_GE(MetricCounter("sallyport_audit_outbox_refused_total", "", {{"source", "vault"}}).Value(), 1);
  ASSERT_EQ(*outbox_->Pending(), 3);
  const prometheus::Gauge& depth = MetricGauge("sallyport_audit_outbox_depth", "", {{"source", "vault"}});
  EXPECT_EQ(depth.Value(), 3);
  ASSERT_THAT(outbox_->ShipOnce(store_.sink()), IsOk());
  ASSERT_EQ(*outbox_->Pending(), 1);
  EXPECT_EQ(depth.Value(), 1);
}

TEST(AuditOutboxLimitTest, HasADefaultAndALeastValue) {
  EXPECT_EQ(*AuditOutbox::LimitFrom(0, "f"), AuditOutbox::kDefaultLimit);
  EXPECT_EQ(*AuditOutbox::LimitFrom(1000, "f"), 1000);
  EXPECT_THAT(AuditOutbox::LimitFrom(999, "f"), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(AuditOutbox::LimitFrom(-1, "f"), StatusIs(absl::StatusCode::kInvalidArgument));
}

// While another writer holds the database, decisions pile up; all of them are in the next transaction.
TEST_P(AuditOutboxTest, WhatWaitsTogetherIsOneTransaction) {
  constexpr int kCallers = 32;
  std::promise<void> holding;
  std::promise<void> release;
  std::thread holder([&] {
    EXPECT_THAT(database_->Write([&](Transaction&) {
      holding.set_value();
      release.get_future().wait();
      return absl::OkStatus();
    }),
                IsOk());
  });
  holding.get_future().wait();
  std::atomic<int> failed{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&] {
      EXPECT_EQ(ReasonOf(outbox_->Record(Typed("x"))), "audit_unavailable");
      ++failed;
    });
  }
  while (failed < kCallers) {
    clock_.Advance(AuditOutbox::kRecordLimit);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(failed, kCallers) << "refused in time, though the database takes longer";
  EXPECT_EQ(*outbox_->Pending(), 0);
  release.set_value();
  holder.join();
  outbox_.reset();  // Writes what still waits.
  outbox_ = MakeOutbox(*database_);
  EXPECT_EQ(*outbox_->Pending(), kCallers);
  if (!GetParam()) return;
  EXPECT_THAT(database_->Read([](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const auto row, tx.QueryRow("SELECT COUNT(DISTINCT CAST(xmin AS TEXT)) AS n FROM audit_outbox"));
    EXPECT_LE(row->Int("n"), 2) << "the first, alone, and all that came while it waited";
    return absl::OkStatus();
  }),
              IsOk());
}

TEST_P(AuditOutboxTest, ManyCallersGetTheirEventsInAnyOrderAndEachOnce) {
  constexpr int kCallers = 32;
  constexpr int kEach = 20;
  std::vector<std::thread> callers;
  for (int i = 0; i < kCallers; ++i) {
    callers.emplace_back([&, i] {
      for (int j = 0; j < kEach; ++j) {
        EXPECT_THAT(outbox_->Record(Typed(std::to_string(i) + "." + std::to_string(j))), IsOk());
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  while (*outbox_->ShipOnce(store_.sink()) > 0) {
  }
  std::set<std::string> types;
  for (const Event& event : store_.events()) types.insert(event.type());
  EXPECT_EQ(types.size(), static_cast<size_t>(kCallers * kEach));
}

}  // namespace
}  // namespace sallyport

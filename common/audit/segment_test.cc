// SPDX-License-Identifier: Apache-2.0
#include "common/audit/segment.h"

#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>
#include <unistd.h>

#include <gmock/gmock.h>
#include <sys/wait.h>

#include "common/audit/segment_format.h"
#include "common/audit/shipper.h"
#include "common/metrics.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport {
namespace {

using audit::v1::Event;
using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::sallyport::testing::TempDirectory;
using Code = absl::StatusCode;

Event Named(const std::string& type) {
  Event event;
  event.set_type(type);
  return event;
}

std::string Delimited(const AuditSegments& segments, uint64_t sequence) {
  Event event = Named("mcp.call");
  event.set_source("edge/1");
  event.set_boot(segments.boot());
  event.set_sequence(sequence);
  const std::string bytes = event.SerializeAsString();
  EXPECT_LT(bytes.size(), 128U);
  return std::string(1, static_cast<char>(bytes.size())) + bytes;
}

class AuditSegmentTest : public ::testing::Test {
 protected:
  std::unique_ptr<AuditSegments> Open(int64_t segment_bytes = 8 << 20, int64_t max_bytes = 1 << 30) {
    absl::StatusOr<std::unique_ptr<AuditSegments>> opened =
        AuditSegments::Open({directory_.File("audit"), "edge/1", segment_bytes, max_bytes}, clock_);
    EXPECT_THAT(opened, IsOk());
    return opened.ok() ? *std::move(opened) : nullptr;
  }
  // All events of all segments in order.
  std::vector<Event> Events() {
    std::vector<Event> events;
    for (const audit_format::SegmentFile& file : audit_format::ListSegments(directory_.File("audit"))) {
      auto reader = AuditSegmentReader::Open(file.path);
      EXPECT_THAT(reader, IsOk());
      std::string bytes;
      while (reader.ok() && (*reader)->Next(&bytes).ok()) {
        events.emplace_back();
        EXPECT_TRUE(events.back().ParseFromString(bytes));
      }
    }
    return events;
  }
  std::vector<std::string> Files() {
    std::vector<std::string> files;
    for (const audit_format::SegmentFile& file : audit_format::ListSegments(directory_.File("audit"))) {
      files.push_back(file.path);
    }
    return files;
  }
  // Runs `work` in a process that is then killed.
  template <typename Work>
  void Crash(Work work) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      const std::unique_ptr<AuditSegments> segments = Open();
      work(*segments);
      _exit(0);  // No destructor: as kill -9 leaves it.
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0);
  }

  TempDirectory directory_;
  FakeClock clock_;
};

TEST_F(AuditSegmentTest, NumbersStampsAndKeepsEvents) {
  auto segments = Open();
  ASSERT_THAT(segments->Append(Named("login")), IsOk());
  ASSERT_THAT(segments->Append(Named("consent")), IsOk());

  const std::vector<Event> events = Events();

  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].source(), "edge/1");
  EXPECT_EQ(events[0].boot(), segments->boot());
  EXPECT_EQ(events[0].sequence(), 1U);
  EXPECT_EQ(events[1].sequence(), 2U);
  EXPECT_EQ(events[0].at().seconds(), absl::ToUnixSeconds(clock_.Now()));
  EXPECT_EQ(segments->last_sequence(), 2U);
}

TEST_F(AuditSegmentTest, EventsAppendedTogetherAreAllWrittenOrNone) {
  auto segments = Open();
  ASSERT_THAT(segments->AppendAll({Named("one"), Named("two"), Named("three")}), IsOk());
  ASSERT_THAT(segments->AppendAll({}), IsOk());
  Event large = Named("large");
  large.set_rule(std::string(65 * 1024, 'x'));
  EXPECT_THAT(segments->AppendAll({Named("four"), large, Named("five")}), StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_THAT(segments->Append(Named("six")), IsOk());

  const std::vector<Event> events = Events();

  ASSERT_EQ(events.size(), 4U);
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i].sequence(), i + 1);
  EXPECT_EQ(events[2].type(), "three");
  EXPECT_EQ(events[3].type(), "six");
  EXPECT_EQ(events[2].at().seconds(), absl::ToUnixSeconds(clock_.Now()));
}

TEST_F(AuditSegmentTest, ConcurrentAppendsLeaveNoGap) {
  auto segments = Open();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        EXPECT_THAT(segments->Append(Named("secret.read")), IsOk());
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const std::vector<Event> events = Events();
  ASSERT_EQ(events.size(), 80U);
  EXPECT_EQ(events.back().sequence(), 80U);
}

TEST_F(AuditSegmentTest, BatchesOfSerializedEventsAreKept) {
  auto segments = Open();
  ASSERT_THAT(segments->AppendSerialized(Delimited(*segments, 1) + Delimited(*segments, 2), 1, 2), IsOk());
  ASSERT_THAT(segments->AppendSerialized(Delimited(*segments, 3), 3, 3), IsOk());
  EXPECT_EQ(Events().size(), 3U);
}

TEST_F(AuditSegmentTest, AJumpIsRecordedAsLost) {
  auto segments = Open();
  ASSERT_THAT(segments->AppendSerialized(Delimited(*segments, 1), 1, 1), IsOk());
  ASSERT_THAT(segments->AppendSerialized(Delimited(*segments, 5), 5, 5), IsOk());

  const std::vector<Event> events = Events();

  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[1].type(), "lost");
  EXPECT_EQ(events[1].lost_from(), 2U);
  EXPECT_EQ(events[1].lost_to(), 4U);
  EXPECT_EQ(events[1].sequence(), 4U);
}

TEST_F(AuditSegmentTest, BatchesThatDoNotAddUpAreRefused) {
  auto segments = Open();
  const std::string one = Delimited(*segments, 1);
  EXPECT_THAT(segments->AppendSerialized(one, 1, 2), StatusIs(Code::kInvalidArgument, "holds 1 events, not 2"));
  EXPECT_THAT(segments->AppendSerialized(one.substr(0, one.size() - 1), 1, 1), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(segments->AppendSerialized(one, 0, 0), StatusIs(Code::kInvalidArgument));
  ASSERT_THAT(segments->AppendSerialized(one, 1, 1), IsOk());
  EXPECT_THAT(segments->AppendSerialized(one, 1, 1), StatusIs(Code::kInvalidArgument, "do not follow"));
  EXPECT_EQ(Events().size(), 1U);
}

TEST_F(AuditSegmentTest, AFullSegmentIsFollowedByAnotherOfTheSameChain) {
  auto segments = Open(/*segment_bytes=*/200);
  for (int i = 0; i < 5; ++i) {
    ASSERT_THAT(segments->Append(Named("login")), IsOk());
  }
  const std::vector<std::string> files = Files();
  ASSERT_GT(files.size(), 1U);
  std::string chain(32, '\0');
  uint64_t last = 0;
  for (const std::string& file : files) {
    ASSERT_OK_AND_ASSIGN(const auto reader, AuditSegmentReader::Open(file));
    EXPECT_EQ(reader->chain(), chain);
    EXPECT_EQ(reader->last_sequence_before(), last);
    std::string bytes;
    while (reader->Next(&bytes).ok()) {
      ++last;
    }
    chain = reader->chain();
  }
  EXPECT_EQ(last, 5U);
}

TEST_F(AuditSegmentTest, AlteredEventsAreNoticed) {
  auto segments = Open();
  ASSERT_THAT(segments->Append(Named("login")), IsOk());
  ASSERT_THAT(segments->Append(Named("logout")), IsOk());
  {
    std::fstream file(Files()[0], std::ios::in | std::ios::out | std::ios::binary);
    std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    file.seekp(static_cast<std::streamoff>(all.find("login")));
    file << "logon";
  }
  ASSERT_OK_AND_ASSIGN(const auto reader, AuditSegmentReader::Open(Files()[0]));
  std::string bytes;
  EXPECT_THAT(reader->Next(&bytes), StatusIs(Code::kDataLoss, "altered"));
}

TEST_F(AuditSegmentTest, OverTheLimitAppendingIsRefused) {
  auto segments = Open(/*segment_bytes=*/8 << 20, /*max_bytes=*/10);
  ASSERT_THAT(segments->Append(Named("login")), IsOk());
  clock_.Advance(absl::Seconds(2));
  EXPECT_THAT(segments->Append(Named("login")), StatusIs(Code::kResourceExhausted));
}

TEST_F(AuditSegmentTest, OneProcessADirectory) {
  auto segments = Open();
  EXPECT_THAT(AuditSegments::Open({directory_.File("audit"), "edge/2"}, clock_),
              StatusIs(Code::kFailedPrecondition, "another process"));
}

TEST_F(AuditSegmentTest, AfterCloseNothingIsTaken) {
  auto segments = Open();
  ASSERT_THAT(segments->Close(), IsOk());
  EXPECT_THAT(segments->Append(Named("login")), StatusIs(Code::kFailedPrecondition));
}

TEST_F(AuditSegmentTest, ACleanEndLosesNothing) {
  {
    auto segments = Open();
    ASSERT_THAT(segments->Append(Named("login")), IsOk());
  }
  auto segments = Open();
  const std::vector<Event> events = Events();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_NE(events[0].boot(), segments->boot());
  EXPECT_EQ(segments->last_sequence(), 0U);
}

TEST_F(AuditSegmentTest, WhatACrashedProcessHadTakenOnBecomesLost) {
  Crash([](AuditSegments& segments) {
    segments.given_out(0) += 3;
    segments.given_out(5) += 4;
    (void)segments.AppendSerialized(Delimited(segments, 1) + Delimited(segments, 2), 1, 2);
  });

  auto segments = Open();

  const std::vector<Event> events = Events();
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[2].type(), "lost");
  EXPECT_EQ(events[2].boot(), events[0].boot());
  EXPECT_EQ(events[2].lost_from(), 3U);
  EXPECT_EQ(events[2].lost_to(), 7U);
  EXPECT_EQ(events[2].sequence(), 7U);
}

TEST_F(AuditSegmentTest, ACrashBeforeTheFirstWriteIsLostFromOne) {
  Crash([](AuditSegments& segments) { segments.given_out(1) += 2; });
  auto segments = Open();
  const std::vector<Event> events = Events();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].lost_from(), 1U);
  EXPECT_EQ(events[0].lost_to(), 2U);
}

TEST_F(AuditSegmentTest, ATornTailIsCutAndCounted) {
  Crash([](AuditSegments& segments) {
    (void)segments.Append(Named("login"));
    (void)segments.Append(Named("logout"));
  });
  const std::string file = Files()[0];
  std::filesystem::resize_file(file, std::filesystem::file_size(file) - 5);

  auto segments = Open();

  const std::vector<Event> events = Events();
  ASSERT_EQ(events.size(), 2U);
  EXPECT_EQ(events[0].type(), "login");
  EXPECT_EQ(events[1].type(), "lost");
  EXPECT_EQ(events[1].lost_from(), 2U);
  EXPECT_EQ(events[1].lost_to(), 2U);
}

TEST_F(AuditSegmentTest, ACrashWithNothingOpenLosesNothing) {
  Crash([](AuditSegments& segments) {
    segments.given_out(0) += 1;
    (void)segments.AppendSerialized(Delimited(segments, 1), 1, 1);
  });
  auto segments = Open();
  EXPECT_EQ(Events().size(), 1U);
}

TEST_F(AuditSegmentTest, DeferredEventsAreNumberedWhereTheyAreWritten) {
  auto segments = Open();
  segments->TakeOn();
  ASSERT_THAT(segments->Append(Named("login")), IsOk());
  segments->TakeOn();
  ASSERT_THAT(segments->WriteTaken({Named("token"), Named("token")}), IsOk());
  ASSERT_THAT(segments->Append(Named("logout")), IsOk());
  const std::vector<Event> events = Events();
  ASSERT_EQ(events.size(), 4U);
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].sequence(), i + 1);
    EXPECT_EQ(events[i].source(), "edge/1");
    EXPECT_TRUE(events[i].has_at());
  }
  EXPECT_EQ(events[0].type(), "login");
  EXPECT_EQ(events[3].type(), "logout");
}

TEST_F(AuditSegmentTest, DeferredEventsOfACrashAreLost) {
  Crash([](AuditSegments& segments) {
    segments.TakeOn();
    segments.TakeOn();
    (void)segments.WriteTaken({Named("token"), Named("token")});
    (void)segments.Append(Named("login"));
    for (int i = 0; i < 3; ++i) segments.TakeOn();
    (void)segments.Append(Named("logout"));
  });
  auto segments = Open();
  const std::vector<Event> events = Events();
  ASSERT_EQ(events.size(), 5U);
  EXPECT_EQ(events[4].type(), "lost");
  EXPECT_EQ(events[4].lost_from(), 5U);
  EXPECT_EQ(events[4].lost_to(), 7U);
}

// The registry's rule: contiguous, "lost" stands for all it counts.
class FakeStore {
 public:
  AuditSink Sink() {
    return [this](const audit::v1::AppendRequest& request) -> absl::StatusOr<uint64_t> {
      std::lock_guard<std::mutex> lock(mu_);
      ++calls_;
      if (!up_) {
        return absl::UnavailableError("registry is down");
      }
      uint64_t& through = stored_through_[request.events(0).boot()];
      for (const Event& event : request.events()) {
        const uint64_t from = event.type() == "lost" ? event.lost_from() : event.sequence();
        if (event.sequence() > through && from <= through + 1) {
          through = event.sequence();
          types_.push_back(event.type());
        }
      }
      return through;
    };
  }
  void SetUp(bool up) {
    std::lock_guard<std::mutex> lock(mu_);
    up_ = up;
  }
  void Forget() {
    std::lock_guard<std::mutex> lock(mu_);
    stored_through_.clear();
  }
  std::vector<std::string> types() {
    std::lock_guard<std::mutex> lock(mu_);
    return types_;
  }

 private:
  std::mutex mu_;
  bool up_ = true;
  int calls_ = 0;
  std::map<std::string, uint64_t> stored_through_;
  std::vector<std::string> types_;
};

class AuditShipperTest : public AuditSegmentTest {
 protected:
  std::unique_ptr<AuditShipper> Ship(const AuditSegments& segments, int batch = 1000) {
    AuditShipper::Options options;
    options.directory = directory_.File("audit");
    options.live_boot = segments.boot();
    options.interval = absl::Milliseconds(5);
    options.max_backoff = absl::Milliseconds(20);
    options.batch = batch;
    return std::make_unique<AuditShipper>(options, store_.Sink());
  }
  FakeStore store_;
};

TEST_F(AuditShipperTest, ShipsEverythingInOrderAndDeletesFullSegments) {
  auto segments = Open(/*segment_bytes=*/200);
  for (int i = 0; i < 9; ++i) {
    ASSERT_THAT(segments->Append(Named("e" + std::to_string(i))), IsOk());
  }
  auto shipper = Ship(*segments, /*batch=*/2);
  ASSERT_TRUE(shipper->Flush(absl::Seconds(60)));
  EXPECT_THAT(store_.types(), ::testing::ElementsAre("e0", "e1", "e2", "e3", "e4", "e5", "e6", "e7", "e8"));
  EXPECT_EQ(Files().size(), 1U);

  ASSERT_THAT(segments->Append(Named("e9")), IsOk());
  ASSERT_TRUE(shipper->Flush(absl::Seconds(60)));
  EXPECT_EQ(store_.types().back(), "e9");
}

// Paced, each batch of one would be followed by a pause of a second.
TEST_F(AuditShipperTest, ShipsWithoutPauseWhenTheDirectoryIsFull) {
  auto segments = Open();
  for (int i = 0; i < 90; ++i) {
    ASSERT_THAT(segments->Append(Named("event")), IsOk());
  }
  AuditShipper::Options options;
  options.directory = segments->directory();
  options.live_boot = segments->boot();
  options.batch = 1;
  options.share = 1e-12;
  options.max_bytes = 1;
  AuditShipper shipper(options, store_.Sink());
  EXPECT_TRUE(shipper.Flush(absl::Seconds(45)));
  EXPECT_EQ(store_.types().size(), 90U);
}

// A shipper that waits for its store, or ships what it finds at its own pace, must not hide what others wrote
// meanwhile.
TEST_F(AuditShipperTest, ShowsTheBacklogAsItIsWhenTheMetricIsRead) {
  auto segments = Open(/*segment_bytes=*/200);
  AuditShipper::Options options;
  options.directory = segments->directory();
  options.live_boot = segments->boot();
  options.interval = absl::Milliseconds(5);
  options.max_backoff = absl::Seconds(60);
  options.service = "backlog_test";
  store_.SetUp(false);
  AuditShipper shipper(options, store_.Sink());
  const auto backlog = [] {
    (void)SerializeMetrics();
    return MetricGauge("sallyport_audit_backlog_bytes", "", {{"service", "backlog_test"}}).Value();
  };
  for (int i = 0; i < 9; ++i) {
    ASSERT_THAT(segments->Append(Named("e" + std::to_string(i))), IsOk());
  }
  // Up to the head of the file that the shipper is at.
  EXPECT_NEAR(backlog(), static_cast<double>(audit_format::TotalBytes(segments->directory())), 100);

  store_.SetUp(true);
  ASSERT_TRUE(shipper.Flush(absl::Seconds(60)));
  EXPECT_EQ(backlog(), 0);
}

TEST_F(AuditShipperTest, SurvivesAStoreThatIsDown) {
  auto segments = Open();
  ASSERT_THAT(segments->Append(Named("login")), IsOk());
  store_.SetUp(false);
  auto shipper = Ship(*segments);
  EXPECT_FALSE(shipper->Flush(absl::Milliseconds(100)));
  store_.SetUp(true);
  EXPECT_TRUE(shipper->Flush(absl::Seconds(60)));
  EXPECT_EQ(store_.types().size(), 1U);
}

TEST_F(AuditShipperTest, AFormerBootIsShippedAndGone) {
  Crash([](AuditSegments& segments) {
    segments.given_out(0) += 3;
    (void)segments.AppendSerialized(Delimited(segments, 1), 1, 1);
  });
  auto segments = Open();
  auto shipper = Ship(*segments);
  ASSERT_TRUE(shipper->Flush(absl::Seconds(60)));
  EXPECT_THAT(store_.types(), ::testing::ElementsAre("mcp.call", "lost"));
  EXPECT_TRUE(Files().empty());
}

TEST_F(AuditShipperTest, ARestartedShipperGoesOnWhereTheOtherEnded) {
  auto segments = Open();
  ASSERT_THAT(segments->Append(Named("one")), IsOk());
  ASSERT_TRUE(Ship(*segments)->Flush(absl::Seconds(60)));
  ASSERT_THAT(segments->Append(Named("two")), IsOk());
  ASSERT_TRUE(Ship(*segments)->Flush(absl::Seconds(60)));
  EXPECT_THAT(store_.types(), ::testing::ElementsAre("one", "two"));
}

TEST_F(AuditShipperTest, ADamagedSegmentIsSetAsideAndItsEventsAreLost) {
  auto segments = Open(/*segment_bytes=*/200);
  for (int i = 0; i < 6; ++i) {
    ASSERT_THAT(segments->Append(Named("event" + std::to_string(i))), IsOk());
  }
  const std::string first = Files()[0];
  {
    std::fstream file(first, std::ios::in | std::ios::out | std::ios::binary);
    std::string all((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    file.seekp(static_cast<std::streamoff>(all.find("event0")));
    file << "forged";
  }
  auto shipper = Ship(*segments);
  ASSERT_TRUE(shipper->Flush(absl::Seconds(60)));
  EXPECT_EQ(store_.types().front(), "lost");
  EXPECT_EQ(store_.types().back(), "event5");
  EXPECT_TRUE(std::filesystem::exists(first + ".broken"));
}

TEST_F(AuditShipperTest, AStoreThatForgotIsToldOfTheGap) {
  auto segments = Open();
  ASSERT_THAT(segments->Append(Named("one")), IsOk());
  ASSERT_TRUE(Ship(*segments)->Flush(absl::Seconds(60)));
  store_.Forget();
  ASSERT_THAT(segments->Append(Named("two")), IsOk());
  ASSERT_TRUE(Ship(*segments)->Flush(absl::Seconds(60)));
  EXPECT_THAT(store_.types(), ::testing::ElementsAre("one", "lost", "two"));
}

}  // namespace
}  // namespace sallyport

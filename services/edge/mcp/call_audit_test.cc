// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/call_audit.h"

#include <chrono>
#include <filesystem>
#include <functional>
#include <thread>

#include <gmock/gmock.h>
#include <google/protobuf/util/time_util.h>

#include "common/mutex.h"
#include "common/text/utf8.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport::edge {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::SizeIs;

bool Soon(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

class CallAuditTest : public ::testing::Test {
 protected:
  void SetUp() override {
    AuditSegments::Options options;
    options.directory = directory_.File("audit");
    options.source = "edge/0";
    auto segments = AuditSegments::Open(options, clock_);
    ASSERT_THAT(segments, IsOk());
    boot_ = (*segments)->boot();
    AuditShipper::Options shipping;
    shipping.directory = options.directory;
    shipping.live_boot = boot_;
    audit_ = std::make_unique<CallAudit>(
        *std::move(segments), "edge/0",
        std::make_unique<AuditShipper>(shipping, [this](const audit::v1::AppendRequest& request) {
          MutexLock lock(mu_);
          for (const auto& event : request.events()) events_.push_back(event);
          changed_.notify_all();
          return absl::StatusOr<uint64_t>(request.events().rbegin()->sequence());
        }));
  }
  std::vector<audit::v1::Event> Await(size_t count) {
    audit_->Flush();
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    MutexLock lock(mu_);
    while (events_.size() < count && changed_.wait_until(mu_, until) != std::cv_status::timeout) {
    }
    return events_;
  }
  CallRecord Record() const {
    CallRecord record;
    record.at = absl::FromUnixMicros(1'800'000'000'123'456);
    record.type = "mcp.call";
    record.decision = audit::v1::DECISION_ALLOWED;
    return record;
  }

  FakeClock clock_;
  sallyport::testing::TempDirectory directory_;
  std::string boot_;
  Mutex mu_;
  std::condition_variable_any changed_;
  std::vector<audit::v1::Event> events_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<CallAudit> audit_;
};

TEST_F(CallAuditTest, WhatIsWrittenIsTheEventTheSchemaKnows) {
  audit::v1::Event principal;
  principal.set_subject("okta:ada");
  principal.set_client_id("cursor");
  const std::string principal_fields = principal.SerializeAsString();
  const std::string server_fields = ServerAuditFields("srv_a", "github");
  audit::v1::Event credentials;
  credentials.add_credentials()->set_piece("app_auth");
  credentials.mutable_credentials(0)->set_generation(3);
  const std::string credential_fields = credentials.SerializeAsString();
  CallRecord record = Record();
  record.rule = "interactive.allow.groups";
  record.principal_fields = principal_fields;
  record.server_fields = server_fields;
  record.credential_fields = credential_fields;
  record.client_address = "192.0.2.1";
  record.mcp_method = "tools/call";
  record.mcp_name = "search";
  record.trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
  record.status = 200;
  record.latency_us = 12'345;
  audit_->Record(0, record);
  const auto events = Await(1);
  ASSERT_THAT(events, SizeIs(1));
  audit::v1::Event expected = principal;
  expected.MergeFrom(credentials);
  expected.set_source("edge/0");
  expected.set_boot(boot_);
  expected.set_sequence(1);
  *expected.mutable_at() = google::protobuf::util::TimeUtil::MicrosecondsToTimestamp(1'800'000'000'123'456);
  expected.set_type("mcp.call");
  expected.set_decision(audit::v1::DECISION_ALLOWED);
  expected.set_rule("interactive.allow.groups");
  expected.set_server_uid("srv_a");
  expected.set_server_slug("github");
  expected.set_client_address("192.0.2.1");
  expected.set_mcp_method("tools/call");
  expected.set_mcp_name("search");
  expected.set_trace_id("4bf92f3577b34da6a3ce929d0e0e4736");
  expected.set_status(200);
  expected.set_latency_us(12'345);
  EXPECT_EQ(events[0].DebugString(), expected.DebugString());
}

TEST_F(CallAuditTest, LongNamesAreCutBetweenCharacters) {
  std::string name(255, 'a');
  name += "\xe2\x98\x83\xe2\x98\x83";
  CallRecord record = Record();
  record.mcp_name = name;
  audit_->Record(0, record);
  const auto events = Await(1);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].mcp_name(), std::string(255, 'a'));
}

TEST_F(CallAuditTest, SequencesRunThroughAllWorkersWithoutGaps) {
  for (size_t i = 0; i < 100; ++i) audit_->Record(i % 7, Record());
  const auto events = Await(100);
  ASSERT_THAT(events, SizeIs(100));
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i].sequence(), i + 1);
}

TEST_F(CallAuditTest, AfterAFailureOnlyAWrittenRecordMakesItWritable) {
  EXPECT_TRUE(audit_->writable());
  std::filesystem::rename(directory_.File("audit"), directory_.File("away"));
  audit_->Record(0, Record());
  EXPECT_TRUE(Soon([&] { return !audit_->writable(); }));
  for (int i = 0; i < 3; ++i) audit_->Flush();
  EXPECT_FALSE(audit_->writable()) << "nothing was tried: nothing is known";
  std::filesystem::rename(directory_.File("away"), directory_.File("audit"));
  audit_->Flush();
  EXPECT_FALSE(audit_->writable());
  audit_->Record(0, Record());  // Of a call that was refused because of it.
  EXPECT_TRUE(Soon([&] { return audit_->writable(); }));
}

TEST_F(CallAuditTest, WhatDoesNotFitMakesItUnwritableForAWhile) {
  audit::v1::Event filler;
  filler.set_subject(std::string(48 << 10, 'x'));
  const std::string fields = filler.SerializeAsString();
  CallRecord record = Record();
  record.principal_fields = fields;
  while (audit_->writable()) audit_->Record(0, record);
  EXPECT_TRUE(Soon([&] {
    audit_->Record(0, Record());
    return audit_->writable();
  }));
}

TEST_F(CallAuditTest, ACrashCountsTheCallsThatWereUnderWay) {
  for (int i = 0; i < 3; ++i) audit_->Begin(static_cast<size_t>(i));
  audit_->Record(0, Record());
  audit_->Flush();
  // What kill -9 would leave.
  const std::string left = directory_.File("left");
  ASSERT_TRUE(Soon([&] {  // The shipper moves files meanwhile.
    std::error_code error;
    std::filesystem::remove_all(left);
    std::filesystem::copy(directory_.File("audit"), left, std::filesystem::copy_options::recursive, error);
    return !error;
  }));
  AuditSegments::Options options;
  options.directory = left;
  options.source = "edge/0";
  ASSERT_THAT(AuditSegments::Open(options, clock_), IsOk());
  uint64_t lost = 0;
  for (const auto& file : std::filesystem::directory_iterator(left)) {
    if (file.path().extension() != ".seg") continue;
    const auto reader = AuditSegmentReader::Open(file.path());
    ASSERT_THAT(reader, IsOk());
    audit::v1::Event event;
    for (std::string bytes; (*reader)->Next(&bytes).ok();) {
      ASSERT_TRUE(event.ParseFromString(bytes));
      if (event.type() == "lost") lost += event.lost_to() - event.lost_from() + 1;
    }
  }
  EXPECT_EQ(lost, 2U);
  audit_->Record(1, Record());
  audit_->Record(2, Record());
}

TEST_F(CallAuditTest, WhatDoesNotFitIsCountedAsLost) {
  const std::string big(1 << 20, 'x');
  CallRecord record = Record();
  record.principal_fields = big;  // Opaque here: an unknown field would do; it is never parsed below.
  audit::v1::Event filler;
  filler.set_subject(big);
  const std::string fields = filler.SerializeAsString();
  record.principal_fields = fields;
  for (int i = 0; i < 40; ++i) audit_->Record(0, record);  // 16 MiB at most between two flushes.
  audit_->Flush();
  audit_->Record(0, Record());
  audit_->Flush();
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  uint64_t seen = 0;
  uint64_t lost = 0;
  MutexLock lock(mu_);
  while (std::chrono::steady_clock::now() < until) {
    seen = lost = 0;
    for (const auto& event : events_) {
      if (event.type() == "lost") {
        lost += event.lost_to() - event.lost_from() + 1;
      } else {
        ++seen;
      }
    }
    if (seen + lost >= 41) break;
    changed_.wait_until(mu_, until);
  }
  EXPECT_EQ(seen + lost, 41U) << "each is there or counted";
}

}  // namespace
}  // namespace sallyport::edge

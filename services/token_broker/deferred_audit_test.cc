// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/deferred_audit.h"

#include <filesystem>
#include <vector>

#include <gtest/gtest.h>

#include "common/audit/segment_format.h"
#include "common/error.h"
#include "common/proto_time.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;

class DeferredAuditTest : public ::testing::Test {
 protected:
  std::unique_ptr<AuditSegments> Open(int64_t max_bytes = int64_t{1} << 30) {
    AuditSegments::Options options;
    options.directory = directory_.File("audit");
    options.source = "token_broker/0";
    options.max_bytes = max_bytes;
    auto opened = AuditSegments::Open(options, clock_);
    EXPECT_THAT(opened, IsOk());
    return *std::move(opened);
  }
  std::vector<audit::v1::Event> Events() {
    std::vector<audit::v1::Event> events;
    for (const auto& file : audit_format::ListSegments(directory_.File("audit"))) {
      const auto reader = AuditSegmentReader::Open(file.path);
      EXPECT_THAT(reader, IsOk());
      std::string bytes;
      while (reader.ok() && (*reader)->Next(&bytes).ok()) {
        events.emplace_back();
        events.back().ParseFromString(bytes);
      }
    }
    return events;
  }

  ::sallyport::testing::TempDirectory directory_;
  FakeClock clock_;
};

TEST_F(DeferredAuditTest, EventsStandAmongThoseThatWereWaitedFor) {
  const auto segments = Open();
  const AuditLog log(segments.get());
  {
    DeferredAudit deferred(segments.get());
    ASSERT_THAT(deferred.Record({.type = "platform.token", .subject = "corp:ada", .actor = "chat"}, clock_.Now()),
                IsOk());
    ASSERT_THAT(log.Record({.type = "link.started"}), IsOk());
    ASSERT_THAT(deferred.Record({.type = "platform.token"}, clock_.Now()), IsOk());
  }
  const std::vector<audit::v1::Event> events = Events();
  ASSERT_EQ(events.size(), 3U);
  int tokens = 0;
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].sequence(), i + 1);
    tokens += events[i].type() == "platform.token" ? 1 : 0;
  }
  EXPECT_EQ(tokens, 2);
}

TEST_F(DeferredAuditTest, WhatCannotBeWrittenStopsWhatItRecords) {
  // Full with the first event.
  const auto segments = Open(/*max_bytes=*/10);
  ASSERT_THAT(segments->Append(EventOf({.type = "login"})), IsOk());
  DeferredAudit deferred(segments.get());
  clock_.Advance(absl::Seconds(2));
  ASSERT_THAT(deferred.Record({.type = "platform.token"}, clock_.Now()), IsOk());
  deferred.Flush();
  const absl::Status refused = deferred.Record({.type = "platform.token"}, clock_.Now());
  EXPECT_THAT(refused, StatusIs(Code::kUnavailable));
  EXPECT_EQ(ReasonOf(refused), "audit_unavailable");
  // Once it has been shipped there is room again; what waited is not lost.
  for (const auto& file : audit_format::ListSegments(directory_.File("audit"))) {
    std::filesystem::remove(file.path);
  }
  clock_.Advance(absl::Seconds(2));
  deferred.Flush();
  EXPECT_THAT(deferred.Record({.type = "platform.token"}, clock_.Now()), IsOk());
}

}  // namespace
}  // namespace sallyport::token_broker

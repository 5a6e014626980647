// SPDX-License-Identifier: Apache-2.0
#include "services/registry/audit_store.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/time_util.h>

#include "common/error.h"
#include "services/registry/registry_testing.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Code = absl::StatusCode;
using google::protobuf::util::TimeUtil;

class AuditStoreTest : public EngineTest {
 protected:
  static audit::v1::Event Event(uint64_t sequence, const std::string& source = "edge/0",
                                const std::string& boot = "b1") {
    audit::v1::Event event;
    event.set_source(source);
    event.set_boot(boot);
    event.set_sequence(sequence);
    event.set_type("mcp.call");
    *event.mutable_at() = TimeUtil::SecondsToTimestamp(1'800'000'000 + static_cast<int64_t>(sequence % 1000));
    return event;
  }
  absl::StatusOr<uint64_t> Append(const std::vector<audit::v1::Event>& events) {
    audit::v1::AppendRequest request;
    for (const auto& event : events) *request.add_events() = event;
    auto response = AuditStore(*database_).Append(request);
    if (!response.ok()) return response.status();
    return response->stored_through();
  }
  std::vector<uint64_t> List(const audit::v1::ListEventsRequest& request = {}) {
    std::vector<uint64_t> sequences;
    auto response = AuditStore(*database_).List(request);
    EXPECT_THAT(response, IsOk());
    for (const auto& event : response->events()) sequences.push_back(event.sequence());
    return sequences;
  }
};
INSTANTIATE_ENGINES(AuditStoreTest);

TEST_P(AuditStoreTest, TheSameBatchTwiceIsStoredOnce) {
  const std::vector<audit::v1::Event> batch = {Event(1), Event(2)};
  EXPECT_EQ(*Append(batch), 2U);
  EXPECT_EQ(*Append(batch), 2U);
  EXPECT_EQ(*Append({Event(2), Event(3)}), 3U) << "overlapping";
  EXPECT_THAT(List(), ElementsAre(3, 2, 1));
}

TEST_P(AuditStoreTest, AnotherEventUnderAKnownNumberIsRefused) {
  EXPECT_EQ(*Append({Event(1), Event(2)}), 2U);
  audit::v1::Event later = Event(2);
  *later.mutable_at() = TimeUtil::SecondsToTimestamp(1'900'000'000);

  const auto refused = Append({later, Event(3)});

  EXPECT_THAT(refused, StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(refused.status()), "sequence_reused");
  EXPECT_THAT(List(), ElementsAre(2, 1)) << "nothing of the batch is stored";
}

TEST_P(AuditStoreTest, SourcesAndBootsCountForThemselves) {
  EXPECT_EQ(*Append({Event(1), Event(2)}), 2U);
  EXPECT_EQ(*Append({Event(1, "edge/1")}), 1U);
  EXPECT_EQ(*Append({Event(1, "edge/0", "b2")}), 1U);
  EXPECT_THAT(List(), SizeIs(4));
}

TEST_P(AuditStoreTest, AGapIsNotPassedUntilItIsFilledOrToldLost) {
  EXPECT_EQ(*Append({Event(1)}), 1U);
  EXPECT_EQ(*Append({Event(3), Event(4)}), 1U) << "2 is missing";
  audit::v1::Event lost = Event(2);
  lost.set_type("lost");
  lost.set_lost_from(2);
  lost.set_lost_to(2);
  EXPECT_EQ(*Append({lost, Event(3), Event(4)}), 4U);

  audit::v1::Event many = Event(20);
  many.set_type("lost");
  many.set_lost_from(5);
  many.set_lost_to(20);
  EXPECT_EQ(*Append({many}), 20U);
  EXPECT_EQ(*Append({Event(21)}), 21U);
}

TEST_P(AuditStoreTest, ALossThatBeginsBehindAGapDoesNotHideIt) {
  EXPECT_EQ(*Append({Event(1)}), 1U);
  audit::v1::Event lost = Event(9);
  lost.set_type("lost");
  lost.set_lost_from(5);
  lost.set_lost_to(9);
  EXPECT_EQ(*Append({lost}), 1U) << "2 to 4 are missing";
}

TEST_P(AuditStoreTest, MalformedBatchesAreRefusedWhole) {
  const auto refused = [&](const std::vector<audit::v1::Event>& events) {
    EXPECT_THAT(Append(events), StatusIs(Code::kInvalidArgument));
  };
  refused({});
  refused({Event(0)});
  refused({Event(1, "")});
  refused({Event(1, "edge/0", "")});
  refused({Event(1), Event(2, "edge/1")});
  refused({Event(1), Event(2, "edge/0", "b2")});
  refused({Event(1ULL << 63)});
  audit::v1::Event undated = Event(1);
  undated.clear_at();
  refused({Event(1), undated});
  audit::v1::Event lost = Event(4);
  lost.set_type("lost");
  refused({lost});
  lost.set_lost_from(5);
  refused({lost});
  refused(std::vector<audit::v1::Event>(1001, Event(1)));
  EXPECT_THAT(List(), IsEmpty());
}

TEST_P(AuditStoreTest, ANulInATextDoesNotBlockTheEventsBehindIt) {
  audit::v1::Event event = Event(1);
  event.set_subject(std::string("okta:a\0b", 8));
  EXPECT_EQ(*Append({event, Event(2)}), 2U);
  auto stored = AuditStore(*database_).List({});
  ASSERT_THAT(stored, IsOk());
  EXPECT_EQ(stored->events(1).subject(), std::string("okta:a\0b", 8)) << "as it was sent";
}

TEST_P(AuditStoreTest, PagesAreNewestFirstAndStableWhileEventsArrive) {
  std::vector<audit::v1::Event> events;
  for (uint64_t i = 1; i <= 7; ++i) {
    events.push_back(Event(i));
    *events.back().mutable_at() = TimeUtil::SecondsToTimestamp(1'800'000'000 + static_cast<int64_t>(i / 3));  // Ties.
  }
  ASSERT_THAT(Append(events), IsOk());
  audit::v1::ListEventsRequest request;
  request.set_page_size(2);
  std::vector<uint64_t> seen;
  for (int page = 0; page < 10; ++page) {
    auto response = AuditStore(*database_).List(request);
    ASSERT_THAT(response, IsOk());
    for (const auto& event : response->events()) seen.push_back(event.sequence());
    if (response->next_page_token().empty()) break;
    ASSERT_THAT(Append({Event(100 + static_cast<uint64_t>(page))}), IsOk());
    request.set_page_token(response->next_page_token());
  }
  std::vector<uint64_t> sorted = seen;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_THAT(sorted, ElementsAre(1, 2, 3, 4, 5, 6, 7)) << "each once";
  EXPECT_THAT(std::vector<uint64_t>(seen.begin(), seen.begin() + 2), ::testing::UnorderedElementsAre(6, 7));
}

TEST_P(AuditStoreTest, FiltersAreCombined) {
  audit::v1::Event denied = Event(1);
  denied.set_subject("okta:ada");
  denied.set_decision(audit::v1::DECISION_DENIED);
  denied.set_server_uid("srv_a");
  denied.set_server_slug("a");
  audit::v1::Event allowed = Event(2);
  allowed.set_subject("okta:ada");
  allowed.set_decision(audit::v1::DECISION_ALLOWED);
  audit::v1::Event login = Event(3);
  login.set_type("login");
  ASSERT_THAT(Append({denied, allowed, login}), IsOk());
  audit::v1::ListEventsRequest request;
  request.set_subject("okta:ada");
  EXPECT_THAT(List(request), ElementsAre(2, 1));
  request.set_decision(audit::v1::DECISION_DENIED);
  EXPECT_THAT(List(request), ElementsAre(1));
  request.Clear();
  request.set_type("login");
  EXPECT_THAT(List(request), ElementsAre(3));
  request.Clear();
  request.set_server_uid("srv_a");
  EXPECT_THAT(List(request), ElementsAre(1));
  request.Clear();
  request.set_server_slug("a");
  EXPECT_THAT(List(request), ElementsAre(1));
  request.Clear();
  *request.mutable_since() = TimeUtil::SecondsToTimestamp(1'800'000'002);
  *request.mutable_until() = TimeUtil::SecondsToTimestamp(1'800'000'003);
  EXPECT_THAT(List(request), ElementsAre(2)) << "until is exclusive";
  request.Clear();
  request.set_subject("' OR '1'='1");
  EXPECT_THAT(List(request), IsEmpty());
}

TEST_P(AuditStoreTest, ForeignPageTokensAndSizesAreRefused) {
  for (const char* token : {"x", "1", "x:y", ":", "99999999999999999999:a"}) {
    audit::v1::ListEventsRequest request;
    request.set_page_token(token);
    EXPECT_THAT(AuditStore(*database_).List(request), StatusIs(Code::kInvalidArgument)) << token;
  }
  for (const int size : {-1, 1001}) {
    audit::v1::ListEventsRequest request;
    request.set_page_size(size);
    EXPECT_THAT(AuditStore(*database_).List(request), StatusIs(Code::kInvalidArgument)) << size;
  }
}

TEST_P(AuditStoreTest, WhatIsTooOldGoesAndDoesNotComeBackAsAGap) {
  ASSERT_THAT(Append({Event(1), Event(2)}), IsOk());
  ASSERT_THAT(AuditStore(*database_).DeleteBefore(absl::FromUnixSeconds(1'800'000'002)), IsOk());
  EXPECT_THAT(List(), ElementsAre(2));
  EXPECT_EQ(*Append({Event(3)}), 3U);
}

}  // namespace
}  // namespace sallyport::registry

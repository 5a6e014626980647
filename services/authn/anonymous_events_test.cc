// SPDX-License-Identifier: Apache-2.0
#include "services/authn/anonymous_events.h"

#include <vector>

#include <gtest/gtest.h>

#include "services/authn/authn_testing.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;

TEST(AnonymousEventsTest, AFloodIsCountedAndTheCountIsRecorded) {
  TempDirectory directory;
  FakeClock clock;
  const std::unique_ptr<Database> database = OpenTestDatabase(directory, clock);
  Audit audit(*database, clock);
  AnonymousEvents events;
  const auto record = [&] {
    return events.Record(audit, MakeEvent("client.refused", audit::v1::DECISION_DENIED, ""), clock.Now());
  };
  for (int i = 0; i < 200; ++i) ASSERT_THAT(record(), IsOk());
  AuditOutbox outbox(*database, clock, {.source = "authn"});
  EXPECT_EQ(*outbox.Pending(), 60);

  clock.Advance(absl::Seconds(1));
  ASSERT_THAT(record(), IsOk());

  EXPECT_EQ(*outbox.Pending(), 61);
  std::vector<audit::v1::Event> stored;
  ASSERT_THAT(outbox.ShipOnce([&](const audit::v1::AppendRequest& batch) -> absl::StatusOr<uint64_t> {
    stored.assign(batch.events().begin(), batch.events().end());
    return batch.events(batch.events_size() - 1).sequence();
  }),
              IsOk());
  EXPECT_EQ(stored.back().details().at("unrecorded"), "140");
}

}  // namespace
}  // namespace sallyport::authn

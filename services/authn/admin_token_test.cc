// SPDX-License-Identifier: Apache-2.0
#include "services/authn/admin_token.h"

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "common/error.h"
#include "services/authn/authn_testing.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;

constexpr char kHere[] = "192.0.2.1";

class AdminTokenTest : public EnginesTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(EnginesTest::SetUp());
    audit_ = std::make_unique<Audit>(*database_, clock_);
  }
  std::string File() { return directory_.path() + "/" + AdminToken::kFileName; }
  std::string Read() { return std::string(ReadSecretFile(File())->Expose()); }

  std::unique_ptr<Audit> audit_;
};

INSTANTIATE_ENGINES(AdminTokenTest);

TEST_P(AdminTokenTest, TheFileIsForItsOwnerAlone) {
  AdminToken token(*database_, *audit_, directory_.path());
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  struct stat info {};
  ASSERT_EQ(stat(File().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_P(AdminTokenTest, IsGoodOnceAndTheFileGoes) {
  AdminToken token(*database_, *audit_, directory_.path());
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  const std::string value = Read();

  EXPECT_THAT(token.Redeem(value + "\n", kHere, clock_.Now()), IsOk());
  EXPECT_THAT(token.Redeem(value, kHere, clock_.Now()), StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_FALSE(ReadFile(File()).ok());
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  EXPECT_FALSE(ReadFile(File()).ok());
}

TEST_P(AdminTokenTest, OfManyAtOnceOneWins) {
  AdminToken maker(*database_, *audit_, directory_.path());
  ASSERT_THAT(maker.EnsureFile(clock_.Now()), IsOk());
  const std::string value = Read();
  std::atomic<int> won = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      AdminToken token(*database_, *audit_, directory_.path());
      won += token.Redeem(value, kHere, clock_.Now()).ok() ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(won, 1);
}

TEST_P(AdminTokenTest, AStartKeepsAFileThatIsStillGoodAndReplacesOneThatIsNot) {
  AdminToken token(*database_, *audit_, directory_.path());
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  const std::string value = Read();
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  EXPECT_EQ(Read(), value);

  ASSERT_THAT(WriteFileAtomic(File(), "spadm_forged"), IsOk());
  EXPECT_THAT(token.Redeem("spadm_forged", kHere, clock_.Now()), StatusIs(absl::StatusCode::kUnauthenticated));
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  EXPECT_THAT(token.Redeem(Read(), kHere, clock_.Now()), IsOk());
}

TEST_P(AdminTokenTest, GuessingFromOneAddressIsLimited) {
  AdminToken token(*database_, *audit_, directory_.path());
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  for (int i = 0; i < 5; ++i) {
    EXPECT_THAT(token.Redeem("spadm_guess", kHere, clock_.Now()), StatusIs(absl::StatusCode::kUnauthenticated));
  }
  EXPECT_THAT(token.Redeem(Read(), kHere, clock_.Now()), StatusIs(absl::StatusCode::kResourceExhausted));
  clock_.Advance(absl::Seconds(12));
  EXPECT_THAT(token.Redeem(Read(), kHere, clock_.Now()), IsOk());
}

TEST_P(AdminTokenTest, AStrangersFloodStopsNobodyElse) {
  AdminToken token(*database_, *audit_, directory_.path());
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  for (int i = 0; i < 1000; ++i) {
    const std::string subscriber = absl::StrCat("2001:db8:6:6::", absl::Hex(i + 1));
    EXPECT_FALSE(token.Redeem("spadm_guess", "192.0.2.66", clock_.Now()).ok());
    EXPECT_THAT(token.Redeem("spadm_guess", subscriber, clock_.Now()),
                StatusIs(i < 5 ? absl::StatusCode::kUnauthenticated : absl::StatusCode::kResourceExhausted));
  }
  EXPECT_THAT(token.Redeem(Read(), "2001:db8:6:7::1", clock_.Now()), IsOk());
}

TEST_P(AdminTokenTest, FromAllAddressesTogetherAttemptsAreLimitedAndFewAreRecorded) {
  AdminToken token(*database_, *audit_, directory_.path());
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  for (int i = 0; i < 300; ++i) {
    EXPECT_THAT(token.Redeem("spadm_guess", absl::StrCat("198.51.", i / 100, ".", i % 100), clock_.Now()),
                StatusIs(absl::StatusCode::kUnauthenticated));
  }
  const absl::Status refused = token.Redeem(Read(), kHere, clock_.Now());
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(DetailOf(refused).retry_after, absl::Milliseconds(100));
  AuditOutbox outbox(*database_, clock_, {.source = "authn"});
  EXPECT_LE(*outbox.Pending(), 61);
  clock_.Advance(absl::Milliseconds(100));
  EXPECT_THAT(token.Redeem(Read(), kHere, clock_.Now()), IsOk());
}

TEST_P(AdminTokenTest, EventsSayWhoseAttemptItWas) {
  AdminToken token(*database_, *audit_, directory_.path());
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  EXPECT_FALSE(token.Redeem("spadm_guess", "192.0.2.66", clock_.Now()).ok());
  EXPECT_THAT(token.Redeem(Read(), kHere, clock_.Now()), IsOk());
  std::vector<std::string> events;
  AuditOutbox outbox(*database_, clock_, {.source = "authn"});
  ASSERT_THAT(outbox.ShipOnce([&](const audit::v1::AppendRequest& batch) -> absl::StatusOr<uint64_t> {
    for (const auto& event : batch.events()) {
      events.push_back(absl::StrCat(audit::v1::Decision_Name(event.decision()), " ", event.client_address()));
    }
    return batch.events(batch.events_size() - 1).sequence();
  }),
              IsOk());
  EXPECT_THAT(events, ::testing::ElementsAre("DECISION_DENIED 192.0.2.66", "DECISION_ALLOWED 192.0.2.1"));
}

TEST_P(AdminTokenTest, WithoutADirectoryThereIsNone) {
  AdminToken token(*database_, *audit_, "");
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  EXPECT_THAT(token.Redeem("", kHere, clock_.Now()), StatusIs(absl::StatusCode::kUnauthenticated));
}

}  // namespace
}  // namespace sallyport::authn

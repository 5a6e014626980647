// SPDX-License-Identifier: Apache-2.0
// What the vault does while its audit outbox is full.
#include "services/vault/audit_trail.h"

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
using testing::Service;
using Code = absl::StatusCode;

TEST(AuditTrailTest, NamesThePlatformThatActs) {
  Caller platform = Broker(testing::kUser, Passport::Purpose::kPlatform);
  platform.passport->actor = "batch";
  const audit::v1::Event event = MakeEvent("secret.read", audit::v1::DECISION_ALLOWED, "get", platform);
  EXPECT_EQ(event.actor(), "batch");
  EXPECT_EQ(event.subject(), testing::kUser);
  EXPECT_EQ(MakeEvent("secret.read", audit::v1::DECISION_ALLOWED, "get", Broker()).actor(), "");
}

class FullOutboxTest : public ::testing::Test {
 protected:
  FullOutboxTest() {
    EXPECT_THAT(harness_.Put(Broker(), Connection(), "token"), IsOk());
    EXPECT_THAT(harness_.Put(Broker(), Connection(testing::kUser, "app_2"), "other"), IsOk());
    const int64_t pending = *harness_.outbox->Pending();
    outbox_ = std::make_unique<AuditOutbox>(*harness_.database, harness_.clock,
                                            AuditOutbox::Options{.source = "vault", .limit = pending + 1});
    trail_ = std::make_unique<AuditTrail>(*outbox_);
    harness_.vault = std::make_unique<Vault>(
        Vault::Dependencies{*harness_.database, *harness_.keyring, *trail_, harness_.clock, nullptr});
  }
  ~FullOutboxTest() override { harness_.vault.reset(); }
  // Takes the last place.
  std::string Lease() {
    const auto acquired = harness_.Acquire(Connection());
    EXPECT_THAT(acquired, IsOk());
    return acquired.ok() ? acquired->lease().id() : "";
  }
  static void ExpectRefused(const absl::Status& status) {
    EXPECT_THAT(status, StatusIs(Code::kUnavailable));
    EXPECT_EQ(ReasonOf(status), "audit_unavailable");
  }

  Harness harness_;
  std::unique_ptr<AuditOutbox> outbox_;
  std::unique_ptr<AuditTrail> trail_;
};

TEST_F(FullOutboxTest, NothingIsRevealedWrittenOrLeased) {
  Lease();
  ExpectRefused(harness_.Get(Broker(), Connection()).status());
  ExpectRefused(harness_.Put(Broker(), Connection(), "new").status());
  ExpectRefused(harness_.Delete(Broker(), Connection()).status());
  ExpectRefused(harness_.Acquire(Connection(testing::kUser, "app_2")).status());
  const Rows rows = harness_.Query("SELECT head FROM record WHERE kind = 'connection' AND name = 'app_1'");
  EXPECT_EQ(rows.at(0).Int("head"), 1);
}

TEST_F(FullOutboxTest, TheAnswerToALeaseThatWasGivenIsStored) {
  const std::string lease = Lease();
  ASSERT_THAT(harness_.PutLeased(Connection(), lease, "rotated"), IsOk());
  EXPECT_EQ(harness_.Query("SELECT head FROM record WHERE kind = 'connection' AND name = 'app_1'").at(0).Int("head"),
            2);
}

TEST_F(FullOutboxTest, TheAnswerToALeaseOfAnEndedConnectionIsOwed) {
  const std::string lease = Lease();
  v1::OweRevocationRequest end;
  *end.mutable_record() = Connection();
  end.set_lease(lease);
  ASSERT_THAT(harness_.vault->OweRevocation(Service("token_broker"), end), IsOk());
  const auto late = harness_.PutLeased(Connection(), lease, "rotated");
  ASSERT_THAT(late, IsOk());
  EXPECT_TRUE(late->owed().has_revocation());
}

TEST_F(FullOutboxTest, ALeaseThatWasGivenCanEndInAnyWay) {
  const std::string lease = Lease();
  EXPECT_THAT(harness_.PutStatus(Connection(), lease, "NEEDS_REAUTH"), IsOk());
  EXPECT_THAT(harness_.Release(Connection(), lease), IsOk());
}

TEST_F(FullOutboxTest, ARefusalStaysARefusal) {
  Lease();
  EXPECT_THAT(harness_.Get(Service("edge"), Connection()), StatusIs(Code::kPermissionDenied));
}

}  // namespace
}  // namespace sallyport::vault

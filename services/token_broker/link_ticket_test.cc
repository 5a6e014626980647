// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/link_ticket.h"

#include <gtest/gtest.h>

#include "common/error.h"
#include "common/proto_time.h"
#include "services/token_broker/connection.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);
Secret Key(char c = 'k') { return Secret(std::string(32, c)); }

TEST(LinkTicketTest, TicketIsGoodForItsUserAndServerUntilItExpires) {
  const std::string ticket = MakeTicket(Key(), "corp:ada", "srv_1", kNow + kLinkLifetime);

  EXPECT_THAT(CheckTicket(Key(), ticket, "corp:ada", "srv_1", kNow), IsOk());
  EXPECT_THAT(CheckTicket(Key(), ticket, "corp:ada", "srv_1", kNow + kLinkLifetime), StatusIs(Code::kDeadlineExceeded));
}

TEST(LinkTicketTest, TicketOfSomebodyOrSomethingElseIsRefused) {
  const std::string ticket = MakeTicket(Key(), "corp:ada", "srv_1", kNow + kLinkLifetime);

  EXPECT_EQ(ReasonOf(CheckTicket(Key(), ticket, "corp:bob", "srv_1", kNow)), "link_user_mismatch");
  EXPECT_EQ(ReasonOf(CheckTicket(Key(), ticket, "corp:ada", "srv_2", kNow)), "link_user_mismatch");
  EXPECT_EQ(ReasonOf(CheckTicket(Key('x'), ticket, "corp:ada", "srv_1", kNow)), "link_user_mismatch");
}

TEST(LinkTicketTest, PartsDoNotRunIntoEachOther) {
  const std::string ticket = MakeTicket(Key(), "corp:a", "bsrv_1", kNow + kLinkLifetime);
  EXPECT_THAT(CheckTicket(Key(), ticket, "corp:ab", "srv_1", kNow), StatusIs(Code::kPermissionDenied));
}

TEST(LinkTicketTest, ExpiryCannotBeMoved) {
  std::string ticket = MakeTicket(Key(), "corp:ada", "srv_1", kNow);
  ticket[9] = '9';
  EXPECT_THAT(CheckTicket(Key(), ticket, "corp:ada", "srv_1", kNow), StatusIs(Code::kPermissionDenied));
}

TEST(LinkTicketTest, GarbageIsRefused) {
  for (const char* ticket : {"", ".", "1.", "x.y", "99999999999999999999.x", "1900000000", "-1.x"}) {
    EXPECT_FALSE(CheckTicket(Key(), ticket, "corp:ada", "srv_1", kNow).ok()) << ticket;
  }
  EXPECT_FALSE(CheckTicket(Key(), std::string(5000, '1'), "corp:ada", "srv_1", kNow).ok());
}

TEST(LinkTicketTest, FormTokenIsNoTicketAndBelongsToItsSession) {
  const std::string token = MakeFormToken(Key(), "corp:ada ses_1", "connect srv_1", kNow + absl::Hours(1));

  EXPECT_TRUE(CheckFormToken(Key(), token, "corp:ada ses_1", "connect srv_1", kNow));
  EXPECT_FALSE(CheckFormToken(Key(), token, "corp:ada ses_2", "connect srv_1", kNow));
  EXPECT_FALSE(CheckFormToken(Key(), token, "corp:ada ses_1", "connect srv_2", kNow));
  EXPECT_FALSE(CheckFormToken(Key(), token, "corp:ada ses_1", "connect srv_1", kNow + absl::Hours(1)));
  EXPECT_FALSE(CheckTicket(Key(), token, "corp:ada ses_1", "connect srv_1", kNow).ok());
}

class RequestStateTest : public ::testing::Test {
 protected:
  RequestStateTest() {
    call_.set_method("tools/call");
    call_.set_name("search");
    call_.set_arguments_digest("digest");
    v1::RequestState state;
    state.set_subject("corp:ada");
    state.set_server_uid("srv_1");
    state.set_app_uid("app_1");
    *state.mutable_call() = call_;
    *state.mutable_expires_at() = ToTimestamp(kNow + kLinkLifetime);
    sealed_ = *SealRequestState(Key(), state);
  }
  absl::Status Open(const std::string& sealed, const v1::Call& call, absl::Time now = kNow) {
    return OpenRequestState(Key(), sealed, "corp:ada", "srv_1", call, now).status();
  }
  v1::Call call_;
  std::string sealed_;
};

TEST_F(RequestStateTest, OpensForTheSameCallOnly) {
  EXPECT_THAT(Open(sealed_, call_), IsOk());
  v1::Call other = call_;
  other.set_arguments_digest("other");
  EXPECT_EQ(ReasonOf(Open(sealed_, other)), "request_state_mismatch");
  other = call_;
  other.set_method("prompts/get");
  EXPECT_EQ(ReasonOf(Open(sealed_, other)), "request_state_mismatch");
}

TEST_F(RequestStateTest, EveryChangedByteIsNoticed) {
  for (size_t i = 0; i < sealed_.size(); ++i) {
    std::string changed = sealed_;
    changed[i] = changed[i] == 'A' ? 'B' : 'A';
    EXPECT_EQ(ReasonOf(Open(changed, call_)), "request_state_mismatch") << i;
  }
}

TEST_F(RequestStateTest, ExpiredOrForeignOrCutStatesAreRefused) {
  EXPECT_FALSE(Open(sealed_, call_, kNow + kLinkLifetime).ok());
  EXPECT_FALSE(OpenRequestState(Key('x'), sealed_, "corp:ada", "srv_1", call_, kNow).ok());
  EXPECT_FALSE(OpenRequestState(Key(), sealed_, "corp:bob", "srv_1", call_, kNow).ok());
  EXPECT_FALSE(OpenRequestState(Key(), sealed_, "corp:ada", "srv_2", call_, kNow).ok());
  for (size_t size = 0; size < sealed_.size(); ++size) EXPECT_FALSE(Open(sealed_.substr(0, size), call_).ok()) << size;
}

TEST_F(RequestStateTest, SaysNothingToWhoeverHoldsIt) {
  EXPECT_EQ(sealed_.find("ada"), std::string::npos);
  EXPECT_EQ(sealed_.substr(0, 4), "sp1.");
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
// What platforms hear while parts of the gateway are away, behind, or judge by clocks of their own.
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "services/token_broker/testing/platform_test_base.h"
#include "tests/testing/health_check.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::IsServing;
using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;
using Code = absl::StatusCode;

class PlatformOutageTest : public testing::PlatformTestBase {
 protected:
  void SetUp() override {
    PlatformTestBase::SetUp();
    PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  }
  // One of each method.
  std::vector<absl::Status> AskEverything(const std::shared_ptr<grpc::Channel>& channel) {
    v1::StartUserLinkRequest link;
    *link.mutable_user() = Token("ada");
    link.set_app("github");
    return {GetToken(channel, TokenFor("ada")).status(), StartLink(channel, link).status(),
            List(channel, Token("ada")).status(), Disconnect(channel, Token("ada"), "github").status()};
  }
};

TEST_F(PlatformOutageTest, VaultThatIsAwayIsToldWithoutItsAddress) {
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  for (const Code code : {Code::kUnavailable, Code::kDeadlineExceeded, Code::kCancelled, Code::kResourceExhausted}) {
    peers_.vault.Fail(absl::Status(code, "failed to connect to all addresses; last error: ipv4:10.0.0.7:7003"));
    for (const absl::Status& status : AskEverything(channel)) {
      EXPECT_THAT(status, StatusIs(Code::kUnavailable)) << absl::StatusCodeToString(code);
      EXPECT_EQ(ReasonOf(status), "gateway_unavailable");
      EXPECT_GE(DetailOf(status).retry_after, absl::Seconds(1));
      EXPECT_THAT(std::string(status.message()), Not(HasSubstr("10.0.0.7")));
    }
  }
  peers_.vault.Fail(absl::OkStatus());
  EXPECT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
}

TEST_F(PlatformOutageTest, PassportThatTheVaultDoesNotTakeIsNotThePlatformsDoing) {
  TokenBrokerServer& broker = StartBroker();
  peers_.vault.Fail(WithReason(absl::UnauthenticatedError("passport refused: it has expired"), "bad_passport"));
  for (const absl::Status& status : AskEverything(Chat(broker))) {
    EXPECT_THAT(status, StatusIs(Code::kUnavailable));
    EXPECT_EQ(ReasonOf(status), "gateway_unavailable");
  }
}

TEST_F(PlatformOutageTest, PassportIsNotUsedToItsVeryEnd) {
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  ASSERT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  clock_for_all_.Advance(kPassportLifetime - absl::Seconds(11));
  ASSERT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  EXPECT_EQ(peers_.platforms.calls(), 1);
  clock_for_all_.Advance(absl::Seconds(2));
  ASSERT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  EXPECT_EQ(peers_.platforms.calls(), 2);
  // On and on: whenever it is asked, there is a token.
  for (int i = 0; i < 20; ++i) {
    clock_for_all_.Advance(absl::Seconds(37));
    EXPECT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  }
}

TEST_F(PlatformOutageTest, BeforeTheConfigurationNoAppIsSaidNotToBe) {
  peers_.registry.SetDown(true);
  TokenBrokerServer& broker = LaunchBroker();
  const auto channel = Chat(broker);
  for (const absl::Status& status : AskEverything(channel)) {
    EXPECT_THAT(status, StatusIs(Code::kUnavailable));
    EXPECT_EQ(ReasonOf(status), "config_behind");
    EXPECT_EQ(DetailOf(status).retry_after, absl::Seconds(1));
  }
  peers_.registry.SetDown(false);
  for (int i = 0; i < 10'000 && !broker.Ready().ok(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  EXPECT_THAT(GetToken(channel, TokenFor("ada", "nothing")), StatusIs(Code::kNotFound));
}

TEST_F(PlatformOutageTest, WorkIsNotDoneForWhoHasGone) {
  TokenBrokerServer& broker = StartBroker();
  peers_.platforms.gate.Close();
  const auto channel = Chat(broker);
  const auto context = ContextWith({});
  std::thread asking([&] {
    v1::DisconnectUserRequest request;
    *request.mutable_user() = Token("ada");
    request.set_app("github");
    v1::DisconnectResponse response;
    EXPECT_EQ(v1::Platform::NewStub(channel)->Disconnect(context.get(), request, &response).error_code(),
              grpc::StatusCode::CANCELLED);
  });
  EXPECT_TRUE(peers_.platforms.gate.AwaitArrivals(1));
  context->TryCancel();
  asking.join();
  // The cancellation went out on this connection before these calls: when they are answered, the broker has heard of
  // it.
  for (int i = 0; i < 20; ++i) ASSERT_THAT(IsServing(channel), IsOk());
  peers_.platforms.gate.Open();
  EXPECT_THAT(GetToken(Chat(broker), TokenFor("ada")), IsOk()) << "the connection is still there";
}

}  // namespace
}  // namespace sallyport::token_broker

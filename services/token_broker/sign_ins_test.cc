// SPDX-License-Identifier: Apache-2.0
// Forwarding the token of a sign-in that has ended at the identity provider.
#include "services/token_broker/sign_ins.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using Code = absl::StatusCode;
using Answer = testing::HttpProvider::Response;

class SignInsTest : public testing::BrokerTestBase {
 protected:
  SignInsTest() : BrokerTestBase(clock_for_all_) {
    registry::v1::McpServer* server = AddServer("srv_f", "forward");
    server->mutable_agent_auth()->mutable_interactive();
    server->mutable_app_auth()->mutable_passthrough();
    auto* header = server->add_outbound_headers();
    header->set_name("X-User-Token");
    header->mutable_forward_caller_token();
    peers_.authn.connector.set_token_endpoint(provider_.Url("/idp/token"));
    peers_.authn.connector.set_client_id("rp");
  }
  void AnswerRefreshes(const Answer& answer) {
    provider_.SetHandler([answer](const testing::HttpProvider::Request& /*request*/) { return answer; });
  }
  // `refused`: what the upstream did not take.
  absl::StatusOr<v1::ResolveCredentialsResponse> Call(
      TokenBrokerServer& broker, const std::string& subject = "corp:ada",
      const v1::ResolveCredentialsResponse& refused = v1::ResolveCredentialsResponse()) {
    v1::ResolveCredentialsRequest request;
    request.set_server_uid("srv_f");
    if (refused.pieces_size() > 0) {
      request.set_refused_version(refused.pieces(0).version());
      request.set_refused_generation(refused.pieces(0).generation());
    }
    return Resolve(broker, request, peers_.authn.Sign(CallPassport(subject, "srv_f")));
  }
  std::string Reason(TokenBrokerServer& broker, const std::string& subject = "corp:ada") {
    const absl::Status status = Call(broker, subject).status();
    EXPECT_THAT(status, StatusIs(Code::kFailedPrecondition));
    return ReasonOf(status);
  }

  const Answer refused_{400, R"({"error":"invalid_grant"})", "application/json", ""};
  FakeClock clock_for_all_{absl::Now()};
};

TEST_F(SignInsTest, TokensTheProviderNoLongerRenewsEndTheSignIn) {
  PutConnection("corp:ada", "sso:corp", absl::Hours(2), absl::Hours(1));
  AnswerRefreshes(refused_);
  TokenBrokerServer& broker = StartBroker();
  EXPECT_EQ(Reason(broker), "sign_in_ended");
  EXPECT_THAT(peers_.authn.ended(), ElementsAre("corp:ada"));
  // Known from then on: the provider is not asked again.
  AnswerRefreshes({500, "", "", ""});
  EXPECT_EQ(Reason(broker), "sign_in_ended");
}

TEST_F(SignInsTest, NobodyIsToldBeforeAuthnKnows) {
  PutConnection("corp:ada", "sso:corp", absl::Hours(2), absl::Hours(1));
  AnswerRefreshes(refused_);
  TokenBrokerServer& broker = StartBroker();
  for (const absl::Status& away : {absl::UnavailableError("down"), absl::InternalError("broken")}) {
    peers_.authn.SetEndSignIn(away);
    const absl::Status status = Call(broker).status();
    EXPECT_THAT(status, StatusIs(Code::kUnavailable));
    EXPECT_GT(DetailOf(status).retry_after, absl::ZeroDuration());
  }
  peers_.authn.SetEndSignIn(absl::OkStatus());
  EXPECT_EQ(Reason(broker), "sign_in_ended");
}

TEST_F(SignInsTest, AnExpiredTokenThatCannotBeRenewedEndsTheSignIn) {
  PutConnection("corp:ada", "sso:corp", absl::Hours(2), absl::Hours(1), /*refresh_token=*/"");
  EXPECT_EQ(Reason(StartBroker()), "sign_in_ended");
}

TEST_F(SignInsTest, TokensThatWereNeverStoredEndTheSignInUnlessThereAreNone) {
  TokenBrokerServer& broker = StartBroker();
  EXPECT_EQ(Reason(broker), "sign_in_ended");
  EXPECT_EQ(Reason(broker, "local:eve"), "no_caller_token");
  EXPECT_THAT(peers_.authn.ended(), ElementsAre("corp:ada"));
}

TEST_F(SignInsTest, ANewSignInIsServedAtOnce) {
  PutConnection("corp:ada", "sso:corp", absl::Hours(2), absl::Hours(1));
  AnswerRefreshes(refused_);
  TokenBrokerServer& broker = StartBroker();
  EXPECT_EQ(Reason(broker), "sign_in_ended");
  PutConnection("corp:ada", "sso:corp", absl::Minutes(1), absl::Hours(1));
  ASSERT_OK_AND_ASSIGN(const auto response, Call(broker));
  EXPECT_EQ(response.pieces(0).value(), "at0-of-corp:ada");
}

TEST_F(SignInsTest, AProviderThatIsDownEndsNothing) {
  PutConnection("corp:ada", "sso:corp", absl::Hours(2), absl::Hours(1));
  AnswerRefreshes({503, "", "", ""});
  EXPECT_THAT(Call(StartBroker()), StatusIs(Code::kUnavailable));
  EXPECT_THAT(peers_.authn.ended(), IsEmpty());
}

// Else any upstream could send people to sign in again and again.
TEST_F(SignInsTest, AnUpstreamThatRefusesAGoodTokenEndsNothing) {
  PutConnection("corp:ada", "sso:corp", absl::Minutes(1), absl::Hours(1), /*refresh_token=*/"");
  TokenBrokerServer& broker = StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto first, Call(broker));
  const absl::Status refused = Call(broker, "corp:ada", first).status();
  EXPECT_EQ(ReasonOf(refused), "no_caller_token");
  EXPECT_THAT(peers_.authn.ended(), IsEmpty());
}

// The upstream looks the token up at the provider, whose session has ended.
TEST_F(SignInsTest, ARefusedTokenThatTheProviderDoesNotRenewEitherEndsTheSignIn) {
  PutConnection("corp:ada", "sso:corp", absl::Minutes(1), absl::Hours(1));
  AnswerRefreshes(refused_);
  TokenBrokerServer& broker = StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto first, Call(broker));
  const absl::Status refused = Call(broker, "corp:ada", first).status();
  EXPECT_EQ(ReasonOf(refused), "sign_in_ended");
  EXPECT_THAT(peers_.authn.ended(), ElementsAre("corp:ada"));
}

}  // namespace
}  // namespace sallyport::token_broker

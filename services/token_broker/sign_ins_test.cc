// SPDX-License-Identifier: Apache-2.0
// Forwarding the token of a sign-in that has ended at the identity provider.
#include "services/token_broker/sign_ins.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/proto_time.h"
#include "sallyport/token_broker/v1/sign_ins.grpc.pb.h"
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

// What authn hands over.
class SignInStoreTest : public SignInsTest {
 protected:
  static v1::StoreTokensRequest Tokens() {
    v1::StoreTokensRequest request;
    request.set_connector("corp");
    request.set_access_token("idp-access");
    request.set_refresh_token("idp-refresh");
    request.set_id_token("idp-id");
    request.add_scopes("openid");
    return request;
  }
  absl::Status Store(TokenBrokerServer& broker, const v1::StoreTokensRequest& request, const std::string& passport,
                     const std::string& caller = "authn") {
    const auto stub = v1::SignIns::NewStub(broker.InProcessChannel(caller));
    v1::StoreTokensResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), passport);
    return FromGrpcStatus(stub->StoreTokens(context.get(), request, &response));
  }
  std::string SignInPassport(const std::string& subject = "corp:ada",
                             Passport::Purpose purpose = Passport::Purpose::kSignIn) {
    Passport passport;
    passport.subject = subject;
    passport.purpose = purpose;
    return peers_.authn.Sign(passport);
  }
  v1::TokenSet Kept() {
    v1::TokenSet tokens;
    EXPECT_TRUE(tokens.ParseFromString(peers_.vault.Head(ConnectionRecord("corp:ada", "sso:corp"))));
    return tokens;
  }
};

TEST_F(SignInStoreTest, KeepsTheTokensAndWhenTheyAreRenewed) {
  TokenBrokerServer& broker = StartBroker();
  v1::StoreTokensRequest request = Tokens();
  *request.mutable_expires_at() = ToTimestamp(clock_.Now() + absl::Minutes(5));
  *request.mutable_obtained_at() = ToTimestamp(clock_.Now());
  ASSERT_TRUE(Store(broker, request, SignInPassport()).ok());
  EXPECT_EQ(Kept().access_token(), "idp-access");
  EXPECT_EQ(Kept().refresh_token(), "idp-refresh");
  EXPECT_EQ(Kept().id_token(), "idp-id");
  const auto metadata = peers_.vault.MetadataOf(ConnectionRecord("corp:ada", "sso:corp"));
  EXPECT_LT(absl::AbsDuration(FromTimestamp(metadata.next_at()) - clock_.Now() - absl::Hours(24 * 7)), absl::Seconds(1))
      << "when the broker renews it";
  EXPECT_EQ(metadata.labels().at("scope"), "openid");
}

TEST_F(SignInStoreTest, WhatCannotBeRenewedIsNeverDue) {
  TokenBrokerServer& broker = StartBroker();
  v1::StoreTokensRequest request = Tokens();
  request.clear_refresh_token();
  ASSERT_TRUE(Store(broker, request, SignInPassport()).ok());
  EXPECT_FALSE(peers_.vault.MetadataOf(ConnectionRecord("corp:ada", "sso:corp")).has_next_at());
}

TEST_F(SignInStoreTest, TheIdTokenIsLeftOutWhenAllIsTooMuch) {
  TokenBrokerServer& broker = StartBroker();
  v1::StoreTokensRequest request = Tokens();
  request.set_access_token(std::string(40'000, 'a'));
  request.set_id_token(std::string(30'000, 'i'));
  ASSERT_TRUE(Store(broker, request, SignInPassport()).ok());
  EXPECT_EQ(Kept().access_token().size(), 40'000U);
  EXPECT_EQ(Kept().id_token(), "");
}

TEST_F(SignInStoreTest, IsForAuthnAndForTheOneWhoSignsIn) {
  TokenBrokerServer& broker = StartBroker();
  EXPECT_THAT(Store(broker, Tokens(), ""), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Store(broker, Tokens(), SignInPassport("corp:ada", Passport::Purpose::kCall)),
              StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Store(broker, Tokens(), SignInPassport("other:ada")), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(Store(broker, Tokens(), SignInPassport(), "edge"), StatusIs(Code::kPermissionDenied));
  EXPECT_EQ(peers_.vault.CountRecords("connection"), 0U);
}

// Its passport is for a Put and nothing else: the background makes a revocation of it.
TEST_F(SignInStoreTest, TokensOfASignInOfBeforeTheEndOfEverythingAreRevoked) {
  TokenBrokerServer& broker = StartBroker();
  const std::string before = SignInPassport();
  peers_.registry.EndSubject("corp:ada", clock_.Now());
  AwaitHeard(broker);

  EXPECT_THAT(Store(broker, Tokens(), before), StatusIs(Code::kPermissionDenied));

  const auto metadata = peers_.vault.MetadataOf(ConnectionRecord("corp:ada", "sso:corp"));
  EXPECT_EQ(metadata.state(), "REVOKE_PENDING");
  EXPECT_LE(FromTimestamp(metadata.next_at()), clock_.Now());
  EXPECT_EQ(Kept().refresh_token(), "idp-refresh");
  clock_for_all_.Advance(absl::Seconds(1));
  EXPECT_TRUE(Store(broker, Tokens(), SignInPassport()).ok());
}

TEST_F(SignInStoreTest, ANewSignInTakesThePlaceOfTheFormer) {
  TokenBrokerServer& broker = StartBroker();
  ASSERT_TRUE(Store(broker, Tokens(), SignInPassport()).ok());
  EXPECT_TRUE(peers_.registry.invalidations().empty()) << "nothing was made from tokens before";
  v1::StoreTokensRequest second = Tokens();
  second.set_access_token("idp-access-2");
  ASSERT_TRUE(Store(broker, second, SignInPassport()).ok());
  EXPECT_EQ(Kept().access_token(), "idp-access-2");
  ASSERT_EQ(peers_.registry.invalidations().size(), 1U);
  EXPECT_EQ(peers_.registry.invalidations()[0].key(), "corp:ada\nsso:corp\n");
}

}  // namespace
}  // namespace sallyport::token_broker

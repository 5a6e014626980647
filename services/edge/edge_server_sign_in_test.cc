// SPDX-License-Identifier: Apache-2.0
// An upstream that refuses the token of the caller's sign-in.
#include "services/edge/edge_server_testing.h"

namespace sallyport::edge {
namespace {

class EdgeServerSignInTest : public EdgeServerTest {
 protected:
  EdgeServerSignInTest() {
    AddServer("signin", "srv_signin", R"("agentAuth":{"interactive":{}},"appAuth":{"passthrough":{}},
        "outboundHeaders":[{"name":"X-Token","forwardCallerToken":{}}])");
    AddServer("idtoken", "srv_idtoken", R"("agentAuth":{"interactive":{}},"appAuth":{"passthrough":{}},
        "outboundHeaders":[{"name":"X-Token","forwardCallerToken":{"token":"ID"}}])");
  }
};

TEST_F(EdgeServerSignInTest, ARefusedSignInTokenIsRenewedOnceAndTheCallRetried) {
  SetAnswer([](const std::string& request) {
    return absl::StrContains(request, "sign-in-v1") ? Refusal() : JsonResponse(R"({"ok":1})");
  });
  EXPECT_EQ(Post("signin", {Bearer("ours-ada")}).status, 200);
  ASSERT_THAT(upstream_.requests(), SizeIs(2));
  EXPECT_THAT(upstream_.requests()[1], HasSubstr("sign-in-v2"));
  EXPECT_THAT(upstream_.requests()[1], HasSubstr(kCall)) << "the same body";
}

TEST_F(EdgeServerSignInTest, RefusedAgainItIs502AndNoChallenge) {
  SetAnswer([](const std::string&) { return Refusal(); });
  const Reply reply = Post("signin", {Bearer("ours-ada")});
  EXPECT_EQ(reply.status, 502);
  EXPECT_EQ(reply.Reason(), "credential_refused");
  EXPECT_EQ(reply.Field("WWW-Authenticate"), "");
  EXPECT_THAT(upstream_.requests(), SizeIs(2)) << "one retry";
}

TEST_F(EdgeServerSignInTest, WithoutANewerOneTheUpstreamsWordStands) {
  broker_.SetRenews(false);
  SetAnswer([](const std::string&) { return Refusal(); });
  const Reply reply = Post("signin", {Bearer("ours-ada")});
  EXPECT_EQ(reply.status, 502);
  EXPECT_EQ(reply.Reason(), "credential_refused");
  EXPECT_THAT(upstream_.requests(), SizeIs(1));
}

TEST_F(EdgeServerSignInTest, ASignInThatHasEndedIs401SoThatTheClientSignsInAgain) {
  broker_.SetStatus(ToGrpcStatus(WithReason(absl::FailedPreconditionError("ended"), "sign_in_ended")));
  const Reply reply = Post("signin", {Bearer("ours-ada")});
  EXPECT_EQ(reply.status, 401);
  EXPECT_EQ(reply.Reason(), "invalid_token");
  EXPECT_THAT(reply.Field("WWW-Authenticate"), HasSubstr("error=\"invalid_token\""));
  EXPECT_THAT(reply.Field("WWW-Authenticate"), HasSubstr("resource_metadata="));
  const auto events = Events(1);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].type(), "mcp.denied");
  EXPECT_EQ(events[0].rule(), "sign_in_ended");
  EXPECT_EQ(events[0].subject(), "okta:ada");
  // What was verified before is not believed any more: authn says now that the grant has ended.
  EXPECT_EQ(authn_.calls(), 1);
  Post("signin", {Bearer("ours-ada")});
  EXPECT_EQ(authn_.calls(), 2);
}

TEST_F(EdgeServerSignInTest, ASignInThatEndsAfterTheUpstreamsRefusalIs401Too) {
  SetAnswer([this](const std::string&) {
    broker_.SetStatus(ToGrpcStatus(WithReason(absl::FailedPreconditionError("ended"), "sign_in_ended")));
    return Refusal();
  });
  const Reply reply = Post("signin", {Bearer("ours-ada")});
  EXPECT_EQ(reply.status, 401);
  EXPECT_THAT(reply.Field("WWW-Authenticate"), HasSubstr("error=\"invalid_token\""));
  EXPECT_THAT(reply.Field("WWW-Authenticate"), Not(HasSubstr("realm=\"up\"")));
}

TEST_F(EdgeServerSignInTest, AWayToSignInThatGivesNoTokensIs502) {
  broker_.SetStatus(ToGrpcStatus(WithReason(absl::FailedPreconditionError("local"), "no_caller_token")));
  const Reply reply = Post("signin", {Bearer("ours-ada")});
  EXPECT_EQ(reply.status, 502);
  EXPECT_EQ(reply.Reason(), "no_caller_token");
  EXPECT_EQ(reply.Field("WWW-Authenticate"), "");
}

TEST_F(EdgeServerSignInTest, WhatTheAgentSuppliedIsRefusedFirst) {
  SetAnswer([](const std::string&) { return Refusal(); });
  const Reply reply = Post("signin", {Bearer("ours-ada"), "X-Sallyport-Authorization: Bearer x"});
  EXPECT_EQ(reply.status, 502);
  EXPECT_EQ(reply.Reason(), "agent_credential_refused");
  EXPECT_THAT(upstream_.requests(), SizeIs(1));
  EXPECT_EQ(broker_.calls(), 1) << "no renewal";
}

TEST_F(EdgeServerSignInTest, APresentedTokenOfTheOtherKindIsNotForwarded) {
  const Reply reply = Post("idtoken", {Bearer("idp-ada")});
  EXPECT_EQ(reply.status, 502);
  EXPECT_EQ(reply.Reason(), "no_caller_token");
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerSignInTest, APresentedTokenThatIsRefusedHasNoNewerOne) {
  SetAnswer([](const std::string&) { return Refusal(); });
  const Reply reply = Post("signin", {Bearer("idp-ada")});
  EXPECT_EQ(reply.status, 502);
  EXPECT_THAT(upstream_.requests(), SizeIs(1));
  EXPECT_EQ(broker_.calls(), 0);
}

}  // namespace
}  // namespace sallyport::edge

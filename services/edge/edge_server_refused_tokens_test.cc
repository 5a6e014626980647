// SPDX-License-Identifier: Apache-2.0
// What callers are told, and what the audit is told, when a call is refused.
#include "services/edge/edge_server_testing.h"

namespace sallyport::edge {
namespace {

class EdgeServerRefusedTokensTest : public EdgeServerTest {
 protected:
  EdgeServerRefusedTokensTest() {
    AddServer("dept", "srv_dept", R"("agentAuth":{"interactive":{}},"appAuth":{"passthrough":{}},
        "outboundHeaders":[{"name":"X-Dept","callerIdentity":{"claim":"dept"}}])");
  }
  // The last that was recorded of `count`.
  audit::v1::Event Last(size_t count) {
    const auto events = Events(count);
    EXPECT_THAT(events, SizeIs(count));
    return events.empty() ? audit::v1::Event() : events.back();
  }
};

TEST_F(EdgeServerRefusedTokensTest, TheAuditSaysWhichCheckFailedAndTheClientOnlyHearsInvalidToken) {
  size_t count = 0;
  for (const char* reason : {"expired", "not_yet_valid", "wrong_audience", "wrong_issuer", "bad_signature",
                             "unknown_key", "algorithm", "revoked"}) {
    authn_.SetStatus(ToGrpcStatus(WithReason(absl::UnauthenticatedError("no"), reason)));
    const Reply reply = Post("org", {Bearer(absl::StrCat("idp-", reason))});
    EXPECT_EQ(reply.status, 401);
    EXPECT_EQ(reply.Reason(), "invalid_token");
    EXPECT_THAT(reply.Field("WWW-Authenticate"), HasSubstr("error=\"invalid_token\""));
    EXPECT_THAT(reply.body, Not(HasSubstr(reason)));
    const audit::v1::Event event = Last(++count);
    EXPECT_EQ(event.type(), "mcp.denied");
    EXPECT_EQ(event.rule(), reason);
  }
  authn_.SetStatus({grpc::StatusCode::UNAUTHENTICATED, "an authn that does not say why"});
  EXPECT_EQ(Post("org", {Bearer("idp-x")}).status, 401);
  EXPECT_EQ(Last(++count).rule(), "invalid_token");
}

TEST_F(EdgeServerRefusedTokensTest, AKeyThatIsNotKnownYetIs503WithRetryAfter) {
  authn_.SetStatus(
      ToGrpcStatus(WithRetryAfter(WithReason(absl::UnavailableError("not yet"), "unknown_key"), absl::Seconds(42))));
  const Reply reply = Post("org", {Bearer("idp-new")});
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.Field("Retry-After"), "42");
  EXPECT_EQ(reply.Field("WWW-Authenticate"), "");
  EXPECT_EQ(Last(1).rule(), "unknown_key");
}

// Tokens of strangers must not make the edge believe that authn is down: then known callers would be admitted without
// authn for a quarter of an hour.
TEST_F(EdgeServerRefusedTokensTest, StrangersTokensAreNoOutageOfAuthn) {
  ASSERT_EQ(Post("org", {Bearer("ours-ada")}).status, 200);
  for (const char* reason : {"unknown_key", "keys_unavailable"}) {
    clock_.Advance(absl::Minutes(5));  // Past the passport's end.
    authn_.SetStatus(ToGrpcStatus(WithReason(absl::UnavailableError("x"), reason)));
    EXPECT_EQ(Post("org", {Bearer("idp-stranger")}).status, 503);
    authn_.SetStatus({grpc::StatusCode::UNAUTHENTICATED, "revoked"});
    EXPECT_EQ(Post("org", {Bearer("ours-ada")}).status, 401) << reason;
    authn_.SetStatus(grpc::Status::OK);
    ASSERT_EQ(Post("org", {Bearer("ours-ada")}).status, 200);
  }
}

TEST_F(EdgeServerRefusedTokensTest, AMissingClaimIs403AndNotTheGatewaysFault) {
  const Reply reply = Post("dept", {Bearer("ours-ada")});
  EXPECT_EQ(reply.status, 403);
  EXPECT_EQ(reply.Reason(), "claim_missing");
  EXPECT_THAT(reply.body, HasSubstr("dept"));
  EXPECT_EQ(Last(1).rule(), "claim_missing");
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerRefusedTokensTest, AnInternalErrorIsCalledOne) {
  authn_.SetStatus({grpc::StatusCode::INTERNAL, "secret detail"});
  const Reply internal = Post("org", {Bearer("idp-ada")});
  EXPECT_EQ(internal.status, 500);
  EXPECT_EQ(internal.Reason(), "internal_error");
  EXPECT_THAT(internal.body, Not(HasSubstr("secret detail")));
  authn_.SetStatus(grpc::Status::OK);
  broker_.SetStatus(ToGrpcStatus(WithReason(absl::InternalError("x"), "credential_unencodable")));
  const Reply credential = Post("org", {Bearer("ours-ada")});
  EXPECT_EQ(credential.status, 500);
  EXPECT_EQ(credential.Reason(), "credential_unencodable");
}

}  // namespace
}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/edge_server_testing.h"

// What goes upstream, and what an upstream's refusal becomes.
namespace sallyport::edge {
namespace {

TEST_F(EdgeServerTest, TheApiKeyGoesOutAndTheCallersOwnDoesNot) {
  const Reply reply = Post("open", {"X-Api-Key: mine", "x_api_key: mine", "Cookie: a=b", "X-Forwarded-For: 1.2.3.4",
                                    "X-Custom: kept", Bearer("some-token")});
  EXPECT_EQ(reply.status, 200);
  const std::string request = LastUpstream();
  EXPECT_THAT(request, HasSubstr("POST /up HTTP/1.1\r\n"));
  EXPECT_THAT(request, HasSubstr("\r\nX-Api-Key: org-key\r\n"));
  EXPECT_THAT(request, HasSubstr("X-Custom: kept\r\n"));
  for (const char* leaked : {"mine", "Cookie", "1.2.3.4", "some-token"}) EXPECT_THAT(request, Not(HasSubstr(leaked)));
  EXPECT_THAT(request, HasSubstr(kCall)) << "byte-exact";
}

TEST_F(EdgeServerTest, AQueryKeyReplacesTheCallers) {
  broker_.SetKeyName("");
  EXPECT_EQ(Send("POST", "/mcp/query?a=1&key=mine&k%65y=mine", {}, kCall).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("POST /up?a=1&key=org-key HTTP/1.1\r\n"));
}

TEST_F(EdgeServerTest, PassthroughForwardsTheCallersAuthorizationAsItCame) {
  EXPECT_EQ(Post("through", {"Authorization: Bearer  theirs"}).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("\r\nAuthorization: Bearer  theirs\r\n"));
  EXPECT_EQ(Post("through", {"Authorization: Basic eDp5"}).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("\r\nAuthorization: Basic eDp5\r\n"));
  EXPECT_EQ(Post("through").status, 200);
  EXPECT_THAT(LastUpstream(), Not(HasSubstr("Authorization")));
}

TEST_F(EdgeServerTest, WhereNobodyIsVerifiedAnyTokenGoesOnAsItCame) {
  AddServer("fwd", "srv_fwd", R"("agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}},
      "outboundHeaders":[{"name":"X-Token","forwardCallerToken":{}}])");
  ASSERT_TRUE(Soon([&] { return Send("DELETE", "/mcp/fwd", {Bearer("x")}).status == 200; }));
  const size_t before = Events(1).size();
  EXPECT_EQ(Post("through", {Bearer("\xff\xfe")}).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("\r\nAuthorization: Bearer \xff\xfe\r\n"));
  EXPECT_EQ(Post("fwd", {Bearer("\xff x")}).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("\r\nX-Token: \xff x\r\n"));
  const Reply refused = Post("through", {Bearer("\xff")}, "{");
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.Reason(), "not_json");
  const auto events = Events(before + 3);
  ASSERT_THAT(events, SizeIs(before + 3));
  for (size_t i = before; i < events.size(); ++i) {
    EXPECT_EQ(events[i].rule(), "passthrough");
    EXPECT_EQ(events[i].subject(), "");
  }
}

TEST_F(EdgeServerTest, OurOwnTokenNeverLeaves) {
  const std::string jwt = OwnJwt();
  for (const std::string& value :
       {"Bearer " + jwt, "bearer " + jwt, "Bearer\t" + jwt, "DPoP " + jwt, jwt, "Bearer x, Bearer " + jwt,
        std::string("Bearer spa_abc"), std::string("Bearer spr_abc"), "Token token=\"" + jwt + "\""}) {
    for (const char* slug : {"through", "open"}) {
      const Reply reply = Post(slug, {"Authorization: " + value});
      EXPECT_EQ(reply.status, 401) << slug << " " << value;
      EXPECT_EQ(reply.Reason(), "own_token");
    }
  }
  EXPECT_EQ(Post("agent", {Bearer("ours-ada"), "X-Sallyport-Authorization: Bearer " + jwt}).status, 400);
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, WithInteractiveTheAgentsUpstreamCredentialHasAHeaderOfItsOwn) {
  EXPECT_EQ(Post("agent", {Bearer("ours-ada"), "X-Sallyport-Authorization: Bearer upstream"}).status, 200);
  const std::string request = LastUpstream();
  EXPECT_THAT(request, HasSubstr("\r\nAuthorization: Bearer upstream\r\n"));
  EXPECT_THAT(request, Not(HasSubstr("ours-ada")));
  EXPECT_THAT(absl::AsciiStrToLower(request), Not(HasSubstr("x-sallyport")));
  EXPECT_EQ(Post("agent", {Bearer("ours-ada")}).status, 200);
  EXPECT_THAT(LastUpstream(), Not(HasSubstr("ours-ada")));
}

TEST_F(EdgeServerTest, ClaimsAndPresentedTokensAreSetOverTheCallers) {
  EXPECT_EQ(Post("claims", {Bearer("idp-ada"), "X-User: root", "x_user: root"}).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("X-User: ada@example.com\r\n"));
  EXPECT_THAT(LastUpstream(), HasSubstr("X-Token: Bearer idp-ada\r\n"));
  EXPECT_THAT(LastUpstream(), Not(HasSubstr("root")));
  const Reply evil = Post("claims", {Bearer("idp-evil")});
  EXPECT_EQ(evil.status, 500);
  EXPECT_EQ(evil.Reason(), "identity_unencodable");
}

TEST_F(EdgeServerTest, AForwardedTokenThatWasNotSentIsAskedForOnce) {
  AddServer("fwd", "srv_fwd", R"("agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}},
      "outboundHeaders":[{"name":"X-Token","forwardCallerToken":{}}])");
  ASSERT_TRUE(Soon([&] { return Post("fwd").status != 404; }));
  const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  for (int i = 0; i < 3; ++i) {  // One answer each, on one connection.
    socket->Send(Render("POST", "/mcp/fwd", {}, kCall));
    const Reply reply = ParseReply(socket->ReadMessage());
    EXPECT_EQ(reply.status, 401);
    EXPECT_EQ(reply.Reason(), "no_caller_token");
    socket->Send(Render("POST", "/mcp/fwd", {Bearer("mine")}, kCall));
    EXPECT_EQ(ParseReply(socket->ReadMessage()).status, 200);
    EXPECT_THAT(LastUpstream(), HasSubstr("X-Token: mine\r\n"));
  }
}

TEST_F(EdgeServerTest, BodiesThatTwoReadersCouldReadDifferentlyAreRefused) {
  const auto code = [&](const std::string& body) {
    const Reply reply = Post("open", {}, body);
    EXPECT_EQ(reply.status, 400) << body;
    return reply.Json()["error"]["code"].get<int>();
  };
  EXPECT_EQ(code("{"), -32700);
  EXPECT_EQ(code("\xEF\xBB\xBF" + std::string(kCall)), -32700);
  EXPECT_EQ(code(R"({"id":1,"method":"a\xff"})"), -32700);
  EXPECT_EQ(code(R"({"id":1,"method":"a","method":"b"})"), -32600);
  EXPECT_EQ(code("[]"), -32600);
  std::string keys = R"({"id":1,"method":"a","params":{"a":[)";
  for (int i = 0; i < 5'000; ++i) keys += R"({"k":1,"l":2},)";
  EXPECT_EQ(Post("open", {}, keys + "1]}}").Reason(), "too_many_keys");
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, HeadersThatDisagreeWithAModernBodyAreRefused) {
  const auto send = [&](const std::vector<std::string>& fields) { return Post("open", fields, ModernCall()); };
  for (const auto& fields : std::vector<std::vector<std::string>>{{"MCP-Protocol-Version: 2025-11-25"},
                                                                  {"Mcp-Method: tools/list"},
                                                                  {"Mcp-Name: other"},
                                                                  {"Mcp-Name: Search"},
                                                                  {"Mcp-Name: =?base64?b3RoZXI=?="}}) {
    const Reply reply = send(fields);
    EXPECT_EQ(reply.status, 400) << fields[0];
    EXPECT_EQ(reply.Json()["error"]["code"], -32020);
    EXPECT_EQ(reply.Json()["id"], 8);
  }
  const std::string nameless =
      R"({"jsonrpc":"2.0","id":8,"method":"tools/call","params":{)" + std::string(kModernMeta) + "}}";
  EXPECT_EQ(Post("open", {"Mcp-Name: search"}, nameless).status, 400) << "a name the body does not have";
  EXPECT_THAT(upstream_.requests(), IsEmpty());
  EXPECT_EQ(Post("open", {}, nameless).status, 200);
  EXPECT_EQ(send({"MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: search"}).status, 200);
  EXPECT_EQ(send({"Mcp-Name: =?base64?c2VhcmNo?="}).status, 200);
}

TEST_F(EdgeServerTest, PassthroughInAndOutRelaysTheUpstreamsChallenge) {
  SetAnswer([](const std::string&) { return Refusal("Bearer realm=\"up\""); });
  const Reply open = Post("through", {"Authorization: Bearer theirs"});
  EXPECT_EQ(open.status, 401);
  EXPECT_EQ(open.Field("WWW-Authenticate"), "Bearer realm=\"up\"");
  EXPECT_EQ(open.Reason(), "upstream_error") << "its text is not JSON";
  const Reply validated = Post("jwt", {Bearer("idp-ada")});
  EXPECT_EQ(validated.status, 401);
  EXPECT_EQ(validated.Field("WWW-Authenticate"), "Bearer realm=\"up\"");
}

TEST_F(EdgeServerTest, ARefusedSharedCredentialIs502AndNoChallenge) {
  SetAnswer([](const std::string&) { return Refusal(); });
  for (const Reply& reply : {Post("open"), Post("org", {Bearer("ours-ada")})}) {
    EXPECT_EQ(reply.status, 502);
    EXPECT_EQ(reply.Reason(), "credential_refused");
    EXPECT_EQ(reply.Field("WWW-Authenticate"), "");
  }
  const auto events = Events(2);
  ASSERT_THAT(events, SizeIs(2));
  for (const auto& event : events) {
    EXPECT_EQ(event.type(), "mcp.call");
    EXPECT_EQ(event.decision(), audit::v1::DECISION_FAILED);
    EXPECT_EQ(event.rule(), "credential_refused") << "how an administrator finds it";
    EXPECT_THAT(event.credentials(), SizeIs(1));
  }
  EXPECT_EQ(events[1].subject(), "okta:ada");
}

TEST_F(EdgeServerTest, ARefusedCredentialOfTheAgentIsToldSo) {
  SetAnswer([](const std::string&) { return Refusal(); });
  const Reply reply = Post("agent", {Bearer("ours-ada"), "X-Sallyport-Authorization: Bearer x"});
  EXPECT_EQ(reply.status, 502);
  EXPECT_EQ(reply.Reason(), "agent_credential_refused");
  EXPECT_EQ(reply.Field("WWW-Authenticate"), "");
  const auto events = Events(1);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].decision(), audit::v1::DECISION_FAILED);
  EXPECT_EQ(events[0].rule(), "agent_credential_refused");
}

// Where the agent may bring a credential and brings none, the configured one is what was refused.
TEST_F(EdgeServerTest, ARefusedCredentialOfTheGatewayIsNotLaidToTheAgent) {
  AddServer("given", "srv_given", R"("agentAuth":{"interactive":{}},"appAuth":{"passthrough":{}},
      "outboundHeaders":[{"name":"X-Api-Key","literal":{"secretValue":{"set":true}}}])");
  ASSERT_TRUE(Soon([&] { return Post("given").status == 401; }));
  SetAnswer([](const std::string&) { return Refusal(); });
  EXPECT_EQ(Post("given", {Bearer("ours-ada")}).Reason(), "credential_refused");
  EXPECT_EQ(Post("given", {Bearer("ours-ada"), "X-Sallyport-Authorization: Bearer x"}).Reason(),
            "agent_credential_refused");
}

// The audit says what the caller is told, in place of the rule that admitted them.
TEST_F(EdgeServerTest, WhyNoCredentialWentOutIsTheRuleOfTheCall) {
  const std::vector<std::pair<absl::Status, std::string>> cases = {
      {absl::UnavailableError("down"), "try_again"},
      {WithReason(absl::PermissionDeniedError("no"), "origin_not_allowed"), "origin_not_allowed"},
      {WithReason(absl::FailedPreconditionError("gone"), "credential_missing"), "credential_missing"},
      {WithReason(absl::FailedPreconditionError("none"), "no_caller_token"), "no_caller_token"},
  };
  for (const auto& [status, reason] : cases) {
    broker_.SetStatus(ToGrpcStatus(status));
    EXPECT_EQ(Post("org", {Bearer("ours-ada")}).Reason(), reason);
  }
  const auto events = Events(cases.size());
  ASSERT_THAT(events, SizeIs(cases.size()));
  for (size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(events[i].type(), "mcp.call");
    EXPECT_EQ(events[i].decision(), audit::v1::DECISION_FAILED);
    EXPECT_EQ(events[i].rule(), cases[i].second);
  }
}

TEST_F(EdgeServerTest, AUsersRefusedTokenIsRefreshedOnceAndTheCallRetried) {
  broker_.Link("ada");
  SetAnswer([](const std::string& request) {
    return absl::StrContains(request, "-v1") ? Refusal() : JsonResponse(R"({"ok":1})");
  });
  EXPECT_EQ(Post("user", {Bearer("ours-ada")}).status, 200);
  ASSERT_THAT(upstream_.requests(), SizeIs(2));
  EXPECT_THAT(upstream_.requests()[1], HasSubstr("app-token-of-ada-v2"));
  EXPECT_THAT(upstream_.requests()[1], HasSubstr(kCall)) << "the same body";
}

// The account is linked and its token was just renewed: another link would give no better one.
TEST_F(EdgeServerTest, RenewedTokenThatIsRefusedTooIs503AndNoLink) {
  broker_.Link("ada");
  broker_.SetRenewals(
      1, ToGrpcStatus(WithDetail(absl::UnavailableError("the server refuses the token that GitHub has just renewed"),
                                 {.reason = "renewed_token_refused", .retry_after = absl::Seconds(17)})));
  SetAnswer([](const std::string&) { return Refusal(); });
  const Reply reply = Post("user", {Bearer("ours-ada")});
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.Reason(), "renewed_token_refused");
  EXPECT_EQ(reply.Field("Retry-After"), "17");
  EXPECT_EQ(reply.Field("WWW-Authenticate"), "");
  EXPECT_THAT(reply.body, HasSubstr("GitHub"));
  EXPECT_THAT(upstream_.requests(), SizeIs(2)) << "one retry";
  EXPECT_EQ(broker_.requests().back().refused_version(), 2) << "the broker is told of the renewed one";
}

TEST_F(EdgeServerTest, UpstreamThatRefusesEachRenewalIsAskedThreeTimesAtMost) {
  broker_.Link("ada");
  SetAnswer([](const std::string&) { return Refusal(); });
  const Reply reply = Post("user", {Bearer("ours-ada")});
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.Reason(), "renewed_token_refused");
  EXPECT_THAT(upstream_.requests(), SizeIs(3));
}

TEST_F(EdgeServerTest, BrokerDecidesWhenARefusedAccountNeedsLinking) {
  for (const int renewals : {0, 1}) {
    broker_.Link("ada");
    broker_.SetRenewals(renewals);
    SetAnswer([](const std::string&) { return Refusal(); });
    const Reply reply = Post("user", {Bearer("ours-ada")});
    EXPECT_EQ(reply.status, 200) << renewals;
    EXPECT_EQ(reply.Json()["result"]["isError"], true) << renewals;
  }
}

TEST_F(EdgeServerTest, ProviderThatFailsIsNotTakenForAPartOfTheGateway) {
  broker_.Link("ada");
  broker_.SetStatus(ToGrpcStatus(
      WithDetail(absl::UnavailableError("GitHub does not answer; try again"),
                 {.oauth_error = "timeout", .reason = "provider_unavailable", .retry_after = absl::Seconds(9)})));
  const Reply silent = Post("user", {Bearer("ours-ada")});
  EXPECT_EQ(silent.status, 503);
  EXPECT_EQ(silent.Reason(), "provider_unavailable");
  EXPECT_EQ(silent.Field("Retry-After"), "9");
  EXPECT_EQ(silent.Json()["error"]["message"], "GitHub does not answer; try again");

  broker_.SetStatus(ToGrpcStatus(WithReason(
      absl::FailedPreconditionError("GitHub does not accept this gateway's client ID or secret (invalid_client)"),
      "provider_rejects_client")));
  const Reply rejected = Post("user", {Bearer("ours-ada")});
  EXPECT_EQ(rejected.status, 502);
  EXPECT_EQ(rejected.Reason(), "provider_rejects_client");
  EXPECT_EQ(rejected.Field("Retry-After"), "") << "trying again helps nobody";
  EXPECT_THAT(rejected.body, HasSubstr("invalid_client"));

  broker_.SetStatus({grpc::StatusCode::UNAVAILABLE, "vault.internal:9443 does not answer"});
  const Reply ours = Post("user", {Bearer("ours-ada")});
  EXPECT_EQ(ours.status, 503);
  EXPECT_EQ(ours.Reason(), "try_again");
  EXPECT_THAT(ours.body, Not(HasSubstr("vault")));
}

TEST_F(EdgeServerTest, AnUpstreamThatIsGoneIs502) {
  SetAnswer([](const std::string&) { return std::string("nonsense\r\n\r\n"); });
  const Reply reply = Post("open");
  EXPECT_EQ(reply.status, 502);
  EXPECT_EQ(reply.Reason(), "upstream_bad_response");
}

}  // namespace
}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/edge_server_testing.h"

// Door one, and links.
namespace sallyport::edge {
namespace {

TEST_F(EdgeServerTest, WithoutATokenTheChallengeIsExact) {
  const Reply reply = Post("org");
  EXPECT_EQ(reply.status, 401);
  EXPECT_EQ(
      reply.Field("WWW-Authenticate"),
      R"(Bearer resource_metadata="https://gw.example.com/.well-known/oauth-protected-resource/mcp/org", scope="mcp")");
  EXPECT_EQ(Post("jwt").Field("WWW-Authenticate"), "Bearer");
  EXPECT_EQ(Post("org", {"Authorization: Basic eDp5"}).status, 401);
  EXPECT_EQ(Post("org", {"Authorization: Bearer "}).status, 401);
  EXPECT_EQ(Post("org", {"Cookie: session=ada"}).status, 401) << "cookies mean nothing here";
  const Reply invalid = Post("org", {Bearer("garbage")});
  EXPECT_EQ(invalid.status, 401);
  EXPECT_THAT(invalid.Field("WWW-Authenticate"), HasSubstr("error=\"invalid_token\""));
  EXPECT_EQ(Post("org", {Bearer("ours-stranger")}).status, 403);
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, WhatIsNoBearerTokenIsRefusedWithoutAnRpc) {
  for (const char* slug : {"org", "jwt"}) {
    for (const char* token :
         {"\xff", "ours-ada\xc3\xa9", "ours-ada x", "ours-ada,x", "=", "a=b", "\"ours-ada\"", "a\tb"}) {
      const Reply reply = Post(slug, {Bearer(token)});
      EXPECT_EQ(reply.status, 401) << slug << " " << token;
      EXPECT_EQ(reply.Reason(), "invalid_token");
      EXPECT_THAT(reply.Field("WWW-Authenticate"), HasSubstr("error=\"invalid_token\""));
    }
  }
  EXPECT_EQ(edge_->authenticate_calls(), 0U);
  for (const auto& event : Events(16)) {
    EXPECT_EQ(event.type(), "mcp.denied");
    EXPECT_EQ(event.rule(), "malformed_token");
  }
  EXPECT_EQ(Post("org", {Bearer("idp-A9._~+/==")}).status, 200);
  EXPECT_EQ(Post("jwt", {Bearer("idp-A9._~+/==")}).status, 200);
}

TEST_F(EdgeServerTest, AuthorizationTwiceIsRefused) {
  for (const char* slug : {"org", "through", "open"}) {
    EXPECT_EQ(Post(slug, {Bearer("ours-ada"), "authorization: Bearer other"}).status, 400) << slug;
  }
  EXPECT_EQ(Post("agent", {Bearer("ours-ada"), "X-Sallyport-Authorization: a", "x-sallyport-authorization: b"}).status,
            400);
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, AccountOfACallIsItsOwnAndStaysHere) {
  broker_.Link("ada");
  broker_.Link("ada/work");
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("Authorization: Bearer app-token-of-ada-v1\r\n"));
  for (const char* name : {"X-Sallyport-Account", "x_sallyport_account"}) {
    ASSERT_EQ(Post("user", {Bearer("ours-ada"), std::string(name) + ": work"}).status, 200);
    EXPECT_THAT(LastUpstream(), HasSubstr("Authorization: Bearer app-token-of-ada/work-v1\r\n"));
    EXPECT_THAT(LastUpstream(), Not(HasSubstr("ccount"))) << "never forwarded";
  }
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("Authorization: Bearer app-token-of-ada-v1\r\n"));
  EXPECT_EQ(edge_->resolve_calls(), 2U) << "each account is resolved once";
}

TEST_F(EdgeServerTest, AccountThatIsNotLinkedIsAskedFor) {
  broker_.Link("ada");
  const Reply reply = Post("user", {Bearer("ours-ada"), "X-Sallyport-Account: work"});
  EXPECT_EQ(reply.Json()["result"]["isError"], true);
  EXPECT_THAT(reply.body, HasSubstr("/connect/user?for=x"));
  EXPECT_EQ(broker_.started().account(), "work");
}

TEST_F(EdgeServerTest, AccountsThatAreNoLabelsAreRefusedByName) {
  broker_.Link("ada");
  for (const std::string& value : {std::string("a/b"), std::string("~work"), std::string("a b"), std::string(),
                                   std::string(65, 'x'), std::string("a,b"), std::string("\xc3\xbc")}) {
    const Reply reply = Post("user", {Bearer("ours-ada"), "X-Sallyport-Account: " + value});
    EXPECT_EQ(reply.status, 400) << value;
    EXPECT_EQ(reply.Reason(), "account_malformed") << value;
    EXPECT_THAT(reply.body, HasSubstr("X-Sallyport-Account"));
  }
  EXPECT_EQ(Post("user", {Bearer("ours-ada"), "X-Sallyport-Account: a", "X-Sallyport-Account: b"}).Reason(),
            "account_malformed");
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, AccountThatChoosesNothingIsRefusedUnlessNothingIsChosenHere) {
  for (const char* slug : {"org", "agent"}) {
    const Reply reply = Post(slug, {Bearer("ours-ada"), "X-Sallyport-Account: work"});
    EXPECT_EQ(reply.status, 400) << slug;
    EXPECT_EQ(reply.Reason(), "account_not_used") << slug;
  }
  EXPECT_THAT(upstream_.requests(), IsEmpty());
  EXPECT_EQ(Post("through", {Bearer("any"), "X-Sallyport-Account: work"}).status, 200);
  EXPECT_THAT(LastUpstream(), Not(HasSubstr("work")));
}

TEST_F(EdgeServerTest, AWarmRequestMakesNoRpc) {
  ASSERT_EQ(Post("org", {Bearer("ours-ada")}).status, 200);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Post("org", {Bearer("ours-ada")}).status, 200);
  EXPECT_EQ(edge_->authenticate_calls(), 1U);
  EXPECT_EQ(edge_->resolve_calls(), 1U);
}

TEST_F(EdgeServerTest, ARevokedSessionIsRefusedOnTheSameConnection) {
  const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  const std::string request = Render("POST", "/mcp/org", {Bearer("ours-ada")}, kCall);
  socket->Send(request);
  ASSERT_EQ(ParseReply(socket->ReadMessage()).status, 200);
  authn_.SetStatus({grpc::StatusCode::UNAUTHENTICATED, "revoked"});
  registry_.Invalidate(Invalidation::SESSION, "session-ada");
  EXPECT_TRUE(Soon([&] {
    socket->Send(request);
    return ParseReply(socket->ReadMessage()).status == 401;
  }));
}

TEST_F(EdgeServerTest, WhileAuthnIsDownUnknownCallersGet503) {
  ASSERT_EQ(Post("org", {Bearer("ours-ada")}).status, 200);
  authn_.SetStatus({grpc::StatusCode::UNAVAILABLE, "down"});
  EXPECT_EQ(Post("org", {Bearer("ours-ada")}).status, 200);
  const Reply reply = Post("org", {Bearer("ours-bob")});
  EXPECT_EQ(reply.status, 503);
  EXPECT_NE(reply.Field("Retry-After"), "");
}

TEST_F(EdgeServerTest, TheLinkSignalHasTheFormTheClientUnderstands) {
  const Reply text = Post("user", {Bearer("ours-ada")});
  EXPECT_EQ(text.Json()["result"]["isError"], true);
  EXPECT_THAT(text.body, HasSubstr("https://gw.example.com/connect/user?for=x"));
  const Reply modern = Post("user", {Bearer("ours-ada")}, ModernCall());
  EXPECT_EQ(modern.Json()["result"]["resultType"], "input_required");
  EXPECT_EQ(modern.Json()["result"]["requestState"], "sp1.state");

  const Reply opened = Post("user", {Bearer("ours-ada")},
                            R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",
                                "capabilities":{"elicitation":{"url":{}}}}})");
  const Reply legacy = Post("user", {Bearer("ours-ada"), "Mcp-Session-Id: " + opened.Field("Mcp-Session-Id")});
  EXPECT_EQ(legacy.Json()["error"]["code"], -32042) << legacy.body;
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, WithoutAnAccountNotificationsAreTakenAndListsAreSynthetic) {
  EXPECT_EQ(Post("user", {Bearer("ours-ada")}, R"({"jsonrpc":"2.0","method":"notifications/initialized"})").status,
            202);
  const Reply list = Post("user", {Bearer("ours-ada")}, R"({"jsonrpc":"2.0","id":1,"method":"tools/list"})");
  EXPECT_EQ(list.Json()["result"]["tools"][0]["name"], "connect_account");
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

std::string Retried(const std::string& action = "accept") {
  return ModernCall(R"(, "requestState":"sp1.state","inputResponses":{"sallyport_link_github":{"action":")" + action +
                    "\"}}");
}

TEST_F(EdgeServerTest, ALinkedRetryGoesUpstreamWithoutOurMembers) {
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}, ModernCall()).Json()["result"]["resultType"], "input_required");
  broker_.Link("ada");
  EXPECT_EQ(Post("user", {Bearer("ours-ada")}, Retried()).status, 200);
  const std::string request = LastUpstream();
  const std::string body = request.substr(request.find("\r\n\r\n") + 4);
  EXPECT_EQ(body, ModernCall()) << "as the client first made it";
  EXPECT_THAT(request, HasSubstr("Content-Length: " + std::to_string(body.size()) + "\r\n"));
}

TEST_F(EdgeServerTest, TheUpstreamsInputResponsesStay) {
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}, ModernCall()).Json()["result"]["resultType"], "input_required");
  broker_.Link("ada");
  Post(
      "user", {Bearer("ours-ada")},
      ModernCall(
          R"(,"inputResponses":{"theirs":{"action":"accept"},"sallyport_link_github":{"action":"accept"}},"requestState":"sp1.state")"));
  const std::string request = LastUpstream();
  const json params = json::parse(request.substr(request.find("\r\n\r\n") + 4))["params"];
  EXPECT_EQ(params["inputResponses"], json::parse(R"({"theirs":{"action":"accept"}})"));
  EXPECT_FALSE(params.contains("requestState"));
}

TEST_F(EdgeServerTest, AForgedOrForeignStateIsRefused) {
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}, ModernCall()).Json()["result"]["resultType"], "input_required");
  const Reply forged = Post("user", {Bearer("ours-ada")}, ModernCall(R"(,"requestState":"sp1.forged")"));
  EXPECT_EQ(forged.status, 400);
  EXPECT_EQ(forged.Json()["error"]["code"], -32602);
  std::string other_call = Retried();
  other_call.replace(other_call.find(R"("q":1)"), 5, R"("q":2)");
  EXPECT_EQ(Post("user", {Bearer("ours-ada")}, other_call).status, 400) << "of another call";
}

TEST_F(EdgeServerTest, AfterARefusedTokenTheSignalNamesTheApp) {
  broker_.Link("ada");
  broker_.SetRenewals(1);
  SetAnswer([](const std::string&) { return Refusal(); });
  const Reply list = Post("user", {Bearer("ours-ada")}, R"({"jsonrpc":"2.0","id":1,"method":"tools/list"})");
  EXPECT_EQ(list.Json()["result"]["tools"][0]["title"], "Connect GitHub") << list.body;
}

// The server is called "user", its app GitHub: what was not connected is the app's account.
TEST_F(EdgeServerTest, DecliningEndsTheCall) {
  registry::v1::App app;
  app.set_uid("app_x");
  app.set_slug("github");
  app.set_display_name("GitHub");
  registry_.PutApp(app);
  ASSERT_TRUE(Soon([&] {
    return absl::StrContains(Post("user", {Bearer("ours-ada")}, Retried("decline")).body,
                             "The GitHub account was not connected");
  }));
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}, ModernCall()).Json()["result"]["resultType"], "input_required");
  for (const char* action : {"decline", "cancel"}) {
    const Reply reply = Post("user", {Bearer("ours-ada")}, Retried(action));
    EXPECT_EQ(reply.Json()["result"]["isError"], true) << action;
  }
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, AWaitingCallCompletesWhenTheUserReturns) {
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}, ModernCall()).Json()["result"]["resultType"], "input_required");
  const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  socket->Send(Render("POST", "/mcp/user", {Bearer("ours-ada")}, Retried()));
  EXPECT_THAT(socket->ReadUntil("\r\n\r\n"), HasSubstr("text/event-stream"));
  EXPECT_THAT(upstream_.requests(), IsEmpty());
  SetAnswer([](const std::string&) { return JsonResponse(R"({"jsonrpc":"2.0","id":8,"result":{"done":true}})"); });
  broker_.Link("ada");
  registry_.Invalidate(Invalidation::CONNECTION, "okta:ada\napp_x\n", 1);
  EXPECT_THAT(socket->ReadUntil("\"done\":true"), HasSubstr("data: "));
  EXPECT_THAT(upstream_.requests(), SizeIs(1));
}

TEST_F(EdgeServerTest, WhatGoesOnInAHeldStreamIsAskedForUncompressed) {
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}, ModernCall()).Json()["result"]["resultType"], "input_required");
  SetAnswer([](const std::string&) { return JsonResponse("\x1f\x8b?", "Content-Encoding: gzip\r\n"); });
  const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  socket->Send(Render("POST", "/mcp/user", {Bearer("ours-ada"), "Accept-Encoding: gzip"}, Retried()));
  EXPECT_THAT(socket->ReadUntil("\r\n\r\n"), HasSubstr("text/event-stream"));
  broker_.Link("ada");
  registry_.Invalidate(Invalidation::CONNECTION, "okta:ada\napp_x\n", 1);
  const std::string event = socket->ReadUntil("0\r\n\r\n");
  EXPECT_THAT(event, HasSubstr("upstream_encoded"));
  EXPECT_THAT(event, HasSubstr("\"id\":8"));
  EXPECT_THAT(LastUpstream(), Not(HasSubstr("ccept-")));
  EXPECT_EQ(Post("open", {"Accept-Encoding: gzip"}).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("Accept-Encoding: gzip")) << "the client's own, elsewhere";
}

TEST_F(EdgeServerTest, AHeldGetTellsOfTheLinkAndEnds) {
  const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  socket->Send(Render("GET", "/mcp/user", {Bearer("ours-ada")}, ""));
  const std::string head = socket->ReadUntil("\r\n\r\n");
  EXPECT_THAT(head, HasSubstr("text/event-stream"));
  EXPECT_EQ(head.find("Cache-Control"), head.rfind("Cache-Control")) << "said once";
  broker_.Link("ada");
  registry_.Invalidate(Invalidation::CONNECTION, "okta:ada\napp_x\n", 1);
  EXPECT_THAT(socket->ReadUntil("0\r\n\r\n"), HasSubstr("notifications/tools/list_changed"));
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

// So many pipelined bytes that the edge reads no further, and does not see that the client goes.
TEST_F(EdgeServerTest, AClientThatIsGoneWhenItsHeldStreamBeginsHurtsNobody) {
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}, ModernCall()).Json()["result"]["resultType"], "input_required");
  for (const std::string& request : {Render("GET", "/mcp/user", {Bearer("ours-ada")}, ""),
                                     Render("POST", "/mcp/user", {Bearer("ours-ada")}, Retried())}) {
    const int calls = broker_.gate.arrived();
    broker_.gate.Close();
    const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
    socket->Send(request + std::string(128 << 10, ' '));
    ASSERT_TRUE(broker_.gate.AwaitArrivals(calls + 1));
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    const size_t before = audit_.events().size();
    socket->Reset();
    broker_.gate.Open();
    EXPECT_TRUE(Soon([&] { return audit_.events().size() > before; })) << "its end is recorded";
    EXPECT_EQ(Post("open").status, 200) << "the edge is alive";
  }
}

TEST_F(EdgeServerTest, ALinkMadeJustBeforeWaitingIsNoticedWithoutBeingTold) {
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}, ModernCall()).Json()["result"]["resultType"], "input_required");
  const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  socket->Send(Render("POST", "/mcp/user", {Bearer("ours-ada")}, Retried()));
  EXPECT_THAT(socket->ReadUntil("\r\n\r\n"), HasSubstr("text/event-stream"));
  broker_.Link("ada");
  EXPECT_THAT(socket->ReadUntil("\"result\""), HasSubstr("data: "));
  EXPECT_THAT(upstream_.requests(), SizeIs(1));
}

}  // namespace
}  // namespace sallyport::edge

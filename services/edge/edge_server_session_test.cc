// SPDX-License-Identifier: Apache-2.0
#include "services/edge/edge_server_testing.h"

// Sessions: whose they are, and those the edge answers itself until an account is linked.
namespace sallyport::edge {
namespace {

TEST_F(EdgeServerTest, ASessionBelongsToItsUser) {
  SetAnswer([](const std::string& request) {
    return JsonResponse("{}", absl::StrContains(request, "initialize") ? "Mcp-Session-Id: up-1\r\n" : "");
  });
  const Reply opened =
      Post("org", {Bearer("ours-ada")}, R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{}})");
  const std::string session = opened.Field("Mcp-Session-Id");
  EXPECT_THAT(session, ::testing::StartsWith("up-1."));
  EXPECT_EQ(Post("org", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("Mcp-Session-Id: up-1\r\n"));
  const size_t before = upstream_.requests().size();
  for (const std::string& wrong : {session + "x", std::string("up-1"), "up-2" + session.substr(4)}) {
    EXPECT_EQ(Post("org", {Bearer("ours-ada"), "Mcp-Session-Id: " + wrong}).status, 404) << wrong;
  }
  const Reply other = Post("org", {Bearer("ours-bob"), "Mcp-Session-Id: " + session});
  EXPECT_EQ(other.status, 404);
  EXPECT_EQ(other.Reason(), "session_not_found");
  EXPECT_EQ(Post("agent", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status, 404) << "another server's";
  EXPECT_EQ(upstream_.requests().size(), before);
}

TEST_F(EdgeServerTest, ASessionOfAnotherUserIsRefusedOnTheSameConnectionToo) {
  SetAnswer([](const std::string&) { return JsonResponse("{}", "Mcp-Session-Id: up-1\r\n"); });
  const std::string session = Post("org", {Bearer("ours-ada")}).Field("Mcp-Session-Id");
  const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  const auto as = [&](const std::string& token) {
    socket->Send(Render("POST", "/mcp/org", {Bearer(token), "Mcp-Session-Id: " + session}, kCall));
    return ParseReply(socket->ReadMessage()).status;
  };
  EXPECT_EQ(as("ours-ada"), 200);
  EXPECT_EQ(as("ours-bob"), 404);
  EXPECT_EQ(as("ours-ada"), 200);
}

// The upstream may know by its session whose data it shows: with another account's token that would be mixed up.
TEST_F(EdgeServerTest, ASessionBelongsToItsAccount) {
  broker_.Link("ada");
  broker_.Link("ada/work");
  const std::string initialize = R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{}})";
  SetAnswer([](const std::string& request) {
    return JsonResponse("{}", absl::StrContains(request, "initialize") ? "Mcp-Session-Id: up-1\r\n" : "");
  });
  const std::string work = "X-Sallyport-Account: work";
  const std::string of_default = Post("user", {Bearer("ours-ada")}, initialize).Field("Mcp-Session-Id");
  const std::string of_work = Post("user", {Bearer("ours-ada"), work}, initialize).Field("Mcp-Session-Id");
  ASSERT_NE(of_default, "");
  ASSERT_NE(of_work, of_default);
  // One connection, which remembers the session it saw last.
  const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  const auto status = [&](const std::string& session, const std::vector<std::string>& more = {}) {
    std::vector<std::string> fields = {Bearer("ours-ada"), "Mcp-Session-Id: " + session};
    fields.insert(fields.end(), more.begin(), more.end());
    socket->Send(Render("POST", "/mcp/user", fields, kCall));
    return ParseReply(socket->ReadMessage()).status;
  };
  EXPECT_EQ(status(of_default), 200);
  EXPECT_EQ(status(of_default, {work}), 404);
  EXPECT_EQ(status(of_work, {work}), 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("Authorization: Bearer app-token-of-ada/work-v1\r\n"));
  EXPECT_EQ(status(of_work), 404);
  EXPECT_EQ(status(of_default), 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("Authorization: Bearer app-token-of-ada-v1\r\n"));
}

TEST_F(EdgeServerTest, ASessionOfAnUnlinkedAccountIsThatAccountsOnly) {
  const std::string initialize = R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{}})";
  const std::string session =
      Post("user", {Bearer("ours-ada"), "X-Sallyport-Account: work"}, initialize).Field("Mcp-Session-Id");
  ASSERT_NE(session, "");
  broker_.Link("ada");
  broker_.Link("ada/work");
  EXPECT_EQ(Post("user", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status, 404);
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

// Whether the label comes with the request or from the server's configuration.
TEST_F(EdgeServerTest, ASessionStaysWithItsAccountWhenTheServerChoosesAnother) {
  broker_.Link("ada");
  const auto put = [&](int version, const std::string& account) {
    registry_.Put(FromJson<registry::v1::McpServer>(
        absl::StrCat(R"({"uid":"srv_user","slug":"user","version":")", version, R"(","upstreamUrl":"http://127.0.0.1:)",
                     upstream_.port(), R"(/up","agentAuth":{"interactive":{}},"appAuth":{"oauthAuthorization":{)",
                     R"("app":"github","appUid":"app_x","account":")", account, R"("}}})")));
  };
  SetAnswer([](const std::string&) { return JsonResponse("{}", "Mcp-Session-Id: up-1\r\n"); });
  put(2, "work");
  std::string session;
  ASSERT_TRUE(Soon([&] {
    session = Post("user", {Bearer("ours-ada")}).Field("Mcp-Session-Id");
    const std::vector<std::string> named = {Bearer("ours-ada"), "X-Sallyport-Account: work"};
    return Post("user", {named[0], named[1], "Mcp-Session-Id: " + session}).status == 200;
  }));
  EXPECT_EQ(Post("user", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status, 200);
  put(3, "home");
  EXPECT_TRUE(Soon([&] { return Post("user", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status == 404; }));
}

TEST_F(EdgeServerTest, ASyntheticSessionIsReplayedAfterLinking) {
  const std::string initialize =
      R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}})";
  const Reply opened = Post("user", {Bearer("ours-ada")}, initialize);
  EXPECT_EQ(opened.Json()["result"]["protocolVersion"], "2025-11-25");
  const std::string session = opened.Field("Mcp-Session-Id");
  ASSERT_NE(session, "");
  EXPECT_EQ(Post("user", {Bearer("ours-bob"), "Mcp-Session-Id: " + session}).status, 404);

  broker_.Link("ada");
  SetAnswer([](const std::string& request) {
    return JsonResponse(R"({"jsonrpc":"2.0","id":7,"result":{}})",
                        absl::StrContains(request, "initialize\"") ? "Mcp-Session-Id: up-9\r\n" : "");
  });
  EXPECT_EQ(Post("user", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status, 200);
  auto requests = upstream_.requests();
  ASSERT_THAT(requests, SizeIs(3));
  EXPECT_THAT(requests[0], HasSubstr(R"("params":{"protocolVersion":"2025-11-25","capabilities":{}})"));
  EXPECT_THAT(requests[0], HasSubstr("app-token-of-ada"));
  EXPECT_THAT(requests[0], Not(HasSubstr("Mcp-Session-Id")));
  EXPECT_THAT(requests[1], HasSubstr("notifications/initialized"));
  EXPECT_THAT(requests[1], HasSubstr("Mcp-Session-Id: up-9\r\n"));
  EXPECT_THAT(requests[2], HasSubstr(kCall));
  EXPECT_THAT(requests[2], HasSubstr("Mcp-Session-Id: up-9\r\n"));
  EXPECT_EQ(Post("user", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status, 200);
  requests = upstream_.requests();
  ASSERT_THAT(requests, SizeIs(4)) << "replayed once";
  EXPECT_THAT(requests[3], HasSubstr("Mcp-Session-Id: up-9\r\n"));
}

TEST_F(EdgeServerTest, AnUpstreamThatRefusesTheReplayMakesTheClientInitializeAnew) {
  const Reply opened =
      Post("user", {Bearer("ours-ada")}, R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{}})");
  const std::string session = opened.Field("Mcp-Session-Id");
  broker_.Link("ada");
  SetAnswer([](const std::string&) { return std::string("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"); });
  EXPECT_EQ(Post("user", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status, 404);
  EXPECT_EQ(Post("user", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status, 404);
  EXPECT_THAT(upstream_.requests(), SizeIs(1));
}

}  // namespace
}  // namespace sallyport::edge

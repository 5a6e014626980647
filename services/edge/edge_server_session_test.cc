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

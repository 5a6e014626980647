// SPDX-License-Identifier: Apache-2.0
#include "common/metrics.h"
#include "services/edge/edge_server_testing.h"

// What is recorded of calls that were not admitted, and which calls count as being served.
namespace sallyport::edge {
namespace {

class EdgeServerAdmissionTest : public EdgeServerTest {
 protected:
  std::unique_ptr<RawSocket> Begin(const std::string& bytes) {
    auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
    socket->Send(bytes);
    return socket;
  }
  static std::string JunkHead(const std::string& fields) {
    return "POST /mcp/org HTTP/1.1\r\nHost: gw.example.com\r\nAuthorization: Bearer junk\r\n" + fields + "\r\n";
  }
  static double InFlight(const std::string& slug) {
    return MetricGauge("sallyport_mcp_in_flight", "", {{"server", slug}}).Value();
  }
  static void ExpectFailed(const audit::v1::Event& event, const std::string& rule, int status) {
    EXPECT_EQ(event.type(), "mcp.call");
    EXPECT_EQ(event.decision(), audit::v1::DECISION_FAILED) << rule;
    EXPECT_EQ(event.rule(), rule);
    EXPECT_EQ(event.status(), status);
    EXPECT_EQ(event.subject(), "");
  }
};

TEST_F(EdgeServerAdmissionTest, WhatTheEngineRefusedWasNotAllowed) {
  EXPECT_EQ(ParseReply(Begin(JunkHead("Content-Length: 4194305\r\n"))->ReadMessage()).status, 413);
  EXPECT_EQ(ParseReply(Begin(JunkHead("Transfer-Encoding: chunked\r\n") + "no\r\n")->ReadMessage()).status, 400);
  const auto events = Events(2);
  ASSERT_THAT(events, SizeIs(2));
  ExpectFailed(events[0], "refused.413", 413);
  ExpectFailed(events[1], "refused.400", 400);
}

TEST_F(EdgeServerAdmissionTest, AClientThatLeavesBeforeTheDoorWasNotAllowed) {
  Begin(JunkHead("Content-Length: 100\r\n") + "{")->Close();
  ASSERT_THAT(Events(1), SizeIs(1));
  authn_.gate.Close();
  const auto socket = Begin(Render("POST", "/mcp/org", {Bearer("ours-ada")}, kCall));
  ASSERT_TRUE(authn_.gate.AwaitArrivals(1));
  socket->Close();
  const auto events = Events(2);
  authn_.gate.Open();
  ASSERT_THAT(events, SizeIs(2));
  for (const auto& event : events) ExpectFailed(event, "client_gone", 0);
}

TEST_F(EdgeServerAdmissionTest, WhomAuthnCouldNotSpeakOfWasNotAllowed) {
  authn_.SetStatus({grpc::StatusCode::UNAVAILABLE, "down"});
  EXPECT_EQ(Post("org", {Bearer("ours-ada")}).status, 503);
  const auto events = Events(1);
  ASSERT_THAT(events, SizeIs(1));
  ExpectFailed(events[0], "try_again", 503);
}

TEST_F(EdgeServerAdmissionTest, AClientThatLeavesAfterwardsWas) {
  broker_.gate.Close();
  const auto socket = Begin(Render("POST", "/mcp/org", {Bearer("ours-ada")}, kCall));
  ASSERT_TRUE(broker_.gate.AwaitArrivals(1));
  socket->Close();
  const auto events = Events(1);
  broker_.gate.Open();
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].decision(), audit::v1::DECISION_ALLOWED);
  EXPECT_EQ(events[0].rule(), "interactive.allow.everyone");
  EXPECT_EQ(events[0].subject(), "okta:ada");
}

TEST_F(EdgeServerAdmissionTest, ACallCountsOnceHoweverOftenItGoesUpstream) {
  const std::string initialize = R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{}})";
  const std::string session = Post("user", {Bearer("ours-ada")}, initialize).Field("Mcp-Session-Id");
  ASSERT_NE(session, "");
  broker_.Link("ada");
  ASSERT_TRUE(Soon([&] { return InFlight("user") == 0; }));
  std::vector<double> seen;
  SetAnswer([&seen](const std::string& request) {
    seen.push_back(InFlight("user"));
    if (absl::StrContains(request, "-v1") && absl::StrContains(request, kCall)) return Refusal();
    return JsonResponse("{}", absl::StrContains(request, "initialize\"") ? "Mcp-Session-Id: up-9\r\n" : "");
  });
  EXPECT_EQ(Post("user", {Bearer("ours-ada"), "Mcp-Session-Id: " + session}).status, 200);
  EXPECT_TRUE(Soon([&] { return InFlight("user") == 0; }));
  SetAnswer(nullptr);
  // initialize, notifications/initialized, the call, and once more with a new token.
  EXPECT_THAT(seen, ::testing::ElementsAre(1, 1, 1, 1));
}

TEST_F(EdgeServerAdmissionTest, ACallThatWaitsForTheBrokerOrAnAccountCounts) {
  ASSERT_EQ(InFlight("user"), 0);
  broker_.gate.Close();
  const auto call = Begin(Render("POST", "/mcp/user", {Bearer("ours-ada")}, kCall));
  ASSERT_TRUE(broker_.gate.AwaitArrivals(1));
  EXPECT_EQ(InFlight("user"), 1);
  broker_.gate.Open();
  EXPECT_EQ(ParseReply(call->ReadMessage()).status, 200);
  EXPECT_TRUE(Soon([&] { return InFlight("user") == 0; }));
  const auto held = Begin(Render("GET", "/mcp/user", {Bearer("ours-ada")}, ""));
  EXPECT_THAT(held->ReadUntil("\r\n\r\n"), HasSubstr("text/event-stream"));
  EXPECT_EQ(InFlight("user"), 1);
  held->Close();
  EXPECT_TRUE(Soon([&] { return InFlight("user") == 0; }));
  EXPECT_EQ(Post("near").status, 403);
  EXPECT_TRUE(Soon([&] { return InFlight("near") == 0; })) << "refused before its body was read";
}

}  // namespace
}  // namespace sallyport::edge

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
  static double InFlight(const std::string& slug) {
    return MetricGauge("sallyport_mcp_in_flight", "", {{"server", slug}}).Value();
  }
};

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

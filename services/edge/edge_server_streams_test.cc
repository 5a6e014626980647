// SPDX-License-Identifier: Apache-2.0
#include <sys/socket.h>

#include "services/edge/edge_server_testing.h"

// Event streams that are open, and what ends them.
namespace sallyport::edge {
namespace {

constexpr char kAnswer[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";

class EdgeServerStreamsTest : public EdgeServerTest {
 protected:
  EdgeServerStreamsTest() {
    SetAnswer([](const std::string& request) {
      return absl::StartsWith(request, "GET ") ? std::string(kAnswer) : JsonResponse("{}");
    });
  }
  using Client = std::unique_ptr<RawSocket>;
  Client Listen(const std::string& slug, const std::string& token, const std::string& account = "") {
    Client socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
    std::vector<std::string> fields;
    if (!token.empty()) fields.push_back(Bearer(token));
    if (!account.empty()) fields.push_back("X-Sallyport-Account: " + account);
    socket->Send(Render("GET", "/mcp/" + slug, fields, ""));
    EXPECT_THAT(socket->ReadUntil("data: 1\n\n\r\n"), HasSubstr("text/event-stream"));
    return socket;
  }
  // Silent, not ended.
  static bool Open(const Client& socket) {
    char byte = 0;
    return recv(socket->fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0;
  }
  static void ExpectCut(const Client& socket) {
    EXPECT_EQ(socket->ReadToEnd(), "") << "no orderly end";
    EXPECT_TRUE(socket->ended());
  }
  void PutServer(const std::string& slug, const std::string& uid, int version, const std::string& more) {
    registry_.Put(FromJson<registry::v1::McpServer>(
        absl::StrCat(R"({"uid":")", uid, R"(","slug":")", slug, R"(","version":")", version,
                     R"(","upstreamUrl":"http://127.0.0.1:)", upstream_.port(), R"(/up",)", more, "}")));
  }
  bool RecordedRule(const std::string& rule) {
    return Soon([&] {
      const auto events = audit_.events();
      return std::any_of(events.begin(), events.end(), [&](const auto& event) { return event.rule() == rule; });
    });
  }
};

TEST_F(EdgeServerStreamsTest, ARevocationEndsTheStreamsOfTheCallerAndNoOthers) {
  const Client ada = Listen("org", "ours-ada");
  const Client bob = Listen("org", "ours-bob");
  const Client cleo = Listen("org", "ours-cleo");
  registry_.Invalidate(Invalidation::SESSION, "session-ada");
  ExpectCut(ada);
  registry_.Invalidate(Invalidation::SUBJECT, "okta:bob");
  ExpectCut(bob);
  EXPECT_TRUE(Open(cleo));
  EXPECT_TRUE(RecordedRule("stream.revoked"));
}

// As when an administrator ends a client or a server: so many at once, in the parts they are published in.
TEST_F(EdgeServerStreamsTest, TenThousandEndedSessionsCutTheStreamsAmongThem) {
  constexpr int kStreams = 40;
  std::vector<Client> cut;
  for (int i = 0; i < kStreams; ++i) cut.push_back(Listen("org", absl::StrCat("ours-user", i)));
  const Client cleo = Listen("org", "ours-cleo");
  for (int part = 0; part < 20; ++part) {
    registry::v1::PublishInvalidationsRequest request;
    for (int i = 0; i < 500; ++i) {
      const int n = part * 500 + i;
      Invalidation& invalidation = *request.add_invalidations();
      invalidation.set_kind(Invalidation::SESSION);
      // Theirs lie among the others, the last one in the last part.
      invalidation.set_key(n % 250 == 249 ? absl::StrCat("session-user", n / 250) : absl::StrCat("session ", n));
    }
    registry::v1::PublishInvalidationsResponse response;
    ASSERT_TRUE(registry_.PublishInvalidations(nullptr, &request, &response).ok());
  }
  for (const Client& client : cut) ExpectCut(client);
  EXPECT_TRUE(Open(cleo));
}

TEST_F(EdgeServerStreamsTest, TheEndOfAConnectionCutsTheStreamsWithItsToken) {
  broker_.Link("ada");
  broker_.Link("ada/work");
  broker_.Link("bob");  // Every connection is of generation 3 from here on.
  const Client ada = Listen("user", "ours-ada");
  const Client work = Listen("user", "ours-ada", "work");
  const Client bob = Listen("user", "ours-bob");
  const Client elsewhere = Listen("org", "ours-ada");
  registry_.Invalidate(Invalidation::CONNECTION, "okta:ada\napp_x\n", 3);
  registry_.Invalidate(Invalidation::CONNECTION, "okta:ada\napp_x\nwork", 4);
  ExpectCut(work);
  EXPECT_TRUE(Open(ada)) << "its token is of the new generation";
  registry_.Invalidate(Invalidation::CONNECTION, "okta:ada\napp_x\n", 4);
  ExpectCut(ada);
  EXPECT_TRUE(Open(bob));
  EXPECT_TRUE(Open(elsewhere)) << "it carries none of theirs";
  EXPECT_TRUE(RecordedRule("stream.revoked"));
}

TEST_F(EdgeServerStreamsTest, AnotherSignInCutsNoStream) {
  PutServer("signin", "srv_signin", 1, R"("agentAuth":{"interactive":{}},"appAuth":{"passthrough":{}},
      "outboundHeaders":[{"name":"X-Token","forwardCallerToken":{"token":"ACCESS"}}])");
  ASSERT_TRUE(Soon([&] { return Post("signin", {Bearer("ours-ada")}).status == 200; }));
  const Client ada = Listen("signin", "ours-ada");
  const Client cleo = Listen("signin", "ours-cleo");
  registry_.Invalidate(Invalidation::CONNECTION, "okta:ada\nsso:okta\n", 9);
  registry_.Invalidate(Invalidation::SESSION, "session-cleo");
  ExpectCut(cleo);
  EXPECT_TRUE(Open(ada));
  registry_.Invalidate(Invalidation::SESSION, "session-ada");
  ExpectCut(ada);
}

TEST_F(EdgeServerStreamsTest, ARevocationEndsAStreamThatWasOnlyAskedFor) {
  auto gate = std::make_shared<Gate>();
  gate->Close();
  SetAnswer([gate](const std::string&) {
    gate->Pass();
    return std::string(kAnswer);
  });
  const Client ada = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  ada->Send(Render("GET", "/mcp/org", {Bearer("ours-ada")}, ""));
  ASSERT_TRUE(gate->AwaitArrivals(1));
  ASSERT_EQ(Post("user", {Bearer("ours-ada")}).status, 200) << "answered by the edge";
  authn_.SetStatus({grpc::StatusCode::UNAUTHENTICATED, "revoked"});
  registry_.Invalidate(Invalidation::SUBJECT, "okta:ada");
  ASSERT_TRUE(Soon([&] { return Post("user", {Bearer("ours-ada")}).status == 401; }));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  gate->Open();
  EXPECT_THAT(ada->ReadToEnd(), Not(HasSubstr("data: 1")));
}

TEST_F(EdgeServerStreamsTest, AHeldStreamEndsToo) {
  const Client ada = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  ada->Send(Render("GET", "/mcp/user", {Bearer("ours-ada")}, ""));
  EXPECT_THAT(ada->ReadUntil("\r\n\r\n"), HasSubstr("text/event-stream"));
  registry_.Invalidate(Invalidation::SESSION, "session-ada");
  ExpectCut(ada);
}

TEST_F(EdgeServerStreamsTest, AnotherConfigurationCutsNothingButTheServersEndDoes) {
  const Client ada = Listen("org", "ours-ada");
  const Client anybody = Listen("open", "");
  PutServer("org", "srv_org", 2, R"("agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}})");
  ASSERT_TRUE(Soon([&] { return Post("org").status == 200; })) << "open to all by now";
  EXPECT_TRUE(Open(ada));
  PutServer("org", "srv_org", 3, R"("enabled":false,"agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}})");
  ExpectCut(ada);
  EXPECT_TRUE(Open(anybody));
  PutServer("open", "srv_org_open", 2,
            R"("enabled":false,"agentAuth":{"passthrough":{}},"appAuth":{"apiKey":{"name":"X-Api-Key"}})");
  ExpectCut(anybody);
  EXPECT_TRUE(RecordedRule("stream.server_gone"));
}

TEST_F(EdgeServerStreamsTest, NoStreamIsOlderThanFourHours) {
  const Client old = Listen("open", "");
  clock_.Advance(absl::Hours(3));
  const Client young = Listen("open", "");
  std::this_thread::sleep_for(std::chrono::milliseconds(1'300));
  EXPECT_TRUE(Open(old));
  clock_.Advance(absl::Hours(1));
  ExpectCut(old);
  EXPECT_TRUE(Open(young));
  EXPECT_TRUE(RecordedRule("stream.max_age"));
}

}  // namespace
}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
// Many calls at once on a session the edge opened itself: a whole edge, raw clients, and an upstream that counts.
#include <algorithm>
#include <mutex>
#include <thread>

#include <gmock/gmock.h>

#include "services/edge/edge_server.h"
#include "services/edge/edge_testing.h"
#include "services/edge/http/engine_test_support.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport::edge {
namespace {

using registry::v1::Invalidation;
using ::sallyport::testing::IsOk;
using ::testing::AllOf;
using ::testing::Each;
using testing::FakeUpstream;
using ::testing::HasSubstr;
using testing::JsonResponse;
using testing::RawSocket;
using testing::StatusOf;

constexpr char kCall[] =
    R"({"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"search","arguments":{"q":1}}})";
constexpr char kInitialize[] =
    R"({"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{}}})";
constexpr char kRefusal[] = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

bool IsInitialize(const std::string& request) { return absl::StrContains(request, "\"initialize\""); }
bool IsInitialized(const std::string& request) { return absl::StrContains(request, "notifications/initialized"); }

class SessionReplayTest : public ::testing::Test {
 protected:
  using Client = std::unique_ptr<RawSocket>;
  using Clients = std::vector<Client>;

  SessionReplayTest() : upstream_([this](RawSocket& socket) { Serve(socket); }) {}
  void StartEdge(int threads) {
    PutServers(1, "");
    config::v1::EdgeConfig config;
    config.set_listen("127.0.0.1:0");
    config.set_data_directory(directory_.path());
    config.set_threads(threads);
    config.mutable_deployment()->set_public_url("https://gw.example.com");
    config.mutable_deployment()->mutable_egress()->add_upstream_networks("127.0.0.0/8");
    auto edge = EdgeServer::Start(
        config, clock_,
        {authn_server_.channel(), broker_server_.channel(), authn_server_.channel(), registry_server_.channel()});
    ASSERT_THAT(edge, IsOk());
    edge_ = *std::move(edge);
    ASSERT_TRUE(Soon([&] { return edge_->Ready().ok(); })) << edge_->Ready();
  }
  ~SessionReplayTest() override {
    initializes_.Open();
    if (edge_) edge_->Shutdown(absl::ZeroDuration());
  }
  void PutServers(int version, const std::string& more) {
    const auto put = [&](const std::string& slug, const std::string& fields) {
      registry_.Put(FromJson<registry::v1::McpServer>(
          absl::StrCat(R"({"uid":"srv_)", slug, R"(","slug":")", slug, R"(","version":")", version,
                       R"(","upstreamUrl":"http://127.0.0.1:)", upstream_.port(), R"(/up",)", fields, more, "}")));
    };
    put("user", R"("agentAuth":{"interactive":{}},"appAuth":{"oauthAuthorization":{"app":"github","appUid":"app_x"}})");
    put("open", R"("agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}})");
  }
  void Serve(RawSocket& socket) {
    while (true) {
      const std::string request = upstream_.ReadRequest(socket);
      if (request.empty()) return;
      std::string answer = JsonResponse(R"({"jsonrpc":"2.0","id":7,"result":{}})");
      if (IsInitialize(request)) {
        initializes_.Pass();
        answer = NextAnswer();
      }
      if (answer.empty() || !socket.Send(answer)) return;
    }
  }
  // To each initialize its own; the last one again and again.
  void AnswerInitialize(std::vector<std::string> answers) {
    const std::lock_guard lock(mu_);
    answers_ = std::move(answers);
  }
  std::string NextAnswer() {
    const std::lock_guard lock(mu_);
    const std::string answer = answers_.front();
    if (answers_.size() > 1) answers_.erase(answers_.begin());
    return answer;
  }
  static std::string Opened() {
    return JsonResponse(R"({"jsonrpc":"2.0","id":"x","result":{}})", "Mcp-Session-Id: up-9\r\n");
  }

  Client Start(const std::string& slug, const std::string& token, const std::string& session,
               const std::string& body = kCall) {
    auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
    socket->Send(absl::StrCat("POST /mcp/", slug, " HTTP/1.1\r\nHost: gw.example.com\r\n",
                              token.empty() ? "" : "Authorization: Bearer " + token + "\r\n",
                              session.empty() ? "" : "Mcp-Session-Id: " + session + "\r\n",
                              "Content-Length: ", body.size(), "\r\n\r\n", body));
    return socket;
  }
  // The id of a session that the edge opened for a user without an account, who has one now.
  std::string OpenSession(const std::string& name = "ada") {
    const std::string reply = Start("user", "ours-" + name, "", kInitialize)->ReadMessage();
    constexpr absl::string_view kField = "Mcp-Session-Id: ";
    const size_t at = reply.find(kField.data());
    EXPECT_NE(at, std::string::npos) << reply;
    broker_.Link(name);
    if (at == std::string::npos) return "";
    return reply.substr(at + kField.size(), reply.find("\r\n", at) - at - kField.size());
  }
  Clients StartCalls(int count, const std::string& session) {
    Clients clients;
    for (int i = 0; i < count; ++i) clients.push_back(Start("user", "ours-ada", session));
    return clients;
  }
  // Whatever was sent before has been seen by the edge (of one thread) when this returns.
  void Settle() {
    for (int i = 0; i < 3; ++i) EXPECT_EQ(StatusOf(Start("open", "", "")->ReadMessage()), 200);
  }
  // One call replays (its initialize is at the upstream), the others wait.
  Clients StartContended(int waiting, const std::string& session) {
    initializes_.Close();
    Clients clients = StartCalls(1, session);
    EXPECT_TRUE(initializes_.AwaitArrivals(1));
    for (Client& client : StartCalls(waiting, session)) clients.push_back(std::move(client));
    Settle();
    return clients;
  }
  static std::vector<int> Statuses(const Clients& clients) {
    std::vector<int> statuses;
    for (const Client& client : clients) statuses.push_back(StatusOf(client->ReadMessage()));
    return statuses;
  }
  std::vector<std::string> Requests(bool (*which)(const std::string&)) {
    std::vector<std::string> requests = upstream_.requests();
    std::erase_if(requests, [which](const std::string& request) { return !which(request); });
    return requests;
  }
  static bool IsCall(const std::string& request) {
    return absl::StrContains(request, kCall) && absl::StrContains(request, "app-token-of");
  }

  FakeClock clock_;
  FakeAuthn authn_{clock_};
  FakeBroker broker_;
  FakeRegistry registry_;
  FakeAudit audit_;
  FakeServer authn_server_{{&authn_}};
  FakeServer broker_server_{{&broker_}};
  FakeServer registry_server_{{&registry_, &audit_}};
  sallyport::testing::TempDirectory directory_;
  Gate initializes_;
  std::mutex mu_;
  std::vector<std::string> answers_ = {Opened()};
  FakeUpstream upstream_;
  std::unique_ptr<EdgeServer> edge_;
};

TEST_F(SessionReplayTest, ManyFirstCallsAreOneInitialize) {
  StartEdge(/*threads=*/2);
  const std::string session = OpenSession();
  initializes_.Close();
  const Clients clients = StartCalls(60, session);
  ASSERT_TRUE(initializes_.AwaitArrivals(1));
  initializes_.Open();
  EXPECT_THAT(Statuses(clients), Each(200));
  EXPECT_EQ(Requests(IsInitialize).size(), 1U);
  EXPECT_EQ(Requests(IsInitialized).size(), 1U);
  const auto calls = Requests(IsCall);
  EXPECT_EQ(calls.size(), 60U);
  EXPECT_THAT(calls, Each(AllOf(HasSubstr("Mcp-Session-Id: up-9\r\n"), HasSubstr("app-token-of-ada"))));
}

TEST_F(SessionReplayTest, EachUsersSessionIsOpenedForThemAlone) {
  StartEdge(/*threads=*/2);
  const std::string ada = OpenSession("ada");
  const std::string bob = OpenSession("bob");
  Clients clients = StartCalls(10, ada);
  for (int i = 0; i < 10; ++i) clients.push_back(Start("user", "ours-bob", bob));
  EXPECT_THAT(Statuses(clients), Each(200));
  const auto initializes = Requests(IsInitialize);
  ASSERT_EQ(initializes.size(), 2U);
  EXPECT_NE(absl::StrContains(initializes[0], "app-token-of-ada"),
            absl::StrContains(initializes[1], "app-token-of-ada"));
  EXPECT_EQ(StatusOf(Start("user", "ours-bob", ada)->ReadMessage()), 404);
}

TEST_F(SessionReplayTest, ALeaderWhoseClientGoesAwayFailsNobody) {
  StartEdge(/*threads=*/1);
  const std::string session = OpenSession();
  Clients clients = StartContended(10, session);
  clients.front()->Close();
  ASSERT_TRUE(initializes_.AwaitArrivals(2)) << "the next one opens the session";
  initializes_.Open();
  clients.erase(clients.begin());
  EXPECT_THAT(Statuses(clients), Each(200));
  EXPECT_EQ(Requests(IsInitialize).size(), 2U);
  EXPECT_EQ(Requests(IsCall).size(), 10U);
}

TEST_F(SessionReplayTest, WhoStopsWaitingIsNotMissed) {
  StartEdge(/*threads=*/1);
  const std::string session = OpenSession();
  Clients clients = StartContended(3, session);
  clients[1]->Close();
  ASSERT_TRUE(Soon([&] {
    const auto events = audit_.events();
    return std::any_of(events.begin(), events.end(), [](const auto& event) { return event.status() == 0; });
  })) << "the edge sees that it is gone";
  initializes_.Open();
  EXPECT_EQ(StatusOf(clients[0]->ReadMessage()), 200);
  EXPECT_EQ(StatusOf(clients[2]->ReadMessage()), 200);
  EXPECT_EQ(StatusOf(clients[3]->ReadMessage()), 200);
  EXPECT_EQ(Requests(IsInitialize).size(), 1U);
  EXPECT_EQ(Requests(IsCall).size(), 3U);
}

TEST_F(SessionReplayTest, AfterAFailureTheNextTriesAndTheOthersGoOnWithIt) {
  StartEdge(/*threads=*/1);
  const std::string session = OpenSession();
  AnswerInitialize({kRefusal, Opened()});
  const Clients clients = StartContended(10, session);
  initializes_.Open();
  std::vector<int> statuses = Statuses(clients);
  EXPECT_EQ(statuses.front(), 404) << "who tried in vain initializes anew";
  statuses.erase(statuses.begin());
  EXPECT_THAT(statuses, Each(200));
  EXPECT_EQ(Requests(IsInitialize).size(), 2U);
}

TEST_F(SessionReplayTest, AfterTwoRefusalsNobodyElseTries) {
  StartEdge(/*threads=*/1);
  const std::string session = OpenSession();
  AnswerInitialize({kRefusal});
  const Clients clients = StartContended(10, session);
  initializes_.Open();
  EXPECT_THAT(Statuses(clients), Each(404));
  EXPECT_EQ(Requests(IsInitialize).size(), 2U);
  EXPECT_EQ(StatusOf(Start("user", "ours-ada", session)->ReadMessage()), 404);
}

TEST_F(SessionReplayTest, AnUpstreamThatBreaksDoesNotCostTheSession) {
  StartEdge(/*threads=*/1);
  const std::string session = OpenSession();
  AnswerInitialize({"nonsense\r\n\r\n", "nonsense\r\n\r\n", Opened()});
  const Clients clients = StartContended(5, session);
  initializes_.Open();
  EXPECT_THAT(Statuses(clients), Each(502));
  EXPECT_EQ(Requests(IsInitialize).size(), 2U);
  EXPECT_EQ(StatusOf(Start("user", "ours-ada", session)->ReadMessage()), 200);
}

TEST_F(SessionReplayTest, WhoeverWaitsDoesSoWithinTheirOwnTime) {
  StartEdge(/*threads=*/1);
  const std::string session = OpenSession();
  const Clients leader = StartContended(0, session);
  // The same server with less patience for calls from now on.
  const auto route_changed = [&] { return authn_.calls() > 1; };
  PutServers(2, R"(,"policy":{"firstByteTimeout":"2s"})");
  Clients waiting;
  ASSERT_TRUE(Soon([&] {
    waiting.push_back(Start("user", "ours-ada", session));
    Settle();
    return route_changed();
  }));
  EXPECT_EQ(StatusOf(waiting.back()->ReadMessage()), 504);
  initializes_.Open();
  EXPECT_THAT(Statuses(leader), Each(200)) << "one that gives up takes nobody along";
  EXPECT_EQ(Requests(IsInitialize).size(), 1U);
}

TEST_F(SessionReplayTest, AServerThatVerifiesNobodyAnyMoreKnowsNoSessionOfOurs) {
  StartEdge(/*threads=*/1);
  const std::string session = OpenSession();
  const Clients clients = StartContended(2, session);
  registry_.Put(FromJson<registry::v1::McpServer>(
      absl::StrCat(R"({"uid":"srv_user","slug":"user","version":"2","upstreamUrl":"http://127.0.0.1:)",
                   upstream_.port(), R"(/up","agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}}})")));
  ASSERT_TRUE(Soon([&] { return StatusOf(Start("user", "", "")->ReadMessage()) == 200; }));
  initializes_.Open();
  EXPECT_EQ(StatusOf(clients[0]->ReadMessage()), 200) << "was under way";
  for (size_t i = 1; i < clients.size(); ++i) EXPECT_EQ(StatusOf(clients[i]->ReadMessage()), 200);
  const auto requests = upstream_.requests();
  EXPECT_EQ(std::count_if(requests.begin(), requests.end(),
                          [&](const auto& request) { return absl::StrContains(request, session); }),
            2)
      << "the client's own word from now on";
}

TEST_F(SessionReplayTest, AnInitializeAnsweredByAStreamThatStaysOpenIsAnAnswer) {
  StartEdge(/*threads=*/1);
  const std::string session = OpenSession();
  AnswerInitialize(
      {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
       "Mcp-Session-Id: up-9\r\n\r\n10\r\ndata: {\"id\":1}\n\n\r\n"});
  const std::string reply = Start("user", "ours-ada", session)->ReadMessage();
  EXPECT_EQ(StatusOf(reply), 200);
  EXPECT_EQ(Requests(IsCall).size(), 1U);
}

TEST_F(SessionReplayTest, WhoIsRevokedWhileWaitingIsNotServed) {
  StartEdge(/*threads=*/1);
  const std::string session = OpenSession();
  const Clients clients = StartContended(3, session);
  authn_.SetStatus({grpc::StatusCode::UNAUTHENTICATED, "revoked"});
  registry_.Invalidate(Invalidation::SUBJECT, "okta:ada");
  ASSERT_TRUE(Soon([&] { return StatusOf(Start("user", "ours-ada", "")->ReadMessage()) == 401; }));
  initializes_.Open();
  EXPECT_EQ(StatusOf(clients[0]->ReadMessage()), 200) << "was under way";
  for (size_t i = 1; i < clients.size(); ++i) EXPECT_EQ(StatusOf(clients[i]->ReadMessage()), 401);
  EXPECT_EQ(Requests([](const std::string& request) {
              return IsCall(request) && absl::StrContains(request, "Mcp-Session-Id: up-9");
            }).size(),
            1U);
}

}  // namespace
}  // namespace sallyport::edge

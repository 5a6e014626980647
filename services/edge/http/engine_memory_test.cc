// SPDX-License-Identifier: Apache-2.0
// What an engine near its memory limit still does.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/edge/http/engine_test_support.h"

namespace sallyport::edge {
namespace {

using testing::BodyOf;
using ::testing::ElementsAre;
using testing::EngineTest;
using testing::Eventually;
using ::testing::HasSubstr;
using testing::JsonResponse;
using ::testing::Not;
using testing::Post;
using testing::RawSocket;
using ::testing::StartsWith;
using testing::StatusOf;

constexpr char kGet[] = "GET /mcp/a HTTP/1.1\r\nHost: gw\r\n\r\n";
constexpr char kOwnStream[] = "GET /own HTTP/1.1\r\nHost: gw\r\n\r\n";
constexpr char kHeld[] = "GET /held HTTP/1.1\r\nHost: gw\r\n\r\n";

class EngineMemoryTest : public EngineTest {
 protected:
  void SetUp() override {
    options.memory_check = std::chrono::milliseconds(1);
    options.memory = [this] { return MemoryReading{.limit = 1000, .used = 10 * Percent()}; };
    // POST is answered in JSON, unless its body asks for a stream; GET by a stream that stays open.
    ServeUpstream([this](RawSocket& socket) {
      std::string request;
      while (!(request = upstream->ReadRequest(socket)).empty()) {
        if (request.starts_with("POST") && BodyOf(request) != "stream") {
          socket.Send(JsonResponse("{}"));
          continue;
        }
        socket.Send(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            "7\r\n: one\n\n\r\n");
        if (request.starts_with("POST")) {
          socket.Send("0\r\n\r\n");
        }
      }
      ++upstream_ends;
    });
    gateway.on_request = [this](Exchange& exchange) {
      if (exchange.head().path == "/own") {
        own_opened = exchange.StartStream({});
      } else if (exchange.head().path == "/held") {
        held = exchange.Defer();
        arrived = true;
      } else {
        gateway.ForwardPlain(exchange);
      }
    };
  }
  void TearDown() override { engine.reset(); }

  uint64_t Percent() {
    uint64_t once = percent_once.exchange(0);
    return once > 0 ? once : percent.load();
  }
  void At(uint64_t now, MemoryLevel level) {
    percent = now;
    ASSERT_TRUE(Eventually([&] { return engine->counters().memory_level == level; }));
  }

  std::atomic<uint64_t> percent{10};
  std::atomic<uint64_t> percent_once{0};
  std::atomic<int> upstream_ends{0};
  std::atomic<bool> own_opened{false};
  std::atomic<bool> arrived{false};
  ExchangeRef held;
};

TEST_F(EngineMemoryTest, FromEightyPercentNoStreamOpens) {
  StartEngine();
  const auto early = Connect();
  early->Send(kGet);
  EXPECT_THAT(early->ReadUntil(": one\n\n\r\n"), StartsWith("HTTP/1.1 200"));
  At(80, MemoryLevel::kNoStreams);
  EXPECT_EQ(engine->counters().memory.limit, 1000u);
  EXPECT_EQ(engine->counters().memory.used, 800u);

  const auto client = Connect();
  for (const char* request : {kGet, kOwnStream}) {
    client->Send(request);
    const std::string response = client->ReadMessage();
    EXPECT_EQ(StatusOf(response), 503) << request;
    EXPECT_THAT(response, HasSubstr("Retry-After: 1\r\n"));
    EXPECT_THAT(response, Not(HasSubstr("Connection: close")));
    EXPECT_EQ(BodyOf(response), R"({"error":"memory_limit"})");
  }
  EXPECT_FALSE(own_opened);
  EXPECT_TRUE(Eventually([&] { return upstream_ends >= 1; })) << "the refused stream stayed open behind us";
  client->Send(Post("{}"));
  EXPECT_EQ(StatusOf(client->ReadMessage()), 200);
  client->Send(Post("stream"));
  EXPECT_THAT(client->ReadMessage(), HasSubstr(": one")) << "the call was made";
  EXPECT_EQ(engine->counters().memory_streams, 2u);
  EXPECT_TRUE(Eventually([&] { return gateway.done().size() == 4; }));
  EXPECT_EQ(engine->counters().connections_open, 2u) << "the early stream goes on";

  At(78, MemoryLevel::kNoStreams);
  At(76, MemoryLevel::kNormal);
  client->Send(kOwnStream);
  EXPECT_THAT(client->ReadUntil("\r\n\r\n"), StartsWith("HTTP/1.1 200"));
}

TEST_F(EngineMemoryTest, FromNinetyPercentNoRequestIsTaken) {
  StartEngine();
  const auto busy = Connect();
  busy->Send(kHeld);
  ASSERT_TRUE(Eventually([&] { return arrived.load(); }));
  const auto idle = Connect();
  idle->Send(Post("{}"));
  EXPECT_EQ(StatusOf(idle->ReadMessage()), 200);
  At(90, MemoryLevel::kNoRequests);

  held.Post([](Exchange& exchange) { exchange.Respond(200, {}, "late"); });
  const std::string last = busy->ReadToEnd();
  EXPECT_EQ(BodyOf(last), "late");
  EXPECT_THAT(last, HasSubstr("Connection: close\r\n"));
  EXPECT_TRUE(busy->ended());
  const auto fresh = Connect();
  for (RawSocket* client : {idle.get(), fresh.get()}) {
    client->Send(Post("{}"));
    const std::string response = client->ReadToEnd();
    EXPECT_EQ(StatusOf(response), 503);
    EXPECT_THAT(response, HasSubstr("Retry-After: 1\r\n"));
    EXPECT_THAT(response, HasSubstr("Connection: close\r\n"));
  }
  EXPECT_THAT(gateway.rejected(), ElementsAre("503 memory_limit", "503 memory_limit"));
  EXPECT_EQ(engine->counters().memory_requests, 2u);
  EXPECT_EQ(gateway.done().size(), 2u) << "the gateway saw a refused request";

  At(86, MemoryLevel::kNoStreams);
  const auto again = Connect();
  for (int i = 0; i < 2; ++i) {
    again->Send(Post("{}"));
    EXPECT_EQ(StatusOf(again->ReadMessage()), 200);
  }
}

TEST_F(EngineMemoryTest, FromNinetyFivePercentNoConnectionIsAccepted) {
  StartEngine();
  const auto busy = Connect();
  busy->Send(kHeld);
  ASSERT_TRUE(Eventually([&] { return arrived.load(); }));
  const auto idle = Connect();
  ASSERT_TRUE(Eventually([&] { return engine->counters().connections_open == 2; }));
  At(95, MemoryLevel::kNoConnections);

  EXPECT_EQ(idle->ReadToEnd(), "");
  EXPECT_TRUE(idle->ended());
  EXPECT_EQ(engine->counters().memory_connections, 1u);
  const auto waiting = Connect();
  waiting->Send(Post("{}"));
  held.Post([](Exchange& exchange) { exchange.Respond(200, {}, "late"); });
  EXPECT_EQ(BodyOf(busy->ReadToEnd()), "late");
  std::this_thread::sleep_for(std::chrono::milliseconds(250));  // Two attempts to accept.
  EXPECT_EQ(engine->counters().connections_accepted, 2u);

  At(10, MemoryLevel::kNormal);
  EXPECT_EQ(StatusOf(waiting->ReadMessage()), 200);
}

TEST_F(EngineMemoryTest, TheNewestIdleConnectionsCloseFirst) {
  StartEngine();
  std::vector<std::unique_ptr<RawSocket>> clients;
  for (size_t i = 0; i < 20; ++i) {
    if (i == 4) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    clients.push_back(Connect());
    ASSERT_TRUE(Eventually([&] { return engine->counters().connections_open == i + 1; }));
  }
  percent_once = 95;
  ASSERT_TRUE(Eventually([&] { return engine->counters().memory_connections == 16; }));
  for (size_t i = 4; i < clients.size(); ++i) {
    EXPECT_EQ(clients[i]->ReadToEnd(), "");
    EXPECT_TRUE(clients[i]->ended()) << i;
  }
  ASSERT_TRUE(Eventually([&] { return engine->counters().memory_level == MemoryLevel::kNormal; }));
  for (size_t i = 0; i < 4; ++i) {
    clients[i]->Send(Post("{}"));
    EXPECT_EQ(StatusOf(clients[i]->ReadMessage()), 200) << i;
  }
}

TEST_F(EngineMemoryTest, WhoStartsShortOfMemoryIsCarefulFromTheFirstRequest) {
  percent = 93;
  StartEngine();
  EXPECT_EQ(StatusOf(Roundtrip(Post("{}"))), 503);
}

}  // namespace
}  // namespace sallyport::edge

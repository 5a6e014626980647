// SPDX-License-Identifier: Apache-2.0
// What clients may and may not send, seen at a listening engine.
#include <atomic>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/edge/http/engine_test_support.h"

namespace sallyport::edge {
namespace {

using testing::BodyOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using testing::EngineTest;
using testing::Eventually;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::JsonResponse;
using ::testing::Not;
using testing::Post;
using testing::RawSocket;
using ::testing::SizeIs;
using ::testing::StartsWith;
using testing::StatusOf;

class EngineRequestTest : public EngineTest {
 protected:
  void SetUp() override {
    AnswerUpstream(JsonResponse("{}"));
    StartEngine();
  }
  // With the options as they are now.
  void Restart() {
    engine.reset();
    StartEngine();
  }
};

TEST_F(EngineRequestTest, ForwardsBodyByteExactAndRelaysTheAnswer) {
  const auto client = Connect();
  client->Send(Post(R"({"jsonrpc":"2.0"})", "Authorization: Bearer t\r\nX-A: b\r\n", "/mcp/a?q=1"));

  const std::string response = client->ReadMessage();

  EXPECT_THAT(response, StartsWith("HTTP/1.1 200 OK\r\nDate: "));
  EXPECT_THAT(response, EndsWith(" GMT\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"));
  ASSERT_THAT(upstream->requests(), SizeIs(1));
  EXPECT_EQ(upstream->requests()[0],
            "POST /up?q=1 HTTP/1.1\r\nHost: 127.0.0.1:" + std::to_string(upstream->port()) +
                "\r\nContent-Type: application/json\r\nX-A: b\r\nContent-Length: 17\r\n\r\n{\"jsonrpc\":\"2.0\"}");
}

TEST_F(EngineRequestTest, KeepsBothConnectionsOpen) {
  const auto client = Connect();
  for (int i = 0; i < 3; ++i) {
    client->Send(Post("{}"));
    EXPECT_EQ(StatusOf(client->ReadMessage()), 200);
  }
  EXPECT_EQ(upstream->connections(), 1);
  EXPECT_EQ(engine->counters().upstream_reuses, 2u);
}

TEST_F(EngineRequestTest, DechunksRequestBodies) {
  const auto client = Connect();
  client->Send("POST /mcp/a HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n");
  client->Send("2;x=y\r\nde\r\n0\r\nAuthorization: evil\r\nContent-Length: 9\r\n\r\n");

  EXPECT_EQ(StatusOf(client->ReadMessage()), 200);
  ASSERT_THAT(upstream->requests(), SizeIs(1));
  EXPECT_THAT(upstream->requests()[0], EndsWith("Content-Length: 5\r\n\r\nabcde"));
  EXPECT_THAT(upstream->requests()[0], Not(HasSubstr("evil")));
}

TEST_F(EngineRequestTest, BodiesLargerThanTheBufferArriveWhole) {
  std::string body(3 << 20, 'x');
  body[1 << 20] = 'y';
  const auto client = Connect();
  client->Send(Post(body));

  EXPECT_EQ(StatusOf(client->ReadMessage()), 200);
  EXPECT_EQ(BodyOf(upstream->requests()[0]), body);
  EXPECT_TRUE(Eventually([&] { return engine->counters().body_memory == 0; }));
}

struct Smuggled {
  const char* name;
  const char* bytes;
};
class SmugglingTest : public EngineRequestTest, public ::testing::WithParamInterface<Smuggled> {};

TEST_P(SmugglingTest, IsRefusedClosedAndNotForwarded) {
  const std::string response = Roundtrip(GetParam().bytes);

  EXPECT_EQ(StatusOf(response), 400);
  EXPECT_THAT(response, HasSubstr("Connection: close\r\n"));
  EXPECT_EQ(response.find("HTTP/1.1 ", 1), std::string::npos) << "one answer only: " << response;
  EXPECT_THAT(upstream->requests(), IsEmpty());
}

#define POST_HEAD "POST /mcp/a HTTP/1.1\r\nHost: gw\r\n"
#define NEXT "GET /smuggled HTTP/1.1\r\nHost: gw\r\n\r\n"
INSTANTIATE_TEST_SUITE_P(
    All, SmugglingTest,
    ::testing::Values(Smuggled{"H1", POST_HEAD "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" NEXT},
                      Smuggled{"H2", POST_HEAD "Content-Length: 5\r\nContent-Length: 10\r\n\r\nhello" NEXT},
                      Smuggled{"H3", POST_HEAD "Content-Length: +5\r\n\r\nhello" NEXT},
                      Smuggled{"H4", POST_HEAD "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" NEXT},
                      Smuggled{"H5", POST_HEAD "Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n" NEXT},
                      Smuggled{"H6", "POST / HTTP/1.0\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" NEXT},
                      Smuggled{"H7", POST_HEAD "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" NEXT},
                      Smuggled{"H8", POST_HEAD "Transfer-Encoding: chunked\r\n\r\n5;\nhello\r\n0\r\n\r\n" NEXT},
                      Smuggled{"H9", POST_HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n0\r\n\r\n" NEXT},
                      Smuggled{"H14", "GET / HTTP/1.1\r\nHost: gw\r\nHost: other\r\n\r\n" NEXT},
                      Smuggled{"H22", "GET /mcp/a%2f..%2fb HTTP/1.1\r\nHost: gw\r\n\r\n" NEXT},
                      Smuggled{"H27",
                               "GET / HTTP/1.1\r\nHost: gw\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" NEXT}),
    [](const auto& tested) { return std::string(tested.param.name); });

TEST_F(EngineRequestTest, ABodyThatSpellsARequestIsABody) {
  const std::string inner = "GET /smuggled HTTP/1.1\r\nHost: gw\r\n\r\n";
  for (const char* method : {"GET", "HEAD", "OPTIONS", "DELETE"}) {
    const auto client = Connect();
    client->Send(std::string(method) + " /mcp/a HTTP/1.1\r\nHost: gw\r\nContent-Length: " +
                 std::to_string(inner.size()) + "\r\n\r\n" + inner);
    client->Send("GET /mcp/b HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n");
    const std::string both = client->ReadToEnd();
    size_t answers = 0;
    for (size_t at = 0; (at = both.find("HTTP/1.1 200", at)) != std::string::npos; ++at) {
      ++answers;
    }
    EXPECT_EQ(answers, 2u) << method << both;
  }
  for (const std::string& request : upstream->requests()) {
    EXPECT_THAT(request, Not(StartsWith("GET /smuggled")));
  }
  EXPECT_THAT(upstream->requests(), SizeIs(8));
}

// As Java's default client begins with every server.
TEST_F(EngineRequestTest, AnOfferOfHttp2IsNeitherTakenNorPassedOn) {
  const auto client = Connect();
  for (int i = 0; i < 2; ++i) {
    client->Send(Post(
        "{}", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"));
    const std::string response = client->ReadMessage();
    EXPECT_EQ(StatusOf(response), 200);
    EXPECT_THAT(response, Not(HasSubstr("pgrade")));
  }
  for (const std::string& request : upstream->requests()) {
    EXPECT_THAT(request, Not(HasSubstr("h2c")));
    EXPECT_THAT(request, Not(HasSubstr("HTTP2-Settings")));
  }
}

TEST_F(EngineRequestTest, EveryAnswerToOptionsSaysWhatIsAllowed) {
  gateway.on_request = [](Exchange& exchange) {
    const std::string_view path = exchange.head().path;
    if (path == "/own") {
      return exchange.Respond(204, {{"allow", "GET"}}, "");
    }
    exchange.Respond(path == "*" ? 204 : 404, {}, "");
  };
  for (const char* target : {"*", "/nothing", "/own"}) {
    const std::string response =
        Roundtrip("OPTIONS " + std::string(target) + " HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n");
    const bool own = target == std::string("/own");
    EXPECT_THAT(response, HasSubstr(own ? "allow: GET\r\n" : "Allow: GET, POST, DELETE, OPTIONS\r\n"));
    EXPECT_EQ(response.find("llow: "), response.rfind("llow: ")) << "once: " << response;
  }
  EXPECT_THAT(Roundtrip("GET /nothing HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n"), Not(HasSubstr("Allow")));
}

TEST_F(EngineRequestTest, PipelinedRequestsAreAnsweredInOrder) {
  gateway.on_request = nullptr;
  const auto client = Connect();
  std::string three;
  for (int i = 0; i < 3; ++i) {
    three += Post(std::string(static_cast<size_t>(i + 1), 'a'));
  }
  client->Send(three);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(StatusOf(client->ReadMessage()), 200);
  }
  ASSERT_THAT(upstream->requests(), SizeIs(3));
  EXPECT_EQ(BodyOf(upstream->requests()[2]), "aaa");
}

TEST_F(EngineRequestTest, AMalformedPipelinedRequestEndsTheConnection) {
  EXPECT_EQ(StatusOf(Roundtrip("BAD\r\n\r\n" + Post("{}") + Post("{}"))), 400);
  EXPECT_THAT(upstream->requests(), IsEmpty());

  const std::string response = Roundtrip(Post("{}") + "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n" + Post("{}"));
  EXPECT_EQ(StatusOf(response), 200);
  EXPECT_THAT(response, HasSubstr("HTTP/1.1 400"));
  EXPECT_THAT(upstream->requests(), SizeIs(1));
}

TEST_F(EngineRequestTest, ExpectIsAnsweredHere) {
  const auto client = Connect();
  client->Send("POST /mcp/a HTTP/1.1\r\nHost: gw\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(client->ReadUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client->Send("{}");
  EXPECT_EQ(StatusOf(client->ReadMessage()), 200);
  EXPECT_THAT(upstream->requests()[0], Not(HasSubstr("Expect")));
  EXPECT_EQ(StatusOf(Roundtrip("POST / HTTP/1.1\r\nHost: gw\r\nExpect: foo\r\n\r\n")), 417);
}

TEST_F(EngineRequestTest, TooLargeBodiesAreRefusedBeforeTheyAreRead) {
  const std::string response = Roundtrip("POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 4194305\r\n\r\n");
  EXPECT_EQ(StatusOf(response), 413);
  EXPECT_THAT(gateway.rejected(), ElementsAre("413 body_too_large"));
  EXPECT_TRUE(Eventually([&] { return gateway.done().size() == 1; }));
}

TEST_F(EngineRequestTest, TooLargeChunkedBodiesAreRefusedWhenTheLimitIsPassed) {
  gateway.body_limit = 100'000;
  const auto client = Connect();
  client->Send("POST / HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n");
  for (int i = 0; i < 7; ++i) {
    client->Send("4000\r\n" + std::string(0x4000, 'x') + "\r\n");
  }
  EXPECT_EQ(StatusOf(client->ReadToEnd()), 413);
}

TEST_F(EngineRequestTest, LimitsOfTheHead) {
  std::string many = "GET / HTTP/1.1\r\nHost: gw\r\n";
  for (int i = 0; i < 100; ++i) {
    many += "X-" + std::to_string(i) + ": 1\r\n";
  }
  EXPECT_EQ(StatusOf(Roundtrip(many + "\r\n")), 431);
  EXPECT_EQ(StatusOf(Roundtrip("GET /" + std::string(9000, 'a') + " HTTP/1.1\r\nHost: gw\r\n\r\n")), 414);
  std::string big = "GET / HTTP/1.1\r\nHost: gw\r\n";
  for (int i = 0; i < 3; ++i) {
    big += "A: " + std::string(6000, 'a') + "\r\n";
  }
  EXPECT_EQ(StatusOf(Roundtrip(big + "\r\n")), 431);
  EXPECT_EQ(StatusOf(Roundtrip("TRACE / HTTP/1.1\r\nHost: gw\r\n\r\n")), 405);
}

TEST_F(EngineRequestTest, SlowHeadsGet408) {
  options.limits.head = std::chrono::milliseconds(300);
  Restart();
  const auto client = Connect();
  client->Send("GET / HT");
  EXPECT_EQ(StatusOf(client->ReadToEnd()), 408);
  EXPECT_THAT(gateway.rejected(), ElementsAre("408 head_timeout"));
}

TEST_F(EngineRequestTest, TricklingBytesDoNotExtendTheHeadLimit) {
  options.limits.head = std::chrono::milliseconds(300);
  Restart();
  const auto client = Connect();
  std::atomic<bool> answered{false};
  std::thread trickling([&] {
    while (!answered && client->Send("X")) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  });
  EXPECT_EQ(StatusOf(client->ReadToEnd()), 408) << "while bytes still came";
  answered = true;
  trickling.join();
}

TEST_F(EngineRequestTest, SlowBodiesGet408) {
  options.limits.body_window = std::chrono::milliseconds(300);
  Restart();
  const auto client = Connect();
  client->Send("POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 1000\r\n\r\nab");
  EXPECT_EQ(StatusOf(client->ReadToEnd()), 408);
  ASSERT_TRUE(Eventually([&] { return gateway.done().size() == 1; }));
  EXPECT_EQ(gateway.done()[0].status, 408);
}

TEST_F(EngineRequestTest, IdleConnectionsCloseSilently) {
  options.limits.keep_alive_idle = std::chrono::seconds(2);
  Restart();
  const auto client = Connect();
  client->Send(Post("{}"));
  EXPECT_EQ(StatusOf(client->ReadMessage()), 200);
  EXPECT_EQ(client->ReadToEnd(), "");
  EXPECT_TRUE(client->ended());
  EXPECT_TRUE(Eventually([&] { return engine->counters().connections_open == 0; }));
}

TEST_F(EngineRequestTest, AConnectionHasItsNumberOfRequests) {
  engine.reset();
  options.limits.keep_alive_requests = 3;
  StartEngine();
  const auto client = Connect();
  for (int i = 0; i < 2; ++i) {
    client->Send(Post("{}"));
    EXPECT_THAT(client->ReadMessage(), Not(HasSubstr("Connection: close")));
  }
  client->Send(Post("{}"));
  EXPECT_THAT(client->ReadMessage(), HasSubstr("Connection: close\r\n"));
  EXPECT_EQ(client->ReadToEnd(), "");
  EXPECT_TRUE(client->ended());
}

TEST_F(EngineRequestTest, AnAgedConnectionClosesWithItsNextAnswer) {
  engine.reset();
  options.limits.keep_alive_age = std::chrono::milliseconds(200);
  StartEngine();
  const auto begin = std::chrono::steady_clock::now();
  const auto client = Connect();
  bool closed = false;
  EXPECT_TRUE(Eventually([&] {
    client->Send(Post("{}"));
    const std::string response = client->ReadMessage();
    EXPECT_EQ(StatusOf(response), 200);
    closed = response.find("Connection: close\r\n") != std::string::npos;
    return closed || StatusOf(response) != 200;
  }));
  EXPECT_TRUE(closed);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(200));
  EXPECT_EQ(client->ReadToEnd(), "");
  EXPECT_TRUE(client->ended());
}

TEST_F(EngineRequestTest, AnswersFromTheHeadAloneCloseUnlessTheBodyIsThere) {
  gateway.on_head = [](Exchange& exchange) -> uint64_t {
    exchange.Respond(401, {{"WWW-Authenticate", "Bearer"}}, "no");
    return 0;
  };
  const auto client = Connect();
  client->Send(Post("{}") + Post("{}"));
  const std::string first = client->ReadMessage();
  EXPECT_THAT(first, HasSubstr("WWW-Authenticate: Bearer\r\n"));
  EXPECT_THAT(first, Not(HasSubstr("Connection: close")));
  EXPECT_EQ(StatusOf(client->ReadMessage()), 401);
  client->Send("POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 10\r\n\r\n");
  EXPECT_THAT(client->ReadToEnd(), HasSubstr("Connection: close\r\n"));
}

TEST_F(EngineRequestTest, Http10AndConnectionCloseAreHonoured) {
  EXPECT_THAT(Roundtrip("GET / HTTP/1.0\r\nHost: gw\r\n\r\n"), HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(Roundtrip("GET / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n"), EndsWith("{}"));
}

TEST_F(EngineRequestTest, HeadGetsNoBody) {
  gateway.on_request = [](Exchange& exchange) { exchange.Respond(200, {}, "twelve bytes"); };
  const std::string response = Roundtrip("HEAD / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(response, HasSubstr("Content-Length: 12\r\n"));
  EXPECT_EQ(BodyOf(response), "");
}

TEST_F(EngineRequestTest, FieldsThatWouldSplitAnAnswerTurnItInto500) {
  gateway.on_request = [](Exchange& exchange) { exchange.Respond(200, {{"X-A", "b\r\nSet-Cookie: c"}}, "body"); };
  const auto client = Connect();
  client->Send(Post("{}"));
  const std::string response = client->ReadMessage();
  EXPECT_EQ(StatusOf(response), 500);
  EXPECT_THAT(response, Not(HasSubstr("Set-Cookie")));
}

TEST_F(EngineRequestTest, TheBodyBudgetOfTheProcessIsKept) {
  engine.reset();
  options.limits.body_memory = 100'000;
  StartEngine();
  const auto first = Connect();
  first->Send("POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 1000000\r\n\r\n" + std::string(40'000, 'x'));
  ASSERT_TRUE(Eventually([&] { return engine->counters().body_memory > 0; }));

  const std::string response =
      Roundtrip("POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 1000000\r\n\r\n" + std::string(40'000, 'x'));

  EXPECT_EQ(StatusOf(response), 503);
  EXPECT_THAT(response, HasSubstr("Retry-After: 1\r\n"));
  first->Close();
  EXPECT_TRUE(Eventually([&] { return engine->counters().body_memory == 0; }));
}

TEST_F(EngineRequestTest, AnnouncedBytesCostNothing) {
  const auto client = Connect();
  client->Send("POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 4000000\r\n\r\nx");
  ASSERT_TRUE(Eventually([&] { return engine->counters().body_memory > 0; }));
  EXPECT_LE(engine->counters().body_memory, 64u * 1024);
}

TEST_F(EngineRequestTest, NoMoreConnectionsThanTheLimit) {
  engine.reset();
  options.limits.connections = 2;
  StartEngine();
  auto first = Connect();
  auto second = Connect();
  ASSERT_TRUE(Eventually([&] { return engine->counters().connections_open == 2; }));
  const auto third = Connect();
  third->Send(Post("{}"));
  first.reset();
  EXPECT_EQ(StatusOf(third->ReadMessage()), 200);
  EXPECT_LE(engine->counters().connections_open, 2u);
}

}  // namespace
}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
// What upstreams may do, and what the client sees of it.
#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "services/edge/http/engine_test_support.h"
#include "services/edge/http/upstream.h"

namespace sallyport::edge {
namespace {

using testing::BodyOf;
using ::testing::EndsWith;
using testing::EngineTest;
using testing::Eventually;
using ::testing::HasSubstr;
using testing::JsonResponse;
using ::testing::Not;
using testing::Post;
using testing::RawSocket;
using ::testing::SizeIs;
using ::testing::StartsWith;
using testing::StatusOf;

constexpr char kEventStreamHead[] =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

std::string Chunk(const std::string& data) {
  char size[16];
  snprintf(size, sizeof(size), "%zx\r\n", data.size());
  return size + data + "\r\n";
}

size_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  size_t total = 0;
  size_t resident = 0;
  statm >> total >> resident;
  return resident * 4096;
}

class EngineRelayTest : public EngineTest {
 protected:
  // One request on a new connection to an engine in front of `serve`.
  std::string Ask(testing::FakeUpstream::Serve serve) {
    ServeUpstream(std::move(serve));
    gateway.target.first_byte_timeout = patience;
    StartEngine();
    return Roundtrip("POST /mcp/a HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}");
  }
  std::chrono::milliseconds patience{300'000};
  ExchangeStats LastDone() {
    EXPECT_TRUE(Eventually([&] { return !gateway.done().empty(); }));
    return gateway.done().back();
  }
};

TEST_F(EngineRelayTest, ChunkedAnswersStayChunked) {
  const std::string response = Ask([this](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;x\r\n world\r\n0\r\nT: x\r\n\r\n");
  });
  EXPECT_THAT(response,
              EndsWith("Transfer-Encoding: chunked\r\nConnection: close\r\n\r\nb\r\nhello world\r\n0\r\n\r\n"));
}

TEST_F(EngineRelayTest, AnswersUntilCloseBecomeChunked) {
  const std::string response = Ask([this](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\n\r\nhello");
    socket.Close();
  });
  EXPECT_THAT(response, EndsWith("5\r\nhello\r\n0\r\n\r\n"));
  EXPECT_EQ(LastDone().outcome, Outcome::kComplete);
}

TEST_F(EngineRelayTest, Http10ClientsGetAnUnframedBody) {
  AnswerUpstream("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
  StartEngine();
  const std::string response = Roundtrip("GET / HTTP/1.0\r\nHost: gw\r\n\r\n");
  EXPECT_THAT(response, Not(HasSubstr("chunked")));
  EXPECT_EQ(BodyOf(response), "hello");
}

TEST_F(EngineRelayTest, BodilessStatusesHaveNoBody) {
  const std::string response = Ask([this](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send("HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n");
  });
  EXPECT_THAT(response, StartsWith("HTTP/1.1 202 Accepted\r\n"));
  EXPECT_THAT(response, HasSubstr("Content-Length: 0\r\n"));
}

TEST_F(EngineRelayTest, A204HasNoLength) {
  const std::string response = Ask([this](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send("HTTP/1.1 204 No Content\r\n\r\n");
  });
  EXPECT_THAT(response, StartsWith("HTTP/1.1 204 No Content\r\nDate: "));
  EXPECT_THAT(response, EndsWith(" GMT\r\nConnection: close\r\n\r\n"));
}

TEST_F(EngineRelayTest, AnAnswerWithoutADateGetsOneAndOneWithKeepsIt) {
  std::string date = "Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n";
  for (const std::string& sent : {std::string(), date}) {
    const std::string response = Ask([&](RawSocket& socket) {
      upstream->ReadRequest(socket);
      socket.Send(JsonResponse("{}", sent));
    });
    EXPECT_EQ(response.find("Date: "), response.rfind("Date: "));
    EXPECT_THAT(response, sent.empty() ? HasSubstr(" GMT\r\n") : HasSubstr(date));
    EXPECT_THAT(response, HasSubstr("Date: "));
    engine.reset();
  }
}

TEST_F(EngineRelayTest, ADiscardedAnswerIsNotWaitedFor) {
  ServeUpstream([this](RawSocket& socket) {
    const bool first = upstream->ReadRequest(socket).find("second") == std::string::npos;
    socket.Send(first ? "HTTP/1.1 401 No\r\nX-A: b\r\nContent-Length: 1000\r\n\r\nxx" : JsonResponse("at last"));
    socket.ReadToEnd();
  });
  gateway.on_upstream_head = [](Exchange&, const ResponseHead& head, RelayHead& relay) {
    AppendResponseFields(head, ResponseRules(), relay.fields);
    return head.status == 401 ? Verdict::kDiscard : Verdict::kRelay;
  };
  gateway.on_upstream_body = [this](Exchange& exchange, const ResponseHead& head, std::string_view body) {
    EXPECT_EQ(head.ValueOf("x-a"), "b");
    EXPECT_EQ(body, "");
    exchange.Forward(gateway.target, "second");
  };
  StartEngine();
  const std::string response =
      Roundtrip("POST /mcp/a HTTP/1.1\r\nHost: gw\r\nConnection: close\r\nContent-Length: 6\r\n\r\nsecon_");
  EXPECT_EQ(BodyOf(response), "at last");
  EXPECT_EQ(upstream->connections(), 2) << "the first connection was given up";
}

// Heads that go to the client without a body: of all framings, in one segment or two.
class HeadOnlyRelayTest : public EngineRelayTest {
 protected:
  std::string AskFor(Verdict verdict, const std::vector<std::string>& segments) {
    engine.reset();
    body.clear();
    gateway.on_upstream_head = [verdict](Exchange& exchange, const ResponseHead& head, RelayHead& relay) {
      exchange.SetCommonFields("X-Common: 1\r\n");
      AppendResponseFields(head, {.without_body = true}, relay.fields);
      return verdict;
    };
    gateway.on_upstream_body = [this](Exchange& exchange, const ResponseHead& head, std::string_view piece) {
      EXPECT_EQ(head.ValueOf("x-a"), "b") << "still there";
      body = std::string(piece);
      exchange.Respond(502, {{"X-Ours", "1"}}, "ours");
    };
    const std::string response = Ask([this, segments](RawSocket& socket) {
      upstream->ReadRequest(socket);
      for (const std::string& segment : segments) {
        socket.Send(segment);
        std::this_thread::sleep_for(std::chrono::milliseconds(segments.size() > 1 ? 50 : 0));
      }
      if (!absl::StrContains(segments[0], "Content-Length") && !absl::StrContains(segments[0], "chunked")) {
        return socket.Close();
      }
      socket.ReadToEnd();
    });
    idle = engine->counters().upstream_idle;
    return response;
  }
  static std::string Head(int status, const std::string& fields) {
    return "HTTP/1.1 " + std::to_string(status) + " X\r\nX-A: b\r\n" + fields + "\r\n";
  }
  std::string body;
  uint64_t idle = 0;
};

TEST_F(HeadOnlyRelayTest, ADroppedBodyDoesNotReachTheClientNorHoldItUp) {
  for (const std::vector<std::string>& segments : std::vector<std::vector<std::string>>{
           {Head(202, "Content-Length: 4\r\n") + "evil"},
           {Head(202, "Content-Length: 4\r\n"), "evil"},
           {Head(202, "Content-Length: 4\r\n")},
           {Head(202, "Content-Length: 0\r\n")},
           {Head(202, "Transfer-Encoding: chunked\r\n") + Chunk("evil") + "0\r\n\r\n"},
           {Head(202, "Transfer-Encoding: chunked\r\n") + Chunk("evil")},
           {Head(202, "Transfer-Encoding: chunked\r\n")},
           {Head(202, "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n")},
           {Head(202, "") + "evil"},
       }) {
    const std::string response = AskFor(Verdict::kRelayHead, segments);
    EXPECT_THAT(response, StartsWith("HTTP/1.1 202 Accepted\r\nDate: ")) << segments[0];
    EXPECT_THAT(response, HasSubstr("X-Common: 1\r\nX-A: b\r\nContent-Length: 0\r\n")) << segments[0];
    EXPECT_THAT(response, EndsWith("\r\n\r\n")) << segments[0];
    EXPECT_EQ(LastDone().outcome, Outcome::kComplete) << segments[0];
    EXPECT_EQ(LastDone().status, 202);
    EXPECT_EQ(LastDone().response_body_bytes, 0U);
  }
}

TEST_F(HeadOnlyRelayTest, ABodyThatMustNotBeThereIsDecidedOnAtItsFirstByte) {
  for (const std::vector<std::string>& segments : std::vector<std::vector<std::string>>{
           {Head(200, "Content-Length: 4\r\n") + "evil"},
           {Head(200, "Content-Length: 400\r\n"), "evil"},
           {Head(200, "Transfer-Encoding: chunked\r\n") + Chunk("evil") + "0\r\n\r\n"},
           {Head(200, "Transfer-Encoding: chunked\r\n"), Chunk("evil")},
           {Head(200, "") + "evil"},
           {Head(200, ""), "evil"},
       }) {
    const std::string response = AskFor(Verdict::kRelayIfEmpty, segments);
    EXPECT_EQ(StatusOf(response), 502) << segments[0];
    EXPECT_EQ(BodyOf(response), "ours");
    EXPECT_THAT(response, HasSubstr("X-Common: 1\r\nX-Ours: 1\r\n"));
    EXPECT_THAT(response, Not(HasSubstr("X-A")));
    EXPECT_EQ(body, "evil");
    EXPECT_EQ(LastDone().status, 502);
    EXPECT_EQ(LastDone().outcome, Outcome::kComplete);
  }
}

TEST_F(HeadOnlyRelayTest, AnEmptyBodyIsRelayedOnceItIsKnownToBeEmpty) {
  for (const std::vector<std::string>& segments : std::vector<std::vector<std::string>>{
           {Head(200, "Content-Length: 0\r\n")},
           {Head(200, "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n"},
           {Head(200, "Transfer-Encoding: chunked\r\n"), "0\r\n\r\n"},
           {Head(200, "")},
       }) {
    const std::string response = AskFor(Verdict::kRelayIfEmpty, segments);
    EXPECT_THAT(response, StartsWith("HTTP/1.1 200 OK\r\n")) << segments[0];
    EXPECT_THAT(response, HasSubstr("X-A: b\r\nContent-Length: 0\r\n")) << segments[0];
    EXPECT_EQ(LastDone().outcome, Outcome::kComplete);
    EXPECT_EQ(idle, absl::StrContains(segments[0], "\r\nContent-Length") || absl::StrContains(segments[0], "chunked")
                        ? 1U
                        : 0U)
        << "the connection is used again";
  }
}

TEST_F(HeadOnlyRelayTest, AnUpstreamThatBreaksBeforeItIsKnownIs502) {
  patience = std::chrono::milliseconds(200);
  for (const std::string& head :
       {Head(200, "Transfer-Encoding: chunked\r\n") + "zz\r\n", Head(200, "Transfer-Encoding: chunked\r\n")}) {
    const std::string response = AskFor(Verdict::kRelayIfEmpty, {head});
    EXPECT_EQ(StatusOf(response), 502) << head;
    EXPECT_THAT(response, Not(HasSubstr("X-A"))) << head;
  }
}

TEST_F(EngineRelayTest, OfACollectedEventStreamTheFirstEventIsEnough) {
  gateway.on_upstream_head = [](Exchange&, const ResponseHead&, RelayHead&) { return Verdict::kCollect; };
  gateway.on_upstream_body = [](Exchange& exchange, const ResponseHead& head, std::string_view body) {
    EXPECT_TRUE(head.event_stream);
    exchange.Respond(200, {}, body);
  };
  const std::string response = Ask([this](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send(kEventStreamHead + Chunk(": hello\n\n") + Chunk("event: message\nda"));
    socket.Send(Chunk("ta: 1\n\n"));
    socket.ReadToEnd();
  });
  EXPECT_EQ(BodyOf(response), ": hello\n\nevent: message\ndata: 1\n\n");
}

TEST_F(EngineRelayTest, ASilentBodyIsGivenUp) {
  patience = std::chrono::seconds(2);  // Also for the head, which must arrive.
  const std::string response = Ask([this](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    socket.ReadToEnd();
  });
  EXPECT_THAT(response, EndsWith("\r\n\r\nabc"));
  EXPECT_EQ(LastDone().outcome, Outcome::kUpstreamFailure);
}

TEST_F(EngineRelayTest, ASilentCollectedBodyIsGivenUpToo) {
  patience = std::chrono::seconds(2);
  gateway.on_upstream_head = [](Exchange&, const ResponseHead&, RelayHead&) { return Verdict::kCollect; };
  const std::string response = Ask([this](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send(std::string(kEventStreamHead) + Chunk(": nothing yet\n\n"));
    socket.ReadToEnd();
  });
  EXPECT_EQ(StatusOf(response), 502);
}

TEST_F(EngineRelayTest, AnEventStreamMayBeSilentForLonger) {
  patience = std::chrono::seconds(2);
  const std::string response = Ask([this](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send(kEventStreamHead + Chunk("data: 1\n\n"));
    std::this_thread::sleep_for(patience + std::chrono::seconds(1));
    socket.Send(Chunk("data: 2\n\n") + "0\r\n\r\n");
  });
  EXPECT_THAT(response, HasSubstr("data: 2"));
  EXPECT_EQ(LastDone().outcome, Outcome::kComplete);
}

TEST_F(EngineRelayTest, AResetInMidBodyIsVisible) {
  std::atomic<bool> seen{false};
  ServeUpstream([&](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    EXPECT_TRUE(Eventually([&] { return seen.load(); }));
    socket.Reset();
  });
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  EXPECT_THAT(client->ReadUntil("hello"), EndsWith("Content-Length: 10\r\n\r\nhello"));
  seen = true;
  EXPECT_EQ(client->ReadToEnd(), "");
  EXPECT_TRUE(client->ended());
  EXPECT_EQ(LastDone().outcome, Outcome::kUpstreamFailure);
}

TEST_F(EngineRelayTest, AnEarlyEndInMidBodyIsVisible) {
  const std::string response = Ask([this](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    socket.Close();
  });
  EXPECT_THAT(response, EndsWith("Content-Length: 10\r\nConnection: close\r\n\r\nhello"));
  EXPECT_EQ(LastDone().outcome, Outcome::kUpstreamFailure);
}

TEST_F(EngineRelayTest, ABrokenChunkIsNotEndedCleanly) {
  for (const char* broken : {"5\r\nhel", "5\r\nhello\r\n", "5\r\nhelloXX0\r\n\r\n", "zz\r\n"}) {
    const std::string response = Ask([this, broken](RawSocket& socket) {
      upstream->ReadRequest(socket);
      socket.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n");
      socket.Send(broken);
      socket.Close();
    });
    EXPECT_EQ(StatusOf(response), 200) << broken;
    EXPECT_THAT(response, Not(HasSubstr("0\r\n\r\n"))) << broken;
    engine.reset();
  }
}

TEST_F(EngineRelayTest, ABodyThatIsBrokenFromTheStartIs502) {
  EXPECT_EQ(StatusOf(Ask([this](RawSocket& socket) {
              upstream->ReadRequest(socket);
              socket.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
            })),
            502);
}

TEST_F(EngineRelayTest, AnHttp10ClientSeesTruncationAsReset) {
  ServeUpstream([this](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    socket.Close();
  });
  StartEngine();
  const auto client = Connect();
  client->Send("GET / HTTP/1.0\r\nHost: gw\r\n\r\n");
  client->ReadToEnd();
  EXPECT_TRUE(client->reset());
}

class BadUpstreamTest : public EngineRelayTest,
                        public ::testing::WithParamInterface<std::pair<const char*, std::string>> {};

TEST_P(BadUpstreamTest, BecomesA502) {
  const std::string response = Ask([this](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send(GetParam().second);
    socket.ReadToEnd();
  });
  EXPECT_EQ(StatusOf(response), 502) << response;
  EXPECT_EQ(engine->counters().upstream_idle, 0u);
}

INSTANTIATE_TEST_SUITE_P(
    All, BadUpstreamTest,
    ::testing::Values(
        std::pair{"H28_both_framings",
                  std::string("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")},
        std::pair{"H28_bare_lf", std::string("HTTP/1.1 200 OK\nContent-Length: 0\n\n")},
        std::pair{"H28_interim_flood",
                  [] {
                    std::string flood;
                    for (int i = 0; i < 9; ++i) {
                      flood += "HTTP/1.1 100 Continue\r\n\r\n";
                    }
                    return flood + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                  }()},
        std::pair{"H28_huge_head", "HTTP/1.1 200 OK\r\nX: " + std::string(200 * 1024, 'a') + "\r\n\r\n"},
        std::pair{"Switching_protocols", std::string("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n")},
        std::pair{"Garbage", std::string("\x16\x03\x01 hello\r\n\r\n")}),
    [](const auto& tested) { return std::string(tested.param.first); });

TEST_F(EngineRelayTest, AnAnswerlessCloseIs502) {
  EXPECT_EQ(StatusOf(Ask([this](RawSocket& socket) {
              upstream->ReadRequest(socket);
              socket.Close();
            })),
            502);
}

TEST_F(EngineRelayTest, BytesAfterTheBodySpoilTheConnection) {
  const std::string response = Ask([this](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil");
    socket.ReadToEnd();
  });
  EXPECT_EQ(BodyOf(response), "{}");
  EXPECT_EQ(engine->counters().upstream_idle, 0u);
}

TEST_F(EngineRelayTest, AnEarlySuccessIs502AnEarlyRefusalIsRelayed) {
  ServeUpstream([this](RawSocket& socket) {
    socket.ReadUntil("\r\n\r\n");  // The body stays in the way.
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    EXPECT_TRUE(Eventually([&] { return gateway.done().size() > 0; }));
  });
  gateway.body_limit = 64 << 20;
  StartEngine();
  const std::string body(20 << 20, 'x');
  {
    const auto client = Connect();
    client->Send(Post(body));
    EXPECT_EQ(StatusOf(client->ReadMessage()), 502);
  }
  engine.reset();
  ServeUpstream([this](RawSocket& socket) {
    socket.ReadUntil("\r\n\r\n");
    socket.Send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno");
    EXPECT_TRUE(Eventually([&] { return gateway.done().size() > 1; }));
  });
  StartEngine();
  const auto client = Connect();
  client->Send(Post(body));
  EXPECT_EQ(StatusOf(client->ReadMessage()), 413);
  EXPECT_EQ(engine->counters().upstream_idle, 0u);
}

TEST_F(EngineRelayTest, NobodyListensIs502AndARefusedAddressToo) {
  ServeUpstream([](RawSocket&) {});
  upstream.reset();  // The port is free now.
  StartEngine();
  EXPECT_THAT(BodyOf(Roundtrip("GET / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n")),
              HasSubstr("upstream_unreachable"));
  gateway.allow = false;
  EXPECT_THAT(BodyOf(Roundtrip("GET / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n")),
              HasSubstr("upstream_address_refused"));
}

TEST_F(EngineRelayTest, NamesAreResolvedAndEachAddressIsAskedFor) {
  AnswerUpstream(JsonResponse("{}"));
  gateway.target.host = "localhost";
  gateway.target.pool_key = "named";
  StartEngine();
  EXPECT_EQ(StatusOf(Roundtrip("GET / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n")), 200);
  gateway.target.host = "no-such-name.invalid";
  gateway.target.pool_key = "unnamed";
  EXPECT_THAT(BodyOf(Roundtrip("GET / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n")),
              HasSubstr("upstream_unresolved"));
}

TEST_F(EngineRelayTest, ASilentUpstreamIs504) {
  ServeUpstream([this](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.ReadToEnd();
  });
  gateway.target.first_byte_timeout = std::chrono::milliseconds(200);
  StartEngine();
  EXPECT_EQ(StatusOf(Roundtrip("GET / HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n")), 504);
}

TEST_F(EngineRelayTest, AConnectionClosedWhileIdleIsNotUsed) {
  // Shared: the second connection looks at it when this function may have returned.
  const auto close_now = std::make_shared<std::atomic<bool>>(false);
  ServeUpstream([this, close_now](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send(JsonResponse("{}"));
    EXPECT_TRUE(Eventually([&] { return close_now->load(); }));
    socket.Close();
  });
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  EXPECT_EQ(StatusOf(client->ReadMessage()), 200);
  ASSERT_TRUE(Eventually([&] { return engine->counters().upstream_idle == 1; }));
  *close_now = true;
  ASSERT_TRUE(Eventually([&] { return engine->counters().upstream_idle == 0; }));
  client->Send(Post("{}"));
  EXPECT_EQ(StatusOf(client->ReadMessage()), 200);
  EXPECT_EQ(upstream->connections(), 2);
}

TEST_F(EngineRelayTest, AConnectionAboutToCloseIsNotKept) {
  AnswerUpstream(JsonResponse("{}", "Keep-Alive: timeout=1\r\n"));
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  client->ReadMessage();
  EXPECT_EQ(engine->counters().upstream_idle, 0u);  // Half of it, in whole seconds, is nothing.
}

TEST(TimeKeptIdle, IsHalfOfWhatTheServerAnnouncesAtMost) {
  EXPECT_EQ(TimeKeptIdle(60'000, 0), 60'000);
  EXPECT_EQ(TimeKeptIdle(60'000, 1), 0);
  EXPECT_EQ(TimeKeptIdle(60'000, 5), 2'000);
  EXPECT_EQ(TimeKeptIdle(60'000, 75), 37'000);
  EXPECT_EQ(TimeKeptIdle(60'000, 600), 60'000);
  EXPECT_EQ(TimeKeptIdle(60'000, 4'294'967'295), 60'000);
}

TEST_F(EngineRelayTest, IdleConnectionsCloseInTime) {
  AnswerUpstream(JsonResponse("{}"));
  options.limits.upstream_idle = std::chrono::milliseconds(200);
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  client->ReadMessage();
  EXPECT_TRUE(
      Eventually([&] { return engine->counters().upstream_connects == 1 && engine->counters().upstream_idle == 0; }));
}

TEST_F(EngineRelayTest, PoolsAreKeptApartByKey) {
  AnswerUpstream(JsonResponse("{}"));
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  client->ReadMessage();
  gateway.target.pool_key = "another server";
  client->Send(Post("{}"));
  client->ReadMessage();
  EXPECT_EQ(upstream->connections(), 2);
}

TEST_F(EngineRelayTest, AClientThatLeavesClosesTheUpstreamRequest) {
  std::atomic<bool> closed{false};
  ServeUpstream([&](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.ReadToEnd();
    closed = socket.ended();
  });
  StartEngine();
  auto client = Connect();
  client->Send(Post("{}"));
  ASSERT_TRUE(Eventually([&] { return upstream->requests().size() == 1; }));
  client.reset();
  EXPECT_TRUE(Eventually([&] { return closed.load(); }));
  EXPECT_EQ(LastDone().outcome, Outcome::kClientGone);
}

TEST_F(EngineRelayTest, AClientThatResetsBeforeItsBodyIsWholeReachesNoUpstream) {
  AnswerUpstream(JsonResponse("{}"));
  StartEngine();
  auto client = Connect();
  client->Send("POST / HTTP/1.1\r\nHost: gw\r\nContent-Length: 100\r\n\r\nhalf");
  ASSERT_TRUE(Eventually([&] { return engine->counters().requests == 1; }));
  client->Reset();
  EXPECT_EQ(LastDone().outcome, Outcome::kClientGone);
  EXPECT_EQ(upstream->connections(), 0);
}

TEST_F(EngineRelayTest, EventsArriveOneByOneAtOnce) {
  std::atomic<int> sent{0};
  std::atomic<int> seen{0};
  ServeUpstream([&](RawSocket& socket) {
    while (!upstream->ReadRequest(socket).empty()) {
      socket.Send(kEventStreamHead);
      for (; sent < 5; ++sent) {
        // The next one leaves only when the client has the last: nothing may be held back.
        ASSERT_TRUE(Eventually([&] { return seen == sent; })) << seen << " of " << sent;
        socket.Send(Chunk("data: " + std::to_string(sent) + "\n\n"));
      }
      socket.Send("0\r\n\r\n");
    }
  });
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  EXPECT_THAT(client->ReadUntil("\r\n\r\n"), HasSubstr("X-Accel-Buffering: no\r\n"));
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(client->ReadUntil("\n\n\r\n"), "9\r\ndata: " + std::to_string(i) + "\n\n\r\n");
    ++seen;
  }
  EXPECT_EQ(client->ReadUntil("\r\n\r\n"), "0\r\n\r\n");
  client->Send(Post("{}"));  // The connection goes on.
  EXPECT_THAT(client->ReadUntil("\r\n\r\n"), StartsWith("HTTP/1.1 200 OK"));
  // To its end: the upstream's thread still looks at the counters until then.
  EXPECT_EQ(client->ReadUntil("\r\n\r\n"), "0\r\n\r\n");
}

TEST_F(EngineRelayTest, TheHeadOfASilentStreamArrivesAtOnceAndHeartbeatsFollow) {
  ServeUpstream([&](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send(kEventStreamHead);
    socket.ReadToEnd();
  });
  // No heartbeat comes while the test waits: the head cannot have waited for one.
  options.limits.heartbeat = 10 * testing::kPatience;
  StartEngine();
  auto client = Connect();
  client->Send(Post("{}"));
  EXPECT_THAT(client->ReadUntil("\r\n\r\n"), HasSubstr("text/event-stream"));
  client.reset();
  engine.reset();

  options.limits.heartbeat = std::chrono::milliseconds(200);
  StartEngine();
  client = Connect();
  client->Send(Post("{}"));
  EXPECT_THAT(client->ReadUntil("\r\n\r\n"), HasSubstr("text/event-stream"));
  EXPECT_EQ(client->ReadUntil("\n\n\r\n"), "d\r\n: keepalive\n\n\r\n");
  EXPECT_EQ(client->ReadUntil("\n\n\r\n"), "d\r\n: keepalive\n\n\r\n");
}

TEST_F(EngineRelayTest, NoHeartbeatWithinALineNorInAnEncodedStream) {
  options.limits.heartbeat = std::chrono::milliseconds(100);
  ServeUpstream([&](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send(kEventStreamHead + Chunk("data: half"));
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    socket.Send(Chunk(" done\n\n") + "0\r\n\r\n");
  });
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  EXPECT_THAT(client->ReadMessage(), Not(HasSubstr("keepalive")));
}

TEST_F(EngineRelayTest, TenMegabytesPassInOrder) {
  std::string body(10 << 20, '\0');
  for (size_t i = 0; i < body.size(); ++i) {
    body[i] = static_cast<char>('a' + i * 7 % 26);
  }
  const std::string response = Ask([&](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send(JsonResponse(body));
  });
  EXPECT_TRUE(BodyOf(response) == body);
}

TEST_F(EngineRelayTest, AClientThatDoesNotReadHoldsTheUpstreamBack) {
  constexpr size_t kAll = 200 << 20;
  std::atomic<size_t> sent{0};
  ServeUpstream([&](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(kAll) + "\r\n\r\n");
    const std::string piece(64 * 1024, 'x');
    while (sent < kAll && socket.Send(piece)) {
      sent += piece.size();
    }
  });
  StartEngine();
  const size_t before = ResidentBytes();
  auto client = Connect();
  client->Send(Post("{}"));
  ASSERT_TRUE(Eventually([&] { return sent > 0; }));
  size_t last = 0;
  ASSERT_TRUE(Eventually([&] {  // Until the kernel's buffers are full and nothing moves any more.
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    return std::exchange(last, sent.load()) == sent;
  }));
  EXPECT_LT(sent, kAll / 2);
  EXPECT_LT(ResidentBytes() - before, 8u << 20);
  client.reset();
}

TEST_F(EngineRelayTest, AClientThatStopsReadingIsCut) {
  options.limits.write_stall = std::chrono::milliseconds(300);
  std::atomic<bool> ended{false};
  ServeUpstream([&](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
    while (socket.Send(std::string(64 * 1024, 'x'))) {
    }
    ended = true;
  });
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  EXPECT_TRUE(Eventually([&] { return ended.load(); }));
  EXPECT_EQ(LastDone().outcome, Outcome::kClientGone);
}

}  // namespace
}  // namespace sallyport::edge

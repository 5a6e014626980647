// SPDX-License-Identifier: Apache-2.0
// What the gateway can do with an exchange.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/edge/http/engine_test_support.h"

namespace sallyport::edge {
namespace {

using ::testing::AllOf;
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

class EngineExchangeTest : public EngineTest {};

TEST_F(EngineExchangeTest, ADeferredAnswerComesFromAnotherThread) {
  std::thread answerer;
  gateway.on_request = [&](Exchange& exchange) {
    answerer = std::thread(
        [ref = exchange.Defer()] { ref.Post([](Exchange& later) { later.Respond(200, {}, later.body()); }); });
  };
  StartEngine();
  const auto client = Connect();
  client->Send(Post("hello"));
  EXPECT_EQ(BodyOf(client->ReadMessage()), "hello");
  answerer.join();
}

TEST_F(EngineExchangeTest, ATaskForAClientThatLeftIsNotRun) {
  ExchangeRef ref;
  std::atomic<bool> deferred{false};
  std::atomic<bool> ran{false};
  gateway.on_request = [&](Exchange& exchange) {
    ref = exchange.Defer();
    deferred = true;
  };
  StartEngine();
  auto client = Connect();
  client->Send(Post("hello"));
  ASSERT_TRUE(Eventually([&] { return deferred.load(); }));
  client.reset();
  ASSERT_TRUE(Eventually([&] { return gateway.done().size() == 1; }));
  EXPECT_EQ(gateway.done()[0].outcome, Outcome::kClientGone);
  ref.Post([&](Exchange&) { ran = true; });
  engine.reset();
  ref.Post([&](Exchange&) { ran = true; });
  EXPECT_FALSE(ran);
}

TEST_F(EngineExchangeTest, AClientThatLeavesIsNoticedHoweverMuchItSent) {
  std::atomic<int> abandoned{0};
  ServeUpstream([&](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.ReadToEnd();
    abandoned += socket.ended() ? 1 : 0;
  });
  StartEngine();
  const std::string large = Post(std::string(100'000, 'x'));
  const std::string next(64'000, 'x');
  for (const std::string& burst : {large, Post("{}") + next, large + next}) {
    const size_t before = gateway.done().size();
    const auto client = Connect();
    client->Send(burst);
    ASSERT_TRUE(Eventually([&] { return upstream->requests().size() == before + 1; }));
    client->Close();
    EXPECT_TRUE(Eventually([&] { return abandoned == static_cast<int>(before) + 1; })) << burst.size();
    ASSERT_TRUE(Eventually([&] { return gateway.done().size() == before + 1; })) << burst.size();
    EXPECT_EQ(gateway.done().back().outcome, Outcome::kClientGone);
  }
}

TEST_F(EngineExchangeTest, WhatFollowsALargeBodyIsTheNextRequest) {
  AnswerUpstream(JsonResponse("{}"));
  StartEngine();
  const auto client = Connect();
  const std::string large(100'000, 'x');
  client->Send(Post(large) + Post("{\"a\":1}") + Post(large));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(StatusOf(client->ReadMessage()), 200);
  }
  ASSERT_THAT(upstream->requests(), SizeIs(3));
  EXPECT_EQ(BodyOf(upstream->requests()[0]), large);
  EXPECT_EQ(BodyOf(upstream->requests()[1]), "{\"a\":1}");
  EXPECT_EQ(BodyOf(upstream->requests()[2]), large);
}

TEST_F(EngineExchangeTest, ARefOfAnEarlierRequestDoesNotReachTheNext) {
  std::vector<ExchangeRef> refs;
  gateway.on_request = [&](Exchange& exchange) {
    refs.push_back(exchange.Ref());
    exchange.Respond(200, {}, std::to_string(refs.size()));
  };
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  client->ReadMessage();
  refs[0].Post([](Exchange& exchange) { exchange.Abort(); });
  client->Send(Post("{}"));
  EXPECT_EQ(BodyOf(client->ReadMessage()), "2");
}

TEST_F(EngineExchangeTest, ACollectedAnswerCanBeReplacedOrRetried) {
  ServeUpstream([this](RawSocket& socket) {
    std::string request;
    while (!(request = upstream->ReadRequest(socket)).empty()) {
      if (request.find("Authorization: new") == std::string::npos) {
        socket.Send("HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer\r\nContent-Length: 3\r\n\r\nold");
      } else {
        socket.Send(JsonResponse("fresh"));
      }
    }
  });
  gateway.on_upstream_head = [](Exchange&, const ResponseHead& head, RelayHead& relay) {
    if (head.status == 401) {
      return Verdict::kCollect;
    }
    AppendResponseFields(head, ResponseRules(), relay.fields);
    return Verdict::kRelay;
  };
  std::string collected;
  gateway.on_upstream_body = [&](Exchange& exchange, const ResponseHead& head, std::string_view body) {
    collected = std::string(body) + std::string(head.ValueOf("www-authenticate"));
    std::string& out = exchange.upstream_head();
    out.clear();
    AppendRequestLine("POST", gateway.target, "", "", "", out);
    EXPECT_TRUE(AppendField("Authorization", "", "new", out));
    FinishRequestHead("POST", exchange.body().size(), out);
    exchange.Forward(gateway.target);
  };
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{\"a\":1}"));
  EXPECT_EQ(BodyOf(client->ReadMessage()), "fresh");
  EXPECT_EQ(collected, "oldBearer");
  ASSERT_THAT(upstream->requests(), SizeIs(2));
  EXPECT_EQ(BodyOf(upstream->requests()[1]), "{\"a\":1}");
  ASSERT_TRUE(Eventually([&] { return gateway.done().size() == 1; }));
  EXPECT_EQ(gateway.done()[0].forwards, 2);
  EXPECT_EQ(upstream->connections(), 1);
}

TEST_F(EngineExchangeTest, ACollectedBodyHasALimit) {
  AnswerUpstream(JsonResponse(std::string(2 << 20, 'x')));
  gateway.on_upstream_head = [](Exchange&, const ResponseHead&, RelayHead&) { return Verdict::kCollect; };
  gateway.on_upstream_body = [](Exchange&, const ResponseHead&, std::string_view) { FAIL(); };
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  EXPECT_EQ(StatusOf(client->ReadMessage()), 502);
}

TEST_F(EngineExchangeTest, TheGatewayCanAnswerInsteadOfRelaying) {
  AnswerUpstream("HTTP/1.1 500 X\r\nContent-Length: 6\r\n\r\nsecret");
  gateway.on_upstream_head = [](Exchange& exchange, const ResponseHead&, RelayHead&) {
    exchange.Respond(502, {}, "ours");
    return Verdict::kRelay;
  };
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  EXPECT_EQ(BodyOf(client->ReadMessage()), "ours");
  client->Send(Post("{}"));
  EXPECT_EQ(BodyOf(client->ReadMessage()), "ours");
}

TEST_F(EngineExchangeTest, BytesCutFromTheBodyDoNotReachTheUpstream) {
  AnswerUpstream(JsonResponse("{}"));
  gateway.on_request = [&](Exchange& exchange) {
    exchange.CutBody(3, 4);
    gateway.ForwardPlain(exchange);
  };
  StartEngine();
  const auto client = Connect();
  client->Send(Post("abcDEFGhij"));
  client->ReadMessage();
  EXPECT_THAT(upstream->requests()[0], EndsWith("Content-Length: 6\r\n\r\nabchij"));
}

TEST_F(EngineExchangeTest, AHeldStreamBeatsAndEnds) {
  options.limits.heartbeat = std::chrono::milliseconds(150);
  ExchangeRef ref;
  gateway.on_request = [&](Exchange& exchange) {
    ref = exchange.Defer();
    exchange.StartStream({{"X-A", "b"}});
    exchange.WriteEvent("data: 1\n\n");
  };
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  EXPECT_THAT(client->ReadUntil("\r\n\r\n"), HasSubstr("X-A: b\r\n"));
  EXPECT_EQ(client->ReadUntil("\n\n\r\n"), "9\r\ndata: 1\n\n\r\n");
  EXPECT_EQ(client->ReadUntil("\n\n\r\n"), "d\r\n: keepalive\n\n\r\n");
  ref.Post([](Exchange& exchange) {
    exchange.WriteEvent("data: 2\n\n");
    exchange.EndStream();
  });
  EXPECT_THAT(client->ReadUntil("0\r\n\r\n"), EndsWith("9\r\ndata: 2\n\n\r\n0\r\n\r\n"));
  ASSERT_TRUE(Eventually([&] { return gateway.done().size() == 1; }));
  EXPECT_EQ(gateway.done()[0].outcome, Outcome::kComplete);
}

TEST_F(EngineExchangeTest, AForwardContinuesAHeldStream) {
  const std::string first = JsonResponse("{\"a\":\n1}");
  const std::string second =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9\r\n\r\ndata: x\n\n";
  ServeUpstream([this, first, second, asked = std::make_shared<std::atomic<int>>(0)](RawSocket& socket) {
    while (!upstream->ReadRequest(socket).empty() && socket.Send((*asked)++ == 0 ? first : second)) {
    }
  });
  gateway.on_request = [&](Exchange& exchange) {
    exchange.StartStream({});
    gateway.ForwardPlain(exchange);
  };
  StartEngine();
  {
    const auto client = Connect();
    client->Send(Post("{}"));
    EXPECT_THAT(client->ReadMessage(), EndsWith("event: message\ndata: {\"a\": 1}\n\n\r\n0\r\n\r\n"));
  }
  const auto client = Connect();
  client->Send(Post("{}"));
  EXPECT_THAT(client->ReadMessage(), EndsWith("\r\n\r\n9\r\ndata: x\n\n\r\n0\r\n\r\n"));
}

TEST_F(EngineExchangeTest, AHeldStreamEndsWhereNoBodyFollows) {
  ServeUpstream([this, asked = std::make_shared<std::atomic<int>>(0)](RawSocket& socket) {
    while (!upstream->ReadRequest(socket).empty()) {
      const bool empty = (*asked)++ == 0;
      socket.Send(std::string("HTTP/1.1 202 X\r\nContent-Length: ") + (empty ? "0\r\n\r\n" : "4\r\n\r\nevil"));
    }
  });
  std::atomic<int> verdict{static_cast<int>(Verdict::kRelayHead)};
  gateway.on_request = [&](Exchange& exchange) {
    exchange.StartStream({});
    gateway.ForwardPlain(exchange);
  };
  gateway.on_upstream_head = [&](Exchange&, const ResponseHead&, RelayHead&) {
    return static_cast<Verdict>(verdict.load());
  };
  gateway.on_upstream_body = [](Exchange& exchange, const ResponseHead&, std::string_view) {
    exchange.WriteEvent("data: ours\n\n");
    exchange.EndStream();
  };
  StartEngine();
  const auto ask = [&](Verdict by) {
    verdict = static_cast<int>(by);
    const auto client = Connect();
    client->Send(Post("{}"));
    return client->ReadMessage();
  };
  EXPECT_THAT(ask(Verdict::kRelayIfEmpty), EndsWith("\r\n\r\n0\r\n\r\n"));
  EXPECT_THAT(ask(Verdict::kRelayHead), EndsWith("\r\n\r\n0\r\n\r\n"));
  EXPECT_THAT(ask(Verdict::kRelayIfEmpty), EndsWith("data: ours\n\n\r\n0\r\n\r\n"));
}

TEST_F(EngineExchangeTest, CommonFieldsAreOnEveryAnswerOfTheirExchangeOnly) {
  AnswerUpstream(JsonResponse("{}"));
  int requests = 0;
  gateway.on_head = [&](Exchange& exchange) -> uint64_t {
    if (++requests < 5) {
      exchange.SetCommonFields("X-Common: 1\r\n");
    }
    return 100;
  };
  gateway.on_request = [&](Exchange& exchange) {
    if (requests == 1) {
      return exchange.Respond(200, {}, "{}");
    }
    if (requests == 2) {
      exchange.StartStream({});
      return exchange.EndStream();
    }
    gateway.ForwardPlain(exchange);
  };
  StartEngine();
  const auto client = Connect();
  for (int i = 1; i <= 3; ++i) {
    client->Send(Post("{}"));
    EXPECT_THAT(client->ReadMessage(), HasSubstr("X-Common: 1\r\n")) << i;
  }
  const auto too_large = Connect();
  too_large->Send(Post(std::string(200, 'x')));
  EXPECT_THAT(too_large->ReadMessage(), AllOf(StartsWith("HTTP/1.1 413"), HasSubstr("X-Common: 1\r\n")));
  client->Send(Post("{}"));
  EXPECT_THAT(client->ReadMessage(), Not(HasSubstr("X-Common")));
  client->Send("nonsense\r\n\r\n");
  const std::string rejected = client->ReadMessage();
  EXPECT_THAT(rejected, StartsWith("HTTP/1.1 400"));
  EXPECT_THAT(rejected, HasSubstr("Content-Security-Policy: sandbox;")) << "nobody knows what it was for";
}

TEST_F(EngineExchangeTest, AbortCutsAStream) {
  ExchangeRef ref;
  gateway.on_request = [&](Exchange& exchange) {
    ref = exchange.Ref();
    exchange.StartStream({});
  };
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  client->ReadUntil("\r\n\r\n");
  ref.Post([](Exchange& exchange) { exchange.Abort(); });
  EXPECT_EQ(client->ReadToEnd(), "");
  EXPECT_TRUE(client->ended());
  ASSERT_TRUE(Eventually([&] { return gateway.done().size() == 1; }));
  EXPECT_EQ(gateway.done()[0].outcome, Outcome::kAborted);
}

TEST_F(EngineExchangeTest, AReaderTooSlowForOurEventsIsCut) {
  options.limits.stream_backlog = 100'000;
  ExchangeRef ref;
  std::atomic<bool> started{false};
  gateway.on_request = [&](Exchange& exchange) {
    exchange.StartStream({});
    ref = exchange.Ref();
    started = true;
  };
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  ASSERT_TRUE(Eventually([&] { return started.load(); }));
  ASSERT_TRUE(Eventually([&] {
    ref.Post([](Exchange& exchange) { exchange.WriteEvent(std::string(60'000, 'x') + "\n\n"); });
    return !gateway.done().empty();
  }));
  EXPECT_EQ(gateway.done()[0].outcome, Outcome::kClientGone);
}

TEST_F(EngineExchangeTest, AStreamForAClientThatIsGoneDoesNotOpen) {
  std::atomic<bool> arrived{false};
  std::atomic<bool> gone{false};
  std::atomic<int> opened{-1};
  gateway.on_request = [&](Exchange& exchange) {
    arrived = true;
    EXPECT_TRUE(Eventually([&] { return gone.load(); }));
    opened = exchange.StartStream({}) ? 1 : 0;
  };
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  ASSERT_TRUE(Eventually([&] { return arrived.load(); }));
  client->Reset();
  gone = true;
  ASSERT_TRUE(Eventually([&] { return opened >= 0; }));
  EXPECT_EQ(opened, 0);
  ASSERT_THAT(gateway.done(), SizeIs(1)) << "ended before StartStream returned";
  EXPECT_EQ(gateway.done()[0].outcome, Outcome::kClientGone);
}

TEST_F(EngineExchangeTest, AnExchangeIsWokenOnceAndNotAfterItsEnd) {
  std::atomic<int> wrong{0};
  int requests = 0;
  gateway.on_request = [&](Exchange& exchange) {
    exchange.Wake(std::chrono::milliseconds(100), [&](Exchange&) { ++wrong; });
    if (++requests == 1) {
      return exchange.Respond(200, {}, "first");
    }
    exchange.Wake(std::chrono::milliseconds(400), [](Exchange& live) { live.Respond(200, {}, "woken"); });
  };
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  EXPECT_EQ(BodyOf(client->ReadMessage()), "first");
  client->Send(Post("{}"));
  EXPECT_EQ(BodyOf(client->ReadMessage()), "woken");
  EXPECT_EQ(wrong, 0) << "of the exchange before, and one that was replaced";
}

TEST_F(EngineExchangeTest, WorkersRunTasksLaterAndFromElsewhere) {
  options.threads = 2;
  StartEngine();
  std::atomic<int> ran{0};
  for (size_t i = 0; i < engine->workers(); ++i) {
    engine->worker(i).Post([&, i] {
      engine->worker(i).After(std::chrono::milliseconds(50), [&] { ++ran; });
      ++ran;
    });
  }
  EXPECT_TRUE(Eventually([&] { return ran == 4; }));
}

TEST_F(EngineExchangeTest, StateIsMadeOncePerConnectionAndReused) {
  struct State : ExchangeState {
    int requests = 0;
  };
  class Counting : public testing::TestGateway {
   public:
    std::unique_ptr<ExchangeState> NewState(Worker&) override { return std::make_unique<State>(); }
  };
  Counting counting;
  counting.on_request = [](Exchange& exchange) {
    exchange.Respond(200, {}, std::to_string(++static_cast<State*>(exchange.state())->requests));
  };
  auto started = Engine::Start(options, counting);
  ASSERT_TRUE(started.ok());
  const auto client = RawSocket::Connect((*started)->port());
  client->Send(Post("{}") + Post("{}"));
  EXPECT_EQ(BodyOf(client->ReadMessage()), "1");
  EXPECT_EQ(BodyOf(client->ReadMessage()), "2");
  (*started)->Shutdown(std::chrono::milliseconds(0));
}

TEST_F(EngineExchangeTest, ShutdownLetsExchangesEndAndClosesIdleOnes) {
  std::atomic<bool> arrived{false};
  std::atomic<bool> go{false};
  ServeUpstream([&](RawSocket& socket) {
    upstream->ReadRequest(socket);
    arrived = true;
    EXPECT_TRUE(Eventually([&] { return go.load(); }));
    socket.Send(JsonResponse("last"));
    socket.ReadToEnd();
  });
  StartEngine();
  const auto idle = Connect();
  const auto busy = Connect();
  busy->Send(Post("{}"));
  ASSERT_TRUE(Eventually([&] { return arrived.load(); }));
  std::thread stopping([&] { engine->Shutdown(testing::kPatience); });
  EXPECT_EQ(idle->ReadToEnd(), "");
  go = true;
  const std::string response = busy->ReadToEnd();
  EXPECT_THAT(response, StartsWith("HTTP/1.1 200"));
  EXPECT_THAT(response, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(response, EndsWith("last"));
  stopping.join();
}

TEST_F(EngineExchangeTest, ShutdownClosesTheConnectionOfAnAnswerThatHadBegunBefore) {
  std::atomic<bool> go{false};
  ServeUpstream([&](RawSocket& socket) {
    upstream->ReadRequest(socket);
    socket.Send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n7\r\n: one\n\n\r\n");
    EXPECT_TRUE(Eventually([&] { return go.load(); }));
    socket.Send("7\r\n: two\n\n\r\n0\r\n\r\n");
    socket.ReadToEnd();
  });
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  std::string received = client->ReadUntil(": one");
  const auto began = std::chrono::steady_clock::now();
  std::thread stopping([&] { engine->Shutdown(2 * testing::kPatience); });
  go = true;
  received += client->ReadToEnd();
  stopping.join();
  EXPECT_THAT(received, HasSubstr(": two"));
  EXPECT_THAT(received, EndsWith("0\r\n\r\n"));
  EXPECT_LT(std::chrono::steady_clock::now() - began, testing::kPatience) << "it waited for the next request";
}

TEST_F(EngineExchangeTest, ShutdownCutsWhatDoesNotEnd) {
  std::atomic<bool> started{false};
  gateway.on_request = [&](Exchange& exchange) {
    exchange.StartStream({});
    started = true;
  };
  StartEngine();
  const auto client = Connect();
  client->Send(Post("{}"));
  ASSERT_TRUE(Eventually([&] { return started.load(); }));
  engine->Shutdown(std::chrono::milliseconds(50));
  ASSERT_THAT(gateway.done(), SizeIs(1));
  EXPECT_EQ(gateway.done()[0].outcome, Outcome::kAborted);
}

TEST_F(EngineExchangeTest, BadListenAddressesAreRefused) {
  for (const char* listen : {"", "127.0.0.1", "localhost:1", "127.0.0.1:70000", ":80"}) {
    options.listen = listen;
    EXPECT_FALSE(Engine::Start(options, gateway).ok()) << listen;
  }
}

}  // namespace
}  // namespace sallyport::edge

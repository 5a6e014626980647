// SPDX-License-Identifier: Apache-2.0
// Upstreams behind an egress proxy: what the proxy is told, what it may break, and what never goes round it.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/edge/http/engine_test_support.h"
#include "tests/testing/connect_proxy.h"

namespace sallyport::edge {
namespace {

using ::sallyport::testing::ConnectProxy;
using testing::BodyOf;
using testing::EngineTest;
using testing::FakeUpstream;
using ::testing::HasSubstr;
using testing::JsonResponse;
using ::testing::Not;
using testing::Post;
using testing::RawSocket;
using ::testing::StartsWith;
using testing::StatusOf;

constexpr char kAuthorization[] = "Basic Z2F0ZTpwdw==";

class ProxiedGateway : public testing::TestGateway {
 public:
  UpstreamRoute RouteTo(const UpstreamTarget& /*target*/) override { return route; }
  UpstreamRoute route = UpstreamRoute::kProxy;
};

class EngineProxyTest : public EngineTest {
 protected:
  void UseProxy(uint16_t port, const std::string& authorization = kAuthorization) {
    options.proxy =
        std::make_shared<const UpstreamProxy>(UpstreamProxy{"127.0.0.1", port, Secret::Copy(authorization)});
  }
  // The upstream has a name that only the proxy knows.
  void Name(const std::string& host) {
    gateway_.target = gateway.target;
    gateway_.target.host = host;
    gateway_.target.host_header = host;
    gateway_.target.pool_key = host;
  }
  void StartProxied() {
    auto started = Engine::Start(options, gateway_);
    ASSERT_TRUE(started.ok()) << started.status();
    engine = *std::move(started);
  }
  std::string Ask(const std::string& fields = "") {
    const auto client = Connect();
    client->Send(Post("{}", fields));
    return client->ReadMessage();
  }
  uint64_t Failures(UpstreamError error) {
    return engine->counters().proxy_failures.at(static_cast<size_t>(error) -
                                                static_cast<size_t>(UpstreamError::kProxyUnreachable));
  }

  ProxiedGateway gateway_;

  void TearDown() override { engine.reset(); }  // Before the gateway.
};

TEST_F(EngineProxyTest, OpensATunnelOnceAndKeepsIt) {
  ServeUpstream([this](RawSocket& socket) {
    while (!upstream->ReadRequest(socket).empty()) socket.Send(JsonResponse("{}"));
  });
  ConnectProxy proxy;
  UseProxy(proxy.port());
  Name("far.example");
  StartProxied();

  for (int i = 0; i < 5; ++i) EXPECT_EQ(StatusOf(Ask("Authorization: Bearer secret\r\n")), 200);

  const std::string authority = "far.example:" + std::to_string(upstream->port());
  ASSERT_EQ(proxy.heads().size(), 1u);
  EXPECT_EQ(proxy.heads()[0], "CONNECT " + authority + " HTTP/1.1\r\nHost: " + authority +
                                  "\r\nProxy-Authorization: " + kAuthorization + "\r\n\r\n");
  EXPECT_EQ(engine->counters().upstream_connects, 1u);
  EXPECT_EQ(engine->counters().upstream_reuses, 4u);
  for (const std::string& request : upstream->requests()) {
    EXPECT_THAT(request, Not(HasSubstr("roxy-")));
    EXPECT_THAT(request, StartsWith("POST "));
  }
}

TEST_F(EngineProxyTest, TwoOriginsNeverShareATunnel) {
  ServeUpstream([this](RawSocket& socket) {
    while (!upstream->ReadRequest(socket).empty()) socket.Send(JsonResponse("{}"));
  });
  ConnectProxy proxy;
  UseProxy(proxy.port());
  Name("one.example");
  StartProxied();
  EXPECT_EQ(StatusOf(Ask()), 200);
  Name("two.example");
  EXPECT_EQ(StatusOf(Ask()), 200);
  ASSERT_EQ(proxy.heads().size(), 2u);
  EXPECT_THAT(proxy.heads()[1], StartsWith("CONNECT two.example:"));
}

TEST_F(EngineProxyTest, PutsIpv6InBracketsAndSendsNoCredentialsWithoutAny) {
  AnswerUpstream(JsonResponse("{}"));
  ConnectProxy proxy;
  UseProxy(proxy.port(), "");
  Name("2001:db8::1");
  StartProxied();
  EXPECT_EQ(StatusOf(Ask()), 200);
  ASSERT_EQ(proxy.heads().size(), 1u);
  EXPECT_THAT(proxy.heads()[0], StartsWith("CONNECT [2001:db8::1]:"));
  EXPECT_THAT(proxy.heads()[0], Not(HasSubstr("Authorization")));
}

TEST_F(EngineProxyTest, ADirectRouteAsksForEachAddressAsEver) {
  AnswerUpstream(JsonResponse("{}"));
  ConnectProxy proxy;
  UseProxy(proxy.port());
  Name("127.0.0.1");
  gateway_.route = UpstreamRoute::kDirect;
  StartProxied();
  EXPECT_EQ(StatusOf(Ask()), 200);
  gateway_.allow = false;
  Name("localhost");
  EXPECT_THAT(BodyOf(Ask()), HasSubstr("upstream_address_refused"));
  EXPECT_EQ(proxy.connections(), 0);
}

TEST_F(EngineProxyTest, ARefusedRouteReachesNobody) {
  AnswerUpstream(JsonResponse("{}"));
  ConnectProxy proxy;
  UseProxy(proxy.port());
  Name("127.0.0.1");
  gateway_.route = UpstreamRoute::kRefused;
  StartProxied();
  EXPECT_THAT(BodyOf(Ask()), HasSubstr("upstream_address_refused"));
  EXPECT_EQ(proxy.connections(), 0);
  EXPECT_EQ(upstream->connections(), 0);
}

TEST_F(EngineProxyTest, WithoutTheProxyNothingIsReached) {
  AnswerUpstream(JsonResponse("{}"));
  uint16_t port = 0;
  {
    const ConnectProxy gone;
    port = gone.port();
  }
  UseProxy(port);
  Name("127.0.0.1");  // Which could be dialled.
  StartProxied();
  const std::string answer = Ask();
  EXPECT_EQ(StatusOf(answer), 502);
  EXPECT_THAT(BodyOf(answer), HasSubstr("proxy_unreachable"));
  EXPECT_EQ(Failures(UpstreamError::kProxyUnreachable), 1u);
  EXPECT_EQ(upstream->connections(), 0);
}

// No resolver is asked for a label that is too long.
TEST_F(EngineProxyTest, AProxyWhoseNameDoesNotResolveIsUnreachable) {
  AnswerUpstream(JsonResponse("{}"));
  options.proxy =
      std::make_shared<const UpstreamProxy>(UpstreamProxy{std::string(80, 'x') + ".invalid", 3128, Secret()});
  Name("127.0.0.1");
  gateway_.target.connect_timeout = std::chrono::seconds(30);
  StartProxied();
  EXPECT_THAT(BodyOf(Ask()), HasSubstr("proxy_unreachable"));
  EXPECT_EQ(upstream->connections(), 0);
}

TEST_F(EngineProxyTest, TheTimeForConnectingHoldsForTheProxysAnswer) {
  AnswerUpstream(JsonResponse("{}"));
  ConnectProxy proxy([](const std::string& /*head*/) { return ""; });
  UseProxy(proxy.port());
  Name("far.example");
  gateway_.target.connect_timeout = std::chrono::milliseconds(200);
  StartProxied();
  const std::string answer = Ask();
  EXPECT_EQ(StatusOf(answer), 504);
  EXPECT_THAT(BodyOf(answer), HasSubstr("proxy_timeout"));
  EXPECT_EQ(Failures(UpstreamError::kProxyTimeout), 1u);
}

TEST_F(EngineProxyTest, ReportsARefusalToTheLogOnceInAWhileAndWithoutTheCredentials) {
  AnswerUpstream(JsonResponse("{}"));
  ConnectProxy proxy([](const std::string& /*head*/) { return "HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"; });
  UseProxy(proxy.port());
  Name("far.example");
  std::mutex mu;
  std::vector<std::string> log;
  options.log = [&](std::string_view text) {
    const std::lock_guard<std::mutex> lock(mu);
    log.emplace_back(text);
  };
  StartProxied();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(StatusOf(Ask()), 502);
  const std::lock_guard<std::mutex> lock(mu);
  ASSERT_EQ(log.size(), 1u);
  EXPECT_THAT(log[0], HasSubstr("proxy_unauthorized; check username and passwordFile"));
  EXPECT_THAT(log[0], Not(HasSubstr("Z2F0")));
}

struct Refusal {
  const char* name;
  std::string answer;
  UpstreamError error;
};
class ProxyAnswerTest : public EngineProxyTest, public ::testing::WithParamInterface<Refusal> {};

TEST_P(ProxyAnswerTest, IsAnErrorOfItsOwnAndNothingOfItReachesTheClient) {
  AnswerUpstream(JsonResponse("{}"));
  ConnectProxy proxy([](const std::string& /*head*/) { return GetParam().answer; });
  UseProxy(proxy.port());
  Name("far.example");
  StartProxied();

  const std::string answer = Ask("Authorization: Bearer secret\r\n");

  EXPECT_EQ(StatusOf(answer), 502);
  EXPECT_THAT(BodyOf(answer), HasSubstr(UpstreamErrorName(GetParam().error)));
  EXPECT_THAT(answer, Not(HasSubstr("from the proxy")));
  EXPECT_EQ(Failures(GetParam().error), 1u);
  EXPECT_EQ(upstream->connections(), 0);
  EXPECT_THAT(proxy.passed(), Not(HasSubstr("secret")));
  EXPECT_EQ(engine->counters().upstream_idle, 0u);
}
INSTANTIATE_TEST_SUITE_P(
    Answers, ProxyAnswerTest,
    ::testing::Values(
        Refusal{"WrongPassword",
                "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 14\r\n\r\nfrom the proxy",
                UpstreamError::kProxyUnauthorized},
        Refusal{"Forbidden", "HTTP/1.1 403 No\r\nX-Why: from the proxy\r\n\r\n", UpstreamError::kProxyRefused},
        Refusal{"BadGateway", "HTTP/1.0 502 No\r\n\r\nfrom the proxy", UpstreamError::kProxyRefused},
        Refusal{"Redirect", "HTTP/1.1 302 Found\r\nLocation: http://from the proxy/\r\n\r\n",
                UpstreamError::kProxyRefused},
        Refusal{"EndlessBody", "HTTP/1.1 503 No\r\nContent-Length: 99999999999\r\n\r\n" + std::string(1 << 20, 'x'),
                UpstreamError::kProxyRefused},
        Refusal{"EndlessHead", "HTTP/1.1 200 Yes\r\nX: " + std::string(1 << 20, 'x'), UpstreamError::kProxyBadResponse},
        Refusal{"InterimAnswersOnly",
                [] {
                  std::string many;
                  for (int i = 0; i < 20; ++i) many += "HTTP/1.1 103 Early Hints\r\n\r\n";
                  return many;
                }(),
                UpstreamError::kProxyBadResponse},
        Refusal{"Upgrade", "HTTP/1.1 101 Switching Protocols\r\n\r\n", UpstreamError::kProxyBadResponse},
        Refusal{"NoHttp", "SSH-2.0-from the proxy\r\n", UpstreamError::kProxyBadResponse},
        Refusal{"HalfAHead", "HTTP/1.1 200 Connec", UpstreamError::kProxyBadResponse},
        // What the upstream is to answer must come from there.
        Refusal{"AnswerSentAhead",
                "HTTP/1.1 200 Yes\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
                "14\r\n\r\nfrom the proxy",
                UpstreamError::kProxyBadResponse}),
    [](const auto& tested) { return std::string(tested.param.name); });

TEST_F(EngineProxyTest, TheAnswerOfATunnelHasNoBodyWhateverItSays) {
  AnswerUpstream(JsonResponse("{\"from\":\"upstream\"}"));
  ConnectProxy proxy([](const std::string& /*head*/) {
    return "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 Yes\r\nContent-Length: 500\r\n\r\n";
  });
  UseProxy(proxy.port());
  Name("far.example");
  StartProxied();
  EXPECT_THAT(BodyOf(Ask()), HasSubstr("upstream"));
}

TEST_F(EngineProxyTest, AClientThatLeavesMeanwhileEndsTheAttempt) {
  AnswerUpstream(JsonResponse("{}"));
  ConnectProxy proxy([](const std::string& /*head*/) { return ""; });
  UseProxy(proxy.port());
  Name("far.example");
  StartProxied();
  {
    const auto client = Connect();
    client->Send(Post("{}"));
    ASSERT_TRUE(testing::Eventually([&] { return proxy.heads().size() == 1; }));
  }
  EXPECT_TRUE(testing::Eventually([this] { return gateway_.done().size() == 1; }));
  EXPECT_EQ(gateway_.done()[0].outcome, Outcome::kClientGone);
}

}  // namespace
}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
// Whose connection to an upstream may be used again, seen from a hostile upstream: no caller gets what belongs to
// another one's exchange.
#include <atomic>
#include <chrono>
#include <future>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "services/edge/http/engine_test_support.h"

namespace sallyport::edge {
namespace {

using testing::BodyOf;
using testing::EngineTest;
using testing::Eventually;
using testing::JsonResponse;
using testing::Post;
using testing::RawSocket;
using testing::StatusOf;

class EnginePoolTest : public EngineTest {
 protected:
  // The body of the answer to a call of `user`, on a connection of their own.
  std::string AskAs(const std::string& user) {
    const auto client = Connect();
    client->Send(Post("{}", "X-User: " + user + "\r\n"));
    return BodyOf(client->ReadMessage());
  }
};

// Everything sent lies in the peer's socket.
bool Arrived(const RawSocket& socket) {
  return Eventually([&socket] {
    int unacknowledged = 1;
    return ioctl(socket.fd(), SIOCOUTQ, &unacknowledged) == 0 && unacknowledged == 0;
  });
}

TEST_F(EnginePoolTest, AnAnswerSentAheadNeverReachesTheNextCaller) {
  std::promise<void> bob_is_here;
  std::promise<void> sent_ahead;
  constexpr std::chrono::seconds kPatience(10);
  std::atomic<int> connections = 0;
  ServeUpstream([&](RawSocket& socket) {
    const bool first = ++connections == 1;
    upstream->ReadRequest(socket);
    socket.Send(JsonResponse(first ? "for ada" : "for bob"));
    if (first) {
      bob_is_here.get_future().wait_for(kPatience);
      socket.Send(JsonResponse("made up by the upstream"));
      EXPECT_TRUE(Arrived(socket));
      sent_ahead.set_value();
    }
    socket.ReadToEnd();
  });
  // While the worker is here it hears nothing of its sockets: only a look at the connection can tell.
  std::atomic<int> calls = 0;
  gateway.on_request = [&](Exchange& exchange) {
    if (++calls == 2) {
      bob_is_here.set_value();
      sent_ahead.get_future().wait_for(kPatience);
    }
    gateway.ForwardPlain(exchange);
  };
  StartEngine();

  EXPECT_EQ(AskAs("ada"), "for ada");
  EXPECT_EQ(AskAs("bob"), "for bob");

  EXPECT_EQ(upstream->connections(), 2);
  EXPECT_EQ(engine->counters().upstream_stale, 1u);
}

struct Offer {
  const char* name;
  const char* fields;
  int connections;  // For two callers.
};
class ConnectionAuthenticationTest : public EnginePoolTest, public ::testing::WithParamInterface<Offer> {};

// An upstream that authenticates connections: whoever came first on one is who all later requests on it are from.
TEST_P(ConnectionAuthenticationTest, NoCallerIsTakenForThePreviousOne) {
  ServeUpstream([this](RawSocket& socket) {
    std::string owner;
    for (std::string request; !(request = upstream->ReadRequest(socket)).empty();) {
      if (owner.empty()) {
        const size_t at = request.find("X-User: ") + 8;
        owner = request.substr(at, request.find("\r\n", at) - at);
      }
      socket.Send(JsonResponse("hello " + owner, GetParam().fields));
    }
  });
  StartEngine();

  EXPECT_EQ(AskAs("ada"), "hello ada");
  const std::string bob = AskAs("bob");

  EXPECT_EQ(upstream->connections(), GetParam().connections);
  if (GetParam().connections == 2) {
    EXPECT_EQ(bob, "hello bob");
  }
}
INSTANTIATE_TEST_SUITE_P(
    Offers, ConnectionAuthenticationTest,
    ::testing::Values(Offer{"Ntlm", "WWW-Authenticate: NTLM\r\n", 2},
                      Offer{"NtlmChallenge", "WWW-Authenticate: NTLM TlRMTVNTUAACAAAA\r\n", 2},
                      Offer{"Negotiate", "www-authenticate: negotiate\r\n", 2},
                      Offer{"Kerberos", "WWW-Authenticate: Kerberos\r\n", 2},
                      Offer{"SecondOfAList", "WWW-Authenticate: Basic realm=\"a, b\" , Negotiate\r\n", 2},
                      Offer{"SecondField", "WWW-Authenticate: Bearer\r\nWWW-Authenticate: NTLM\r\n", 2},
                      Offer{"OfAProxyInBetween", "Proxy-Authenticate: NTLM\r\n", 2},
                      Offer{"PersistentAuth", "Persistent-Auth: true\r\n", 2},
                      Offer{"BearerIsOfTheRequest", "WWW-Authenticate: Bearer realm=\"ntlm\"\r\n", 1},
                      Offer{"NoPersistentAuth", "Persistent-Auth: false\r\n", 1}),
    [](const auto& tested) { return std::string(tested.param.name); });

TEST_F(EnginePoolTest, AnInterimAnswerCanOfferItToo) {
  ServeUpstream([this](RawSocket& socket) {
    while (!upstream->ReadRequest(socket).empty()) {
      socket.Send("HTTP/1.1 103 Early Hints\r\nWWW-Authenticate: NTLM\r\n\r\n" + JsonResponse("{}"));
    }
  });
  StartEngine();

  EXPECT_EQ(AskAs("ada"), "{}");
  EXPECT_EQ(AskAs("bob"), "{}");

  EXPECT_EQ(upstream->connections(), 2);
}

}  // namespace
}  // namespace sallyport::edge

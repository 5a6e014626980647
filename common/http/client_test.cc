// SPDX-License-Identifier: Apache-2.0
#include "common/http/client.h"

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <thread>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "common/error.h"
#include "common/files.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/http_server.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using testing::IsOk;
using testing::StatusIs;
using testing::TestHttpServer;

EgressPolicy Loopback() { return EgressPolicy({*Network::Parse("127.0.0.0/8")}, EgressPolicy::PlainHttp::kLoopback); }

std::unique_ptr<HttpClient> MakeClient(EgressPolicy policy = Loopback(), const std::string& ca_bundle = "") {
  HttpClient::Options options;
  options.policy = std::move(policy);
  options.ca_bundle = ca_bundle;
  auto client = HttpClient::Create(std::move(options));
  EXPECT_THAT(client, IsOk());
  return *std::move(client);
}

HttpRequest Get(const std::string& url) {
  HttpRequest request;
  request.url = url;
  return request;
}

TEST(HttpClientTest, SendsWhatItWasGivenAndNothingElse) {
  TestHttpServer::Request seen;
  TestHttpServer server([&](const TestHttpServer::Request& request) {
    seen = request;
    return TestHttpServer::Response{200, {{"Content-Type", "Application/JSON; charset=utf-8"}, {"X-A", "1"}}, "{}", ""};
  });
  auto client = MakeClient();

  HttpRequest request = Get(server.origin() + "/token?x=1");
  request.method = "POST";
  request.headers = {
      {"Content-Type", "application/x-www-form-urlencoded"}, {"Authorization", "Basic abc"}, {"X-Empty", ""}};
  request.body = std::string("a=1\0b", 5);
  ASSERT_OK_AND_ASSIGN(HttpResponse response, client->Fetch(std::move(request)));

  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "{}");
  EXPECT_EQ(response.MediaType(), "application/json");
  EXPECT_EQ(response.Header("x-a"), "1");
  EXPECT_EQ(seen.method, "POST");
  EXPECT_EQ(seen.target, "/token?x=1");
  EXPECT_EQ(seen.body, std::string("a=1\0b", 5));
  EXPECT_EQ(seen.headers["authorization"], "Basic abc");
  EXPECT_EQ(seen.headers["content-type"], "application/x-www-form-urlencoded");
  EXPECT_EQ(seen.headers["content-length"], "5");
  EXPECT_EQ(seen.headers.count("x-empty"), 1U);
  EXPECT_EQ(seen.headers.count("expect"), 0U);
  EXPECT_EQ(seen.headers.count("cookie"), 0U);
}

TEST(HttpClientTest, ReusesConnectionsAndKeepsNoCookies) {
  std::atomic<int> with_cookie{0};
  TestHttpServer server([&](const TestHttpServer::Request& request) {
    with_cookie += static_cast<int>(request.headers.count("cookie"));
    return TestHttpServer::Response{200, {{"Set-Cookie", "a=b"}}, "x", ""};
  });
  auto client = MakeClient();
  for (int i = 0; i < 5; ++i) EXPECT_THAT(client->Fetch(Get(server.origin())), IsOk());
  EXPECT_EQ(server.connections(), 1);
  EXPECT_EQ(server.requests(), 5);
  EXPECT_EQ(with_cookie, 0);
}

TEST(HttpClientTest, DoesNotFollowRedirects) {  // S4
  TestHttpServer server([](const TestHttpServer::Request&) {
    return TestHttpServer::Response{302, {{"Location", "http://127.0.0.1:1/"}}, "", ""};
  });
  ASSERT_OK_AND_ASSIGN(HttpResponse response, MakeClient()->Fetch(Get(server.origin())));
  EXPECT_EQ(response.status, 302);
  EXPECT_EQ(response.Header("location"), "http://127.0.0.1:1/");
  EXPECT_EQ(server.requests(), 1);
}

TEST(HttpClientTest, IgnoresTheProxyOfTheEnvironment) {  // S5
  TestHttpServer server([](const TestHttpServer::Request&) { return TestHttpServer::Response{}; });
  TestHttpServer proxy([](const TestHttpServer::Request&) { return TestHttpServer::Response{}; });
  setenv("http_proxy", proxy.origin().c_str(), 1);
  setenv("all_proxy", proxy.origin().c_str(), 1);
  EXPECT_THAT(MakeClient()->Fetch(Get(server.origin())), IsOk());
  unsetenv("http_proxy");
  unsetenv("all_proxy");
  EXPECT_EQ(proxy.connections(), 0);
  EXPECT_EQ(server.requests(), 1);
}

TEST(HttpClientTest, RefusesForbiddenNetworksBeforeConnecting) {  // S1, S2
  TestHttpServer server([](const TestHttpServer::Request&) { return TestHttpServer::Response{}; });
  auto client = MakeClient(EgressPolicy());
  for (const std::string& url : {server.origin(), absl::StrCat("http://localhost:", server.port(), "/"),
                                 absl::StrCat("https://localhost:", server.port(), "/"),
                                 absl::StrCat("https://127.0.0.1:", server.port(), "/")}) {
    auto response = client->Fetch(Get(url));
    EXPECT_THAT(response, StatusIs(absl::StatusCode::kPermissionDenied));
    EXPECT_EQ(ReasonOf(response.status()), "network_not_allowed");
  }
  EXPECT_EQ(server.connections(), 0);
}

TEST(HttpClientTest,
     GuardsTheAddressANameResolvesTo) {  // S3: "localhost" passes by name here, but only ::1 may be dialled.
  TestHttpServer server([](const TestHttpServer::Request&) { return TestHttpServer::Response{}; });
  auto client = MakeClient(EgressPolicy({*Network::Parse("::1")}, EgressPolicy::PlainHttp::kLoopback));
  auto response = client->Fetch(Get(absl::StrCat("http://localhost:", server.port(), "/")));
  EXPECT_FALSE(response.ok());
  EXPECT_EQ(server.connections(), 0);
}

TEST(HttpClientTest, LimitsBodiesWithAndWithoutContentLength) {
  std::atomic<bool> chunked{false};
  TestHttpServer server([&](const TestHttpServer::Request&) {
    TestHttpServer::Response response;
    response.body = std::string(1001, 'x');
    if (chunked) {
      response.raw =
          absl::StrCat("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", response.body, "\r\n0\r\n\r\n");
    }
    return response;
  });
  auto client = MakeClient();
  for (const bool mode : {false, true}) {
    chunked = mode;
    HttpRequest small = Get(server.origin());
    small.max_body = 1000;
    EXPECT_THAT(client->Fetch(std::move(small)), StatusIs(absl::StatusCode::kResourceExhausted));
    HttpRequest enough = Get(server.origin());
    enough.max_body = 1001;
    EXPECT_THAT(client->Fetch(std::move(enough)), IsOk());
  }
}

TEST(HttpClientTest, LimitsHeaders) {
  TestHttpServer server([](const TestHttpServer::Request&) {
    TestHttpServer::Response response;
    for (int i = 0; i < 100; ++i) response.headers.emplace_back(absl::StrCat("x-", i), std::string(1000, 'h'));
    return response;
  });
  EXPECT_THAT(MakeClient()->Fetch(Get(server.origin())), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST(HttpClientTest, AServerThatDripsMeetsTheDeadline) {
  std::promise<void> release;
  auto released = release.get_future().share();
  TestHttpServer server([&](const TestHttpServer::Request&) {
    released.wait();
    return TestHttpServer::Response{};
  });
  HttpRequest request = Get(server.origin());
  request.timeout = absl::Milliseconds(100);
  EXPECT_THAT(MakeClient()->Fetch(std::move(request)), StatusIs(absl::StatusCode::kDeadlineExceeded));
  release.set_value();
}

TEST(HttpClientTest, BrokenAnswersAreUnavailable) {
  std::string raw;
  TestHttpServer server([&](const TestHttpServer::Request&) { return TestHttpServer::Response{200, {}, "", raw}; });
  for (const char* answer : {"garbage\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"}) {
    raw = answer;
    EXPECT_THAT(MakeClient()->Fetch(Get(server.origin())), StatusIs(absl::StatusCode::kUnavailable));
  }
}

TEST(HttpClientTest, TellsWhetherTheRequestMayHaveLeft) {
  std::string gone;
  {
    TestHttpServer server([](const TestHttpServer::Request&) { return TestHttpServer::Response{}; });
    gone = server.origin();
  }
  EXPECT_EQ(ReasonOf(MakeClient()->Fetch(Get(gone)).status()), "not_sent");
  TestHttpServer broken([](const TestHttpServer::Request&) {
    return TestHttpServer::Response{200, {}, "", "x\r\n\r\n"};
  });
  EXPECT_EQ(ReasonOf(MakeClient()->Fetch(Get(broken.origin())).status()), "");
}

// Answers the first request, hangs up at the second.
TestHttpServer::Handler AnswersOnce(std::atomic<int>& posts) {
  return [&posts](const TestHttpServer::Request& request) {
    TestHttpServer::Response response;
    response.hang_up = request.method == "POST";
    posts += response.hang_up ? 1 : 0;
    return response;
  };
}

HttpRequest Post(const std::string& url, bool once) {
  HttpRequest request = Get(url);
  request.method = "POST";
  request.body = "refresh_token=rt";
  request.once = once;
  return request;
}

TEST(HttpClientTest, WhatMayArriveOnceArrivesOnceThoughAConnectionIsAtHand) {
  std::atomic<int> posts{0};
  TestHttpServer server(AnswersOnce(posts));
  auto client = MakeClient();
  ASSERT_THAT(client->Fetch(Get(server.origin())), IsOk());

  const absl::Status status = client->Fetch(Post(server.origin(), /*once=*/true)).status();

  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(ReasonOf(status), "") << "it left";
  EXPECT_EQ(posts, 1);
  EXPECT_EQ(server.connections(), 2);
}

TEST(HttpClientTest, ConnectionOfARequestThatMayArriveOnceIsNotReused) {
  TestHttpServer server([](const TestHttpServer::Request&) { return TestHttpServer::Response{}; });
  auto client = MakeClient();
  ASSERT_THAT(client->Fetch(Post(server.origin(), /*once=*/true)), IsOk());
  ASSERT_THAT(client->Fetch(Get(server.origin())), IsOk());
  EXPECT_EQ(server.connections(), 2);
}

// A socket on loopback that listens, and its address.
int Listen(int backlog, sockaddr_in& address) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  EXPECT_EQ(bind(fd, generic, size), 0);
  EXPECT_EQ(listen(fd, backlog), 0);
  EXPECT_EQ(getsockname(fd, generic, &size), 0);
  return fd;
}
std::string Origin(const sockaddr_in& address) { return absl::StrCat("http://127.0.0.1:", ntohs(address.sin_port)); }

TEST(HttpClientTest, RequestThatLeftAtTheFirstAttemptLeftThoughTheSecondFindsNobody) {
  sockaddr_in address;
  const int listener = Listen(8, address);
  std::atomic<int> requests{0};
  std::thread server([&] {
    const int connection = accept(listener, nullptr, nullptr);
    close(listener);
    char buffer[4096];
    if (recv(connection, buffer, sizeof(buffer), 0) > 0) ++requests;
    const std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    EXPECT_GT(send(connection, answer.data(), answer.size(), MSG_NOSIGNAL), 0);
    if (recv(connection, buffer, sizeof(buffer), 0) > 0) ++requests;
    close(connection);
  });
  auto client = MakeClient();
  ASSERT_THAT(client->Fetch(Get(Origin(address))), IsOk());

  const absl::Status status = client->Fetch(Get(Origin(address))).status();
  server.join();

  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable, "cannot connect"));
  EXPECT_EQ(requests, 2);
  EXPECT_EQ(ReasonOf(status), "");
}

TEST(HttpClientTest, ConnectionThatIsNotMadeInTimeSentNothing) {
  sockaddr_in address;
  const int listener = Listen(0, address);
  // Nobody accepts: once the queue is full, handshakes go unanswered.
  std::vector<int> filling;
  for (int i = 0; i < 4; ++i) {
    filling.push_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    connect(filling.back(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  HttpClient::Options options;
  options.policy = Loopback();
  options.connect_timeout = absl::Milliseconds(300);
  auto client = *HttpClient::Create(std::move(options));

  const absl::Status status = client->Fetch(Post(Origin(address), /*once=*/true)).status();

  EXPECT_THAT(status, StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_EQ(ReasonOf(status), "not_sent");
  for (const int fd : filling) close(fd);
  close(listener);
}

TEST(HttpClientTest, HandshakeThatDoesNotEndSentNothing) {
  sockaddr_in address;
  const int listener = Listen(8, address);
  HttpRequest request = Post(absl::StrCat("https://127.0.0.1:", ntohs(address.sin_port), "/"), /*once=*/true);
  request.timeout = absl::Milliseconds(200);

  EXPECT_EQ(ReasonOf(MakeClient()->Fetch(std::move(request)).status()), "not_sent");
  close(listener);
}

TEST(HttpClientTest, RefusesMalformedRequests) {
  auto client = MakeClient();
  const auto with = [](const std::string& name, const std::string& value) {
    HttpRequest request = Get("http://127.0.0.1:1/");
    request.headers = {{name, value}};
    return request;
  };
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{{"X-A", "a\r\nX-B: c"},
                                                                                    {"X-A", "a\nb"},
                                                                                    {"X-A", std::string("a\0b", 3)},
                                                                                    {"X A", "b"},
                                                                                    {"", "b"},
                                                                                    {"X-A:", "b"},
                                                                                    {"Host", "evil.example"},
                                                                                    {"content-length", "7"},
                                                                                    {"Transfer-Encoding", "chunked"}}) {
    SCOPED_TRACE(name);
    EXPECT_THAT(client->Fetch(with(name, value)), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  HttpRequest method = Get("http://127.0.0.1:1/");
  method.method = "GET /x HTTP/1.1\r\n";
  EXPECT_THAT(client->Fetch(std::move(method)), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(client->Fetch(Get("gopher://127.0.0.1/")), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(client->Fetch(Get("http://user@127.0.0.1/")), StatusIs(absl::StatusCode::kInvalidArgument));
}

class HttpsTest : public ::testing::Test {
 protected:
  HttpsTest()
      : server_(
            [](const TestHttpServer::Request&) {
              return TestHttpServer::Response{200, {}, "tls", ""};
            },
            true) {
    std::string pattern = "/tmp/sallyport-ca-XXXXXX";
    directory_ = mkdtemp(pattern.data());
    EXPECT_THAT(WriteFileAtomic(directory_ + "/ca.pem", server_.ca_pem()), IsOk());
  }
  ~HttpsTest() override { std::filesystem::remove_all(directory_); }
  TestHttpServer server_;
  std::string directory_;
};

TEST_F(HttpsTest, TrustsOnlyConfiguredAuthorities) {
  EXPECT_THAT(MakeClient()->Fetch(Get(server_.origin())), StatusIs(absl::StatusCode::kUnavailable, "certificate"));
  EXPECT_EQ(server_.requests(), 0);
  ASSERT_OK_AND_ASSIGN(HttpResponse response,
                       MakeClient(Loopback(), directory_ + "/ca.pem")->Fetch(Get(server_.origin())));
  EXPECT_EQ(response.body, "tls");
}

TEST_F(HttpsTest, TheCertificateMustBeForTheHost) {
  auto client = MakeClient(Loopback(), directory_ + "/ca.pem");
  EXPECT_THAT(client->Fetch(Get(absl::StrCat("https://localhost:", server_.port(), "/"))),
              StatusIs(absl::StatusCode::kUnavailable, "certificate"));
  EXPECT_EQ(server_.requests(), 0);
}

TEST(HttpClientCreateTest, AMissingBundleIsAnError) {
  HttpClient::Options options;
  options.ca_bundle = "/nonexistent/ca.pem";
  EXPECT_THAT(HttpClient::Create(std::move(options)), StatusIs(absl::StatusCode::kNotFound));
}

TEST(HttpClientTest, ManyExchangesRunAtOnce) {
  std::atomic<int> inside{0};
  std::promise<void> all_inside;
  auto everyone = all_inside.get_future().share();
  TestHttpServer server([&](const TestHttpServer::Request&) {
    if (++inside == 8) all_inside.set_value();
    everyone.wait();
    return TestHttpServer::Response{};
  });
  auto client = MakeClient();
  std::vector<std::future<absl::Status>> results;
  for (int i = 0; i < 8; ++i) {
    auto promise = std::make_shared<std::promise<absl::Status>>();
    results.push_back(promise->get_future());
    client->FetchAsync(Get(server.origin()),
                       [promise](absl::StatusOr<HttpResponse> r) { promise->set_value(r.status()); });
  }
  for (auto& result : results) EXPECT_THAT(result.get(), IsOk());
}

TEST(HttpClientTest, DestructionEndsWhatIsInFlight) {
  std::promise<void> release;
  std::promise<void> entered;
  auto released = release.get_future().share();
  TestHttpServer server([&](const TestHttpServer::Request&) {
    entered.set_value();
    released.wait();
    return TestHttpServer::Response{};
  });
  std::promise<absl::Status> result;
  auto client = MakeClient();
  client->FetchAsync(Get(server.origin()),
                     [&](absl::StatusOr<HttpResponse> response) { result.set_value(response.status()); });
  entered.get_future().wait();
  client.reset();
  EXPECT_THAT(result.get_future().get(), StatusIs(absl::StatusCode::kCancelled));
  release.set_value();
}

TEST(HttpClientTest, AProviderThatFailsRepeatedlyIsLeftAlone) {
  std::atomic<int> status{500};
  TestHttpServer server([&](const TestHttpServer::Request&) { return TestHttpServer::Response{status, {}, "", ""}; });
  FakeClock clock;
  HttpClient::Options options;
  options.policy = Loopback();
  options.gate.failures_to_open = 3;
  options.clock = &clock;
  auto client = *HttpClient::Create(std::move(options));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(client->Fetch(Get(server.origin()))->status, 500);
  auto refused = client->Fetch(Get(server.origin()));
  EXPECT_EQ(ReasonOf(refused.status()), "circuit_open");
  EXPECT_EQ(server.requests(), 3);

  clock.Advance(absl::Seconds(11));
  status = 200;
  EXPECT_THAT(client->Fetch(Get(server.origin())), IsOk());
  EXPECT_THAT(client->Fetch(Get(server.origin())), IsOk());
}

class ProviderGateTest : public ::testing::Test {
 protected:
  using Outcome = ProviderGate::Outcome;
  absl::Time now_ = absl::FromUnixSeconds(1000);
  ProviderGate gate_{{.max_in_flight = 2, .failures_to_open = 2, .open_for = absl::Seconds(10), .max_keys = 3}};
  absl::Status Try(const std::string& key, Outcome outcome) {
    absl::Status status = gate_.Enter(key, now_);
    if (status.ok()) gate_.Leave(key, outcome, now_);
    return status;
  }
};

TEST_F(ProviderGateTest, BoundsWhatIsInFlightPerKey) {
  EXPECT_THAT(gate_.Enter("a", now_), IsOk());
  EXPECT_THAT(gate_.Enter("a", now_), IsOk());
  EXPECT_THAT(gate_.Enter("a", now_), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(gate_.Enter("b", now_), IsOk());
  gate_.Leave("a", Outcome::kSuccess, now_);
  EXPECT_THAT(gate_.Enter("a", now_), IsOk());
}

TEST_F(ProviderGateTest, OneProbeDecidesAfterThePause) {
  EXPECT_THAT(Try("a", Outcome::kFailure), IsOk());
  EXPECT_THAT(Try("a", Outcome::kFailure), IsOk());
  EXPECT_THAT(Try("a", Outcome::kSuccess), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(DetailOf(gate_.Enter("a", now_)).retry_after, absl::Seconds(10));
  now_ += absl::Seconds(10);
  EXPECT_THAT(gate_.Enter("a", now_), IsOk());
  EXPECT_THAT(gate_.Enter("a", now_), StatusIs(absl::StatusCode::kUnavailable));
  gate_.Leave("a", Outcome::kFailure, now_);
  EXPECT_THAT(Try("a", Outcome::kSuccess), StatusIs(absl::StatusCode::kUnavailable));
  now_ += absl::Seconds(10);
  EXPECT_THAT(Try("a", Outcome::kSuccess), IsOk());
  EXPECT_THAT(Try("a", Outcome::kSuccess), IsOk());
}

TEST_F(ProviderGateTest, OnlyFailuresInARowCount) {
  for (int i = 0; i < 5; ++i) {
    EXPECT_THAT(Try("a", Outcome::kFailure), IsOk());
    EXPECT_THAT(Try("a", Outcome::kNeutral), IsOk());
    EXPECT_THAT(Try("a", Outcome::kSuccess), IsOk());
  }
}

TEST_F(ProviderGateTest, OpenCircuitsAreNotForgotten) {
  EXPECT_THAT(Try("bad", Outcome::kFailure), IsOk());
  EXPECT_THAT(Try("bad", Outcome::kFailure), IsOk());
  for (const char* key : {"1", "2", "3", "4", "5"}) EXPECT_THAT(Try(key, Outcome::kSuccess), IsOk());
  EXPECT_THAT(Try("bad", Outcome::kSuccess), StatusIs(absl::StatusCode::kUnavailable));
}

}  // namespace
}  // namespace sallyport

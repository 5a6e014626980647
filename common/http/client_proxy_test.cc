// SPDX-License-Identifier: Apache-2.0
// The HTTP client behind a proxy: what the proxy sees, what it may break, and that nothing goes round it.
#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/files.h"
#include "common/http/client.h"
#include "common/http/egress_proxy.h"
#include "tests/testing/connect_proxy.h"
#include "tests/testing/http_server.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport {
namespace {

using ::sallyport::testing::ConnectProxy;
using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::sallyport::testing::TempDirectory;
using ::sallyport::testing::TestHttpServer;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Code = absl::StatusCode;

// 192.0.2.0/24 (documentation) stands for a network that only the proxy reaches.
constexpr char kFarAway[] = "192.0.2.1";

class HttpClientProxyTest : public ::testing::Test {
 protected:
  std::unique_ptr<HttpClient> Client(const std::string& proxy_url, const std::vector<std::string>& no_proxy = {},
                                     const std::string& username = "", const std::string& ca_pem = "") {
    auto proxy = EgressProxy::Create(
        {.url = proxy_url, .no_proxy = no_proxy, .username = username, .password = Secret("pro:xy")}, "proxy");
    EXPECT_THAT(proxy, IsOk());
    HttpClient::Options options;
    options.policy = EgressPolicy({*Network::Parse("192.0.2.0/24"), *Network::Parse("127.0.0.0/8")},
                                  EgressPolicy::PlainHttp::kPrivateNetworks, *std::move(proxy));
    if (!ca_pem.empty()) options.ca_bundle = directory_.Write("ca.pem", ca_pem);
    options.connect_timeout = absl::Seconds(2);
    auto client = HttpClient::Create(std::move(options));
    EXPECT_THAT(client, IsOk());
    return *std::move(client);
  }
  static HttpRequest Get(const std::string& url) {
    HttpRequest request;
    request.url = url;
    request.headers = {{"Authorization", "Bearer for-the-upstream"}};
    return request;
  }
  // A plain URL that only the proxy reaches.
  std::string FarUrl() const { return absl::StrCat("http://", kFarAway, ":", server_.port(), "/token"); }

  TestHttpServer::Request seen_;
  TestHttpServer server_{[this](const TestHttpServer::Request& request) {
    seen_ = request;
    return TestHttpServer::Response{200, {}, "upstream", ""};
  }};
  TempDirectory directory_;
};

TEST_F(HttpClientProxyTest, OpensATunnelAlsoForHttpAndShowsItsCredentialsToTheProxyOnly) {
  ConnectProxy proxy;
  const auto client = Client(proxy.url(), {}, "gate");
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK_AND_ASSIGN(const HttpResponse response, client->Fetch(Get(FarUrl())));
    EXPECT_EQ(response.body, "upstream");
    EXPECT_EQ(response.Header("x-proxy"), "");
  }

  EXPECT_EQ(server_.connections(), 1) << "the tunnel is kept";
  ASSERT_EQ(proxy.heads().size(), 1U);
  const std::string head = proxy.heads()[0];
  EXPECT_THAT(head, ::testing::StartsWith(absl::StrCat("CONNECT ", kFarAway, ":", server_.port(), " HTTP/1.1\r\n")));
  EXPECT_THAT(head, HasSubstr("Proxy-Authorization: Basic Z2F0ZTpwcm86eHk=\r\n"));
  EXPECT_THAT(head, Not(HasSubstr("for-the-upstream")));
  EXPECT_EQ(seen_.headers.count("proxy-authorization"), 0U);
  EXPECT_EQ(seen_.headers.count("proxy-connection"), 0U);
  EXPECT_EQ(seen_.headers["authorization"], "Bearer for-the-upstream");
}

TEST_F(HttpClientProxyTest, HttpsIsSealedFromTheProxyWhichGetsTheNameUnresolved) {
  TestHttpServer secure(
      [](const TestHttpServer::Request&) {
        return TestHttpServer::Response{200, {}, "sealed", ""};
      },
      /*tls=*/true);
  ConnectProxy proxy;
  const auto client = Client(proxy.url(), {}, "gate", secure.ca_pem());

  ASSERT_OK_AND_ASSIGN(const HttpResponse response,
                       client->Fetch(Get(absl::StrCat("https://tunnel.example:", secure.port(), "/"))));

  EXPECT_EQ(response.body, "sealed");
  ASSERT_EQ(proxy.heads().size(), 1U);
  EXPECT_THAT(proxy.heads()[0], ::testing::StartsWith(absl::StrCat("CONNECT tunnel.example:", secure.port(), " ")));
  EXPECT_THAT(proxy.passed(), Not(HasSubstr("for-the-upstream")));
}

TEST_F(HttpClientProxyTest, AProxyThatLeadsElsewhereIsNoticedByTheCertificate) {
  TestHttpServer secure(
      [](const TestHttpServer::Request&) {
        return TestHttpServer::Response{200, {}, "sealed", ""};
      },
      /*tls=*/true);
  ConnectProxy proxy;
  auto response = Client(proxy.url(), {}, "gate", secure.ca_pem())
                      ->Fetch(Get(absl::StrCat("https://", kFarAway, ":", secure.port(), "/")));

  EXPECT_THAT(response, StatusIs(Code::kUnavailable, "certificate"));
  EXPECT_EQ(ReasonOf(response.status()), "not_sent");
  EXPECT_EQ(proxy.heads().size(), 1U);
  EXPECT_THAT(proxy.passed(), Not(HasSubstr("for-the-upstream")));
  EXPECT_EQ(secure.requests(), 0);
}

TEST_F(HttpClientProxyTest, LoopbackAndNoProxyAreReachedDirectly) {
  ConnectProxy proxy;
  EXPECT_THAT(Client(proxy.url())->Fetch(Get(server_.origin())), IsOk());
  EXPECT_THAT(Client(proxy.url())->Fetch(Get(absl::StrCat("http://localhost:", server_.port(), "/"))), IsOk());
  EXPECT_EQ(server_.requests(), 2);
  // Resolved here, in vain.
  EXPECT_FALSE(Client(proxy.url(), {".invalid"})->Fetch(Get("https://no-such-name.invalid/")).ok());
  EXPECT_EQ(proxy.connections(), 0);
}

TEST_F(HttpClientProxyTest, RefusesWhatTheRulesForbidBeforeTheProxyHearsOfIt) {
  ConnectProxy proxy;
  const auto client = Client(proxy.url());
  for (const char* url : {"https://10.0.0.1/", "https://169.254.169.254/", "https://metadata.google.internal/",
                          "http://name.example/", "https://name.example:25/"}) {
    EXPECT_EQ(ReasonOf(client->Fetch(Get(url)).status()), "network_not_allowed") << url;
  }
  for (const char* url : {"https://2130706433/", "https://0x7f.1/", "https://localhost./"}) {
    EXPECT_THAT(client->Fetch(Get(url)), StatusIs(Code::kInvalidArgument)) << url;
  }
  EXPECT_EQ(proxy.connections(), 0);
}

TEST_F(HttpClientProxyTest, TheEnvironmentLeadsNobodyRoundTheProxy) {
  ConnectProxy proxy;
  ConnectProxy of_the_environment;
  setenv("no_proxy", "*", 1);
  setenv("NO_PROXY", "*", 1);
  setenv("http_proxy", of_the_environment.url().c_str(), 1);
  setenv("all_proxy", of_the_environment.url().c_str(), 1);
  EXPECT_THAT(Client(proxy.url())->Fetch(Get(FarUrl())), IsOk());
  for (const char* name : {"no_proxy", "NO_PROXY", "http_proxy", "all_proxy"}) unsetenv(name);
  EXPECT_EQ(proxy.connections(), 1);
  EXPECT_EQ(of_the_environment.connections(), 0);
}

TEST_F(HttpClientProxyTest, WithoutTheProxyNothingIsReached) {
  std::string url;
  {
    const ConnectProxy gone;
    url = gone.url();
  }
  const double before = ProxyFailureCounter(ProxyFailure::kUnreachable).Value();
  auto response = Client(url)->Fetch(Get(FarUrl()));
  EXPECT_THAT(response, StatusIs(Code::kUnavailable, "cannot connect to the egress proxy"));
  EXPECT_EQ(ReasonOf(response.status()), "not_sent");
  EXPECT_EQ(ProxyFailureCounter(ProxyFailure::kUnreachable).Value() - before, 1);
  EXPECT_EQ(server_.connections(), 0);
}

struct Refusal {
  const char* name;
  std::string answer;
  ProxyFailure failure;
  Code code;
  const char* message;
};
class HttpClientRefusalTest : public HttpClientProxyTest, public ::testing::WithParamInterface<Refusal> {};

TEST_P(HttpClientRefusalTest, IsAnErrorOfItsOwnAndTheRequestWasNotSent) {
  ConnectProxy proxy([](const std::string& /*head*/) { return GetParam().answer; });
  const double before = ProxyFailureCounter(GetParam().failure).Value();

  auto response = Client(proxy.url(), {}, "gate")->Fetch(Get(FarUrl()));

  EXPECT_THAT(response, StatusIs(GetParam().code, GetParam().message));
  EXPECT_EQ(ReasonOf(response.status()), "not_sent");
  EXPECT_THAT(std::string(response.status().message()), Not(HasSubstr("pro:xy")));
  EXPECT_THAT(std::string(response.status().message()), Not(HasSubstr("from the proxy")));
  EXPECT_EQ(ProxyFailureCounter(GetParam().failure).Value() - before, 1);
  EXPECT_EQ(server_.connections(), 0);
}
INSTANTIATE_TEST_SUITE_P(
    Answers, HttpClientRefusalTest,
    ::testing::Values(
        Refusal{"WrongPassword",
                "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 14\r\n\r\nfrom the proxy",
                ProxyFailure::kUnauthorized, Code::kUnavailable, "407"},
        Refusal{"Forbidden", "HTTP/1.1 403 No\r\nContent-Length: 14\r\n\r\nfrom the proxy", ProxyFailure::kRefused,
                Code::kUnavailable, "status 403"},
        Refusal{"BadGateway", "HTTP/1.1 502 No\r\n\r\nfrom the proxy", ProxyFailure::kRefused, Code::kUnavailable,
                "status 502"},
        Refusal{"Redirect", "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
                ProxyFailure::kRefused, Code::kUnavailable, "status 302"},
        Refusal{"NoHttp", "SSH-2.0-x\r\n\r\n", ProxyFailure::kBadResponse, Code::kUnavailable, "answer properly"},
        Refusal{"LongHead", "HTTP/1.1 403 No\r\nX: " + std::string(1 << 20, 'x') + "\r\n\r\n", ProxyFailure::kRefused,
                Code::kUnavailable, "status 403"},
        Refusal{"Silence", "", ProxyFailure::kTimeout, Code::kDeadlineExceeded, "in time"}),
    [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace sallyport

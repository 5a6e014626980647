// SPDX-License-Identifier: Apache-2.0
// The edge behind an egress proxy: which upstreams the proxy is asked for, and which reach nobody.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/edge/edge_server_testing.h"
#include "tests/testing/connect_proxy.h"

namespace sallyport::edge {
namespace {

using ::sallyport::testing::ConnectProxy;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class EdgeServerProxyTest : public EdgeServerTest {
 protected:
  config::v1::EdgeConfig Config() override {
    config::v1::EdgeConfig config = EdgeServerTest::Config();
    config::v1::Egress& egress = *config.mutable_deployment()->mutable_egress();
    egress.add_upstream_networks("192.0.2.0/24");
    egress.mutable_proxy()->set_url(proxy_.url());
    egress.mutable_proxy()->add_no_proxy(".invalid");
    egress.mutable_proxy()->set_username("gate");
    egress.mutable_proxy()->set_password_file(directory_.Write("password", "hunter2\n"));
    std::filesystem::permissions(directory_.File("password"), std::filesystem::perms::owner_read);
    return config;
  }
  EdgeServerProxyTest() {
    Add("far", absl::StrCat("http://192.0.2.1:", upstream_.port(), "/up"));
    Add("outside", "https://api.example.com/mcp");
    Add("direct", "https://mcp.invalid/mcp");
    for (size_t i = 0; i < kRefused.size(); ++i) Add(absl::StrCat("refused", i), kRefused[i]);
  }
  void Add(const std::string& slug, const std::string& url) {
    registry_.Put(FromJson<registry::v1::McpServer>(
        absl::StrCat(R"({"uid":"srv_)", slug, R"(","slug":")", slug, R"(","version":"1","upstreamUrl":")", url,
                     R"(","agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}}})")));
  }

  // Addresses that the rules forbid, other spellings of them, and what the rules cannot judge by a name.
  const std::vector<std::string> kRefused = {
      "https://169.254.169.254/",
      "https://10.0.0.1/",
      "http://8.8.8.8/",
      "https://2130706433/",
      "https://0x7f000001/",
      "https://0x7f.1/",
      "https://127.1/",
      "https://0177.0.0.1/",
      "https://127.0.0.1./",
      "https://localhost./",
      "https://[::ffff:169.254.1.1]/",
      "https://metadata.google.internal/",
      "http://api.example.com/",
      "https://api.example.com:22/",
      "https://[64:ff9b::a9fe:a9fe]/",
  };
  ConnectProxy proxy_;
};

TEST_F(EdgeServerProxyTest, CallsGoThroughOneTunnel) {
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Post("far").status, 200);
  EXPECT_THAT(proxy_.heads(), ElementsAre(HasSubstr("Proxy-Authorization: Basic Z2F0ZTpodW50ZXIy\r\n")));
  EXPECT_THAT(LastUpstream(), Not(HasSubstr("roxy-")));
}

TEST_F(EdgeServerProxyTest, LoopbackIsReachedDirectly) {
  EXPECT_EQ(Post("through").status, 200);
  EXPECT_EQ(proxy_.connections(), 0);
}

TEST_F(EdgeServerProxyTest, NamesOfNoProxyAreResolvedHere) {
  const Reply reply = Post("direct");
  EXPECT_GE(reply.status, 502);
  EXPECT_THAT(reply.Reason(), StartsWith("upstream_"));
  EXPECT_EQ(proxy_.connections(), 0);
}

TEST_F(EdgeServerProxyTest, NamesAreGivenToTheProxyAsTheyAre) {
  Post("outside");  // Nobody listens on that port here.
  ASSERT_FALSE(proxy_.heads().empty());
  EXPECT_THAT(proxy_.heads()[0], StartsWith("CONNECT api.example.com:443 HTTP/1.1\r\n"));
}

TEST_F(EdgeServerProxyTest, WhatTheRulesForbidReachesNeitherProxyNorHost) {
  for (size_t i = 0; i < kRefused.size(); ++i) {
    const Reply reply = Post(absl::StrCat("refused", i));
    EXPECT_GE(reply.status, 502) << kRefused[i];
  }
  EXPECT_THAT(proxy_.heads(), IsEmpty());
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

class EdgeServerRefusingProxyTest : public EdgeServerProxyTest {
 protected:
  config::v1::EdgeConfig Config() override {
    config::v1::EdgeConfig config = EdgeServerProxyTest::Config();
    config.mutable_deployment()->mutable_egress()->mutable_proxy()->set_url(refusing_.url());
    return config;
  }
  ConnectProxy refusing_{[](const std::string& /*head*/) {
    return "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"x\"\r\n\r\n";
  }};
};

TEST_F(EdgeServerRefusingProxyTest, AWrongPasswordIsNamedToCallerAndAudit) {
  const Reply reply = Post("far");
  EXPECT_EQ(reply.status, 502);
  EXPECT_EQ(reply.Reason(), "proxy_unauthorized");
  EXPECT_THAT(reply.body, HasSubstr("the egress proxy opened no connection to the upstream"));
  EXPECT_THAT(reply.head, Not(HasSubstr("Proxy-Authenticate")));
  EXPECT_THAT(upstream_.requests(), IsEmpty());
  ASSERT_FALSE(Events(1).empty());
}

}  // namespace
}  // namespace sallyport::edge

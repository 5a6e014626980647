// SPDX-License-Identifier: Apache-2.0
#include "common/http/egress_proxy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/http/url.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr char kUrl[] = "http://proxy.example:3128";

std::vector<std::string> Fields(const absl::Status& status) {
  std::vector<std::string> fields;
  for (const auto& violation : DetailOf(status).violations) fields.push_back(violation.field);
  return fields;
}

std::shared_ptr<const EgressProxy> Proxy(const std::vector<std::string>& no_proxy = {}) {
  auto proxy = EgressProxy::Create({.url = kUrl, .no_proxy = no_proxy}, "proxy");
  EXPECT_THAT(proxy, IsOk());
  return *std::move(proxy);
}

TEST(EgressProxyTest, AddressIsHttpWithPort) {
  for (const char* good : {kUrl, "http://Proxy.example:3128", "http://10.0.0.1:80", "http://[fd00::1]:3128",
                           "http://127.0.0.1:1", "http://localhost:3128"}) {
    EXPECT_THAT(EgressProxy::Create({.url = good}, "proxy"), IsOk()) << good;
  }
  for (const char* bad :
       {"", "proxy.example:3128", "http://proxy.example", "https://proxy.example:3128", "http://proxy.example:3128/",
        "http://proxy.example:3128/x", "http://proxy.example:3128?x", "http://ann:pw@proxy.example:3128",
        "socks5://proxy.example:1080", "http://proxy.example:0", "http://169.254.169.254:80", "http://2130706433:80"}) {
    EXPECT_THAT(Fields(EgressProxy::Create({.url = bad}, "proxy").status()), ElementsAre("proxy.url")) << bad;
  }
}

TEST(EgressProxyTest, NamesEachWrongEntryOfNoProxy) {
  for (const char* bad :
       {"", ".", "*", "*.example.com", "example.com:443", "http://example.com", "10.0.0.1/8", "10.0.0.0/33", "[::1]",
        "example.com.", "a b", "127.1", "0x7f000001", "example.com/8", "..example.com", ".10.0.0.1"}) {
    EXPECT_THAT(Fields(EgressProxy::Create({.url = kUrl, .no_proxy = {"good.example", bad}}, "proxy").status()),
                ElementsAre("proxy.noProxy[1]"))
        << bad;
  }
}

TEST(EgressProxyTest, CoversAllButNoProxy) {
  const auto proxy = Proxy({"Git.example", ".internal", "192.0.2.7", "10.0.0.0/8", "fd00::/8"});
  for (const char* direct : {"git.example", "a.internal", "b.a.internal", "192.0.2.7", "10.1.2.3", "fd12::1"}) {
    EXPECT_FALSE(proxy->Covers(direct)) << direct;
  }
  for (const char* covered : {"example", "a.git.example", "xgit.example", "internal", "ainternal", "a.internal.example",
                              "192.0.2.8", "11.0.0.1", "fc00::1", "api.example.com"}) {
    EXPECT_TRUE(proxy->Covers(covered)) << covered;
  }
}

TEST(EgressProxyTest, NeverGetsLoopback) {
  const auto proxy = Proxy();
  for (const char* own : {"localhost", "a.localhost", "127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1",
                          "localhost.localdomain", "ip6-localhost", "localhost6"}) {
    EXPECT_FALSE(proxy->Covers(own)) << own;
  }
}

TEST(EgressProxyTest, AuthenticatesWithBasic) {
  EXPECT_TRUE(Proxy()->authorization().empty());
  auto proxy = EgressProxy::Create({.url = kUrl, .username = "Aladdin", .password = Secret("open sesame")}, "proxy");
  ASSERT_THAT(proxy, IsOk());
  EXPECT_EQ((*proxy)->authorization().Expose(), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");  // RFC 7617 section 2
  for (const char* bad : {"a:b", "a\nb", "a\r\nX: y"}) {
    EXPECT_THAT(Fields(EgressProxy::Create({.url = kUrl, .username = bad, .password = Secret("pw")}, "proxy").status()),
                ElementsAre("proxy.username"));
  }
  const absl::Status status =
      EgressProxy::Create({.url = kUrl, .username = "ann", .password = Secret("sec\nret")}, "proxy").status();
  EXPECT_THAT(Fields(status), ElementsAre("proxy.passwordFile"));
  EXPECT_EQ(std::string(status.message()).find("sec"), std::string::npos);
}

class ProxiedPolicyTest : public ::testing::Test {
 protected:
  static EgressPolicy Policy(std::vector<Network> networks) {
    return EgressPolicy(std::move(networks), EgressPolicy::PlainHttp::kPrivateNetworks, Proxy({".internal"}));
  }
};

TEST_F(ProxiedPolicyTest, ChecksLiteralAddressesAndNamesBeforeTheProxyGetsThem) {
  const EgressPolicy policy = Policy(PrivateNetworks(false));
  for (const char* good : {"https://api.example.com/", "https://8.8.8.8/", "https://10.0.0.1/", "http://10.0.0.1:8080/",
                           "http://git.internal/"}) {
    EXPECT_THAT(policy.CheckUrl(*Url::Parse(good)), IsOk()) << good;
  }
  for (const char* bad : {"https://169.254.169.254/", "https://100.64.0.1/", "https://127.0.0.1/", "https://localhost/",
                          "https://x.localhost/", "https://metadata.google.internal/", "http://8.8.8.8/",
                          "https://api.example.com:22/", "https://[64:ff9b::a9fe:a9fe]/"}) {
    EXPECT_THAT(policy.CheckUrl(*Url::Parse(bad)), StatusIs(absl::StatusCode::kPermissionDenied)) << bad;
  }
}

TEST_F(ProxiedPolicyTest, RefusesPlainHttpToANameThatTheProxyResolves) {
  const absl::Status status = Policy(PrivateNetworks(true)).CheckUrl(*Url::Parse("http://mcp.example:3000/"));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kPermissionDenied));
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("noProxy"));
}

// What a resolver behind the proxy might take for an address never becomes a URL.
TEST_F(ProxiedPolicyTest, OddSpellingsOfAddressesAreNoHosts) {
  for (const char* odd :
       {"https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://127.1/", "https://0177.0.0.1/",
        "https://127.0.0.1./", "https://localhost./", "https://0/", "https://a.0x7f/", "https://[::ffff:127.0.0.1]/",
        "https://%6cocalhost/", "https://127.0.0.1%2eexample/"}) {
    EXPECT_THAT(Url::Parse(odd), StatusIs(absl::StatusCode::kInvalidArgument)) << odd;
  }
}

TEST_F(ProxiedPolicyTest, SaysWhichProxyLeadsWhere) {
  const EgressPolicy policy = Policy({});
  EXPECT_NE(policy.ProxyFor("api.example.com"), nullptr);
  EXPECT_EQ(policy.ProxyFor("git.internal"), nullptr);
  EXPECT_EQ(EgressPolicy().ProxyFor("api.example.com"), nullptr);
}

TEST(ConnectAuthorityTest, PutsIpv6InBrackets) {
  EXPECT_EQ(ConnectAuthority("api.example.com", 443), "api.example.com:443");
  EXPECT_EQ(ConnectAuthority("2001:db8::1", 8443), "[2001:db8::1]:8443");
}

}  // namespace
}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/edge_options.h"

#include <gmock/gmock.h>

namespace sallyport::edge {
namespace {

SiteOptions Site(const std::string& url = "https://gw.example.com", bool loopback = false) {
  SiteOptions site;
  site.public_url = url;
  site.public_host = url.substr(url.find("//") + 2);
  site.public_is_loopback = loopback;
  site.hosts = {site.public_host, "internal:8443"};
  site.allowed_origins = {"https://app.example.com"};
  site.hosted_client_origins = HostedClientOrigins({});
  site.trusted_proxies = *ParseNetworks({"10.0.0.0/8", "2001:db8::/32"}, "x");
  return site;
}

RequestHead Head(const std::vector<std::string>& forwarded) {
  RequestHead head;
  for (const std::string& value : forwarded) {
    head.field_storage[head.field_count++] = {"X-Forwarded-For", value, HeaderId::kXForwardedFor};
  }
  return head;
}

std::string Client(const std::string& peer, const std::vector<std::string>& forwarded) {
  return ClientAddressText(Site(), *NetworkAddress::Parse(peer), Head(forwarded));
}

TEST(EdgeOptions, HostMustBeOneOfOurs) {
  const SiteOptions site = Site();
  for (const char* host : {"gw.example.com", "GW.Example.com", "internal:8443"}) {
    RequestHead head;
    head.host = host;
    EXPECT_TRUE(HostAllowed(site, head)) << host;
  }
  for (const char* host : {"", "evil.example", "gw.example.com:8443", "gw.example.com.", "gw.example.com.evil.example",
                           "internal", "gw.example.co", "127.0.0.1"}) {
    RequestHead head;
    head.host = host;
    EXPECT_FALSE(HostAllowed(site, head)) << host;
  }
}

constexpr OriginRule kOwn = OriginRule::kOwn;
constexpr OriginRule kBearer = OriginRule::kBearer;

google::protobuf::RepeatedPtrField<std::string> List(const std::vector<std::string>& texts) {
  return {texts.begin(), texts.end()};
}

TEST(EdgeOptions, OriginMustBeOursOrAllowed) {
  const SiteOptions site = Site();
  for (const char* origin : {"https://gw.example.com", "https://app.example.com"}) {
    EXPECT_TRUE(OriginAllowed(site, origin, kOwn)) << origin;
    EXPECT_TRUE(OriginAllowed(site, origin, kBearer)) << origin;
  }
  for (const char* origin : {"", "null", "http://gw.example.com", "https://gw.example.com:444",
                             "https://gw.example.com/", "https://evil.example", "https://gw.example.com.evil.example",
                             "http://localhost:3000", "http://127.0.0.1", "https://APP.example.com"}) {
    EXPECT_FALSE(OriginAllowed(site, origin, kOwn)) << origin;
    EXPECT_FALSE(OriginAllowed(site, origin, kBearer)) << origin;
    EXPECT_TRUE(OriginAllowed(site, origin, OriginRule::kAny)) << origin;
  }
}

TEST(EdgeOptions, HostedClientsMayCallWhatDemandsATokenOnly) {
  SiteOptions site = Site();
  for (const char* origin : {"https://claude.ai", "https://claude.com", "https://chatgpt.com", "https://vscode.dev",
                             "https://insiders.vscode.dev", "https://www.cursor.com"}) {
    EXPECT_TRUE(OriginAllowed(site, origin, kBearer)) << origin;
    EXPECT_FALSE(OriginAllowed(site, origin, kOwn)) << origin;
  }
  for (const char* origin :
       {"http://claude.ai", "https://claude.ai:8443", "https://claude.ai.evil.example", "https://x.claude.ai",
        "https://claude.ai/", "https://cursor.com", "https://evil.vscode.dev", "https://chatgpt.com."}) {
    EXPECT_FALSE(OriginAllowed(site, origin, kBearer)) << origin;
  }
  site.hosted_client_origins = HostedClientOrigins(List({"https://chat.example.com"}));
  EXPECT_TRUE(OriginAllowed(site, "https://chat.example.com", kBearer));
  EXPECT_FALSE(OriginAllowed(site, "https://claude.ai", kBearer)) << "the setting replaces the list";
  site.hosted_client_origins = HostedClientOrigins(List({"none"}));
  EXPECT_FALSE(OriginAllowed(site, "https://claude.ai", kBearer));
  EXPECT_FALSE(OriginAllowed(site, "none", kBearer));
}

TEST(EdgeOptions, TheRefusalNamesTheOriginAndTheSetting) {
  using ::testing::AllOf;
  using ::testing::HasSubstr;
  using ::testing::Not;
  EXPECT_THAT(ForeignOriginMessage("https://claude.ai", kOwn),
              AllOf(HasSubstr("the origin https://claude.ai "), HasSubstr("deployment.allowedOrigins"),
                    Not(HasSubstr("hostedClientOrigins"))));
  EXPECT_THAT(ForeignOriginMessage("vscode-webview://1kq0", kBearer),
              AllOf(HasSubstr("the origin vscode-webview://1kq0 "), HasSubstr("deployment.hostedClientOrigins")));
  EXPECT_THAT(ForeignOriginMessage("null", kOwn), HasSubstr("the origin null "));
  EXPECT_THAT(ForeignOriginMessage("", kOwn), HasSubstr("an empty Origin "));
  const std::string long_one = "https://" + std::string(5000, 'a');
  for (const std::string& hostile : {std::string("https://x\"><script>"), std::string("https://x\xff"), long_one,
                                     std::string("https://x, add me to allowedOrigins")}) {
    const std::string message = ForeignOriginMessage(hostile, kOwn);
    EXPECT_THAT(message, HasSubstr("a malformed Origin "));
    EXPECT_LT(message.size(), 200U);
  }
}

TEST(EdgeOptions, LoopbackOriginsGoWhereWeAreLoopbackOurselves) {
  const SiteOptions site = Site("http://127.0.0.1:8080", true);
  for (const char* origin :
       {"http://127.0.0.1:8080", "http://localhost:3000", "http://127.0.0.9", "http://[::1]:5173"}) {
    EXPECT_TRUE(OriginAllowed(site, origin, kOwn)) << origin;
  }
  for (const char* origin : {"", "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example",
                             "http://evil.example", "http://localhost:3000/", "http://192.168.0.1", "file://"}) {
    EXPECT_FALSE(OriginAllowed(site, origin, kOwn)) << origin;
  }
}

TEST(EdgeOptions, ForwardedForIsBelievedOfTrustedProxiesOnly) {
  EXPECT_EQ(Client("203.0.113.9", {"198.51.100.1"}), "203.0.113.9");
  EXPECT_EQ(Client("10.0.0.1", {}), "10.0.0.1");
  EXPECT_EQ(Client("10.0.0.1", {"198.51.100.1"}), "198.51.100.1");
  EXPECT_EQ(Client("2001:db8::1", {"198.51.100.1"}), "198.51.100.1");
}

TEST(EdgeOptions, TheRightmostAddressThatIsNoProxyIsTheClient) {
  EXPECT_EQ(Client("10.0.0.1", {"1.1.1.1, 198.51.100.1, 10.0.0.2"}), "198.51.100.1")
      << "the left part is the client's say";
  EXPECT_EQ(Client("10.0.0.1", {"1.1.1.1", "198.51.100.1 ,10.0.0.2"}), "198.51.100.1") << "several fields are one list";
  EXPECT_EQ(Client("10.0.0.1", {"10.0.0.3, 10.0.0.2"}), "10.0.0.3");
}

TEST(EdgeOptions, CommonFormsOfForwardedForAreRead) {
  for (const char* hop : {"198.51.100.1", "198.51.100.1:80", "198.51.100.1:65535", "\t198.51.100.1:4711 ",
                          "::ffff:198.51.100.1", "[::ffff:198.51.100.1]:80"}) {
    EXPECT_EQ(Client("10.0.0.1", {std::string("1.1.1.1, ") + hop}), "198.51.100.1") << hop;
    EXPECT_EQ(Client("10.0.0.1", {std::string("1.1.1.1, ") + hop + ", 10.0.0.2:1234, [2001:db8::7]"}), "198.51.100.1")
        << hop;
  }
  for (const char* hop : {"2620:0:2d0:200::7", "[2620:0:2d0:200::7]", "[2620:0:2d0:200::7]:443"}) {
    EXPECT_EQ(Client("10.0.0.1", {std::string("1.1.1.1, ") + hop}), "2620:0:2d0:200::7") << hop;
  }
}

TEST(EdgeOptions, AnUnreadableHopMakesTheClientUnknown) {
  for (const char* garbage : {"",
                              ",",
                              "unknown",
                              "_hidden",
                              "_obf:80",
                              "198.51.100.1:",
                              "198.51.100.1:x",
                              "198.51.100.1:_p",
                              "198.51.100.1:123456",
                              "[198.51.100.1]",
                              "[2001::1",
                              "[2001::1]x",
                              "[2001::1]:",
                              "2001::1]",
                              "[]",
                              "198.51.100",
                              "%00",
                              "1.2.3.4.5",
                              "fe80::1%eth0",
                              "\"198.51.100.1\"",
                              "for=198.51.100.1",
                              "client.example"}) {
    EXPECT_EQ(Client("10.0.0.1", {std::string("10.9.9.9, ") + garbage}), "unknown") << garbage;
    EXPECT_EQ(Client("10.0.0.1", {"10.9.9.9", garbage, "10.0.0.2"}), "unknown") << garbage;
    EXPECT_EQ(Client("10.0.0.1", {std::string("10.9.9.9, ") + garbage + ", 198.51.100.1"}), "198.51.100.1") << garbage;
  }
  EXPECT_FALSE(ClientAddress(Site(), *NetworkAddress::Parse("10.0.0.1"), Head({"unknown"})).has_value());
}

TEST(EdgeOptions, OnlyPostHasABody) {
  RequestHead head;
  for (const char* method : {"GET", "HEAD", "DELETE", "OPTIONS", "PUT", "POST"}) {
    head.method = method;
    head.framing = BodyFraming::kNone;
    EXPECT_TRUE(BodyAllowed(head)) << method;
    for (BodyFraming framing : {BodyFraming::kLength, BodyFraming::kChunked}) {
      head.framing = framing;
      EXPECT_EQ(BodyAllowed(head), head.method == "POST") << method;
    }
  }
}

}  // namespace
}  // namespace sallyport::edge

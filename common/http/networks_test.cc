// SPDX-License-Identifier: Apache-2.0
#include "common/http/networks.h"

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/error.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using testing::IsOk;
using testing::StatusIs;

IpAddress Ip(const std::string& text) { return *IpAddress::Parse(text); }
std::vector<Network> Nets(const std::vector<std::string>& texts) { return *ParseNetworks(texts, "test"); }

TEST(IpAddressTest, ParsesStrictly) {
  EXPECT_EQ(Ip("2001:DB8:0:0::1").ToString(), "2001:db8::1");
  EXPECT_EQ(Ip("::ffff:10.0.0.1"), Ip("10.0.0.1"));
  EXPECT_TRUE(Ip("127.8.9.1").is_loopback());
  EXPECT_TRUE(Ip("::1").is_loopback());
  EXPECT_FALSE(Ip("::2").is_loopback());
  for (const char* text : {"", "1.2.3", "1.2.3.4.5", "01.2.3.4", "1.2.3.256", "1.2.3.4 ", "0x1.2.3.4", "::1%lo",
                           ":::", "fe80", "1::2::3", "[::1]"}) {
    SCOPED_TRACE(text);
    EXPECT_THAT(IpAddress::Parse(text), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  EXPECT_FALSE(IpAddress::Parse(absl::string_view("1.2.3.4\0x", 9)).ok());
}

TEST(NetworkTest, ContainsExactlyItsBlock) {
  ASSERT_OK_AND_ASSIGN(const Network network, Network::Parse("172.16.0.0/12"));
  EXPECT_TRUE(network.Contains(Ip("172.16.0.0")));
  EXPECT_TRUE(network.Contains(Ip("172.31.255.255")));
  EXPECT_TRUE(network.Contains(Ip("::ffff:172.20.1.1")));
  EXPECT_FALSE(network.Contains(Ip("172.15.255.255")));
  EXPECT_FALSE(network.Contains(Ip("172.32.0.0")));
  EXPECT_FALSE(network.Contains(Ip("ac10::")));
  EXPECT_TRUE(Network::Parse("0.0.0.0/0")->Contains(Ip("8.8.8.8")));
  EXPECT_FALSE(Network::Parse("0.0.0.0/0")->Contains(Ip("::1")));
  EXPECT_TRUE(Network::Parse("::1")->Contains(Ip("::1")));
  EXPECT_EQ(Network::Parse("192.0.2.7")->ToString(), "192.0.2.7/32");
}

TEST(NetworkTest, RefusesMalformedBlocks) {
  for (const char* text : {"", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/08", "10.0.0.1/8", "10.0.0.0/8 ",
                           "::/129", "fc00::1/7", "10.0.0.0/8/8", "example.com/8", "/8"}) {
    SCOPED_TRACE(text);
    EXPECT_THAT(Network::Parse(text), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  EXPECT_THAT(ParseNetworks({"10.0.0.0/8", "x"}, "egress.oauth_networks"),
              StatusIs(absl::StatusCode::kInvalidArgument, "egress.oauth_networks[1]"));
}

TEST(EgressPolicyTest, OAuthDefaultReachesPublicAddressesOverHttpsOnly) {  // S1
  const EgressPolicy policy;
  for (const char* address :
       {"8.8.8.8", "1.1.1.1", "172.15.0.1", "172.32.0.1", "100.63.255.255", "2606:4700::1", "2a00::1"}) {
    SCOPED_TRACE(address);
    EXPECT_TRUE(policy.MayDial(Ip(address), true));
    EXPECT_FALSE(policy.MayDial(Ip(address), false));
  }
  for (const char* address : {"0.0.0.0",       "0.1.2.3",         "10.0.0.1",    "100.64.0.1",
                              "127.0.0.1",     "127.255.255.255", "169.254.1.1", "169.254.169.254",
                              "172.16.0.1",    "172.31.255.255",  "192.0.0.1",   "192.0.2.1",
                              "192.88.99.1",   "192.168.0.1",     "198.18.0.1",  "198.19.255.255",
                              "198.51.100.1",  "203.0.113.1",     "224.0.0.1",   "239.1.1.1",
                              "240.0.0.1",     "255.255.255.255", "::",          "::1",
                              "::7f00:1",      "::ffff:10.0.0.1", "::ffff:8:8",  "64:ff9b::808:808",
                              "64:ff9b:1::1",  "100::1",          "2001::1",     "2001:db8::1",
                              "2002:0a00:1::", "3fff::1",         "5f00::1",     "fc00::1",
                              "fd00:ec2::254", "fe80::1",         "fec0::1",     "ff02::1",
                              "168.63.129.16", "100.100.100.200"}) {
    SCOPED_TRACE(address);
    EXPECT_FALSE(policy.MayDial(Ip(address), true));
  }
}

TEST(EgressPolicyTest, NeverDialledAddressesCannotBeAllowed) {
  const EgressPolicy policy(Nets({"0.0.0.0/0", "::/0"}), EgressPolicy::PlainHttp::kPrivateNetworks);
  for (const char* address : {"169.254.169.254", "169.254.0.1", "fe80::1", "fd00:ec2::254", "fd20:ce::254", "0.0.0.0",
                              "::", "224.0.0.1", "ff02::1", "255.255.255.255", "168.63.129.16", "100.100.100.200",
                              "192.0.0.192", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe"}) {
    SCOPED_TRACE(address);
    EXPECT_FALSE(policy.MayDial(Ip(address), true));
  }
  EXPECT_TRUE(policy.MayDial(Ip("10.0.0.1"), true));
}

TEST(EgressPolicyTest, UpstreamsReachPrivateNetworksAlsoOverHttp) {
  const EgressPolicy policy(PrivateNetworks(false), EgressPolicy::PlainHttp::kPrivateNetworks);
  EXPECT_TRUE(policy.MayDial(Ip("10.1.2.3"), false));
  EXPECT_TRUE(policy.MayDial(Ip("fd00::1"), false));
  EXPECT_TRUE(policy.MayDial(Ip("8.8.8.8"), true));
  EXPECT_FALSE(policy.MayDial(Ip("8.8.8.8"), false));
  EXPECT_FALSE(policy.MayDial(Ip("127.0.0.1"), true));
  EXPECT_FALSE(policy.MayDial(Ip("100.64.0.1"), true));
}

TEST(EgressPolicyTest, LoopbackHttpNeedsLoopbackNamed) {
  const EgressPolicy policy(Nets({"127.0.0.0/8", "10.0.0.0/8"}), EgressPolicy::PlainHttp::kLoopback);
  EXPECT_TRUE(policy.MayDial(Ip("127.0.0.1"), false));
  EXPECT_TRUE(policy.MayDial(Ip("10.0.0.1"), true));
  EXPECT_FALSE(policy.MayDial(Ip("10.0.0.1"), false));
  EXPECT_FALSE(policy.MayDial(Ip("::1"), false));
}

TEST(EgressPolicyTest, UrlsAreRefusedBeforeAnyNameIsResolved) {  // S2, S6
  const EgressPolicy policy;
  for (const char* text : {"http://example.com/", "https://127.0.0.1/", "https://[::1]/", "https://10.0.0.1/",
                           "https://localhost/", "https://a.localhost/", "http://localhost/",
                           "https://metadata.google.internal/", "https://169.254.169.254/", "https://example.com:22/",
                           "https://example.com:25/", "https://example.com:6379/", "https://example.com:5432/"}) {
    SCOPED_TRACE(text);
    const absl::Status status = policy.CheckUrl(*Url::Parse(text));
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kPermissionDenied));
    EXPECT_EQ(ReasonOf(status), "network_not_allowed");
  }
  EXPECT_THAT(policy.CheckUrl(*Url::Parse("https://example.com/")), IsOk());
  EXPECT_THAT(policy.CheckUrl(*Url::Parse("https://8.8.8.8:8443/")), IsOk());
  const EgressPolicy local(PrivateNetworks(true), EgressPolicy::PlainHttp::kPrivateNetworks);
  for (const char* text :
       {"http://localhost:3000/", "http://127.0.0.1:3000/", "http://mcp:3000/", "http://10.0.0.1/"}) {
    SCOPED_TRACE(text);
    EXPECT_THAT(local.CheckUrl(*Url::Parse(text)), IsOk());
  }
}

}  // namespace
}  // namespace sallyport

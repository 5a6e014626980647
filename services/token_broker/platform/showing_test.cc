// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/showing.h"

#include <gtest/gtest.h>

namespace sallyport::token_broker {
namespace {

TEST(CountedHostTest, PortsAreOfOneHost) {
  EXPECT_EQ(CountedHost("ipv4:192.0.2.1:4321"), "ipv4:192.0.2.1");
  EXPECT_NE(CountedHost("ipv4:192.0.2.1:4321"), CountedHost("ipv4:192.0.2.2:4321"));
}

TEST(CountedHostTest, WhoHasOneIpv6AddressHasItsNetwork) {
  const std::string one = CountedHost("ipv6:[2001:db8:1:2::3]:4321");
  EXPECT_EQ(one, "ipv6:2001:db8:1:2::");
  EXPECT_EQ(CountedHost("ipv6:%5B2001:db8:1:2:ffff::1%5D:99"), one);
  EXPECT_NE(CountedHost("ipv6:[2001:db8:1:3::3]:4321"), one);
}

TEST(CountedHostTest, WhatIsNoAddressIsItself) {
  EXPECT_EQ(CountedHost("ipv6:[fe80::1%25eth0]:1"), "ipv6:[fe80::1%25eth0]");
  EXPECT_EQ(CountedHost("unix"), CountedHost("unix"));
}

}  // namespace
}  // namespace sallyport::token_broker

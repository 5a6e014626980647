// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/link_return.h"

#include <gtest/gtest.h>

namespace sallyport::token_broker {
namespace {

TEST(LinkReturnTest, OnlyToOriginsThatTheServerNames) {
  registry::v1::McpServer server;
  EXPECT_FALSE(MayReturnTo(server, "https://chat.example.com/"));
  server.mutable_policy()->add_return_origins("https://chat.example.com");
  for (const char* good : {"https://chat.example.com/", "https://chat.example.com/c/1?x=y#z",
                           "https://CHAT.example.com:443/c", "https://chat.example.com"}) {
    EXPECT_TRUE(MayReturnTo(server, good)) << good;
  }
  for (const char* bad :
       {"", "/c/1", "//chat.example.com/", "http://chat.example.com/", "https://chat.example.com:8443/",
        "https://chat.example.com.evil.example/", "https://chat.example.com@evil.example/",
        "https://evil.example/https://chat.example.com", "https://chat.example.com\\@evil.example/",
        "javascript:alert(1)", "data:text/html,x", "https:///chat.example.com", "https://chat.example.com\r\nX: y",
        " https://chat.example.com/"}) {
    EXPECT_FALSE(MayReturnTo(server, bad)) << bad;
  }
  EXPECT_FALSE(MayReturnTo(server, "https://chat.example.com/" + std::string(3000, 'a')));
}

}  // namespace
}  // namespace sallyport::token_broker

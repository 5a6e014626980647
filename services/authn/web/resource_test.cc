// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/resource.h"

#include <gtest/gtest.h>

namespace sallyport::authn::web {
namespace {

TEST(ResourceTest, QuerySlashCaseAndPortMakeNoOtherServer) {
  for (const char* same : {"https://gw.example.com/mcp/github", "https://gw.example.com/mcp/github/",
                           "https://gw.example.com/mcp/github?", "https://gw.example.com/mcp/github?tenant=a&x=%20",
                           "https://gw.example.com/mcp/github/?x", "HTTPS://GW.example.com:443/mcp/github"}) {
    EXPECT_EQ(NormalizeResource(same), "https://gw.example.com/mcp/github") << same;
  }
  for (const char* other :
       {"https://gw.example.com/mcp/GitHub", "https://gw.example.com/mcp/github//", "http://gw.example.com/mcp/github",
        "https://gw.example.com:8443/mcp/github", "https://gw.example.com/mcp/%67ithub",
        "https://gw.example.com/x?/mcp/github", "https://evil.example/mcp/github"}) {
    EXPECT_NE(NormalizeResource(other), "https://gw.example.com/mcp/github") << other;
  }
  for (const char* none : {"https://gw.example.com/mcp/github#x", "https://ann@gw.example.com/mcp/github", "github", "",
                           "https://gw.example.com/mcp/../mcp/github", "urn:x"}) {
    EXPECT_EQ(NormalizeResource(none), "") << none;
  }
}

TEST(ResourceTest, OnlyOurOwnBareOriginNamesNoServer) {
  constexpr char kUs[] = "https://gw.example.com";
  for (const char* none : {"", "https://gw.example.com", "https://gw.example.com/", "HTTPS://GW.EXAMPLE.COM:443/",
                           "https://gw.example.com/?x=1"}) {
    EXPECT_TRUE(NamesNoServer(none, kUs)) << none;
  }
  for (const char* some :
       {"https://evil.example", "https://evil.example/", "http://gw.example.com", "https://gw.example.com:8443",
        "https://gw.example.com/mcp", "https://gw.example.com/api", "https://gw.example.com/#x", "nonsense", " "}) {
    EXPECT_FALSE(NamesNoServer(some, kUs)) << some;
  }
}

}  // namespace
}  // namespace sallyport::authn::web

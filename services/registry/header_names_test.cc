// SPDX-License-Identifier: Apache-2.0
#include "services/registry/header_names.h"

#include <gmock/gmock.h>

namespace sallyport::registry {
namespace {

TEST(HeaderNames, AreThoseTheEdgeCompiles) {
  const std::string longest(128, 'x');
  EXPECT_TRUE(IsHeaderName(longest));
  EXPECT_TRUE(IsHeaderName("X-Api_Key"));
  for (const std::string& name : {longest + "x", std::string("X-*"), std::string("X Key"), std::string("X-Key?"),
                                  std::string("X-\xc3\xbc"), std::string()}) {
    EXPECT_FALSE(IsHeaderName(name)) << name;
  }
  EXPECT_TRUE(IsHeaderGlob(std::string(127, 'x') + "*"));
  EXPECT_FALSE(IsHeaderGlob(longest + "*"));
}

TEST(HeaderNames, SchemesThatAuthenticateAConnectionAreKnown) {
  for (const char* scheme : {"NTLM", "Negotiate ", " negotiate", "kerberos", "Nego2"}) {
    EXPECT_TRUE(IsConnectionScheme(scheme)) << scheme;
  }
  for (const char* scheme : {"", " ", "Bearer ", "NTLMx", "Basic"}) EXPECT_FALSE(IsConnectionScheme(scheme)) << scheme;
}

TEST(HeaderNames, FieldsOfOneConnectionAndThoseOthersOwnAreReserved) {
  for (const char* name : {"Host", "Content_Length", "Connection", "HTTP2-Settings", "Te", "X-Forwarded-For",
                           "Mcp-Name", "x_sallyport_user", ":path"}) {
    EXPECT_TRUE(IsReservedOutboundName(name)) << name;
  }
  for (const char* name : {"Authorization", "X-Api-Key", "X-Host", "mcp", "X-Forwarded-User", "x_forwarded_email",
                           "Remote-User", "Impersonate-User"}) {
    EXPECT_FALSE(IsReservedOutboundName(name)) << name;
  }
}

}  // namespace
}  // namespace sallyport::registry

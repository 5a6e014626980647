// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/local_programs.h"

#include <gtest/gtest.h>

namespace sallyport::authn::web {
namespace {

TEST(LocalProgramTest, LoopbackPrivateSchemesAndRelaysLeadToOne) {
  for (const char* uri : {"http://127.0.0.1:5/cb",
                          "http://localhost/callback",
                          "http://[::1]:80/cb",
                          "https://127.0.0.1/cb",
                          "https://localhost:8443/cb",
                          "https://app.localhost/cb",
                          "https://localhost./cb",
                          "https://127.9.9.9/cb",
                          "https://127.1/cb",
                          "https://0x7f000001/cb",
                          "https://2130706433/cb",
                          "https://0177.0.0.1/cb",
                          "https://127.0.0.0x1/cb",
                          "https://0.0.0.0/cb",
                          "https://[::]/cb",
                          "https://[::ffff:127.0.0.1]/cb",
                          "https://[0:0:0:0:0:0:0:1]/cb",
                          "cursor://anysphere.cursor-mcp/oauth/callback",
                          "com.example.app:/cb",
                          "vscode://x.y/z",
                          "https://vscode.dev/redirect",
                          "https://insiders.vscode.dev/redirect",
                          "https://vscode.dev/redirect?x=1",
                          "https://vscode.dev:443/redirect",
                          "https://vscode.dev./redirect",
                          "https://vscode.dev/%72edirect",
                          "https://vscode.dev/x/../redirect",
                          "not a uri",
                          ""}) {
    EXPECT_TRUE(LeadsToLocalProgram(uri)) << uri;
  }
}

TEST(LocalProgramTest, OtherHostsDoNot) {
  for (const char* uri :
       {"https://claude.ai/api/mcp/auth_callback", "https://chatgpt.com/connector/oauth/x", "https://client.example/cb",
        "https://localhost.example.com/cb", "https://127.0.0.1.nip.io/cb", "https://vscode.dev.example.com/redirect",
        "https://evilvscode.dev/redirect", "https://10.0.0.7/cb", "https://[2001:db8::1]/cb",
        "https://0x.example/cb"}) {
    EXPECT_FALSE(LeadsToLocalProgram(uri)) << uri;
  }
}

}  // namespace
}  // namespace sallyport::authn::web

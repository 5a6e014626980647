// SPDX-License-Identifier: Apache-2.0
// What goes upstream for each kind of credential, byte for byte: it stays so, whatever becomes of the code.
#include "absl/strings/str_replace.h"

#include "services/edge/edge_server_testing.h"

namespace sallyport::edge {
namespace {

class EdgeServerGoldenTest : public EdgeServerTest {
 protected:
  EdgeServerGoldenTest() {
    AddServer("both", "srv_org_both", R"("agentAuth":{"interactive":{}},"appAuth":{"apiKey":{"name":"X-Api-Key"}},
        "outboundHeaders":[{"name":"X-User","callerIdentity":{"claim":"sub"}},
                           {"name":"X-Mail","prefix":"mailto:","callerIdentity":{"claim":"email"}}])");
    AddServer("signin", "srv_signin", R"("agentAuth":{"interactive":{}},"appAuth":{"passthrough":{}},
        "outboundHeaders":[{"name":"X-Token","forwardCallerToken":{}}])");
    AddServer("bare", "srv_bare", R"("agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}},
        "outboundHeaders":[{"name":"X-Token","prefix":"Token ","forwardCallerToken":{}}])");
  }
  // The head that reached the upstream, its port aside.
  std::string Upstream(const std::string& slug, const std::vector<std::string>& fields) {
    std::vector<std::string> all = {"Content-Type: application/json", "Accept: application/json, text/event-stream",
                                    "User-Agent: probe", "Cookie: a=b", "X-Forwarded-For: 192.0.2.1"};
    all.insert(all.end(), fields.begin(), fields.end());
    const size_t before = upstream_.requests().size();
    const Reply reply = Post(slug, all);
    if (upstream_.requests().size() == before) return std::to_string(reply.status) + " " + reply.Reason();
    const std::string request = LastUpstream();
    return absl::StrReplaceAll(request.substr(0, request.find("\r\n\r\n")),
                               {{std::to_string(upstream_.port()), "PORT"}, {"\r\n", "\n"}});
  }
};

constexpr char kCommon[] = R"( HTTP/1.1
Host: 127.0.0.1:PORT
Content-Type: application/json
Accept: application/json, text/event-stream
User-Agent: probe
)";

TEST_F(EdgeServerGoldenTest, WhatGoesUpstream) {
  broker_.Link("ada");
  const auto sent = [](const std::string& target, const std::string& lines) {
    return absl::StrCat("POST ", target, kCommon, lines, "Content-Length: ", std::string(kCall).size());
  };
  EXPECT_EQ(Upstream("open", {"X-Api-Key: mine"}), sent("/up", "X-Api-Key: org-key\n"));
  EXPECT_EQ(Upstream("through", {"Authorization: Basic YTpi"}), sent("/up", "Authorization: Basic YTpi\n"));
  EXPECT_EQ(Upstream("through", {}), sent("/up", ""));
  EXPECT_EQ(Upstream("jwt", {Bearer("idp-ada")}), sent("/up", "Authorization: Bearer idp-ada\n"));
  EXPECT_EQ(Upstream("org", {Bearer("ours-ada")}), sent("/up", "X-Api-Key: org-key\n"));
  EXPECT_EQ(Upstream("agent", {Bearer("ours-ada"), "X-Sallyport-Authorization: Bearer x"}),
            sent("/up", "Authorization: Bearer x\n"));
  EXPECT_EQ(Upstream("user", {Bearer("ours-ada")}), sent("/up", "Authorization: Bearer app-token-of-ada-v1\n"));
  EXPECT_EQ(Upstream("claims", {Bearer("idp-ada"), "X-User: eve"}),
            sent("/up", "X-User: ada@example.com\nX-Token: Bearer idp-ada\n"));
  EXPECT_EQ(Upstream("both", {Bearer("ours-ada")}),
            sent("/up", "X-User: okta:ada\nX-Mail: mailto:ada@example.com\nX-Api-Key: org-key\n"));
  EXPECT_EQ(Upstream("signin", {Bearer("ours-ada"), "X-Sallyport-Authorization: Basic YTpi"}),
            sent("/up", "X-Token: sign-in-v1\nAuthorization: Basic YTpi\n"));
  EXPECT_EQ(Upstream("signin", {Bearer("idp-ada")}), sent("/up", "X-Token: idp-ada\n"));
  EXPECT_EQ(Upstream("bare", {Bearer("anything")}),
            sent("/up", "Authorization: Bearer anything\nX-Token: Token anything\n"));
  EXPECT_EQ(Upstream("bare", {}), "401 no_caller_token");
}

TEST_F(EdgeServerGoldenTest, AKeyInTheQuery) {
  broker_.SetKeyName("");
  const std::string sent = Upstream("query", {});
  EXPECT_EQ(sent.substr(0, sent.find('\n')), "POST /up?key=org-key HTTP/1.1");
}

}  // namespace
}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
// Callers whose identity provider wants them to agree to more before it gives a token for the server.
#include "services/edge/edge_server_testing.h"

namespace sallyport::edge {
namespace {

class EdgeServerConsentTest : public EdgeServerTest {
 protected:
  EdgeServerConsentTest() {
    AddServer("consent", "srv_consent", R"("agentAuth":{"interactive":{}},"appAuth":{"passthrough":{}},
        "outboundHeaders":[{"name":"X-Token","onBehalfOf":{"exchangeUrl":"https://idp.example.com/token",
            "clientId":"gateway","style":"ENTRA_OBO","scopes":["api://down/read"]}}])");
  }
};

TEST_F(EdgeServerConsentTest, GetTheLinkInTheFormTheirClientCanShow) {
  const Reply reply = Post("consent", {Bearer("ours-ada")}, ModernCall());
  EXPECT_EQ(reply.status, 200) << reply.body;
  const auto result = reply.Json()["result"];
  EXPECT_EQ(result["resultType"], "input_required");
  EXPECT_TRUE(result["inputRequests"].contains("sallyport_link_okta")) << reply.body;
  EXPECT_EQ(broker_.started().app_uid(), "sso:okta");
  EXPECT_EQ(broker_.started().claims(), R"({"a":1})") << "as the broker gave them";
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerConsentTest, ListingToolsWorks) {
  const Reply list = Post("consent", {Bearer("ours-ada")}, R"({"jsonrpc":"2.0","id":1,"method":"tools/list"})");
  EXPECT_EQ(list.Json()["result"]["tools"][0]["title"], "Connect okta") << list.body;
}

TEST_F(EdgeServerConsentTest, DecliningEndsTheCallAndNamesTheProvider) {
  ASSERT_EQ(Post("consent", {Bearer("ours-ada")}, ModernCall()).Json()["result"]["resultType"], "input_required");
  const Reply reply =
      Post("consent", {Bearer("ours-ada")},
           ModernCall(R"(,"requestState":"sp1.state","inputResponses":{"sallyport_link_okta":{"action":"decline"}})"));
  EXPECT_EQ(reply.Json()["result"]["isError"], true) << reply.body;
  EXPECT_THAT(reply.body, HasSubstr("The okta account was not connected"));
}

}  // namespace
}  // namespace sallyport::edge

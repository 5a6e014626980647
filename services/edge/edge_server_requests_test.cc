// SPDX-License-Identifier: Apache-2.0
#include "services/edge/edge_server_testing.h"

// Requests that a client may send and that must not reach an upstream as they came.
namespace sallyport::edge {
namespace {

TEST_F(EdgeServerTest, ABodyOnAnotherMethodThanPostIsRefusedAndNeverForwarded) {
  // An upstream that ignores it would take it for the next request on the connection.
  const std::string smuggled =
      "POST /up HTTP/1.1\r\nHost: a\r\nX-Api-Key: org-key\r\nRemote-User: root\r\nContent-Length: 0\r\n\r\n";
  for (const char* path : {"/mcp/through", "/mcp/open", "/mcp/org", "/login", "/api/x", "/nothing"}) {
    for (const char* method : {"GET", "DELETE", "OPTIONS", "PUT"}) {
      for (const std::string& request :
           {Render(method, path, {Bearer("ours-ada")}, smuggled),
            Render(method, path, {"Transfer-Encoding: chunked"}, "") + "1\r\nx\r\n0\r\n\r\n" + smuggled,
            Render(method, path, {"Transfer-Encoding: chunked"}, "") + "0\r\n\r\n" + smuggled}) {
        const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
        socket->Send(request);
        const std::string answers = socket->ReadToEnd();
        EXPECT_EQ(ParseReply(answers).status, 400) << request << answers;
        EXPECT_THAT(answers, HasSubstr("unexpected_body")) << request;
        EXPECT_EQ(answers.find("HTTP/1.1", 1), std::string::npos) << "one answer, and the end: " << answers;
      }
    }
  }
  EXPECT_THAT(upstream_.requests(), IsEmpty());
  EXPECT_THAT(authn_pages_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, AnEmptyBodyIsNone) {
  for (const char* method : {"GET", "DELETE"}) {
    EXPECT_EQ(Send(method, "/mcp/through", {"Content-Length: 0"}).status, 200) << method;
    EXPECT_THAT(LastUpstream(), Not(HasSubstr("Content-Length"))) << method;
  }
  EXPECT_EQ(Send("OPTIONS", "/mcp/through", {"Content-Length: 0"}).status, 204);
}

TEST_F(EdgeServerTest, ARefusedBodyIsRecorded) {
  Send("GET", "/mcp/through", {}, "body");
  const auto events = Events(1);
  ASSERT_THAT(events, SizeIs(1));
  EXPECT_EQ(events[0].rule(), "unexpected_body");
  EXPECT_EQ(events[0].status(), 400);
}

TEST_F(EdgeServerTest, AuthenticationOfTheConnectionIsRefused) {
  for (const char* value : {"NTLM TlRMTVNTUAABAAAA", "Negotiate YII=", "negotiate", "Kerberos x", "Bearer a, NTLM b"}) {
    for (const Reply& reply :
         {Post("through", {absl::StrCat("Authorization: ", value)}),
          Post("jwt", {absl::StrCat("Authorization: ", value)}), Post("org", {absl::StrCat("Authorization: ", value)}),
          Post("through", {absl::StrCat("X-Sallyport-Authorization: ", value)}),
          Post("agent", {Bearer("ours-ada"), absl::StrCat("X-Sallyport-Authorization: ", value)})}) {
      EXPECT_EQ(reply.status, 400) << value;
      EXPECT_EQ(reply.Reason(), "connection_authentication") << value;
      EXPECT_THAT(reply.body, HasSubstr("NTLM and Negotiate authenticate a connection"));
    }
  }
  EXPECT_THAT(upstream_.requests(), IsEmpty());
  EXPECT_EQ(edge_->authenticate_calls(), 0U);
  EXPECT_EQ(Post("through", {"Authorization: Basic bmVnb3RpYXRlOm50bG0="}).status, 200);
  EXPECT_EQ(Post("through", {"Authorization: Digest username=\"ntlm\", realm=\"negotiate\""}).status, 200);
}

TEST_F(EdgeServerTest, AConnectionThatOffersAuthenticationOfItselfIsNotUsedAgain) {
  SetAnswer([](const std::string&) { return Refusal("Negotiate\r\nWWW-Authenticate: Basic realm=\"up\""); });
  for (int i = 1; i <= 3; ++i) {
    EXPECT_EQ(Post("through").status, 401);
    EXPECT_EQ(upstream_.connections(), i);
  }
  SetAnswer(nullptr);
  EXPECT_EQ(Post("through").status, 200);
  EXPECT_EQ(Post("through").status, 200);
  EXPECT_EQ(upstream_.connections(), 4) << "others are";
}

TEST_F(EdgeServerTest, IdentityHeadersGoOnOnlyWhereThePolicySaysSo) {
  AddServer("trusting", "srv_trusting", R"("agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}},
      "policy":{"forwardIdentityHeaders":true})");
  AddServer("sets", "srv_sets", R"("agentAuth":{"interactive":{}},"appAuth":{"passthrough":{}},
      "outboundHeaders":[{"name":"X-Forwarded-User","callerIdentity":{"claim":"email"}}])");
  ASSERT_TRUE(Soon([&] { return Post("trusting").status == 200 && Post("sets").status == 401; }));
  const std::vector<std::string> fields = {"Remote-User: root", "X-Forwarded-User: root", "Impersonate-User: root",
                                           "Tailscale-User-Login: root"};
  EXPECT_EQ(Post("through", fields).status, 200);
  EXPECT_THAT(LastUpstream(), Not(HasSubstr("root")));
  EXPECT_EQ(Post("trusting", fields).status, 200);
  for (const std::string& field : fields) EXPECT_THAT(LastUpstream(), HasSubstr(field + "\r\n"));
  auto with_token = fields;
  with_token.push_back(Bearer("idp-ada"));
  EXPECT_EQ(Post("sets", with_token).status, 200);
  EXPECT_THAT(LastUpstream(), HasSubstr("\r\nX-Forwarded-User: ada@example.com\r\n"));
  EXPECT_THAT(LastUpstream(), Not(HasSubstr("root")));
}

TEST_F(EdgeServerTest, MembersThatAnotherReaderTakesForOursAreRefused) {
  const Reply reply = Post("open", {},
                           R"({"jsonrpc":"2.0","id":7,"method":"tools/list","METHOD":"tools/call",)"
                           R"("param\u017f":{"name":"delete_all"}})");
  EXPECT_EQ(reply.status, 400);
  EXPECT_EQ(reply.Reason(), "ambiguous_member");
  EXPECT_EQ(reply.Json()["error"]["code"], -32600);
  EXPECT_THAT(reply.body, HasSubstr(R"(\"method\")"));
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, ChunksWithMalformedExtensionsAreRefused) {
  for (const char* line : {"1;", "1;\"a\"", "1;a=\"x\r\ny\""}) {
    const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
    socket->Send("POST /mcp/open HTTP/1.1\r\nHost: gw.example.com\r\nTransfer-Encoding: chunked\r\n\r\n" +
                 std::string(line) + "\r\nx\r\n0\r\n\r\n");
    EXPECT_EQ(ParseReply(socket->ReadToEnd()).status, 400) << line;
  }
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, EveryAnswerToOptionsHasAllow) {
  EXPECT_EQ(Send("OPTIONS", "*").status, 204);
  for (const char* target : {"*", "/mcp/open", "/mcp/none", "/login", "/oauth/token", "/.well-known/x", "/nothing",
                             "/api/sallyport.registry.v1.Registry/Apply", "/api/none"}) {
    EXPECT_NE(Send("OPTIONS", target).Field("Allow"), "") << target;
    EXPECT_NE(Send("OPTIONS", target, {"Origin: https://app.example.com"}).Field("Allow"), "") << target;
    EXPECT_NE(Send("OPTIONS", target, {"Origin: https://evil.example"}).Field("Allow"), "") << target;
    EXPECT_NE(Send("OPTIONS", target, {"Host: evil.example"}).Field("Allow"), "") << target;
    EXPECT_NE(Send("OPTIONS", target, {}, "body").Field("Allow"), "") << target;
  }
  EXPECT_EQ(Send("GET", "*").status, 400);
}

TEST_F(EdgeServerTest, AnOfferOfHttp2IsIgnored) {
  const Reply reply =
      Post("through", {"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAA"});
  EXPECT_EQ(reply.status, 200);
  EXPECT_THAT(LastUpstream(), Not(HasSubstr("h2c")));
}

class BehindProxyTest : public EdgeServerTest {
 protected:
  config::v1::EdgeConfig Config() override {
    config::v1::EdgeConfig config = EdgeServerTest::Config();
    config.mutable_deployment()->add_trusted_proxies("127.0.0.0/8");
    return config;
  }
};

TEST_F(BehindProxyTest, ACallerOfUnknownAddressIsInNoNetworkAndServedElsewhere) {
  AddServer("local", "srv_local", R"("agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}},
      "policy":{"allowedClientNetworks":["0.0.0.0/0","::/0"]})");
  ASSERT_TRUE(Soon([&] { return Post("local").status == 200; }));
  const size_t before = Events(1).size();
  for (const char* unknown : {"unknown", "_obf", "127.0.0.1, unknown", "unknown, 127.0.0.1"}) {
    const std::string field = absl::StrCat("X-Forwarded-For: ", unknown);
    const Reply refused = Post("local", {field});
    EXPECT_EQ(refused.status, 403) << unknown;
    EXPECT_EQ(refused.Reason(), "client_network");
    EXPECT_THAT(refused.body, HasSubstr("your address is unknown"));
    EXPECT_EQ(Post("through", {field}).status, 200) << unknown;
  }
  EXPECT_EQ(Post("local", {"X-Forwarded-For: 203.0.113.9:4711"}).status, 200);
  EXPECT_EQ(Post("local", {"X-Forwarded-For: [2001:db8::7]:4711"}).status, 200);
  const auto events = Events(before + 10);
  ASSERT_THAT(events, SizeIs(before + 10));
  EXPECT_EQ(events[before].client_address(), "unknown");
  EXPECT_EQ(events[before + 8].client_address(), "203.0.113.9");
  EXPECT_EQ(events[before + 9].client_address(), "2001:db8::7");
}

// Limits by address are by that word then: all callers of unknown address share one.
TEST_F(BehindProxyTest, PagesHearThatAnAddressIsUnknown) {
  EXPECT_EQ(Send("GET", "/login", {"X-Forwarded-For: unknown"}).status, 200);
  ASSERT_THAT(authn_pages_.requests(), SizeIs(1));
  EXPECT_EQ(authn_pages_.requests()[0].client_address(), "unknown");
}

}  // namespace
}  // namespace sallyport::edge

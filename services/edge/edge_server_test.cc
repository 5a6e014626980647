// SPDX-License-Identifier: Apache-2.0
#include "common/metrics.h"
#include "services/edge/edge_server_testing.h"

// Routes, hosts and origins; restarts and configuration; audit.
namespace sallyport::edge {
namespace {

TEST_F(EdgeServerTest, UnknownAndDisabledServersAndOtherPathsAre404) {
  EXPECT_EQ(Post("nope").status, 404);
  EXPECT_EQ(Post("off").status, 404);
  EXPECT_EQ(Post("").status, 404);
  EXPECT_EQ(Post("open/more").status, 404);
  for (const char* path : {"/", "/mcp", "/mcpx/open", "/console/", "/metrics", "/healthz?path=/mcp/open"}) {
    EXPECT_EQ(Send("GET", path).status, 404) << path;
  }
  EXPECT_THAT(upstream_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, ForeignHostsAndOriginsAreTurnedAway) {
  EXPECT_EQ(Post("open", {"Host: evil.example"}).status, 403);
  EXPECT_EQ(Post("open", {"Origin: https://evil.example"}).status, 403);
  EXPECT_EQ(Post("open", {"Origin: null"}).status, 403);
  EXPECT_EQ(Post("open", {"Origin:"}).status, 403) << "none is another thing";
  EXPECT_EQ(Send("POST", "/oauth/token", {"Origin: "}).status, 403);
  EXPECT_THAT(authn_pages_.requests(), IsEmpty());
  EXPECT_EQ(Post("open", {"Origin: http://127.0.0.1"}).status, 403);
  EXPECT_THAT(upstream_.requests(), IsEmpty());
  EXPECT_EQ(Post("open", {"Origin: https://gw.example.com"}).status, 200);
  EXPECT_EQ(Post("open", {"Host: GW.example.com:443"}).status, 200) << "the scheme's own port";
  EXPECT_EQ(Post("open", {"Host: gw.example.com:80"}).status, 403);
}

TEST_F(EdgeServerTest, HostedClientsMayCallServersThatDemandAToken) {
  const std::string hosted = "Origin: https://claude.ai";
  for (const char* slug : {"org", "jwt", "user"}) {
    const Reply preflight = Send("OPTIONS", absl::StrCat("/mcp/", slug),
                                 {hosted, "Access-Control-Request-Method: POST",
                                  "Access-Control-Request-Headers: authorization, mcp-protocol-version"});
    EXPECT_EQ(preflight.status, 204) << slug;
    EXPECT_EQ(preflight.Field("Access-Control-Allow-Origin"), "https://claude.ai") << slug;
    const Reply reply = Post(slug, {hosted});
    EXPECT_EQ(reply.status, 401) << slug;
    EXPECT_EQ(reply.Field("Access-Control-Allow-Origin"), "https://claude.ai") << slug;
    EXPECT_EQ(reply.Field("Vary"), "Origin") << slug;
  }
  EXPECT_EQ(Post("org", {hosted, Bearer("ours-ada")}).status, 200);
}

// A server that verifies nobody may stand in a private network, which the pages of those sites must not reach.
TEST_F(EdgeServerTest, HostedClientsMayNotCallServersThatVerifyNobody) {
  for (const char* slug : {"open", "through", "query"}) {
    for (const char* method : {"OPTIONS", "POST", "GET", "DELETE"}) {
      const Reply reply = Send(method, absl::StrCat("/mcp/", slug), {"Origin: https://claude.ai"});
      EXPECT_EQ(reply.status, 403) << method << slug;
      EXPECT_EQ(reply.Reason(), "foreign_origin") << method << slug;
      EXPECT_EQ(reply.Field("Access-Control-Allow-Origin"), "") << method << slug;
      EXPECT_THAT(reply.body, HasSubstr("the origin https://claude.ai")) << method << slug;
      EXPECT_THAT(reply.body, HasSubstr("deployment.allowedOrigins")) << method << slug;
    }
  }
  EXPECT_EQ(Post("open", {"Origin: https://app.example.com"}).status, 200) << "unless it is said";
  const auto events = Events(13);
  ASSERT_THAT(events, SizeIs(13));
  EXPECT_EQ(events[0].type(), "mcp.denied");
  EXPECT_EQ(events[0].rule(), "foreign_origin");
}

TEST_F(EdgeServerTest, UnknownNullAndEmptyOriginsAre403WhereATokenIsDemanded) {
  for (const char* origin :
       {"https://evil.example", "null", "", "https://claude.ai.evil.example", "https://claude.ai/"}) {
    const std::string field = absl::StrCat("Origin: ", origin);
    for (const char* method : {"OPTIONS", "POST"}) {
      for (const char* path : {"/mcp/org", "/oauth/token", "/token", "/oauth/register", "/register", "/oauth/revoke"}) {
        const Reply reply = Send(method, path, {field});
        EXPECT_EQ(reply.status, 403) << method << path << origin;
        EXPECT_EQ(reply.Json()["error"], "foreign_origin") << method << path << origin;
        EXPECT_EQ(reply.Field("Access-Control-Allow-Origin"), "") << method << path << origin;
      }
    }
  }
  const std::string named = Post("org", {"Origin: https://evil.example"}).body;
  EXPECT_THAT(named, HasSubstr("https://evil.example"));
  EXPECT_THAT(named, HasSubstr("deployment.allowedOrigins"));
  EXPECT_THAT(authn_pages_.requests(), IsEmpty());
}

TEST_F(EdgeServerTest, PagesStayOnHttps) {
  EXPECT_EQ(Send("GET", "/login").Field("Strict-Transport-Security"), "max-age=31536000");
}

TEST_F(EdgeServerTest, WhatIsNoRequestIsCountedByItsReason) {
  const auto count = [](const char* reason) {
    return MetricCounter("sallyport_http_rejected_total", "", {{"reason", reason}}).Value();
  };
  const double before = count("host");
  const auto socket = RawSocket::Connect(static_cast<uint16_t>(edge_->port()));
  socket->Send("GET / HTTP/1.1\r\n\r\n");
  EXPECT_EQ(ParseReply(socket->ReadMessage()).status, 400);
  EXPECT_EQ(count("host") - before, 1);
}

TEST_F(EdgeServerTest, CorsForAllowedOriginsOnEveryKindOfAnswer) {
  const std::string origin = "Origin: https://app.example.com";
  for (const Reply& reply : {Post("open", {origin}), Post("org", {origin}), Post("nope", {origin})}) {
    EXPECT_EQ(reply.Field("Access-Control-Allow-Origin"), "https://app.example.com") << reply.head;
    EXPECT_THAT(reply.Field("Access-Control-Expose-Headers"), HasSubstr("WWW-Authenticate"));
  }
  EXPECT_EQ(Post("open").Field("Access-Control-Allow-Origin"), "");
}

TEST_F(EdgeServerTest, PreflightNeedsNoToken) {
  const Reply reply = Send("OPTIONS", "/mcp/org",
                           {"Origin: https://app.example.com", "Access-Control-Request-Method: POST",
                            "Access-Control-Request-Headers: authorization, mcp-param-region"});
  EXPECT_EQ(reply.status, 204);
  EXPECT_EQ(reply.Field("Access-Control-Allow-Origin"), "https://app.example.com");
  EXPECT_THAT(absl::AsciiStrToLower(reply.Field("Access-Control-Allow-Headers")), HasSubstr("mcp-param-region"));
  EXPECT_EQ(Send("OPTIONS", "/mcp/org", {"Origin: https://evil.example"}).status, 403);
  EXPECT_EQ(edge_->authenticate_calls(), 0U);
}

TEST_F(EdgeServerTest, OtherMethodsAre405AndSayWhich) {
  const Reply reply = Send("PUT", "/mcp/open");
  EXPECT_EQ(reply.status, 405);
  EXPECT_THAT(reply.Field("Allow"), HasSubstr("POST"));
}

TEST_F(EdgeServerTest, ClientNetworksAreChecked) {
  const Reply reply = Post("near", {"X-Forwarded-For: 203.0.113.9"});
  EXPECT_EQ(reply.status, 403);
  EXPECT_EQ(reply.Reason(), "client_network") << "nobody said this peer is a proxy";
}

TEST_F(EdgeServerTest, EveryCallAndEveryRefusalIsRecordedWithoutItsSecrets) {
  const std::string trace = "4bf92f3577b34da6a3ce929d0e0e4736";
  Post("org", {Bearer("ours-ada"), "traceparent: 00-" + trace + "-00f067aa0ba902b7-01"});
  Post("org", {Bearer("ours-ada"), "traceparent: 00-\xff\xff" + trace.substr(2) + "-00f067aa0ba902b7-01"});
  Post("org");
  Send("OPTIONS", "/mcp/org");
  Post("open", {}, "{\"id\":1,\"method\":\"a\xff\"}");
  ASSERT_TRUE(Soon([&] { return audit_.events().size() >= 4; }));
  const auto events = audit_.events();
  ASSERT_THAT(events, SizeIs(4)) << "preflights are not calls";
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].source(), "edge/test");
    EXPECT_EQ(events[i].sequence(), i + 1);
    EXPECT_EQ(events[i].client_address(), "127.0.0.1");
    EXPECT_EQ(events[i].SerializeAsString().find("ours-ada"), std::string::npos);
    EXPECT_EQ(events[i].SerializeAsString().find("org-key"), std::string::npos);
    EXPECT_EQ(events[i].SerializeAsString().find("@example.com"), std::string::npos) << "the audit store knows names";
  }
  EXPECT_EQ(events[0].type(), "mcp.call");
  EXPECT_EQ(events[0].subject(), "okta:ada");
  EXPECT_EQ(events[0].rule(), "interactive.allow.everyone");
  EXPECT_EQ(events[0].mcp_method(), "tools/call");
  EXPECT_EQ(events[0].mcp_name(), "search");
  EXPECT_EQ(events[0].trace_id(), trace);
  EXPECT_EQ(events[0].status(), 200);
  ASSERT_THAT(events[0].credentials(), SizeIs(1));
  EXPECT_EQ(events[1].trace_id(), "") << "not what the format has";
  EXPECT_EQ(events[2].type(), "mcp.denied");
  EXPECT_EQ(events[2].status(), 401);
  EXPECT_EQ(events[2].decision(), audit::v1::DECISION_DENIED);
  EXPECT_EQ(events[3].status(), 400);
}

TEST_F(EdgeServerTest, BeforeItHasAConfigurationNoServerIsSaidNotToExist) {
  edge_->Shutdown(absl::ZeroDuration());
  edge_.reset();
  registry_.SetDown(true);
  std::filesystem::remove(directory_.File("snapshot"));
  auto edge = EdgeServer::Start(
      Config(), clock_,
      {authn_server_.channel(), broker_server_.channel(), authn_server_.channel(), registry_server_.channel()});
  ASSERT_THAT(edge, IsOk());
  edge_ = *std::move(edge);
  EXPECT_FALSE(edge_->Ready().ok());
  const Reply reply = Post("open");
  EXPECT_EQ(reply.status, 503) << "a 404 would make clients forget it";
  EXPECT_EQ(reply.Field("Retry-After"), "1");
}

TEST_F(EdgeServerTest, ARestartedEdgeServesWithoutTheRegistry) {
  ASSERT_EQ(Post("open").status, 200);
  ASSERT_TRUE(Soon([&] { return std::filesystem::exists(directory_.File("snapshot")); }));
  edge_->Shutdown(absl::ZeroDuration());
  edge_.reset();
  registry_.SetDown(true);
  SetUp();
  EXPECT_EQ(Post("open").status, 200);
}

TEST_F(EdgeServerTest, AChangeOfConfigurationTakesEffect) {
  ASSERT_EQ(Post("open").status, 200);
  registry_.Put(FromJson<registry::v1::McpServer>(
      R"({"uid":"srv_org_open","slug":"open","version":"2","enabled":false,"upstreamUrl":"https://x.example.com",)"
      R"("agentAuth":{"passthrough":{}},"appAuth":{"passthrough":{}}})"));
  EXPECT_TRUE(Soon([&] { return Post("open").status == 404; }));
}

TEST(EdgeConfig, RefusalsNameTheField) {
  const auto refused = [](const std::string& json_text) {
    return std::string(ValidateEdgeConfig(FromJson<config::v1::EdgeConfig>(json_text)).message());
  };
  EXPECT_THAT(refused("{}"), HasSubstr("listen"));
  const std::string base = R"("dataDirectory":"/x","deployment":{"publicUrl":"https://gw.example.com"})";
  EXPECT_EQ(refused(R"({"listen":"127.0.0.1:0",)" + base + "}"), "");
  EXPECT_THAT(refused(R"({"listen":"0.0.0.0:80",)" + base + "}"), HasSubstr("tls"));
  EXPECT_EQ(refused(R"({"listen":"0.0.0.0:80","behindTlsProxy":true,)" + base + "}"), "");
  EXPECT_THAT(refused(R"({"listen":"127.0.0.1:0","threads":1000,)" + base + "}"), HasSubstr("threads"));
  EXPECT_THAT(
      refused(R"({"listen":"127.0.0.1:0","dataDirectory":"/x","deployment":{"publicUrl":"https://gw.example.com/"}})"),
      HasSubstr("deployment.publicUrl"));
  EXPECT_THAT(
      refused(R"({"listen":"127.0.0.1:0","dataDirectory":"/x","deployment":{"publicUrl":"https://gw.example.com",
                          "allowedOrigins":["https://a.example/x"]}})"),
      HasSubstr("deployment.allowedOrigins"));
  EXPECT_THAT(
      refused(R"({"listen":"127.0.0.1:0","dataDirectory":"/x","deployment":{"publicUrl":"https://gw.example.com",
                          "trustedProxies":["x"]}})"),
      HasSubstr("deployment.trustedProxies[0]"));
  EXPECT_THAT(refused(R"({"listen":"localhost:80",)" + base + "}"), HasSubstr("listen: must be a literal address"));
  EXPECT_THAT(refused(R"({"listen":"127.0.0.1",)" + base + "}"), HasSubstr("listen: must be address:port"));
  for (const char* good : {"0s", "0.5s", "900s"}) {
    EXPECT_EQ(refused(absl::StrCat(R"({"listen":"127.0.0.1:0","authnOutageGrace":")", good, "\",", base, "}")), "");
  }
  for (const char* bad : {"-1s", "-0.5s", "900.000000001s", "3600s"}) {
    EXPECT_THAT(refused(absl::StrCat(R"({"listen":"127.0.0.1:0","authnOutageGrace":")", bad, "\",", base, "}")),
                HasSubstr("authnOutageGrace: must be 0 s to 15 min"))
        << bad;
  }
  EXPECT_THAT(refused(R"({"listen":"127.0.0.1:0","tls":{"certificate":"/none","privateKey":"/none"},)" + base + "}"),
              HasSubstr("tls.certificate: cannot read /none"));
}

TEST(EdgeConfig, AProcessOfItsOwnNeedsMutualTlsAndPeersButNoRpcListener) {
  const std::string refusal(ValidateSplitConfig({}).message());
  for (const char* field :
       {"server.tls.certificate", "server.tls.privateKey", "server.tls.caBundle", "server.tls.trustDomain",
        "peers.authn", "peers.tokenBroker", "peers.vault", "peers.registry"}) {
    EXPECT_THAT(refusal, HasSubstr(absl::StrCat(field, ": is required")));
  }
  EXPECT_THAT(refusal, Not(HasSubstr("server.listen")));
}

}  // namespace
}  // namespace sallyport::edge

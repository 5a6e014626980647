// SPDX-License-Identifier: Apache-2.0
#include "services/edge/edge_server_testing.h"

// Pages of authn and the broker.
namespace sallyport::edge {
namespace {

std::string HeaderOf(const web::v1::WebRequest& request, const std::string& name) {
  for (const web::v1::Header& header : request.headers()) {
    if (header.name() == name) return header.value();
  }
  return "";
}

TEST_F(EdgeServerTest, CookiesThatAreNotVisibleAsciiReachNoPage) {
  const std::string cookies = "Cookie: x=\xff; __Host-session=ada;\xc3\xa9=1";
  EXPECT_EQ(Send("GET", "/login", {cookies, "Cookie: second=1"}).status, 200);
  ASSERT_THAT(authn_pages_.requests(), SizeIs(1));
  EXPECT_EQ(HeaderOf(authn_pages_.requests()[0], "cookie"), "__Host-session=ada; second=1");

  EXPECT_EQ(Send("GET", "/connect/user", {cookies}).status, 200);
  ASSERT_THAT(authn_.passport_requests(), SizeIs(1));
  EXPECT_EQ(authn_.passport_requests()[0].cookie(), "__Host-session=ada");
  ASSERT_THAT(broker_pages_.requests(), SizeIs(1));
  EXPECT_EQ(broker_pages_.requests()[0].passport(), "passport-ada");
  EXPECT_EQ(HeaderOf(broker_pages_.requests()[0], "cookie"), "");
}

TEST_F(EdgeServerTest, WithoutACookieThatCountsABrokersPageHasNoUser) {
  EXPECT_EQ(Send("GET", "/connect/user", {"Cookie: x=\xff"}).status, 200);
  EXPECT_THAT(authn_.passport_requests(), IsEmpty());
  ASSERT_THAT(broker_pages_.requests(), SizeIs(1));
  EXPECT_EQ(broker_pages_.requests()[0].passport(), "");
}

// A broker that was taken over could act for whoever looks at its pages, on the origin where sessions live.
TEST_F(EdgeServerTest, ABrokersPageRunsNoScriptAndSetsNoCookie) {
  const std::vector<std::pair<std::string, std::string>> headers = {
      {"content-type", "text/html"}, {"content-security-policy", "script-src *"}, {"set-cookie", "stolen=1"}};
  broker_pages_.SetHeaders(headers);
  const Reply page = Send("GET", "/connect/user", {});
  EXPECT_EQ(page.status, 200);
  EXPECT_THAT(page.head, HasSubstr("Content-Security-Policy: script-src 'none'; object-src 'none'; base-uri 'none'"));
  EXPECT_THAT(page.head, Not(HasSubstr("stolen")));
  authn_pages_.SetHeaders(headers);
  EXPECT_THAT(Send("GET", "/login", {}).head, HasSubstr("stolen"));
}

TEST_F(EdgeServerTest, BareOriginIsAPageForBrowsersOnly) {
  EXPECT_EQ(Send("GET", "/", {"Accept: text/html,application/xhtml+xml,*/*;q=0.8"}).status, 200);
  ASSERT_THAT(authn_pages_.requests(), SizeIs(1));
  EXPECT_EQ(authn_pages_.requests()[0].path(), "/");

  EXPECT_EQ(Send("GET", "/", {"Accept: text/event-stream"}).status, 404);
  EXPECT_EQ(Send("GET", "/", {"Accept: */*"}).status, 404);
  EXPECT_EQ(Send("GET", "/", {}).status, 404);
  EXPECT_EQ(Send("POST", "/", {"Accept: application/json, text/html"}, "{}").status, 404);
  EXPECT_THAT(authn_pages_.requests(), SizeIs(1));
}

TEST_F(EdgeServerTest, BodiesOfPagesAreLimited) {
  const std::string most(64 << 10, 'a');
  for (const char* path : {"/oauth/token", "/connect/user"}) {
    EXPECT_EQ(Send("POST", path, {}, most).status, 200) << path;
    EXPECT_EQ(Send("POST", path, {}, most + "a").status, 413) << path;
  }
  EXPECT_THAT(authn_pages_.requests(), SizeIs(1));
  EXPECT_THAT(broker_pages_.requests(), SizeIs(1));
}

TEST_F(EdgeServerTest, HostedClientsMayCallTheOAuthEndpointsAndNoOtherPage) {
  const std::string hosted = "Origin: https://chatgpt.com";
  for (const char* path : {"/oauth/token", "/oauth/register", "/oauth/revoke", "/token", "/register"}) {
    const Reply preflight = Send("OPTIONS", path, {hosted, "Access-Control-Request-Method: POST"});
    EXPECT_EQ(preflight.status, 204) << path;
    EXPECT_EQ(preflight.Field("Access-Control-Allow-Origin"), "https://chatgpt.com") << path;
    EXPECT_THAT(preflight.Field("Allow"), HasSubstr("OPTIONS")) << path;
    const Reply reply = Send("POST", path, {hosted});
    EXPECT_EQ(reply.status, 200) << path;
    EXPECT_EQ(reply.Field("Access-Control-Allow-Origin"), "https://chatgpt.com") << path;
  }
  for (const char* path : {"/login", "/oauth/authorize", "/authorize", "/oauth/consent", "/logout", "/connect/user",
                           "/callback/github", "/api/sallyport.authn.v1.Authn/WhoAmI", "/"}) {
    for (const char* method : {"OPTIONS", "GET", "POST"}) {
      const Reply reply = Send(method, path, {hosted});
      EXPECT_EQ(reply.status, 403) << method << path;
      EXPECT_EQ(reply.Field("Access-Control-Allow-Origin"), "") << method << path;
    }
  }
}

TEST_F(EdgeServerTest, PublicDocumentsAreForEveryOrigin) {
  for (const char* origin : {"https://evil.example", "null", "https://gw.example.com", "vscode-webview://x"}) {
    for (const char* path :
         {"/.well-known/oauth-protected-resource/mcp/org", "/.well-known/oauth-authorization-server", "/oauth/jwks"}) {
      for (const char* method : {"OPTIONS", "GET"}) {
        const Reply reply = Send(method, path, {absl::StrCat("Origin: ", origin)});
        EXPECT_EQ(reply.status, method[0] == 'O' ? 204 : 200) << method << path << origin;
        EXPECT_EQ(reply.Field("Access-Control-Allow-Origin"), "*") << method << path << origin;
      }
    }
  }
  EXPECT_EQ(Send("GET", "/oauth/jwks", {"Host: evil.example", "Origin: https://evil.example"}).status, 403)
      << "of this gateway, by its own name";
  EXPECT_EQ(Send("GET", "/oauth/jwksx", {"Origin: https://evil.example"}).status, 403);
  EXPECT_EQ(Send("GET", "/.well-knownx", {"Origin: https://evil.example"}).status, 403);
}

// A page in a browser cannot tell a refusal without CORS from a network that is down.
TEST_F(EdgeServerTest, AnAnswerThatAuthnDoesNotGiveHasCorsToo) {
  authn_pages_.SetStatus({grpc::StatusCode::UNAVAILABLE, "down"});
  const Reply reply = Send("POST", "/oauth/token", {"Origin: https://claude.ai"});
  EXPECT_EQ(reply.status, 503);
  EXPECT_EQ(reply.Field("Access-Control-Allow-Origin"), "https://claude.ai");
}

// MCP 2025-03-26, "Fallbacks for Servers without Metadata Discovery".
TEST_F(EdgeServerTest, TheFallbackPathsAreTheOAuthEndpoints) {
  EXPECT_EQ(Send("GET", "/authorize?client_id=x").status, 200);
  EXPECT_EQ(Send("POST", "/token", {}, "grant_type=x").status, 200);
  EXPECT_EQ(Send("POST", "/register", {}, "{}").status, 200);
  const auto requests = authn_pages_.requests();
  ASSERT_THAT(requests, SizeIs(3));
  EXPECT_EQ(requests[0].path(), "/oauth/authorize");
  EXPECT_EQ(requests[0].query(), "client_id=x");
  EXPECT_EQ(requests[1].path(), "/oauth/token");
  EXPECT_EQ(requests[1].body(), "grant_type=x");
  EXPECT_EQ(requests[2].path(), "/oauth/register");
  for (const char* other : {"/authorize/", "/token/x", "/registers", "/revoke", "/jwks"}) {
    EXPECT_EQ(Send("GET", other).status, 404) << other;
  }
  EXPECT_EQ(Send("POST", "/token", {}, std::string((64 << 10) + 1, 'a')).status, 413);
}

}  // namespace
}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/response_rules.h"

#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/edge/http/response_parser.h"

namespace sallyport::edge {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The client's side of an answer with these fields.
std::string Rendered(const std::string& fields, const ResponseRules& rules = ResponseRules()) {
  const std::string text = "HTTP/1.1 200 OK\r\n" + fields + "\r\n";
  const auto head = std::make_unique<ResponseHead>();
  ResponseParser parser;
  EXPECT_EQ(parser.Parse(text.data(), text.size(), *head), ResponseParser::Result::kDone);
  std::string out;
  AppendResponseFields(*head, rules, out);
  return out;
}

TEST(ResponseRulesTest, AChallengeOfOurOwnStandsInA401Only) {
  ResponseRules rules;
  rules.own_challenge = "Bearer";
  EXPECT_THAT(Rendered("WWW-Authenticate: Bearer realm=\"/secret\"\r\n", rules), Not(HasSubstr("WWW-Authenticate")));
  const std::string text = "HTTP/1.1 401 X\r\nWWW-Authenticate: Bearer realm=\"/secret\"\r\n\r\n";
  const auto head = std::make_unique<ResponseHead>();
  ResponseParser parser;
  ASSERT_EQ(parser.Parse(text.data(), text.size(), *head), ResponseParser::Result::kDone);
  std::string out;
  AppendResponseFields(*head, rules, out);
  EXPECT_THAT(out, HasSubstr("WWW-Authenticate: Bearer\r\n"));
  EXPECT_THAT(out, Not(HasSubstr("secret")));
}

TEST(ResponseRulesTest, DropsWhatAnUpstreamMayNotTellABrowser) {
  for (const char* dropped : {"Set-Cookie: a",
                              "WWW-Authenticate: Bearer",
                              "Access-Control-Allow-Origin: *",
                              "Server: x",
                              "Clear-Site-Data: x",
                              "Strict-Transport-Security: x",
                              "Alt-Svc: x",
                              "Refresh: 0",
                              "Content-Security-Policy: x",
                              "Content-Security-Policy-Report-Only: x",
                              "Service-Worker-Allowed: /",
                              "Link: x",
                              "NEL: x",
                              "Report-To: x",
                              "Location: /",
                              "location: javascript:alert(1)",
                              "Content-Location: /",
                              "Content-Disposition: attachment; filename=x.exe",
                              "X-Content-Type-Options: sniff",
                              "X_Content_Type_Options: sniff",
                              "Cross-Origin-Resource-Policy: cross-origin",
                              "Cross-Origin-Opener-Policy: unsafe-none",
                              "Cache-Control: public, max-age=1",
                              "Expires: 0",
                              "Pragma: x",
                              "CDN-Cache-Control: max-age=1",
                              "Cloudflare-CDN-Cache-Control: max-age=1",
                              "Surrogate-Control: x",
                              "X-Accel-Redirect: /secret",
                              "X_Accel_Redirect: /secret",
                              "X-Accel-Buffering: yes",
                              "X-Sendfile: /etc/passwd",
                              "Reporting-Endpoints: x",
                              "Set-Login: logged-out",
                              "Sec-Session-Registration: x",
                              "Secure-Session-Registration: x",
                              "Use-As-Dictionary: x",
                              "Origin-Trial: x",
                              "SourceMap: /x",
                              "Permissions-Policy: x",
                              "X-Frame-Options: ALLOWALL",
                              "Referrer-Policy: unsafe-url",
                              "Accept-CH: x"}) {
    EXPECT_EQ(Rendered(std::string(dropped) + "\r\n"), "") << dropped;
  }
  EXPECT_EQ(Rendered("Connection: close, X-Hop\r\nX-Hop: 1\r\nContent-Length: 2\r\nX-Kept: 1\r\nDate: d\r\n"),
            "X-Kept: 1\r\nDate: d\r\n");
}

TEST(ResponseRulesTest, KeepsWhatClientsRead) {
  for (const char* kept :
       {"X-Request-Id: 1", "Retry-After: 3", "Allow: POST", "MCP-Protocol-Version: 2025-11-25", "Vary: Accept",
        "X-RateLimit-Remaining: 1", "Content-Encoding: gzip", "ETag: x", "Content-Language: en",
        "X-A-Name-That-Is-Longer-Than-Any-That-Steers: 1", "Location-Id: 1", "Cache-Controls: x"}) {
    EXPECT_EQ(Rendered(std::string(kept) + "\r\n"), std::string(kept) + "\r\n");
  }
}

TEST(ResponseRulesTest, ConnectionDoesNotTakeAwayTheDate) {
  EXPECT_EQ(Rendered("Connection: Date\r\nDate: d\r\n"), "Date: d\r\n");
}

TEST(ResponseRulesTest, TheTypeIsOneOfTwoInOurOwnWords) {
  EXPECT_EQ(Rendered("content-type: Application/JSON; charset=UTF-8; x=\"text/html\"\r\n"),
            "Content-Type: application/json\r\n");
  EXPECT_EQ(Rendered("Content-Type: text/event-stream;charset=utf-8\r\n"),
            "Content-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n");
  EXPECT_EQ(Rendered("Content-Type: text/html\r\n"), "");
  EXPECT_EQ(Rendered("Content-Type: application/json\r\nContent-Type: text/html\r\n"), "");
  EXPECT_EQ(Rendered("Connection: Content-Type\r\nContent-Type: application/json\r\n"),
            "Content-Type: application/json\r\n")
      << "never a body without a type";
  EXPECT_EQ(Rendered("Content-Type: application/json\r\nContent-Encoding: gzip\r\nX-A: b\r\n", {.without_body = true}),
            "X-A: b\r\n");
}

TEST(ResponseRulesTest, RewritesOrDropsTheSessionId) {
  const std::string field = "Mcp-Session-Id: up\r\n";
  EXPECT_EQ(Rendered(field), "Mcp-Session-Id: up\r\n");
  EXPECT_EQ(Rendered(field, {.session_id = "up.tag"}), "Mcp-Session-Id: up.tag\r\n");
  EXPECT_EQ(Rendered(field, {.drop_session_id = true}), "");
}

TEST(ResponseRulesTest, KeepsTheChallengeOnlyWhenTold) {
  EXPECT_EQ(Rendered("WWW-Authenticate: Bearer realm=x\r\n", {.keep_challenge = true}),
            "WWW-Authenticate: Bearer realm=x\r\n");
}

TEST(ResponseRulesTest, CorsIsOurs) {
  const std::string out = Rendered("Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n",
                                   {.allowed_origin = "https://app.example"});
  EXPECT_THAT(out, HasSubstr("Access-Control-Allow-Origin: https://app.example\r\n"));
  EXPECT_THAT(out, HasSubstr("Vary: Origin\r\n"));
  EXPECT_THAT(out, Not(HasSubstr("*")));
  EXPECT_THAT(out, Not(HasSubstr("Credentials")));
}

}  // namespace
}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/upstream_answer.h"

#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/edge/http/response_parser.h"

namespace sallyport::edge {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

struct Response {
  Response(int status, const std::string& fields)
      : text("HTTP/1.1 " + std::to_string(status) + " X\r\n" + fields + "\r\n") {
    ResponseParser parser;
    EXPECT_EQ(parser.Parse(text.data(), text.size(), head), ResponseParser::Result::kDone) << text;
  }
  std::string text;
  ResponseHead head;
};

AnswerKind Kind(int status, const std::string& fields) {
  return KindOf(std::make_unique<Response>(status, fields)->head);
}

TEST(UpstreamAnswerTest, OnlyJsonEventStreamsAndNothingAreRelayed) {
  const std::string body = "Content-Length: 9\r\n";
  const std::string none = "Content-Length: 0\r\n";
  for (int status : {200, 201, 203, 206, 400, 401, 403, 404, 405, 429, 500, 503, 599}) {
    EXPECT_EQ(Kind(status, body + "Content-Type: application/json; charset=utf-8\r\n"), AnswerKind::kRelayed);
    EXPECT_EQ(Kind(status, body + "Content-Type: text/event-stream\r\n"), AnswerKind::kRelayed);
    EXPECT_EQ(Kind(status, body + "Content-Type: text/html\r\n"), AnswerKind::kBodiless) << status;
    EXPECT_EQ(Kind(status, body), AnswerKind::kBodiless) << status;
    EXPECT_EQ(Kind(status, ""), AnswerKind::kBodiless) << "until it closes";
    EXPECT_EQ(Kind(status, "Transfer-Encoding: chunked\r\n"), AnswerKind::kBodiless);
    EXPECT_EQ(Kind(status, none), AnswerKind::kRelayed) << status;
    EXPECT_EQ(Kind(status, none + "Content-Type: text/html\r\n"), AnswerKind::kRelayed) << status;
  }
  EXPECT_EQ(Kind(204, "Content-Type: text/html\r\n"), AnswerKind::kRelayed);
  EXPECT_EQ(Kind(202, body + "Content-Type: application/json\r\n"), AnswerKind::kAccepted);
  EXPECT_EQ(Kind(202, ""), AnswerKind::kAccepted);
  for (int status : {300, 301, 302, 303, 304, 307, 308, 399}) {
    EXPECT_EQ(Kind(status, body + "Content-Type: application/json\r\n"), AnswerKind::kRedirect) << status;
  }
}

std::string Type(const std::string& fields) { return DescribeType(std::make_unique<Response>(200, fields)->head); }

TEST(UpstreamAnswerTest, ATypeIsNamedWithoutAByteThatIsNotOfAType) {
  EXPECT_EQ(Type("Content-Type: Text/HTML; charset=utf-7\r\n"), "text/html");
  EXPECT_EQ(Type("Content-Type: image/svg+xml\r\n"), "image/svg+xml");
  EXPECT_EQ(Type(""), "no Content-Type");
  EXPECT_EQ(Type("Content-Type: application/json\r\nContent-Type: text/html\r\n"), "more than one Content-Type");
  EXPECT_EQ(Type("Content-Type: application/json; charset=utf-16\r\n"), "application/json that is not UTF-8");
  for (const std::string& unreadable :
       {std::string(), std::string("html"), std::string("application/json, text/html"), std::string("<script>/x"),
        std::string("text/\"><img src=x>"), "text/" + std::string(200, 'x'), std::string("text/h\xc3\xa4ml"),
        std::string("text/"), std::string("/html"), std::string("a/b/c")}) {
    EXPECT_EQ(Type("Content-Type: " + unreadable + "\r\n"), "an unreadable Content-Type") << unreadable;
  }
}

std::string Redirect(const std::string& location, const std::string& upstream = "https://up.example:8443/v1/mcp") {
  const auto target = ParseUpstreamUrl(upstream);
  EXPECT_TRUE(target.ok());
  return DescribeRedirect(std::make_unique<Response>(307, "Location: " + location + "\r\n")->head, *target);
}

TEST(UpstreamAnswerTest, ARedirectToTheOtherSpellingNamesTheRemedy) {
  EXPECT_EQ(Redirect("https://up.example:8443/v1/mcp/"),
            "the upstream redirects (HTTP 307) to https://up.example:8443/v1/mcp/, and redirects are not followed: set "
            "upstreamUrl to …/v1/mcp/");
  EXPECT_EQ(Redirect("/v1/mcp/"),
            "the upstream redirects (HTTP 307) to /v1/mcp/, and redirects are not followed: set upstreamUrl to "
            "…/v1/mcp/");
  EXPECT_THAT(Redirect("/v1/mcp", "https://up.example/v1/mcp/"), EndsWith("set upstreamUrl to …/v1/mcp"));
  EXPECT_THAT(Redirect("http://up.example/v1/mcp/"), EndsWith("set upstreamUrl to …/v1/mcp/"))
      << "behind a proxy that ends TLS: no advice to go without it";
  EXPECT_THAT(Redirect("https://new.example/v1/mcp"), EndsWith("set upstreamUrl to https://new.example/v1/mcp"));
  EXPECT_THAT(Redirect("//new.example/v1/mcp/"), EndsWith("set upstreamUrl to https://new.example/v1/mcp/"));
  EXPECT_THAT(Redirect("https://up.example/mcp", "http://up.example/mcp"),
              EndsWith("set upstreamUrl to https://up.example/mcp"));
}

TEST(UpstreamAnswerTest, ARedirectElsewhereIsNamedButNotAdvised) {
  const std::string itself = "set upstreamUrl to the address of the MCP endpoint itself";
  EXPECT_EQ(
      Redirect("https://idp.example/login"),
      "the upstream redirects (HTTP 307) to https://idp.example/login, and redirects are not followed: " + itself);
  EXPECT_THAT(Redirect("/v1/mcp"), EndsWith(itself)) << "to itself";
  EXPECT_THAT(Redirect("http://up.example:8443/v1/mcp"), EndsWith(itself)) << "never from https to http";
  EXPECT_THAT(Redirect("http://new.example/v1/mcp/"), EndsWith(itself));
}

TEST(UpstreamAnswerTest, OfALocationNothingIsToldThatCouldBeASecretOrMarkup) {
  for (const char* location : {"https://up.example:8443/v1/mcp/?key=s3cret", "/v1/mcp/?key=s3cret", "/v1/mcp/#s3cret",
                               "/v1/mcp/;jsessionid=s3cret", "https://user:s3cret@up.example/v1/mcp/",
                               "javascript:s3cret", "s3cret", "data:text/html,s3cret", "/\"><script>s3cret",
                               "https://[s3cret", "/%00s3cret", "/s3cret/../x", "?s3cret", "/\xc3\xa4s3cret"}) {
    const std::string told = Redirect(location);
    EXPECT_THAT(told, Not(HasSubstr("s3cret"))) << location;
    EXPECT_THAT(told, HasSubstr("redirects are not followed: set upstreamUrl to ")) << location;
  }
  EXPECT_THAT(Redirect("/" + std::string(5000, 'x')), Not(HasSubstr("xx")));
  EXPECT_EQ(Redirect(""), Redirect("x"));
}

TEST(UpstreamAnswerTest, OfARedirectOfASecretAddressNothingIsTold) {
  UpstreamTarget target = *ParseUpstreamUrl("https://hooks.example/canary");
  target.secret = true;
  for (const char* location : {"/canary/", "https://hooks.example/canary/", "https://login.example/canary", ""}) {
    const auto response = std::make_unique<Response>(307, std::string("Location: ") + location + "\r\n");
    const std::string told = DescribeRedirect(response->head, target);
    EXPECT_THAT(told, Not(HasSubstr("canary")));
    EXPECT_THAT(told, HasSubstr("secretUpstreamUrl"));
  }
}

}  // namespace
}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/ping.h"

#include <gmock/gmock.h>

#include "common/text/json.h"
#include "tests/testing/status_matchers.h"
#include "tools/cli/cli_testing.h"

namespace sallyport::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A gateway with an MCP server `mail`, which answers as a stream or as JSON.
class PingTest : public CliTest {
 protected:
  testing::TestHttpServer::Response Answer(const testing::TestHttpServer::Request& request) override {
    requests_.push_back(request);
    if (status_ != 200) return Json(status_, R"({"error":"invalid_token","message":"who are you?"})");
    if (request.target != "/mcp/mail") return Json(404, R"({"error":"not_found","message":"no such server"})");
    if (request.method == "DELETE") return {.status = 405, .headers = {}, .body = "", .raw = ""};
    const absl::StatusOr<nlohmann::json> message = ParseJsonObject(request.body);
    const std::string method = JsonString(*message, "method").value_or("");
    if (method == "notifications/initialized") return {.status = 202, .headers = {}, .body = "", .raw = ""};
    nlohmann::json answer = {{"jsonrpc", "2.0"}, {"id", *JsonInt(*message, "id")}};
    if (method == "initialize") {
      answer["result"] = {{"protocolVersion", "2025-06-18"}, {"serverInfo", {{"name", name_}, {"version", "2"}}}};
    } else {
      answer.update(tools_);
    }
    auto response = Json(200, DumpJson(answer));
    if (stream_) {
      response.body =
          "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\"}\n\nevent: "
          "message\r\ndata: " +
          response.body + "\r\n\r\n";
      response.headers[0].second = "text/event-stream";
    }
    response.headers.emplace_back("Mcp-Session-Id", "session-1");
    return response;
  }
  static testing::TestHttpServer::Response Json(int status, const std::string& body) {
    return {.status = status, .headers = {{"Content-Type", "application/json"}}, .body = body, .raw = ""};
  }

  int status_ = 200;
  bool stream_ = false;
  std::string name_ = "Mail";
  nlohmann::json tools_ = {{"result", {{"tools", {{{"name", "send"}}, {{"name", "read"}}}}}}};
};

TEST_F(PingTest, SaysWhatAnsweredAndHowManyToolsItHas) {
  EXPECT_EQ(Run({"ping", "mail"}), kDone) << err_.str();
  EXPECT_EQ(out_.str(), "mail answers: Mail 2, 2 tools\n");
  ASSERT_EQ(requests_.size(), 4U);
  EXPECT_EQ(requests_[0].headers.count("authorization"), 0U);
  EXPECT_EQ(requests_[2].headers.at("mcp-session-id"), "session-1");
  EXPECT_EQ(requests_[3].method, "DELETE");
}

TEST_F(PingTest, AnAnswerMayComeAsAnEventStream) {
  stream_ = true;
  EXPECT_EQ(Run({"ping", "mail"}), kDone) << err_.str();
  EXPECT_EQ(out_.str(), "mail answers: Mail 2, 2 tools\n");
}

TEST_F(PingTest, TheTokenOfTheFileIsSentAndNotShown) {
  EXPECT_EQ(Run({"ping", "mail", "--token-file", WriteHome("token", "bearer-1\n")}), kDone) << err_.str();
  for (const auto& request : requests_) EXPECT_EQ(request.headers.at("authorization"), "Bearer bearer-1");
  EXPECT_THAT(out_.str() + err_.str(), Not(HasSubstr("bearer-1")));
}

TEST_F(PingTest, ARefusalSaysWhatIsMissing) {
  status_ = 401;
  EXPECT_EQ(Run({"ping", "mail"}), kFailed);
  EXPECT_THAT(err_.str(), HasSubstr("answered initialize with HTTP 401 who are you?: give a token with --token-file"));
}

TEST_F(PingTest, AnErrorOfTheServerIsAFailure) {
  tools_ = {{"error", {{"code", -32603}, {"message", "out of \x1b[31morder"}}}};
  EXPECT_EQ(Run({"ping", "mail"}), kFailed);
  EXPECT_THAT(err_.str(), HasSubstr("the server answered tools/list with an error: out of "));
  EXPECT_THAT(err_.str(), Not(HasSubstr("\x1b")));
}

TEST_F(PingTest, WhatAServerCallsItselfDoesNotActOnTheTerminal) {
  name_ = "Mail\x1b]0;owned\x07";
  EXPECT_EQ(Run({"ping", "mail"}), kDone) << err_.str();
  EXPECT_THAT(out_.str(), Not(HasSubstr("\x1b")));
}

TEST_F(PingTest, AnAnswerWithoutToolsIsAFailure) {
  tools_ = {{"result", nlohmann::json::object()}};
  EXPECT_EQ(Run({"ping", "mail"}), kFailed);
  EXPECT_THAT(err_.str(), HasSubstr("the answer to tools/list has no tools"));
}

}  // namespace
}  // namespace sallyport::cli

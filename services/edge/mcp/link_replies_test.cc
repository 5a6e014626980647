// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/link_replies.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace sallyport::edge {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

const LinkSignal kSignal = {"https://gw.example.com/connect/github?for=x", "e-1", "sp1.state",
                            "Connect your GitHub account to continue.", "github"};

struct Call {
  explicit Call(std::string body_in) : body(std::move(body_in)) {
    EXPECT_EQ(ScanRpcMessage(body, message), ScanError::kNone) << body;
  }
  std::string body;
  RpcMessage message;
};

std::string Modern(const std::string& method, bool url, const std::string& extra = "") {
  return R"({"jsonrpc":"2.0","id":"7","method":")" + method +
         R"(","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",)"
         R"("io.modelcontextprotocol/clientCapabilities":{"elicitation":{)" +
         (url ? R"("url":{})" : "") + "}}}" + extra + "}}";
}
std::string Legacy(const std::string& method) {
  return R"({"jsonrpc":"2.0","id":7,"method":")" + method + R"(","params":{}})";
}

json Reply(const Call& call, bool session_url, int expected_status = 200) {
  int status = 0;
  const std::string body = LinkReply(call.message, ChooseLinkForm(call.message, session_url), kSignal, &status);
  EXPECT_EQ(status, expected_status) << body;
  const json reply = json::parse(body);
  EXPECT_EQ(reply["jsonrpc"], "2.0");
  EXPECT_EQ(reply["id"], json::parse(call.message.id));
  return reply;
}

TEST(LinkReplies, AModernClientWithUrlElicitationGetsInputRequired) {
  for (const char* method : {"tools/call", "prompts/get", "resources/read"}) {
    const json reply = Reply(Call(Modern(method, true)), false);
    EXPECT_EQ(reply["result"], json::parse(R"({"resultType":"input_required","requestState":"sp1.state","inputRequests":
        {"sallyport_link_github":{"method":"elicitation/create","params":{"mode":"url",
        "url":"https://gw.example.com/connect/github?for=x","message":"Connect your GitHub account to continue."}}}})"))
        << method;
  }
}

TEST(LinkReplies, ALegacyClientWithUrlElicitationGetsError32042) {
  const json reply = Reply(Call(Legacy("tools/call")), true);
  EXPECT_EQ(reply["error"]["code"], -32042);
  EXPECT_EQ(reply["error"]["data"], json::parse(R"({"elicitations":[{"mode":"url","elicitationId":"e-1",
      "url":"https://gw.example.com/connect/github?for=x","message":"Connect your GitHub account to continue."}]})"));
}

TEST(LinkReplies, AToolCallOfAnyoneElseIsAToolErrorWithTheLink) {
  for (const bool modern : {false, true}) {
    const json reply = Reply(Call(modern ? Modern("tools/call", false) : Legacy("tools/call")), false);
    EXPECT_EQ(reply["result"]["isError"], true);
    EXPECT_NE(reply["result"]["content"][0]["text"].get<std::string>().find(kSignal.url), std::string::npos);
    EXPECT_EQ(reply["result"].contains("resultType"), modern);
  }
}

TEST(LinkReplies, PromptsAndResourcesWithoutTheCapabilityAreErrors) {
  for (const char* method : {"prompts/get", "resources/read"}) {
    const json modern = Reply(Call(Modern(method, false)), false, 400);
    EXPECT_EQ(modern["error"]["code"], -32021);
    EXPECT_EQ(modern["error"]["data"], json::parse(R"({"requiredCapabilities":{"elicitation":{"url":{}}}})"));
    const json legacy = Reply(Call(Legacy(method)), false);
    const int code = legacy["error"]["code"];
    EXPECT_FALSE(code <= -32020 && code >= -32099) << "reserved";
    EXPECT_NE(legacy["error"]["message"].get<std::string>().find(kSignal.url), std::string::npos);
  }
}

TEST(LinkReplies, ModernRequestsNeverGet32042AndOthersNeverInputRequired) {
  EXPECT_EQ(ChooseLinkForm(Call(Modern("tools/call", false)).message, true), LinkForm::kText)
      << "a session's capabilities mean nothing in the modern era";
  EXPECT_EQ(ChooseLinkForm(Call(Modern("tasks/get", true)).message, false), LinkForm::kText);
  EXPECT_EQ(ChooseLinkForm(Call(Legacy("tools/call")).message, false), LinkForm::kText);
}

TEST(LinkReplies, ARequestWithTheUpstreamsStateCannotCarryOursToo) {
  EXPECT_EQ(ChooseLinkForm(Call(Modern("tools/call", true, R"(,"requestState":"theirs")")).message, false),
            LinkForm::kText);
  EXPECT_EQ(ChooseLinkForm(Call(Modern("tools/call", true, R"(,"requestState":"sp1.x")")).message, false),
            LinkForm::kInputRequired);
}

TEST(LinkReplies, DecliningEndsAsAToolError) {
  const json tool = json::parse(DeclinedReply(Call(Legacy("tools/call")).message, "GitHub account"));
  EXPECT_EQ(tool["result"]["isError"], true);
  EXPECT_TRUE(json::parse(DeclinedReply(Call(Legacy("prompts/get")).message, "GitHub account")).contains("error"));
}

TEST(LinkReplies, SyntheticAnswersOfBothEras) {
  const json legacy = json::parse(
      SyntheticReply(Call(R"({"id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}})").message, "GH",
                     "GitHub", "GitHub account"));
  EXPECT_EQ(legacy["result"]["protocolVersion"], "2025-06-18");
  EXPECT_EQ(legacy["result"]["capabilities"]["tools"]["listChanged"], true);
  const json unknown = json::parse(
      SyntheticReply(Call(R"({"id":1,"method":"initialize","params":{"protocolVersion":"1999-01-01"}})").message, "GH",
                     "GitHub", "GitHub account"));
  EXPECT_EQ(unknown["result"]["protocolVersion"], "2025-11-25");
  const json list = json::parse(SyntheticReply(Call(Legacy("tools/list")).message, "GH", "GitHub", "GitHub account"));
  ASSERT_EQ(list["result"]["tools"].size(), 1U);
  EXPECT_EQ(list["result"]["tools"][0]["name"], "connect_account");
  EXPECT_THAT(list["result"]["tools"][0]["description"], HasSubstr("Connects your GitHub account, once."));
  const json own = json::parse(SyntheticReply(Call(Legacy("tools/list")).message, "GH", "Wiki key", "Wiki key"));
  EXPECT_THAT(own["result"]["tools"][0]["description"], HasSubstr("Connects your Wiki key, once."));
  EXPECT_EQ(list["result"]["tools"][0]["inputSchema"]["type"], "object");
  const json modern =
      json::parse(SyntheticReply(Call(Modern("tools/list", false)).message, "GH", "GitHub", "GitHub account"));
  EXPECT_EQ(modern["result"]["resultType"], "complete");
  EXPECT_EQ(modern["result"]["cacheScope"], "private");
  const json discover =
      json::parse(SyntheticReply(Call(Modern("server/discover", false)).message, "GH", "GitHub", "GitHub account"));
  EXPECT_EQ(discover["result"]["supportedVersions"], json::array({"2026-07-28"}));
  EXPECT_EQ(json::parse(SyntheticReply(Call(Legacy("ping")).message, "GH", "GitHub", "GitHub account"))["result"],
            json::object());
  EXPECT_EQ(SyntheticReply(Call(Legacy("tools/call")).message, "GH", "GitHub", "GitHub account"), "");
}

TEST(LinkReplies, NamesCannotBreakOutOfTheJson) {
  const json reply = json::parse(SyntheticReply(Call(Legacy("tools/list")).message, "\"}", "a\"\n\xff", "a\"\n\xff"));
  EXPECT_EQ(reply["result"]["tools"].size(), 1U);
  EXPECT_EQ(json::parse(RpcError("\"i\\u0041d\"", -32000, "x\"", R"({"reason":"y"})"))["error"]["data"]["reason"], "y");
  EXPECT_TRUE(json::parse(RpcError("", -32700, "x"))["id"].is_null());
}

}  // namespace
}  // namespace sallyport::edge

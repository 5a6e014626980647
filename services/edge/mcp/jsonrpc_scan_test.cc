// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/jsonrpc_scan.h"

#include <random>

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include "services/edge/mcp/json_cursor.h"

namespace sallyport::edge {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Kind = RpcMessage::Kind;

ScanError ErrorOf(std::string_view body) {
  RpcMessage message;
  return ScanRpcMessage(body, message);
}

struct Scanned {
  explicit Scanned(std::string body_in) : body(std::move(body_in)) { error = ScanRpcMessage(body, message); }
  std::string body;
  RpcMessage message;
  ScanError error = ScanError::kNone;
};

std::string Nested(int depth) {
  return R"({"method":"a","x":)" + std::string(static_cast<size_t>(depth), '[') +
         std::string(static_cast<size_t>(depth), ']') + "}";
}

TEST(JsonRpcScan, ReadsALegacyCall) {
  const Scanned call(
      R"( {"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"search","arguments":{ "q" : [1] }}} )");
  ASSERT_EQ(call.error, ScanError::kNone);
  EXPECT_EQ(call.message.kind, Kind::kRequest);
  EXPECT_FALSE(call.message.modern);
  EXPECT_EQ(call.message.id, "7");
  EXPECT_EQ(call.message.method, "tools/call");
  EXPECT_EQ(call.message.name, "search");
  EXPECT_EQ(call.message.arguments, R"({ "q" : [1] })");
  EXPECT_TRUE(call.message.request_state_range.empty());
}

TEST(JsonRpcScan, KindsFollowFromTheMembers) {
  EXPECT_EQ(Scanned(R"({"method":"a","id":"x"})").message.kind, Kind::kRequest);
  EXPECT_EQ(Scanned(R"({"method":"notifications/initialized"})").message.kind, Kind::kNotification);
  EXPECT_EQ(Scanned(R"({"id":1,"result":{}})").message.kind, Kind::kResponse);
  EXPECT_EQ(Scanned(R"({"id":1,"error":{"code":1}})").message.kind, Kind::kResponse);
  EXPECT_EQ(Scanned(R"([{"method":"a"},{"id":1,"result":{}}])").message.kind, Kind::kBatch);
  const auto listed = Scanned(R"([{"id":1,"method":"tools/call","params":{"name":"a,\u0062"}},
      {"id":2,"method":"resources/read","params":{"uri":"file:///x"}},{"id":3,"result":{}}])");
  EXPECT_EQ(listed.message.batch_methods, "batch of 3: tools/call, resources/read, response");
  EXPECT_EQ(listed.message.batch_names, "a;b, file:///x, -");
  std::string many = "[";
  for (int i = 0; i < 40; ++i) many += std::string(i > 0 ? "," : "") + R"({"method":")" + std::string(200, 'm') + "\"}";
  const auto cut = Scanned(many + "]");
  EXPECT_LE(cut.message.batch_methods.size(), RpcMessage::kMaxBatchList);
  EXPECT_TRUE(cut.message.batch_methods.starts_with("batch of 40: mmm"));
  EXPECT_TRUE(cut.message.batch_methods.ends_with(", ..."));
}

TEST(JsonRpcScan, IdsAreKeptAsTheyCame) {
  for (const char* id : {"7", "-1", "1.5", "\"a b\"", "\"\\u0041\"", "null", "9007199254740993"}) {
    const Scanned call(std::string(R"({"method":"a","id":)") + id + "}");
    EXPECT_EQ(call.error, ScanError::kNone) << id;
    EXPECT_EQ(call.message.id, id);
  }
  for (const char* id : {"{}", "[1]", "true", "false"}) {
    EXPECT_EQ(ErrorOf(std::string(R"({"method":"a","id":)") + id + "}"), ScanError::kInvalidRequest) << id;
  }
}

TEST(JsonRpcScan, TheEraIsTheBodys) {
  const Scanned modern(
      R"({"id":1,"method":"tools/call","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}})");
  EXPECT_TRUE(modern.message.modern);
  EXPECT_EQ(modern.message.protocol_version, "2026-07-28");
  EXPECT_FALSE(
      Scanned(R"({"id":1,"method":"a","_meta":{"io.modelcontextprotocol/protocolVersion":"x"}})").message.modern);
  EXPECT_FALSE(
      Scanned(
          R"({"id":1,"method":"a","params":{"arguments":{"_meta":{"io.modelcontextprotocol/protocolVersion":"x"}}}})")
          .message.modern);
  EXPECT_EQ(ErrorOf(R"({"id":1,"method":"a","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":7}}})"),
            ScanError::kInvalidRequest);
}

TEST(JsonRpcScan, NamesComeFromNameOrForResourcesFromUri) {
  EXPECT_EQ(Scanned(R"({"id":1,"method":"resources/read","params":{"uri":"file:///a","name":"x"}})").message.name,
            "file:///a");
  EXPECT_EQ(Scanned(R"({"id":1,"params":{"uri":"file:///a","name":"x"},"method":"tools/call"})").message.name, "x");
  EXPECT_EQ(Scanned(R"({"id":1,"params":{"name":"x"},"method":"resources/read"})").message.name, "");
  EXPECT_EQ(Scanned(R"({"id":1,"params":{"name":["x"]},"method":"tools/call"})").message.name, "");
}

TEST(JsonRpcScan, EscapesAreReadInKeysAndValues) {
  const Scanned call(
      "{\"\\u006dethod\":\"tools\\/call\",\"id\":1,\"params\":{\"n\\u0061me\":\"\\ud83d\\ude00\\t\\\"\\\\\\u00e9\"}}");
  ASSERT_EQ(call.error, ScanError::kNone);
  EXPECT_EQ(call.message.method, "tools/call");
  EXPECT_EQ(call.message.name, "\xF0\x9F\x98\x80\t\"\\\xC3\xA9");
}

TEST(JsonRpcScan, LoneSurrogatesInWhatTheGatewayReadsAreRefused) {
  for (const char* name : {"\\ud83d", "\\ude00", "\\ud83dx", "\\ud83d\\u0041", "\\ud83d\\ud83d", "a\\ud83d\\n"}) {
    EXPECT_EQ(ErrorOf(std::string(R"({"method":"tools/call","id":1,"params":{"name":")") + name + "\"}}"),
              ScanError::kInvalidRequest)
        << name;
  }
  EXPECT_EQ(ErrorOf(R"({"method":"tools/call","id":1,"params":{"arguments":{"x":"\ud83d"}}})"), ScanError::kNone)
      << "arguments are the upstream's to read";
}

TEST(JsonRpcScan, KnownKeysTwiceAreRefusedHoweverTheyAreSpelt) {
  for (
      const char* body :
      {R"({"method":"a","method":"b"})",
       R"({"method":"a","\u006dethod":"b"})",
       R"({"id":1,"method":"a","id":2})",
       R"({"method":"a","params":{},"params":{"name":"x"}})",
       R"({"method":"a","params":{"name":"x","name":"y"}})",
       R"({"method":"a","params":{"name":"x","name":1}})",
       R"({"method":"a","params":{"n\u0061me":1,"name":"y"}})",
       R"({"method":"a","params":{"uri":"x","uri":"y"}})",
       R"({"method":"a","params":{"arguments":{},"arguments":{}}})",
       R"({"method":"a","params":{"_meta":{},"_meta":{}}})",
       R"({"method":"a","params":{"requestState":1,"requestState":"x"}})",
       R"({"method":"a","params":{"inputResponses":{},"inputResponses":{}}})",
       R"({"method":"a","params":{"inputResponses":{"a":{},"a":{}}}})",
       R"({"method":"a","params":{"inputResponses":{"a":{"action":"accept","action":"decline"}}}})",
       R"({"method":"a","params":{"inputResponses":{"a":{"action":1,"action":"decline"}}}})",
       R"({"method":"a","params":{"capabilities":{},"capabilities":{}}})",
       R"({"method":"a","params":{"capabilities":{"elicitation":1,"elicitation":{"url":{}}}}})",
       R"({"method":"a","params":{"capabilities":{"elicitation":{"url":{},"url":1}}}})",
       R"({"method":"a","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"a","io.modelcontextprotocol/protocolVersion":"b"}}})",
       R"({"id":1,"result":{},"result":1})",
       R"({"id":1,"error":{},"error":1})",
       R"({"jsonrpc":"2.0","jsonrpc":"2.0","method":"a"})",
       R"([{"method":"a","method":"b"}])"}) {
    EXPECT_EQ(ErrorOf(body), ScanError::kInvalidRequest) << body;
  }
}

// Go's encoding/json and case-insensitive readers of other languages take them for the key: the audit would record one
// call and the upstream run another.
TEST(JsonRpcScan, KeysThatFoldToOneOfOursAreRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"method":"tools/list","METHOD":"tools/call","id":1})", "method"},
      {R"({"METHOD":"tools/call","id":1})", "method"},
      {R"({"method":"tools/list","\u004dethod":"tools/call","id":1})", "method"},
      {R"({"method":"tools/list","Id":2})", "id"},
      {R"({"method":"tools/call","id":1,"Params":{"name":"x"}})", "params"},
      {"{\"method\":\"tools/call\",\"id\":1,\"param\xc5\xbf\":{\"name\":\"x\"}}", "params"},
      {R"({"method":"tools/call","id":1,"PARAM\u017f":{"name":"x"}})", "params"},
      {R"({"id":1,"result":{},"Re\u017fult":1})", "result"},
      {R"({"id":1,"ERROR":{}})", "error"},
      {R"({"JSONRPC":"1.0","method":"a"})", "jsonrpc"},
      {R"({"method":"tools/call","params":{"name":"a","Name":"b"}})", "name"},
      {R"({"method":"resources/read","params":{"uri":"a","URI":"b"}})", "uri"},
      {R"({"method":"tools/call","params":{"Arguments":{}}})", "arguments"},
      {R"({"method":"tools/call","params":{"argument\u017F":{}}})", "arguments"},
      {R"({"method":"tools/call","params":{"_META":{}}})", "_meta"},
      {R"({"method":"initialize","params":{"Capabilities":{}}})", "capabilities"},
      {R"({"method":"tools/call","params":{"requeststate":"x"}})", "requestState"},
      {R"({"method":"tools/call","params":{"inputre\u017fponses":{}}})", "inputResponses"},
      {R"({"method":"a","params":{"_meta":{"io.modelcontextprotocol/protocolversion":"x"}}})",
       "io.modelcontextprotocol/protocolVersion"},
      {R"({"method":"a","params":{"_meta":{"IO.modelcontextprotocol/clientCapabilities":{}}}})",
       "io.modelcontextprotocol/clientCapabilities"},
      {R"({"method":"initialize","params":{"capabilities":{"Elicitation":{}}}})", "elicitation"},
      {R"({"method":"initialize","params":{"capabilities":{"elicitation":{"URL":{}}}}})", "url"},
      {R"({"method":"a","params":{"inputResponses":{"a":{"Action":"accept"}}}})", "action"},
      {R"([{"method":"a"},{"method":"a","Method":"b"}])", "method"}};
  for (const auto& [body, key] : cases) {
    const Scanned call(body);
    EXPECT_EQ(call.error, ScanError::kAmbiguousKey) << body;
    EXPECT_EQ(call.message.ambiguous_key, key) << body;
  }
}

TEST(JsonRpcScan, OtherKeysMayBeSpeltInAnyWay) {
  for (const char* body :
       {R"({"method":"tools/call","id":1,"params":{"name":"a","arguments":{"METHOD":1,"Name":2,"name":3,"NAME":4}}})",
        R"({"method":"tools/call","id":1,"params":{"arguments":[{"Params":{"URI":1}}],"other":{"Name":1}}})",
        R"({"id":1,"result":{"Method":1,"RESULT":2}})", R"({"id":1,"error":{"Error":1}})",
        R"({"method":"initialize","params":{"clientInfo":{"Name":"a"},"capabilities":{"experimental":{"URL":1}}}})",
        R"({"method":"a","params":{"_meta":{"Name":1,"METHOD":2,"progressToken":3}}})",
        R"({"method":"a","params":{"inputResponses":{"Action":{"content":{"Action":1}}}}})",
        R"({"method":"a","i\u0307d":1,"\u0131d":1,"\uff4dethod":1,"me\u0301thod":1,"params2":1,"param":1})"}) {
    EXPECT_EQ(ErrorOf(body), ScanError::kNone) << body;
  }
}

TEST(JsonRpcScan, FoldingIsUnicodesSimpleOne) {
  EXPECT_TRUE(
      EqualFolded("To\xe2\x84\xaa"
                  "en\xc5\xbf",
                  "tokenS"))
      << "Kelvin sign, long s";
  EXPECT_TRUE(EqualFolded("_mEtA", "_meta"));
  for (const char* other : {"", "toke", "tokenss", "token\xc3\x9f",
                            "to\xe2\x84\xab"
                            "ens",
                            "tokens "}) {
    EXPECT_FALSE(EqualFolded(other, "tokens")) << other;
  }
}

TEST(JsonRpcScan, WhatIsNotAMessageIsRefused) {
  for (const char* body :
       {"{}", "[]", "7", "\"a\"", "true", "null", R"({"id":1})", R"({"method":"a","result":1,"id":1})",
        R"({"method":7})", R"({"method":null})", "[1]", "[{}]", R"([{"method":"a"},7])",
        R"([{"method":"a","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"x"}}}])"}) {
    EXPECT_EQ(ErrorOf(body), ScanError::kInvalidRequest) << body;
  }
}

TEST(JsonRpcScan, WhatIsNotJsonIsRefused) {
  for (const std::string& body : std::vector<std::string>{"",
                                                          " ",
                                                          "{",
                                                          "}",
                                                          "{]",
                                                          R"({"method":"a")",
                                                          R"({"method":"a"}x)",
                                                          R"({"method":"a"}{})",
                                                          R"({"method":"a",})",
                                                          R"({,"method":"a"})",
                                                          R"({method:"a"})",
                                                          R"({'method':'a'})",
                                                          R"({"method" "a"})",
                                                          "{\"method\":\"a\n\"}",
                                                          R"({"method":"\x"})",
                                                          R"({"method":"\u12"})",
                                                          R"({"method":"\u12g4"})",
                                                          R"({"method":"a","x":01})",
                                                          R"({"method":"a","x":1.})",
                                                          R"({"method":"a","x":.5})",
                                                          R"({"method":"a","x":+1})",
                                                          R"({"method":"a","x":1e})",
                                                          R"({"method":"a","x":-})",
                                                          R"({"method":"a","x":tru})",
                                                          R"({"method":"a","x":NaN})",
                                                          R"({"method":"a","x":[1,]})",
                                                          R"({"method":"a","x":[1 2]})",
                                                          R"({"method":"a"} // c)",
                                                          "\xEF\xBB\xBF{\"method\":\"a\"}",
                                                          std::string("{\"method\":\"a\0\"}", 15),
                                                          std::string("{\"method\":\"a\"}\0", 15),
                                                          "{\"method\":\"\xff\"}",
                                                          "{\"method\":\"a\",\"x\":\"\xc0\xaf\"}",
                                                          "{\"method\":\"a\",\"x\":\"\xed\xa0\x80\"}"}) {
    EXPECT_EQ(ErrorOf(body), ScanError::kParse) << body;
  }
}

TEST(JsonRpcScan, DepthIsBounded) {
  EXPECT_EQ(ErrorOf(Nested(60)), ScanError::kNone);
  EXPECT_EQ(ErrorOf(Nested(65)), ScanError::kParse);
  EXPECT_EQ(ErrorOf(Nested(100'000)), ScanError::kParse);
  EXPECT_EQ(ErrorOf(std::string(100'000, '[')), ScanError::kParse);
  std::string objects = R"({"method":"a","params":)";
  for (int i = 0; i < 10'000; ++i) objects += R"({"_meta":)";
  EXPECT_EQ(ErrorOf(objects), ScanError::kParse);
}

TEST(JsonRpcScan, UrlElicitationIsReadWhereTheEraSaysIt) {
  const auto url = [](const std::string& body) { return Scanned(body).message.elicitation_url; };
  const std::string caps = R"({"elicitation":{"form":{},"url":{}}})";
  EXPECT_TRUE(url(R"({"id":1,"method":"initialize","params":{"capabilities":)" + caps + "}}"));
  EXPECT_FALSE(url(R"({"id":1,"method":"tools/call","params":{"capabilities":)" + caps + "}}"));
  EXPECT_FALSE(url(R"({"id":1,"method":"initialize","params":{"capabilities":{"elicitation":{}}}})")) << "form only";
  EXPECT_FALSE(url(R"({"id":1,"method":"initialize","params":{"capabilities":{"elicitation":{"url":true}}}})"));
  EXPECT_FALSE(url(R"({"id":1,"method":"initialize","params":{"capabilities":{"url":{}}}})"));
  const std::string meta = R"("io.modelcontextprotocol/protocolVersion":"2026-07-28")";
  EXPECT_TRUE(url(R"({"id":1,"method":"tools/call","params":{"_meta":{)" + meta +
                  R"(,"io.modelcontextprotocol/clientCapabilities":)" + caps + "}}}"));
  EXPECT_FALSE(
      url(R"({"id":1,"method":"tools/call","params":{"capabilities":)" + caps + R"(,"_meta":{)" + meta + "}}}"))
      << "a modern request says it in _meta";
}

TEST(JsonRpcScan, InputResponsesAreBounded) {
  const auto with = [](int count) {
    std::string body = R"({"id":1,"method":"a","params":{"inputResponses":{)";
    for (int i = 0; i < count; ++i) body += (i > 0 ? ",\"k" : "\"k") + std::to_string(i) + R"(":{"action":"accept"})";
    return body + "}}}";
  };
  EXPECT_EQ(ErrorOf(with(16)), ScanError::kNone);
  EXPECT_EQ(ErrorOf(with(17)), ScanError::kInvalidRequest);
  const Scanned call(with(2));
  ASSERT_THAT(call.message.input_responses, SizeIs(2));
  EXPECT_EQ(call.message.input_responses[1].key, "k1");
  EXPECT_EQ(call.message.input_responses[1].action, "accept");
}

// --- cutting ---

std::string Cut(std::string body, const std::vector<RpcMessage::Range>& members) {
  const auto cuts = WidenToMembers(body, members);
  for (auto cut = cuts.rbegin(); cut != cuts.rend(); ++cut) body.erase(cut->begin, cut->end - cut->begin);
  return body;
}

// Every order of members and every white space around them.
TEST(JsonRpcScan, CuttingLeavesTheSameMessageWithoutTheMembers) {
  std::vector<std::string> members = {R"("name":"x")", R"("requestState":"sp1.abc")",
                                      R"("inputResponses":{"sallyport_link_a":{"action":"accept"}})",
                                      R"("arguments":{"q":[1,2]})"};
  std::sort(members.begin(), members.end());
  do {
    for (size_t count = 1; count <= members.size(); ++count) {
      for (const char* space : {"", " ", "\n\t "}) {
        std::string params;
        for (size_t i = 0; i < count; ++i) params += (i > 0 ? std::string(space) + "," + space : "") + members[i];
        const Scanned call(R"({"id":1,"method":"tools/call","params":{)" + std::string(space) + params + space + "}}");
        ASSERT_EQ(call.error, ScanError::kNone) << call.body;
        std::vector<RpcMessage::Range> ranges;
        if (!call.message.request_state_range.empty()) ranges.push_back(call.message.request_state_range);
        if (!call.message.input_responses_range.empty()) ranges.push_back(call.message.input_responses_range);
        auto expected = nlohmann::json::parse(call.body);
        expected["params"].erase("requestState");
        expected["params"].erase("inputResponses");
        const std::string cut = Cut(call.body, ranges);
        ASSERT_TRUE(nlohmann::json::accept(cut)) << cut;
        EXPECT_EQ(nlohmann::json::parse(cut), expected) << cut;
      }
    }
  } while (std::next_permutation(members.begin(), members.end()));
}

TEST(JsonRpcScan, CuttingSingleInputResponsesLeavesTheUpstreams) {
  std::vector<std::string> keys = {"sallyport_link_a", "theirs", "sallyport_link_b", "too"};
  std::sort(keys.begin(), keys.end());
  do {
    std::string responses;
    for (const auto& key : keys) responses += (responses.empty() ? "\"" : " , \"") + key + R"(":{"action":"accept"})";
    const Scanned call(R"({"id":1,"method":"a","params":{"inputResponses":{)" + responses +
                       R"(},"requestState":"sp1.x"}})");
    std::vector<RpcMessage::Range> ranges = {call.message.request_state_range};
    for (const auto& response : call.message.input_responses) {
      if (response.key.substr(0, 9) == "sallyport") ranges.push_back(response.range);
    }
    const std::string cut = Cut(call.body, ranges);
    ASSERT_TRUE(nlohmann::json::accept(cut)) << cut;
    const auto params = nlohmann::json::parse(cut)["params"];
    EXPECT_EQ(params["inputResponses"].size(), 2U) << cut;
    EXPECT_FALSE(params.contains("requestState"));
  } while (std::next_permutation(keys.begin(), keys.end()));
}

// --- against another reader ---

int DepthOf(const nlohmann::json& value) {
  int deepest = 0;
  if (value.is_structured()) {
    for (const auto& member : value) deepest = std::max(deepest, 1 + DepthOf(member));
  }
  return deepest;
}

TEST(JsonRpcScan, RandomMutationsAreJudgedAsByAnotherParser) {
  const std::vector<std::string> seeds = {
      R"({"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"a","arguments":{"q":[1,2.5,-3,true,null,"x\n"]}}})",
      R"({"id":"a","method":"initialize","params":{"capabilities":{"elicitation":{"url":{}}}}})",
      R"([{"method":"a"},{"id":1,"result":{"x":[[],{}]}}])",
      R"({"id":1,"method":"a","params":{"requestState":"sp1.x","inputResponses":{"a":{"action":"accept"}},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026"}}})"};
  constexpr std::string_view kBytes = "{}[]\",:\\ 0123.-+tfnule\n\xff";
  std::mt19937 random(20260728);  // The same every time.
  const auto below = [&](size_t bound) { return std::uniform_int_distribution<size_t>(0, bound - 1)(random); };
  RpcMessage message;
  for (int round = 0; round < 60'000; ++round) {
    std::string body = seeds[below(seeds.size())];
    for (size_t changes = 1 + below(3); changes > 0; --changes) {
      const size_t at = below(body.size());
      switch (below(3)) {
        case 0:
          body[at] = kBytes[below(kBytes.size())];
          break;
        case 1:
          body.erase(at, 1 + below(4));
          break;
        default:
          body.insert(at, 1, kBytes[below(kBytes.size())]);
      }
      if (body.empty()) body = " ";
    }
    const ScanError error = ScanRpcMessage(body, message);
    const bool json = nlohmann::json::accept(body);
    if (!json) {
      EXPECT_NE(error, ScanError::kNone) << body;
      continue;
    }
    const auto value = nlohmann::json::parse(body);
    if (DepthOf(value) < 60) {
      EXPECT_NE(error, ScanError::kParse) << body;
    }
    if (error != ScanError::kNone || message.kind == Kind::kBatch) continue;
    // Both read the same.
    if (value.contains("method") && value["method"].is_string()) {
      EXPECT_EQ(message.method, value["method"].get<std::string>()) << body;
    }
    if (value.contains("params") && value["params"].is_object() && value["params"].contains("name") &&
        value["params"]["name"].is_string() && message.method != "resources/read") {
      EXPECT_EQ(message.name, value["params"]["name"].get<std::string>()) << body;
    }
  }
}

}  // namespace
}  // namespace sallyport::edge

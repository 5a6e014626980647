// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/request_parser.h"

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace sallyport::edge {
namespace {

using Result = RequestParser::Result;

struct Parsed {
  Result result = Result::kNeedMore;
  int status = 0;
  std::string reason;
  std::string text;  // The head's views point here.
  std::unique_ptr<RequestHead> head = std::make_unique<RequestHead>();
  size_t head_size = 0;
};

// Feeds `step` bytes at a time.
std::unique_ptr<Parsed> ParseInSteps(std::string text, size_t step) {
  auto parsed = std::make_unique<Parsed>();
  parsed->text = std::move(text);
  RequestParser parser;
  for (size_t size = 0; parsed->result == Result::kNeedMore && size < parsed->text.size();) {
    size = std::min(size + step, parsed->text.size());
    parsed->result = parser.Parse(parsed->text.data(), size, *parsed->head);
  }
  parsed->status = parser.status();
  parsed->reason = std::string(parser.reason());
  parsed->head_size = parser.head_size();
  return parsed;
}

std::unique_ptr<Parsed> Parse(std::string text) { return ParseInSteps(std::move(text), 1 << 20); }

TEST(RequestParserTest, ReadsMethodTargetFieldsAndFraming) {
  const auto parsed = Parse(
      "POST /mcp/github?a=1&b=%20 HTTP/1.1\r\nHost: gw.example:8080\r\nContent-Length: 5\r\nX-Thing:  some "
      "value\t\r\n\r\nhello");

  ASSERT_EQ(parsed->result, Result::kDone);
  const RequestHead& head = *parsed->head;
  EXPECT_EQ(head.method, "POST");
  EXPECT_EQ(head.path, "/mcp/github");
  EXPECT_TRUE(head.has_query);
  EXPECT_EQ(head.query, "a=1&b=%20");
  EXPECT_EQ(head.host, "gw.example:8080");
  EXPECT_EQ(head.framing, BodyFraming::kLength);
  EXPECT_EQ(head.content_length, 5u);
  EXPECT_TRUE(head.keep_alive);
  EXPECT_EQ(head.ValueOf("x_THING"), "some value");
  EXPECT_EQ(parsed->text.substr(parsed->head_size), "hello");
}

TEST(RequestParserTest, ByteByByteGivesTheSameAsAtOnce) {
  const std::string text = "\r\nGET /a%20b?q HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nConnection: close, X-Drop\r\n\r\n";

  const auto parsed = ParseInSteps(text, 1);

  ASSERT_EQ(parsed->result, Result::kDone);
  EXPECT_EQ(parsed->head->path, "/a b");
  EXPECT_EQ(parsed->head->query, "q");
  EXPECT_FALSE(parsed->head->keep_alive);
  ASSERT_EQ(parsed->head->connection_options().size(), 1u);
  EXPECT_EQ(parsed->head->connection_options()[0], "X-Drop");
  EXPECT_EQ(parsed->head_size, text.size());
}

TEST(RequestParserTest, Http10NeverKeepsAlive) {
  const auto parsed = Parse("GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n");

  ASSERT_EQ(parsed->result, Result::kDone);
  EXPECT_FALSE(parsed->head->keep_alive);
}

TEST(RequestParserTest, ChunkedIsCaseInsensitive) {
  const auto parsed = Parse("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: ChunKed\r\n\r\n");

  ASSERT_EQ(parsed->result, Result::kDone);
  EXPECT_EQ(parsed->head->framing, BodyFraming::kChunked);
}

TEST(RequestParserTest, AbsoluteFormMustAgreeWithHost) {
  EXPECT_EQ(Parse("GET http://x/a?b HTTP/1.1\r\nHost: x\r\n\r\n")->head->path, "/a");
  EXPECT_EQ(Parse("GET http://y/a HTTP/1.1\r\nHost: x\r\n\r\n")->status, 400);
}

TEST(RequestParserTest, ExpectIsAnsweredOnlyOnHttp11) {
  EXPECT_TRUE(
      Parse("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n")->head->expect_continue);
  EXPECT_FALSE(
      Parse("POST / HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")->head->expect_continue);
}

TEST(RequestParserTest, OptionsMayAskOfTheServerAsAWhole) {
  EXPECT_EQ(Parse("OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")->head->path, "*");
  EXPECT_EQ(Parse("OPTIONS http://x HTTP/1.1\r\nHost: x\r\n\r\n")->head->path, "*") << "RFC 9112 section 3.2.4";
  EXPECT_EQ(Parse("OPTIONS /a HTTP/1.1\r\nHost: x\r\n\r\n")->head->path, "/a");
}

TEST(RequestParserTest, AnOfferOfHttp2IsIgnored) {
  for (const char* upgrade : {"h2c", "H2C", "h2c, h2c", ""}) {
    const auto parsed =
        Parse(std::string("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: ") + upgrade +
              "\r\nHTTP2-Settings: AAEAAEAA\r\n\r\n");
    EXPECT_EQ(parsed->result, Result::kDone) << upgrade;
    EXPECT_TRUE(parsed->head->keep_alive);
  }
}

struct Refused {
  const char* name;
  std::string fields;  // After the request line; with every CRLF but the last.
  int status = 400;
};

class RefusedFieldsTest : public ::testing::TestWithParam<Refused> {};

TEST_P(RefusedFieldsTest, WhateverTheStepSize) {
  const std::string text = "POST /mcp/a HTTP/1.1\r\nHost: x\r\n" + GetParam().fields + "\r\n";
  for (size_t step : {size_t{1}, size_t{7}, size_t{1} << 20}) {
    const auto parsed = ParseInSteps(text, step);
    EXPECT_EQ(parsed->result, Result::kError) << step;
    EXPECT_EQ(parsed->status, GetParam().status) << step;
  }
}

const std::string kNul(1, '\0');

INSTANTIATE_TEST_SUITE_P(
    Framing, RefusedFieldsTest,
    ::testing::Values(
        Refused{"H1_LengthAndChunked", "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n"},
        Refused{"H1_ChunkedAndLength", "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n"},
        Refused{"H2_TwoLengths", "Content-Length: 5\r\nContent-Length: 10\r\n"},
        Refused{"H2_TwoEqualLengths", "Content-Length: 5\r\nContent-Length: 5\r\n"},
        Refused{"H2_ListOfLengths", "Content-Length: 5, 10\r\n"}, Refused{"H2_ListOfEqual", "Content-Length: 5, 5\r\n"},
        Refused{"H2_ListOfThree", "Content-Length: 5, 5, 5\r\n"}, Refused{"H3_Plus", "Content-Length: +5\r\n"},
        Refused{"H3_Minus", "Content-Length: -1\r\n"}, Refused{"H3_MinusZero", "Content-Length: -0\r\n"},
        Refused{"H3_Hex", "Content-Length: 0x5\r\n"}, Refused{"H3_LeadingZero", "Content-Length: 05\r\n"},
        Refused{"H3_ZeroZero", "Content-Length: 00\r\n"}, Refused{"H3_Space", "Content-Length: 5 5\r\n"},
        Refused{"H3_Empty", "Content-Length:\r\n"}, Refused{"H3_TooBig", "Content-Length: 18446744073709551616\r\n"},
        Refused{"H4_xchunked", "Transfer-Encoding: xchunked\r\n"},
        Refused{"H4_identity", "Transfer-Encoding: identity\r\n"}, Refused{"H4_empty", "Transfer-Encoding:\r\n"},
        Refused{"H4_twice", "Transfer-Encoding: chunked, chunked\r\n"},
        Refused{"H4_gzip", "Transfer-Encoding: gzip, chunked\r\n"},
        Refused{"H4_parameter", "Transfer-Encoding: chunked;a=b\r\n"},
        Refused{"H4_comma_first", "Transfer-Encoding: ,chunked\r\n"},
        Refused{"H4_comma_last", "Transfer-Encoding: chunked,\r\n"},
        Refused{"H4_vt",
                "Transfer-Encoding: \x0b"
                "chunked\r\n"},
        Refused{"H4_ff",
                "Transfer-Encoding: \x0c"
                "chunked\r\n"},
        Refused{"H4_nul", "Transfer-Encoding: chu" + kNul + "nked\r\n"},
        Refused{"H4_folded", "Transfer-Encoding:\r\n chunked\r\n"},
        Refused{"H4_two_fields", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"},
        Refused{"H5_space_before_colon", "Transfer-Encoding : chunked\r\n"},
        Refused{"H5_underscore_te", "Transfer_Encoding: chunked\r\n"},
        Refused{"H5_underscore_cl", "Content_Length: 5\r\n"}, Refused{"H12_expect", "Expect: foo\r\n", 417},
        Refused{"H14_two_hosts", "Host: x\r\n"},
        Refused{"H27_websocket", "Upgrade: websocket\r\nConnection: upgrade\r\n"},
        Refused{"H27_h2c_or_websocket", "Upgrade: h2c, websocket\r\n"},
        Refused{"H27_h2c_and_websocket", "Upgrade: h2c\r\nUpgrade: websocket\r\n"},
        Refused{"Bare_lf", "X: y\nZ: w\r\n"}, Refused{"Bare_cr", "X: y\rZ: w\r\n"}, Refused{"No_colon", "Nothing\r\n"},
        Refused{"Empty_name", ": value\r\n"}, Refused{"Name_with_space", "X Y: z\r\n"},
        Refused{"Name_with_umlaut", "X\xc3\xa4: z\r\n"}, Refused{"Value_with_nul", "X: a" + kNul + "b\r\n"},
        Refused{"Value_with_del",
                "X: a\x7f"
                "b\r\n"},
        Refused{"Folded", "X: a\r\n b\r\n"}, Refused{"Leading_space", " X: a\r\n"},
        Refused{"Two_authorizations", "Authorization: a\r\nAuthorization: b\r\n"},
        Refused{"Two_session_ids", "Mcp-Session-Id: a\r\nMcp_Session_Id: b\r\n"},
        Refused{"Bad_connection_option", "Connection: a b\r\n"},
        Refused{"D3_101_fields",
                [] {
                  std::string fields;
                  for (int i = 0; i < 100; ++i) {
                    fields += "X: y\r\n";
                  }
                  return fields;
                }(),
                431},
        Refused{"D3_17_KiB",
                "A: " + std::string(6000, 'a') + "\r\nB: " + std::string(6000, 'b') +
                    "\r\nC: " + std::string(6000, 'c') + "\r\n",
                431},
        Refused{"D3_9_KiB_field", "A: " + std::string(9000, 'a') + "\r\n", 431}),
    [](const auto& tested) { return std::string(tested.param.name); });

struct RefusedHead {
  const char* name;
  std::string text;
  int status = 400;
};

class RefusedHeadTest : public ::testing::TestWithParam<RefusedHead> {};

TEST_P(RefusedHeadTest, WhateverTheStepSize) {
  for (size_t step : {size_t{1}, size_t{1} << 20}) {
    const auto parsed = ParseInSteps(GetParam().text, step);
    EXPECT_EQ(parsed->result, Result::kError) << step;
    EXPECT_EQ(parsed->status, GetParam().status) << step;
  }
}

std::string WithTarget(const std::string& target) { return "GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n"; }

INSTANTIATE_TEST_SUITE_P(
    Heads, RefusedHeadTest,
    ::testing::Values(
        RefusedHead{"H6_chunked_on_10", "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"},
        RefusedHead{"H14_no_host", "GET / HTTP/1.1\r\nAccept: a\r\n\r\n"},
        RefusedHead{"H14_host_list", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"},
        RefusedHead{"H14_empty_host", "GET / HTTP/1.1\r\nHost:\r\n\r\n"},
        RefusedHead{"H14_userinfo", "GET / HTTP/1.1\r\nHost: u@x\r\n\r\n"},
        RefusedHead{"H14_userinfo_in_target", WithTarget("http://u@x/")},
        RefusedHead{"H14_bad_port", "GET / HTTP/1.1\r\nHost: x:80a\r\n\r\n"},
        RefusedHead{"H22_dot_dot", WithTarget("/mcp/a/../b")}, RefusedHead{"H22_dot", WithTarget("/mcp/./b")},
        RefusedHead{"H22_last_dot_dot", WithTarget("/mcp/..")}, RefusedHead{"H22_double_slash", WithTarget("//mcp/b")},
        RefusedHead{"H22_encoded_slash", WithTarget("/mcp/a%2f..%2fb")},
        RefusedHead{"H22_encoded_dots", WithTarget("/mcp/%2e%2e/b")},
        RefusedHead{"H22_mixed_dots", WithTarget("/mcp/.%2E")}, RefusedHead{"H22_backslash", WithTarget("/mcp\\a")},
        RefusedHead{"H22_encoded_backslash", WithTarget("/mcp%5ca")},
        RefusedHead{"H22_dots_with_parameter", WithTarget("/mcp/..;x=/b")},
        RefusedHead{"H22_nul", WithTarget("/mcp/%00")}, RefusedHead{"H22_encoded_newline", WithTarget("/mcp/%0a")},
        RefusedHead{"H22_overlong", WithTarget("/mcp/%c0%ae")},
        RefusedHead{"H22_surrogate", WithTarget("/mcp/%ed%a0%80")}, RefusedHead{"H22_truncated", WithTarget("/mcp/%2")},
        RefusedHead{"H22_not_hex", WithTarget("/mcp/%zz")}, RefusedHead{"H22_fragment", WithTarget("/mcp#a")},
        RefusedHead{"H22_fragment_in_query", WithTarget("/mcp?a#b")}, RefusedHead{"Raw_utf8", WithTarget("/\xc3\xa4")},
        RefusedHead{"Asterisk_with_get", WithTarget("*")},
        RefusedHead{"Asterisk_and_more", "OPTIONS *?a HTTP/1.1\r\nHost: x\r\n\r\n"},
        RefusedHead{"No_path_with_get", WithTarget("http://x")}, RefusedHead{"No_slash", WithTarget("mcp")},
        RefusedHead{"H27_connect", "CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 405},
        RefusedHead{"H27_trace", "TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405},
        RefusedHead{"H27_h2_preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
        RefusedHead{"Version_2", "GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505},
        RefusedHead{"Version_12", "GET / HTTP/1.2\r\nHost: x\r\n\r\n", 505},
        RefusedHead{"Version_lower_case", "GET / http/1.1\r\nHost: x\r\n\r\n"},
        RefusedHead{"No_version", "GET /\r\nHost: x\r\n\r\n"},
        RefusedHead{"Two_spaces", "GET  / HTTP/1.1\r\nHost: x\r\n\r\n"},
        RefusedHead{"Tab", "GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n"},
        RefusedHead{"Bad_method", "G(T / HTTP/1.1\r\nHost: x\r\n\r\n"},
        RefusedHead{"Two_empty_lines", "\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"},
        RefusedHead{"Bare_newline", "GET / HTTP/1.1\nHost: x\n\n"},
        RefusedHead{"Tls_hello", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 12)},
        RefusedHead{"D3_9_KiB_target", WithTarget("/" + std::string(9000, 'a')), 414}),
    [](const auto& tested) { return std::string(tested.param.name); });

TEST(RequestParserTest, ATargetThatNeverEndsIsRefusedBeforeItsEnd) {
  EXPECT_EQ(Parse("GET /" + std::string(8300, 'a'))->status, 414);
}

TEST(RequestParserTest, OtherNamesWithUnderscorePass) {
  EXPECT_EQ(Parse("GET / HTTP/1.1\r\nHost: x\r\nX_Request_Id: 1\r\n\r\n")->result, Result::kDone);
}

TEST(RequestParserTest, DecodesThePathOnce) {
  EXPECT_EQ(Parse(WithTarget("/mcp/git%68ub"))->head->path, "/mcp/github");
  EXPECT_EQ(Parse(WithTarget("/a%252e%252e"))->head->path, "/a%2e%2e");
  EXPECT_EQ(Parse(WithTarget("/%c3%a4/"))->head->path, "/\xc3\xa4/");
}

}  // namespace
}  // namespace sallyport::edge

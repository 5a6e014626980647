// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/response_parser.h"

#include <memory>
#include <string>

#include <gtest/gtest.h>

namespace sallyport::edge {
namespace {

using Result = ResponseParser::Result;

struct Parsed {
  std::string text;
  Result result = Result::kNeedMore;
  ResponseHead head;
  size_t head_size = 0;
};

std::unique_ptr<Parsed> Parse(std::string text, bool head_request = false, size_t step = 1 << 20) {
  auto parsed = std::make_unique<Parsed>();
  parsed->text = std::move(text);
  ResponseParser parser(head_request);
  for (size_t size = 0; parsed->result == Result::kNeedMore && size < parsed->text.size();) {
    size = std::min(size + step, parsed->text.size());
    parsed->result = parser.Parse(parsed->text.data(), size, parsed->head);
  }
  parsed->head_size = parser.head_size();
  return parsed;
}

TEST(ResponseParserTest, ReadsStatusFieldsAndLength) {
  const auto parsed =
      Parse("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nKeep-Alive: timeout=5, max=9\r\n\r\nabc", false, 1);

  ASSERT_EQ(parsed->result, Result::kDone);
  EXPECT_EQ(parsed->head.status, 200);
  EXPECT_EQ(parsed->head.framing, BodyFraming::kLength);
  EXPECT_EQ(parsed->head.content_length, 3u);
  EXPECT_EQ(parsed->head.keep_alive_timeout, 5u);
  EXPECT_TRUE(parsed->head.keep_alive);
  EXPECT_EQ(parsed->text.substr(parsed->head_size), "abc");
}

TEST(ResponseParserTest, SkipsEightInterimResponsesButNotNine) {
  std::string interim;
  for (int i = 0; i < 8; ++i) {
    interim += "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
  }
  const std::string last = "HTTP/1.1 204\r\n\r\n";

  EXPECT_EQ(Parse(interim + last)->head.status, 204);
  EXPECT_EQ(Parse(interim + last)->head.field_count, 0u);
  EXPECT_EQ(Parse(interim + "HTTP/1.1 100 Continue\r\n\r\n" + last)->result, Result::kError);
}

TEST(ResponseParserTest, FramingFollowsMethodAndStatus) {
  EXPECT_EQ(Parse("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", true)->head.framing, BodyFraming::kNone);
  EXPECT_EQ(Parse("HTTP/1.1 304 N\r\nContent-Length: 9\r\n\r\n")->head.framing, BodyFraming::kNone);
  EXPECT_EQ(Parse("HTTP/1.1 200 OK\r\n\r\n")->head.framing, BodyFraming::kUntilClose);
  EXPECT_FALSE(Parse("HTTP/1.1 200 OK\r\n\r\n")->head.keep_alive);
  EXPECT_FALSE(Parse("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")->head.keep_alive);
  EXPECT_TRUE(Parse("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n")->head.keep_alive);
  EXPECT_EQ(Parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")->head.framing, BodyFraming::kChunked);
}

TEST(ResponseParserTest, KnowsEventStreamsAndEncodings) {
  const auto plain = Parse("HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n\r\n");
  EXPECT_TRUE(plain->head.event_stream);
  EXPECT_FALSE(plain->head.content_encoded);
  EXPECT_TRUE(Parse("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n")->head.content_encoded);
}

TEST(ResponseParserTest, OneContentTypeIsReadAndMoreThanOneIsNone) {
  const auto type = [](const std::string& fields, const std::string& before = "") {
    return Parse(before + "HTTP/1.1 200 OK\r\n" + fields + "\r\n")->head.body_type;
  };
  EXPECT_EQ(type(""), BodyType::kNone);
  EXPECT_EQ(type("CONTENT_TYPE: application/json\r\n"), BodyType::kJson);
  EXPECT_EQ(type("Content-Type:text/event-stream\r\n"), BodyType::kEventStream);
  EXPECT_EQ(type("Content-Type: text/html\r\n"), BodyType::kOther);
  EXPECT_EQ(type("Content-Type: \r\n"), BodyType::kOther);
  EXPECT_EQ(type("Content-Type: application/json\r\nContent-Type: text/html\r\n"), BodyType::kOther);
  EXPECT_EQ(type("Content-Type: text/html\r\nContent-Type: application/json\r\n"), BodyType::kOther);
  EXPECT_EQ(type("Content-Type: application/json\r\nContent-Type: application/json\r\n"), BodyType::kOther);
  EXPECT_EQ(type("Content-Type: a/b\r\nContent-Type: c/d\r\nContent-Type: application/json\r\n"), BodyType::kOther);
  const std::string early = "HTTP/1.1 103 Early Hints\r\nContent-Type: application/json\r\n\r\n";
  EXPECT_EQ(type("", early), BodyType::kNone) << "what was said early does not count";
  EXPECT_EQ(type("Content-Type: application/json\r\n", early), BodyType::kJson);
}

class BadResponseTest : public ::testing::TestWithParam<std::pair<const char*, std::string>> {};

TEST_P(BadResponseTest, IsRefused) {
  EXPECT_EQ(Parse(GetParam().second)->result, Result::kError);
  EXPECT_EQ(Parse(GetParam().second, false, 1)->result, Result::kError);
}

std::string Fields(const std::string& fields) { return "HTTP/1.1 200 OK\r\n" + fields + "\r\n"; }

INSTANTIATE_TEST_SUITE_P(
    All, BadResponseTest,
    ::
        testing::
            Values(std::pair{"H28_length_and_chunked", Fields("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")},
                   std::pair{"H28_bare_lf", std::string("HTTP/1.1 200 OK\nContent-Length: 0\n\n")},
                   std::pair{"H28_200_KiB", Fields("X: " + std::string(200 * 1024, 'a') + "\r\n")},
                   std::pair{"Two_lengths", Fields("Content-Length: 5\r\nContent-Length: 5\r\n")},
                   std::pair{"Bad_length", Fields("Content-Length: 5x\r\n")},
                   std::pair{"Gzip_coding", Fields("Transfer-Encoding: gzip, chunked\r\n")},
                   std::pair{"Two_codings", Fields("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")},
                   std::pair{"Chunked_on_10", std::string("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")},
                   std::pair{"Folded", Fields("X: a\r\n b\r\n")}, std::pair{"Space_before_colon", Fields("X : a\r\n")},
                   std::pair{"Control_in_value", Fields("X: a\x01\r\n")},
                   std::pair{"Cr_in_value", Fields("X: a\rSet-Cookie: b\r\n")},
                   std::pair{"Folded_type", Fields("Content-Type: application/json;\r\n text/html\r\n")},
                   std::pair{"Switching", std::string("HTTP/1.1 101 Switching\r\n\r\n")},
                   std::pair{"Status_of_two_digits", std::string("HTTP/1.1 20 OK\r\n\r\n")},
                   std::pair{"Status_099", std::string("HTTP/1.1 099 X\r\n\r\n")},
                   std::pair{"Status_600", std::string("HTTP/1.1 600 X\r\n\r\n")},
                   std::pair{"Http2", std::string("HTTP/2 200\r\n\r\n")},
                   std::pair{"Not_http", std::string("SSH-2.0-OpenSSH_9.2\r\n")},
                   std::pair{
                       "Many_fields",
                       [] {
                         std::string fields;
                         for (int i = 0; i < 201; ++i) {
                           fields += "X: y\r\n";
                         }
                         return Fields(fields);
                       }()}),
    [](const auto& tested) { return std::string(tested.param.first); });

}  // namespace
}  // namespace sallyport::edge

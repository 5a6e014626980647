// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/chunked_decoder.h"

#include <string>

#include <gtest/gtest.h>

namespace sallyport::edge {
namespace {

using Result = ChunkedDecoder::Result;

struct Decoded {
  Result result = Result::kNeedMore;
  std::string body;
  std::string rest;
};

Decoded DecodeInSteps(std::string_view text, size_t step) {
  Decoded decoded;
  ChunkedDecoder decoder;
  while (!text.empty() && decoded.result == Result::kNeedMore) {
    const size_t taken = std::min(step, text.size());
    std::string_view input = text.substr(0, taken);
    std::string_view data;
    while ((decoded.result = decoder.Next(input, data)) == Result::kData) {
      decoded.body += data;
    }
    text.remove_prefix(taken - input.size());
  }
  decoded.rest = std::string(text);
  return decoded;
}

TEST(ChunkedDecoderTest, DecodesWhateverTheStepSize) {
  const std::string text = "5\r\nhello\r\n6;ext=\"a b\"\r\n world\r\n0\r\nTrailer: x\r\n\r\nnext";
  for (size_t step : {1u, 2u, 3u, 100u}) {
    const Decoded decoded = DecodeInSteps(text, step);
    EXPECT_EQ(decoded.result, Result::kDone) << step;
    EXPECT_EQ(decoded.body, "hello world") << step;
    EXPECT_EQ(decoded.rest, "next") << step;
  }
}

TEST(ChunkedDecoderTest, SixteenDigitsOfASmallSizePass) {
  EXPECT_EQ(DecodeInSteps("0000000000000001\r\na\r\n0\r\n\r\n", 100).body, "a");
}

TEST(ChunkedDecoderTest, ExtensionsOfTheRightFormMeanNothing) {
  for (const char* extension : {";a", ";a=b", ";a=\"\"", ";a=\"b;c\"", ";a=\"\\\"\\\\\"", ";a;b=c;d", "; a = b ;\tc",
                                ";a=\"b\" ;c", ";a=\"\xc3\xbc\"", ";a =\"b\"", ";!#$=~"}) {
    for (size_t step : {1u, 100u}) {
      EXPECT_EQ(DecodeInSteps("5" + std::string(extension) + "\r\nhello\r\n0" + extension + "\r\n\r\n", step).body,
                "hello")
          << extension;
    }
  }
}

struct Bad {
  const char* name;
  std::string text;
};

class BadChunksTest : public ::testing::TestWithParam<Bad> {};

TEST_P(BadChunksTest, AreRefused) {
  for (size_t step : {size_t{1}, size_t{1} << 20}) {
    EXPECT_EQ(DecodeInSteps(GetParam().text, step).result, Result::kError) << step;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, BadChunksTest,
    ::testing::Values(
        Bad{"H7_0x", "0x5\r\nhello\r\n"}, Bad{"H7_plus", "+5\r\nhello\r\n"}, Bad{"H7_minus", "-1\r\nhello\r\n"},
        Bad{"H7_space_before", " 5\r\nhello\r\n"}, Bad{"H7_space_after", "5 \r\nhello\r\n"},
        Bad{"H7_underscore", "5_0\r\n"}, Bad{"H7_17_digits", "00000000000000005\r\nhello\r\n"},
        Bad{"H7_empty", "\r\nhello\r\n"}, Bad{"H7_overflow", "ffffffffffffffff\r\n"},
        Bad{"H7_extension_only", ";a\r\n"}, Bad{"H8_bare_lf", "5\nhello\r\n"}, Bad{"H8_bare_cr", "5\rhello\r\n"},
        Bad{"H8_lf_after_extension", "5;\nhello\r\n"},
        Bad{"H8_nul_in_extension", std::string("5;a\0b\r\nhello\r\n", 14)},
        Bad{"H8_cr_in_extension", "5;a\rb\r\nhello\r\n"}, Bad{"Extension_without_name", "5;\r\nhello\r\n"},
        Bad{"Extension_of_blanks", "5; \t\r\nhello\r\n"}, Bad{"Extension_without_name_at_the_end", "5;a;\r\nhello\r\n"},
        Bad{"Extension_without_name_in_between", "5;a;;b\r\nhello\r\n"},
        Bad{"Extension_without_name_but_value", "5;=b\r\nhello\r\n"}, Bad{"Extension_of_the_last_chunk", "0;\r\n\r\n"},
        Bad{"Extension_name_is_no_token", "5;a(b\r\nhello\r\n"},
        Bad{"Extension_name_is_quoted", "5;\"a\"\r\nhello\r\n"}, Bad{"Extension_name_of_two", "5;a b\r\nhello\r\n"},
        Bad{"Extension_name_beyond_ascii", "5;\xc3\xbc\r\nhello\r\n"},
        Bad{"Extension_without_value", "5;a=\r\nhello\r\n"}, Bad{"Extension_value_of_two", "5;a=b c\r\nhello\r\n"},
        Bad{"Extension_value_is_no_token", "5;a=b,c\r\nhello\r\n"}, Bad{"Extension_two_values", "5;a=b=c\r\nhello\r\n"},
        Bad{"Extension_value_behind_quotes", "5;a=\"b\"c\r\nhello\r\n"},
        Bad{"Extension_line_break_in_quotes", "5;a=\"b\r\nc\"\r\nhello\r\n"},
        Bad{"Extension_lf_in_quotes", "5;a=\"b\nc\"\r\nhello\r\n"},
        Bad{"Extension_escaped_line_break", "5;a=\"b\\\r\nc\"\r\nhello\r\n"},
        Bad{"Extension_open_quotes", "5;a=\"b\r\nhello\r\n"}, Bad{"Extension_blank_at_the_end", "5;a \r\nhello\r\n"},
        Bad{"Extension_blank_behind_value", "5;a=b \r\nhello\r\n"},
        Bad{"H8_long_extension", "5;" + std::string(257, 'a') + "\r\nhello\r\n"},
        Bad{"H8_many_extensions",
            [] {
              std::string text;
              for (int i = 0; i < 20; ++i) {
                text += "1;" + std::string(100, 'a') + "\r\nx\r\n";
              }
              return text;
            }()},
        Bad{"H9_no_crlf_after_data", "5\r\nhello0\r\n\r\n"}, Bad{"H9_spill", "5\r\nhelloX\r\n0\r\n\r\n"},
        Bad{"H9_lf_after_data", "5\r\nhello\n0\r\n\r\n"}, Bad{"Trailer_without_colon", "0\r\nabc\r\n\r\n"},
        Bad{"Trailer_with_space", "0\r\na b: c\r\n\r\n"}, Bad{"Trailer_bare_lf", "0\r\na: c\n\r\n"},
        Bad{"Trailer_folded", "0\r\n a: c\r\n\r\n"}, Bad{"Trailer_too_long", "0\r\na: " + std::string(9000, 'x')},
        Bad{"Last_line_cr_only", "0\r\n\rX"}),
    [](const auto& tested) { return std::string(tested.param.name); });

}  // namespace
}  // namespace sallyport::edge

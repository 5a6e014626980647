// SPDX-License-Identifier: Apache-2.0
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "common/text/base32.h"
#include "common/text/base64url.h"
#include "common/text/hex.h"
#include "common/text/json.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using testing::StatusIs;
constexpr auto kInvalidArgument = absl::StatusCode::kInvalidArgument;

std::string AllBytes() {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes.push_back(static_cast<char>(i));
  return bytes;
}

TEST(Rfc4648, Section10Base64) {
  EXPECT_EQ(Base64Encode(""), "");
  EXPECT_EQ(Base64Encode("f"), "Zg==");
  EXPECT_EQ(Base64Encode("fo"), "Zm8=");
  EXPECT_EQ(Base64Encode("foo"), "Zm9v");
  EXPECT_EQ(Base64UrlEncode("fooba"), "Zm9vYmE");
}

TEST(Rfc4648, Section10Base32) {
  EXPECT_EQ(Base32Encode("fooba"), "mzxw6ytb");
  EXPECT_EQ(Base32Encode("foobar"), "mzxw6ytboi");
}

TEST(EncodingTest, EveryByteSurvivesAtEveryLength) {
  const std::string all = AllBytes();
  for (size_t n = 0; n <= all.size(); ++n) {
    const std::string bytes = all.substr(all.size() - n);
    EXPECT_EQ(*Base64UrlDecode(Base64UrlEncode(bytes)), bytes);
    EXPECT_EQ(*Base64Decode(Base64Encode(bytes)), bytes);
    EXPECT_EQ(*Base64DecodeUnpadded(Base64EncodeUnpadded(bytes)), bytes);
    EXPECT_EQ(*Base32Decode(Base32Encode(bytes)), bytes);
    EXPECT_EQ(*HexDecode(HexEncode(bytes)), bytes);
  }
}

TEST(Base64UrlTest, HasExactlyOneEncodingPerValue) {
  for (const char* text : {"Zg==", "Zg=", "Z", "Zh", "Zm9", "Zm 9v", "Zm9v\n", "Zm+v", "Zm/v", "Zm9vY", "\xc3\xa4xx"}) {
    SCOPED_TRACE(text);
    EXPECT_THAT(Base64UrlDecode(text), StatusIs(kInvalidArgument));
  }
  EXPECT_THAT(Base64UrlDecode(absl::string_view("Zm\0v", 4)), StatusIs(kInvalidArgument));
}

TEST(Base64Test, DemandsPadding) {
  for (const char* text : {"Zg", "Zg=", "Zg===", "====", "=Zg=", "Z===", "Zh==", "Zm-v", "Zg==Zg=="}) {
    SCOPED_TRACE(text);
    EXPECT_THAT(Base64Decode(text), StatusIs(kInvalidArgument));
  }
}

TEST(Base64Test, NoTwoTextsDecodeToTheSameByte) {
  for (const auto decode : {Base64UrlDecode, Base64DecodeUnpadded}) {
    std::set<std::string> bytes;
    int accepted = 0;
    for (int i = 0; i < 256 * 256; ++i) {
      const char text[] = {static_cast<char>(i / 256), static_cast<char>(i % 256)};
      if (const auto byte = decode(absl::string_view(text, 2)); byte.ok()) {
        ++accepted;
        bytes.insert(*byte);
      }
    }
    EXPECT_EQ(accepted, 256);
    EXPECT_EQ(bytes.size(), 256U);
  }
}

TEST(Base64Test, AcceptsNothingButItsAlphabetAtAnyPlace) {
  for (const auto decode : {Base64UrlDecode, Base64DecodeUnpadded, Base64Decode}) {
    for (size_t at = 0; at < 8; ++at) {
      int accepted = 0;
      for (const char c : AllBytes()) {
        std::string text(8, 'A');
        text[at] = c;
        accepted += decode(text).ok() ? 1 : 0;
      }
      // Padding may stand in the last place of padded text.
      EXPECT_EQ(accepted, decode == Base64Decode && at == 7 ? 65 : 64) << at;
    }
  }
}

TEST(Base32Test, IsStrict) {
  for (const char* text : {"a", "aaa", "aaaaaa", "AA", "a1", "ab", "aa======"}) {
    SCOPED_TRACE(text);
    EXPECT_THAT(Base32Decode(text), StatusIs(kInvalidArgument));
  }
}

TEST(HexTest, AcceptsDigitsOfEitherCaseOnly) {
  int accepted = 0;
  for (int i = 0; i < 256 * 256; ++i) {
    const char text[] = {static_cast<char>(i / 256), static_cast<char>(i % 256)};
    accepted += HexDecode(absl::string_view(text, 2)).ok() ? 1 : 0;
  }
  EXPECT_EQ(accepted, 22 * 22);
}

TEST(HexTest, IsStrict) {
  for (const char* text : {"0", "0g", "0x", " 0"}) EXPECT_THAT(HexDecode(text), StatusIs(kInvalidArgument));
  EXPECT_EQ(*HexDecode("fF00"), std::string("\xff\x00", 2));
}

TEST(JsonTest, ReadsWhatIsStrictlyJson) {
  auto value = ParseJson(R"({"a":[1,-2,3.5,"x",true,null,{}],"b":{"a":1}})");
  ASSERT_TRUE(value.ok());
  EXPECT_EQ((*value)["a"].size(), 7U);
  EXPECT_EQ(JsonInt((*value)["b"], "a"), 1);
  EXPECT_EQ(JsonInt(*value, "a"), std::nullopt);
  EXPECT_EQ(JsonString(*value, "missing"), std::nullopt);
}

TEST(JsonTest, RefusesWhatTwoParsersCouldReadDifferently) {
  const std::string texts[] = {"",
                               "{",
                               "{}x",
                               "{} {}",
                               R"({"a":1,"a":1})",
                               R"({"x":{"a":1,"b":2,"a":3}})",
                               R"({"a":1,"\u0061":2})",
                               "{a:1}",
                               "{'a':1}",
                               "[1,]",
                               "[01]",
                               "[NaN]",
                               "[1e999]",
                               "\xef\xbb\xbf{}",
                               "{\"a\":\"\xff\"}",
                               R"(["\ud800"])",
                               "// c\n{}",
                               std::string("{}\0", 3),
                               std::string("{}\0x", 4),
                               std::string(65, '[') + std::string(65, ']'),
                               std::string(100'000, '[')};
  for (const std::string& text : texts) {
    SCOPED_TRACE(text.substr(0, 40));
    EXPECT_THAT(ParseJson(text), StatusIs(kInvalidArgument));
  }
}

TEST(JsonTest, KeepsToItsLimits) {
  EXPECT_TRUE(ParseJson("[[1]]", {.max_depth = 2}).ok());
  EXPECT_THAT(ParseJson("[[1]]", {.max_depth = 1}), StatusIs(kInvalidArgument));
  EXPECT_THAT(ParseJson("[1,2,3]", {.max_keys = 2}), StatusIs(kInvalidArgument));
  EXPECT_THAT(ParseJson("[1,2,3]", {.max_bytes = 6}), StatusIs(kInvalidArgument));
  EXPECT_THAT(ParseJsonObject("[]"), StatusIs(kInvalidArgument));
}

TEST(JsonTest, DumpNeverThrows) { EXPECT_EQ(DumpJson(std::string("a\xff")), "\"a\xef\xbf\xbd\""); }

}  // namespace
}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "common/text/utf8.h"

#include <gtest/gtest.h>

namespace sallyport {
namespace {

TEST(Utf8Test, FollowsRfc3629) {
  for (const char* text :
       {"", "a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x9a\xaa", "\xed\x9f\xbf", "\xee\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(IsValidUtf8(text)) << text;
  }
  for (const char* text : {"\x80", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x80\x80", "\xe2\x82", "\xed\xa0\x80",
                           "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xfe"}) {
    EXPECT_FALSE(IsValidUtf8(text)) << text;
  }
}

// Longer texts are read in blocks of 64 bytes.
TEST(Utf8Test, FindsABrokenCharacterAnywhere) {
  for (size_t at = 0; at < 200; ++at) {
    std::string text(200, 'a');
    text[at] = '\xff';
    EXPECT_FALSE(IsValidUtf8(text)) << at;
    text = std::string(at, 'a') + "\u20ac";
    EXPECT_TRUE(IsValidUtf8(text)) << at;
    text.pop_back();
    EXPECT_FALSE(IsValidUtf8(text)) << at;
  }
}

TEST(Utf8Test, SizesTheFirstCharacter) {
  EXPECT_EQ(Utf8CharacterSize(""), 0U);
  EXPECT_EQ(Utf8CharacterSize(absl::string_view("\0", 1)), 1U);
  EXPECT_EQ(Utf8CharacterSize("a\xff"), 1U);
  EXPECT_EQ(Utf8CharacterSize("\u00e9\xff"), 2U);
  EXPECT_EQ(Utf8CharacterSize("\u20acx"), 3U);
  EXPECT_EQ(Utf8CharacterSize("\U0001F6AA"), 4U);
  for (const char* text : {"\x80", "\xc0\x80", "\xe2\x82", "\xe2\x82x", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff"}) {
    EXPECT_EQ(Utf8CharacterSize(text), 0U) << text;
  }
}

TEST(Utf8Test, APrefixHoldsWholeCharacters) {
  EXPECT_EQ(Utf8Prefix("abc", 3), "abc");
  EXPECT_EQ(Utf8Prefix("a\u20ac", 3), "a");
  EXPECT_EQ(Utf8Prefix("a\u20ac", 4), "a\u20ac");
  EXPECT_EQ(Utf8Prefix("\u20ac", 0), "");
}

TEST(PlainTextTest, KeepsNamesAsTheyAreWritten) {
  for (const char* name : {"", "Ada Lovelace", "Jos\u00e9 O'Neill", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
                           "\u674e\u56db", "\U0001F44B"}) {
    EXPECT_EQ(PlainText(name, 256), name);
  }
}

TEST(PlainTextTest, ReplacesWhatActsOnATerminalOrReordersText) {
  EXPECT_EQ(PlainText("a\x1b[31mb\r\n\tc\x7f", 256), "a\uFFFD[31mb\uFFFD\uFFFD\uFFFDc\uFFFD");
  EXPECT_EQ(PlainText("\u0085\u009b\u202e\u2066\u200f\u200b\u2028\ufeff\u00ad\U000e0041", 256),
            "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(PlainText(std::string("a\0b", 3), 256), "a\uFFFDb");
  EXPECT_EQ(PlainText("\xff\xc3\xe2\x82x\xed\xa0\x80", 256), "\uFFFD\uFFFD\uFFFD\uFFFDx\uFFFD\uFFFD\uFFFD");
}

TEST(PlainTextTest, IsBounded) {
  const std::string long_one = PlainText(std::string(10'000, 'x'), 256);
  EXPECT_EQ(long_one.size(), 256U);
  EXPECT_EQ(long_one.substr(253), "\u2026");
  std::string euros;
  for (int i = 0; i < 100; ++i) euros += "\u20ac";
  const std::string cut = PlainText(euros, 32);
  EXPECT_LE(cut.size(), 32U);
  EXPECT_TRUE(IsValidUtf8(cut));
  EXPECT_EQ(PlainText("abc", 2), "");
}

}  // namespace
}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "common/http/field.h"

#include <string>

#include <gtest/gtest.h>

namespace sallyport {
namespace {

constexpr std::string_view kTchars = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

TEST(HttpFieldTest, ExactlyTheTcharsMakeTokens) {
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    const bool legal = kTchars.find(c) != std::string_view::npos;
    EXPECT_EQ(IsTokenChar(c), legal) << byte;
    EXPECT_EQ(IsToken(std::string("a") + c), legal) << byte;
  }
  EXPECT_FALSE(IsToken(""));
  EXPECT_TRUE(IsToken("X-A.b~!"));
}

TEST(HttpFieldTest, NamesCompareWithoutCaseAndWithUnderscoreAsHyphen) {
  EXPECT_EQ(NormalizeFieldName("X_Internal-A"), "x-internal-a");
  EXPECT_EQ(NormalizeFieldName(":Path x"), ":path x");
  EXPECT_EQ(NormalizeFieldName(""), "");
}

TEST(HttpFieldTest, ValuesHaveNoControlBytesButTabsWherever) {
  for (int byte = 0; byte < 256; ++byte) {
    const bool legal = byte == '\t' || (byte >= 0x20 && byte != 0x7f);
    for (size_t at = 0; at < 20; ++at) {
      std::string value(20, 'a');
      value[at] = static_cast<char>(byte);
      EXPECT_EQ(IsFieldValue(value), legal) << byte << " at " << at;
    }
  }
  EXPECT_TRUE(IsFieldValue(""));
  EXPECT_TRUE(IsFieldValue(" a "));
}

TEST(HttpFieldTest, TrimmedValuesHaveNoWhiteSpaceAround) {
  for (const char* value : {" a", "a ", "\ta", "a\t", " ", "a\r\nb", "a\x7f"}) {
    EXPECT_FALSE(IsTrimmedFieldValue(value)) << value;
  }
  for (const char* value : {"", "a", "a b", "t\xc3\xa9st value", "a\tb"}) {
    EXPECT_TRUE(IsTrimmedFieldValue(value)) << value;
  }
}

TEST(HttpFieldTest, HopByHopFieldsAreKnownInEverySpelling) {
  for (const std::string_view name : kHopByHopFields) EXPECT_TRUE(IsHopByHopField(name)) << name;
  EXPECT_TRUE(IsHopByHopField("Transfer_Encoding"));
  EXPECT_TRUE(IsHopByHopField("TE"));
  for (const char* name : {"", "t", "trailers", "content-length", "proxy-authorization", "x-connection"}) {
    EXPECT_FALSE(IsHopByHopField(name)) << name;
  }
}

}  // namespace
}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/request_credentials.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace sallyport::edge {
namespace {

struct Line {
  HeaderId id;
  std::string_view value;
};
RequestHead Head(const std::vector<Line>& lines) {
  RequestHead head;
  for (const Line& line : lines) head.field_storage[head.field_count++] = {"X", line.value, line.id};
  return head;
}
std::string_view Bearer(std::string_view value) { return BearerOf(Head({{HeaderId::kAuthorization, value}})); }
std::string Cookies(std::string_view value) { return CookiesOf(Head({{HeaderId::kCookie, value}})); }

TEST(RequestCredentialsTest, TheBearerTokenIsWhatFollowsTheScheme) {
  EXPECT_EQ(Bearer("Bearer abc"), "abc");
  EXPECT_EQ(Bearer("bEARER  \t abc"), "abc");
  EXPECT_EQ(Bearer("Bearer a b"), "a b");
  for (const char* none : {"", "Bearer", "Bearer ", "Bearer\tabc", "Basic abc", "Bearerabc", "abc"}) {
    EXPECT_EQ(Bearer(none), "") << none;
  }
  EXPECT_EQ(BearerOf(Head({{HeaderId::kCookie, "Bearer abc"}})), "");
}

TEST(RequestCredentialsTest, ABearerTokenIsAB64Token) {
  for (const char* token : {"a", "eyJ.eyJ.c2ln", "A-._~+/9", "abc=", "abc=="})
    EXPECT_TRUE(IsBearerToken(token)) << token;
  for (const char* token :
       {"", "=", "a=b", "a b", "a,b", "a\tb", "\"a\"", "\xff", "a\xc3\xa9", "a\x7f", "a%20", "a:b"}) {
    EXPECT_FALSE(IsBearerToken(token)) << token;
  }
  EXPECT_FALSE(IsBearerToken(std::string_view("a\0", 2)));
}

TEST(RequestCredentialsTest, CookiesOutsideVisibleAsciiAreLeftOut) {
  EXPECT_EQ(Cookies("a=1; b=2"), "a=1; b=2");
  EXPECT_EQ(Cookies(" a=1;b=2 ;;"), "a=1; b=2");
  EXPECT_EQ(Cookies("a=\xff; b=2; \xc3\xa9=3; c=4 5; d=\x7f; e"), "b=2; e");
  EXPECT_EQ(Cookies("a=\xff"), "");
  EXPECT_EQ(CookiesOf(Head({{HeaderId::kCookie, "a=1"}, {HeaderId::kAccept, "x=y"}, {HeaderId::kCookie, "b=2"}})),
            "a=1; b=2");
}

}  // namespace
}  // namespace sallyport::edge

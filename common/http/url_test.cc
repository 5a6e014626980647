// SPDX-License-Identifier: Apache-2.0
#include "common/http/url.h"

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using testing::IsOk;
using testing::StatusIs;
constexpr auto kInvalidArgument = absl::StatusCode::kInvalidArgument;

TEST(UrlTest, TakesAUrlApart) {
  ASSERT_OK_AND_ASSIGN(const Url url, Url::Parse("HTTPS://GW.Example.com:8443/a%2Fb/c?x=1&y=%20"));
  EXPECT_EQ(url.scheme(), "https");
  EXPECT_EQ(url.host(), "gw.example.com");
  EXPECT_EQ(url.port(), 8443);
  EXPECT_EQ(url.path(), "/a%2Fb/c");
  EXPECT_EQ(url.query(), "x=1&y=%20");
  EXPECT_EQ(url.origin(), "https://gw.example.com:8443");
  EXPECT_EQ(url.target(), "/a%2Fb/c?x=1&y=%20");
  EXPECT_EQ(url.ToString(), "https://gw.example.com:8443/a%2Fb/c?x=1&y=%20");
}

TEST(UrlTest, DefaultPortsAndPathsAreCanonical) {
  EXPECT_EQ(Url::Parse("https://a.example:443")->ToString(), "https://a.example/");
  EXPECT_EQ(Url::Parse("http://a.example:80/")->origin(), "http://a.example");
  EXPECT_EQ(Url::Parse("http://a.example:443/")->origin(), "http://a.example:443");
  EXPECT_EQ(Url::Parse("https://a.example?q")->ToString(), "https://a.example/?q");
  EXPECT_EQ(Url::Parse("https://a.example/?")->ToString(), "https://a.example/?");
}

TEST(UrlTest, Ipv6HostsAreCanonicalAndBracketed) {
  ASSERT_OK_AND_ASSIGN(const Url url, Url::Parse("http://[0:0:0:0:0:0:0:1]:8080/x"));
  EXPECT_EQ(url.host(), "::1");
  EXPECT_EQ(url.origin(), "http://[::1]:8080");
  EXPECT_EQ(url.authority(), "[::1]:8080");
}

TEST(UrlTest, RefusesWhatTwoParsersCouldUnderstandDifferently) {
  const std::string texts[] = {"",
                               "a.example",
                               "//a.example/",
                               "https:/a.example",
                               "https:///x",
                               "https://",
                               "https://:443/",
                               "ftp://a.example/",
                               "javascript://a.example/",
                               "file:///etc/passwd",
                               " https://a.example/",
                               "https://a.example/ ",
                               "https://a.example/\n",
                               "https://a b.example/",
                               "https://user@a.example/",
                               "https://user:pw@a.example/",
                               "https://a.example@b.example/",
                               "https://a.example/#f",
                               "https://a.example#f",
                               "https://a.example\\@b.example/",
                               "https://a.example/\\..\\x",
                               "https://a.example./",
                               "https://a..example/",
                               "https://.example/",
                               "https://-a.example/",
                               "https://a-.example/",
                               "https://\xc3\xa4.example/",
                               "https://a%2eexample/",
                               "https://a.example:/",
                               "https://a.example:0/",
                               "https://a.example:65536/",
                               "https://a.example:4 3/",
                               "https://a.example:+443/",
                               "https://a.example:99999999999999999999/",
                               "https://127.1/",
                               "https://0x7f.1/",
                               "https://0x7f000001/",
                               "https://2130706433/",
                               "https://0177.0.0.1/",
                               "https://127.0.0.01/",
                               "https://1.2.3.4.5/",
                               "https://256.1.1.1/",
                               "https://a.1/",
                               "https://a.0x1/",
                               "https://[::ffff:7f00:1]/",
                               "https://[::ffff:127.0.0.1]/",
                               "https://[fe80::1%25eth0]/",
                               "https://[::1/",
                               "https://[::1]x/",
                               "https://[]/",
                               "https://::1/",
                               "https://a.example/%",
                               "https://a.example/%2",
                               "https://a.example/%zz",
                               "https://a.example/%00",
                               "https://a.example/?a=%0",
                               "https://a.example/a/../b",
                               "https://a.example/./b",
                               "https://a.example/..",
                               "https://a.example/%2e%2E/b",
                               "https://a.example/.%2e/b",
                               "https://a.example/<x>",
                               "https://a.example/?\"x\"",
                               std::string("https://a.example/\0x", 20),
                               absl::StrCat("https://a.example/", std::string(9000, 'a')),
                               absl::StrCat("https://", std::string(64, 'a'), ".example/")};
  for (const std::string& text : texts) {
    SCOPED_TRACE(text.substr(0, 60));
    EXPECT_THAT(Url::Parse(text), StatusIs(kInvalidArgument));
  }
}

TEST(PercentTest, EncodesAllButUnreserved) {
  EXPECT_EQ(PercentEncode("aZ0-._~ /+%\n"), "aZ0-._~%20%2F%2B%25%0A");
  EXPECT_EQ(PercentEncode("\xff"), "%FF");
  EXPECT_EQ(*PercentDecode("a%2Fb+%ff"), "a/b+\xff");
  for (const char* text : {"%", "%2", "a%", "%g0", "% 1"}) EXPECT_THAT(PercentDecode(text), StatusIs(kInvalidArgument));
}

TEST(FormTest, Rfc6749AppendixB) {
  // The Unicode string " %&+£€" of the appendix.
  const std::string value = " %&+\xc2\xa3\xe2\x82\xac";
  EXPECT_EQ(FormEncode({{"a", value}}), "a=+%25%26%2B%C2%A3%E2%82%AC");
  ASSERT_OK_AND_ASSIGN(const FormFields fields, FormDecode("a=+%25%26%2B%C2%A3%E2%82%AC"));
  EXPECT_EQ(fields[0].second, value);
}

TEST(FormTest, KeepsOrderAndFindsDuplicates) {
  ASSERT_OK_AND_ASSIGN(const FormFields fields, FormDecode("b=1&a=2&b=3&c&d="));
  EXPECT_THAT(fields,
              ::testing::ElementsAre(::testing::Pair("b", "1"), ::testing::Pair("a", "2"), ::testing::Pair("b", "3"),
                                     ::testing::Pair("c", ""), ::testing::Pair("d", "")));
  EXPECT_THAT(FormDecodeUnique("b=1&a=2&b=1"), StatusIs(kInvalidArgument));
  EXPECT_THAT(FormDecodeUnique("b=1&%62=2"), StatusIs(kInvalidArgument));
  EXPECT_EQ(FormDecodeUnique("a=1&b=2")->at("b"), "2");
  EXPECT_TRUE(FormDecodeUnique("")->empty());
}

TEST(FormTest, RefusesWhatIsBroken) {
  for (const char* text : {"=x", "a=%", "a=%0", "%=1", "a=%00", "a%00=1"}) {
    SCOPED_TRACE(text);
    EXPECT_THAT(FormDecode(text), StatusIs(kInvalidArgument));
  }
  EXPECT_THAT(FormDecode("a=1&b=2&c=3", 2), StatusIs(kInvalidArgument));
}

TEST(AppendQueryTest, KeepsWhatIsThere) {
  EXPECT_EQ(AppendQuery("https://a.example/x", {{"a", "1 2"}}), "https://a.example/x?a=1+2");
  EXPECT_EQ(AppendQuery("https://a.example/x?y=1", {{"a", "b&c"}}), "https://a.example/x?y=1&a=b%26c");
  EXPECT_EQ(AppendQuery("https://a.example/x?", {{"a", "1"}}), "https://a.example/x?a=1");
  EXPECT_EQ(AppendQuery("https://a.example/x", {}), "https://a.example/x");
}

}  // namespace
}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "common/web/page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sallyport::page {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(PageTest, EscapesWhatMarkupIsMadeOf) {
  EXPECT_EQ(Escape("<script>alert('x')</script>&\""), "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;&quot;");
}

TEST(PageTest, ReplacesCharactersThatReorderOrHideText) {
  EXPECT_EQ(Escape("a\xE2\x80\xAE"
                   "b"),
            "a\xEF\xBF\xBD"
            "b");  // U+202E right-to-left override
  EXPECT_EQ(Escape("a\xE2\x81\xA6"
                   "b"),
            "a\xEF\xBF\xBD"
            "b");  // U+2066 isolate
  EXPECT_EQ(Escape("a\xE2\x80\x8F"
                   "b"),
            "a\xEF\xBF\xBD"
            "b");  // U+200F mark
  EXPECT_EQ(Escape("a\x01"
                   "b"),
            "a\xEF\xBF\xBD"
            "b");
  EXPECT_EQ(Escape("a\xC2\x85"
                   "b"),
            "a\xEF\xBF\xBD"
            "b");  // U+0085
}

TEST(PageTest, LeavesOrdinaryTextOfAnyLanguageAlone) {
  EXPECT_EQ(Escape("Zo\xC3\xAB \xD7\xA9\xD7\x9C\xD7\x95\xD7\x9D \xE4\xB8\xAD"),
            "Zo\xC3\xAB \xD7\xA9\xD7\x9C\xD7\x95\xD7\x9D \xE4\xB8\xAD");
  EXPECT_EQ(Escape("Don\xE2\x80\x99t"), "Don\xE2\x80\x99t");
}

TEST(PageTest, FillEscapesTextAndKeepsMarkup) {
  EXPECT_EQ(Fill("<p>{}</p>{}", {"<b>", Html("<hr>")}).str(), "<p>&lt;b&gt;</p><hr>");
}

TEST(PageTest, FillDoesNotReadPlacesInsideArguments) { EXPECT_EQ(Fill("{}-{}", {"{}", "x"}).str(), "{}-x"); }

TEST(PageTest, EveryTextOfAPageIsEscaped) {
  const std::string evil = "<img src=x onerror=alert(1)>\"'";
  Page page;
  page.title = evil;
  page.left = evil;
  page.right = evil;
  page.host = evil;
  page.refresh = "https://c.example/?a=" + evil;
  page.body = Lead(evil);
  page.body += Note(Tone::kBad, evil, evil);
  page.body += WhoAmI(evil, evil, "/login?" + evil);
  page.body += Check(evil);
  page.body += HiddenField(evil, evil);
  page.body += ButtonLink(evil, evil);
  page.body += QuietLink(evil, evil);
  EXPECT_THAT(Render(page), Not(HasSubstr("<img")));
  EXPECT_THAT(Render(page), Not(HasSubstr("x onerror=alert(1)>\"")));
  EXPECT_THAT(RenderContinue(evil, evil, evil, evil), Not(HasSubstr("<img")));
}

TEST(PageTest, PagesHaveNoScriptAndNoInlineStyle) {
  Page page;
  page.body = Lead("x");
  for (const Place place : {Place::kOutside, Place::kFirstDoor, Place::kInside, Place::kBeyond}) {
    page.place = place;
    EXPECT_THAT(Render(page), Not(HasSubstr("<script")));
    EXPECT_THAT(Render(page), Not(HasSubstr("style=\"")));
    EXPECT_THAT(Render(page), HasSubstr("href=\"/login/style.css\""));
  }
}

TEST(PageTest, HeadersForbidFramesScriptsSniffingAndCaching) {
  std::string all;
  for (const auto& [name, value] : Headers()) {
    all += name + ": " + value + "\n";
  }
  EXPECT_THAT(all, HasSubstr("content-security-policy: default-src 'none'; style-src 'self'; form-action 'self'; "
                             "frame-ancestors 'none'; base-uri 'none'\n"));
  EXPECT_THAT(all, HasSubstr("x-frame-options: DENY"));
  EXPECT_THAT(all, HasSubstr("x-content-type-options: nosniff"));
  EXPECT_THAT(all, HasSubstr("referrer-policy: same-origin"));
  EXPECT_THAT(all, HasSubstr("cache-control: no-store"));
  EXPECT_THAT(all, Not(HasSubstr("unsafe")));
}

TEST(PageTest, ContinuePageCarriesItsTargetInRefreshAndLink) {
  const std::string document = RenderContinue("Back", "Going on.", "https://c.example/cb?code=1&state=2", "gw");
  EXPECT_THAT(document, HasSubstr("content=\"0;url=https://c.example/cb?code=1&amp;state=2\""));
  EXPECT_THAT(document, HasSubstr("href=\"https://c.example/cb?code=1&amp;state=2\""));
}

}  // namespace
}  // namespace sallyport::page

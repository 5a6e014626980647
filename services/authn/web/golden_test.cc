// SPDX-License-Identifier: Apache-2.0
// What pages answer, to the byte: status, headers in their order, and a body.
#include <gtest/gtest.h>

#include "services/authn/web/web_testing.h"

namespace sallyport::authn::web {
namespace {

std::string HeadOf(const WebResponse& response) {
  std::string head = absl::StrCat(response.status(), "\n");
  for (const auto& header : response.headers()) absl::StrAppend(&head, header.name(), ": ", header.value(), "\n");
  return head;
}

constexpr char kPageHeaders[] =
    "content-type: text/html; charset=utf-8\n"
    "content-security-policy: default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'\n"
    "x-frame-options: DENY\n"
    "x-content-type-options: nosniff\n"
    "referrer-policy: same-origin\n"
    "cache-control: no-store\n"
    "cross-origin-opener-policy: same-origin\n";

TEST(AuthnPagesGolden, EveryPageHasTheSameHeaders) {
  World world;
  TestBrowser browser(world);
  for (const auto& [target, status] : {std::pair("/login", 200), std::pair("/signed-out", 200),
                                       std::pair("/login/nowhere", 404), std::pair("/oauth/authorize", 400)}) {
    EXPECT_EQ(HeadOf(browser.Get(target)), absl::StrCat(status, "\n", kPageHeaders)) << target;
  }
  EXPECT_EQ(HeadOf(browser.Get("/login/style.css")),
            "200\ncontent-type: text/css; charset=utf-8\ncache-control: public, max-age=3600\n"
            "x-content-type-options: nosniff\n");
}

TEST(AuthnPagesGolden, RedirectsAreNotStoredAndTellNoReferrer) {
  World world;
  TestBrowser browser(world);
  EXPECT_EQ(HeadOf(browser.Get("/logout")),
            "303\nlocation: /signed-out\ncache-control: no-store\nreferrer-policy: no-referrer\n");
  EXPECT_EQ(HeadOf(browser.Get("/login?connector=local&return_to=%2Fa%3Fb")),
            "303\nlocation: /login/local?connector=local&return_to=%2Fa%3Fb\ncache-control: no-store\n"
            "referrer-policy: no-referrer\n");
}

TEST(AuthnPagesGolden, ProblemIsOneDocument) {
  World world;
  TestBrowser browser(world);
  EXPECT_EQ(browser.Get("/login/nowhere").body(),
            R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex"><title>There is nothing here · sallyport</title>
<link rel="stylesheet" href="/login/style.css"></head>
<body><main class="room" id="main"><svg class="passage" viewBox="0 0 440 88" role="img" aria-label="You stand before the first door. Both doors are closed."><path class="way" d="M8 44h424"/><path class="w" d="M140 28V9h160v19M140 60v19h160V60"/><path class="closed" d="M140 27v34"/><path class="closed" d="M300 27v34"/><text x="8" y="34">You</text><text x="432" y="34" text-anchor="end"></text><circle class="you" cx="64" cy="44" r="7"/></svg><div class="card"><h1>There is nothing here</h1><p class="lead">The address is wrong or what it named is gone.</p><div class="stack"><p class="small muted">If it happens again, send this to your administrator:</p><pre class="code">not_found · 15 Jan 2027 08:00 UTC</pre></div></div></main>
<footer><svg viewBox="0 0 24 24" aria-hidden="true"><path d="M5 1h14a4 4 0 0 1 4 4v.5H13a10 10 0 0 0 10 10V19a4 4 0 0 1-4 4H5a4 4 0 0 1-4-4v-.5h10a10 10 0 0 0-10-10V5a4 4 0 0 1 4-4z"/></svg><span>gw.example.com</span></footer>
</body></html>
)");
}

TEST(AuthnPagesGolden, FormTokenBelongsToTheCookieAndThePage) {
  World world;
  TestBrowser browser(world);
  browser.cookies[kTransactionCookie] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
  const WebResponse form = browser.Get("/login/local");
  EXPECT_EQ(Between(form.body(), "name=\"csrf\" value=\"", "\""),
            Base64UrlEncode(HmacSha256(browser.cookies[kTransactionCookie], "form local sign-in")));
}

}  // namespace
}  // namespace sallyport::authn::web

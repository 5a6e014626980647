// SPDX-License-Identifier: Apache-2.0
// What the broker's pages answer, to the byte: status, headers in their order, and a body.
#include "services/token_broker/web_pages.h"

#include <gtest/gtest.h>

#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker {
namespace {

constexpr char kPageHeaders[] =
    "content-type: text/html; charset=utf-8\n"
    "content-security-policy: default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'\n"
    "x-frame-options: DENY\n"
    "x-content-type-options: nosniff\n"
    "referrer-policy: same-origin\n"
    "cache-control: no-store\n"
    "cross-origin-opener-policy: same-origin\n";

class BrokerPagesGolden : public testing::BrokerTestBase {
 protected:
  BrokerPagesGolden() : BrokerTestBase(clock_for_all_) {}

  static std::string HeadOf(const web::v1::WebResponse& response) {
    std::string head = absl::StrCat(response.status(), "\n");
    for (const auto& header : response.headers()) absl::StrAppend(&head, header.name(), ": ", header.value(), "\n");
    return head;
  }

  FakeClock clock_for_all_{absl::Now()};
};

TEST_F(BrokerPagesGolden, EveryPageHasTheSameHeaders) {
  TokenBrokerServer& broker = StartBroker();
  const std::string ada = peers_.authn.Sign(LinkPassport());
  for (const auto& [target, status] : {std::pair("/connect/gh", 200), std::pair("/connect/none", 404),
                                       std::pair("/connect/gh?txn=%22", 400), std::pair("/connect/gh/done", 200)}) {
    EXPECT_EQ(HeadOf(Browse(broker, "GET", target, ada)), absl::StrCat(status, "\n", kPageHeaders)) << target;
  }
  peers_.vault.SetDown(true);
  EXPECT_EQ(HeadOf(Browse(broker, "GET", "/callback/github?code=c&state=s", ada)),
            absl::StrCat("503\n", kPageHeaders, "retry-after: 2\n"));
}

TEST_F(BrokerPagesGolden, RedirectsAreNotStoredAndTellNoReferrer) {
  EXPECT_EQ(HeadOf(Browse(StartBroker(), "GET", "/connect/gh?txn=t", "")),
            "302\nlocation: /login?return_to=%2Fconnect%2Fgh%3Ftxn%3Dt\ncache-control: no-store\n"
            "referrer-policy: no-referrer\n");
}

TEST_F(BrokerPagesGolden, ProblemIsOneDocument) {
  EXPECT_EQ(Browse(StartBroker(), "GET", "/connect/", "").body(),
            R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex"><title>Not found · sallyport</title>
<link rel="stylesheet" href="/login/style.css"></head>
<body><main class="room" id="main"><svg class="passage" viewBox="0 0 440 88" role="img" aria-label="You are between the two doors. Both are closed."><path class="way" d="M8 44h424"/><path class="w" d="M140 28V9h160v19M140 60v19h160V60"/><path class="closed" d="M140 27v34"/><path class="closed" d="M300 27v34"/><text x="8" y="34">You</text><text x="432" y="34" text-anchor="end"></text><circle class="you" cx="220" cy="44" r="7"/></svg><div class="card"><h1>Not found</h1><p class="lead">There is no such page.</p></div></main>
<footer><svg viewBox="0 0 24 24" aria-hidden="true"><path d="M5 1h14a4 4 0 0 1 4 4v.5H13a10 10 0 0 0 10 10V19a4 4 0 0 1-4 4H5a4 4 0 0 1-4-4v-.5h10a10 10 0 0 0-10-10V5a4 4 0 0 1 4-4z"/></svg><span>gw.example.com</span></footer>
</body></html>
)");
}

}  // namespace
}  // namespace sallyport::token_broker

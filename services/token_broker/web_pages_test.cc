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

  // The form of a page, its token as "*".
  static std::string FormOf(const web::v1::WebResponse& page) {
    const size_t begin = page.body().find("<form");
    const size_t end = page.body().find("</form>");
    if (begin == std::string::npos || end == std::string::npos) return "";
    std::string form = page.body().substr(begin, end + 7 - begin);
    const std::string mark = "name=\"csrf\" value=\"";
    if (const size_t token = form.find(mark); token != std::string::npos) {
      const size_t value = token + mark.size();
      form.replace(value, form.find('"', value) - value, "*");
    }
    return form;
  }

  FakeClock clock_for_all_{absl::Now()};
};

TEST_F(BrokerPagesGolden, FormThatConnectsAnAccountCarriesOnHowItsUserCame) {
  TokenBrokerServer& broker = StartBroker();
  const std::string ada = peers_.authn.Sign(LinkPassport());
  EXPECT_EQ(FormOf(Browse(broker, "GET", "/connect/gh", ada)),
            R"(<form method="post" action="/connect/gh"><input type="hidden" name="csrf" value="*">)"
            R"(<button class="btn primary wide" type="submit">Connect GitHub</button></form>)");
  EXPECT_EQ(FormOf(Browse(broker, "GET", "/connect/gh?txn=t-1", ada)),
            R"(<form method="post" action="/connect/gh"><input type="hidden" name="csrf" value="*">)"
            R"(<input type="hidden" name="txn" value="t-1">)"
            R"(<button class="btn primary wide" type="submit">Connect GitHub</button></form>)");
}

TEST_F(BrokerPagesGolden, FormForAnOwnCredentialCarriesOnHowItsUserCame) {
  registry::v1::McpServer* server = AddServer("srv_wiki", "wiki");
  server->mutable_agent_auth()->mutable_interactive();
  server->mutable_app_auth()->mutable_passthrough();
  registry::v1::OutboundHeader* header = server->add_outbound_headers();
  header->set_name("X-Key");
  header->mutable_stored_credential()->set_credential_uid("cred_wiki");
  header->mutable_stored_credential()->set_match(registry::v1::OutboundHeader::StoredCredential::PER_USER);
  peers_.registry.Change([](registry::v1::WatchEvent::Snapshot& snapshot) {
    registry::v1::Credential* credential = snapshot.add_credentials();
    credential->set_uid("cred_wiki");
    credential->set_slug("wiki-key");
    credential->set_kind(registry::v1::Credential::PASSWORD);
    credential->set_owner(registry::v1::Credential::USER);
    credential->add_allowed_upstream_origins(kOrigin);
  });
  Passport user = LinkPassport();
  user.link_server_uids = {"srv_wiki"};
  EXPECT_EQ(
      FormOf(Browse(StartBroker(), "GET", "/connect/wiki?txn=t-1", peers_.authn.Sign(user))),
      R"(<form class="stack" method="post" action="/connect/wiki"><input type="hidden" name="csrf" value="*">)"
      R"(<input type="hidden" name="txn" value="t-1"><input type="hidden" name="credential" value="wiki-key">)"
      R"(<div class="field"><label for="u">Name</label><input class="input" id="u" name="username" autocomplete="off" )"
      R"(autocapitalize="none" spellcheck="false" required maxlength="256" value=""></div>)"
      R"(<div class="field"><label for="v">Password</label><input class="input" id="v" name="value" type="password" )"
      R"(autocomplete="off" required maxlength="4096"></div>)"
      R"(<button class="btn primary wide" type="submit">Store it</button></form>)");
}

TEST_F(BrokerPagesGolden, FormForAConsentCarriesOnHowItsUserCame) {
  registry::v1::McpServer* server = AddServer("srv_obo", "obo");
  server->mutable_agent_auth()->mutable_interactive();
  server->mutable_app_auth()->mutable_passthrough();
  registry::v1::OutboundHeader* header = server->add_outbound_headers();
  header->set_name("X-Obo");
  header->mutable_on_behalf_of()->set_exchange_url(provider_.Url("/token"));
  header->mutable_on_behalf_of()->set_client_id("client");
  header->mutable_on_behalf_of()->add_scopes("api://orders/read");
  Passport user = LinkPassport();
  user.link_server_uids = {"srv_obo"};
  EXPECT_EQ(FormOf(Browse(StartBroker(), "GET", "/connect/obo?consent=1&txn=t-1", peers_.authn.Sign(user))),
            R"(<form method="post" action="/connect/obo"><input type="hidden" name="csrf" value="*">)"
            R"(<input type="hidden" name="consent" value="1"><input type="hidden" name="txn" value="t-1">)"
            R"(<button class="btn primary wide" type="submit">Continue at corp</button></form>)");
}

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

// SPDX-License-Identifier: Apache-2.0
// Linking an account as a browser sees it, and as an attacker would like it.
#include <atomic>
#include <thread>

#include "absl/strings/str_replace.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/http/url.h"
#include "common/text/hex.h"
#include "services/token_broker/linker.h"
#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker {
namespace {

using ::testing::HasSubstr;
using testing::HttpProvider;
using ::testing::Not;
using ::testing::StartsWith;

class LinkingTest : public testing::BrokerTestBase {
 protected:
  LinkingTest() : BrokerTestBase(clock_for_all_) {
    provider_.SetHandler([this](const HttpProvider::Request& request) {
      MutexLock lock(mu_);
      requests_.push_back(request);
      return answer_;
    });
  }

  void Answer(int status, const std::string& body, const std::string& type = "application/json") {
    MutexLock lock(mu_);
    answer_ = {status, body, type, ""};
  }
  std::vector<HttpProvider::Request> requests() {
    MutexLock lock(mu_);
    return requests_;
  }

  static std::string Between(const std::string& text, const std::string& before, const std::string& after) {
    const size_t begin = text.find(before);
    if (begin == std::string::npos) return "";
    const size_t end = text.find(after, begin + before.size());
    return text.substr(begin + before.size(), end - begin - before.size());
  }
  static std::string Unescape(std::string html) {
    for (size_t at; (at = html.find("&amp;")) != std::string::npos;) html.replace(at, 5, "&");
    return html;
  }
  static std::string Csrf(const web::v1::WebResponse& page) {
    return Between(page.body(), "name=\"csrf\" value=\"", "\"");
  }

  // GET the page, POST its form; where the browser then goes.
  std::map<std::string, std::string> Begin(TokenBrokerServer& broker, const Passport& user,
                                           const std::string& extra = "") {
    const std::string passport = peers_.authn.Sign(user);
    const web::v1::WebResponse page =
        Browse(broker, "GET", absl::StrCat("/connect/gh", extra.empty() ? "" : "?", extra), passport);
    EXPECT_EQ(page.status(), 200) << page.body();
    const std::string form = absl::StrCat("csrf=", PercentEncode(Csrf(page)), extra.empty() ? "" : "&", extra);
    const web::v1::WebResponse on = Browse(broker, "POST", "/connect/gh", passport, form);
    EXPECT_EQ(on.status(), 200) << "no redirect off the origin may follow a form";
    target_ = Unescape(Between(on.body(), "https://provider.example/authorize?", "\""));
    EXPECT_THAT(target_, HasSubstr("response_type=code")) << on.body();
    return *FormDecodeUnique(target_);
  }
  web::v1::WebResponse Return(TokenBrokerServer& broker, const Passport& user, const std::string& query,
                              const std::string& app = "github") {
    return Browse(broker, "GET", absl::StrCat("/callback/", app, "?", query), peers_.authn.Sign(user));
  }
  bool IsLinked(const std::string& subject) { return !peers_.vault.Head(ConnectionRecord(subject, kApp)).empty(); }

  FakeClock clock_for_all_{absl::Now()};
  Mutex mu_;
  HttpProvider::Response answer_ = {
      200, R"({"access_token":"at","refresh_token":"rt","token_type":"bearer","expires_in":3600,"scope":"repo"})",
      "application/json", ""};
  std::vector<HttpProvider::Request> requests_;
  std::string target_;
};

TEST_F(LinkingTest, UserLinksAnAccountAndTheNextCallUsesIt) {
  app_->set_client_auth(registry::v1::BASIC);
  PutSecret("app_secret", "app_gh/client_secret", "s:cret");
  app_->mutable_client_secret()->set_set(true);
  app_->mutable_client_secret()->set_version(1);
  app_->mutable_client_secret()->set_vault_record("app_gh/client_secret");
  (*app_->mutable_authorization_params())["prompt"] = "consent";
  (*app_->mutable_token_params())["audience"] = "api";
  TokenBrokerServer& broker = StartBroker();

  const auto sent = Begin(broker, LinkPassport());
  const web::v1::WebResponse back = Return(broker, LinkPassport(), absl::StrCat("code=c0de&state=", sent.at("state")));

  EXPECT_EQ(sent.at("client_id"), "client");
  EXPECT_EQ(sent.at("redirect_uri"), "https://gw.example.com/callback/github");
  EXPECT_EQ(sent.at("scope"), "repo");
  EXPECT_EQ(sent.at("prompt"), "consent");
  EXPECT_EQ(sent.at("code_challenge_method"), "S256");
  EXPECT_EQ(back.status(), 302);
  EXPECT_EQ(HeaderOf(back, "location"), "/connect/gh/done");
  const auto asked = requests();
  ASSERT_EQ(asked.size(), 1U);
  EXPECT_EQ(asked[0].form.at("grant_type"), "authorization_code");
  EXPECT_EQ(asked[0].form.at("code"), "c0de");
  EXPECT_EQ(asked[0].form.at("redirect_uri"), sent.at("redirect_uri"));
  EXPECT_EQ(asked[0].form.at("audience"), "api");
  EXPECT_EQ(CodeChallengeS256(asked[0].form.at("code_verifier")), sent.at("code_challenge"));
  EXPECT_EQ(asked[0].authorization, "Basic Y2xpZW50OnMlM0FjcmV0");  // client:s%3Acret
  EXPECT_EQ(asked[0].form.count("client_secret"), 0U);
  ASSERT_OK_AND_ASSIGN(const auto response, Resolve(broker, {}, peers_.authn.Sign(CallPassport())));
  EXPECT_EQ(response.pieces(0).value(), "Bearer at");
  EXPECT_THAT(Browse(broker, "GET", "/connect/gh/done", peers_.authn.Sign(LinkPassport())).body(),
              HasSubstr("GitHub is connected"));
  EXPECT_EQ(peers_.registry.invalidations().at(0).key(), "corp:ada\napp_gh\n");
  EXPECT_EQ(peers_.vault.CountRecords("link_flow"), 0U);
}

TEST_F(LinkingTest, NewLinkIsDueAfterTheIdleRefreshThatIsConfigured) {
  idle_refresh_ = absl::Hours(36);
  TokenBrokerServer& broker = StartBroker();
  const auto sent = Begin(broker, LinkPassport());

  Return(broker, LinkPassport(), absl::StrCat("code=c0de&state=", sent.at("state")));

  const vault::v1::RecordMetadata linked = peers_.vault.MetadataOf(ConnectionRecord("corp:ada", kApp));
  EXPECT_EQ(FromTimestamp(linked.next_at()), FromTimestamp(ToTimestamp(clock_.Now() + absl::Hours(36))));
}

TEST_F(LinkingTest, TransactionIsCarriedThroughAndBackAtOnceWhenNothingIsMissing) {
  TokenBrokerServer& broker = StartBroker();
  const auto sent = Begin(broker, LinkPassport(), "txn=t-1");

  const auto back = Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state")));
  const auto again = Browse(broker, "GET", "/connect/gh?txn=t-2", peers_.authn.Sign(LinkPassport()));

  EXPECT_EQ(HeaderOf(back, "location"), "/oauth/continue?txn=t-1");
  EXPECT_EQ(again.status(), 302);
  EXPECT_EQ(HeaderOf(again, "location"), "/oauth/continue?txn=t-2");
}

TEST_F(LinkingTest, ScopesAreTheUnionOverTheServersTheUserMayCall) {
  for (const char* uid : {"srv_1", "srv_2", "srv_3"}) {
    auto* oauth = AddServer(uid, uid + 4)->mutable_app_auth()->mutable_oauth_authorization();
    oauth->set_app_uid(uid == std::string("srv_3") ? "app_other" : kApp);
    oauth->add_scopes(absl::StrCat("scope-", uid));
  }
  Passport user = LinkPassport();
  user.link_server_uids = {kServer, "srv_1", "srv_3"};

  EXPECT_EQ(Begin(StartBroker(), user).at("scope"), "repo scope-srv_1");
}

TEST_F(LinkingTest, WhoIsNotSignedInGoesToLoginFirst) {
  TokenBrokerServer& broker = StartBroker();

  const auto connect = Browse(broker, "GET", "/connect/gh?txn=t", "");
  const auto callback = Browse(broker, "GET", "/callback/github?code=c&state=s", "");

  EXPECT_EQ(connect.status(), 302);
  EXPECT_EQ(HeaderOf(connect, "location"), "/login?return_to=%2Fconnect%2Fgh%3Ftxn%3Dt");
  EXPECT_THAT(HeaderOf(callback, "location"), StartsWith("/login?return_to=%2Fcallback%2Fgithub%3Fcode"));
  EXPECT_TRUE(requests().empty());
}

// C1, C2: the attacker starts, the victim's browser comes back.
TEST_F(LinkingTest, FlowOfAnotherUserIsRefusedAndItsCodeIsNotRedeemed) {
  TokenBrokerServer& broker = StartBroker();
  const auto sent = Begin(broker, LinkPassport("corp:mallory"));

  const auto back = Return(broker, LinkPassport("corp:victim"), absl::StrCat("code=victims&state=", sent.at("state")));

  EXPECT_EQ(back.status(), 403);
  EXPECT_THAT(back.body(), HasSubstr("link_user_mismatch"));
  EXPECT_TRUE(requests().empty());
  EXPECT_FALSE(IsLinked("corp:mallory"));
  EXPECT_FALSE(IsLinked("corp:victim"));
  EXPECT_TRUE(peers_.audit.Await("link.refused", "link_user_mismatch"));
}

TEST_F(LinkingTest, AnotherSessionOfTheSameUserIsRefused) {
  TokenBrokerServer& broker = StartBroker();
  const auto sent = Begin(broker, LinkPassport());
  Passport other = LinkPassport();
  other.session_id = "ses_other";

  EXPECT_EQ(Return(broker, other, absl::StrCat("code=c&state=", sent.at("state"))).status(), 403);
  EXPECT_TRUE(requests().empty());
}

// C3: a link handed out in a call.
TEST_F(LinkingTest, HandedOutLinkWorksForItsUserOnlyAndForTenMinutes) {
  TokenBrokerServer& broker = StartBroker();
  const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
  v1::StartLinkRequest request;
  request.set_server_uid(kServer);
  request.set_app_uid(kApp);
  v1::StartLinkResponse response;
  const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(CallPassport()));
  ASSERT_TRUE(stub->StartLink(context.get(), request, &response).ok());
  ASSERT_THAT(response.url(), StartsWith("https://gw.example.com/connect/gh?for="));
  EXPECT_EQ(response.message(), "Connect your GitHub account to continue.");
  EXPECT_EQ(response.elicitation_id().size(), 36U);
  EXPECT_EQ(response.request_state(), "");
  const std::string target = response.url().substr(std::string("https://gw.example.com").size());

  EXPECT_EQ(Browse(broker, "GET", target, peers_.authn.Sign(LinkPassport())).status(), 200);
  EXPECT_EQ(Browse(broker, "GET", target, peers_.authn.Sign(LinkPassport())).status(), 200) << "the same user, again";
  const auto other = Browse(broker, "GET", target, peers_.authn.Sign(LinkPassport("corp:bob")));
  EXPECT_EQ(other.status(), 403);
  EXPECT_THAT(other.body(), HasSubstr("link_user_mismatch"));
  const std::string touched = absl::StrReplaceAll(target, {{"&connector", "x&connector"}});
  ASSERT_NE(touched, target);
  EXPECT_EQ(Browse(broker, "GET", touched, peers_.authn.Sign(LinkPassport())).status(), 403);
  clock_for_all_.Advance(absl::Minutes(10));
  EXPECT_EQ(Browse(broker, "GET", target, peers_.authn.Sign(LinkPassport())).status(), 410);
}

// C4: the code of one app at the callback of another.
TEST_F(LinkingTest, FlowOfOneAppIsRefusedAtTheCallbackOfAnother) {
  registry::v1::App* other = peers_.registry.AddApp();
  *other = *app_;
  other->set_uid("app_other");
  other->set_slug("other");
  TokenBrokerServer& broker = StartBroker();
  const auto sent = Begin(broker, LinkPassport());

  const auto back = Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state")), "other");

  EXPECT_EQ(back.status(), 400);
  EXPECT_TRUE(requests().empty());
}

// The user consented at the former provider; whoever moved the app must not get the code.
TEST_F(LinkingTest, CodeGoesToNoEndpointTheAppWasMovedToMeanwhile) {
  TokenBrokerServer& before = StartBroker();
  const auto sent = Begin(before, LinkPassport());
  app_->set_token_url(provider_.Url("/elsewhere"));
  TokenBrokerServer& after = StartBroker();

  const auto back = Return(after, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state")));

  EXPECT_EQ(back.status(), 400);
  EXPECT_THAT(back.body(), HasSubstr("provider_moved"));
  EXPECT_TRUE(requests().empty());
}

// C5: a code without a flow that began here.
TEST_F(LinkingTest, CallbackThatNobodyBeganIsRefused) {
  TokenBrokerServer& broker = StartBroker();
  for (const char* query : {"code=c", "code=c&state=", "code=c&state=forged", "state=a&state=b&code=c", ""}) {
    EXPECT_EQ(Return(broker, LinkPassport(), query).status(), 400) << query;
  }
  EXPECT_TRUE(requests().empty());
}

// C6.
TEST_F(LinkingTest, AnswerOfAnotherIssuerIsRefusedAndTheFlowIsGone) {
  app_->set_issuer(provider_.Url(""));
  Answer(200, absl::StrCat(R"({"issuer":")", provider_.Url(""),
                           R"(","authorization_response_iss_parameter_supported":true})"));
  TokenBrokerServer& broker = StartBroker();
  for (const std::string& iss : {std::string("&iss=https://evil.example"), std::string("")}) {
    const auto sent = Begin(broker, LinkPassport());

    const auto back = Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state"), iss));

    EXPECT_EQ(back.status(), 400) << iss;
    EXPECT_THAT(back.body(), HasSubstr("iss_mismatch"));
  }
  EXPECT_EQ(peers_.vault.CountRecords("link_flow"), 0U);
  for (const auto& request : requests()) EXPECT_EQ(request.form.count("code"), 0U);
}

TEST_F(LinkingTest, WhetherAnIssuerIsPromisedMustBeKnown) {
  app_->set_issuer(provider_.Url(""));
  Answer(503, "");
  TokenBrokerServer& broker = StartBroker();
  const auto sent = Begin(broker, LinkPassport());

  const auto back = Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state")));

  EXPECT_EQ(back.status(), 503);
  EXPECT_EQ(peers_.vault.CountRecords("link_flow"), 1U) << "not used up";
  for (const auto& request : requests()) EXPECT_EQ(request.form.count("code"), 0U);
}

// C8.
TEST_F(LinkingTest, RefusalAtTheProviderIsAFriendlyPageAndEndsTheFlow) {
  TokenBrokerServer& broker = StartBroker();
  for (const std::string& query : {std::string("error=access_denied"), std::string("error=access_denied&code=c"),
                                   std::string("error=<script>alert(1)</script>")}) {
    const auto sent = Begin(broker, LinkPassport(), "txn=t");

    const auto back = Return(broker, LinkPassport(), absl::StrCat(query, "&state=", sent.at("state")));

    EXPECT_EQ(back.status(), 200);
    EXPECT_THAT(back.body(), HasSubstr("GitHub was not connected"));
    EXPECT_THAT(back.body(), HasSubstr("/oauth/continue?txn=t"));
    EXPECT_THAT(back.body(), Not(HasSubstr("<script>")));
    EXPECT_EQ(Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state"))).status(), 400)
        << "consumed";
  }
  const auto sent = Begin(broker, LinkPassport());
  EXPECT_EQ(Return(broker, LinkPassport(), absl::StrCat("state=", sent.at("state"))).status(), 400) << "no code";
  EXPECT_TRUE(requests().empty());
}

// C9.
TEST_F(LinkingTest, OddTokenAnswersStoreNothingAndAreNotShown) {
  TokenBrokerServer& broker = StartBroker();
  const std::string huge = absl::StrCat(R"({"access_token":"at","x":")", std::string(5 << 20, 'x'), "\"}");
  const std::string deep =
      absl::StrCat(R"({"access_token":"at","x":)", std::string(5000, '['), std::string(5000, ']'), "}");
  for (const std::string& body :
       {std::string(R"({"token_type":"bearer"})"), std::string(R"({"access_token":"","token_type":"bearer"})"),
        std::string(R"({"access_token":"at","token_type":"mac"})"),
        std::string(R"({"access_token":"at","token_type":"DPoP"})"), std::string("<html>leaked-canary</html>"),
        std::string(R"({"error":"bad_verification_code","error_description":"leaked-canary"})"),
        std::string(R"({"access_token":"at\r\nX: y"})"), std::string(R"({"access_token":"a","access_token":"b"})"),
        std::string("[]"), std::string(), huge, deep}) {
    Answer(200, body);
    const auto sent = Begin(broker, LinkPassport());

    const auto back = Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state")));

    EXPECT_EQ(back.status(), 502) << body.substr(0, 80);
    EXPECT_THAT(back.body(), Not(HasSubstr("canary")));
    EXPECT_FALSE(IsLinked("corp:ada")) << body.substr(0, 80);
  }
}

// As Slack answers: what kind of account it is in place of "bearer", and no lifetime.
TEST_F(LinkingTest, TokensOfUsersAndBotsAreLinkedWhateverIsSaidOfTheirLifetime) {
  TokenBrokerServer& broker = StartBroker();
  for (const char* body :
       {R"({"ok":true,"access_token":"xoxp-1","token_type":"user","scope":"repo"})",
        R"({"ok":true,"access_token":"xoxp-1","token_type":"bot","scope":"repo,gist"})",
        R"({"access_token":"xoxp-1","token_type":"bearer","expires_in":0})",
        R"({"access_token":"xoxp-1","expires_in":-1})", R"({"access_token":"xoxp-1","expires_in":""})",
        R"({"access_token":"xoxp-1","expires_in":"never"})", R"({"access_token":"xoxp-1","expires_in":1e12})",
        R"({"access_token":"xoxp-1","expires_in":"3600.5"})"}) {
    Answer(200, body);
    const auto sent = Begin(broker, LinkPassport());

    const auto back = Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state")));

    EXPECT_EQ(back.status(), 302) << body << back.body();
    ASSERT_OK_AND_ASSIGN(const auto response, Resolve(broker, {}, peers_.authn.Sign(CallPassport())));
    EXPECT_EQ(response.pieces(0).value(), "Bearer xoxp-1") << body;
  }
}

TEST_F(LinkingTest, ProvidersOwnErrorCodeIsOnThePageAndInTheAudit) {
  TokenBrokerServer& broker = StartBroker();
  Answer(200, R"({"error":"bad_verification_code","error_description":"<b>leaked-canary</b>"})");
  auto sent = Begin(broker, LinkPassport());
  const auto refused = Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state")));
  Answer(400, R"({"error":"<script>alert(1)</script>"})");
  sent = Begin(broker, LinkPassport());
  const auto hostile = Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state")));

  EXPECT_EQ(refused.status(), 502);
  EXPECT_THAT(refused.body(), HasSubstr("GitHub could not be connected"));
  EXPECT_THAT(refused.body(), HasSubstr("(bad_verification_code)"));
  EXPECT_THAT(refused.body(), HasSubstr("Try again"));
  EXPECT_THAT(refused.body(), Not(HasSubstr("canary")));
  EXPECT_TRUE(peers_.audit.Await("link.refused", "bad_verification_code"));
  EXPECT_THAT(hostile.body(), HasSubstr("unreadable_error"));
  EXPECT_THAT(hostile.body(), Not(HasSubstr("<script>alert")));
}

TEST_F(LinkingTest, WrongClientSecretSaysSoAndAsksNobodyToTryAgain) {
  for (const char* code : {"invalid_client", "unauthorized_client", "incorrect_client_credentials"}) {
    TokenBrokerServer& broker = StartBroker();
    Answer(401, absl::StrCat(R"({"error":")", code, R"("})"));
    const auto sent = Begin(broker, LinkPassport(), "txn=t");

    const auto back = Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state")));

    EXPECT_EQ(back.status(), 502);
    EXPECT_THAT(back.body(), HasSubstr("GitHub does not accept this gateway"));
    EXPECT_THAT(back.body(), HasSubstr(absl::StrCat("client ID or secret (", code, ")")));
    EXPECT_THAT(back.body(), Not(HasSubstr("ry again")));
    EXPECT_THAT(back.body(), HasSubstr("/oauth/continue?txn=t")) << "the way on is open";
    EXPECT_TRUE(peers_.audit.Await("link.refused", code));
  }
}

TEST_F(LinkingTest, ProviderThatDoesNotAnswerIsNamedOnThePage) {
  app_->set_token_url(HttpProvider::UrlOfNobody("/token"));
  TokenBrokerServer& broker = StartBroker();
  const auto sent = Begin(broker, LinkPassport());
  const auto back = Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state")));
  EXPECT_THAT(back.body(), HasSubstr("GitHub does not answer"));
  EXPECT_THAT(back.body(), HasSubstr("Try again"));

  app_->clear_token_url();
  app_->set_issuer(provider_.Url(""));
  Answer(503, "");
  TokenBrokerServer& without_metadata = StartBroker();
  const std::string passport = peers_.authn.Sign(LinkPassport());
  const auto page = Browse(without_metadata, "GET", "/connect/gh", passport);
  const auto begun =
      Browse(without_metadata, "POST", "/connect/gh", passport, absl::StrCat("csrf=", PercentEncode(Csrf(page))));
  EXPECT_EQ(begun.status(), 503);
  EXPECT_THAT(begun.body(), HasSubstr("GitHub does not answer"));
}

TEST_F(LinkingTest, VaultThatIsDownIsNotTakenForTheProvidersFailure) {
  TokenBrokerServer& broker = StartBroker();
  const auto sent = Begin(broker, LinkPassport());
  peers_.vault.FailPuts(1);

  const auto back = Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state")));
  peers_.vault.SetDown(true);
  const auto begun = Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state")));

  for (const web::v1::WebResponse& page : {back, begun}) {
    EXPECT_EQ(page.status(), 503) << page.body();
    EXPECT_EQ(HeaderOf(page, "retry-after"), "2");
  }
  EXPECT_FALSE(IsLinked("corp:ada"));
}

TEST_F(LinkingTest, ExpiryAsAStringIsUnderstood) {
  Answer(200, R"({"access_token":"at","expires_in":"3600","scope":"repo"})");
  TokenBrokerServer& broker = StartBroker();
  const auto sent = Begin(broker, LinkPassport());

  EXPECT_EQ(Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state"))).status(), 302);
  EXPECT_TRUE(IsLinked("corp:ada"));
}

TEST_F(LinkingTest, GrantNarrowerThanAskedIsStoredAndSaidSo) {
  app_->add_default_scopes("read:org");
  Answer(200, R"({"access_token":"at","expires_in":3600,"scope":"repo"})");
  TokenBrokerServer& broker = StartBroker();
  const auto sent = Begin(broker, LinkPassport());
  ASSERT_EQ(Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state"))).status(), 302);

  const auto done = Browse(broker, "GET", "/connect/gh/done", peers_.authn.Sign(LinkPassport()));
  ASSERT_OK_AND_ASSIGN(const auto response, Resolve(broker, {}, peers_.authn.Sign(CallPassport())));

  EXPECT_THAT(done.body(), HasSubstr("not fully connected"));
  EXPECT_EQ(response.link().reason(), v1::LinkRequired::MISSING_SCOPE);
}

// C10.
TEST_F(LinkingTest, TwentyDuplicatesOfACallbackExchangeTheCodeOnce) {
  TokenBrokerServer& broker = StartBroker();
  const auto sent = Begin(broker, LinkPassport());
  std::atomic<int> linked{0};
  std::atomic<int> refused{0};
  std::vector<std::thread> browsers;
  for (int i = 0; i < 20; ++i) {
    browsers.emplace_back([&] {
      const int status = Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state"))).status();
      linked += status == 302 ? 1 : 0;
      refused += status == 400 ? 1 : 0;
    });
  }
  for (std::thread& browser : browsers) browser.join();

  EXPECT_EQ(linked, 1);
  EXPECT_EQ(refused, 19);
  EXPECT_EQ(requests().size(), 1U);
  EXPECT_EQ(Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state"))).status(), 400) << "replay";
}

TEST_F(LinkingTest, FlowOlderThanTenMinutesIsRefused) {
  TokenBrokerServer& broker = StartBroker();
  const auto sent = Begin(broker, LinkPassport());
  clock_for_all_.Advance(absl::Minutes(10));

  EXPECT_EQ(Return(broker, LinkPassport(), absl::StrCat("code=c&state=", sent.at("state"))).status(), 400);
  EXPECT_TRUE(requests().empty());
}

TEST_F(LinkingTest, FormWithoutItsTokenBeginsNothing) {
  TokenBrokerServer& broker = StartBroker();
  const std::string ada = peers_.authn.Sign(LinkPassport());
  const std::string bobs = Csrf(Browse(broker, "GET", "/connect/gh", peers_.authn.Sign(LinkPassport("corp:bob"))));

  EXPECT_EQ(Browse(broker, "POST", "/connect/gh", ada, "").status(), 403);
  EXPECT_EQ(Browse(broker, "POST", "/connect/gh", ada, "csrf=1.x").status(), 403);
  EXPECT_EQ(Browse(broker, "POST", "/connect/gh", ada, absl::StrCat("csrf=", PercentEncode(bobs))).status(), 403);
  EXPECT_EQ(peers_.vault.CountRecords("link_flow"), 0U);
}

// The form's own token alone would do for a page of another site that got hold of it.
TEST_F(LinkingTest, FormThatDoesNotComeFromAPageOfOursBeginsNothing) {
  TokenBrokerServer& broker = StartBroker();
  const std::string ada = peers_.authn.Sign(LinkPassport());
  const std::string form = absl::StrCat("csrf=", PercentEncode(Csrf(Browse(broker, "GET", "/connect/gh", ada))));
  const std::string ours = "https://gw.example.com";
  for (const std::vector<std::pair<std::string, std::string>>& headers :
       std::vector<std::vector<std::pair<std::string, std::string>>>{
           {},
           {{"sec-fetch-site", "same-origin"}},
           {{"origin", "null"}},
           {{"origin", ""}},
           {{"origin", "https://evil.example"}},
           {{"origin", ours}, {"origin", "null"}},
           {{"origin", ours}, {"sec-fetch-site", "same-site"}}}) {
    EXPECT_EQ(Browse(broker, "POST", "/connect/gh", ada, form, headers).status(), 403) << headers.size();
  }
  EXPECT_EQ(peers_.vault.CountRecords("link_flow"), 0U);

  EXPECT_EQ(
      Browse(broker, "POST", "/connect/gh", ada, form, {{"origin", ours}, {"sec-fetch-site", "same-origin"}}).status(),
      200);
}

TEST_F(LinkingTest, UserWhoMayNotUseTheServerCannotLinkThere) {
  Passport user = LinkPassport();
  user.link_server_uids = {"srv_other"};
  EXPECT_EQ(Browse(StartBroker(), "GET", "/connect/gh", peers_.authn.Sign(user)).status(), 403);
}

TEST_F(LinkingTest, PassportOfACallOpensNoPage) {
  EXPECT_EQ(Browse(StartBroker(), "GET", "/connect/gh", peers_.authn.Sign(CallPassport())).status(), 403);
}

TEST_F(LinkingTest, UnknownPagesAreNotFound) {
  TokenBrokerServer& broker = StartBroker();
  const std::string ada = peers_.authn.Sign(LinkPassport());
  for (const char* path :
       {"/connect/none", "/connect/", "/connect/gh/other", "/callback/none", "/callback/github/x", "/other"}) {
    EXPECT_EQ(Browse(broker, "GET", path, ada).status(), 404) << path;
  }
  EXPECT_EQ(Browse(broker, "POST", "/callback/github", ada).status(), 405);
}

TEST_F(LinkingTest, RequestStateBelongsToOneUserServerAndCall) {
  TokenBrokerServer& broker = StartBroker();
  const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
  v1::StartLinkRequest start;
  start.set_server_uid(kServer);
  start.set_app_uid(kApp);
  start.mutable_call()->set_method("tools/call");
  start.mutable_call()->set_name("search");
  start.mutable_call()->set_arguments_digest(Sha256("{}"));
  v1::StartLinkResponse started;
  {
    const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(CallPassport()));
    ASSERT_TRUE(stub->StartLink(context.get(), start, &started).ok());
  }
  ASSERT_THAT(started.request_state(), StartsWith("sp1."));
  const auto resume = [&](const std::string& subject, const std::string& name, const std::string& state) {
    v1::ResumeLinkRequest request;
    request.set_server_uid(kServer);
    *request.mutable_call() = start.call();
    request.mutable_call()->set_name(name);
    request.set_request_state(state);
    v1::ResumeLinkResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(CallPassport(subject)));
    const grpc::Status status = stub->ResumeLink(context.get(), request, &response);
    return status.ok() ? (response.linked() ? "linked" : "waiting") : ReasonOf(FromGrpcStatus(status));
  };

  EXPECT_EQ(resume("corp:ada", "search", started.request_state()), "waiting");
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  EXPECT_EQ(resume("corp:ada", "search", started.request_state()), "linked");
  EXPECT_EQ(resume("corp:bob", "search", started.request_state()), "request_state_mismatch");
  EXPECT_EQ(resume("corp:ada", "delete", started.request_state()), "request_state_mismatch");
  EXPECT_EQ(resume("corp:ada", "search", started.request_state() + "A"), "request_state_mismatch");
  EXPECT_EQ(resume("corp:ada", "search", "sp1."), "request_state_mismatch");
  clock_for_all_.Advance(absl::Minutes(10));
  EXPECT_EQ(resume("corp:ada", "search", started.request_state()), "request_state_mismatch");
}

}  // namespace
}  // namespace sallyport::token_broker

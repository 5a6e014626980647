// SPDX-License-Identifier: Apache-2.0
// A credential that each user enters: what they see, where it goes, and who else would like it.
#include "services/token_broker/user_credentials.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using Link = v1::LinkRequired;
using Refused = v1::ResolveCredentialsRequest::RefusedPiece;

constexpr char kWiki[] = "srv_w";
constexpr char kPiece[] = "outbound_headers[x-key]";

class UserCredentialsTest : public testing::BrokerTestBase {
 protected:
  UserCredentialsTest() : BrokerTestBase(clock_for_all_) {
    server_ = AddServer(kWiki, "wiki");
    server_->mutable_agent_auth()->mutable_interactive();
    server_->mutable_app_auth()->mutable_passthrough();
    header_ = server_->add_outbound_headers();
    header_->set_name("X-Key");
    header_->mutable_stored_credential()->set_credential_uid("crd_w");
    header_->mutable_stored_credential()->set_match(registry::v1::OutboundHeader::StoredCredential::PER_USER);
    peers_.registry.Change([this](auto& snapshot) { credential_ = snapshot.add_credentials(); });
    credential_->set_uid("crd_w");
    credential_->set_slug("wiki-key");
    credential_->set_display_name("Wiki key");
    credential_->set_kind(registry::v1::Credential::API_KEY);
    credential_->set_owner(registry::v1::Credential::USER);
    credential_->add_allowed_upstream_origins(kOrigin);
  }

  // The broker's answer for a call of this user, short: the value, what must be entered, or the error's reason.
  std::string Outcome(TokenBrokerServer& broker, const std::string& subject = "corp:ada",
                      const std::vector<Refused>& refused = {}) {
    v1::ResolveCredentialsRequest request;
    request.set_server_uid(kWiki);
    request.mutable_refused_pieces()->Assign(refused.begin(), refused.end());
    const auto response = Resolve(broker, request, peers_.authn.Sign(CallPassport(subject, kWiki)));
    if (!response.ok()) return ReasonOf(response.status());
    if (response->has_link()) {
      EXPECT_EQ(response->link().app_uid(), "crd_w");
      EXPECT_EQ(response->link().app_display_name(), "Wiki key");
      EXPECT_TRUE(response->link().credential());
      return Link::Reason_Name(response->link().reason());
    }
    last_ = *response;
    return response->pieces_size() == 1 ? response->pieces(0).value() : "?";
  }

  static Passport InBrowser(const std::string& subject = "corp:ada") {
    Passport passport;
    passport.subject = subject;
    passport.session_id = "ses_" + subject;
    passport.purpose = Passport::Purpose::kLink;
    passport.link_server_uids = {kWiki};
    return passport;
  }
  static Passport Api(const std::string& subject = "corp:ada", const std::vector<std::string>& roles = {}) {
    Passport passport;
    passport.subject = subject;
    passport.session_id = "ses_" + subject;
    passport.purpose = Passport::Purpose::kApi;
    passport.roles = roles;
    return passport;
  }
  static std::string Csrf(const std::string& html) {
    const std::string before = "name=\"csrf\" value=\"";
    const size_t begin = html.find(before);
    return begin == std::string::npos
               ? ""
               : html.substr(begin + before.size(), html.find('"', begin + before.size()) - begin - before.size());
  }
  // The page, and its form sent.
  web::v1::WebResponse Enter(TokenBrokerServer& broker, const std::string& value, const std::string& username = "",
                             const std::string& subject = "corp:ada", const std::string& query = "") {
    const std::string passport = peers_.authn.Sign(InBrowser(subject));
    const web::v1::WebResponse page =
        Browse(broker, "GET", absl::StrCat("/connect/wiki", query.empty() ? "" : "?", query), passport);
    EXPECT_EQ(page.status(), 200) << page.body();
    EXPECT_THAT(page.body(), HasSubstr("type=\"password\""));
    return Browse(
        broker, "POST", "/connect/wiki", passport,
        absl::StrCat("csrf=", PercentEncode(Csrf(page.body())), "&credential=wiki-key&value=", PercentEncode(value),
                     username.empty() ? "" : "&username=", PercentEncode(username), query.empty() ? "" : "&", query));
  }
  absl::Status Set(TokenBrokerServer& broker, const Passport& by, const std::string& value,
                   const std::string& subject = "", const std::string& credential = "wiki-key") {
    v1::SetCredentialRequest request;
    request.set_credential(credential);
    request.mutable_value()->set_value(value);
    request.set_subject(subject);
    v1::SetCredentialResponse response;
    const auto context = MakeClientContext(absl::Seconds(30), peers_.authn.Sign(by));
    const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
    return FromGrpcStatus(stub->SetCredential(context.get(), request, &response));
  }
  absl::Status Clear(TokenBrokerServer& broker, const Passport& by, const std::string& subject = "",
                     const std::string& credential = "wiki-key") {
    v1::ClearCredentialRequest request;
    request.set_credential(credential);
    request.set_subject(subject);
    v1::ClearCredentialResponse response;
    const auto context = MakeClientContext(absl::Seconds(30), peers_.authn.Sign(by));
    const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
    return FromGrpcStatus(stub->ClearCredential(context.get(), request, &response));
  }
  v1::ListOwnCredentialsResponse List(TokenBrokerServer& broker, const Passport& by) {
    v1::ListOwnCredentialsResponse response;
    const auto context = MakeClientContext(absl::Seconds(30), peers_.authn.Sign(by));
    const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
    EXPECT_TRUE(stub->ListOwnCredentials(context.get(), {}, &response).ok());
    return response;
  }

  FakeClock clock_for_all_{absl::FromUnixSeconds(1'700'000'000)};
  registry::v1::McpServer* server_;
  registry::v1::OutboundHeader* header_;
  registry::v1::Credential* credential_ = nullptr;
  v1::ResolveCredentialsResponse last_;
};

TEST_F(UserCredentialsTest, IsEnteredOnAPageAndGoesOutForItsUserAlone) {
  TokenBrokerServer& broker = StartBroker();
  EXPECT_EQ(Outcome(broker), "NOT_LINKED");

  const web::v1::WebResponse stored = Enter(broker, " k3y-of-ada\n");

  EXPECT_EQ(stored.status(), 200);
  EXPECT_THAT(stored.body(), HasSubstr("/connect/wiki/done?credential=wiki-key"));
  EXPECT_THAT(stored.body(), Not(HasSubstr("k3y-of-ada")));
  EXPECT_EQ(Outcome(broker), "k3y-of-ada") << "white space around a pasted key is none of it";
  EXPECT_EQ(last_.pieces(0).scope(), v1::USER);
  EXPECT_EQ(last_.pieces(0).connection(), "crd_w");
  EXPECT_EQ(Outcome(broker, "corp:bob"), "NOT_LINKED");
  const web::v1::WebResponse done =
      Browse(broker, "GET", "/connect/wiki/done?credential=wiki-key", peers_.authn.Sign(InBrowser()));
  EXPECT_THAT(done.body(), HasSubstr("Your Wiki key is stored"));
  const auto told = peers_.registry.invalidations();
  ASSERT_EQ(told.size(), 1U) << "edges keep what they had until they are told";
  EXPECT_EQ(told[0].key(), "corp:ada\ncrd_w\n");
}

TEST_F(UserCredentialsTest, ThePageSaysWhereItMayBeSentAndThatOneIsStored) {
  TokenBrokerServer& broker = StartBroker();
  Enter(broker, "one");
  const web::v1::WebResponse page = Browse(broker, "GET", "/connect/wiki", peers_.authn.Sign(InBrowser()));
  EXPECT_THAT(page.body(), HasSubstr("May be sent to: https://api.example.com"));
  EXPECT_THAT(page.body(), HasSubstr("One is stored."));
  EXPECT_THAT(page.body(), Not(HasSubstr("value=\"one\"")));
  Enter(broker, "two");
  EXPECT_EQ(Outcome(broker), "two");
}

TEST_F(UserCredentialsTest, TheLinkOfACallLeadsToItsPage) {
  TokenBrokerServer& broker = StartBroker();
  v1::StartLinkRequest request;
  request.set_server_uid(kWiki);
  request.set_app_uid("crd_w");
  request.mutable_call()->set_method("tools/call");
  v1::StartLinkResponse link;
  const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
  const std::string passport = peers_.authn.Sign(CallPassport("corp:ada", kWiki));
  ASSERT_TRUE(stub->StartLink(MakeClientContext(absl::Seconds(30), passport).get(), request, &link).ok());
  EXPECT_THAT(link.message(), "Enter your Wiki key to continue.");
  EXPECT_THAT(link.url(), HasSubstr("&credential=wiki-key"));
  v1::ResumeLinkRequest resume;
  resume.set_server_uid(kWiki);
  *resume.mutable_call() = request.call();
  resume.set_request_state(link.request_state());
  const auto linked = [&] {
    v1::ResumeLinkResponse response;
    EXPECT_TRUE(stub->ResumeLink(MakeClientContext(absl::Seconds(30), passport).get(), resume, &response).ok());
    return response.linked();
  };
  EXPECT_FALSE(linked());

  const std::string query = link.url().substr(link.url().find('?') + 1);
  const web::v1::WebResponse others =
      Browse(broker, "GET", "/connect/wiki?" + query, peers_.authn.Sign(InBrowser("corp:eve")));
  EXPECT_EQ(others.status(), 403) << "whoever opens it would give their key to another's call";
  EXPECT_EQ(Enter(broker, "k", "", "corp:ada", query.substr(0, query.find("&credential="))).status(), 200);

  EXPECT_TRUE(linked());
}

TEST_F(UserCredentialsTest, WhoComesFromASignInGoesBackToIt) {
  TokenBrokerServer& broker = StartBroker();
  const web::v1::WebResponse stored = Enter(broker, "k", "", "corp:ada", "txn=t-1");
  EXPECT_THAT(stored.body(), HasSubstr("t-1"));
  const web::v1::WebResponse again = Browse(broker, "GET", "/connect/wiki?txn=t-2", peers_.authn.Sign(InBrowser()));
  EXPECT_EQ(again.status(), 302) << "nothing is missing";
  EXPECT_THAT(HeaderOf(again, "location"), HasSubstr("t-2"));
}

TEST_F(UserCredentialsTest, APasswordGoesOutWithItsUserName) {
  credential_->set_kind(registry::v1::Credential::PASSWORD);
  header_->mutable_stored_credential()->set_form(registry::v1::OutboundHeader::StoredCredential::BASIC);
  TokenBrokerServer& broker = StartBroker();
  EXPECT_EQ(Enter(broker, "open sesame", "Aladdin").status(), 200);
  EXPECT_EQ(Outcome(broker), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");  // RFC 7617 section 2.
}

TEST_F(UserCredentialsTest, WhatWasEnteredForOtherOriginsIsEnteredAnew) {
  TokenBrokerServer& broker = StartBroker();
  Enter(broker, "k");
  brokers_.clear();
  // Whoever edits the configuration points the server elsewhere, and allows it.
  server_->set_upstream_url("https://evil.example.com/mcp");
  credential_->add_allowed_upstream_origins("https://evil.example.com");
  TokenBrokerServer& later = StartBroker();
  v1::ResolveCredentialsRequest request;
  request.set_server_uid(kWiki);
  request.set_upstream_origin("https://evil.example.com");
  const auto response = Resolve(later, request, peers_.authn.Sign(CallPassport("corp:ada", kWiki)));
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->pieces_size(), 0);
  EXPECT_EQ(response->link().reason(), Link::NEEDS_REAUTH);
  EXPECT_EQ(List(later, Api()).credentials(0).state(), "needs_entry");
}

TEST_F(UserCredentialsTest, WhatIsAllowedWhileTheFormIsOpenIsNotAgreedTo) {
  std::string form;
  {
    TokenBrokerServer& broker = StartBroker();
    form = Csrf(Browse(broker, "GET", "/connect/wiki", peers_.authn.Sign(InBrowser())).body());
  }
  brokers_.clear();
  credential_->add_allowed_upstream_origins("https://evil.example.com");
  TokenBrokerServer& later = StartBroker();
  EXPECT_EQ(Browse(later, "POST", "/connect/wiki", peers_.authn.Sign(InBrowser()),
                   absl::StrCat("credential=wiki-key&value=k&csrf=", PercentEncode(form)))
                .status(),
            403);
  EXPECT_EQ(List(later, Api()).credentials_size(), 0);
}

TEST_F(UserCredentialsTest, AKeyThatTookLongerToGetThanTheLinkLastsIsStored) {
  TokenBrokerServer& broker = StartBroker();
  v1::StartLinkRequest request;
  request.set_server_uid(kWiki);
  request.set_app_uid("crd_w");
  v1::StartLinkResponse link;
  const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
  ASSERT_TRUE(
      stub->StartLink(MakeClientContext(absl::Seconds(30), peers_.authn.Sign(CallPassport("corp:ada", kWiki))).get(),
                      request, &link)
          .ok());
  const std::string query = link.url().substr(link.url().find('?') + 1);
  const std::string form = Csrf(Browse(broker, "GET", "/connect/wiki?" + query, peers_.authn.Sign(InBrowser())).body());
  clock_for_all_.Advance(absl::Minutes(30));
  EXPECT_EQ(Browse(broker, "POST", "/connect/wiki", peers_.authn.Sign(InBrowser()),
                   absl::StrCat("value=k&csrf=", PercentEncode(form), "&", query))
                .status(),
            200);
  EXPECT_EQ(Outcome(broker), "k");
}

TEST_F(UserCredentialsTest, OneThatTheUpstreamRefusesIsEnteredAnew) {
  TokenBrokerServer& broker = StartBroker();
  Enter(broker, "mistyped");
  EXPECT_EQ(Outcome(broker), "mistyped");
  Refused refused;
  refused.set_piece(kPiece);
  refused.set_generation(last_.pieces(0).generation());
  refused.set_version(last_.pieces(0).version());
  Refused other;
  other.set_piece("app_auth");
  EXPECT_EQ(Outcome(broker, "corp:ada", {refused, other}), "mistyped") << "perhaps it was the other one";
  EXPECT_EQ(Outcome(broker, "corp:ada", {refused}), "NEEDS_REAUTH");
  EXPECT_EQ(Outcome(broker), "NEEDS_REAUTH") << "an upstream may lock the account over one more";
  clock_for_all_.Advance(absl::Minutes(5));
  EXPECT_EQ(Outcome(broker), "mistyped") << "it may have been wrong";
  Enter(broker, "right");
  EXPECT_EQ(Outcome(broker, "corp:ada", {refused}), "right") << "another one is stored since";
}

TEST_F(UserCredentialsTest, TheOrganizationsTakesNobodysPlaceNorTheOtherWayRound) {
  credential_->set_owner(registry::v1::Credential::ORGANIZATION);
  PutSecret("credential", "crd_w/value", "of-all", {kOrigin});
  credential_->mutable_value()->set_set(true);
  credential_->mutable_value()->set_version(1);
  credential_->mutable_value()->set_vault_record("crd_w/value");
  TokenBrokerServer& broker = StartBroker();
  EXPECT_EQ(Outcome(broker), "credential_missing");
  EXPECT_TRUE(absl::IsNotFound(Set(broker, Api(), "mine"))) << "and nobody enters their own";
}

TEST_F(UserCredentialsTest, BadInputIsNamedAndNothingIsStored) {
  const struct {
    registry::v1::Credential::Kind kind;
    std::string value;
    std::string username;
    const char* says;
  } cases[] = {
      {registry::v1::Credential::API_KEY, "", "", "value: is required"},
      {registry::v1::Credential::API_KEY, " \n", "", "value: is required"},
      {registry::v1::Credential::API_KEY, std::string(4097, 'x'), "", "value: is longer than 4096 bytes"},
      {registry::v1::Credential::API_KEY, "k3y\r\nX-Admin: 1", "", "value: holds control characters"},
      {registry::v1::Credential::API_KEY, "k3y", "ada", "username: goes with a password only"},
      {registry::v1::Credential::PASSWORD, "k3y", "", "username: is required"},
      {registry::v1::Credential::PASSWORD, "k3y", "a:da", "username: must be text"},
      {registry::v1::Credential::PASSWORD, "k3y", "a\nda", "username: must be text"},
      {registry::v1::Credential::PASSWORD, "k3y",
       "a\xff"
       "da",
       "username: must be text"},
  };
  for (const auto& one : cases) {
    brokers_.clear();
    credential_->set_kind(one.kind);
    TokenBrokerServer& fresh = StartBroker();
    const web::v1::WebResponse page = Enter(fresh, one.value, one.username);
    EXPECT_EQ(page.status(), 400) << one.says;
    EXPECT_THAT(page.body(), HasSubstr(one.says));
    EXPECT_THAT(page.body(), Not(HasSubstr("k3y")));
    EXPECT_EQ(List(fresh, Api()).credentials_size(), 0);
  }
}

TEST_F(UserCredentialsTest, AFormOfAnotherPageOrSiteStoresNothing) {
  TokenBrokerServer& broker = StartBroker();
  const std::string ada = peers_.authn.Sign(InBrowser());
  const std::string body = "credential=wiki-key&value=planted";
  EXPECT_EQ(Browse(broker, "POST", "/connect/wiki", ada, body).status(), 403);
  const std::string eves =
      Csrf(Browse(broker, "GET", "/connect/wiki", peers_.authn.Sign(InBrowser("corp:eve"))).body());
  EXPECT_EQ(Browse(broker, "POST", "/connect/wiki", ada, absl::StrCat(body, "&csrf=", PercentEncode(eves))).status(),
            403);
  const std::string own = Csrf(Browse(broker, "GET", "/connect/wiki", ada).body());
  EXPECT_EQ(Browse(broker, "POST", "/connect/wiki", ada, absl::StrCat(body, "&csrf=", PercentEncode(own)),
                   {{"origin", "https://evil.example.com"}})
                .status(),
            403);
  Passport stranger = InBrowser();
  stranger.link_server_uids = {};
  EXPECT_EQ(Browse(broker, "POST", "/connect/wiki", peers_.authn.Sign(stranger),
                   absl::StrCat(body, "&csrf=", PercentEncode(own)))
                .status(),
            403)
      << "who may not use the server";
  EXPECT_EQ(Browse(broker, "GET", "/connect/gh?credential=wiki-key", ada).status(), 404);
  EXPECT_EQ(List(broker, Api()).credentials_size(), 0);
}

TEST_F(UserCredentialsTest, IsSetListedAndClearedOverTheApi) {
  TokenBrokerServer& broker = StartBroker();
  EXPECT_TRUE(Set(broker, Api(), "k").ok());
  EXPECT_EQ(Outcome(broker), "k");
  const v1::ListOwnCredentialsResponse list = List(broker, Api());
  ASSERT_EQ(list.credentials_size(), 1);
  EXPECT_EQ(list.credentials(0).credential(), "wiki-key");
  EXPECT_EQ(list.credentials(0).state(), "entered");
  EXPECT_THAT(list.credentials(0).origins(), ElementsAre(kOrigin));
  EXPECT_EQ(List(broker, Api("corp:bob")).credentials_size(), 0);

  EXPECT_TRUE(Clear(broker, Api()).ok());
  EXPECT_EQ(Outcome(broker), "NOT_LINKED");
  EXPECT_TRUE(Clear(broker, Api()).ok()) << "twice is as good as once";
  EXPECT_TRUE(absl::IsNotFound(Clear(broker, Api(), "", "no-such")));
  EXPECT_TRUE(absl::IsNotFound(Set(broker, Api(), "k", "", "no-such")));
}

TEST_F(UserCredentialsTest, OthersEnterItForAUserOnlyAsCredentialAdmin) {
  TokenBrokerServer& broker = StartBroker();
  for (const std::vector<std::string>& roles : std::vector<std::vector<std::string>>{{}, {"admin"}, {"auditor"}}) {
    EXPECT_EQ(ReasonOf(Set(broker, Api("local:root", roles), "planted", "corp:ada")), "role_missing");
    EXPECT_EQ(ReasonOf(Clear(broker, Api("local:root", roles), "corp:ada")), "role_missing");
  }
  EXPECT_EQ(Outcome(broker), "NOT_LINKED");
  EXPECT_TRUE(Set(broker, Api("local:root", {"credential-admin"}), "given", "corp:ada").ok());
  EXPECT_EQ(Outcome(broker), "given");
  EXPECT_EQ(Outcome(broker, "local:root"), "NOT_LINKED");
  EXPECT_TRUE(Clear(broker, Api("local:root", {"credential-admin"}), "corp:ada").ok());
  EXPECT_EQ(Outcome(broker), "NOT_LINKED");
}

TEST_F(UserCredentialsTest, ThePassportOfACallChangesNothing) {
  TokenBrokerServer& broker = StartBroker();
  Passport call = CallPassport("corp:ada", kWiki);
  call.roles = {"credential-admin"};
  EXPECT_EQ(ReasonOf(Set(broker, call, "planted")), "passport_mismatch");
  EXPECT_EQ(ReasonOf(Set(broker, call, "planted", "corp:bob")), "passport_mismatch");
  EXPECT_EQ(ReasonOf(Clear(broker, call)), "passport_mismatch");
}

TEST_F(UserCredentialsTest, OfACredentialThatIsGoneItsUserCanStillEndTheirs) {
  TokenBrokerServer& broker = StartBroker();
  EXPECT_TRUE(Set(broker, Api(), "k").ok());
  brokers_.clear();
  credential_->set_uid("crd_x");
  TokenBrokerServer& later = StartBroker();
  ASSERT_EQ(List(later, Api()).credentials_size(), 1);
  EXPECT_EQ(List(later, Api()).credentials(0).credential(), "crd_w");
  EXPECT_TRUE(Clear(later, Api(), "", "crd_w").ok());
  EXPECT_EQ(List(later, Api()).credentials_size(), 0);
}

TEST_F(UserCredentialsTest, ASealedVaultIsNoLink) {
  TokenBrokerServer& broker = StartBroker();
  Enter(broker, "k");
  peers_.vault.Fail(absl::UnavailableError("sealed"));
  v1::ResolveCredentialsRequest request;
  request.set_server_uid(kWiki);
  const auto response = Resolve(broker, request, peers_.authn.Sign(CallPassport("corp:ada", kWiki)));
  EXPECT_TRUE(absl::IsUnavailable(response.status())) << "who has one must not be asked to enter it again";
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
// People whose identity provider wants them to agree to more before it gives a token for a server.
#include "services/token_broker/consent.h"

#include "absl/strings/match.h"

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/proto_time.h"
#include "sallyport/token_broker/v1/sign_ins.grpc.pb.h"
#include "services/token_broker/testing/client_test_base.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;
using Code = absl::StatusCode;

constexpr char kClaims[] = R"({"access_token":{"capolids":{"essential":true,"values":["c1"]}}})";
constexpr char kRefusal[] =
    R"({"error":"interaction_required","claims":"{\"access_token\":{\"capolids\":{\"essential\":true,\"values\":[\"c1\"]}}}"})";

TEST(ConsentClaims, OpenForThePersonAndServerTheyWereSealedFor) {
  const Secret key(RandomBytes(32));
  ASSERT_OK_AND_ASSIGN(const std::string sealed, SealClaims(key, "corp:ada", "srv_a", kClaims));
  EXPECT_EQ(OpenClaims(key, "corp:ada", "srv_a", sealed), kClaims);
  EXPECT_EQ(OpenClaims(key, "corp:bob", "srv_a", sealed), "");
  EXPECT_EQ(OpenClaims(key, "corp:ada", "srv_b", sealed), "");
  EXPECT_EQ(OpenClaims(Secret(RandomBytes(32)), "corp:ada", "srv_a", sealed), "");
  for (const std::string& forged : {std::string(), std::string("x"), std::string(kClaims), std::string(1 << 20, 'A')}) {
    EXPECT_EQ(OpenClaims(key, "corp:ada", "srv_a", forged), "");
  }
  ASSERT_OK_AND_ASSIGN(const std::string none, SealClaims(key, "corp:ada", "srv_a", std::string(3000, ' ')));
  EXPECT_EQ(none, "");
}

class ConsentTest : public testing::ClientTestBase {
 protected:
  ConsentTest() {
    registry::v1::McpServer* server = NewServer(kUid, /*interactive=*/true);
    server->set_display_name("Orders");
    server->mutable_app_auth()->mutable_passthrough();
    server->mutable_policy()->add_return_origins("https://chat.example");
    registry::v1::OutboundHeader* header = server->add_outbound_headers();
    header->set_name("X-Obo");
    auto* exchange = header->mutable_on_behalf_of();
    FillClient(kUid, "outbound_headers.x-obo.on_behalf_of.client_secret", exchange);
    exchange->set_exchange_url(provider_.Url("/token"));
    exchange->set_style(registry::v1::OutboundHeader::OnBehalfOf::ENTRA_OBO);
    exchange->add_scopes("api://orders/read");
  }
  absl::StatusOr<v1::ResolveCredentialsResponse> Call(const std::string& subject = "corp:ada") {
    return Ask(kUid, PassportOf(subject, kUid));
  }
  // As authn after a sign-in at the provider.
  void SignIn(const std::string& token, const std::string& consent, const std::string& subject = "corp:ada") {
    Passport passport;
    passport.subject = subject;
    passport.purpose = Passport::Purpose::kSignIn;
    v1::StoreTokensRequest request;
    request.set_connector("corp");
    request.set_access_token(token);
    request.set_refresh_token("idp-refresh");
    request.add_scopes("openid");
    *request.mutable_obtained_at() = ToTimestamp(clock_.Now());
    *request.mutable_expires_at() = ToTimestamp(clock_.Now() + absl::Hours(1));
    request.set_consent_server_uid(consent);
    const auto stub = v1::SignIns::NewStub(brokers_.back()->InProcessChannel("authn"));
    v1::StoreTokensResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), peers_.authn.Sign(passport));
    EXPECT_TRUE(stub->StoreTokens(context.get(), request, &response).ok());
  }
  absl::StatusOr<v1::StartLinkResponse> StartLink(const std::string& uid = "sso:corp", const std::string& claims = "",
                                                  const std::string& subject = "corp:ada") {
    v1::StartLinkRequest request;
    request.set_server_uid(kUid);
    request.set_app_uid(uid);
    request.set_claims(claims);
    request.mutable_call()->set_method("tools/call");
    v1::StartLinkResponse response;
    const auto stub = v1::TokenBroker::NewStub(brokers_.back()->InProcessChannel("edge"));
    const auto context = MakeClientContext(absl::Minutes(1), PassportOf(subject, kUid));
    const grpc::Status status = stub->StartLink(context.get(), request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }
  // Where a link leads on our origin.
  std::string LinkFor(const std::string& claims = "") {
    const absl::StatusOr<v1::StartLinkResponse> link = StartLink("sso:corp", claims);
    EXPECT_TRUE(link.ok()) << link.status();
    return link.ok() ? link->url().substr(std::string(testing::kPublicUrl).size()) : "";
  }
  Passport Visitor(const std::string& subject = "corp:ada") const {
    Passport passport = LinkPassport(subject);
    passport.link_server_uids = {kUid};
    return passport;
  }
  web::v1::WebResponse Open(const std::string& target, const std::string& subject = "corp:ada") {
    return Browse(*brokers_.back(), "GET", target, peers_.authn.Sign(Visitor(subject)));
  }
  static std::string Field(const web::v1::WebResponse& page, const std::string& name) {
    const std::string mark = absl::StrCat("name=\"", name, "\" value=\"");
    const size_t begin = page.body().find(mark);
    if (begin == std::string::npos) return "";
    return page.body().substr(begin + mark.size(), page.body().find('"', begin + mark.size()) - begin - mark.size());
  }
  web::v1::WebResponse Press(const web::v1::WebResponse& page, const std::string& subject = "corp:ada") {
    FormFields form;
    for (const char* name : {"csrf", "consent", "for", "claims", "txn", "return_to"}) {
      if (const std::string value = Field(page, name); !value.empty()) form.emplace_back(name, value);
    }
    return Browse(*brokers_.back(), "POST", "/connect/obo", peers_.authn.Sign(Visitor(subject)), FormEncode(form));
  }
  // The parameters of /login in a page that goes there, or a redirect.
  static std::map<std::string, std::string> LoginOf(std::string text) {
    const size_t begin = text.find("/login?");
    EXPECT_NE(begin, std::string::npos) << text;
    if (begin == std::string::npos) return {};
    text = text.substr(begin + 7, text.find('"', begin) - begin - 7);
    for (size_t at; (at = text.find("&amp;")) != std::string::npos;) text.replace(at, 5, "&");
    return *FormDecodeUnique(text);
  }

  static constexpr char kUid[] = "srv_obo";
};

TEST_F(ConsentTest, WhoSignedInGetsTheLinkAndWhatTheProviderWants) {
  StartBroker();
  SignIn("first", "");
  AnswerNext(400, kRefusal);
  ASSERT_OK_AND_ASSIGN(const auto response, Call());
  EXPECT_THAT(response.pieces(), SizeIs(0));
  EXPECT_EQ(response.link().reason(), v1::LinkRequired::NEEDS_CONSENT);
  EXPECT_EQ(response.link().app_uid(), "sso:corp");
  EXPECT_EQ(response.link().app_display_name(), "corp");
  EXPECT_EQ(response.link().claims(), kClaims);
}

TEST_F(ConsentTest, AfterItTheExchangeIsAskedAgainWithTheNewToken) {
  StartBroker();
  SignIn("first", "");
  AnswerNext(400, kRefusal);
  ASSERT_OK_AND_ASSIGN(const auto before, Call());
  ASSERT_TRUE(before.has_link());
  SignIn("second", kUid);
  ASSERT_OK_AND_ASSIGN(const auto after, Call());
  EXPECT_FALSE(after.has_link());
  ASSERT_THAT(after.pieces(), SizeIs(1));
  EXPECT_THAT(Requests(), SizeIs(2));
  EXPECT_EQ(Requests()[1].form.at("assertion"), "second");
}

TEST_F(ConsentTest, AProviderThatIsNeverContentSendsNobodyRound) {
  StartBroker();
  SignIn("first", kUid);
  AnswerNext(400, kRefusal);
  const auto refused = Call();
  EXPECT_THAT(refused, StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(refused.status()), "interaction_required");
  EXPECT_THAT(refused.status().ToString(), Not(HasSubstr("capolids")));
  clock_for_all_.Advance(kConsentPause);
  AnswerNext(400, kRefusal);
  ASSERT_OK_AND_ASSIGN(const auto later, Call());
  EXPECT_TRUE(later.has_link()) << "it may want something new";
}

TEST_F(ConsentTest, ConsentForAnotherServerDoesNotCount) {
  StartBroker();
  SignIn("first", "srv_other");
  AnswerNext(400, kRefusal);
  ASSERT_OK_AND_ASSIGN(const auto response, Call());
  EXPECT_TRUE(response.has_link());
}

TEST_F(ConsentTest, LinkIsForConsentsThatTheServerNeedsAndTheCallerCanGive) {
  StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto link, StartLink());
  EXPECT_THAT(link.url(), AllOf(StartsWith("https://gw.example.com/connect/obo?for="),
                                HasSubstr("&connector=corp&consent=1"), Not(HasSubstr("claims"))));
  EXPECT_EQ(link.message(), "Agree at the identity provider corp to continue.");
  EXPECT_THAT(link.request_state(), StartsWith("sp1."));
  EXPECT_THAT(StartLink("sso:other"), StatusIs(Code::kNotFound));
  EXPECT_THAT(StartLink("sso:corp", "", "okta:eve"), StatusIs(Code::kNotFound));
  const std::string passport = peers_.authn.Sign(CallPassport());
  v1::StartLinkRequest request;
  request.set_server_uid(kServer);
  request.set_app_uid("sso:corp");
  v1::StartLinkResponse response;
  const auto stub = v1::TokenBroker::NewStub(brokers_.back()->InProcessChannel("edge"));
  EXPECT_EQ(stub->StartLink(MakeClientContext(absl::Minutes(1), passport).get(), request, &response).error_code(),
            grpc::StatusCode::NOT_FOUND)
      << "a server without an exchange";
}

TEST_F(ConsentTest, PageLeadsToTheSignInAndBack) {
  StartBroker();
  const web::v1::WebResponse page = Open(LinkFor(kClaims));
  ASSERT_EQ(page.status(), 200) << page.body();
  EXPECT_THAT(page.body(), AllOf(HasSubstr("Agree at corp"), HasSubstr("Orders"), Not(HasSubstr("capolids"))));
  const web::v1::WebResponse on = Press(page);
  ASSERT_EQ(on.status(), 200) << "no redirect off the origin may follow a form";
  const auto login = LoginOf(on.body());
  EXPECT_EQ(login.at("connector"), "corp");
  EXPECT_EQ(login.at("consent"), "obo");
  EXPECT_EQ(login.at("claims"), kClaims);
  EXPECT_EQ(login.at("return_to"), "/connect/obo/done?consent=1");

  EXPECT_THAT(Open("/connect/obo/done?consent=1").body(), HasSubstr("You have not agreed"));
  SignIn("second", kUid);
  EXPECT_THAT(Open("/connect/obo/done?consent=1").body(), HasSubstr("You have agreed"));
}

TEST_F(ConsentTest, PageGoesBackToTheTransactionOfAuthn) {
  StartBroker();
  const auto login = LoginOf(Press(Open("/connect/obo?consent=1&txn=t1")).body());
  EXPECT_EQ(login.at("return_to"), "/oauth/continue?txn=t1");
  EXPECT_EQ(login.count("claims"), 0U);
}

TEST_F(ConsentTest, ChatThatIsAllowedIsReturnedToWithoutAPageOfOurs) {
  StartBroker();
  const std::string chat = "&return_to=https%3A%2F%2Fchat.example%2Fc%2F1";
  const web::v1::WebResponse gone = Open(LinkFor(kClaims) + chat);
  ASSERT_EQ(gone.status(), 302) << gone.body();
  const auto login = LoginOf(HeaderOf(gone, "location"));
  EXPECT_EQ(login.at("claims"), kClaims);
  EXPECT_EQ(login.at("return_to"), "/connect/obo/done?consent=1&return_to=https%3A%2F%2Fchat.example%2Fc%2F1");
  EXPECT_EQ(HeaderOf(Open(login.at("return_to")), "location"), "https://chat.example/c/1");
  SignIn("second", kUid);
  EXPECT_EQ(HeaderOf(Open(LinkFor() + chat), "location"), "https://chat.example/c/1") << "nothing is left to agree to";
  for (const char* target : {"/connect/obo?consent=1&return_to=https%3A%2F%2Fevil.example",
                             "/connect/obo/done?consent=1&return_to=https%3A%2F%2Fevil.example"}) {
    EXPECT_EQ(Open(target).status(), 400) << target;
  }
  EXPECT_EQ(Open("/connect/obo?consent=1" + chat).status(), 200) << "without a ticket there is a page";
}

TEST_F(ConsentTest, LinksOfOthersAndFormsOfOtherSitesLeadNowhere) {
  StartBroker();
  const std::string link = LinkFor(kClaims);
  const web::v1::WebResponse stranger = Open(link, "corp:bob");
  EXPECT_EQ(stranger.status(), 403);
  EXPECT_THAT(stranger.body(), HasSubstr("link_user_mismatch"));
  const web::v1::WebResponse page = Open(link);
  EXPECT_EQ(Press(page, "corp:bob").status(), 403);
  const std::string ada = peers_.authn.Sign(Visitor());
  const std::string form = absl::StrCat("consent=1&csrf=", PercentEncode(Field(page, "csrf")));
  EXPECT_EQ(Browse(*brokers_.back(), "POST", "/connect/obo", ada, form, {{"origin", "https://evil.example"}}).status(),
            403);
  EXPECT_EQ(Browse(*brokers_.back(), "POST", "/connect/obo", ada, "consent=1").status(), 403);
  Passport not_for_her = Visitor();
  not_for_her.link_server_uids.clear();
  const std::string outsider = peers_.authn.Sign(not_for_her);
  EXPECT_EQ(Browse(*brokers_.back(), "GET", "/connect/obo?consent=1", outsider).status(), 403);
  clock_for_all_.Advance(absl::Minutes(11));
  EXPECT_EQ(Open(link).status(), 410);
}

TEST_F(ConsentTest, ClaimsThatWereNotSealedForThisPersonAreDropped) {
  StartBroker();
  const std::string link = LinkFor(kClaims);
  const std::string sealed = link.substr(link.find("&claims="));
  const auto bob = LoginOf(Press(Open("/connect/obo?consent=1" + sealed, "corp:bob"), "corp:bob").body());
  EXPECT_EQ(bob.count("claims"), 0U);
  const auto forged = LoginOf(Press(Open("/connect/obo?consent=1&claims=%7B%7D")).body());
  EXPECT_EQ(forged.count("claims"), 0U);
  EXPECT_THAT(LinkFor(std::string(5000, '{')), Not(HasSubstr("claims")));
}

TEST_F(ConsentTest, ServerWithoutAnExchangeHasNoSuchPage) {
  StartBroker();
  EXPECT_EQ(Browse(*brokers_.back(), "GET", "/connect/gh?consent=1", peers_.authn.Sign(LinkPassport())).status(), 404);
}

}  // namespace
}  // namespace sallyport::token_broker

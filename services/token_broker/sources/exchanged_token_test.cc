// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/exchanged_token.h"

#include "common/error.h"
#include "common/text/base64url.h"
#include "services/token_broker/testing/client_test_base.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using Code = absl::StatusCode;

std::string Jwt(const std::string& claims) {
  return absl::StrCat("e30.", Base64UrlEncode("{" + claims + "}"), ".c2ln");
}

class ExchangedTokenTest : public testing::ClientTestBase {
 protected:
  ExchangedTokenTest() {
    registry::v1::McpServer* server = NewServer(kUid, /*interactive=*/true);
    server->mutable_app_auth()->mutable_passthrough();
    header_ = server->add_outbound_headers();
    header_->set_name("X-Obo");
    header_->set_prefix("Bearer ");
    exchange_ = header_->mutable_on_behalf_of();
    FillClient(kUid, "outbound_headers.x-obo.on_behalf_of.client_secret", exchange_);
    exchange_->set_exchange_url(provider_.Url("/token"));
    exchange_->set_audience("https://down.example");
  }
  // As the edge asks for a caller with the identity provider's own token.
  absl::StatusOr<v1::ResolveCredentialsResponse> AskWith(const std::string& token,
                                                         const std::string& subject = "corp:ada") {
    v1::ResolveCredentialsRequest request;
    request.set_presented_token(token);
    return Ask(kUid, PassportWithoutSession(subject, kUid), request);
  }
  static std::string ValueOf(const absl::StatusOr<v1::ResolveCredentialsResponse>& response) {
    if (!response.ok()) return absl::StrCat(ReasonOf(response.status()), " ", response.status().message());
    return response->pieces_size() == 1 ? response->pieces(0).value() : "?";
  }
  void AnswerWith(const std::string& token, const std::string& more = "") {
    AnswerNext(200,
               absl::StrCat(R"({"access_token":")", token, R"(","token_type":"Bearer","expires_in":3600)", more, "}"));
  }

  static constexpr char kUid[] = "srv_obo";
  registry::v1::OutboundHeader* header_;
  registry::v1::OutboundHeader::OnBehalfOf* exchange_;
};

TEST_F(ExchangedTokenTest, APresentedTokenIsExchanged) {
  exchange_->add_scopes("read");
  exchange_->set_resource("https://res");
  exchange_->set_requested_token_type("urn:ietf:params:oauth:token-type:jwt");
  StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto response, AskWith("token-of-ada"));
  ASSERT_THAT(response.pieces(), SizeIs(1));
  EXPECT_EQ(response.pieces(0).value(), "Bearer token-exchange-1");
  EXPECT_EQ(response.pieces(0).scope(), v1::TOKEN);
  EXPECT_TRUE(response.pieces(0).renewable());
  EXPECT_THAT(Requests()[0].form,
              UnorderedElementsAre(Pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
                                   Pair("subject_token", "token-of-ada"),
                                   Pair("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
                                   Pair("requested_token_type", "urn:ietf:params:oauth:token-type:jwt"),
                                   Pair("audience", "https://down.example"), Pair("resource", "https://res"),
                                   Pair("scope", "read"), Pair("client_id", "me"), Pair("client_secret", "s3cret")));
}

TEST_F(ExchangedTokenTest, OfThoseWhoSignedInItIsTheProvidersTokenAndNeverOurs) {
  PutConnection("corp:ada", "sso:corp", absl::Minutes(1), absl::Hours(1));
  StartBroker();
  EXPECT_EQ(ValueOf(Ask(kUid, PassportOf("corp:ada", kUid))), "Bearer token-exchange-1");
  EXPECT_EQ(Requests()[0].form.at("subject_token"), "at0-of-corp:ada");
  const auto bob = Ask(kUid, PassportOf("corp:bob", kUid));
  EXPECT_THAT(bob, StatusIs(Code::kFailedPrecondition)) << "nothing is kept of his sign-in";
  EXPECT_THAT(Requests(), SizeIs(1));
}

TEST_F(ExchangedTokenTest, EntraHasAFormOfItsOwn) {
  exchange_->set_style(registry::v1::OutboundHeader::OnBehalfOf::ENTRA_OBO);
  exchange_->clear_audience();
  exchange_->add_scopes("api://down/.default");
  StartBroker();
  EXPECT_EQ(ValueOf(AskWith("token-of-ada")), "Bearer jwt-bearer-1");
  EXPECT_THAT(Requests()[0].form,
              UnorderedElementsAre(Pair("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"),
                                   Pair("assertion", "token-of-ada"), Pair("requested_token_use", "on_behalf_of"),
                                   Pair("scope", "api://down/.default"), Pair("client_id", "me"),
                                   Pair("client_secret", "s3cret")));
}

TEST_F(ExchangedTokenTest, TheGatewaysOwnTokenGoesAsActor) {
  exchange_->set_actor_token(true);
  StartBroker();
  EXPECT_EQ(ValueOf(AskWith("token-of-ada")), "Bearer token-exchange-2");
  EXPECT_EQ(Requests()[0].form.at("grant_type"), "client_credentials");
  EXPECT_EQ(Requests()[1].form.at("actor_token"), "client_credentials-1");
  EXPECT_EQ(Requests()[1].form.at("actor_token_type"), "urn:ietf:params:oauth:token-type:access_token");
  EXPECT_EQ(ValueOf(AskWith("token-of-bob", "corp:bob")), "Bearer token-exchange-3") << "one actor serves all";
}

// X7: what differs in anything is another token.
TEST_F(ExchangedTokenTest, X7_IsKeptForOneTokenOfOneCallerForOneConfiguration) {
  auto* second = NewServer("srv_second", true);
  second->mutable_app_auth()->mutable_passthrough();
  *second->add_outbound_headers() = *header_;
  second->mutable_outbound_headers(0)->mutable_on_behalf_of()->set_audience("https://other.example");
  auto* third = second->add_outbound_headers();
  *third = *header_;
  third->set_name("X-Third");
  third->mutable_on_behalf_of()->add_scopes("more");
  Bind("srv_second", {kOrigin});
  StartBroker();
  const std::string first = ValueOf(AskWith("token-a"));
  EXPECT_EQ(ValueOf(AskWith("token-a")), first);
  EXPECT_NE(ValueOf(AskWith("token-b")), first) << "another token of theirs";
  EXPECT_NE(ValueOf(AskWith("token-a", "corp:bob")), first) << "another caller";
  v1::ResolveCredentialsRequest request;
  request.set_presented_token("token-a");
  ASSERT_OK_AND_ASSIGN(const auto both, Ask("srv_second", PassportWithoutSession("corp:ada", "srv_second"), request));
  ASSERT_THAT(both.pieces(), SizeIs(2));
  EXPECT_NE(both.pieces(0).value(), first);
  EXPECT_NE(both.pieces(1).value(), both.pieces(0).value());
  EXPECT_THAT(Requests(), SizeIs(5));
}

TEST_F(ExchangedTokenTest, NeverOutlivesTheTokenItWasGivenFor) {
  const absl::Time end = clock_for_all_.Now() + absl::Minutes(10);
  StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto response, AskWith(Jwt(absl::StrCat(R"("exp":)", absl::ToUnixSeconds(end)))));
  EXPECT_LE(response.pieces(0).expires_at().seconds(), absl::ToUnixSeconds(end));
  EXPECT_GT(response.pieces(0).expires_at().seconds(), absl::ToUnixSeconds(end) - 61);
}

TEST_F(ExchangedTokenTest, X5_AnAnswerForAnotherPersonOrOfAnotherTypeGoesNowhereAndIsNotKept) {
  exchange_->set_requested_token_type("urn:ietf:params:oauth:token-type:jwt");
  StartBroker();
  const std::string mine = Jwt(R"("iss":"https://idp","sub":"ada")");
  const auto refused = [&](const std::string& body_token, const std::string& more, const std::string& with) {
    AnswerWith(body_token, more);
    const std::string value = ValueOf(AskWith(with));
    clock_for_all_.Advance(absl::Minutes(2));
    return value;
  };
  EXPECT_THAT(refused(Jwt(R"("iss":"https://idp","sub":"eve")"), "", mine), HasSubstr("exchange_response_invalid"));
  EXPECT_THAT(refused("x", R"(,"issued_token_type":"urn:ietf:params:oauth:token-type:saml2")", mine),
              HasSubstr("exchange_response_invalid"));
  AnswerNext(200, R"({"access_token":"x","token_type":"N_A","issued_token_type":"urn:x"})");
  EXPECT_THAT(ValueOf(AskWith(mine)), HasSubstr("exchange_response_invalid")) << "no token for Authorization";
  clock_for_all_.Advance(absl::Minutes(2));
  EXPECT_THAT(refused(Jwt(R"("oid":"2")"), "", Jwt(R"("oid":"1","sub":"x")")), HasSubstr("exchange_response_invalid"));
  EXPECT_THAT(refused(Jwt(R"("iss":"https://idp","oid":"1","sub":"pairwise2")"), "",
                      Jwt(R"("iss":"https://idp","oid":"1","sub":"pairwise1")")),
              HasSubstr("Bearer e30."))
      << "one person, named in two ways";
  EXPECT_THAT(refused(Jwt(R"("iss":"https://down","sub":"other-name")"), "", mine), HasSubstr("Bearer e30."))
      << "another issuer has names of its own";
}

TEST_F(ExchangedTokenTest, X6_ATokenOfAnApplicationIsNamedAsSuch) {
  exchange_->set_style(registry::v1::OutboundHeader::OnBehalfOf::ENTRA_OBO);
  exchange_->add_scopes("api://down/.default");
  StartBroker();
  for (const char* claims : {R"("idtyp":"app","oid":"1","sub":"2")", R"("oid":"1","sub":"1","roles":["x"])"}) {
    EXPECT_THAT(ValueOf(AskWith(Jwt(claims))), HasSubstr("app_only_token")) << claims;
  }
  EXPECT_THAT(Requests(), SizeIs(0));
  EXPECT_THAT(ValueOf(AskWith(Jwt(R"("oid":"1","sub":"2","scp":"read")"))), HasSubstr("Bearer jwt-bearer-1"));
}

TEST_F(ExchangedTokenTest, RefusalsReachTheCallerInWords) {
  StartBroker();
  const auto said = [&](int status, const std::string& body) {
    AnswerNext(status, body);
    const std::string value = ValueOf(AskWith("token-of-ada"));
    clock_for_all_.Advance(absl::Minutes(2));
    return value;
  };
  EXPECT_THAT(said(400, R"({"error":"interaction_required","claims":"x"})"),
              HasSubstr("interaction_required 127.0.0.1 wants something of you"));
  EXPECT_THAT(said(400, R"({"error":"consent_required"})"), HasSubstr("interaction_required"));
  EXPECT_THAT(said(400, R"({"error":"invalid_grant"})"), HasSubstr("token_refused"));
  EXPECT_THAT(said(400, R"({"error":"invalid_target"})"), HasSubstr("token_refused"));
  EXPECT_THAT(said(401, R"({"error":"invalid_client"})"), HasSubstr("provider_rejects_client"));
  EXPECT_THAT(said(500, "oops"), HasSubstr("provider_unavailable"));
}

// Whoever brings a token of their own agrees where they got it; who signed in here gets the link (ConsentTest).
TEST_F(ExchangedTokenTest, WhatTheProviderWantsOfAPresentedTokensOwnerIsSaidWithoutItsClaims) {
  StartBroker();
  AnswerNext(400, R"({"error":"invalid_grant","suberror":"consent_required","claims":"{\"c1\":1}"})");
  const auto response = AskWith("token-of-ada");
  EXPECT_EQ(ReasonOf(response.status()), "interaction_required");
  EXPECT_THAT(response.status().ToString(), Not(HasSubstr("c1")));
}

TEST_F(ExchangedTokenTest, AnActorThatIsRefusedIsNobodysConsent) {
  exchange_->set_actor_token(true);
  PutConnection("corp:ada", "sso:corp", absl::Minutes(1), absl::Hours(1));
  StartBroker();
  AnswerNext(400, R"({"error":"interaction_required"})");
  EXPECT_EQ(ReasonOf(Ask(kUid, PassportOf("corp:ada", kUid)).status()), "interaction_required");
}

TEST_F(ExchangedTokenTest, WhoIsNotKnownGetsNoPieceOfTheirs) {
  StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto response, Ask(kUid));
  EXPECT_THAT(response.pieces(), SizeIs(0)) << "the edge admits nobody unknown here";
  EXPECT_THAT(Requests(), SizeIs(0));
}

TEST_F(ExchangedTokenTest, WithoutATokenOrWithTheBindingElsewhereNothingIsAsked) {
  StartBroker();
  EXPECT_THAT(AskWith(""), StatusIs(Code::kUnauthenticated));
  peers_.vault.SetAdopted(true);
  auto* moved = NewServer("srv_moved", true);
  moved->mutable_app_auth()->mutable_passthrough();
  *moved->add_outbound_headers() = *header_;
  Bind("srv_moved", {"https://elsewhere.example"});
  StartBroker();
  v1::ResolveCredentialsRequest request;
  request.set_presented_token("token-of-ada");
  const auto response = Ask("srv_moved", PassportWithoutSession("corp:ada", "srv_moved"), request);
  EXPECT_EQ(ReasonOf(response.status()), "origin_not_allowed");
  EXPECT_THAT(Requests(), SizeIs(0));
}

}  // namespace
}  // namespace sallyport::token_broker

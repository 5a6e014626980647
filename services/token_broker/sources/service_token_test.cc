// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/service_token.h"

#include "common/error.h"
#include "common/jose/assertion_key.h"
#include "common/jose/jws.h"
#include "common/text/base64url.h"
#include "common/text/json.h"
#include "services/token_broker/testing/client_test_base.h"
#include "tests/testing/redis.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using Code = absl::StatusCode;

class ServiceTokenTest : public testing::ClientTestBase {
 protected:
  ServiceTokenTest() {
    auto* credentials = NewServer(kUid)->mutable_app_auth()->mutable_client_credentials();
    FillClient(kUid, "app_auth.client_credentials.client_secret", credentials);
    credentials->set_token_url(provider_.Url("/token"));
    credentials->add_scopes("read");
    credentials->add_scopes("write");
    credentials_ = credentials;
  }
  static std::string ValueOf(const absl::StatusOr<v1::ResolveCredentialsResponse>& response) {
    if (!response.ok()) return absl::StrCat(ReasonOf(response.status()), " ", response.status().message());
    return response->pieces_size() == 1 ? response->pieces(0).value() : "?";
  }
  v1::ResolveCredentialsRequest AfterRefusalOf(const v1::ResolveCredentialsResponse& response) {
    v1::ResolveCredentialsRequest request;
    for (const auto& piece : response.pieces()) {
      auto& refused = *request.add_refused_pieces();
      refused.set_piece(piece.piece());
      refused.set_version(piece.version());
    }
    return request;
  }

  static constexpr char kUid[] = "srv_cc";
  registry::v1::AppAuth::ClientCredentials* credentials_;
};

TEST_F(ServiceTokenTest, IsAskedForOnceAndGoesOutForAnybody) {
  StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto response, Ask(kUid));
  ASSERT_THAT(response.pieces(), SizeIs(1));
  const auto& piece = response.pieces(0);
  EXPECT_EQ(piece.value(), "Bearer client_credentials-1");
  EXPECT_EQ(piece.scope(), v1::ORG);
  EXPECT_EQ(piece.uid(), kUid);
  EXPECT_TRUE(piece.renewable());
  EXPECT_GT(piece.version(), 0);
  EXPECT_TRUE(piece.has_expires_at() && piece.has_renew_at());
  EXPECT_EQ(ValueOf(Ask(kUid, PassportOf("corp:ada", kUid))), "Bearer client_credentials-1");
  ASSERT_THAT(Requests(), SizeIs(1));
  EXPECT_THAT(Requests()[0].form,
              UnorderedElementsAre(Pair("grant_type", "client_credentials"), Pair("scope", "read write"),
                                   Pair("client_id", "me"), Pair("client_secret", "s3cret")));
}

TEST_F(ServiceTokenTest, CarriesWhatItsConfigurationSays) {
  credentials_->set_client_auth(registry::v1::BASIC);
  credentials_->set_audience("https://api");
  credentials_->set_resource("https://res");
  (*credentials_->mutable_token_params())["tenant"] = "t1";
  credentials_->clear_scopes();
  StartBroker();
  ASSERT_THAT(Ask(kUid), IsOk());
  EXPECT_EQ(Requests()[0].authorization, "Basic " + Base64Encode("me:s3cret"));
  EXPECT_THAT(Requests()[0].form,
              UnorderedElementsAre(Pair("grant_type", "client_credentials"), Pair("audience", "https://api"),
                                   Pair("resource", "https://res"), Pair("tenant", "t1")));
}

TEST_F(ServiceTokenTest, ProvesItselfByAnAssertionForThatEndpointAlone) {
  ASSERT_OK_AND_ASSIGN(const Secret pem, AssertionKey::GeneratePem());
  credentials_->set_client_auth(registry::v1::PRIVATE_KEY_JWT);
  SetSecret(credentials_->mutable_private_key(), "srv_cc/app_auth.client_credentials.private_key",
            std::string(pem.Expose()));
  StartBroker();
  ASSERT_THAT(Ask(kUid), IsOk());
  const auto form = Requests()[0].form;
  EXPECT_EQ(form.count("client_secret"), 0U);
  EXPECT_EQ(form.at("client_assertion_type"), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
  ASSERT_OK_AND_ASSIGN(const AssertionKey key, AssertionKey::FromPem(pem));
  ASSERT_OK_AND_ASSIGN(const Jws jws, VerifyJws(form.at("client_assertion"), JwkSet({key.public_key()})));
  ASSERT_OK_AND_ASSIGN(const auto claims, ParseJsonObject(jws.payload));
  EXPECT_EQ(JsonString(claims, "iss"), "me");
  EXPECT_EQ(JsonString(claims, "sub"), "me");
  EXPECT_EQ(JsonString(claims, "aud"), provider_.Url("/token"));
  EXPECT_TRUE(JsonString(claims, "jti").has_value());
  EXPECT_EQ(claims["exp"].get<int64_t>() - claims["iat"].get<int64_t>(), 120);
}

TEST_F(ServiceTokenTest, AKeyGoesByTheIdThatTheProviderGaveIt) {
  ASSERT_OK_AND_ASSIGN(const Secret pem, AssertionKey::GeneratePem());
  credentials_->set_client_auth(registry::v1::PRIVATE_KEY_JWT);
  credentials_->set_key_id("kid-7");
  SetSecret(credentials_->mutable_private_key(), "srv_cc/app_auth.client_credentials.private_key",
            std::string(pem.Expose()));
  StartBroker();
  ASSERT_THAT(Ask(kUid), IsOk());
  ASSERT_OK_AND_ASSIGN(const AssertionKey key, AssertionKey::FromPem(pem));
  ASSERT_OK_AND_ASSIGN(const Jws jws, ParseJws(Requests()[0].form.at("client_assertion")));
  EXPECT_EQ(jws.kid, "kid-7");
  EXPECT_THAT(key.public_key().Verify(jws.algorithm, jws.signing_input, jws.signature), IsOk());
}

TEST_F(ServiceTokenTest, SeveralOfOneServerAreSeveralTokens) {
  auto* server = NewServer("srv_two");
  server->mutable_app_auth()->mutable_passthrough();
  for (const char* name : {"X-A", "X-B"}) {
    auto* header = server->add_outbound_headers();
    header->set_name(name);
    header->set_prefix("Bearer ");
    auto* token = header->mutable_oauth2_service_token();
    token->set_client_id("me");
    SetSecret(token->mutable_client_secret(), absl::StrCat("srv_two/", name), "s");
    token->set_token_url(provider_.Url("/token"));
    token->add_scopes(name);
  }
  Bind("srv_two", {kOrigin});
  StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto response, Ask("srv_two"));
  ASSERT_THAT(response.pieces(), SizeIs(2));
  EXPECT_NE(response.pieces(0).value(), response.pieces(1).value());
  EXPECT_EQ(response.pieces(0).piece(), "outbound_headers[x-a]");
}

TEST_F(ServiceTokenTest, ARefusedOneIsFetchedAnewOnce) {
  StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto first, Ask(kUid));
  ASSERT_OK_AND_ASSIGN(const auto second, Ask(kUid, "", AfterRefusalOf(first)));
  EXPECT_EQ(second.pieces(0).value(), "Bearer client_credentials-2");
  EXPECT_THAT(ValueOf(Ask(kUid, "", AfterRefusalOf(second))), HasSubstr("credential_refused"));
  EXPECT_THAT(Requests(), SizeIs(2));
}

TEST_F(ServiceTokenTest, WhatTheEndpointRefusesIsSaidInWordsThatQuoteNothing) {
  StartBroker();
  const auto said = [&](int status, const std::string& body) {
    AnswerNext(status, body);
    const std::string words = ValueOf(Ask(kUid));
    clock_for_all_.Advance(absl::Minutes(2));
    EXPECT_THAT(words, ::testing::Not(HasSubstr("canary")));
    return words;
  };
  EXPECT_THAT(said(400, R"({"error":"invalid_scope","error_description":"canary"})"),
              HasSubstr("token_refused 127.0.0.1 refuses to give a token for this server (invalid_scope)"));
  EXPECT_THAT(said(401, R"({"error":"invalid_client"})"), HasSubstr("provider_rejects_client"));
  EXPECT_THAT(said(503, "<html>canary</html>"), HasSubstr("provider_unavailable"));
  EXPECT_THAT(said(200, R"({"access_token":"x","token_type":"N_A"})"), HasSubstr("token_refused"));
  EXPECT_THAT(said(200, R"({"access_token":"x\r\nY: z","token_type":"Bearer"})"), HasSubstr("provider_unavailable"));
  EXPECT_THAT(ValueOf(Ask(kUid)), HasSubstr("Bearer client_credentials-")) << "it passed";
}

// Who writes the registry's database points either end elsewhere: the secret goes nowhere but where it was entered for,
// and what is got with it nowhere but where an administrator said.
TEST_F(ServiceTokenTest, NeitherEndCanBePointedElsewhere) {
  testing::HttpProvider thief([this](const testing::HttpProvider::Request& request) { return Answer(request); });
  const auto copy = [&](const std::string& uid) {
    registry::v1::McpServer* server = NewServer(uid);
    *server->mutable_app_auth()->mutable_client_credentials() = *credentials_;
    Bind(uid, {kOrigin});
    return server;
  };
  copy("srv_token")->mutable_app_auth()->mutable_client_credentials()->set_token_url(thief.Url("/token"));
  copy("srv_upstream")->set_upstream_url(thief.Url("/mcp"));
  copy("srv_same");
  peers_.vault.SetAdopted(true);
  StartBroker();
  v1::ResolveCredentialsRequest to_thief;
  to_thief.set_upstream_origin(Url::Parse(thief.Url("/"))->origin());
  for (const auto& response : {Ask("srv_token"), Ask("srv_upstream", "", to_thief), Ask("srv_upstream")}) {
    EXPECT_THAT(response, StatusIs(Code::kPermissionDenied));
    EXPECT_EQ(ReasonOf(response.status()), "origin_not_allowed");
  }
  EXPECT_THAT(Requests(), SizeIs(0));
  EXPECT_THAT(ValueOf(Ask("srv_same")), HasSubstr("Bearer client_credentials-"));
}

TEST_F(ServiceTokenTest, WithoutASecretOrWithoutTheVaultNothingTakesItsPlace) {
  credentials_->clear_client_secret();
  auto* other = NewServer("srv_down")->mutable_app_auth()->mutable_client_credentials();
  FillClient("srv_down", "app_auth.client_credentials.client_secret", other);
  other->set_token_url(provider_.Url("/token"));
  StartBroker();
  EXPECT_THAT(ValueOf(Ask(kUid)), HasSubstr("credential_missing"));
  peers_.vault.SetDown(true);
  EXPECT_THAT(Ask("srv_down"), StatusIs(Code::kUnavailable));
  EXPECT_THAT(Requests(), SizeIs(0));
}

TEST_F(ServiceTokenTest, ReplicasShareItThroughRedisWhereNobodyCanReadIt) {
  ASSERT_OK_AND_ASSIGN(auto redis, ::sallyport::testing::TestRedis::Start());
  redis_address_ = redis->address();
  StartBroker();
  const std::string first = ValueOf(Ask(kUid));
  StartBroker();
  EXPECT_EQ(ValueOf(Ask(kUid)), first);
  EXPECT_THAT(Requests(), SizeIs(1));
}

}  // namespace
}  // namespace sallyport::token_broker

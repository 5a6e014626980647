// SPDX-License-Identifier: Apache-2.0
#include "services/authn/connectors.h"

#include "absl/strings/str_replace.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/crypto/crypto.h"
#include "common/text/base64url.h"
#include "services/authn/authn_testing.h"
#include "services/authn/errors.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);
constexpr char kIssuer[] = "https://idp.example";

class ConnectorsTest : public ::testing::Test {
 protected:
  ConnectorsTest() : idp_(kIssuer), jwks_(fetcher_) {
    fetcher_.Serve(std::string(kIssuer) + "/.well-known/openid-configuration", idp_.Discovery());
    fetcher_.Serve(std::string(kIssuer) + "/jwks", idp_.Jwks());
    config::v1::Connector& config = *config_.Add();
    config.set_id("corp");
    config.mutable_oidc()->set_issuer(kIssuer);
    config.mutable_oidc()->set_client_id("client");
  }

  const Connector& Corp() {
    auto made = Connectors::Create(config_, jwks_, vault_);
    EXPECT_THAT(made, IsOk());
    connectors_ = *std::move(made);
    return *connectors_->Find("corp");
  }
  absl::Status Refusal(const std::string& token) {
    return Corp().VerifyPresented(token, {{"api://mcp"}, {}}, kNow).status();
  }
  std::string IdToken(const nlohmann::json& change = nlohmann::json::object()) {
    nlohmann::json claims = {{"aud", "client"}, {"nonce", "n"}};
    claims.update(change);
    return idp_.Token(kNow, claims, "JWT");
  }

  TestIssuer idp_;
  FakeFetcher fetcher_;
  JwksCache jwks_;
  FakeVaultClient vault_;
  google::protobuf::RepeatedPtrField<config::v1::Connector> config_;
  std::unique_ptr<Connectors> connectors_;
};

TEST_F(ConnectorsTest, TakesAGoodAccessToken) {
  const std::string token = idp_.Token(kNow, {{"email", "a@x.example"},
                                              {"email_verified", true},
                                              {"groups", {"g1", "g2"}},
                                              {"client_id", "bot"},
                                              {"scope", "a b"}});

  ASSERT_OK_AND_ASSIGN(AcceptedToken accepted, Corp().VerifyPresented(token, {{"api://mcp"}, {}}, kNow));

  EXPECT_EQ(accepted.identity.subject, "corp:ann");
  EXPECT_EQ(accepted.identity.issuer, kIssuer);
  EXPECT_TRUE(accepted.identity.email_verified);
  EXPECT_THAT(accepted.identity.groups, ElementsAre("g1", "g2"));
  EXPECT_EQ(accepted.client_id, "bot");
  EXPECT_THAT(accepted.scopes, ElementsAre("a", "b"));
  EXPECT_EQ(accepted.kind, AcceptedKind::kAccessToken);
  EXPECT_EQ(accepted.expires_at, kNow + absl::Hours(1));
}

struct BadClaim {
  const char* name;
  const char* change;
};
class BadClaimTest : public ConnectorsTest, public ::testing::WithParamInterface<BadClaim> {};
TEST_P(BadClaimTest, IsRefused) {
  const std::string token = idp_.Token(kNow, nlohmann::json::parse(GetParam().change));
  EXPECT_THAT(Refusal(token), StatusIs(absl::StatusCode::kUnauthenticated)) << GetParam().change;
}
INSTANTIATE_TEST_SUITE_P(
    Jwt, BadClaimTest,
    ::testing::Values(BadClaim{"IssuerWithSlash", R"({"iss":"https://idp.example/"})"},
                      BadClaim{"IssuerInOtherCase", R"({"iss":"https://IDP.example"})"},
                      BadClaim{"OtherIssuer", R"({"iss":"https://other.example"})"},
                      BadClaim{"IssuerTemplate", R"({"iss":"https://idp.example/{tenantid}"})"},
                      BadClaim{"NoIssuer", R"({"iss":null})"}, BadClaim{"OtherAudience", R"({"aud":"api://other"})"},
                      BadClaim{"AudiencePrefix", R"({"aud":"api://mcp/more"})"},
                      BadClaim{"ShorterAudience", R"({"aud":"api://mc"})"}, BadClaim{"NoAudience", R"({"aud":null})"},
                      BadClaim{"EmptyAudience", R"({"aud":[]})"}, BadClaim{"AudienceNumber", R"({"aud":7})"},
                      BadClaim{"AudienceListWithout", R"({"aud":["a","b"]})"}, BadClaim{"NoExpiry", R"({"exp":null})"},
                      BadClaim{"Expired", R"({"exp":1799999969})"}, BadClaim{"ExpiresNow", R"({"exp":1800000000})"},
                      BadClaim{"NegativeExpiry", R"({"exp":-1})"},
                      BadClaim{"FractionalExpiry", R"({"exp":1800003600.5})"},
                      BadClaim{"AbsurdExpiry", R"({"exp":1e30})"}, BadClaim{"ExpiryString", R"({"exp":"1800003600"})"},
                      BadClaim{"NotYet", R"({"nbf":1800000031})"}, BadClaim{"IssuedInAnHour", R"({"iat":1800003600})"},
                      BadClaim{"NoSubject", R"({"sub":null})"}, BadClaim{"EmptySubject", R"({"sub":""})"},
                      BadClaim{"SubjectList", R"({"sub":["ann"]})"}, BadClaim{"SubjectNumber", R"({"sub":7})"},
                      BadClaim{"SubjectWithNewline", R"({"sub":"a\nb"})"},
                      BadClaim{"BoundToAKey", R"({"cnf":{"jkt":"x"}})"}, BadClaim{"LogoutToken", R"({"events":{}})"},
                      BadClaim{"IdTokenByNonce", R"({"nonce":"n"})"}, BadClaim{"IdTokenByHash", R"({"at_hash":"x"})"}),
    [](const auto& test) { return test.param.name; });

class BadTypeTest : public ConnectorsTest, public ::testing::WithParamInterface<const char*> {};
TEST_P(BadTypeTest, IsRefusedWhereAnAccessTokenIsWanted) {
  EXPECT_THAT(Refusal(idp_.Token(kNow, {}, GetParam())), StatusIs(absl::StatusCode::kUnauthenticated));
}
INSTANTIATE_TEST_SUITE_P(Jwt, BadTypeTest, ::testing::Values("id+jwt", "logout+jwt", "dpop+jwt", "secevent+jwt"));

TEST_F(ConnectorsTest, RefusesATokenWhoseSignatureIsAnothersKey) {
  const TestIssuer attacker(kIssuer);
  EXPECT_THAT(Refusal(attacker.Token(kNow)), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(ConnectorsTest, RefusesAlteredTokens) {
  const std::string token = idp_.Token(kNow);
  const std::string none = Base64UrlEncode(R"({"alg":"none","typ":"at+jwt"})");
  const std::string payload = token.substr(token.find('.'), token.rfind('.') - token.find('.'));

  EXPECT_THAT(Refusal(token + "."), StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(Refusal(token + "A"), StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(Refusal(token.substr(0, token.rfind('.') + 1)), StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(Refusal(none + payload + "."), StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(Refusal(token.substr(0, token.size() - 1)), StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(Refusal(absl::StrReplaceAll(token, {{".", "=."}})), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(ConnectorsTest, RefusesATokenOver8KiB) {
  EXPECT_THAT(Refusal(idp_.Token(kNow, {{"x", std::string(8200, 'a')}})), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(ConnectorsTest, RequiredClaimsMustHaveExactlyTheirValue) {
  const TokenRule rule = {{"api://mcp"}, {{"tenant", "t1"}}};

  EXPECT_THAT(Corp().VerifyPresented(idp_.Token(kNow, {{"tenant", "t1"}}), rule, kNow), IsOk());
  EXPECT_THAT(Corp().VerifyPresented(idp_.Token(kNow, {{"tenant", {"t0", "t1"}}}), rule, kNow), IsOk());
  for (const nlohmann::json& other : std::vector<nlohmann::json>{"t2", "t11", "T1", 1, nullptr}) {
    EXPECT_THAT(Corp().VerifyPresented(idp_.Token(kNow, {{"tenant", other}}), rule, kNow),
                StatusIs(absl::StatusCode::kUnauthenticated));
  }
}

TEST_F(ConnectorsTest, AnIdTokenIsTakenOnlyByAConnectorThatAcceptsThem) {
  const std::string id_token = idp_.Token(kNow, {{"nonce", "n"}}, "JWT");
  EXPECT_THAT(Refusal(id_token), StatusIs(absl::StatusCode::kUnauthenticated));

  config_[0].mutable_oidc()->add_accept(config::v1::OidcConnector::ID_TOKEN);
  ASSERT_OK_AND_ASSIGN(AcceptedToken accepted, Corp().VerifyPresented(id_token, {{"api://mcp"}, {}}, kNow));
  EXPECT_EQ(accepted.kind, AcceptedKind::kIdToken);
  EXPECT_THAT(Refusal(idp_.Token(kNow)), StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(Refusal(idp_.Token(kNow, {{"scope", "x"}}, "JWT")), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(ConnectorsTest, EachTokenKindHasItsOwnSubjectClaim) {
  config_[0].mutable_oidc()->set_access_token_subject_claim("uid");
  config_[0].mutable_oidc()->set_id_token_subject_claim("tid+oid");

  ASSERT_OK_AND_ASSIGN(AcceptedToken access,
                       Corp().VerifyPresented(idp_.Token(kNow, {{"uid", "u1"}}), {{"api://mcp"}, {}}, kNow));
  ASSERT_OK_AND_ASSIGN(const SignInIdentity id,
                       Corp().VerifyIdToken(IdToken({{"tid", "t"}, {"oid", "o"}}), {"n", ""}, kNow));

  EXPECT_EQ(access.identity.subject, "corp:u1");
  EXPECT_EQ(id.identity.subject, "corp:t|o");
  EXPECT_THAT(Corp().VerifyIdToken(IdToken({{"tid", "t|o"}, {"oid", "x"}}), {"n", ""}, kNow),
              StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_THAT(Refusal(idp_.Token(kNow)), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(ConnectorsTest, AFileOfKeysNeedsNoNetwork) {
  TempDirectory directory;
  ASSERT_THAT(WriteFileAtomic(directory.path() + "/jwks", idp_.Jwks()), IsOk());
  config_[0].mutable_oidc()->clear_client_id();
  config_[0].mutable_oidc()->set_jwks_file(directory.path() + "/jwks");

  EXPECT_THAT(Refusal(idp_.Token(kNow)), IsOk());
  EXPECT_EQ(fetcher_.fetches(std::string(kIssuer) + "/jwks"), 0);
  EXPECT_FALSE(connectors_->Find("corp")->can_sign_in());
}

TEST_F(ConnectorsTest, KeysThatCannotBeHadAreNotTheCallersFault) {
  fetcher_.TakeDown(std::string(kIssuer) + "/jwks");
  EXPECT_THAT(Refusal(idp_.Token(kNow)), StatusIs(absl::StatusCode::kUnavailable));
}

TEST_F(ConnectorsTest, MetadataOfAnotherIssuerIsNotUsed) {
  fetcher_.Serve(std::string(kIssuer) + "/.well-known/openid-configuration",
                 TestIssuer("https://evil.example").Discovery());
  EXPECT_THAT(Corp().GetDiscovery(kNow), StatusIs(absl::StatusCode::kFailedPrecondition));
  EXPECT_FALSE(Refusal(idp_.Token(kNow)).ok());
}

TEST_F(ConnectorsTest, TakesAGoodIdToken) {
  ASSERT_OK_AND_ASSIGN(const SignInIdentity identity,
                       Corp().VerifyIdToken(IdToken({{"azp", "client"}}), {"n", ""}, kNow));
  EXPECT_EQ(identity.identity.subject, "corp:ann");
  EXPECT_EQ(identity.sub, "ann");
}

TEST_F(ConnectorsTest, AnIdTokenMayNameTwoHundredGroupsThoughACallersTokenMayNot) {
  std::vector<std::string> groups;
  for (int i = 0; i < 200; ++i) groups.push_back(absl::StrCat("8a6f1c5e-0000-4000-8000-", 100000000000 + i));
  ASSERT_OK_AND_ASSIGN(const SignInIdentity identity,
                       Corp().VerifyIdToken(IdToken({{"groups", groups}}), {"n", ""}, kNow));
  EXPECT_EQ(identity.identity.groups.size(), 200U);
  EXPECT_FALSE(Refusal(idp_.Token(kNow, {{"groups", groups}})).ok());
}

TEST_F(ConnectorsTest, GroupsThatEntraLeftOutAreNoticed) {
  const auto sign_in = [this](const nlohmann::json& claims) {
    auto identity = Corp().VerifyIdToken(IdToken(claims), {"n", ""}, kNow);
    EXPECT_THAT(identity, IsOk());
    return identity->identity;
  };
  EXPECT_FALSE(sign_in(nlohmann::json::object()).groups_overage) << "no groups are no overage";
  EXPECT_FALSE(sign_in({{"groups", {"g"}}, {"_claim_names", {{"groups", "s"}}}}).groups_overage);
  EXPECT_FALSE(sign_in({{"_claim_names", {{"address", "s"}}}}).groups_overage);
  EXPECT_FALSE(sign_in({{"_claim_names", "groups"}}).groups_overage);
  EXPECT_FALSE(sign_in({{"hasgroups", false}}).groups_overage);
  EXPECT_TRUE(sign_in({{"_claim_names", {{"groups", "src1"}}}}).groups_overage);
  EXPECT_TRUE(sign_in({{"hasgroups", true}}).groups_overage);
  EXPECT_TRUE(sign_in({{"hasgroups", "true"}}).groups_overage);

  // Who goes by app roles is not concerned by groups that are too many.
  config_[0].mutable_oidc()->set_groups_claim("roles");
  EXPECT_FALSE(sign_in({{"hasgroups", true}}).groups_overage);
  EXPECT_FALSE(sign_in({{"_claim_names", {{"groups", "src1"}}}}).groups_overage);
}

TEST_F(ConnectorsTest, UserInfoMayHaveTheGroupsTheIdTokenLeftOut) {
  Identity identity;
  identity.groups_overage = true;
  EXPECT_TRUE(Corp().AddUserInfo(R"({"sub":"ann"})", "ann", identity));
  EXPECT_TRUE(identity.groups_overage);
  EXPECT_TRUE(Corp().AddUserInfo(R"({"sub":"ann","groups":["staff"]})", "ann", identity));
  EXPECT_FALSE(identity.groups_overage);
}

TEST_F(ConnectorsTest, UserInfoFillsWhatTheIdTokenLeavesOpen) {
  Identity identity;
  identity.name = "Ann of the token";
  ASSERT_TRUE(Corp().NeedsUserInfo(identity));

  EXPECT_TRUE(Corp().AddUserInfo(
      R"({"sub":"ann","email":"ann@x.example","email_verified":true,"name":"Other","groups":["staff"]})", "ann",
      identity));

  EXPECT_EQ(identity.email, "ann@x.example");
  EXPECT_TRUE(identity.email_verified);
  EXPECT_EQ(identity.name, "Ann of the token");
  EXPECT_EQ(identity.groups, std::vector<std::string>{"staff"});
  EXPECT_FALSE(Corp().NeedsUserInfo(identity));
}

TEST_F(ConnectorsTest, UserInfoOfSomebodyElseAddsNothing) {
  for (const char* body :
       {R"({"sub":"eve","email":"eve@x.example"})", R"({"email":"eve@x.example"})", "[]", "eyJ.x.y"}) {
    Identity identity;
    EXPECT_FALSE(Corp().AddUserInfo(body, "ann", identity)) << body;
    EXPECT_TRUE(identity.email.empty());
  }
}

// Whether an address is verified is said by who names it.
TEST_F(ConnectorsTest, UserInfoDoesNotVerifyTheAddressOfTheIdToken) {
  Identity identity;
  identity.email = "ceo@x.example";
  EXPECT_TRUE(Corp().AddUserInfo(R"({"sub":"ann","email":"ann@x.example","email_verified":true})", "ann", identity));
  EXPECT_EQ(identity.email, "ceo@x.example");
  EXPECT_FALSE(identity.email_verified);
}

TEST_F(ConnectorsTest, SessionsAndGrantsFollowTheConfigurationOfLocalUsers) {
  auto& local = *config_.Add();
  local.set_id("local");
  auto& carol = *local.mutable_local()->add_users();
  carol.set_username("carol");
  carol.set_password_hash(HashPassword(Secret(std::string("secret"))));
  carol.add_groups("staff");
  Corp();
  Identity signed_in;
  signed_in.subject = "local:carol";
  signed_in.connector = "local";
  signed_in.issuer = kLocalIssuer;
  signed_in.groups = {"admins"};

  ASSERT_TRUE(connectors_->Current(signed_in).has_value());
  EXPECT_EQ(connectors_->Current(signed_in)->groups, std::vector<std::string>{"staff"});

  signed_in.subject = "local:dave";
  EXPECT_FALSE(connectors_->Current(signed_in).has_value()) << "no such user any more";
}

TEST_F(ConnectorsTest, UsersOfAConnectorThatIsGoneOrAnotherIssuersAreGone) {
  Corp();
  Identity signed_in;
  signed_in.subject = "corp:ann";
  signed_in.connector = "corp";
  signed_in.issuer = kIssuer;
  EXPECT_TRUE(connectors_->Current(signed_in).has_value());
  signed_in.issuer = "https://former.example";
  EXPECT_FALSE(connectors_->Current(signed_in).has_value());
  signed_in.connector = "former";
  EXPECT_FALSE(connectors_->Current(signed_in).has_value());
}

struct BadIdToken {
  const char* name;
  const char* change;
};
class RefusedIdTokenTest : public ConnectorsTest, public ::testing::WithParamInterface<BadIdToken> {};
TEST_P(RefusedIdTokenTest, IsRefused) {
  EXPECT_THAT(Corp().VerifyIdToken(IdToken(nlohmann::json::parse(GetParam().change)), {"n", "access"}, kNow),
              StatusIs(absl::StatusCode::kUnauthenticated));
}
INSTANTIATE_TEST_SUITE_P(
    SignIn, RefusedIdTokenTest,
    ::testing::Values(BadIdToken{"OtherNonce", R"({"nonce":"m"})"}, BadIdToken{"NoNonce", R"({"nonce":null})"},
                      BadIdToken{"OtherClient", R"({"aud":"other"})"}, BadIdToken{"OtherAzp", R"({"azp":"other"})"},
                      BadIdToken{"TwoAudiencesWithoutAzp", R"({"aud":["client","other"]})"},
                      BadIdToken{"NoIssuedAt", R"({"iat":null})"}, BadIdToken{"Expired", R"({"exp":1799999999})"},
                      BadIdToken{"WrongAccessTokenHash", R"({"at_hash":"AAAA"})"},
                      BadIdToken{"OtherIssuer", R"({"iss":"https://evil.example"})"}),
    [](const auto& test) { return test.param.name; });

TEST_F(ConnectorsTest, AccessTokenHashThatFitsIsFine) {
  const std::string hash = Base64UrlEncode(Sha256("access").substr(0, 16));
  EXPECT_THAT(Corp().VerifyIdToken(IdToken({{"at_hash", hash}}), {"n", "access"}, kNow), IsOk());
}

TEST_F(ConnectorsTest, AnAccessTokenIsNoIdToken) {
  EXPECT_THAT(Corp().VerifyIdToken(idp_.Token(kNow, {{"aud", "client"}, {"nonce", "n"}}, "at+jwt"), {"n", ""}, kNow),
              StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(ConnectorsTest, SpeaksOnlyForItsDomains) {
  config_[0].mutable_oidc()->add_authoritative_domains("x.example");
  const Connector& corp = Corp();

  EXPECT_TRUE(corp.SpeaksFor("a@x.example"));
  EXPECT_TRUE(corp.SpeaksFor("a@X.Example"));
  for (const char* other : {"a@y.example", "a@sub.x.example", "a@x.example@evil.example", "a@evil@x.example",
                            "@x.example", "x.example", "a@", "", "a@x.example."}) {
    EXPECT_FALSE(corp.SpeaksFor(other)) << other;
  }
}

TEST_F(ConnectorsTest, AnUnverifiedEmailCountsForNothing) {
  config_[0].mutable_oidc()->add_authoritative_domains("x.example");
  ASSERT_OK_AND_ASSIGN(AcceptedToken accepted,
                       Corp().VerifyPresented(idp_.Token(kNow, {{"email", "a@x.example"}}), {{"api://mcp"}, {}}, kNow));
  EXPECT_FALSE(connectors_->SpeaksFor(accepted.identity));
}

struct BadConfig {
  const char* name;
  void (*change)(config::v1::Connector&);
};
class BadConfigTest : public ConnectorsTest, public ::testing::WithParamInterface<BadConfig> {};
TEST_P(BadConfigTest, IsRefusedByName) {
  GetParam().change(config_[0]);
  EXPECT_THAT(Connectors::Create(config_, jwks_, vault_).status(),
              StatusIs(absl::StatusCode::kInvalidArgument, "connectors[0]"));
}
using C = config::v1::Connector;
INSTANTIATE_TEST_SUITE_P(
    Config, BadConfigTest,
    ::testing::Values(
        BadConfig{"EmptyId", [](C& c) { c.clear_id(); }}, BadConfig{"UpperCase", [](C& c) { c.set_id("Corp"); }},
        BadConfig{"Colon", [](C& c) { c.set_id("a:b"); }}, BadConfig{"Reserved", [](C& c) { c.set_id("server-1"); }},
        BadConfig{"OurOwnName", [](C& c) { c.set_id("sallyport"); }}, BadConfig{"NoType", [](C& c) { c.clear_oidc(); }},
        BadConfig{"PlainHttp", [](C& c) { c.mutable_oidc()->set_issuer("http://idp.example"); }},
        BadConfig{"NoIssuer", [](C& c) { c.mutable_oidc()->clear_issuer(); }},
        BadConfig{"IssuerWithQuery", [](C& c) { c.mutable_oidc()->set_issuer("https://idp.example/?a=b"); }},
        BadConfig{"KeysAndClient", [](C& c) { c.mutable_oidc()->set_jwks_file("/nowhere"); }},
        BadConfig{"NoSuchFile",
                  [](C& c) {
                    c.mutable_oidc()->clear_client_id();
                    c.mutable_oidc()->set_jwks_file("/nowhere");
                  }},
        BadConfig{"NoSuchSecretFile", [](C& c) { c.mutable_oidc()->set_client_secret_file("/nowhere"); }},
        BadConfig{"MutableSubjectOfIdTokens", [](C& c) { c.mutable_oidc()->set_id_token_subject_claim("email"); }},
        BadConfig{"MutableSubjectOfAccessTokens",
                  [](C& c) { c.mutable_oidc()->set_access_token_subject_claim("upn"); }},
        BadConfig{"MutablePartOfSubject",
                  [](C& c) { c.mutable_oidc()->set_access_token_subject_claim("tid+preferred_username"); }},
        BadConfig{"LocalUserWithoutHash", [](C& c) { c.mutable_local()->add_users()->set_username("ann"); }}),
    [](const auto& test) { return test.param.name; });

TEST_F(ConnectorsTest, MutableSubjectClaimIsRefusedWithTheReason) {
  config_[0].mutable_oidc()->set_id_token_subject_claim("tid+email");
  config_[0].mutable_oidc()->set_access_token_subject_claim("name");
  const absl::Status refused = Connectors::Create(config_, jwks_, vault_).status();
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kInvalidArgument,
                                "connectors[0].oidc.idTokenSubjectClaim: \"email\" can change and be given to another "
                                "person later"));
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kInvalidArgument, "accessTokenSubjectClaim: \"name\""));
}

TEST_F(ConnectorsTest, IntrospectionIsRefusedAsNotYetSupported) {
  config_[0].mutable_oidc()->add_accept(config::v1::OidcConnector::JWT_ACCESS);
  config_[0].mutable_oidc()->add_accept(config::v1::OidcConnector::INTROSPECTION);
  EXPECT_THAT(
      Connectors::Create(config_, jwks_, vault_).status(),
      StatusIs(absl::StatusCode::kInvalidArgument, "connectors[0].oidc.accept: not yet supported: INTROSPECTION"));
}

struct BadHash {
  const char* name;
  const char* hash;
};
class BadPasswordHashTest : public ::testing::TestWithParam<BadHash> {};
TEST_P(BadPasswordHashTest, IsRefusedWithTheRemedyAndWithoutTheValue) {
  google::protobuf::RepeatedPtrField<config::v1::Connector> connectors;
  connectors.Add()->set_id("local");
  auto& ann = *connectors[0].mutable_local()->add_users();
  ann.set_username("ann");
  ann.set_password_hash(GetParam().hash);
  const absl::Status status = ValidateConnectors(connectors);
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kInvalidArgument, "connectors[0].local.users[0].passwordHash: must be"));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument, "`sallyport hash-password`"));
  EXPECT_THAT(std::string(status.message()), ::testing::Not(::testing::HasSubstr(GetParam().hash)));
}
#define SALLYPORT_HASH_TAIL "$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
INSTANTIATE_TEST_SUITE_P(Config, BadPasswordHashTest,
                         ::testing::Values(BadHash{"PlainPassword", "hunter2"},
                                           BadHash{"Bcrypt",
                                                   "$2b$12$GhvMmNVjRW29ulnudl.LbuAnUtN/LRfe1JsBm1Xu6LE3059z5Tr8m"},
                                           BadHash{"CheapN", "$scrypt$ln=9,r=8,p=1" SALLYPORT_HASH_TAIL},
                                           BadHash{"DearN", "$scrypt$ln=18,r=8,p=1" SALLYPORT_HASH_TAIL},
                                           BadHash{"DearR", "$scrypt$ln=15,r=9,p=1" SALLYPORT_HASH_TAIL},
                                           BadHash{"DearP", "$scrypt$ln=15,r=8,p=5" SALLYPORT_HASH_TAIL},
                                           BadHash{"ShortHash", "$scrypt$ln=15,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$AA"}),
                         [](const auto& test) { return test.param.name; });
#undef SALLYPORT_HASH_TAIL

TEST_F(ConnectorsTest, ClientSecretGoesToTheVaultOnce) {
  TempDirectory directory;
  const std::string file = directory.path() + "/secret";
  ASSERT_THAT(WriteFileAtomic(file, "s3cret\n"), IsOk());
  config_[0].mutable_oidc()->set_client_secret_file(file);
  const Connector& corp = Corp();

  ASSERT_THAT(connectors_->StoreClientSecrets(), IsOk());
  ASSERT_THAT(connectors_->StoreClientSecrets(), IsOk());

  EXPECT_EQ(vault_.writes(), 1);
  ASSERT_OK_AND_ASSIGN(Secret secret, corp.GetClientSecret(kNow));
  EXPECT_EQ(secret.Expose(), "s3cret");
}

}  // namespace
}  // namespace sallyport::authn

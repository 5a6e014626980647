// SPDX-License-Identifier: Apache-2.0
#include "services/registry/validation_testing.h"

namespace sallyport::registry {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

using Case = ValidationCase;

class AppValidationTest : public ValidationTest {};

class RefusedApp : public ValidationTest, public ::testing::WithParamInterface<Case> {};
TEST_P(RefusedApp, NamesTheField) {
  EXPECT_THAT(Refused(App(GetParam().json)), ElementsAre(GetParam().field)) << Messages();
}
INSTANTIATE_TEST_SUITE_P(
    Fields, RefusedApp,
    ::testing::Values(
        Case{"Slug", R"({"slug": "Git Hub"})", "slug"},
        Case{"Issuer", R"({"issuer": "http://idp.example.com"})", "issuer"},
        Case{"IssuerWithQuery", R"({"issuer": "https://idp.example.com/?tenant=a"})", "issuer"},
        Case{"IssuerWithEmptyQuery", R"({"issuer": "https://idp.example.com/?"})", "issuer"},
        Case{"IssuerWithFragment", R"({"issuer": "https://idp.example.com/#a"})", "issuer"},
        Case{"AuthorizationHttp", R"({"authorizationUrl": "http://idp.example.com/a"})", "authorizationUrl"},
        Case{"TokenPrivate", R"({"tokenUrl": "https://10.0.0.1/token"})", "tokenUrl"},
        Case{"TokenNoUrl", R"({"tokenUrl": "token"})", "tokenUrl"},
        Case{"RevocationLoopback", R"({"revocationUrl": "http://127.0.0.1/revoke"})", "revocationUrl"},
        Case{"ScopeSeparator", R"({"scopeSeparator": ", "})", "scopeSeparator"},
        Case{"ScopeWithBlank", R"({"defaultScopes": ["a", "b c"]})", "defaultScopes[1]"},
        Case{"ScopeWithComma", R"({"defaultScopes": ["a,b"]})", "defaultScopes[0]"},
        Case{"ScopeEmpty", R"({"defaultScopes": [""]})", "defaultScopes[0]"},
        Case{"ParamState", R"({"authorizationParams": {"state": "x"}})", "authorizationParams.state"},
        Case{"ParamRedirect", R"({"authorizationParams": {"redirect_uri": "x"}})", "authorizationParams.redirect_uri"},
        Case{"ParamGrantType", R"({"tokenParams": {"grant_type": "x"}})", "tokenParams.grant_type"},
        Case{"OriginWithPath", R"({"allowedUpstreamOrigins": ["https://api.example.com/"]})",
             "allowedUpstreamOrigins[0]"},
        Case{"OriginUpperCase", R"({"allowedUpstreamOrigins": ["https://API.example.com"]})",
             "allowedUpstreamOrigins[0]"},
        Case{"OriginNull", R"({"allowedUpstreamOrigins": ["null"]})", "allowedUpstreamOrigins[0]"},
        Case{"PrivateKeyJwtNotYet", R"({"clientAuth": "PRIVATE_KEY_JWT"})", "clientAuth"},
        Case{"ProviderNotYet", R"({"provider": "github"})", "provider"},
        Case{"UnknownClientAuth", R"({"clientAuth": 99})", "clientAuth"},
        Case{"UserinfoHttp", R"({"accountIdentity": {"userinfoUrl": "http://idp.example.com/me"}})",
             "accountIdentity.userinfoUrl"},
        Case{"UserinfoLoopback", R"({"accountIdentity": {"userinfoUrl": "http://127.0.0.1/me"}})",
             "accountIdentity.userinfoUrl"},
        Case{"UserinfoPrivate", R"({"accountIdentity": {"userinfoUrl": "https://10.0.0.1/me"}})",
             "accountIdentity.userinfoUrl"},
        Case{"UserinfoNoUrl", R"({"accountIdentity": {"userinfoUrl": "/me"}})", "accountIdentity.userinfoUrl"},
        Case{"IdMemberEmptyPart", R"({"accountIdentity": {"idMember": "data..id"}})", "accountIdentity.idMember"},
        Case{"IdMemberLeadingDot", R"({"accountIdentity": {"idMember": ".id"}})", "accountIdentity.idMember"},
        Case{"NameMemberTrailingDot", R"({"accountIdentity": {"nameMember": "login."}})", "accountIdentity.nameMember"},
        Case{"EmailMemberWithBracket", R"({"accountIdentity": {"emailMember": "emails[0]"}})",
             "accountIdentity.emailMember"},
        Case{"EmailVerifiedMemberWithBlank", R"({"accountIdentity": {"emailVerifiedMember": "is verified"}})",
             "accountIdentity.emailVerifiedMember"},
        Case{"UnknownSameAccount", R"({"accountIdentity": {"sameAccount": 99}})", "accountIdentity.sameAccount"},
        Case{"UnknownAccountDomain", R"({"accountIdentity": {"accountDomain": 99}})", "accountIdentity.accountDomain"},
        Case{"RequiredAndNobodySaysWho", R"({"accountIdentity": {"sameAccount": "REQUIRED"}})",
             "accountIdentity.sameAccount"},
        Case{"SameDomainAndNobodySaysWho", R"({"accountIdentity": {"accountDomain": "SAME_AS_SIGN_IN"}})",
             "accountIdentity.accountDomain"}),
    CaseName);

TEST_F(AppValidationTest, WhoseAnAccountIsIsSaidByTheProviderOrTheIdToken) {
  const auto warned = [this](const std::string& json) {
    EXPECT_THAT(Refused(App(json)), IsEmpty()) << json << Messages();
    return Warned();
  };
  const std::string required = R"({"accountIdentity": {"sameAccount": "REQUIRED", "accountDomain": "SAME_AS_SIGN_IN")";
  EXPECT_THAT(warned(required + R"(, "userinfoUrl": "https://api.example.com/user", "idMember": "data.user-1.Id_2"}})"),
              IsEmpty());
  EXPECT_THAT(warned(required + R"(}, "defaultScopes": ["openid", "email"]})"), IsEmpty());
  EXPECT_THAT(warned(required + R"(}, "issuer": "https://idp.example.com"})"),
              ElementsAre("accountIdentity.sameAccount"))
      << "a server may ask for openid";
  EXPECT_THAT(warned(R"({"accountIdentity": {"sameAccount": "WARN"}})"), IsEmpty());
  EXPECT_THAT(warned(R"({"accountIdentity": {"sameAccount": "ANY", "accountDomain": "ANY_DOMAIN"}})"), IsEmpty());
}

TEST_F(AppValidationTest, MembersHaveAtMost128Bytes) {
  v1::App app = App();
  app.mutable_account_identity()->set_id_member(std::string(128, 'a'));
  EXPECT_THAT(Refused(app), IsEmpty());
  app.mutable_account_identity()->set_id_member(std::string(129, 'a'));
  EXPECT_THAT(Refused(app), ElementsAre("accountIdentity.idMember"));
}

TEST_F(AppValidationTest, AccountsAreAskedForAtLoopbackOnlyWhereTheDeploymentNamesIt) {
  context_.oauth_networks = {"127.0.0.0/8"};
  EXPECT_THAT(Refused(App(R"({"accountIdentity": {"userinfoUrl": "http://127.0.0.1:8080/me"}})")), IsEmpty());
}

TEST_F(AppValidationTest, ClientAuthPkceAndTheSecretGoTogether) {
  const auto refused = [this](const std::string& json, bool has_secret) {
    findings_ = {};
    ValidateAppClient(FromJson<v1::App>(json), has_secret, findings_);
    return Fields();
  };
  for (const char* json : {"{}", R"({"clientAuth": "BASIC"})", R"({"clientAuth": "POST", "pkce": "OFF"})"}) {
    EXPECT_THAT(refused(json, true), IsEmpty()) << json;
  }
  for (const char* json : {"{}", R"({"clientAuth": "NONE"})", R"({"pkce": "S256"})"}) {
    EXPECT_THAT(refused(json, false), IsEmpty()) << json;
  }
  EXPECT_THAT(refused(R"({"clientAuth": "NONE"})", true), ElementsAre("clientSecret"));
  EXPECT_THAT(refused(R"({"clientAuth": "BASIC"})", false), ElementsAre("clientAuth"));
  EXPECT_THAT(refused(R"({"clientAuth": "POST"})", false), ElementsAre("clientAuth"));
  EXPECT_THAT(refused(R"({"pkce": "OFF"})", false), ElementsAre("pkce"));
  EXPECT_THAT(refused(R"({"clientAuth": "NONE", "pkce": "OFF"})", false), ElementsAre("pkce"));
}

TEST_F(AppValidationTest, ScopesOfProvidersAreFine) {
  EXPECT_THAT(
      Refused(App(R"({"defaultScopes": ["https://www.googleapis.com/auth/drive", "read:org", "api://a/.default"]})")),
      IsEmpty());
}

TEST_F(AppValidationTest, AnIssuerStandsForItsUrls) {
  EXPECT_THAT(Refused(FromJson<v1::App>(R"({"slug": "a", "issuer": "https://idp.example.com", "clientId": "c"})")),
              IsEmpty());
}

TEST_F(AppValidationTest, LoopbackProvidersOnlyWhereTheDeploymentNamesThem) {
  const v1::App app = App(R"({"tokenUrl": "http://127.0.0.1:8080/token"})");
  EXPECT_THAT(Refused(app), ElementsAre("tokenUrl"));
  context_.oauth_networks = {"127.0.0.0/8"};
  EXPECT_THAT(Refused(app), IsEmpty());
}

TEST_F(AppValidationTest, ACredentialOfEachUserHasNoUserNameOfItsOwn) {
  const std::string own = R"("slug": "a", "kind": "PASSWORD", "owner": "USER",
                             "allowedUpstreamOrigins": ["https://a.example.com"])";
  EXPECT_THAT(Refused(FromJson<v1::Credential>("{" + own + "}")), IsEmpty());
  EXPECT_THAT(Refused(FromJson<v1::Credential>("{" + own + R"(, "username": "ann"})")), ElementsAre("username"));
}

}  // namespace
}  // namespace sallyport::registry

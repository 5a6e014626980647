// SPDX-License-Identifier: Apache-2.0
#include "services/registry/catalog_testing.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using Code = absl::StatusCode;

class CatalogAppTest : public CatalogTest {};
INSTANTIATE_ENGINES(CatalogAppTest);

TEST_P(CatalogAppTest, AClientAuthThatTheIssuerDoesNotAnnounceWarnsWhenItIsSaved) {
  const auto warned = [](const auto& written) {
    EXPECT_THAT(written, IsOk());
    std::vector<std::string> messages;
    for (const auto& warning : written->warnings) messages.push_back(warning.field() + ": " + warning.message());
    return messages;
  };
  auto app = FromJson<v1::App>(kApp);
  app.set_issuer("https://idp.example.com");
  app.set_client_auth(v1::POST);
  announced_ = std::vector<std::string>{"client_secret_basic", "evil\nname"};
  EXPECT_THAT(warned(catalog_->Create(app, true, chief_)),
              ElementsAre("clientAuth: the issuer announces client_secret_basic and not client_secret_post: leave "
                          "clientAuth out to use what it announces"));
  EXPECT_THAT(warned(catalog_->Create(app, false, chief_)), SizeIs(1));
  EXPECT_THAT(asked_issuers_, ElementsAre("https://idp.example.com", "https://idp.example.com"));
  app.clear_client_secret();
  app.set_display_name("GitHub");
  EXPECT_THAT(warned(catalog_->Update(app, false, chief_)), IsEmpty()) << "said when it was set";
  EXPECT_THAT(asked_issuers_, SizeIs(2));
  app.set_client_auth(v1::BASIC);
  EXPECT_THAT(warned(catalog_->Update(app, false, chief_)), IsEmpty());
  EXPECT_THAT(asked_issuers_, SizeIs(3));
  app.set_client_auth(v1::CLIENT_AUTH_UNSPECIFIED);
  EXPECT_THAT(warned(catalog_->Update(app, false, chief_)), IsEmpty());
  EXPECT_THAT(asked_issuers_, SizeIs(3)) << "the announcement decides";
}

TEST_P(CatalogAppTest, AnIssuerThatDoesNotAnswerHoldsUpNoSave) {
  const auto app = [](const std::string& slug) {
    return R"({"slug": ")" + slug + R"(", "issuer": "https://)" + slug +
           R"(.example.com", "clientId": "me", "clientSecret": {"value": "s"}, "clientAuth": "BASIC"})";
  };
  announced_ = absl::UnavailableError("down");
  ASSERT_THAT(Apply(File({app("a"), app("b"), app("c")}, {}), chief_), IsOk());
  EXPECT_THAT(asked_issuers_, SizeIs(1)) << "one time-out, not three";
  asked_issuers_.clear();
  announced_ = absl::NotFoundError("publishes none");
  ASSERT_THAT(Apply(File({app("d"), app("e")}, {}), chief_), IsOk());
  EXPECT_THAT(asked_issuers_, SizeIs(2));
}

TEST_P(CatalogAppTest, AnAppsClientSecretIsBoundToItsTokenAndRevocationOrigins) {
  ASSERT_THAT(Create<v1::App>(kApp), IsOk());
  auto app = FromJson<v1::App>(kApp);
  app.clear_client_secret();
  app.set_token_url("https://evil.example.com/token");
  EXPECT_THAT(Refused(catalog_->Update(app, false, chief_).status()), UnorderedElementsAre("clientSecret", "tokenUrl"));
  app.set_token_url("https://idp.example.com/other");
  EXPECT_THAT(catalog_->Update(app, false, chief_), IsOk()) << "same origin";
  app.set_revocation_url("https://evil.example.com/revoke");
  EXPECT_THAT(Refused(catalog_->Update(app, false, chief_).status()),
              UnorderedElementsAre("clientSecret", "revocationUrl"));
  app.clear_revocation_url();
  app.set_issuer("https://evil.example.com");
  EXPECT_THAT(Refused(catalog_->Update(app, false, chief_).status()), UnorderedElementsAre("clientSecret", "issuer"));
  app.mutable_client_secret()->set_value("another");
  EXPECT_THAT(catalog_->Update(app, false, chief_), IsOk());
}

TEST_P(CatalogAppTest, WhereAPublicAppsCodesAndTokensGoOnlyACredentialAdminChanges) {
  auto app = FromJson<v1::App>(kApp);
  app.clear_client_secret();
  ASSERT_THAT(catalog_->Create(app, false, admin_), IsOk());
  ASSERT_THAT(catalog_->Update(app, false, admin_), IsOk());
  const auto refused = [&](const std::string& json) {
    auto changed = app;
    changed.MergeFrom(FromJson<v1::App>(json));
    return Refused(catalog_->Update(changed, true, admin_).status());
  };
  EXPECT_THAT(refused(R"({"tokenUrl": "https://evil.example.com/token"})"), ElementsAre("tokenUrl"));
  EXPECT_THAT(refused(R"({"tokenUrl": "https://idp.example.com/evil/token"})"), ElementsAre("tokenUrl"))
      << "a host may have many tenants";
  EXPECT_THAT(refused(R"({"authorizationUrl": "https://evil.example.com/a"})"), ElementsAre("authorizationUrl"));
  EXPECT_THAT(refused(R"({"issuer": "https://evil.example.com"})"), ElementsAre("issuer"));
  EXPECT_THAT(refused(R"({"revocationUrl": "https://evil.example.com/r"})"), ElementsAre("revocationUrl"));
  EXPECT_THAT(refused(R"({"tokenUrl": "https://evil.example.com/token", "clientSecret": {"value": "any"}})"),
              ElementsAre("tokenUrl", "clientSecret"));
  EXPECT_THAT(refused(R"({"clientSecret": {"value": "any"}})"), ElementsAre("clientSecret"))
      << "or the next change could enter it again";
  app.set_display_name("GitHub");
  EXPECT_THAT(catalog_->Update(app, false, admin_), IsOk());
  app.set_token_url("https://other.example.com/token");
  EXPECT_THAT(catalog_->Update(app, false, chief_), IsOk());
  app.mutable_client_secret()->set_value("real");
  EXPECT_THAT(catalog_->Update(app, false, chief_), IsOk());
  app.mutable_client_secret()->set_clear(true);
  app.set_token_url("https://evil.example.com/token");
  EXPECT_THAT(Refused(catalog_->Update(app, false, admin_).status()), ElementsAre("tokenUrl"))
      << "nor together with making it public";
}

TEST_P(CatalogAppTest, WhereAccessTokensAreShownOnlyACredentialAdminChanges) {
  const auto with = [](const std::string& url, bool secret = false) {
    auto app = FromJson<v1::App>(kApp);
    if (!secret) app.clear_client_secret();
    if (!url.empty()) app.mutable_account_identity()->set_userinfo_url(url);
    return app;
  };
  const std::string field = "accountIdentity.userinfoUrl";
  ASSERT_THAT(catalog_->Create(with("https://who.example.com/me", true), false, admin_), IsOk());
  EXPECT_THAT(catalog_->Update(with("https://who.example.com/me"), false, admin_), IsOk());
  for (const char* url : {"https://who.example.com/tenants/evil/me", "https://idp.example.com/me", ""}) {
    EXPECT_THAT(Refused(catalog_->Update(with(url), true, admin_).status()), ElementsAre(field)) << url;
  }
  EXPECT_THAT(Refused(catalog_->Update(with("https://evil.example.com/me"), false, admin_).status()),
              UnorderedElementsAre("clientSecret", field, field));
  EXPECT_THAT(Refused(catalog_->Update(with("https://evil.example.com/me", true), false, admin_).status()),
              ElementsAre(field))
      << "nor with the secret";
  EXPECT_EQ(Events().back().rule(), "credential_admin");

  // Another origin is another to be given the tokens that the secret gets.
  EXPECT_THAT(Refused(catalog_->Update(with("https://evil.example.com/me"), false, chief_).status()),
              UnorderedElementsAre("clientSecret", field));
  EXPECT_THAT(catalog_->Update(with("https://who.example.com/v2/me"), false, chief_), IsOk());
  EXPECT_THAT(catalog_->Update(with("https://other.example.com/me", true), false, chief_), IsOk());
  EXPECT_THAT(catalog_->Update(with("https://idp.example.com/me"), false, chief_), IsOk()) << "the secret goes there";
  EXPECT_THAT(catalog_->Update(with(""), false, chief_), IsOk());
  EXPECT_THAT(Refused(catalog_->Update(with("https://other.example.com/me"), false, chief_).status()),
              UnorderedElementsAre("clientSecret", field))
      << "nor by way of none";
}

TEST_P(CatalogAppTest, APublicAppsAccountsAreAskedForWhereACredentialAdminSays) {
  auto app = FromJson<v1::App>(kApp);
  app.clear_client_secret();
  ASSERT_THAT(catalog_->Create(app, false, admin_), IsOk());
  app.mutable_account_identity()->set_userinfo_url("https://evil.example.com/me");
  EXPECT_THAT(Refused(catalog_->Update(app, false, admin_).status()), ElementsAre("accountIdentity.userinfoUrl"));
  ASSERT_OK_AND_ASSIGN(const auto written, catalog_->Update(app, false, chief_));
  EXPECT_EQ(written.resource.account_identity().userinfo_url(), "https://evil.example.com/me");
}

TEST_P(CatalogAppTest, AccountIdentityIsInDiffsAndInWhatIsExported) {
  ASSERT_THAT(catalog_->Create(FromJson<v1::App>(kApp), false, chief_), IsOk());
  const std::string file = File({R"({"slug": "github", "authorizationUrl": "https://idp.example.com/authorize",
      "tokenUrl": "https://idp.example.com/token", "clientId": "me", "accountIdentity": {
      "userinfoUrl": "https://idp.example.com/me", "idMember": "data.id", "sameAccount": "REQUIRED"}})"},
                                {});
  ASSERT_OK_AND_ASSIGN(const auto preview, Apply(file, chief_, /*dry_run=*/true));
  std::vector<std::string> changes;
  for (const auto& change : preview.results(0).changes()) changes.push_back(change.field() + " " + change.after());
  EXPECT_THAT(changes, UnorderedElementsAre(R"(accountIdentity.userinfoUrl "https://idp.example.com/me")",
                                            R"(accountIdentity.idMember "data.id")",
                                            R"(accountIdentity.sameAccount "REQUIRED")"));
  ASSERT_THAT(Apply(file, chief_), IsOk());
  ASSERT_OK_AND_ASSIGN(const v1::App read, catalog_->Get<v1::App>("github"));
  EXPECT_EQ(read.account_identity().id_member(), "data.id");
  EXPECT_EQ(read.account_identity().same_account(), v1::App::REQUIRED);
  EXPECT_THAT(Actions(Apply(file, chief_)), ElementsAre("App github UNCHANGED"));
}

TEST_P(CatalogAppTest, WhetherAnAppHasASecretCountsStoredGivenAndClearedOnes) {
  const auto with = [](const std::string& json) {
    auto app = FromJson<v1::App>(kApp);
    app.clear_client_secret();
    app.MergeFrom(FromJson<v1::App>(json));
    return app;
  };
  EXPECT_THAT(Refused(catalog_->Create(with(R"({"clientAuth": "BASIC"})"), false, chief_).status()),
              ElementsAre("clientAuth"));
  EXPECT_THAT(Refused(catalog_->Create(with(R"({"pkce": "OFF"})"), false, chief_).status()), ElementsAre("pkce"));
  ASSERT_THAT(catalog_->Create(with(R"({"clientAuth": "BASIC", "clientSecret": {"value": "s"}})"), false, chief_),
              IsOk());
  EXPECT_THAT(catalog_->Update(with(R"({"clientAuth": "POST", "pkce": "OFF"})"), false, chief_), IsOk()) << "kept";
  EXPECT_THAT(Refused(catalog_->Update(with(R"({"clientAuth": "NONE"})"), false, chief_).status()),
              ElementsAre("clientSecret"));
  EXPECT_THAT(
      Refused(
          catalog_->Update(with(R"({"clientAuth": "POST", "clientSecret": {"clear": true}})"), false, chief_).status()),
      ElementsAre("clientAuth"));
  EXPECT_THAT(catalog_->Update(with(R"({"clientAuth": "NONE", "clientSecret": {"clear": true}})"), false, chief_),
              IsOk());
}

TEST_P(CatalogAppTest, AnAppInUseCannotBeDeletedAndItsUsersAreNamed) {
  ASSERT_THAT(Create<v1::App>(kApp), IsOk());
  ASSERT_THAT(Create<v1::McpServer>(kOAuth), IsOk());
  EXPECT_THAT(catalog_->Delete<v1::App>("github", 0, admin_), StatusIs(Code::kFailedPrecondition, "gh"));
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("gh", 0, admin_), IsOk());
  EXPECT_THAT(catalog_->Delete<v1::App>("github", 0, admin_), IsOk());
}

TEST_P(CatalogAppTest, TheFirstServerFillsAnAppsOriginsAndAuditsIt) {
  ASSERT_THAT(catalog_->Create(FromJson<v1::App>(kApp), false, admin_), IsOk());
  ASSERT_THAT(catalog_->Create(FromJson<v1::McpServer>(kOAuth), false, admin_), IsOk());
  const auto stored = Stored();
  EXPECT_THAT(stored.apps(0).allowed_upstream_origins(), ElementsAre("https://api.example.com"));
  EXPECT_EQ(stored.apps(0).version(), 2);
  EXPECT_EQ(stored.mcp_servers(0).app_auth().oauth_authorization().app_uid(), stored.apps(0).uid());
  const auto events = Events();
  EXPECT_EQ(events.back().rule() == "first_origin" || events[events.size() - 2].rule() == "first_origin", true);

  auto second = FromJson<v1::McpServer>(kOAuth);
  second.set_slug("gh2");
  second.set_upstream_url("https://other.example.com/mcp");
  EXPECT_THAT(Refused(catalog_->Create(second, false, admin_).status()), ElementsAre("upstreamUrl"));
}

TEST_P(CatalogAppTest, OnlyACredentialAdminSaysWhereAnAppsTokensGo) {
  auto app = FromJson<v1::App>(kApp);
  app.add_allowed_upstream_origins("https://api.example.com");
  EXPECT_THAT(Refused(catalog_->Create(app, false, admin_).status()), ElementsAre("allowedUpstreamOrigins"));
  ASSERT_THAT(catalog_->Create(app, false, chief_), IsOk());
  app.set_allowed_upstream_origins(0, "https://evil.example.com");
  EXPECT_THAT(Refused(catalog_->Update(app, false, admin_).status()), ElementsAre("allowedUpstreamOrigins"));
  ASSERT_THAT(catalog_->Update(app, false, chief_), IsOk());
  app.clear_allowed_upstream_origins();
  app.set_display_name("GitHub");
  ASSERT_THAT(catalog_->Update(app, false, admin_), IsOk()) << "not listed: kept";
  EXPECT_THAT(Stored().apps(0).allowed_upstream_origins(), ElementsAre("https://evil.example.com"));
}

}  // namespace
}  // namespace sallyport::registry

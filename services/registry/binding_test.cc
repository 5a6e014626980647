// SPDX-License-Identifier: Apache-2.0
#include "services/registry/binding.h"

#include "services/registry/catalog_testing.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Not;
using Code = absl::StatusCode;

constexpr char kForwards[] = R"({"slug": "a", "upstreamUrl": "https://API.example.com:443/mcp",
    "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"passthrough": {}},
    "outboundHeaders": [{"name": "X-Token", "forwardCallerToken": {}}]})";

class BindingTest : public CatalogTest {
 protected:
  // Where the binding that the stored resource refers to says; "LOST" if it is not in the vault and pinned.
  template <typename T>
  std::vector<std::string> Bound(const T& resource) {
    const std::string kind(ResourceTraits<T>::kBindingKind);
    const FakeVault::Held record = vault_.Look(kind + " " + resource.binding().vault_record());
    const int64_t version = resource.binding().version();
    if (!record.versions.contains(version) || record.pinned.count(version) == 0) return {"LOST"};
    return record.origins.at(version);
  }
  std::vector<std::string> OriginsOf(const std::string& key, int64_t version) {
    const FakeVault::Held record = vault_.Look(key);
    return record.origins.contains(version) ? record.origins.at(version) : std::vector<std::string>{"NONE"};
  }
  static v1::McpServer At(const std::string& url) {
    auto server = FromJson<v1::McpServer>(kForwards);
    server.set_upstream_url(url);
    return server;
  }
};
INSTANTIATE_ENGINES(BindingTest);

TEST_P(BindingTest, SecretsAreSealedWithTheOriginsOfTheirKind) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  EXPECT_THAT(OriginsOf(BearerKey(), 1), ElementsAre("https://api.example.com"));
  auto app = FromJson<v1::App>(kApp);
  app.set_issuer("https://issuer.example.com");
  app.set_revocation_url("https://idp.example.com/revoke");
  ASSERT_THAT(catalog_->Create(app, false, chief_), IsOk());
  EXPECT_THAT(OriginsOf("app_secret " + Stored().apps(0).client_secret().vault_record(), 1),
              ElementsAre("https://idp.example.com", "https://issuer.example.com"));
  ASSERT_THAT(Create<v1::Credential>(kCredential), IsOk());
  EXPECT_THAT(OriginsOf("credential " + Stored().credentials(0).value().vault_record(), 1),
              ElementsAre("https://api.example.com"));
}

TEST_P(BindingTest, AnEqualValueGivenForAnotherOriginIsANewVersion) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  auto moved = FromJson<v1::McpServer>(kBearer);
  moved.set_upstream_url("https://other.example.com/mcp");
  ASSERT_OK_AND_ASSIGN(const auto written, catalog_->Update(moved, false, admin_));
  EXPECT_EQ(written.resource.app_auth().bearer().token().version(), 2);
  EXPECT_THAT(OriginsOf(BearerKey(), 2), ElementsAre("https://other.example.com"));
  EXPECT_THAT(vault_.Look(BearerKey()).pinned, ElementsAre(2));
}

TEST_P(BindingTest, AServerThatForwardsTokensHasOneAndNoAnswerShowsIt) {
  ASSERT_OK_AND_ASSIGN(const auto written, Create<v1::McpServer>(kForwards));
  EXPECT_FALSE(written.resource.has_binding());
  const v1::McpServer stored = Stored().mcp_servers(0);
  EXPECT_EQ(stored.binding().vault_record(), stored.uid() + "/binding");
  EXPECT_THAT(Bound(stored), ElementsAre("https://api.example.com"));
  ASSERT_OK_AND_ASSIGN(v1::McpServer read, catalog_->Get<v1::McpServer>("a"));
  EXPECT_FALSE(read.has_binding());
  std::string next;
  ASSERT_OK_AND_ASSIGN(const auto all, catalog_->List<v1::McpServer>(0, "", &next));
  EXPECT_FALSE(all[0].has_binding());
  const auto events = Events();
  EXPECT_EQ(events[0].details().at("fields").find("binding"), std::string::npos);

  read.mutable_binding()->set_vault_record("srv_other/binding");
  read.mutable_binding()->set_version(7);
  ASSERT_OK_AND_ASSIGN(const auto same, catalog_->Update(read, false, admin_));
  EXPECT_EQ(same.resource.version(), 1) << "ignored on the way in";
  EXPECT_EQ(Stored().mcp_servers(0).binding().vault_record(), stored.uid() + "/binding");
}

TEST_P(BindingTest, AServersBindingFollowsItAndIsKeptForSwitchingBack) {
  ASSERT_THAT(catalog_->Create(At("https://api.example.com/mcp"), false, admin_), IsOk());
  const std::string key = "server_binding " + Stored().mcp_servers(0).binding().vault_record();
  ASSERT_THAT(catalog_->Update(At("https://api.example.com/v2"), false, admin_), IsOk());
  EXPECT_EQ(Stored().mcp_servers(0).binding().version(), 1) << "same origin";
  ASSERT_THAT(catalog_->Update(At("https://other.example.com/mcp"), false, admin_), IsOk());
  EXPECT_THAT(Bound(Stored().mcp_servers(0)), ElementsAre("https://other.example.com"));
  EXPECT_THAT(vault_.Look(key).pinned, ElementsAre(2));

  auto silent = At("https://other.example.com/mcp");
  silent.clear_outbound_headers();
  ASSERT_THAT(catalog_->Update(silent, false, admin_), IsOk());
  EXPECT_FALSE(Stored().mcp_servers(0).has_binding());
  ASSERT_THAT(catalog_->Update(At("https://other.example.com/mcp"), false, admin_), IsOk());
  EXPECT_EQ(Stored().mcp_servers(0).binding().version(), 2) << "taken into use again";
  ASSERT_THAT(catalog_->Update(silent, false, admin_), IsOk());
  ASSERT_THAT(catalog_->Update(At("https://api.example.com/mcp"), false, admin_), IsOk());
  EXPECT_THAT(Bound(Stored().mcp_servers(0)), ElementsAre("https://api.example.com"));
  EXPECT_THAT(vault_.Look(key).pinned, ElementsAre(3)) << "the former one is erased";
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("a", 0, admin_), IsOk());
  EXPECT_THAT(vault_.Keys(), IsEmpty());
  EXPECT_THAT(Ledger(), IsEmpty());
}

TEST_P(BindingTest, TheFirstServersOriginMakesTheAppsBindingInTheSameSave) {
  ASSERT_THAT(catalog_->Create(FromJson<v1::App>(kApp), false, admin_), IsOk());
  EXPECT_FALSE(Stored().apps(0).has_binding());
  ASSERT_THAT(catalog_->Create(FromJson<v1::McpServer>(kOAuth), false, admin_), IsOk());
  EXPECT_THAT(Bound(Stored().apps(0)), ElementsAre("https://api.example.com"));
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("gh", 0, admin_), IsOk());
  ASSERT_THAT(catalog_->Delete<v1::App>("github", 0, admin_), IsOk());
  EXPECT_THAT(vault_.Keys(), ElementsAre(::testing::HasSubstr("app_secret"))) << "for what it owes its users";
  clock_.Advance(Catalog::kLinksInFlight);
  ASSERT_THAT(catalog_->FinishApp(Stored().ending_apps(0).uid()), IsOk());
  EXPECT_THAT(vault_.Keys(), IsEmpty());
}

TEST_P(BindingTest, WhereAnAppAsksWhoseAnAccountIsIsSealedToo) {
  auto app = FromJson<v1::App>(kApp);
  app.mutable_account_identity()->set_userinfo_url("https://who.example.com/me");
  ASSERT_THAT(catalog_->Create(app, false, admin_), IsOk());
  EXPECT_FALSE(Stored().apps(0).has_binding());
  ASSERT_THAT(catalog_->Create(FromJson<v1::McpServer>(kOAuth), false, admin_), IsOk())
      << "the first server's administrator need not be the one who may change a binding";
  EXPECT_THAT(Bound(Stored().apps(0)), ElementsAre("https://api.example.com", "https://who.example.com"));
  app.mutable_account_identity()->set_userinfo_url("https://other.example.com/me");
  ASSERT_THAT(catalog_->Update(app, false, chief_), IsOk());
  EXPECT_THAT(Bound(Stored().apps(0)), ElementsAre("https://api.example.com", "https://other.example.com"));
  app.clear_account_identity();
  ASSERT_THAT(catalog_->Update(app, false, chief_), IsOk());
  EXPECT_THAT(Bound(Stored().apps(0)), ElementsAre("https://api.example.com"));
}

TEST_P(BindingTest, AnAppsBindingKeepsItsNameWhenItsOriginsChange) {
  auto app = FromJson<v1::App>(kApp);
  app.add_allowed_upstream_origins("https://api.example.com");
  ASSERT_THAT(catalog_->Create(app, false, chief_), IsOk());
  const std::string key = "app_binding " + Stored().apps(0).binding().vault_record();
  const std::string name = vault_.Look(key).versions.at(1);
  app.add_allowed_upstream_origins("https://b.example.com");
  ASSERT_THAT(catalog_->Update(app, false, chief_), IsOk());
  EXPECT_EQ(Stored().apps(0).binding().version(), 2);
  EXPECT_THAT(Bound(Stored().apps(0)), ElementsAre("https://api.example.com", "https://b.example.com"));
  EXPECT_EQ(vault_.Look(key).versions.at(2), name);
  EXPECT_THAT(vault_.Look(key).pinned, ElementsAre(2));
}

TEST_P(BindingTest, WhatADeadWriterLeftDoesNotHoldUpAnAppsFirstBinding) {
  ASSERT_THAT(catalog_->Create(FromJson<v1::App>(kApp), false, admin_), IsOk());
  before_step_ = [dead = false](absl::string_view step) mutable {
    dead = dead || step == "commit";
    return dead ? absl::CancelledError("killed") : absl::OkStatus();
  };
  ASSERT_FALSE(catalog_->Create(FromJson<v1::McpServer>(kOAuth), false, admin_).ok());
  before_step_ = nullptr;
  ASSERT_THAT(catalog_->Create(FromJson<v1::McpServer>(kOAuth), false, admin_), IsOk());
  EXPECT_THAT(Bound(Stored().apps(0)), ElementsAre("https://api.example.com"));
  EXPECT_THAT(vault_.Look("app_binding " + Stored().apps(0).binding().vault_record()).pinned,
              ElementsAre(Stored().apps(0).binding().version()));
}

TEST_P(BindingTest, ACredentialsNewOriginsAreSealedWithoutItsValue) {
  ASSERT_THAT(Create<v1::Credential>(kCredential), IsOk());
  const v1::Credential before = Stored().credentials(0);
  clock_.Advance(absl::Hours(1));
  auto credential = FromJson<v1::Credential>(kCredential);
  credential.clear_value();
  credential.set_allowed_upstream_origins(0, "https://b.example.com");
  ASSERT_OK_AND_ASSIGN(const auto preview, Apply(R"({"credentials": [{"slug": "c", "kind": "API_KEY",
      "allowedUpstreamOrigins": ["https://b.example.com"]}]})",
                                                 chief_));
  ASSERT_EQ(preview.results(0).changes_size(), 1) << "the value has not changed";
  const v1::Credential after = Stored().credentials(0);
  EXPECT_EQ(after.value().version(), 2);
  EXPECT_EQ(after.value().updated_at().seconds(), before.value().updated_at().seconds());
  const FakeVault::Held record = vault_.Look("credential " + after.value().vault_record());
  EXPECT_EQ(record.versions.at(2), "k");
  EXPECT_THAT(record.origins.at(2), ElementsAre("https://b.example.com"));
  EXPECT_THAT(record.pinned, ElementsAre(2));
}

TEST_P(BindingTest, AVaultThatRefusesABindingLeavesNothingBehind) {
  ASSERT_THAT(Create<v1::Credential>(kCredential), IsOk());
  Writer visitor = chief_;
  visitor.passport = sallyport::testing::FakePassport("local:visitor");  // The vault believes no claim of the registry.
  auto credential = FromJson<v1::Credential>(kCredential);
  credential.clear_value();
  credential.set_allowed_upstream_origins(0, "https://evil.example.com");
  EXPECT_THAT(catalog_->Update(credential, false, visitor), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Stored().credentials(0).allowed_upstream_origins(), ElementsAre("https://api.example.com"));
  visitor.passport = "";
  EXPECT_THAT(catalog_->Create(FromJson<v1::McpServer>(kForwards), false, visitor), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Stored().mcp_servers(), IsEmpty());
  EXPECT_THAT(vault_.Keys(), Not(Contains(::testing::HasSubstr("server_binding"))));
}

}  // namespace
}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
// Deleted apps, which are kept until their users' tokens are revoked.
#include "absl/strings/str_cat.h"

#include "common/metrics.h"
#include "services/registry/catalog_testing.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using Code = absl::StatusCode;

class CatalogEndingsTest : public CatalogTest {
 protected:
  // With a binding. Deleted by somebody who may not move a credential.
  v1::App Delete(const std::string& slug = "github") {
    auto app = FromJson<v1::App>(kApp);
    app.set_slug(slug);
    app.add_allowed_upstream_origins("https://api.example.com");
    EXPECT_THAT(catalog_->Create(app, false, chief_), IsOk());
    EXPECT_THAT(catalog_->Delete<v1::App>(slug, 0, admin_), IsOk());
    const auto ending = Stored().ending_apps();
    for (const v1::App& found : ending) {
      if (found.slug() == slug) return found;
    }
    ADD_FAILURE() << "not kept";
    return v1::App();
  }
  // Long enough after the deletion.
  absl::Status Finish(const std::string& uid) {
    clock_.Advance(Catalog::kLinksInFlight);
    return catalog_->FinishApp(uid);
  }
  static std::string SecretOf(const v1::App& app) { return "app_secret " + app.uid() + "/client_secret"; }
};
INSTANTIATE_ENGINES(CatalogEndingsTest);

TEST_P(CatalogEndingsTest, ADeletedAppKeepsItsClientAndSecretAndNothingElse) {
  const v1::App ending = Delete();
  EXPECT_EQ(ending.client_id(), "me");
  EXPECT_EQ(ending.token_url(), "https://idp.example.com/token");
  EXPECT_FALSE(ending.has_binding());
  EXPECT_THAT(vault_.Keys(), ElementsAre(SecretOf(ending))) << "the binding is gone: its tokens may go nowhere";
  EXPECT_EQ(vault_.Look(SecretOf(ending)).versions.at(ending.client_secret().version()), "s3cret");
  EXPECT_THAT(Ledger(), ElementsAre("client_secret 1 LIVE"));
  EXPECT_THAT(Stored().apps(), IsEmpty());
  EXPECT_THAT(catalog_->Get<v1::App>("github"), StatusIs(Code::kNotFound));
  std::string next;
  ASSERT_OK_AND_ASSIGN(const auto all, catalog_->List<v1::App>(0, "", &next));
  EXPECT_THAT(all, IsEmpty());
  EXPECT_THAT(Refused(catalog_->Create(FromJson<v1::McpServer>(kOAuth), false, admin_).status()),
              ElementsAre("appAuth.oauthAuthorization.app"));
  EXPECT_THAT(catalog_->Delete<v1::App>("github", 0, chief_), StatusIs(Code::kNotFound));
}

TEST_P(CatalogEndingsTest, NoSweepErasesTheSecretHoweverLateTheBrokerIs) {
  const v1::App ending = Delete();
  for (int day = 0; day < 40; ++day) {
    clock_.Advance(absl::Hours(24));
    ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  }
  EXPECT_THAT(vault_.Look(SecretOf(ending)).pinned, ElementsAre(1));
  ASSERT_THAT(Write(SecretLedger::RecordReferences), IsOk()) << "as at every start";
  EXPECT_THAT(Ledger(), ElementsAre("client_secret 1 LIVE"));
}

TEST_P(CatalogEndingsTest, TheSlugIsFreeAtOnceAndTheNextAppSharesNothingWithTheFormer) {
  const v1::App ending = Delete();
  EXPECT_THAT(Refused(catalog_
                          ->Create(FromJson<v1::App>(R"({"slug": "github", "tokenUrl": "https://evil.example.com/t",
      "authorizationUrl": "https://evil.example.com/a", "clientId": "me", "clientAuth": "POST"})"),
                                   false, admin_)
                          .status()),
              ElementsAre("clientAuth"))
      << "the former secret is not to be had";
  ASSERT_THAT(catalog_->Create(FromJson<v1::App>(kApp), false, admin_), IsOk());
  const auto stored = Stored();
  ASSERT_THAT(stored.apps(), SizeIs(1));
  ASSERT_THAT(stored.ending_apps(), SizeIs(1));
  EXPECT_NE(stored.apps(0).uid(), ending.uid());
  ASSERT_THAT(Finish(ending.uid()), IsOk());
  EXPECT_THAT(vault_.Keys(), ElementsAre(SecretOf(stored.apps(0)))) << "finishing one leaves the other";
  const v1::App second = Delete("other");
  ASSERT_THAT(catalog_->Delete<v1::App>("github", 0, admin_), IsOk());
  EXPECT_THAT(Stored().ending_apps(), SizeIs(2));
  EXPECT_THAT(vault_.Keys(), UnorderedElementsAre(SecretOf(stored.apps(0)), SecretOf(second)));
}

TEST_P(CatalogEndingsTest, FinishingErasesTheSecretAndIsAuditedOnce) {
  const v1::App ending = Delete();
  ASSERT_THAT(Finish(ending.uid()), IsOk());
  EXPECT_THAT(vault_.Keys(), IsEmpty());
  EXPECT_THAT(Ledger(), IsEmpty());
  EXPECT_THAT(Stored().ending_apps(), IsEmpty());
  const int64_t revision = Revision();
  EXPECT_THAT(catalog_->FinishApp(ending.uid()), IsOk()) << "another replica of the broker says it, too";
  EXPECT_THAT(catalog_->FinishApp("app_nowhere"), IsOk());
  EXPECT_EQ(Revision(), revision);
  std::vector<audit::v1::Event> finished;
  for (const auto& event : Events()) {
    if (event.type() == "config.app_finished") finished.push_back(event);
  }
  ASSERT_THAT(finished, SizeIs(1));
  EXPECT_EQ(finished[0].decision(), audit::v1::DECISION_ALLOWED);
  EXPECT_EQ(finished[0].rule(), "nothing_owed");
  EXPECT_EQ(finished[0].subject(), "");
  const auto& details = finished[0].details();
  EXPECT_EQ(details.at("kind"), "App");
  EXPECT_EQ(details.at("slug"), "github");
  EXPECT_EQ(details.at("uid"), ending.uid());
  EXPECT_EQ(finished[0].SerializeAsString().find("s3cret"), std::string::npos);
}

// Who was on the way back from the provider links an account still: the broker has to see it while the client is there.
TEST_P(CatalogEndingsTest, NothingIsFinishedWhileALinkMayBeInFlight) {
  const v1::App ending = Delete();
  const int64_t revision = Revision();
  EXPECT_THAT(catalog_->FinishApp(ending.uid()), StatusIs(Code::kFailedPrecondition));
  clock_.Advance(Catalog::kLinksInFlight - absl::Seconds(1));
  EXPECT_THAT(catalog_->FinishApp(ending.uid()), StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(Revision(), revision);
  EXPECT_THAT(Stored().ending_apps(), SizeIs(1));
  EXPECT_THAT(vault_.Look(SecretOf(ending)).pinned, ElementsAre(1));
  clock_.Advance(absl::Seconds(1));
  ASSERT_THAT(catalog_->FinishApp(ending.uid()), IsOk());
  EXPECT_THAT(vault_.Keys(), IsEmpty());
}

// A broker that somebody else controls.
TEST_P(CatalogEndingsTest, FinishingALiveAppDoesNothing) {
  ASSERT_THAT(Create<v1::App>(kApp), IsOk());
  const v1::App app = Stored().apps(0);
  const int64_t revision = Revision();
  EXPECT_THAT(catalog_->FinishApp(app.uid()), IsOk());
  EXPECT_THAT(catalog_->FinishApp("github"), IsOk());
  EXPECT_THAT(Refused(catalog_->FinishApp("")), ElementsAre("appUid"));
  EXPECT_EQ(Revision(), revision);
  EXPECT_THAT(vault_.Look(SecretOf(app)).pinned, ElementsAre(1));
  EXPECT_THAT(Stored().apps(), SizeIs(1));
}

TEST_P(CatalogEndingsTest, TheVaultMayBeDownForBothAndCatchesUp) {
  vault_.SetDown(false);
  auto app = FromJson<v1::App>(kApp);
  app.add_allowed_upstream_origins("https://api.example.com");
  ASSERT_THAT(catalog_->Create(app, false, chief_), IsOk());
  const v1::App stored = Stored().apps(0);
  vault_.SetDown(true);
  ASSERT_THAT(catalog_->Delete<v1::App>("github", 0, admin_), IsOk());
  EXPECT_THAT(vault_.Keys(), SizeIs(2));
  vault_.SetDown(false);
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(vault_.Keys(), ElementsAre(SecretOf(stored)));
  vault_.SetDown(true);
  ASSERT_THAT(Finish(stored.uid()), IsOk());
  EXPECT_THAT(vault_.Keys(), SizeIs(1));
  vault_.SetDown(false);
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(vault_.Keys(), IsEmpty());
  EXPECT_THAT(Ledger(), IsEmpty());
}

TEST_P(CatalogEndingsTest, APublicAppAndOneThatCannotRevokeAreKeptAsWell) {
  auto app = FromJson<v1::App>(kApp);
  app.clear_client_secret();
  ASSERT_THAT(catalog_->Create(app, false, admin_), IsOk());
  ASSERT_THAT(catalog_->Delete<v1::App>("github", 0, admin_), IsOk());
  const auto ending = Stored().ending_apps();
  ASSERT_THAT(ending, SizeIs(1)) << "what its users have linked is ended by the broker";
  EXPECT_THAT(vault_.Keys(), IsEmpty());
  ASSERT_THAT(Finish(ending[0].uid()), IsOk());
  EXPECT_THAT(Stored().ending_apps(), IsEmpty());
}

TEST_P(CatalogEndingsTest, AfterThirtyDaysItIsFinishedWhoeverStillWaits) {
  const v1::App ending = Delete();
  clock_.Advance(absl::Hours(24 * 30) - absl::Minutes(1));
  const v1::App late = Delete("late");
  ASSERT_THAT(catalog_->FinishOldApps(), IsOk());
  EXPECT_THAT(Stored().ending_apps(), SizeIs(2));
  EXPECT_THAT(SerializeMetrics(), HasSubstr("sallyport_registry_ending_apps 2"));
  clock_.Advance(absl::Minutes(1));
  const auto other = Open();
  ASSERT_THAT(catalog_->FinishOldApps(), IsOk());
  ASSERT_THAT(MakeCatalog(*other)->FinishOldApps(), IsOk()) << "another replica";
  const auto stored = Stored();
  ASSERT_THAT(stored.ending_apps(), SizeIs(1));
  EXPECT_EQ(stored.ending_apps(0).uid(), late.uid());
  EXPECT_THAT(vault_.Keys(), ElementsAre(SecretOf(late)));
  EXPECT_THAT(SerializeMetrics(), HasSubstr("sallyport_registry_ending_apps 1"));
  std::vector<std::string> finished;
  for (const auto& event : Events()) {
    if (event.type() == "config.app_finished")
      finished.push_back(absl::StrCat(event.rule(), " ", event.details().at("uid")));
  }
  EXPECT_THAT(finished, ElementsAre("kept_too_long " + ending.uid()));
}

TEST_P(CatalogEndingsTest, AnEndingRowThatDoesNotParseGoesAllTheSame) {
  const v1::App ending = Delete();
  ASSERT_THAT(Write([](Transaction& tx) {
                return tx.Exec("UPDATE ending_app SET body = :body", {{"body", Bytes{"\xff"}}}).status();
              }),
              IsOk());
  ASSERT_THAT(Finish(ending.uid()), IsOk());
  EXPECT_THAT(vault_.Keys(), IsEmpty());
  EXPECT_EQ(Events().back().details().at("uid"), ending.uid());
}

}  // namespace
}  // namespace sallyport::registry

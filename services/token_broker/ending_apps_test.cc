// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/ending_apps.h"

#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "services/token_broker/testing/background_test_base.h"

namespace sallyport::token_broker {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::Not;

class EndingAppsTest : public testing::BackgroundTestBase {
 protected:
  void SetUp() override {
    BackgroundTestBase::SetUp();
    peers_.vault.SetAdopted(true);  // Else nothing tells an app that is gone from one that has no binding yet.
    PutSecret("app_binding", absl::StrCat(kUp, "/binding"), "binding-of-up", {kOrigin});
  }
  // As the registry does, and the control stream has said so.
  void DeleteApp(const std::string& uid) {
    DeleteBinding(uid);
    peers_.registry.EndApp(uid);
    EXPECT_TRUE(Await([&] { return control_->snapshot()->EndingAppByUid(uid) != nullptr; }));
  }
  void DeleteBinding(const std::string& uid) {
    vault::v1::DeleteRequest request;
    *request.mutable_record() = OrganizationRecord("app_binding", absl::StrCat(uid, "/binding"));
    EXPECT_TRUE(peers_.vault.Delete(testing::FakeVaultClient::Registry(), request).ok());
  }
};

TEST_F(EndingAppsTest, ADeletedAppsTokensAreRevokedWithItsClientAndThenItIsFinished) {
  for (int i = 0; i < 60; ++i) PutLinked(absl::StrCat("corp:user", i), kApp, absl::StrCat("rt", i));
  PutLinked("corp:user0", kUp, "rt-up");
  DeleteApp(kApp);

  EXPECT_TRUE(ending_apps_->RunOnce());
  EXPECT_THAT(peers_.registry.finished(), IsEmpty()) << "sixty are owed";
  background_->RunOnce();
  ending_apps_->RunOnce();

  EXPECT_TRUE(Owed().empty());
  EXPECT_EQ(CountAsked("/revoke"), 120);
  EXPECT_THAT(peers_.registry.finished(), ElementsAre(kApp));
  EXPECT_TRUE(IsThere({"corp:user0", kUp}));
  EXPECT_THAT(Audited(), IsSupersetOf({"link.disconnected app_deleted corp:user7", "link.revoked revoked corp:user7"}));
  EXPECT_TRUE(Await([&] { return control_->snapshot()->ending_apps_by_uid.empty(); }));
  EXPECT_FALSE(ending_apps_->RunOnce());
}

TEST_F(EndingAppsTest, WhileItsProviderIsAwayAnAppKeepsItsClient) {
  Answer(503);
  PutLinked("corp:ada", kApp, "rt0");
  DeleteApp(kApp);
  ending_apps_->RunOnce();
  background_->RunOnce();

  ending_apps_->RunOnce();
  EXPECT_THAT(peers_.registry.finished(), IsEmpty()) << "put off, and owed still";
  clock_for_all_.Advance(absl::Hours(24 * 8));
  background_->RunOnce();
  ending_apps_->RunOnce();

  EXPECT_THAT(peers_.registry.finished(), ElementsAre(kApp));
  EXPECT_THAT(Audited(), Contains("link.revocation_abandoned provider_unavailable corp:ada"));
}

TEST_F(EndingAppsTest, AnAppWithoutConnectionsIsFinishedAtOnce) {
  DeleteApp(kApp);
  ending_apps_->RunOnce();
  EXPECT_THAT(peers_.registry.finished(), ElementsAre(kApp));
}

// Whoever was on the way back from the provider when it was deleted.
TEST_F(EndingAppsTest, ALinkInFlightIsRevokedBeforeTheAppIsFinished) {
  peers_.registry.SetFinishRefused(true);
  DeleteApp(kApp);
  EXPECT_TRUE(ending_apps_->RunOnce());
  PutLinked("corp:late", std::string(kApp) + "/work", "rt-late");
  ending_apps_->RunOnce();
  EXPECT_FALSE(IsThere({"corp:late", std::string(kApp) + "/work"}));
  background_->RunOnce();
  peers_.registry.SetFinishRefused(false);
  ending_apps_->RunOnce();

  EXPECT_THAT(asked(), Contains("/revoke rt-late"));
  EXPECT_THAT(peers_.registry.finished(), ElementsAre(kApp));
  std::vector<std::string> accounts;
  for (const audit::v1::Event& event : Events()) {
    if (event.type() == "link.disconnected") accounts.push_back(event.details().at("account"));
  }
  EXPECT_THAT(accounts, ElementsAre("work"));
}

// A registry that lies about an app takes nobody's connections while the vault says where their tokens may go.
TEST_F(EndingAppsTest, WhileTheBindingIsThereNothingEnds) {
  PutLinked("corp:ada", kApp, "rt0");
  peers_.registry.EndApp(kApp);
  ASSERT_TRUE(Await([&] { return control_->snapshot()->EndingAppByUid(kApp) != nullptr; }));

  ending_apps_->RunOnce();

  EXPECT_TRUE(IsThere({"corp:ada", kApp}));
  EXPECT_THAT(peers_.registry.finished(), IsEmpty());
  DeleteBinding(kApp);
  ending_apps_->RunOnce();
  EXPECT_FALSE(IsThere({"corp:ada", kApp}));
}

TEST_F(EndingAppsTest, ForAnythingElseTheAppIsGone) {
  PutLinked("corp:ada", kApp, "rt0");
  DeleteApp(kApp);

  EXPECT_EQ(connections_->SourceFor(kApp)().status().code(), absl::StatusCode::kFailedPrecondition);
  MakeDue("corp:ada", kApp, "OK");
  background_->RunOnce();
  EXPECT_EQ(CountAsked("/token"), 0) << "nothing is renewed with its client";
}

TEST_F(EndingAppsTest, ReplicasMayAllDoIt) {
  for (int i = 0; i < 150; ++i) PutLinked(absl::StrCat("corp:user", i), kApp, absl::StrCat("rt", i));
  DeleteApp(kApp);
  EndingApps other(peers_.Channel(), *control_, peers_.vault, *invalidations_, background_->revocations(), *audit_,
                   clock_);

  std::thread replica([&] { other.RunOnce(); });
  ending_apps_->RunOnce();
  replica.join();
  EXPECT_EQ(Owed().size(), 150U);
  background_->RunOnce();
  ending_apps_->RunOnce();
  other.RunOnce();

  EXPECT_TRUE(Owed().empty());
  EXPECT_EQ(CountAsked("/revoke"), 300);
  EXPECT_THAT(peers_.registry.finished(), AllOf(Not(IsEmpty()), Each(kApp)));
}

TEST_F(EndingAppsTest, ARunningBrokerDoesItByItself) {
  PutLinked("corp:ada", kApp, "rt0");
  StartBroker();
  DeleteApp(kApp);

  EXPECT_TRUE(Await([&] { return !peers_.registry.finished().empty(); }));

  EXPECT_FALSE(IsThere({"corp:ada", kApp}));
  EXPECT_TRUE(Owed().empty());
  EXPECT_THAT(asked(), Contains("/revoke rt0"));
}

}  // namespace
}  // namespace sallyport::token_broker

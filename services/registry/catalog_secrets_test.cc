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

class CatalogSecretsTest : public CatalogTest {};
INSTANTIATE_ENGINES(CatalogSecretsTest);

TEST_P(CatalogSecretsTest, ANewValuePinsTheNewVersionAndReleasesTheOld) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  std::string next = kBearer;
  next.replace(next.find("hunter2"), 7, "hunter3");
  ASSERT_OK_AND_ASSIGN(const auto written, Update<v1::McpServer>(next));
  EXPECT_EQ(written.resource.version(), 2);
  EXPECT_EQ(written.resource.app_auth().bearer().token().version(), 2);
  EXPECT_THAT(vault_.Look(BearerKey()).pinned, ElementsAre(2));
}

TEST_P(CatalogSecretsTest, SwitchingTypeAndBackWithinThirtyDaysRestoresTheSecret) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  const std::string key = BearerKey();
  ASSERT_THAT(Update<v1::McpServer>(kOpen), IsOk());
  EXPECT_THAT(vault_.Look(key).pinned, ElementsAre(1)) << "kept";
  clock_.Advance(absl::Hours(24 * 29));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  ASSERT_OK_AND_ASSIGN(const auto back, Update<v1::McpServer>(kBearerNoValue));
  EXPECT_TRUE(back.resource.app_auth().bearer().token().set());
  EXPECT_EQ(back.resource.app_auth().bearer().token().version(), 1);
  clock_.Advance(absl::Hours(24 * 31));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_EQ(vault_.Look(key).versions.at(1), "hunter2") << "in use again: no longer on the list";
}

TEST_P(CatalogSecretsTest, AfterThirtyDaysAFormerSecretIsErasedAndMustBeGivenAgain) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  ASSERT_THAT(Update<v1::McpServer>(kOpen), IsOk());
  clock_.Advance(absl::Hours(24 * 30));
  EXPECT_THAT(Refused(Update<v1::McpServer>(kBearerNoValue).status()), ElementsAre("appAuth.bearer.token"));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(vault_.Keys(), IsEmpty());
  ASSERT_THAT(Update<v1::McpServer>(kBearer), IsOk());
  EXPECT_THAT(vault_.Keys(), SizeIs(1));
}

TEST_P(CatalogSecretsTest, AFormerSecretCannotBeCarriedToAnotherOrigin) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  auto moved = FromJson<v1::McpServer>(kOpen);
  moved.set_upstream_url("https://evil.example.com/");
  ASSERT_THAT(catalog_->Update(moved, false, admin_), IsOk());
  auto back = FromJson<v1::McpServer>(kBearerNoValue);
  back.set_upstream_url("https://evil.example.com/");
  EXPECT_THAT(Refused(catalog_->Update(back, false, admin_).status()),
              UnorderedElementsAre("appAuth.bearer.token", "upstreamUrl"));
}

TEST_P(CatalogSecretsTest, ANewValueAtSwitchingBackReleasesTheFormerVersion) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  ASSERT_THAT(Update<v1::McpServer>(kOpen), IsOk());
  std::string other = kBearer;
  other.replace(other.find("hunter2"), 7, "hunter3");
  ASSERT_THAT(Update<v1::McpServer>(other), IsOk());
  EXPECT_THAT(vault_.Look(BearerKey()).pinned, ElementsAre(2));
  clock_.Advance(absl::Hours(24 * 31));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(vault_.Keys(), SizeIs(1));
}

TEST_P(CatalogSecretsTest, ClearRemovesFromTheVaultEvenIfItIsDownAtFirst) {
  ASSERT_THAT(Create<v1::App>(kApp), IsOk());
  auto app = FromJson<v1::App>(kApp);
  app.mutable_client_secret()->set_clear(true);
  vault_.SetDown(true);
  ASSERT_OK_AND_ASSIGN(const auto written, catalog_->Update(app, false, chief_));
  EXPECT_FALSE(written.resource.client_secret().set());
  EXPECT_THAT(vault_.Keys(), SizeIs(1));
  EXPECT_FALSE(catalog_->EraseUnusedSecrets().ok());
  vault_.SetDown(false);
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(vault_.Keys(), IsEmpty());
}

TEST_P(CatalogSecretsTest, ASealedVaultStopsAWriteWithASecretAndNothingIsStored) {
  vault_.SetDown(true);
  EXPECT_THAT(Create<v1::McpServer>(kBearer), StatusIs(Code::kUnavailable));
  EXPECT_THAT(Stored().mcp_servers(), IsEmpty());
  EXPECT_THAT(Events(), IsEmpty());
  EXPECT_THAT(Create<v1::McpServer>(kOpen), IsOk()) << "without a secret nobody asks it";
}

TEST_P(CatalogSecretsTest, DeletingErasesAllSecretsAndTheNextOfThatSlugInheritsNothing) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  const std::string uid = Stored().mcp_servers(0).uid();
  ASSERT_THAT(Update<v1::McpServer>(R"({"slug": "a", "upstreamUrl": "https://api.example.com/mcp",
      "agentAuth": {"interactive": {"allow": {"everyone": true}}},
      "appAuth": {"apiKey": {"name": "X-Key", "value": {"value": "k"}}}})"),
              IsOk());
  EXPECT_THAT(vault_.Keys(), SizeIs(2)) << "one in use, one of the former type";
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("a", 0, admin_), IsOk());
  EXPECT_THAT(vault_.Keys(), IsEmpty());
  EXPECT_THAT(catalog_->Delete<v1::McpServer>("a", 0, admin_), StatusIs(Code::kNotFound));
  EXPECT_THAT(Refused(Create<v1::McpServer>(kBearerNoValue).status()), ElementsAre("appAuth.bearer.token"));
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  EXPECT_NE(Stored().mcp_servers(0).uid(), uid);
}

TEST_P(CatalogSecretsTest, WhatTheVaultCouldNotEraseAtDeletionIsErasedLater) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  vault_.SetDown(true);
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("a", 0, admin_), IsOk());
  EXPECT_THAT(vault_.Keys(), SizeIs(1));
  vault_.SetDown(false);
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(vault_.Keys(), IsEmpty());
}

}  // namespace
}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#include "services/registry/catalog.h"

#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"

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

INSTANTIATE_ENGINES(CatalogTest);

TEST_P(CatalogTest, CreatesWithTheSecretInTheVaultAndNowhereElse) {
  ASSERT_OK_AND_ASSIGN(const auto written, Create<v1::McpServer>(kBearer));
  EXPECT_EQ(written.resource.uid().substr(0, 4), "srv_");
  EXPECT_EQ(written.resource.version(), 1);
  EXPECT_TRUE(written.resource.enabled());
  EXPECT_TRUE(written.resource.app_auth().bearer().token().set());
  EXPECT_EQ(written.resource.app_auth().bearer().token().version(), 1);
  EXPECT_THAT(written.resource.app_auth().bearer().token().vault_record(), IsEmpty()) << "not for the API";
  EXPECT_THAT(written.resource.app_auth().bearer().token().value(), IsEmpty());

  const v1::McpServer stored = Stored().mcp_servers(0);
  EXPECT_EQ(stored.app_auth().bearer().token().vault_record(), stored.uid() + "/app_auth.bearer.token");
  EXPECT_EQ(stored.SerializeAsString().find("hunter2"), std::string::npos);
  const FakeVault::Held record = vault_.Look(BearerKey());
  EXPECT_EQ(record.versions.at(1), "hunter2");
  EXPECT_THAT(record.pinned, ElementsAre(1));
  EXPECT_EQ(record.passport, chief_.passport) << "the vault's audit names the administrator";
}

TEST_P(CatalogTest, TheValueIsInNoDatabaseFile) {
  if (GetParam() == Engine::kPostgresql) GTEST_SKIP() << "files are the server's";
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  for (const auto& file : std::filesystem::directory_iterator(directory_.path())) {
    std::ifstream in(file.path(), std::ios::binary);
    const std::string content((std::istreambuf_iterator<char>(in)), {});
    EXPECT_EQ(content.find("hunter2"), std::string::npos) << file.path();
    EXPECT_EQ(content.find("aHVudGVyMg"), std::string::npos) << file.path();
  }
}

TEST_P(CatalogTest, ReadsShowNoSecretAndNoRecord) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  ASSERT_OK_AND_ASSIGN(const v1::McpServer server, catalog_->Get<v1::McpServer>("a"));
  EXPECT_TRUE(server.app_auth().bearer().token().set());
  EXPECT_THAT(server.app_auth().bearer().token().vault_record(), IsEmpty());
  std::string next;
  ASSERT_OK_AND_ASSIGN(const auto all, catalog_->List<v1::McpServer>(0, "", &next));
  ASSERT_THAT(all, SizeIs(1));
  EXPECT_THAT(all[0].app_auth().bearer().token().vault_record(), IsEmpty());
  EXPECT_THAT(catalog_->Get<v1::McpServer>("nope"), StatusIs(Code::kNotFound));
}

TEST_P(CatalogTest, PagesBySlug) {
  for (const char* slug : {"b", "d", "a", "c"}) {
    auto server = FromJson<v1::McpServer>(kOpen);
    server.set_slug(slug);
    ASSERT_THAT(catalog_->Create(server, false, admin_), IsOk());
  }
  std::string next;
  std::vector<std::string> slugs;
  std::string token;
  do {
    ASSERT_OK_AND_ASSIGN(const auto page, catalog_->List<v1::McpServer>(3, token, &next));
    for (const auto& server : page) slugs.push_back(server.slug());
    token = next;
  } while (!token.empty());
  EXPECT_THAT(slugs, ElementsAre("a", "b", "c", "d"));
  EXPECT_THAT(catalog_->List<v1::McpServer>(1001, "", &next), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(catalog_->List<v1::McpServer>(-1, "", &next), StatusIs(Code::kInvalidArgument));
}

TEST_P(CatalogTest, RefusalsNameEveryFieldAndStoreNothing) {
  EXPECT_THAT(
      Refused(Create<v1::McpServer>(R"({"slug": "oauth", "appAuth": {"bearer": {"token": {"value": "v"}}}})").status()),
      UnorderedElementsAre("slug", "upstreamUrl", "agentAuth"));
  EXPECT_THAT(Stored().mcp_servers(), IsEmpty());
  EXPECT_THAT(vault_.Keys(), IsEmpty());
  EXPECT_EQ(Revision(), 0);
  EXPECT_THAT(Create<v1::McpServer>(kOpen), IsOk());
  EXPECT_THAT(Create<v1::McpServer>(kOpen), StatusIs(Code::kAlreadyExists));
  EXPECT_THAT(Update<v1::App>(kApp), StatusIs(Code::kNotFound));
}

TEST_P(CatalogTest, ADryRunAnswersAsIfSavedAndStoresNothing) {
  ASSERT_OK_AND_ASSIGN(const auto preview, Create<v1::McpServer>(kBearer, true));
  EXPECT_EQ(preview.resource.version(), 1);
  EXPECT_EQ(vault_.puts(), 0);
  EXPECT_EQ(Revision(), 0);
  EXPECT_THAT(Events(), IsEmpty());
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  auto changed = FromJson<v1::McpServer>(kBearerNoValue);
  changed.set_description("x");
  ASSERT_OK_AND_ASSIGN(const auto update, catalog_->Update(changed, true, admin_));
  EXPECT_EQ(update.resource.version(), 2);
  EXPECT_EQ(Stored().mcp_servers(0).version(), 1);
  EXPECT_EQ(Revision(), 1);
}

TEST_P(CatalogTest, AnUpdateThatChangesNothingMakesNoVersion) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  clock_.Advance(absl::Seconds(10));
  for (const char* same : {kBearerNoValue, kBearer}) {
    ASSERT_OK_AND_ASSIGN(const auto written, Update<v1::McpServer>(same));
    EXPECT_EQ(written.resource.version(), 1);
    EXPECT_EQ(written.resource.app_auth().bearer().token().version(), 1);
  }
  EXPECT_EQ(Revision(), 1);
  EXPECT_THAT(Events(), SizeIs(1));
}

TEST_P(CatalogTest, VersionConflictsAreAborted) {
  ASSERT_THAT(Create<v1::McpServer>(kOpen), IsOk());
  auto server = FromJson<v1::McpServer>(kOpen);
  server.set_description("first");
  server.set_version(1);
  ASSERT_THAT(catalog_->Update(server, false, admin_), IsOk());
  server.set_description("second");
  EXPECT_THAT(catalog_->Update(server, false, admin_), StatusIs(Code::kAborted));
  EXPECT_THAT(catalog_->Delete<v1::McpServer>("a", 1, admin_), StatusIs(Code::kAborted));
  server.set_version(0);
  EXPECT_THAT(catalog_->Update(server, false, admin_), IsOk()) << "0 overwrites";
  EXPECT_THAT(catalog_->Delete<v1::McpServer>("a", 3, admin_), IsOk());
}

TEST_P(CatalogTest, OfManyConcurrentWritersOfOneVersionExactlyOneWins) {
  ASSERT_THAT(Create<v1::McpServer>(kOpen), IsOk());
  std::atomic<int> won{0};
  std::atomic<int> aborted{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      auto server = FromJson<v1::McpServer>(kOpen);
      server.set_version(1);
      server.set_description(std::to_string(i));
      const auto written = catalog_->Update(server, false, admin_);
      if (written.ok()) ++won;
      if (absl::IsAborted(written.status())) ++aborted;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(won, 1);
  EXPECT_EQ(aborted, 5);
  EXPECT_EQ(Stored().mcp_servers(0).version(), 2);
}

TEST_P(CatalogTest, EveryWriteIsAuditedWithItsFieldsAndWithoutValues) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  std::string changed = kBearer;
  changed.replace(changed.find("hunter2"), 7, "hunter3");
  ASSERT_THAT(Update<v1::McpServer>(changed), IsOk());
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("a", 0, chief_), IsOk());
  const auto events = Events();
  ASSERT_THAT(events, SizeIs(3));
  EXPECT_EQ(events[0].type(), "config.created");
  EXPECT_EQ(events[0].subject(), "local:ada");
  EXPECT_EQ(events[0].client_id(), "cli");
  EXPECT_EQ(events[0].server_slug(), "a");
  EXPECT_EQ(events[0].decision(), audit::v1::DECISION_ALLOWED);
  EXPECT_EQ(events[1].type(), "config.updated");
  EXPECT_EQ(events[1].details().at("fields"), "appAuth.bearer.token");
  EXPECT_EQ(events[1].details().at("version"), "2");
  EXPECT_EQ(events[2].type(), "config.deleted");
  for (const auto& event : events) {
    EXPECT_EQ(event.source(), "registry");
    EXPECT_EQ(event.SerializeAsString().find("hunter"), std::string::npos);
  }
}

TEST_P(CatalogTest, WhatItsWriterMayNotDoIsAuditedWithoutValues) {
  const auto denied = [this](const absl::Status& status) {
    EXPECT_FALSE(status.ok());
    std::vector<std::string> found;
    for (const auto& event : Events()) {
      if (event.type() != "config.denied") continue;
      EXPECT_EQ(event.decision(), audit::v1::DECISION_DENIED);
      EXPECT_EQ(event.subject(), "local:ada");
      EXPECT_EQ(event.client_id(), "cli");
      EXPECT_EQ(event.SerializeAsString().find("hunter"), std::string::npos);
      const auto& details = event.details();
      const auto fields = details.find("fields");
      found.push_back(absl::StrCat(event.rule(), " ", details.at("kind"), " ", details.at("slug"), " ",
                                   fields == details.end() ? "-" : fields->second,
                                   details.contains("dry_run") ? " dry" : ""));
    }
    return found;
  };
  EXPECT_THAT(denied(Apply(File({}, {}, {kCredential}), admin_).status()),
              ElementsAre("credential_admin Credential c -"));
  ASSERT_THAT(Apply(File({kApp}, {kBearer}), admin_), IsOk());
  auto moved = FromJson<v1::McpServer>(kBearerNoValue);
  moved.set_upstream_url("https://evil.example.com/");
  EXPECT_THAT(denied(catalog_->Update(moved, false, chief_).status()),
              ElementsAre("secret_origin McpServer a appAuth.bearer.token upstreamUrl"));
  auto app = FromJson<v1::App>(kApp);
  app.add_allowed_upstream_origins("https://evil.example.com");
  EXPECT_THAT(denied(catalog_->Update(app, true, admin_).status()),
              ElementsAre("credential_admin App github allowedUpstreamOrigins dry"));
  EXPECT_THAT(denied(Update<v1::McpServer>(R"({"slug": "a"})").status()), IsEmpty()) << "a mistake is no attempt";
}

TEST_P(CatalogTest, SlugsMayBeTakenByTwoRacingCreatorsOnceOnly) {
  const auto other_database = Open();
  const auto other = MakeCatalog(*other_database);
  std::atomic<int> won{0};
  std::atomic<int> lost{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      const auto written = (i % 2 == 0 ? *catalog_ : *other).Create(FromJson<v1::McpServer>(kBearer), false, chief_);
      if (written.ok()) ++won;
      if (absl::IsAlreadyExists(written.status())) ++lost;
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(won, 1);
  EXPECT_EQ(lost, 3);
  EXPECT_THAT(vault_.Keys(), ElementsAre(BearerKey())) << "who lost leaves nothing in the vault";
}

}  // namespace
}  // namespace sallyport::registry

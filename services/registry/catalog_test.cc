// SPDX-License-Identifier: Apache-2.0
#include "services/registry/catalog.h"

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>

#include "common/error.h"
#include "common/status_macros.h"
#include "services/registry/registry_testing.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using Code = absl::StatusCode;
using Action = v1::ApplyResponse;

constexpr char kBearer[] = R"({"slug": "a", "upstreamUrl": "https://api.example.com/mcp",
    "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"bearer": {"token": {"value": "hunter2"}}}})";
constexpr char kBearerNoValue[] = R"({"slug": "a", "upstreamUrl": "https://api.example.com/mcp",
    "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"bearer": {}}})";
constexpr char kOpen[] = R"({"slug": "a", "upstreamUrl": "https://api.example.com/mcp",
    "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"passthrough": {}}})";
constexpr char kApp[] = R"({"slug": "github", "authorizationUrl": "https://idp.example.com/authorize",
    "tokenUrl": "https://idp.example.com/token", "clientId": "me", "clientSecret": {"value": "s3cret"}})";
constexpr char kOAuth[] = R"({"slug": "gh", "upstreamUrl": "https://api.example.com/mcp",
    "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"oauthAuthorization": {"app": "github"}}})";
constexpr char kCredential[] = R"({"slug": "c", "kind": "API_KEY", "value": {"value": "k"},
    "allowedUpstreamOrigins": ["https://api.example.com"]})";

class CatalogTest : public EngineTest {
 protected:
  void SetUp() override {
    EngineTest::SetUp();
    if (IsSkipped()) return;
    AuditOutbox::Options options;
    options.source = "registry";
    audit_ = std::make_unique<AuditOutbox>(*database_, clock_, options);
    catalog_ = MakeCatalog(*database_);
    admin_.subject = "local:ada";
    admin_.client_id = "cli";
    admin_.passport = "passport-of-ada";
    chief_ = admin_;
    chief_.credential_admin = true;
  }
  std::unique_ptr<Catalog> MakeCatalog(Database& database) {
    Catalog::Options options;
    options.upstream_networks = {"10.0.0.0/8"};
    options.connectors = [this] {
      ++connector_questions_;
      return connectors_;
    };
    options.issuer_auth_methods = [this](const std::string& issuer) {
      asked_issuers_.push_back(issuer);
      return announced_;
    };
    return std::make_unique<Catalog>(database, *audit_, vault_client_, clock_, options);
  }
  template <typename T>
  absl::StatusOr<Catalog::Written<T>> Create(const std::string& json, bool dry_run = false) {
    return catalog_->Create(FromJson<T>(json), dry_run, chief_);
  }
  template <typename T>
  absl::StatusOr<Catalog::Written<T>> Update(const std::string& json, bool dry_run = false) {
    return catalog_->Update(FromJson<T>(json), dry_run, chief_);
  }
  static std::string File(const std::vector<std::string>& apps, const std::vector<std::string>& servers,
                          const std::vector<std::string>& credentials = {}) {
    const auto join = [](const std::vector<std::string>& parts) {
      std::string all;
      for (const auto& part : parts) all += (all.empty() ? "" : ",") + part;
      return "[" + all + "]";
    };
    return R"({"apps": )" + join(apps) + R"(, "mcpServers": )" + join(servers) + R"(, "credentials": )" +
           join(credentials) + "}";
  }
  absl::StatusOr<v1::ApplyResponse> Apply(const std::string& json, const Writer& writer, bool dry_run = false) {
    auto request = FromJson<v1::ApplyRequest>(json);
    request.set_dry_run(dry_run);
    return catalog_->Apply(request, writer);
  }
  static std::vector<std::string> Actions(const absl::StatusOr<v1::ApplyResponse>& response) {
    EXPECT_THAT(response, IsOk());
    std::vector<std::string> actions;
    if (!response.ok()) return actions;
    for (const auto& result : response->results()) {
      actions.push_back(result.kind() + " " + result.slug() + " " + v1::ApplyResponse::Action_Name(result.action()));
    }
    return actions;
  }
  static std::vector<std::string> Refused(const absl::Status& status) {
    EXPECT_THAT(status, StatusIs(Code::kInvalidArgument));
    std::vector<std::string> fields;
    for (const auto& violation : DetailOf(status).violations) fields.push_back(violation.field);
    return fields;
  }
  // The resource as other services see it.
  v1::WatchEvent::Snapshot Stored() {
    v1::WatchEvent event;
    EXPECT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(event, Store::Snapshot(tx));
      return absl::OkStatus();
    }),
                IsOk());
    return event.snapshot();
  }
  int64_t Revision() {
    int64_t revision = 0;
    EXPECT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(revision, Store::Revision(tx));
      return absl::OkStatus();
    }),
                IsOk());
    return revision;
  }
  std::vector<audit::v1::Event> Events() {
    std::vector<audit::v1::Event> events;
    EXPECT_THAT(audit_->ShipOnce([&](const audit::v1::AppendRequest& request) -> absl::StatusOr<uint64_t> {
      events.assign(request.events().begin(), request.events().end());
      return events.back().sequence();
    }),
                IsOk());
    return events;
  }
  std::string BearerKey() { return "server_secret " + Stored().mcp_servers(0).uid() + "/app_auth.bearer.token"; }

  FakeVault vault_;
  InProcessFake vault_server_{vault_};
  SecretVault vault_client_{vault_server_.channel()};
  std::unique_ptr<AuditOutbox> audit_;
  std::unique_ptr<Catalog> catalog_;
  Writer admin_;
  Writer chief_;
  std::optional<Connectors> connectors_ = Connectors{{"okta", {"oidc"}}};
  std::atomic<int> connector_questions_ = 0;  // Writers ask from threads of their own.
  std::vector<std::string> asked_issuers_;
  absl::StatusOr<std::vector<std::string>> announced_ = absl::UnavailableError("nobody answers");
};
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
  const FakeVault::Record record = vault_.Get(BearerKey());
  EXPECT_EQ(record.versions.at(1), "hunter2");
  EXPECT_THAT(record.pinned, ElementsAre(1));
  EXPECT_EQ(record.passport, "passport-of-ada") << "the vault's audit names the administrator";
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
  EXPECT_THAT(vault_.Live(), IsEmpty());
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

TEST_P(CatalogTest, ANewValuePinsTheNewVersionAndReleasesTheOld) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  std::string next = kBearer;
  next.replace(next.find("hunter2"), 7, "hunter3");
  ASSERT_OK_AND_ASSIGN(const auto written, Update<v1::McpServer>(next));
  EXPECT_EQ(written.resource.version(), 2);
  EXPECT_EQ(written.resource.app_auth().bearer().token().version(), 2);
  EXPECT_THAT(vault_.Get(BearerKey()).pinned, ElementsAre(2));
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

TEST_P(CatalogTest, SwitchingTypeAndBackWithinThirtyDaysRestoresTheSecret) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  const std::string key = BearerKey();
  ASSERT_THAT(Update<v1::McpServer>(kOpen), IsOk());
  EXPECT_THAT(vault_.Get(key).pinned, ElementsAre(1)) << "kept";
  clock_.Advance(absl::Hours(24 * 29));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  ASSERT_OK_AND_ASSIGN(const auto back, Update<v1::McpServer>(kBearerNoValue));
  EXPECT_TRUE(back.resource.app_auth().bearer().token().set());
  EXPECT_EQ(back.resource.app_auth().bearer().token().version(), 1);
  clock_.Advance(absl::Hours(24 * 31));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_EQ(vault_.Get(key).versions.at(1), "hunter2") << "in use again: no longer on the list";
}

TEST_P(CatalogTest, AfterThirtyDaysAFormerSecretIsErasedAndMustBeGivenAgain) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  ASSERT_THAT(Update<v1::McpServer>(kOpen), IsOk());
  clock_.Advance(absl::Hours(24 * 30));
  EXPECT_THAT(Refused(Update<v1::McpServer>(kBearerNoValue).status()), ElementsAre("appAuth.bearer.token"));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(vault_.Live(), IsEmpty());
  ASSERT_THAT(Update<v1::McpServer>(kBearer), IsOk());
  EXPECT_THAT(vault_.Live(), SizeIs(1));
}

TEST_P(CatalogTest, AFormerSecretCannotBeCarriedToAnotherOrigin) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  auto moved = FromJson<v1::McpServer>(kOpen);
  moved.set_upstream_url("https://evil.example.com/");
  ASSERT_THAT(catalog_->Update(moved, false, admin_), IsOk());
  auto back = FromJson<v1::McpServer>(kBearerNoValue);
  back.set_upstream_url("https://evil.example.com/");
  EXPECT_THAT(Refused(catalog_->Update(back, false, admin_).status()),
              UnorderedElementsAre("appAuth.bearer.token", "upstreamUrl"));
}

TEST_P(CatalogTest, ANewValueAtSwitchingBackReleasesTheFormerVersion) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  ASSERT_THAT(Update<v1::McpServer>(kOpen), IsOk());
  std::string other = kBearer;
  other.replace(other.find("hunter2"), 7, "hunter3");
  ASSERT_THAT(Update<v1::McpServer>(other), IsOk());
  EXPECT_THAT(vault_.Get(BearerKey()).pinned, ElementsAre(2));
  clock_.Advance(absl::Hours(24 * 31));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(vault_.Live(), SizeIs(1));
}

TEST_P(CatalogTest, AClientAuthThatTheIssuerDoesNotAnnounceWarnsWhenItIsSaved) {
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

TEST_P(CatalogTest, AnIssuerThatDoesNotAnswerHoldsUpNoSave) {
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

TEST_P(CatalogTest, AnAppsClientSecretIsBoundToItsTokenAndRevocationOrigins) {
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

TEST_P(CatalogTest, WhereAPublicAppsCodesAndTokensGoOnlyACredentialAdminChanges) {
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

TEST_P(CatalogTest, WhetherAnAppHasASecretCountsStoredGivenAndClearedOnes) {
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

TEST_P(CatalogTest, ClearRemovesFromTheVaultEvenIfItIsDownAtFirst) {
  ASSERT_THAT(Create<v1::App>(kApp), IsOk());
  auto app = FromJson<v1::App>(kApp);
  app.mutable_client_secret()->set_clear(true);
  vault_.SetDown(true);
  ASSERT_OK_AND_ASSIGN(const auto written, catalog_->Update(app, false, chief_));
  EXPECT_FALSE(written.resource.client_secret().set());
  EXPECT_THAT(vault_.Live(), SizeIs(1));
  EXPECT_FALSE(catalog_->EraseUnusedSecrets().ok());
  vault_.SetDown(false);
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(vault_.Live(), IsEmpty());
}

TEST_P(CatalogTest, ASealedVaultStopsAWriteWithASecretAndNothingIsStored) {
  vault_.SetDown(true);
  EXPECT_THAT(Create<v1::McpServer>(kBearer), StatusIs(Code::kUnavailable));
  EXPECT_THAT(Stored().mcp_servers(), IsEmpty());
  EXPECT_THAT(Events(), IsEmpty());
  EXPECT_THAT(Create<v1::McpServer>(kOpen), IsOk()) << "without a secret nobody asks it";
}

TEST_P(CatalogTest, DeletingErasesAllSecretsAndTheNextOfThatSlugInheritsNothing) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  const std::string uid = Stored().mcp_servers(0).uid();
  ASSERT_THAT(Update<v1::McpServer>(R"({"slug": "a", "upstreamUrl": "https://api.example.com/mcp",
      "agentAuth": {"interactive": {"allow": {"everyone": true}}},
      "appAuth": {"apiKey": {"name": "X-Key", "value": {"value": "k"}}}})"),
              IsOk());
  EXPECT_THAT(vault_.Live(), SizeIs(2)) << "one in use, one of the former type";
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("a", 0, admin_), IsOk());
  EXPECT_THAT(vault_.Live(), IsEmpty());
  EXPECT_THAT(catalog_->Delete<v1::McpServer>("a", 0, admin_), StatusIs(Code::kNotFound));
  EXPECT_THAT(Refused(Create<v1::McpServer>(kBearerNoValue).status()), ElementsAre("appAuth.bearer.token"));
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  EXPECT_NE(Stored().mcp_servers(0).uid(), uid);
}

TEST_P(CatalogTest, WhatTheVaultCouldNotEraseAtDeletionIsErasedLater) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  vault_.SetDown(true);
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("a", 0, admin_), IsOk());
  EXPECT_THAT(vault_.Live(), SizeIs(1));
  vault_.SetDown(false);
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(vault_.Live(), IsEmpty());
}

TEST_P(CatalogTest, AnAppInUseCannotBeDeletedAndItsUsersAreNamed) {
  ASSERT_THAT(Create<v1::App>(kApp), IsOk());
  ASSERT_THAT(Create<v1::McpServer>(kOAuth), IsOk());
  EXPECT_THAT(catalog_->Delete<v1::App>("github", 0, admin_), StatusIs(Code::kFailedPrecondition, "gh"));
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("gh", 0, admin_), IsOk());
  EXPECT_THAT(catalog_->Delete<v1::App>("github", 0, admin_), IsOk());
}

TEST_P(CatalogTest, TheFirstServerFillsAnAppsOriginsAndAuditsIt) {
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

TEST_P(CatalogTest, OnlyACredentialAdminSaysWhereAnAppsTokensGo) {
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

TEST_P(CatalogTest, CredentialsAreForCredentialAdminsInAFileToo) {
  EXPECT_THAT(Apply(File({}, {}, {kCredential}), admin_), StatusIs(Code::kPermissionDenied));
  ASSERT_THAT(Apply(File({}, {}, {kCredential}), chief_), IsOk());
  std::string other = kCredential;
  other.replace(other.find("\"k\""), 3, "\"evil\"");
  EXPECT_THAT(Apply(File({}, {}, {other}), admin_), StatusIs(Code::kPermissionDenied))
      << "the value of an existing one is theirs as well";
  EXPECT_EQ(vault_.Get(vault_.Live()[0]).versions.at(1), "k");
}

TEST_P(CatalogTest, ApplyIsIdempotentInAnyOrderOfTheFile) {
  const std::string file = File({kApp}, {kOAuth, kBearer}, {kCredential});
  EXPECT_THAT(Actions(Apply(file, chief_)),
              ElementsAre("App github CREATED", "Credential c CREATED", "McpServer gh CREATED", "McpServer a CREATED"));
  const int64_t revision = Revision();
  EXPECT_THAT(Actions(Apply(file, chief_)), ElementsAre("App github UNCHANGED", "Credential c UNCHANGED",
                                                        "McpServer gh UNCHANGED", "McpServer a UNCHANGED"));
  EXPECT_EQ(Revision(), revision);
}

TEST_P(CatalogTest, ApplyIsIdempotentForAPlainAdminTooOnceOriginsWereFilledIn) {
  const std::string file = File({kApp}, {kOAuth});
  ASSERT_THAT(Apply(file, admin_), IsOk());
  const int64_t revision = Revision();
  EXPECT_THAT(Actions(Apply(file, admin_)), ElementsAre("App github UNCHANGED", "McpServer gh UNCHANGED"));
  EXPECT_THAT(Actions(Apply(File({kApp}, {}), admin_)), ElementsAre("App github UNCHANGED"));
  EXPECT_EQ(Revision(), revision);
  EXPECT_THAT(Stored().apps(0).allowed_upstream_origins(), ElementsAre("https://api.example.com"));
}

std::string Grouped(const std::string& groups) {
  return R"({"slug": "a", "upstreamUrl": "https://api.example.com/mcp", "agentAuth": {"interactive": {"allow": {"groups": [)" +
         groups + R"(]}}}, "appAuth": {"passthrough": {}}})";
}

TEST_P(CatalogTest, GroupsAreStoredWithTheirConnector) {
  ASSERT_OK_AND_ASSIGN(const auto written, Create<v1::McpServer>(Grouped(R"("team", "okta:ops", "okta:team")")));
  EXPECT_THAT(written.resource.agent_auth().interactive().allow().groups(), ElementsAre("okta:team", "okta:ops"));
  EXPECT_THAT(Stored().mcp_servers(0).agent_auth().interactive().allow().groups(),
              ElementsAre("okta:team", "okta:ops"));
  const int64_t revision = Revision();
  for (const char* groups : {R"("team", "ops")", R"("okta:team", "okta:ops")", R"("okta:team", "ops")"}) {
    const auto response = Apply(File({}, {Grouped(groups)}), admin_, /*dry_run=*/true);
    EXPECT_THAT(Actions(response), ElementsAre("McpServer a UNCHANGED")) << groups;
    EXPECT_THAT(response->results(0).changes(), IsEmpty());
    EXPECT_THAT(Actions(Apply(File({}, {Grouped(groups)}), admin_)), ElementsAre("McpServer a UNCHANGED"));
  }
  EXPECT_EQ(Revision(), revision);
}

TEST_P(CatalogTest, GroupWithoutConnectorIsRefusedWithItsSpellingsWhileSeveralGiveGroups) {
  connectors_ = Connectors{{"corp", {"oidc"}}, {"okta", {"oidc"}}, {"local", {"local", true}}};
  const absl::Status refused = Create<v1::McpServer>(Grouped(R"("okta:ops", "team")")).status();
  EXPECT_THAT(Refused(refused), ElementsAre("agentAuth.interactive.allow.groups[1]"));
  EXPECT_THAT(refused, StatusIs(Code::kInvalidArgument, "write corp:team or okta:team"));
  EXPECT_THAT(Create<v1::McpServer>(Grouped(R"("okta:team", "corp:team")")), IsOk());
}

TEST_P(CatalogTest, GroupOfAnUnknownConnectorOrOfNobodyIsRefused) {
  EXPECT_THAT(Create<v1::McpServer>(Grouped(R"("urn:x:team")")).status(),
              StatusIs(Code::kInvalidArgument, "there is no connector \"urn\": write <connector>:urn:x:team"));
  EXPECT_THAT(Refused(Create<v1::McpServer>(Grouped(R"("", "okta:")")).status()),
              ElementsAre("agentAuth.interactive.allow.groups[0]", "agentAuth.interactive.allow.groups[1]"));
  connectors_ = Connectors{{"local", {"local", true}}};
  EXPECT_THAT(Create<v1::McpServer>(Grouped(R"("team")")).status(),
              StatusIs(Code::kInvalidArgument, "no connector gives groups"));
  connectors_ = std::nullopt;
  EXPECT_THAT(Create<v1::McpServer>(Grouped(R"("team")")).status(),
              StatusIs(Code::kInvalidArgument, "authn does not answer"));
  EXPECT_THAT(Create<v1::McpServer>(Grouped(R"("okta:urn:x:team")")), IsOk());
}

TEST_P(CatalogTest, BareGroupsOfAnEarlierReleaseAreBroughtIntoFormWhenSaved) {
  ASSERT_THAT(Create<v1::McpServer>(Grouped(R"("okta:team")")), IsOk());
  v1::McpServer former = Stored().mcp_servers(0);
  *former.mutable_agent_auth()->mutable_interactive()->mutable_allow()->mutable_groups(0) = "team";
  former.set_version(2);
  ASSERT_THAT(Write([&](Transaction& tx) {
                return Store::Save(tx, "McpServer", {former.uid(), "a", 2, former.SerializeAsString()}, 1);
              }),
              IsOk());
  // The same group in both spellings, as long as it is known whose it is.
  for (const char* groups : {R"("team")", R"("okta:team")"}) {
    EXPECT_THAT(Actions(Apply(File({}, {Grouped(groups)}), admin_)), ElementsAre("McpServer a UNCHANGED")) << groups;
  }
  // With a second connector it is not: the administrator says it.
  connectors_ = Connectors{{"corp", {"oidc"}}, {"okta", {"oidc"}}};
  EXPECT_THAT(Refused(Apply(File({}, {Grouped(R"("team")")}), admin_).status()),
              ElementsAre("mcpServers[0].agentAuth.interactive.allow.groups[0]"));
  EXPECT_THAT(Actions(Apply(File({}, {Grouped(R"("okta:team")")}), admin_)), ElementsAre("McpServer a UPDATED"));
  EXPECT_THAT(Stored().mcp_servers(0).agent_auth().interactive().allow().groups(), ElementsAre("okta:team"));
}

TEST_P(CatalogTest, ApplyIsAllOrNothingAndNamesEveryRefusalByItsPlaceInTheFile) {
  EXPECT_THAT(Refused(Apply(File({kApp, R"({"slug": "x"})"}, {kOAuth, R"({"slug": "y"})"}), chief_).status()),
              UnorderedElementsAre("apps[1].authorizationUrl", "apps[1].tokenUrl", "apps[1].clientId",
                                   "mcpServers[1].upstreamUrl", "mcpServers[1].agentAuth", "mcpServers[1].appAuth"));
  EXPECT_EQ(Revision(), 0);
  EXPECT_THAT(vault_.Live(), IsEmpty());
  EXPECT_THAT(Refused(Apply(File({}, {kOpen, kOpen}), chief_).status()), ElementsAre("mcpServers[1].slug"));
}

TEST_P(CatalogTest, AVersionConflictInsideAFileStopsAllOfIt) {
  ASSERT_THAT(Create<v1::McpServer>(kOpen), IsOk());
  auto stale = FromJson<v1::McpServer>(kOpen);
  stale.set_version(7);
  stale.set_description("x");
  v1::ApplyRequest request;
  *request.add_apps() = FromJson<v1::App>(kApp);
  *request.add_mcp_servers() = stale;
  EXPECT_THAT(catalog_->Apply(request, chief_), StatusIs(Code::kAborted));
  EXPECT_THAT(Stored().apps(), IsEmpty());
  request.set_dry_run(true);
  EXPECT_THAT(catalog_->Apply(request, chief_), StatusIs(Code::kAborted));
}

TEST_P(CatalogTest, AFileThatNamesAVersionMayBeAppliedTwice) {
  ASSERT_THAT(Apply(File({}, {kBearer}), chief_), IsOk());
  v1::ApplyRequest file;
  ASSERT_OK_AND_ASSIGN(*file.add_mcp_servers(), catalog_->Get<v1::McpServer>("a"));
  file.mutable_mcp_servers(0)->set_description("x");
  EXPECT_THAT(Actions(catalog_->Apply(file, chief_)), ElementsAre("McpServer a UPDATED"));
  EXPECT_THAT(Actions(catalog_->Apply(file, chief_)), ElementsAre("McpServer a UNCHANGED"));
  auto& token = *file.mutable_mcp_servers(0)->mutable_app_auth()->mutable_bearer()->mutable_token();
  token.set_value("hunter2");
  EXPECT_THAT(Actions(catalog_->Apply(file, chief_)), ElementsAre("McpServer a UNCHANGED")) << "the vault compares";
  token.set_value("hunter3");
  EXPECT_THAT(catalog_->Apply(file, chief_), StatusIs(Code::kAborted)) << "this would change it";
  EXPECT_EQ(vault_.Get(BearerKey()).versions, (std::map<int64_t, std::string>{{1, "hunter2"}})) << "taken back";
  token.set_value("hunter2");
  file.mutable_mcp_servers(0)->set_description("y");
  const int puts = vault_.puts();
  EXPECT_THAT(catalog_->Apply(file, chief_), StatusIs(Code::kAborted));
  EXPECT_EQ(vault_.puts(), puts) << "known before the vault was asked";
}

TEST_P(CatalogTest, ADryRunShowsAFirstSecretAsAChange) {
  auto app = FromJson<v1::App>(kApp);
  app.clear_client_secret();
  ASSERT_THAT(catalog_->Create(app, false, chief_), IsOk());
  ASSERT_OK_AND_ASSIGN(const auto preview, Apply(File({kApp}, {}), chief_, true));
  ASSERT_THAT(preview.results(0).changes(), SizeIs(1));
  EXPECT_EQ(preview.results(0).changes(0).field(), "clientSecret");
  EXPECT_EQ(preview.results(0).changes(0).before(), "");
  EXPECT_EQ(preview.results(0).changes(0).after(), "(secret)");
}

TEST_P(CatalogTest, ADryRunOfAFileShowsTheChangesAndMakesNone) {
  ASSERT_THAT(Apply(File({}, {kBearer}), chief_), IsOk());
  const int puts = vault_.puts();
  std::string changed = kBearer;
  changed.replace(changed.find("/mcp"), 4, "/v2");
  ASSERT_OK_AND_ASSIGN(const auto preview, Apply(File({kApp}, {changed}), chief_, true));
  EXPECT_EQ(preview.results(0).action(), v1::ApplyResponse::CREATED);
  ASSERT_EQ(preview.results(1).action(), v1::ApplyResponse::UPDATED);
  std::vector<std::string> lines;
  for (const auto& change : preview.results(1).changes()) lines.push_back(change.field() + "=" + change.after());
  EXPECT_THAT(lines, UnorderedElementsAre("upstreamUrl=\"https://api.example.com/v2\"",
                                          "appAuth.bearer.token=(secret, compared when applied)"));
  for (const auto& result : preview.results()) {
    for (const auto& change : result.changes()) {
      EXPECT_FALSE(change.field().empty());
      EXPECT_THAT(change.after(), ::testing::Not(HasSubstr("hunter2")));
      EXPECT_THAT(change.after(), ::testing::Not(HasSubstr("s3cret")));
    }
  }
  EXPECT_EQ(vault_.puts(), puts);
  EXPECT_EQ(Revision(), 1);
  EXPECT_THAT(Stored().apps(), IsEmpty());
}

TEST_P(CatalogTest, AuthnIsAskedForItsConnectorsOnceAFile) {
  std::vector<std::string> servers;
  for (int i = 0; i < 5; ++i) {
    std::string server = kOpen;
    server.replace(server.find("\"a\""), 3, "\"a" + std::to_string(i) + "\"");
    servers.push_back(server);
  }
  ASSERT_THAT(Apply(File({}, servers), admin_), IsOk());
  EXPECT_EQ(connector_questions_, 1);
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
  EXPECT_THAT(vault_.Live(), ElementsAre(BearerKey())) << "who lost leaves nothing in the vault";
}

// Races for the secrets in the vault. What a stored resource refers to must be there, whatever happened meanwhile; what
// nothing refers to must go in the end.
class SecretRaceTest : public CatalogTest {
 protected:
  static std::string WithValue(const std::string& value) {
    std::string json = kBearer;
    return json.replace(json.find("hunter2"), 7, value);
  }
  static v1::McpServer At(const std::string& json, int64_t version) {
    auto server = FromJson<v1::McpServer>(json);
    server.set_version(version);
    return server;
  }
  absl::Status UpdateAt(const std::string& json, int64_t version) {
    return catalog_->Update(At(json, version), false, chief_).status();
  }
  // The value that the stored server refers to, or what is wrong.
  std::string InUse() {
    const v1::WatchEvent::Snapshot stored = Stored();
    for (const v1::McpServer& server : stored.mcp_servers()) {
      if (server.slug() != "a") continue;
      const common::v1::Secret& secret = server.app_auth().bearer().token();
      const FakeVault::Record record = vault_.Get("server_secret " + secret.vault_record());
      const auto version = record.versions.find(secret.version());
      if (version == record.versions.end()) return "LOST";
      return record.pinned.count(secret.version()) > 0 ? version->second : "NOT PINNED";
    }
    return "NO SERVER";
  }
  // Every value the vault holds for the server.
  std::vector<std::string> Held() {
    std::vector<std::string> values;
    for (const std::string& key : vault_.Live()) {
      for (const auto& [version, value] : vault_.Get(key).versions) values.push_back(value);
    }
    return values;
  }
  // Versions that wait to be unpinned.
  std::vector<int64_t> Replaced() {
    std::vector<int64_t> versions;
    EXPECT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
      versions.clear();
      ASSIGN_OR_RETURN(const auto all, Store::AllReplaced(tx));
      for (const Store::Replaced& replaced : all) versions.push_back(replaced.version);
      return absl::OkStatus();
    }),
                IsOk());
    return versions;
  }
  // A server whose bearer token was retired 31 days ago.
  void RetireBearer() {
    ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
    ASSERT_THAT(Update<v1::McpServer>(kOpen), IsOk());
    clock_.Advance(absl::Hours(24 * 31));
  }
};
INSTANTIATE_ENGINES(SecretRaceTest);

TEST_P(SecretRaceTest, ErasingALeftoverSparesTheEqualValueEnteredMeanwhile) {
  RetireBearer();
  vault_.BeforeDelete([this] { EXPECT_THAT(Update<v1::McpServer>(kBearer), IsOk()); });
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_EQ(InUse(), "hunter2");
  EXPECT_THAT(Held(), ElementsAre("hunter2"));
}

TEST_P(SecretRaceTest, ErasingALeftoverSparesANewValueThatIsNotSettledYet) {
  RetireBearer();
  vault_.AfterPut([this] { EXPECT_THAT(catalog_->EraseUnusedSecrets(), IsOk()); });
  ASSERT_THAT(Update<v1::McpServer>(kBearer), IsOk());
  EXPECT_EQ(InUse(), "hunter2");
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_EQ(InUse(), "hunter2");
  EXPECT_THAT(Held(), ElementsAre("hunter2"));
}

TEST_P(SecretRaceTest, AClearedSecretsErasureSparesTheValueThatFollows) {
  ASSERT_THAT(Create<v1::App>(kApp), IsOk());
  auto cleared = FromJson<v1::App>(kApp);
  cleared.mutable_client_secret()->set_clear(true);
  vault_.BeforeDelete([this] { EXPECT_THAT(Update<v1::App>(kApp), IsOk()); });
  ASSERT_THAT(catalog_->Update(cleared, false, chief_), IsOk());
  const common::v1::Secret secret = Stored().apps(0).client_secret();
  EXPECT_EQ(secret.version(), 2);
  EXPECT_EQ(vault_.Get("app_secret " + secret.vault_record()).versions,
            (std::map<int64_t, std::string>{{2, "s3cret"}}));
}

TEST_P(SecretRaceTest, SwitchingBackToWhatIsBeingErasedIsRefused) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  ASSERT_THAT(Update<v1::McpServer>(kOpen), IsOk());
  clock_.Advance(absl::Hours(24 * 30) - absl::Minutes(10));
  vault_.AfterPut([this] {  // Between reading what is kept and storing, long before the write would be given up.
    clock_.Advance(absl::Minutes(20));
    EXPECT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  });
  std::string another = WithValue("other");
  another.replace(another.find("\"a\""), 3, "\"b\"");
  EXPECT_THAT(Apply(File({}, {another, kBearerNoValue}), chief_), StatusIs(Code::kAborted));
  EXPECT_TRUE(Stored().mcp_servers(0).app_auth().has_passthrough());
  EXPECT_THAT(Held(), IsEmpty()) << "nor does the new server of that file leave anything";
}

TEST_P(SecretRaceTest, AnUpdateThatLostTakesItsOwnValueBackAndNotTheWinners) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  vault_.AfterPut([this] { EXPECT_THAT(UpdateAt(WithValue("winner"), 1), IsOk()); });
  EXPECT_THAT(UpdateAt(WithValue("loser"), 1), StatusIs(Code::kAborted));
  EXPECT_EQ(InUse(), "winner");
  EXPECT_THAT(Held(), ::testing::Not(Contains("loser")));
}

TEST_P(SecretRaceTest, TwoWritersOfOneValueShareNoVersion) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  vault_.AfterPut([this] { EXPECT_THAT(UpdateAt(WithValue("same"), 1), IsOk()); });
  EXPECT_THAT(UpdateAt(WithValue("same"), 1), StatusIs(Code::kAborted));
  EXPECT_EQ(InUse(), "same");
}

TEST_P(SecretRaceTest, AnUpdateThatLostToOneOfTheFormerValueTakesNothingFromIt) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  std::string described = kBearer;
  described.insert(1, R"("description": "x", )");
  vault_.AfterPut([&] { EXPECT_THAT(UpdateAt(described, 1), IsOk()); });
  EXPECT_THAT(UpdateAt(WithValue("loser"), 1), StatusIs(Code::kAborted));
  EXPECT_EQ(InUse(), "hunter2");
  EXPECT_THAT(Held(), ElementsAre("hunter2"));
}

TEST_P(SecretRaceTest, WhatALoserCouldNotTakeBackHousekeepingDoes) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  vault_.AfterPut([this] {
    EXPECT_THAT(UpdateAt(WithValue("winner"), 1), IsOk());
    vault_.SetDown(true);
  });
  EXPECT_THAT(UpdateAt(WithValue("loser"), 1), StatusIs(Code::kAborted));
  vault_.SetDown(false);
  EXPECT_THAT(Held(), Contains("loser"));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(Held(), ::testing::Not(Contains("loser")));
  EXPECT_EQ(InUse(), "winner");
}

TEST_P(SecretRaceTest, OfAFileWhoseSecondSecretCouldNotBeStoredTheFirstIsTakenBack) {
  vault_.AfterPut([this] { vault_.SetDown(true); });
  EXPECT_THAT(Apply(File({kApp}, {kBearer}), chief_), StatusIs(Code::kUnavailable));
  vault_.SetDown(false);
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(Held(), IsEmpty());
}

TEST_P(SecretRaceTest, AWriteThatOutlivedItsHourIsRefusedAndLeavesNothing) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  vault_.AfterPut([this] {
    clock_.Advance(absl::Minutes(61));
    EXPECT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  });
  EXPECT_THAT(UpdateAt(WithValue("late"), 1), StatusIs(Code::kAborted));
  EXPECT_EQ(InUse(), "hunter2");
  EXPECT_THAT(Held(), ElementsAre("hunter2"));
}

TEST_P(SecretRaceTest, WhatADeadWriterLeftGoesAfterAnHourAndNotBefore) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  const std::string record = Stored().mcp_servers(0).uid() + "/app_auth.bearer.token";
  ASSERT_THAT(Write([&](Transaction& tx) {
                return Store::BeginSecretWrites(tx, {{"dead", record, "server_secret"}}, clock_.Now());
              }),
              IsOk());
  ASSERT_THAT(vault_client_.Put("server_secret", record, {"orphan", 1, "dead"}, ""), IsOk());
  clock_.Advance(absl::Minutes(59));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(Held(), ElementsAre("hunter2", "orphan"));
  clock_.Advance(absl::Minutes(2));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(Held(), ElementsAre("hunter2"));
  EXPECT_EQ(InUse(), "hunter2");
}

TEST_P(SecretRaceTest, WhatAWriterDidNotUnpinHousekeepingDoes) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  vault_.AfterPut([this] { vault_.SetDown(true); });  // As for a writer that dies after its commit.
  ASSERT_THAT(UpdateAt(WithValue("new"), 1), IsOk());
  vault_.SetDown(false);
  EXPECT_THAT(vault_.Get(BearerKey()).pinned, ElementsAre(1, 2));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(vault_.Get(BearerKey()).pinned, ElementsAre(2));
  EXPECT_EQ(InUse(), "new");
  EXPECT_THAT(Replaced(), IsEmpty()) << "and not again every ten minutes";
}

TEST_P(SecretRaceTest, AnUnpinnedValueIsOffTheListAndOneThatIsGoneToo) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  ASSERT_THAT(UpdateAt(WithValue("new"), 1), IsOk());
  EXPECT_THAT(Replaced(), IsEmpty());
  vault_.AfterPut([this] { vault_.SetDown(true); });
  ASSERT_THAT(UpdateAt(WithValue("newer"), 2), IsOk());
  vault_.SetDown(false);
  EXPECT_THAT(Replaced(), SizeIs(1));
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("a", 0, chief_), IsOk());
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(Replaced(), IsEmpty());
  EXPECT_THAT(Held(), IsEmpty());
}

// Writers and housekeeping of two replicas, all at once.
TEST_P(SecretRaceTest, InAnyTurmoilTheStoredServersSecretIsThere) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  const auto other_database = Open();
  const auto other = MakeCatalog(*other_database);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      Catalog& catalog = i % 2 == 0 ? *catalog_ : *other;
      for (int round = 0; round < 6; ++round) {
        const std::string json = (i + round) % 3 == 0 ? kOpen : WithValue("value" + std::to_string(round % 2));
        const absl::Status status = catalog.Update(FromJson<v1::McpServer>(json), false, chief_).status();
        EXPECT_TRUE(status.ok() || absl::IsAborted(status)) << status;
        EXPECT_THAT(catalog.EraseUnusedSecrets(), IsOk());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  ASSERT_THAT(Update<v1::McpServer>(WithValue("last")), IsOk());
  EXPECT_EQ(InUse(), "last");
  ASSERT_THAT(Update<v1::McpServer>(kOpen), IsOk());
  ASSERT_THAT(Update<v1::McpServer>(kBearerNoValue), IsOk());
  EXPECT_EQ(InUse(), "last");
  ASSERT_THAT(catalog_->Delete<v1::McpServer>("a", 0, chief_), IsOk());
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  EXPECT_THAT(Held(), IsEmpty());
  EXPECT_THAT(Replaced(), IsEmpty());
}

}  // namespace
}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <csignal>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include <grpcpp/grpcpp.h>

#include "common/files.h"
#include "services/registry/catalog_testing.h"
#include "services/registry/secret_fields.h"
#include "services/registry/secret_ledger.h"
#include "tests/testing/process.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::HasSubstr;

// A process that is killed before the n-th step of its save, for every n: what is left afterwards is all of the save or
// nothing of it, and the vault holds exactly what the store refers to. The process is a program of its own; the
// database and the vault, which outlive it, are those of the test.
class SaveCrashTest : public CatalogTest {
 protected:
  struct Scenario {
    std::vector<const char*> before;  // Files; "%" stands for the round, so that each has resources of its own.
    const char* after;
  };

  void SetUp() override {
    CatalogTest::SetUp();
    grpc::ServerBuilder builder;
    builder.AddListeningPort(vault_address_, grpc::InsecureServerCredentials());
    builder.RegisterService(&vault_.service());
    vault_socket_ = builder.BuildAndStart();
    ASSERT_NE(vault_socket_, nullptr);
  }

  void Try(const Scenario& scenario) {
    for (int round = 1;; ++round) {
      SCOPED_TRACE(absl::StrCat("killed before step ", round));
      const auto file = [&](const char* text) { return absl::StrReplaceAll(text, {{"%", absl::StrCat(round)}}); };
      for (const char* before : scenario.before) ASSERT_THAT(Apply(file(before), chief_), IsOk());
      const std::string after = file(scenario.after);
      const auto request = FromJson<v1::ApplyRequest>(after);
      const bool killed = Kill(round, {"apply", directory_.Write("request", request.SerializeAsString())});
      Recover();
      ExpectVaultHoldsWhatTheStoreRefersTo();
      ExpectWhole(after);
      ExpectVaultHoldsWhatTheStoreRefersTo();
      if (HasFailure()) return;
      if (!killed) {
        EXPECT_GT(round, 2) << "has several steps to be killed at";
        return;
      }
    }
  }

  // Runs the save in a process of its own, which is killed before that step. False if the save has fewer and is stored.
  bool Kill(int step, const std::vector<std::string>& save) {
    const std::string log = directory_.Write("log", "");
    std::vector<std::string> argv = {SALLYPORT_KILLED_SAVE,
                                     GetParam() == Engine::kPostgresql ? "postgresql" : "sqlite",
                                     DatabaseAddress(),
                                     vault_address_,
                                     absl::StrCat(absl::ToUnixMicros(clock_.Now())),
                                     absl::StrCat(step)};
    argv.insert(argv.end(), save.begin(), save.end());
    const absl::StatusOr<pid_t> pid = sallyport::testing::Spawn(argv, log);
    EXPECT_THAT(pid, IsOk());
    if (!pid.ok()) return false;
    const absl::StatusOr<int> code = sallyport::testing::WaitForExit(*pid, absl::Minutes(2));
    EXPECT_THAT(code, IsOk());
    const std::string said = ReadFile(log).value_or("");
    const bool killed = code.value_or(-1) == 128 + SIGKILL;
    EXPECT_TRUE(killed || code.value_or(-1) == 0) << code.value_or(-1) << ": " << said;
    EXPECT_EQ(killed, absl::StrContains(said, absl::StrCat("SIGKILL before step ", step, ": "))) << said;
    return killed;
  }

  // Another process takes over, an hour later.
  void Recover() {
    clock_.Advance(absl::Minutes(61));
    ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
    ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk()) << "once more changes nothing";
    EXPECT_THAT(Ledger(), Each(AnyOf(HasSubstr(" LIVE"), HasSubstr(" RETIRED"))));
  }

  // Saving it now changes all of the file or nothing: no part of it was stored alone.
  void ExpectWhole(const std::string& file) {
    ASSERT_OK_AND_ASSIGN(const v1::ApplyResponse preview, Apply(file, chief_, /*dry_run=*/true));
    std::set<bool> changes;
    for (const auto& result : preview.results()) {
      bool changed = false;
      // Whether a value given again differs is known to the vault only.
      for (const auto& change : result.changes()) changed = changed || !HasSecret(change);
      if (result.changes_size() > 0 && !changed) continue;
      changes.insert(changed);
    }
    EXPECT_LE(changes.size(), 1U);
    ASSERT_THAT(Apply(file, chief_), IsOk()) << "and it can be saved";
  }
  static bool HasSecret(const v1::ApplyResponse::FieldChange& change) {
    return change.after() == "(secret, compared when applied)";
  }

  void ExpectVaultHoldsWhatTheStoreRefersTo() {
    std::set<std::string> expected;
    const v1::WatchEvent::Snapshot stored = Stored();
    const auto add = [&](auto resource) {
      using T = decltype(resource);
      ForEachSecret(resource, [&](const SecretField& field) {
        if (!field.secret->set()) return;
        expected.insert(absl::StrCat(std::string(ResourceTraits<T>::kSecretKind), " ", field.secret->vault_record(),
                                     " ", field.secret->version()));
      });
      if constexpr (Bindable<T>) {
        if (!resource.has_binding()) return;
        expected.insert(absl::StrCat(std::string(ResourceTraits<T>::kBindingKind), " ",
                                     resource.binding().vault_record(), " ", resource.binding().version()));
      }
    };
    for (const auto& server : stored.mcp_servers()) add(server);
    for (const auto& app : stored.apps()) add(app);
    for (const auto& app : stored.ending_apps()) add(app);
    for (const auto& credential : stored.credentials()) add(credential);
    AddRetired(expected);
    std::set<std::string> pinned;
    for (const std::string& key : vault_.Keys()) {
      const FakeVault::Held record = vault_.Look(key);
      for (const int64_t version : record.pinned) {
        EXPECT_TRUE(record.versions.contains(version)) << key;
        pinned.insert(absl::StrCat(key, " ", version));
      }
    }
    EXPECT_EQ(pinned, expected);
  }
  void AddRetired(std::set<std::string>& expected) {
    ASSERT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(const auto versions, SecretLedger::List(tx));
      for (const auto& version : versions) {
        if (version.state != SecretLedger::State::kRetired) continue;
        expected.insert(absl::StrCat(version.kind, " ", version.record, " ", version.version));
      }
      return absl::OkStatus();
    }),
                IsOk());
  }

  const std::string vault_address_ = "unix:" + directory_.File("vault.sock");
  std::unique_ptr<grpc::Server> vault_socket_;
};
INSTANTIATE_ENGINES(SaveCrashTest);

constexpr char kNothing[] = "{}";
constexpr char kFull[] = R"({
    "apps": [{"slug": "app%", "authorizationUrl": "https://idp.example.com/authorize",
        "tokenUrl": "https://idp.example.com/token", "clientId": "me", "clientSecret": {"value": "s3cret"},
        "allowedUpstreamOrigins": ["https://api.example.com"]}],
    "credentials": [{"slug": "c%", "kind": "API_KEY", "value": {"value": "k"},
        "allowedUpstreamOrigins": ["https://api.example.com"]}],
    "mcpServers": [{"slug": "a%", "upstreamUrl": "https://api.example.com/mcp",
        "agentAuth": {"interactive": {"allow": {"everyone": true}}},
        "appAuth": {"bearer": {"token": {"value": "hunter2"}}},
        "outboundHeaders": [{"name": "X-Token", "forwardCallerToken": {}}]}]})";
constexpr char kOther[] = R"({
    "apps": [{"slug": "app%", "authorizationUrl": "https://idp.example.com/authorize",
        "tokenUrl": "https://idp2.example.com/token", "clientId": "me", "clientSecret": {"value": "n3w"},
        "allowedUpstreamOrigins": ["https://api.example.com", "https://other.example.com"]}],
    "credentials": [{"slug": "c%", "kind": "API_KEY", "allowedUpstreamOrigins": ["https://other.example.com"]}],
    "mcpServers": [{"slug": "a%", "upstreamUrl": "https://other.example.com/mcp",
        "agentAuth": {"interactive": {"allow": {"everyone": true}}},
        "appAuth": {"bearer": {"token": {"value": "hunter3"}}},
        "outboundHeaders": [{"name": "X-Token", "forwardCallerToken": {}}]}]})";
constexpr char kLess[] = R"({
    "apps": [{"slug": "app%", "authorizationUrl": "https://idp.example.com/authorize",
        "tokenUrl": "https://idp.example.com/token", "clientId": "me", "clientSecret": {"clear": true}}],
    "mcpServers": [{"slug": "a%", "upstreamUrl": "https://api.example.com/mcp",
        "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"passthrough": {}}}]})";
constexpr char kBack[] = R"({
    "mcpServers": [{"slug": "a%", "upstreamUrl": "https://api.example.com/mcp",
        "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"bearer": {}},
        "outboundHeaders": [{"name": "X-Token", "forwardCallerToken": {}}]}]})";

TEST_P(SaveCrashTest, Creating) { Try({{kNothing}, kFull}); }
TEST_P(SaveCrashTest, ReplacingValuesAndMovingOrigins) { Try({{kFull}, kOther}); }
TEST_P(SaveCrashTest, ClearingAndSwitchingType) { Try({{kFull}, kLess}); }
TEST_P(SaveCrashTest, SwitchingBack) { Try({{kFull, kLess}, kBack}); }

TEST_P(SaveCrashTest, Deleting) {
  bool killed = true;
  for (int round = 1; killed; ++round) {
    SCOPED_TRACE(absl::StrCat("killed before step ", round));
    ASSERT_THAT(Apply(absl::StrReplaceAll(kFull, {{"%", absl::StrCat(round)}}), chief_), IsOk());
    killed = Kill(round, {"delete", absl::StrCat("a", round)});
    Recover();
    ExpectVaultHoldsWhatTheStoreRefersTo();
    ASSERT_FALSE(HasFailure());
  }
}

// Either it is there with everything, or it is ending with the secret that revokes its users' tokens.
TEST_P(SaveCrashTest, DeletingAnApp) {
  bool killed = true;
  for (int round = 1; killed; ++round) {
    SCOPED_TRACE(absl::StrCat("killed before step ", round));
    ASSERT_THAT(Apply(absl::StrReplaceAll(kFull, {{"%", absl::StrCat(round)}}), chief_), IsOk());
    const std::string slug = absl::StrCat("app", round);
    killed = Kill(round, {"delete-app", slug});
    Recover();
    const v1::WatchEvent::Snapshot stored = Stored();
    const auto count = [&slug](const auto& apps) {
      return std::count_if(apps.begin(), apps.end(),
                           [&](const v1::App& app) { return app.slug() == slug && app.client_secret().set(); });
    };
    EXPECT_EQ(count(stored.apps()) + count(stored.ending_apps()), 1);
    EXPECT_TRUE(killed || count(stored.ending_apps()) == 1);
    ExpectVaultHoldsWhatTheStoreRefersTo();
    ASSERT_FALSE(HasFailure());
  }
}

TEST_P(SaveCrashTest, FinishingAnApp) {
  bool killed = true;
  for (int round = 1; killed; ++round) {
    SCOPED_TRACE(absl::StrCat("killed before step ", round));
    const std::string slug = absl::StrCat("app", round);
    ASSERT_THAT(Apply(absl::StrReplaceAll(kFull, {{"%", absl::StrCat(round)}}), chief_), IsOk());
    ASSERT_THAT(catalog_->Delete<v1::App>(slug, 0, chief_), IsOk());
    const v1::WatchEvent::Snapshot before = Stored();
    const auto ending = std::find_if(before.ending_apps().begin(), before.ending_apps().end(),
                                     [&](const v1::App& app) { return app.slug() == slug; });
    ASSERT_NE(ending, before.ending_apps().end());
    const std::string secret = "app_secret " + ending->client_secret().vault_record();
    clock_.Advance(Catalog::kLinksInFlight);
    killed = Kill(round, {"finish-app", ending->uid()});
    Recover();
    const v1::WatchEvent::Snapshot stored = Stored();
    const bool kept = std::any_of(stored.ending_apps().begin(), stored.ending_apps().end(),
                                  [&](const v1::App& app) { return app.slug() == slug; });
    EXPECT_EQ(vault_.Look(secret).pinned.empty(), !kept) << "both or neither";
    ExpectVaultHoldsWhatTheStoreRefersTo();
    ASSERT_THAT(catalog_->FinishApp(ending->uid()), IsOk()) << "the broker says it again";
    ExpectVaultHoldsWhatTheStoreRefersTo();
    ASSERT_FALSE(HasFailure());
  }
}

}  // namespace
}  // namespace sallyport::registry

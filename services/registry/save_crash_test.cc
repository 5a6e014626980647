// SPDX-License-Identifier: Apache-2.0
#include <set>

#include "absl/strings/str_replace.h"

#include "services/registry/catalog_testing.h"
#include "services/registry/secret_fields.h"
#include "services/registry/secret_ledger.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::HasSubstr;

// A writer that dies before its n-th step, for every n: what is left afterwards is all of the save or nothing of it,
// and the vault holds exactly what the store refers to.
class SaveCrashTest : public CatalogTest {
 protected:
  struct Scenario {
    const char* before;  // A file; "%" stands for the round, so that each has resources of its own.
    const char* after;
  };

  void Try(const Scenario& scenario) {
    for (int round = 1;; ++round) {
      SCOPED_TRACE(absl::StrCat("dies before step ", round));
      const std::string suffix = absl::StrCat(round);
      const std::string before = absl::StrReplaceAll(scenario.before, {{"%", suffix}});
      const std::string after = absl::StrReplaceAll(scenario.after, {{"%", suffix}});
      ASSERT_THAT(Apply(before, chief_), IsOk());
      const bool died = Kill(round, [&] { (void)Apply(after, chief_); });
      Recover();
      ExpectVaultHoldsWhatTheStoreRefersTo();
      ExpectWhole(after);
      ExpectVaultHoldsWhatTheStoreRefersTo();
      if (HasFailure()) return;
      if (!died) {
        EXPECT_GT(round, 3) << "has several steps to die at";
        return;
      }
    }
  }

  // True if `work` came as far as that step. From there on nothing of it happens any more.
  bool Kill(int at, const std::function<void()>& work) {
    int steps = 0;
    before_step_ = [&](absl::string_view /*step*/) {
      return ++steps >= at ? absl::CancelledError("killed") : absl::OkStatus();
    };
    work();
    before_step_ = nullptr;
    return steps >= at;
  }

  // Another process takes over, an hour later.
  void Recover() {
    clock_.Advance(absl::Minutes(61));
    catalog_ = MakeCatalog(*database_);
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

TEST_P(SaveCrashTest, Creating) { Try({kNothing, kFull}); }
TEST_P(SaveCrashTest, ReplacingValuesAndMovingOrigins) { Try({kFull, kOther}); }
TEST_P(SaveCrashTest, ClearingAndSwitchingType) { Try({kFull, kLess}); }

TEST_P(SaveCrashTest, SwitchingBack) {
  for (int round = 1; round < 4; ++round) {
    SCOPED_TRACE(round);
    const auto file = [&](const char* text) { return absl::StrReplaceAll(text, {{"%", absl::StrCat(round)}}); };
    ASSERT_THAT(Apply(file(kFull), chief_), IsOk());
    ASSERT_THAT(Apply(file(kLess), chief_), IsOk());
    Kill(round, [&] { (void)Apply(file(kBack), chief_); });
    Recover();
    ExpectVaultHoldsWhatTheStoreRefersTo();
    ExpectWhole(file(kBack));
    ExpectVaultHoldsWhatTheStoreRefersTo();
  }
}

TEST_P(SaveCrashTest, Deleting) {
  bool died = true;
  for (int round = 1; died; ++round) {
    SCOPED_TRACE(round);
    const std::string slug = absl::StrCat("a", round);
    ASSERT_THAT(Apply(absl::StrReplaceAll(kFull, {{"%", absl::StrCat(round)}}), chief_), IsOk());
    died = Kill(round, [&] { (void)catalog_->Delete<v1::McpServer>(slug, 0, chief_); });
    Recover();
    ExpectVaultHoldsWhatTheStoreRefersTo();
    ASSERT_FALSE(HasFailure());
  }
}

}  // namespace
}  // namespace sallyport::registry

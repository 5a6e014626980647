// SPDX-License-Identifier: Apache-2.0
#include "services/registry/adoption.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/metrics.h"
#include "services/registry/catalog_testing.h"
#include "services/registry/secret_fields.h"
#include "services/registry/secret_ledger.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kForwards[] = R"({"slug": "f", "upstreamUrl": "https://api.example.com/mcp",
    "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"passthrough": {}},
    "outboundHeaders": [{"name": "X-Token", "forwardCallerToken": {}}]})";

// A store and a vault as an earlier release has left them.
class AdoptionTest : public CatalogTest {
 protected:
  void MakeOld() {
    ASSERT_THAT(Apply(File({kApp}, {kBearer, kOAuth, kForwards}, {kCredential}), chief_), IsOk());
    ASSERT_THAT(Write([&](Transaction& tx) -> absl::Status {
                  RETURN_IF_ERROR(Unbind<v1::McpServer>(tx));
                  RETURN_IF_ERROR(Unbind<v1::App>(tx));
                  RETURN_IF_ERROR(tx.Exec("DELETE FROM secret_version").status());
                  return SecretLedger::RecordReferences(tx);
                }),
                IsOk());
    vault_.MakeOld();
  }
  template <typename T>
  static absl::Status Unbind(Transaction& tx) {
    ASSIGN_OR_RETURN(const auto all, Store::List(tx, ResourceTraits<T>::kKind));
    for (const Store::Resource& stored : all) {
      T resource;
      resource.ParseFromString(stored.body);
      resource.clear_binding();
      RETURN_IF_ERROR(Store::Amend(tx, ResourceTraits<T>::kKind,
                                   {stored.uid, stored.slug, stored.version, resource.SerializeAsString()}));
    }
    return absl::OkStatus();
  }
  // Runs until it is finished; how often that took.
  static int Finish(Adoption& adoption) {
    for (int runs = 1; runs < 10; ++runs) {
      const auto finished = adoption.Run();
      EXPECT_THAT(finished, IsOk());
      if (finished.ok() && *finished) return runs;
    }
    ADD_FAILURE() << "never finished";
    return 0;
  }
  // Secrets and bindings that are not sealed to their origins.
  std::vector<std::string> Unbound() {
    std::vector<std::string> unbound;
    const auto check = [&](const std::string& kind, const std::string& record, int64_t version,
                           const std::vector<std::string>& origins) {
      const FakeVault::Held found = vault_.Look(kind + " " + record);
      const auto bound = found.origins.find(version);
      if (bound == found.origins.end() || bound->second != origins) unbound.push_back(record);
    };
    const auto check_all = [&](auto resource) {
      using Traits = ResourceTraits<decltype(resource)>;
      const ResourceUrls urls(resource);
      ForEachSecret(resource, [&](const SecretField& field) {
        if (!field.secret->set()) return;
        check(std::string(Traits::kSecretKind), field.secret->vault_record(), field.secret->version(),
              Traits::ReachOf(field, resource, urls).origins);
      });
      if constexpr (Bindable<decltype(resource)>) {
        const Origins origins = Traits::BindingOrigins(resource, urls);
        if (origins.empty()) return;
        check(std::string(Traits::kBindingKind), resource.binding().vault_record(), resource.binding().version(),
              origins);
      }
    };
    const auto stored = Stored();
    for (const auto& server : stored.mcp_servers()) check_all(server);
    for (const auto& app : stored.apps()) check_all(app);
    for (const auto& credential : stored.credentials()) check_all(credential);
    return unbound;
  }
};
INSTANTIATE_ENGINES(AdoptionTest);

TEST_P(AdoptionTest, SealsOriginsToEverySecretAndGivesResourcesTheirBindings) {
  MakeOld();
  const int64_t revision = Revision();
  EXPECT_EQ(Unbound().size(), 5U);
  Adoption adoption(*database_, vault_client_);
  EXPECT_EQ(Finish(adoption), 2);
  EXPECT_THAT(Unbound(), IsEmpty());
  EXPECT_TRUE(vault_.adopted());
  EXPECT_EQ(Revision(), revision + 2) << "the broker hears of the two bindings";
  EXPECT_EQ(Stored().apps(0).version(), 1) << "and nobody has to read anything again";
  EXPECT_THAT(SerializeMetrics(), HasSubstr("sallyport_registry_secrets_to_adopt 0"));
  EXPECT_EQ(Finish(adoption), 1) << "nothing to do any more";
  for (const char* slug : {"a", "gh", "f"}) ASSERT_THAT(catalog_->Delete<v1::McpServer>(slug, 0, chief_), IsOk());
  ASSERT_THAT(catalog_->Delete<v1::App>("github", 0, chief_), IsOk());
  clock_.Advance(Catalog::kLinksInFlight);
  ASSERT_THAT(catalog_->FinishApp(Stored().ending_apps(0).uid()), IsOk());
  ASSERT_THAT(catalog_->Delete<v1::Credential>("c", 0, chief_), IsOk());
  EXPECT_THAT(vault_.Keys(), IsEmpty()) << "erased with their resources";
}

TEST_P(AdoptionTest, RetiredSecretsAreBoundTooSoThatSwitchingBackWorks) {
  ASSERT_THAT(Create<v1::McpServer>(kBearer), IsOk());
  const std::string key = BearerKey();
  ASSERT_THAT(Update<v1::McpServer>(kOpen), IsOk());
  vault_.MakeOld();
  Adoption adoption(*database_, vault_client_);
  Finish(adoption);
  ASSERT_THAT(Update<v1::McpServer>(kBearerNoValue), IsOk());
  EXPECT_THAT(vault_.Look(key).origins.at(1), ElementsAre("https://api.example.com"));
}

TEST_P(AdoptionTest, NothingIsSaidToBeCompleteWhileTheVaultIsDown) {
  MakeOld();
  vault_.SetDown(true);
  Adoption adoption(*database_, vault_client_);
  EXPECT_FALSE(adoption.Run().ok());
  vault_.SetDown(false);
  EXPECT_FALSE(vault_.adopted());
  Finish(adoption);
  EXPECT_THAT(Unbound(), IsEmpty());
}

TEST_P(AdoptionTest, ABindingThatWasMadeAndNotSavedIsFoundAgain) {
  MakeOld();
  const std::string record = Stored().apps(0).uid() + "/binding";
  ASSERT_THAT(vault_client_.Adopt({{"app_binding", record, 0, {"https://api.example.com"}}}, false), IsOk());
  Adoption adoption(*database_, vault_client_);
  Finish(adoption);
  EXPECT_THAT(Unbound(), IsEmpty());
  EXPECT_EQ(vault_.Look("app_binding " + record).versions.size(), 1U);
}

TEST_P(AdoptionTest, SavingGoesOnMeanwhile) {
  MakeOld();
  auto app = FromJson<v1::App>(kApp);
  app.clear_client_secret();
  app.set_display_name("saved before");
  ASSERT_THAT(catalog_->Update(app, false, admin_), IsOk()) << "a binding that is missing holds up no save";
  const auto save = [this] {
    auto moved = FromJson<v1::McpServer>(kForwards);
    moved.set_upstream_url("https://other.example.com/mcp");
    EXPECT_THAT(catalog_->Update(moved, false, admin_), IsOk());
  };
  vault_.BeforeAdopt([&] { vault_.BeforeAdopt(save); });  // After what is to be adopted was read.
  Adoption adoption(*database_, vault_client_);
  const auto other_database = Open();
  Adoption other(*other_database, vault_client_);
  EXPECT_THAT(other.Run(), IsOk());
  Finish(adoption);
  Finish(other);
  EXPECT_THAT(Unbound(), IsEmpty());
}

TEST_P(AdoptionTest, SavesThatWereLoadedBeforeKeepWhatWasFilledIn) {
  MakeOld();
  Adoption adoption(*database_, vault_client_);
  before_step_ = [&, once = true](absl::string_view step) mutable {
    if (step == "announce" && std::exchange(once, false)) Finish(adoption);
    return absl::OkStatus();
  };
  auto app = FromJson<v1::App>(kApp);
  app.clear_client_secret();
  app.set_display_name("GitHub");
  auto server = FromJson<v1::McpServer>(kForwards);
  server.set_description("x");
  v1::ApplyRequest file;
  *file.add_apps() = app;
  *file.add_mcp_servers() = server;
  ASSERT_THAT(catalog_->Apply(file, admin_), IsOk());
  before_step_ = nullptr;
  EXPECT_EQ(Stored().apps(0).display_name(), "GitHub");
  EXPECT_EQ(Stored().apps(0).binding().version(), 1);
  EXPECT_THAT(Unbound(), IsEmpty());
  EXPECT_THAT(Ledger(), ::testing::Each(HasSubstr(" LIVE")));
}

TEST_P(AdoptionTest, ABindingThatTheStoreDoesNotKnowHoldsUpNoCredentialAdmin) {
  MakeOld();
  const std::string record = Stored().apps(0).uid() + "/binding";
  ASSERT_THAT(vault_client_.Adopt({{"app_binding", record, 0, {"https://api.example.com"}}}, false), IsOk());
  auto app = FromJson<v1::App>(kApp);
  app.clear_client_secret();
  app.add_allowed_upstream_origins("https://api.example.com");
  app.add_allowed_upstream_origins("https://b.example.com");
  ASSERT_THAT(catalog_->Update(app, false, chief_), IsOk());
  EXPECT_EQ(Stored().apps(0).binding().version(), 2);
  Adoption adoption(*database_, vault_client_);
  Finish(adoption);
  EXPECT_THAT(Unbound(), IsEmpty());
}

TEST_P(AdoptionTest, ASaveThatIsNotSettledIsNotBuiltUpon) {
  MakeOld();
  Adoption adoption(*database_, vault_client_);
  before_step_ = [&, dead = false](absl::string_view step) mutable {
    if (step == "commit") {
      EXPECT_THAT(adoption.Run(), IsOk());
      dead = true;
    }
    return dead ? absl::CancelledError("killed") : absl::OkStatus();
  };
  auto app = FromJson<v1::App>(kApp);
  app.clear_client_secret();
  app.set_display_name("GitHub");
  ASSERT_FALSE(catalog_->Update(app, false, admin_).ok());
  before_step_ = nullptr;
  EXPECT_FALSE(Stored().apps(0).has_binding()) << "its version goes with the save";
  clock_.Advance(absl::Minutes(61));
  ASSERT_THAT(catalog_->EraseUnusedSecrets(), IsOk());
  Finish(adoption);
  EXPECT_THAT(Unbound(), IsEmpty());
}

TEST_P(AdoptionTest, ManySecretsGoInBatches) {
  std::vector<std::string> credentials;
  for (int i = 0; i < 230; ++i) {
    credentials.push_back(absl::StrCat(R"({"slug": "c)", i, R"(", "kind": "API_KEY", "value": {"value": "k"},
        "allowedUpstreamOrigins": ["https://api.example.com"]})"));
  }
  ASSERT_THAT(Apply(File({}, {}, credentials), chief_), IsOk());
  vault_.MakeOld();
  Adoption adoption(*database_, vault_client_);
  EXPECT_EQ(Finish(adoption), 2);
  EXPECT_THAT(Unbound(), IsEmpty());
}

}  // namespace
}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gmock/gmock.h>

#include "common/error.h"
#include "common/status_macros.h"
#include "services/registry/catalog.h"
#include "services/registry/registry_testing.h"

namespace sallyport::registry {

inline constexpr char kBearer[] = R"({"slug": "a", "upstreamUrl": "https://api.example.com/mcp",
    "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"bearer": {"token": {"value": "hunter2"}}}})";
inline constexpr char kBearerNoValue[] = R"({"slug": "a", "upstreamUrl": "https://api.example.com/mcp",
    "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"bearer": {}}})";
inline constexpr char kOpen[] = R"({"slug": "a", "upstreamUrl": "https://api.example.com/mcp",
    "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"passthrough": {}}})";
inline constexpr char kApp[] = R"({"slug": "github", "authorizationUrl": "https://idp.example.com/authorize",
    "tokenUrl": "https://idp.example.com/token", "clientId": "me", "clientSecret": {"value": "s3cret"}})";
inline constexpr char kOAuth[] = R"({"slug": "gh", "upstreamUrl": "https://api.example.com/mcp",
    "agentAuth": {"interactive": {"allow": {"everyone": true}}}, "appAuth": {"oauthAuthorization": {"app": "github"}}})";
inline constexpr char kCredential[] = R"({"slug": "c", "kind": "API_KEY", "value": {"value": "k"},
    "allowedUpstreamOrigins": ["https://api.example.com"]})";

// A catalog over a database of either engine and a vault that can fail.
class CatalogTest : public EngineTest {
 protected:
  void SetUp() override {
    EngineTest::SetUp();
    if (IsSkipped()) return;
    audit_ = std::make_unique<AuditOutbox>(*database_, clock_, OutboxOptions());
    catalog_ = MakeCatalog(*database_);
  }
  std::unique_ptr<Catalog> MakeCatalog(Database& database) {
    Catalog::Options options = CatalogOptions();
    options.connectors = [this] {
      ++connector_questions_;
      return connectors_;
    };
    options.issuer_auth_methods = [this](const std::string& issuer) {
      asked_issuers_.push_back(issuer);
      return announced_;
    };
    options.before_step = [this](absl::string_view step) {
      return before_step_ ? before_step_(step) : absl::OkStatus();
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
    EXPECT_THAT(response, sallyport::testing::IsOk());
    std::vector<std::string> actions;
    if (!response.ok()) return actions;
    for (const auto& result : response->results()) {
      actions.push_back(result.kind() + " " + result.slug() + " " + v1::ApplyResponse::Action_Name(result.action()));
    }
    return actions;
  }
  static std::vector<std::string> Refused(const absl::Status& status) {
    EXPECT_THAT(status, sallyport::testing::StatusIs(absl::StatusCode::kInvalidArgument));
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
                sallyport::testing::IsOk());
    return event.snapshot();
  }
  int64_t Revision() {
    int64_t revision = 0;
    EXPECT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(revision, Store::Revision(tx));
      return absl::OkStatus();
    }),
                sallyport::testing::IsOk());
    return revision;
  }
  std::vector<audit::v1::Event> Events() {
    std::vector<audit::v1::Event> events;
    EXPECT_THAT(audit_->ShipOnce([&](const audit::v1::AppendRequest& request) -> absl::StatusOr<uint64_t> {
      events.assign(request.events().begin(), request.events().end());
      return events.back().sequence();
    }),
                sallyport::testing::IsOk());
    return events;
  }
  std::string BearerKey() { return "server_secret " + Stored().mcp_servers(0).uid() + "/app_auth.bearer.token"; }

  // Every version the ledger lists, as "<record after the uid> <version> <state>".
  std::vector<std::string> Ledger() {
    std::vector<std::string> lines;
    EXPECT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
      lines.clear();
      ASSIGN_OR_RETURN(const Rows rows, tx.Query("SELECT * FROM secret_version ORDER BY record, version, write"));
      for (const Row& row : rows) {
        const std::string record = row.Text("record");
        lines.push_back(
            absl::StrCat(record.substr(record.find('/') + 1), " ", row.Int("version"), " ", row.Text("state")));
      }
      return absl::OkStatus();
    }),
                sallyport::testing::IsOk());
    return lines;
  }

  FakeVault vault_;
  sallyport::testing::InProcessServer vault_server_{{&vault_.service()}};
  SecretVault vault_client_{vault_server_.channel()};
  StepHook before_step_;
  std::unique_ptr<AuditOutbox> audit_;
  std::unique_ptr<Catalog> catalog_;
  Writer admin_ = Admin();
  Writer chief_ = CredentialAdmin();
  std::optional<Connectors> connectors_ = CatalogOptions().connectors();
  std::atomic<int> connector_questions_ = 0;  // Writers ask from threads of their own.
  std::vector<std::string> asked_issuers_;
  absl::StatusOr<std::vector<std::string>> announced_ = CatalogOptions().issuer_auth_methods("");
};

}  // namespace sallyport::registry

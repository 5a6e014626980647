// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include "common/audit/outbox.h"
#include "common/error.h"
#include "common/sql/sql.h"
#include "sallyport/audit/v1/audit.grpc.pb.h"
#include "tests/integration/credential_path.h"
#include "tests/integration/edited_tables.h"
#include "tests/testing/postgres.h"

namespace sallyport {

inline constexpr char kApi[] = "https://api.example.com";
inline constexpr char kOther[] = "https://other.example.com";

// A server of every kind of credential. $P stands for the provider's URL, $E for the thief's.
inline constexpr char kConfiguration[] = R"({
  "apps": [
    {"slug": "github", "authorizationUrl": "https://provider.example/authorize", "tokenUrl": "$P/token",
     "revocationUrl": "$P/revoke", "clientId": "c", "clientSecret": {"value": "canary-client-secret."},
     "allowedUpstreamOrigins": ["https://api.example.com"]},
    {"slug": "announced", "issuer": "$P", "clientId": "c", "clientSecret": {"value": "canary-announced-secret."},
     "allowedUpstreamOrigins": ["https://other.example.com"]},
    {"slug": "public", "authorizationUrl": "https://provider.example/authorize", "tokenUrl": "$P/token",
     "clientId": "c", "allowedUpstreamOrigins": ["https://api.example.com"]},
    {"slug": "thief", "authorizationUrl": "$E/authorize", "tokenUrl": "$E/token", "revocationUrl": "$E/revoke",
     "clientId": "c", "clientSecret": {"value": "thief-client-secret."}, "allowedUpstreamOrigins": ["$E"]},
    {"slug": "leaving", "authorizationUrl": "https://provider.example/authorize", "tokenUrl": "$P/token",
     "revocationUrl": "$P/revoke", "clientId": "c", "clientSecret": {"value": "canary-leaving-secret."},
     "allowedUpstreamOrigins": ["https://api.example.com"]}],
  "credentials": [
    {"slug": "stored", "kind": "API_KEY", "value": {"value": "canary-stored."},
     "allowedUpstreamOrigins": ["https://api.example.com"]},
    {"slug": "thief", "kind": "API_KEY", "value": {"value": "thief-stored."}, "allowedUpstreamOrigins": ["$E"]}],
  "mcpServers": [
    {"slug": "header", "upstreamUrl": "https://api.example.com/mcp", "agentAuth": $I,
     "appAuth": {"apiKey": {"name": "X-Api-Key", "prefix": "Key ", "value": {"value": "canary-header."}}}},
    {"slug": "query", "upstreamUrl": "https://api.example.com/mcp", "agentAuth": $I,
     "appAuth": {"apiKey": {"name": "key", "location": "QUERY", "value": {"value": "canary-query."}}}},
    {"slug": "bearer", "upstreamUrl": "https://api.example.com/mcp", "agentAuth": $I,
     "appAuth": {"bearer": {"token": {"value": "$BEARER"}}}},
    {"slug": "basic", "upstreamUrl": "https://other.example.com/mcp", "agentAuth": $I,
     "appAuth": {"basic": {"username": "robot", "password": {"value": "canary-basic."}}}},
    {"slug": "literal", "upstreamUrl": "https://other.example.com/mcp", "agentAuth": $I,
     "appAuth": {"passthrough": {}},
     "outboundHeaders": [{"name": "X-Secret", "literal": {"secretValue": {"value": "canary-literal."}}}]},
    {"slug": "switched", "upstreamUrl": "https://api.example.com/mcp", "agentAuth": $I, "appAuth": $SWITCHED},
    {"slug": "linked", "upstreamUrl": "https://api.example.com/mcp", "agentAuth": $I,
     "appAuth": {"oauthAuthorization": {"app": "github"}}},
    {"slug": "public", "upstreamUrl": "https://api.example.com/mcp", "agentAuth": $I,
     "appAuth": {"oauthAuthorization": {"app": "public"}}},
    {"slug": "announced", "upstreamUrl": "https://other.example.com/mcp", "agentAuth": $I,
     "appAuth": {"oauthAuthorization": {"app": "announced"}}},
    {"slug": "forward", "upstreamUrl": "https://api.example.com/mcp", "agentAuth": $I, "appAuth": {"passthrough": {}},
     "outboundHeaders": [{"name": "X-Idp-Token", "forwardCallerToken": {}}]},
    {"slug": "thief", "upstreamUrl": "$E/mcp", "agentAuth": $I,
     "appAuth": {"bearer": {"token": {"value": "thief-bearer."}}}},
    {"slug": "thief-linked", "upstreamUrl": "$E/mcp", "agentAuth": $I,
     "appAuth": {"oauthAuthorization": {"app": "thief"}}}]})";
inline constexpr char kEveryone[] = R"({"interactive": {"allow": {"everyone": true}}})";

// What was entered or linked, and where it may go.
inline const std::map<std::string, std::string>& Secrets() {
  static const std::map<std::string, std::string> secrets = {
      {"canary-header.", kApi},        {"canary-query.", kApi},        {"canary-former-bearer.", kApi},
      {"canary-bearer.", kApi},        {"canary-basic.", kOther},      {"canary-literal.", kOther},
      {"canary-former-switch.", kApi}, {"canary-switched.", kApi},     {"canary-stored.", kApi},
      {"canary-sign-in.", kApi},       {"canary-client-secret.", ""},  {"canary-announced-secret.", ""},
      {"canary-refresh.", ""},         {"canary-leaving-secret.", ""},
  };
  return secrets;
}

// A registry on a database of either engine that holds all of this, and a user who calls through the broker.
class CredentialPathTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  using Snapshot = CredentialPath::Snapshot;

  void SetUp() override {
    config::v1::Database config;
    Database::Options options;
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_OK_AND_ASSIGN(options.postgresql, testing::TestPostgres::CreateDatabase());
      config.set_postgresql(options.postgresql);
    } else {
      options.sqlite_path = directory_.File("registry.db");
      config.set_sqlite(options.sqlite_path);
    }
    path_ = std::make_unique<CredentialPath>(config);
    evil_ = path_->evil();
    ASSERT_NO_FATAL_FAILURE(Fill());
    ASSERT_OK_AND_ASSIGN(database_, Database::Open(std::move(options)));
    editor_ = std::make_unique<TableEditor>(*database_);
    ASSERT_NO_FATAL_FAILURE(LeaveEventUnsent());
    ASSERT_OK_AND_ASSIGN(tables_, editor_->ReadAll());
    path_->StartBroker();
    ASSERT_NO_FATAL_FAILURE(ReadUnedited());
  }

  // --- What is in the database ---

  void Apply(registry::RegistryServer& registry, const std::string& bearer, const std::string& switched) {
    const std::string json = absl::StrReplaceAll(kConfiguration, {{"$P", path_->provider_origin()},
                                                                  {"$E", evil_},
                                                                  {"$I", kEveryone},
                                                                  {"$BEARER", bearer},
                                                                  {"$SWITCHED", switched}});
    registry::v1::ApplyRequest request;
    const auto parsed = google::protobuf::util::JsonStringToMessage(json, &request);
    ASSERT_TRUE(parsed.ok()) << parsed.ToString();
    registry::v1::ApplyResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), path_->SignAdmin());
    const auto stub = registry::v1::Registry::NewStub(registry.InProcessChannel("edge"));
    ASSERT_THAT(FromGrpcStatus(stub->Apply(context.get(), request, &response)), testing::IsOk());
  }
  // Its users' tokens are to be revoked, so that it stays behind with its secret.
  void Delete(registry::RegistryServer& registry, const std::string& app) {
    registry::v1::DeleteAppRequest request;
    request.set_slug(app);
    registry::v1::DeleteAppResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), path_->SignAdmin());
    const auto stub = registry::v1::Registry::NewStub(registry.InProcessChannel("edge"));
    ASSERT_THAT(FromGrpcStatus(stub->DeleteApp(context.get(), request, &response)), testing::IsOk());
  }
  void Fill() {
    ASSERT_OK_AND_ASSIGN(const auto registry, path_->StartRegistry());
    // Twice: so there are former versions, and one that was retired.
    Apply(*registry, "canary-former-bearer.", R"({"bearer": {"token": {"value": "canary-former-switch."}}})");
    Apply(*registry, "canary-bearer.", R"({"apiKey": {"name": "X-Key", "value": {"value": "canary-switched."}}})");
    Delete(*registry, "leaving");
    registry::v1::PublishInvalidationsRequest publish;
    publish.add_invalidations()->set_kind(registry::v1::Invalidation::SUBJECT);
    publish.mutable_invalidations(0)->set_key("corp:zoe");
    registry::v1::PublishInvalidationsResponse published;
    const auto publishing = MakeClientContext(absl::Minutes(1));
    const auto stub = registry::v1::Registry::NewStub(registry->InProcessChannel("authn"));
    ASSERT_THAT(FromGrpcStatus(stub->PublishInvalidations(publishing.get(), publish, &published)), testing::IsOk());
    audit::v1::AppendRequest append;
    for (int i = 1; i <= 2; ++i) {
      audit::v1::Event& event = *append.add_events();
      event = SignIn(i);
      event.set_source("authn");
      event.set_boot("boot");
      event.set_sequence(static_cast<uint64_t>(i));
    }
    audit::v1::AppendResponse appended;
    const auto appending = MakeClientContext(absl::Minutes(1));
    const auto audit = audit::v1::Audit::NewStub(registry->InProcessChannel("authn"));
    ASSERT_THAT(FromGrpcStatus(audit->Append(appending.get(), append, &appended)), testing::IsOk());
  }
  audit::v1::Event SignIn(int user) const {
    audit::v1::Event event;
    event.set_type("login");
    *event.mutable_at() = ToTimestamp(path_->clock().Now());
    event.set_subject(absl::StrCat("corp:", user));
    event.set_user_name(absl::StrCat("User ", user));
    event.set_client_id(absl::StrCat("client", user));
    event.set_client_name(kApi);
    return event;
  }
  void LeaveEventUnsent() {
    AuditOutbox outbox(*database_, path_->clock(), {.source = "registry"});
    ASSERT_THAT(database_->Write([&](Transaction& tx) { return outbox.Append(tx, SignIn(3)); }), testing::IsOk());
  }
  void ReadUnedited() {
    ASSERT_OK_AND_ASSIGN(registry_, path_->StartRegistry());
    ASSERT_OK_AND_ASSIGN(const auto first, path_->Watch(*registry_, "", 0));
    ASSERT_TRUE(first.has_snapshot());
    unedited_ = first.snapshot();
    store_id_ = first.store_id();
    ASSERT_OK_AND_ASSIGN(const auto resumed, path_->Watch(*registry_, store_id_, 1));
    ASSERT_TRUE(resumed.has_delta());
    ASSERT_EQ(KeyOf(Applied(resumed)), KeyOf(unedited_));
    for (const auto& app : unedited_.apps()) apps_[app.slug()] = app;
  }

  // --- What comes of it ---

  // As the stream's reader takes it, on top of what was there before the edit.
  Snapshot Applied(const registry::v1::WatchEvent& event) const {
    if (event.has_snapshot()) return event.snapshot();
    Snapshot result;
    const auto keep = [](const auto& from, const auto& deleted, auto* into) {
      for (const auto& one : from) {
        if (std::find(deleted.begin(), deleted.end(), one.uid()) == deleted.end()) *into->Add() = one;
      }
    };
    const auto& delta = event.delta();
    keep(unedited_.mcp_servers(), delta.deleted_mcp_server_uids(), result.mutable_mcp_servers());
    keep(unedited_.apps(), delta.deleted_app_uids(), result.mutable_apps());
    result.mutable_mcp_servers()->MergeFrom(delta.mcp_servers());
    result.mutable_apps()->MergeFrom(delta.apps());
    return result;
  }
  // Equal for snapshots of which the broker makes the same: of one uid the last counts.
  template <typename Resource>
  static std::string KeyOf(const google::protobuf::RepeatedPtrField<Resource>& resources) {
    std::map<std::string, std::string> by_uid;
    for (const Resource& resource : resources) by_uid[resource.uid()] = resource.SerializeAsString();
    return absl::StrJoin(by_uid, "\n", absl::PairFormatter("\n"));
  }
  static std::string KeyOf(const Snapshot& snapshot) {
    return absl::StrCat(KeyOf(snapshot.mcp_servers()), "\n", KeyOf(snapshot.apps()));
  }
  // What the registry tells watchers of the database as it is now. It may refuse to.
  std::vector<Snapshot> Streamed(registry::RegistryServer& registry) {
    std::vector<Snapshot> streamed;
    for (const bool resumes : {false, true}) {
      const auto event = path_->Watch(registry, resumes ? store_id_ : "", resumes ? 1 : 0);
      if (event.ok()) streamed.push_back(Applied(*event));
    }
    return streamed;
  }

  struct Outcome {
    std::vector<std::string> leaks;
    std::set<std::string> given;  // To the origin it was entered for.
  };
  void LinkUser(const std::string& subject) {
    for (const std::string app : {"github", "public", "announced"}) {
      token_broker::v1::TokenSet tokens;
      tokens.set_access_token("canary-ended.");
      tokens.set_refresh_token("canary-refresh.");
      tokens.mutable_provenance()->set_token_origin(path_->provider_origin());
      tokens.mutable_provenance()->set_revocation_origin(path_->provider_origin());
      tokens.mutable_provenance()->set_binding(BindingName(apps_[app].uid()));
      path_->Link(subject, apps_[app].uid(), tokens, true);
    }
    token_broker::v1::TokenSet tokens;
    tokens.set_access_token("canary-sign-in.");
    path_->Link(subject, "sso:corp", tokens, false);
  }
  std::string BindingName(const std::string& uid) {
    vault::v1::GetRequest get;
    *get.mutable_record() = token_broker::OrganizationRecord("app_binding", uid + "/binding");
    const auto binding = token_broker::MakeVaultClient(path_->vault_for_broker())->Get(get, "");
    EXPECT_THAT(binding, testing::IsOk());
    return binding.ok() ? binding->payload() : "";
  }
  // A user whose tokens have not been renewed under other apps than these.
  std::string UserFor(const Snapshot& snapshot) {
    std::string& subject = users_[KeyOf(snapshot.apps())];
    if (subject.empty()) {
      subject = absl::StrCat("corp:u", users_.size());
      LinkUser(subject);
    }
    return subject;
  }
  // A user calls every server for the thief's origin, and for the server's own if that was not asked for before with
  // the same server and apps.
  Outcome Call(const Snapshot& snapshot) {
    Outcome outcome;
    path_->Tell(snapshot);
    const std::string subject = UserFor(snapshot);
    std::map<std::string, registry::v1::McpServer> servers;  // Of one uid the last counts, as in the broker.
    for (const auto& server : snapshot.mcp_servers()) servers[server.uid()] = server;
    for (const auto& [uid, server] : servers) {
      std::set<std::string> origins = {evil_};
      if (called_.insert(absl::StrCat(KeyOf(snapshot.apps()), "\n", server.SerializeAsString())).second) {
        const auto url = Url::Parse(server.upstream_url());
        origins.insert(url.ok() ? url->origin() : server.upstream_url());
      }
      for (const std::string& origin : origins) {
        const auto response = path_->Resolve(uid, server.version(), origin, subject);
        if (!response.ok()) continue;
        for (const auto& piece : response->pieces()) Note(server.slug(), piece.value(), origin, outcome);
      }
    }
    if (const std::string saw = path_->thief_saw(); absl::StrContains(saw, "canary")) outcome.leaks.push_back(saw);
    return outcome;
  }
  void Note(const std::string& server, const std::string& value, const std::string& origin, Outcome& outcome) const {
    std::string plain = value;
    absl::string_view basic = value;
    if (absl::ConsumePrefix(&basic, "Basic ")) absl::StrAppend(&plain, " ", Base64Decode(basic).value_or(""));
    if (!absl::StrContains(plain, "canary")) return;
    bool allowed = false;
    for (const auto& [secret, entered_for] : Secrets()) {
      allowed = allowed || (absl::StrContains(plain, secret) && entered_for == origin);
    }
    // Apps have renewed tokens, for an origin each.
    allowed = allowed || (absl::StrContains(plain, "canary-renewed.") && (origin == kApi || origin == kOther));
    if (allowed) {
      outcome.given.insert(absl::StrCat(server, " ", plain));
    } else {
      outcome.leaks.push_back(absl::StrCat(origin, " gets ", plain, " of ", server));
    }
  }

  testing::TempDirectory directory_;
  std::unique_ptr<CredentialPath> path_;
  std::unique_ptr<registry::RegistryServer> registry_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<TableEditor> editor_;
  std::vector<Table> tables_;  // Unedited, and before a registry was started that sends the event.
  std::string evil_;           // The thief's origin.
  std::string store_id_;
  Snapshot unedited_;
  std::map<std::string, registry::v1::App> apps_;  // By slug.
  std::map<std::string, std::string> users_;       // By the apps.
  std::set<std::string> called_;
};

}  // namespace sallyport

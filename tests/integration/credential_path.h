// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/http/url.h"
#include "common/json_log.h"
#include "common/mutex.h"
#include "common/proto_time.h"
#include "common/rpc/server.h"
#include "common/text/base64url.h"
#include "sallyport/registry/v1/registry.grpc.pb.h"
#include "sallyport/token_broker/v1/token_broker.grpc.pb.h"
#include "services/registry/registry_server.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/testing/http_provider.h"
#include "services/token_broker/token_broker_server.h"
#include "services/token_broker/vault_client.h"
#include "services/vault/vault_server.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fakes/fake_audit.h"
#include "tests/testing/fakes/fake_authn.h"
#include "tests/testing/fakes/fake_registry.h"
#include "tests/testing/fakes/in_process.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport {

// The services a credential passes through, in one process: registry, vault and broker are the real ones. The registry
// is started on its database as often as the test likes; what it streams is handed to the broker by a relay. Two
// loopback servers stand for the provider and for the thief, who is an upstream and a provider as well.
class CredentialPath {
 public:
  using Snapshot = registry::v1::WatchEvent::Snapshot;
  using Provider = token_broker::testing::HttpProvider;

  static constexpr char kPublicUrl[] = "https://gw.example.com";

  explicit CredentialPath(config::v1::Database registry_database) {
    SetLogLevel(LogLevel::kWarning);  // The test makes thousands of calls, and each is a line.
    registry_config_.mutable_deployment()->set_public_url(kPublicUrl);
    registry_config_.mutable_deployment()->mutable_egress()->add_upstream_networks("127.0.0.0/8");
    registry_config_.mutable_deployment()->mutable_egress()->add_oauth_networks("127.0.0.0/8");
    *registry_config_.mutable_database() = std::move(registry_database);
    provider_.SetHandler(
        [this](const auto& request) { return Answer(provider_, "canary-renewed.", request, provider_saw_); });
    thief_.SetHandler([this](const auto& request) { return Answer(thief_, "thief-token.", request, thief_saw_); });
    StartVault();
  }

  absl::StatusOr<std::unique_ptr<registry::RegistryServer>> StartRegistry() {
    return registry::RegistryServer::Start(registry_config_, clock_, {vault_for_registry_, authn_server_.channel()});
  }
  void StartBroker() {
    config::v1::TokenBrokerConfig config;
    *config.mutable_deployment() = registry_config_.deployment();
    config.set_data_directory(directory_.File("broker"));
    auto started = token_broker::TokenBrokerServer::Start(
        config, clock_, {relay_server_.channel(), authn_server_.channel(), vault_for_broker_});
    ASSERT_THAT(started, testing::IsOk());
    broker_ = *std::move(started);
    broker_stub_ = token_broker::v1::TokenBroker::NewStub(broker_->InProcessChannel("edge"));
    while (!broker_->Ready().ok()) std::this_thread::yield();
    Tell({});
  }

  std::string evil() const { return Url::Parse(thief_.Url("/"))->origin(); }
  std::string provider_origin() const { return Url::Parse(provider_.Url("/"))->origin(); }
  std::string provider_saw() const { return Take(provider_saw_); }
  std::string thief_saw() const { return Take(thief_saw_); }
  const Clock& clock() const { return clock_; }
  std::string SignAdmin(const std::vector<std::string>& roles = {"admin", "credential-admin"}) const {
    return authn_.SignFor("local:root", roles);
  }
  // As the services themselves call it.
  const std::shared_ptr<grpc::Channel>& vault_for_registry() const { return vault_for_registry_; }
  const std::shared_ptr<grpc::Channel>& vault_for_broker() const { return vault_for_broker_; }

  // The broker goes by this snapshot when it returns.
  void Tell(const Snapshot& snapshot) {
    const int64_t before = told_++;
    relay_.Change([&](Snapshot& told) {
      told = snapshot;
      registry::v1::McpServer& marker = *told.add_mcp_servers();
      marker.set_uid("srv_marker");
      marker.set_slug("marker");
      marker.set_version(told_);
      marker.set_upstream_url("https://marker.example");
      marker.mutable_app_auth()->mutable_passthrough();
    });
    if (before == 0) return;
    // The broker refuses a version it has left behind at once, and would wait for one it has not heard of.
    while (!absl::IsAborted(Resolve("srv_marker", before, "https://marker.example", "").status())) {
      std::this_thread::yield();
    }
  }

  // A connection as a link of this user would have left it; `ended`: it must be renewed before it is used.
  void Link(const std::string& subject, const std::string& connection, token_broker::v1::TokenSet tokens, bool ended) {
    const absl::Time now = clock_.Now();
    *tokens.mutable_obtained_at() = ToTimestamp(now - absl::Hours(2));
    *tokens.mutable_expires_at() = ToTimestamp(ended ? now - absl::Hours(1) : now + absl::Hours(1));
    vault::v1::PutRequest put;
    *put.mutable_record() = token_broker::ConnectionRecord(subject, connection);
    put.set_payload(tokens.SerializeAsString());
    for (const auto& [name, value] : token_broker::LabelsOf(tokens, connection)) (*put.mutable_labels())[name] = value;
    EXPECT_THAT(token_broker::MakeVaultClient(vault_for_broker_)->Put(put, SignCall(subject, "")), testing::IsOk());
  }
  absl::StatusOr<token_broker::v1::ResolveCredentialsResponse> Resolve(const std::string& uid, int64_t version,
                                                                       const std::string& origin,
                                                                       const std::string& subject) {
    token_broker::v1::ResolveCredentialsRequest request;
    request.set_server_uid(uid);
    request.set_server_version(version);
    request.set_upstream_origin(origin);
    token_broker::v1::ResolveCredentialsResponse response;
    const auto context = MakeClientContext(absl::Seconds(60), subject.empty() ? "" : SignCall(subject, uid));
    const grpc::Status status = broker_stub_->ResolveCredentials(context.get(), request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }

  // The first event of a stream: for a new watcher, or for one that resumes from a revision it knows.
  absl::StatusOr<registry::v1::WatchEvent> Watch(registry::RegistryServer& registry, const std::string& store_id,
                                                 int64_t revision) {
    registry::v1::WatchRequest request;
    request.set_store_id(store_id);
    request.set_revision(revision);
    const auto stub = registry::v1::Registry::NewStub(registry.InProcessChannel("token_broker"));
    const auto context = MakeClientContext(absl::Seconds(30));
    const auto reader = stub->Watch(context.get(), request);
    registry::v1::WatchEvent event;
    const bool told = reader->Read(&event);
    if (told) context->TryCancel();
    const grpc::Status status = reader->Finish();
    if (!told) return status.ok() ? absl::UnavailableError("nothing was streamed") : FromGrpcStatus(status);
    return event;
  }

 private:
  void StartVault() {
    config::v1::VaultConfig config;
    config.mutable_database()->set_sqlite(directory_.File("vault.db"));
    config.mutable_kek()->set_directory(directory_.File("kek"));
    config.mutable_deployment()->set_public_url(kPublicUrl);
    auto started = vault::VaultServer::Start(config, clock_, {authn_server_.channel(), nullptr});
    EXPECT_THAT(started, testing::IsOk());
    vault_ = *std::move(started);
    vault_for_registry_ = vault_->InProcessChannel("registry");
    vault_for_broker_ = vault_->InProcessChannel("token_broker");
  }
  const std::string& SignCall(const std::string& subject, const std::string& server) {
    std::string& signed_before = passports_[{subject, server}];  // Signing takes longer than a call.
    if (!signed_before.empty()) return signed_before;
    Passport passport;
    passport.subject = subject;
    passport.server_uid = server;
    passport.session_id = "ses_" + subject;
    passport.purpose = Passport::Purpose::kCall;
    return signed_before = authn_.Sign(passport);
  }
  // Both are issuers that announce endpoints of their own, and token endpoints that take every client and token.
  Provider::Response Answer(const Provider& at, const std::string& token, const Provider::Request& request,
                            std::string& seen) {
    {
      MutexLock lock(mu_);
      std::string* saw = &seen;
      absl::StrAppend(saw, "\n", request.path, " ", request.authorization);
      absl::string_view basic = request.authorization;
      if (absl::ConsumePrefix(&basic, "Basic ")) absl::StrAppend(saw, " ", Base64Decode(basic).value_or(""));
      for (const auto& [name, value] : request.form) absl::StrAppend(saw, " ", name, "=", value);
    }
    if (absl::StrContains(request.path, "/.well-known/")) {
      return {200, absl::StrCat(R"({"issuer":")", at.Url(""), R"(","authorization_endpoint":")", at.Url("/authorize"),
                                R"(","token_endpoint":")", at.Url("/token"), R"(","revocation_endpoint":")",
                                at.Url("/revoke"), R"(","response_types_supported":["code"]})")};
    }
    return {200, absl::StrCat(R"({"access_token":")", token, R"(","token_type":"Bearer","expires_in":3600})")};
  }
  std::string Take(const std::string& saw) const {
    MutexLock lock(mu_);
    return saw;
  }

  mutable Mutex mu_;
  std::string provider_saw_;
  std::string thief_saw_;
  Provider provider_{[](const auto&) { return Provider::Response{}; }};
  Provider thief_{[](const auto&) { return Provider::Response{}; }};
  // The database's own clock decides on PostgreSQL: both must agree.
  FakeClock clock_{absl::Now()};
  testing::TempDirectory directory_;
  testing::FakeAuthn authn_{clock_, kPublicUrl};
  testing::InProcessServer authn_server_{{&authn_}};
  testing::FakeRegistry relay_;
  testing::FakeAudit audit_;
  testing::InProcessServer relay_server_{{&relay_, &audit_}};
  config::v1::RegistryConfig registry_config_;
  std::unique_ptr<vault::VaultServer> vault_;
  std::shared_ptr<grpc::Channel> vault_for_registry_;
  std::shared_ptr<grpc::Channel> vault_for_broker_;
  std::unique_ptr<token_broker::TokenBrokerServer> broker_;
  std::unique_ptr<token_broker::v1::TokenBroker::Stub> broker_stub_;
  std::map<std::pair<std::string, std::string>, std::string> passports_;
  int64_t told_ = 0;
};

}  // namespace sallyport

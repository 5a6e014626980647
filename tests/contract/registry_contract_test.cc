// SPDX-License-Identifier: Apache-2.0
// The fake registry against the real one: what watchers of the control stream may rely on.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/rpc/server.h"
#include "services/registry/registry_server.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fakes/fake_authn.h"
#include "tests/testing/fakes/fake_registry.h"
#include "tests/testing/fakes/fake_vault.h"
#include "tests/testing/fakes/in_process.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport {
namespace {

using registry::v1::Invalidation;
using registry::v1::WatchEvent;
using ::testing::ElementsAre;
using testing::IsOk;

constexpr char kPublicUrl[] = "https://gw.example.com";

registry::v1::McpServer Server(const std::string& slug) {
  registry::v1::McpServer server;
  server.set_slug(slug);
  server.set_upstream_url("https://api.example.com/mcp");
  server.mutable_agent_auth()->mutable_interactive()->mutable_allow()->set_everyone(true);
  server.mutable_app_auth()->mutable_passthrough();
  return server;
}

registry::v1::App App(const std::string& slug) {
  registry::v1::App app;
  app.set_slug(slug);
  app.set_authorization_url("https://idp.example.com/authorize");
  app.set_token_url("https://idp.example.com/token");
  app.set_client_id("me");
  app.mutable_client_secret()->set_value("s3cret");
  return app;
}

// A registry with one server, "a".
class Subject {
 public:
  virtual ~Subject() = default;
  virtual std::unique_ptr<registry::v1::Registry::Stub> As(const std::string& service) = 0;
  // Saves another server.
  virtual void Save(const std::string& slug) = 0;
  // The same of an app, with a secret.
  virtual void SaveApp(const std::string& slug) = 0;
  virtual void DeleteApp(const std::string& slug) = 0;
  // By its own clock.
  virtual void Advance(absl::Duration by) = 0;
};

class Fake final : public Subject {
 public:
  Fake() { Save("a"); }
  std::unique_ptr<registry::v1::Registry::Stub> As(const std::string& /*service*/) override {
    return registry::v1::Registry::NewStub(server_.channel());
  }
  void Save(const std::string& slug) override {
    registry::v1::McpServer server = Server(slug);
    server.set_uid("srv_" + slug);
    server.set_version(1);
    registry_.Put(server);
  }
  void SaveApp(const std::string& slug) override {
    registry::v1::App app = App(slug);
    app.set_uid(absl::StrCat("app_", slug, ++apps_));
    app.set_version(1);
    app.mutable_client_secret()->Clear();
    app.mutable_client_secret()->set_set(true);
    app.mutable_client_secret()->set_version(1);
    app.mutable_client_secret()->set_vault_record(app.uid() + "/client_secret");
    registry_.PutApp(app);
  }
  void Advance(absl::Duration /*by*/) override {}
  void DeleteApp(const std::string& slug) override { registry_.EndApp(absl::StrCat("app_", slug, apps_)); }

 private:
  testing::FakeRegistry registry_;
  int apps_ = 0;
  testing::InProcessServer server_{{&registry_}};
};

class Real final : public Subject {
 public:
  Real() {
    config::v1::RegistryConfig config;
    config.mutable_database()->set_sqlite(directory_.File("registry.db"));
    config.mutable_deployment()->set_public_url(kPublicUrl);
    auto started = registry::RegistryServer::Start(config, clock_, {peers_.channel(), peers_.channel()});
    EXPECT_THAT(started, IsOk());
    server_ = *std::move(started);
    Save("a");
  }
  std::unique_ptr<registry::v1::Registry::Stub> As(const std::string& service) override {
    return registry::v1::Registry::NewStub(server_->InProcessChannel(service));
  }
  void Save(const std::string& slug) override {
    registry::v1::CreateMcpServerRequest request;
    *request.mutable_mcp_server() = Server(slug);
    registry::v1::WriteMcpServerResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), authn_.SignFor("local:root", {"admin"}));
    const grpc::Status status = As("edge")->CreateMcpServer(context.get(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  void SaveApp(const std::string& slug) override {
    registry::v1::CreateAppRequest request;
    *request.mutable_app() = App(slug);
    registry::v1::WriteAppResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), authn_.SignFor("local:root", {"admin"}));
    const grpc::Status status = As("edge")->CreateApp(context.get(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  void DeleteApp(const std::string& slug) override {
    registry::v1::DeleteAppRequest request;
    request.set_slug(slug);
    registry::v1::DeleteAppResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), authn_.SignFor("local:root", {"admin"}));
    const grpc::Status status = As("edge")->DeleteApp(context.get(), request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  void Advance(absl::Duration by) override { clock_.Advance(by); }

 private:
  FakeClock clock_{absl::Now()};
  testing::TempDirectory directory_;
  testing::FakeAuthn authn_{clock_, kPublicUrl};
  testing::FakeVault vault_{clock_};
  testing::FakeVaultService vault_service_{vault_, "registry"};
  testing::InProcessServer peers_{{&authn_, &vault_service_}};
  std::unique_ptr<registry::RegistryServer> server_;
};

// A stream that reads past heartbeats.
class Watcher {
 public:
  Watcher(Subject& subject, const std::string& service)
      : stub_(subject.As(service)), context_(MakeClientContext(absl::Minutes(1))) {
    reader_ = stub_->Watch(context_.get(), {});
  }
  ~Watcher() {
    context_->TryCancel();
    reader_->Finish();
  }
  WatchEvent Next() {
    WatchEvent event;
    while (reader_->Read(&event)) {
      if (!event.has_heartbeat()) return event;
    }
    ADD_FAILURE() << "the stream has ended";
    return WatchEvent();
  }

 private:
  std::unique_ptr<registry::v1::Registry::Stub> stub_;
  std::unique_ptr<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientReader<WatchEvent>> reader_;
};

class RegistryContractTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam()) {
      subject_ = std::make_unique<Real>();
    } else {
      subject_ = std::make_unique<Fake>();
    }
  }
  grpc::Status Publish(const std::string& service, Invalidation::Kind kind, const std::string& key,
                       int64_t generation) {
    registry::v1::PublishInvalidationsRequest request;
    auto& invalidation = *request.add_invalidations();
    invalidation.set_kind(kind);
    invalidation.set_key(key);
    invalidation.set_generation(generation);
    registry::v1::PublishInvalidationsResponse response;
    const auto context = MakeClientContext(absl::Minutes(1));
    return subject_->As(service)->PublishInvalidations(context.get(), request, &response);
  }

  grpc::Status Finish(const std::string& uid) {
    registry::v1::FinishAppRequest request;
    request.set_app_uid(uid);
    registry::v1::FinishAppResponse response;
    const auto context = MakeClientContext(absl::Minutes(1));
    return subject_->As("token_broker")->FinishApp(context.get(), request, &response);
  }

  std::unique_ptr<Subject> subject_;
};

TEST_P(RegistryContractTest, AWatcherIsSentASnapshotFirst) {
  Watcher watcher(*subject_, "edge");
  const WatchEvent first = watcher.Next();
  EXPECT_FALSE(first.store_id().empty());
  EXPECT_GT(first.revision(), 0);
  EXPECT_FALSE(first.more());
  ASSERT_TRUE(first.has_snapshot());
  ASSERT_EQ(first.snapshot().mcp_servers_size(), 1);
  EXPECT_EQ(first.snapshot().mcp_servers(0).slug(), "a");
  EXPECT_EQ(first.snapshot().mcp_servers(0).version(), 1);
  EXPECT_FALSE(first.snapshot().mcp_servers(0).uid().empty());
}

TEST_P(RegistryContractTest, AServerThatIsSavedReachesEveryWatcherAsADelta) {
  Watcher edge(*subject_, "edge");
  Watcher broker(*subject_, "token_broker");
  std::vector<std::pair<Watcher*, WatchEvent>> firsts = {{&edge, edge.Next()}, {&broker, broker.Next()}};
  subject_->Save("b");
  for (auto& [watcher, first] : firsts) {
    const WatchEvent next = watcher->Next();
    EXPECT_EQ(next.store_id(), first.store_id());
    EXPECT_GT(next.revision(), first.revision());
    ASSERT_TRUE(next.has_delta());
    ASSERT_EQ(next.delta().mcp_servers_size(), 1);
    EXPECT_EQ(next.delta().mcp_servers(0).slug(), "b");
  }
  Watcher later(*subject_, "authn");
  EXPECT_EQ(later.Next().snapshot().mcp_servers_size(), 2);
}

TEST_P(RegistryContractTest, WhatIsPublishedReachesEveryWatcher) {
  Watcher edge(*subject_, "edge");
  Watcher broker(*subject_, "token_broker");
  const int64_t revision = edge.Next().revision();
  broker.Next();
  ASSERT_TRUE(Publish("authn", Invalidation::SUBJECT, "corp:ada", 0).ok());
  ASSERT_TRUE(Publish("token_broker", Invalidation::CONNECTION, "corp:ada\napp_1\n", 7).ok());
  for (Watcher* watcher : {&edge, &broker}) {
    std::vector<Invalidation> seen;
    while (seen.size() < 2 && !HasFailure()) {  // One delta or two.
      const WatchEvent next = watcher->Next();
      EXPECT_GT(next.revision(), revision);
      for (const auto& invalidation : next.delta().invalidations()) seen.push_back(invalidation);
    }
    ASSERT_EQ(seen.size(), 2U);
    EXPECT_EQ(seen[0].kind(), Invalidation::SUBJECT);
    EXPECT_EQ(seen[0].key(), "corp:ada");
    EXPECT_EQ(seen[1].kind(), Invalidation::CONNECTION);
    EXPECT_EQ(seen[1].generation(), 7);
  }
}

TEST_P(RegistryContractTest, ADeletedAppIsEndingUntilTheBrokerFinishesIt) {
  subject_->SaveApp("github");
  Watcher broker(*subject_, "token_broker");
  const WatchEvent first = broker.Next();
  ASSERT_EQ(first.snapshot().apps_size(), 1);
  const registry::v1::App app = first.snapshot().apps(0);
  EXPECT_EQ(first.snapshot().ending_apps_size(), 0);
  ASSERT_TRUE(Finish(app.uid()).ok()) << "a live app is none, and nothing becomes of it";

  subject_->DeleteApp("github");
  const WatchEvent deleted = broker.Next();
  ASSERT_TRUE(deleted.has_delta());
  EXPECT_THAT(deleted.delta().deleted_app_uids(), ElementsAre(app.uid()));
  EXPECT_EQ(deleted.delta().apps_size(), 0);
  ASSERT_EQ(deleted.delta().ending_apps_size(), 1);
  const registry::v1::App& ending = deleted.delta().ending_apps(0);
  EXPECT_EQ(ending.uid(), app.uid());
  EXPECT_EQ(ending.client_id(), "me");
  EXPECT_EQ(ending.token_url(), app.token_url());
  EXPECT_EQ(ending.client_secret().vault_record(), app.client_secret().vault_record());
  EXPECT_EQ(ending.client_secret().version(), app.client_secret().version());
  EXPECT_FALSE(ending.has_binding());

  subject_->SaveApp("github");
  const WatchEvent anew = broker.Next();
  ASSERT_EQ(anew.delta().apps_size(), 1) << "the slug is free";
  EXPECT_NE(anew.delta().apps(0).uid(), app.uid());
  {
    Watcher later(*subject_, "token_broker");
    const WatchEvent snapshot = later.Next();
    EXPECT_EQ(snapshot.snapshot().apps_size(), 1);
    ASSERT_EQ(snapshot.snapshot().ending_apps_size(), 1);
    EXPECT_EQ(snapshot.snapshot().ending_apps(0).uid(), app.uid());
  }

  subject_->Advance(absl::Minutes(1));  // A link may be in flight until then.
  ASSERT_TRUE(Finish(app.uid()).ok());
  const WatchEvent finished = broker.Next();
  ASSERT_TRUE(finished.has_delta());
  EXPECT_THAT(finished.delta().finished_app_uids(), ElementsAre(app.uid()));
  EXPECT_EQ(finished.delta().ending_apps_size(), 0);
  EXPECT_TRUE(Finish(app.uid()).ok()) << "again";
  EXPECT_TRUE(Finish("app_nowhere").ok());
  Watcher last(*subject_, "token_broker");
  const WatchEvent after = last.Next();
  EXPECT_EQ(after.snapshot().ending_apps_size(), 0);
  EXPECT_EQ(after.snapshot().apps_size(), 1);
  EXPECT_EQ(after.revision(), finished.revision()) << "what changed nothing is no change";
}

INSTANTIATE_TEST_SUITE_P(Registries, RegistryContractTest, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Real" : "Fake"; });

}  // namespace
}  // namespace sallyport

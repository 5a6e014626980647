// SPDX-License-Identifier: Apache-2.0
// The fake registry against the real one: what watchers of the control stream may rely on.
#include <memory>
#include <string>
#include <utility>
#include <vector>

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

// A registry with one server, "a".
class Subject {
 public:
  virtual ~Subject() = default;
  virtual std::unique_ptr<registry::v1::Registry::Stub> As(const std::string& service) = 0;
  // Saves another server.
  virtual void Save(const std::string& slug) = 0;
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

 private:
  testing::FakeRegistry registry_;
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

INSTANTIATE_TEST_SUITE_P(Registries, RegistryContractTest, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Real" : "Fake"; });

}  // namespace
}  // namespace sallyport

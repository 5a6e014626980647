// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "common/audit_outbox.h"
#include "common/caller/caller.h"
#include "common/mutex.h"
#include "common/sql.h"
#include "sallyport/authn/v1/authn.grpc.pb.h"
#include "sallyport/registry/v1/registry.pb.h"
#include "sallyport/vault/v1/vault.grpc.pb.h"
#include "services/registry/store.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/postgres.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport::registry {

// A message from its JSON.
template <typename T>
T FromJson(const std::string& json) {
  T message;
  const auto status = google::protobuf::util::JsonStringToMessage(json, &message);
  EXPECT_TRUE(status.ok()) << status.ToString() << " " << json;
  return message;
}

// What the registry asks of the vault, as the vault answers: versions, comparing, pins. Thread-safe.
class FakeVault final : public vault::v1::Vault::Service {
 public:
  struct Record {
    std::map<int64_t, std::string> versions;
    std::set<int64_t> pinned;
    int64_t head = 0;  // 0: deleted.
    int64_t last = 0;
    std::string passport;
  };

  grpc::Status Put(grpc::ServerContext* context, const vault::v1::PutRequest* request,
                   vault::v1::PutResponse* response) override {
    MutexLock lock(mu_);
    ++puts_;
    if (down_) return {grpc::StatusCode::UNAVAILABLE, "vault is sealed"};
    EXPECT_TRUE(request->pin() && request->only_if_changed() && request->keep_generation());
    EXPECT_EQ(request->record().owner_type(), vault::v1::ORG);
    EXPECT_EQ(request->record().owner_id(), "default");
    Record& record = records_[Key(request->record())];
    const auto passport = context->client_metadata().find(kPassportMetadata);
    record.passport = passport == context->client_metadata().end()
                          ? ""
                          : std::string(passport->second.data(), passport->second.size());
    if (record.head != 0 && record.versions[record.head] == request->payload()) {
      response->set_unchanged(true);
    } else {
      record.head = ++record.last;
      record.versions[record.head] = request->payload();
    }
    record.pinned.insert(record.head);
    response->set_version(record.head);
    return grpc::Status::OK;
  }
  grpc::Status Pin(grpc::ServerContext* /*context*/, const vault::v1::PinRequest* request,
                   vault::v1::PinResponse* /*response*/) override {
    MutexLock lock(mu_);
    if (down_) return {grpc::StatusCode::UNAVAILABLE, "vault is sealed"};
    Record& record = records_[Key(request->record())];
    if (request->pinned()) {
      record.pinned.insert(request->version());
    } else {
      record.pinned.erase(request->version());
    }
    return grpc::Status::OK;
  }
  grpc::Status Delete(grpc::ServerContext* /*context*/, const vault::v1::DeleteRequest* request,
                      vault::v1::DeleteResponse* /*response*/) override {
    MutexLock lock(mu_);
    if (down_) return {grpc::StatusCode::UNAVAILABLE, "vault is sealed"};
    const auto record = records_.find(Key(request->record()));
    if (record == records_.end()) return {grpc::StatusCode::NOT_FOUND, "no such record"};
    record->second.head = 0;
    record->second.versions.clear();
    record->second.pinned.clear();
    return grpc::Status::OK;
  }

  void SetDown(bool down) {
    MutexLock lock(mu_);
    down_ = down;
  }
  int puts() const {
    MutexLock lock(mu_);
    return puts_;
  }
  // By "<kind> <name>"; empty if it never was.
  Record Get(const std::string& key) const {
    MutexLock lock(mu_);
    const auto record = records_.find(key);
    return record == records_.end() ? Record() : record->second;
  }
  // Names of the records that hold a value.
  std::vector<std::string> Live() const {
    MutexLock lock(mu_);
    std::vector<std::string> names;
    for (const auto& [key, record] : records_) {
      if (record.head != 0) names.push_back(key);
    }
    return names;
  }

 private:
  static std::string Key(const vault::v1::RecordName& name) { return name.kind() + " " + name.name(); }
  mutable Mutex mu_;
  bool down_ ABSL_GUARDED_BY(mu_) = false;
  int puts_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<std::string, Record> records_ ABSL_GUARDED_BY(mu_);
};

// A gRPC server for one fake service and an in-process channel to it.
class InProcessFake {
 public:
  explicit InProcessFake(grpc::Service& service) {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service);
    server_ = builder.BuildAndStart();
    channel_ = server_->InProcessChannel(grpc::ChannelArguments());
  }
  ~InProcessFake() { server_->Shutdown(std::chrono::system_clock::now()); }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

 private:
  std::unique_ptr<grpc::Server> server_;
  std::shared_ptr<grpc::Channel> channel_;
};

enum class Engine { kSqlite, kPostgresql };
inline std::string EngineName(const ::testing::TestParamInfo<Engine>& info) {
  return info.param == Engine::kSqlite ? "Sqlite" : "Postgresql";
}

// A migrated registry database of one engine; the same claims hold on both.
class EngineTest : public ::testing::TestWithParam<Engine> {
 protected:
  void SetUp() override {
    if (GetParam() == Engine::kPostgresql) {
      ASSERT_OK_AND_ASSIGN(connection_, sallyport::testing::TestPostgres::CreateDatabase());
    }
    database_ = Open();
    ASSERT_THAT(database_->Migrate(Store::Migrations()), sallyport::testing::IsOk());
    ASSERT_THAT(Write([](Transaction& tx) { return Store::StoreId(tx).status(); }), sallyport::testing::IsOk());
  }
  // Another handle on the same database, as a second replica has.
  std::unique_ptr<Database> Open() {
    Database::Options options;
    options.clock = &clock_;
    if (GetParam() == Engine::kPostgresql) {
      options.postgresql = connection_;
    } else {
      options.sqlite_path = directory_.path() + "/registry.db";
    }
    auto database = Database::Open(std::move(options));
    EXPECT_THAT(database, sallyport::testing::IsOk());
    return *std::move(database);
  }
  absl::Status Write(const std::function<absl::Status(Transaction&)>& work) { return database_->Write(work); }

  FakeClock clock_{absl::Now()};  // The database's own clock decides on PostgreSQL: both must agree.
  sallyport::testing::TempDirectory directory_;
  std::string connection_;
  std::unique_ptr<Database> database_;
};

#define INSTANTIATE_ENGINES(Fixture) \
  INSTANTIATE_TEST_SUITE_P(Engines, Fixture, ::testing::Values(Engine::kSqlite, Engine::kPostgresql), EngineName)

}  // namespace sallyport::registry

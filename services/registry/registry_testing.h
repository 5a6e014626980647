// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "common/audit/outbox.h"
#include "common/caller/caller.h"
#include "common/error.h"
#include "common/mutex.h"
#include "common/sql/sql.h"
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

// Stands in the passports of credential-admins that FakeVault is shown.
inline constexpr char kCredentialAdmin[] = "credential-admin";

// What the registry asks of the vault, as the vault answers: versions with origins, comparing, pins, bindings,
// adoption. Thread-safe.
class FakeVault final : public vault::v1::Vault::Service {
 public:
  struct Record {
    std::map<int64_t, std::string> versions;
    std::map<int64_t, std::map<std::string, std::string>> labels;
    std::map<int64_t, std::vector<std::string>> origins;  // Absent: written by an earlier release.
    std::set<int64_t> pinned;
    int64_t head = 0;  // 0: deleted.
    int64_t last = 0;
    std::string passport;
  };

  grpc::Status Put(grpc::ServerContext* context, const vault::v1::PutRequest* request,
                   vault::v1::PutResponse* response) override {
    const grpc::Status status = StoreValue(context, request, response);
    RunHook(after_put_);
    return status;
  }
  grpc::Status Rebind(grpc::ServerContext* context, const vault::v1::RebindRequest* request,
                      vault::v1::RebindResponse* response) override {
    MutexLock lock(mu_);
    if (down_) return {grpc::StatusCode::UNAVAILABLE, "vault is sealed"};
    const std::string passport = PassportOf(*context);
    if (passport.find(kCredentialAdmin) == std::string::npos) {
      return {grpc::StatusCode::PERMISSION_DENIED, "needs a credential-admin"};
    }
    Record& record = records_[Key(request->record())];
    if (!record.versions.contains(request->version())) return {grpc::StatusCode::NOT_FOUND, "no such version"};
    const int64_t version = Append(record, record.versions[request->version()], request->origins());
    record.labels[version] = {request->labels().begin(), request->labels().end()};
    response->set_version(version);
    return grpc::Status::OK;
  }
  grpc::Status Adopt(grpc::ServerContext* /*context*/, const vault::v1::AdoptRequest* request,
                     vault::v1::AdoptResponse* response) override {
    RunHook(before_adopt_);
    MutexLock lock(mu_);
    if (down_) return {grpc::StatusCode::UNAVAILABLE, "vault is sealed"};
    if (adopted_) {
      return ToGrpcStatus(WithReason(absl::FailedPreconditionError("everything has been adopted"), "adopted"));
    }
    EXPECT_LE(request->entries_size(), 200);
    for (const auto& entry : request->entries()) {
      EXPECT_THAT(entry.origins(), ::testing::Not(::testing::IsEmpty()));
      Record& record = records_[Key(entry.record())];
      int64_t version = entry.version();
      if (version == 0) {
        EXPECT_TRUE(IsBinding(entry.record()));
        version = record.head != 0 ? record.head : Append(record, "made by the vault", entry.origins());
      } else if (!record.versions.contains(version)) {
        version = 0;
      } else if (!record.origins.contains(version)) {
        record.origins[version] = {entry.origins().begin(), entry.origins().end()};
      }
      response->add_versions(version);
    }
    adopted_ = request->complete();
    return grpc::Status::OK;
  }
  grpc::Status Pin(grpc::ServerContext* /*context*/, const vault::v1::PinRequest* request,
                   vault::v1::PinResponse* /*response*/) override {
    MutexLock lock(mu_);
    if (down_) return {grpc::StatusCode::UNAVAILABLE, "vault is sealed"};
    Record& record = records_[Key(request->record())];
    if (!record.versions.contains(request->version())) return {grpc::StatusCode::NOT_FOUND, "no such version"};
    if (request->pinned()) {
      record.pinned.insert(request->version());
    } else {
      record.pinned.erase(request->version());
    }
    return grpc::Status::OK;
  }
  grpc::Status Delete(grpc::ServerContext* /*context*/, const vault::v1::DeleteRequest* request,
                      vault::v1::DeleteResponse* /*response*/) override {
    RunHook(before_delete_);
    MutexLock lock(mu_);
    if (down_) return {grpc::StatusCode::UNAVAILABLE, "vault is sealed"};
    EXPECT_TRUE(request->has_through_version() || request->labels_size() == 1) << "never the whole record, blindly";
    const auto found = records_.find(Key(request->record()));
    if (found == records_.end()) return {grpc::StatusCode::NOT_FOUND, "no such record"};
    Record& record = found->second;
    std::erase_if(record.versions, [&](const auto& version) {
      if (request->has_through_version() && version.first > request->through_version()) return false;
      for (const auto& [name, value] : request->labels()) {
        if (record.labels[version.first][name] != value) return false;
      }
      record.pinned.erase(version.first);
      record.origins.erase(version.first);
      return true;
    });
    record.head = record.versions.empty() ? 0 : record.versions.rbegin()->first;
    return grpc::Status::OK;
  }

  // What happens right before the next Delete is carried out, or right after the next Put was, before it is answered;
  // once.
  void BeforeDelete(std::function<void()> hook) { SetHook(before_delete_, std::move(hook)); }
  void AfterPut(std::function<void()> hook) { SetHook(after_put_, std::move(hook)); }
  void BeforeAdopt(std::function<void()> hook) { SetHook(before_adopt_, std::move(hook)); }
  // As a store that an earlier release has written: no version has origins, there are no bindings, nothing is adopted.
  void MakeOld() {
    MutexLock lock(mu_);
    adopted_ = false;
    std::erase_if(records_, [](const auto& entry) { return entry.first.find("_binding ") != std::string::npos; });
    for (auto& [key, record] : records_) record.origins.clear();
  }
  bool adopted() const {
    MutexLock lock(mu_);
    return adopted_;
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
  grpc::Status StoreValue(grpc::ServerContext* context, const vault::v1::PutRequest* request,
                          vault::v1::PutResponse* response) {
    MutexLock lock(mu_);
    ++puts_;
    if (down_) return {grpc::StatusCode::UNAVAILABLE, "vault is sealed"};
    EXPECT_TRUE(request->pin() && request->keep_generation());
    EXPECT_EQ(request->only_if_changed(), request->has_compare_version());
    EXPECT_EQ(request->record().owner_type(), vault::v1::ORG);
    EXPECT_EQ(request->record().owner_id(), "default");
    EXPECT_THAT(request->origins(), ::testing::Not(::testing::IsEmpty())) << "everything here is sent somewhere";
    Record& record = records_[Key(request->record())];
    record.passport = PassportOf(*context);
    if (IsBinding(request->record())) {
      EXPECT_EQ(request->payload().size(), 16U);
      if (record.passport.empty()) return {grpc::StatusCode::PERMISSION_DENIED, "needs an admin"};
    }
    if (request->has_expected_version() && request->expected_version() != record.head) {
      return {grpc::StatusCode::ABORTED, "version conflict"};
    }
    const bool taken = request->record().kind() == "app_binding" && record.head != 0;
    if (taken && record.passport.find(kCredentialAdmin) == std::string::npos) {
      return {grpc::StatusCode::PERMISSION_DENIED, "needs a credential-admin"};
    }
    const std::vector<std::string> origins(request->origins().begin(), request->origins().end());
    int64_t version = request->compare_version();
    const auto base = record.versions.find(version);
    if (base != record.versions.end() && base->second == request->payload() && record.origins[version] == origins) {
      response->set_unchanged(true);
    } else {
      version = Append(record, request->payload(), request->origins());
      record.labels[version] = {request->labels().begin(), request->labels().end()};
    }
    record.pinned.insert(version);
    response->set_version(version);
    return grpc::Status::OK;
  }
  static int64_t Append(Record& record, const std::string& payload,
                        const google::protobuf::RepeatedPtrField<std::string>& origins) {
    const int64_t version = record.head = ++record.last;
    record.versions[version] = payload;
    record.origins[version] = {origins.begin(), origins.end()};
    record.pinned.insert(version);
    return version;
  }
  static std::string PassportOf(const grpc::ServerContext& context) {
    const auto passport = context.client_metadata().find(kPassportMetadata);
    if (passport == context.client_metadata().end()) return "";
    return {passport->second.data(), passport->second.size()};
  }
  static bool IsBinding(const vault::v1::RecordName& name) {
    return name.kind() == "server_binding" || name.kind() == "app_binding";
  }
  void SetHook(std::function<void()>& hook, std::function<void()> to) {
    MutexLock lock(mu_);
    hook = std::move(to);
  }
  void RunHook(std::function<void()>& hook) {
    std::function<void()> run;
    {
      MutexLock lock(mu_);
      run.swap(hook);
    }
    if (run) run();
  }
  static std::string Key(const vault::v1::RecordName& name) { return name.kind() + " " + name.name(); }
  mutable Mutex mu_;
  std::function<void()> before_delete_;
  std::function<void()> after_put_;
  std::function<void()> before_adopt_;
  bool down_ ABSL_GUARDED_BY(mu_) = false;
  bool adopted_ ABSL_GUARDED_BY(mu_) = true;
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

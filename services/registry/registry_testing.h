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
#include "common/mutex.h"
#include "common/sql/sql.h"
#include "sallyport/registry/v1/registry.pb.h"
#include "sallyport/vault/v1/vault.grpc.pb.h"
#include "services/registry/setup_testing.h"
#include "services/registry/store.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fakes/fake_vault.h"
#include "tests/testing/fakes/in_process.h"
#include "tests/testing/fakes/passport.h"
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

// The fake vault as the registry calls it: checks what must hold for every call, and lets tests step in between.
class FakeVault final : public sallyport::testing::FakeVault {
 public:
  // Only signed passports, which end, need the clock.
  explicit FakeVault(const Clock& clock = Standing())
      : sallyport::testing::FakeVault(clock),
        service_(
            *this, "registry", [this](const auto& method, const auto& request) { Before(method, request); },
            [this](const auto& method, const auto& /*request*/) { RunHook(after_, method); }) {}
  grpc::Service& service() { return service_; }

  struct Held {
    std::map<int64_t, std::string> versions;
    std::map<int64_t, std::map<std::string, std::string>> labels;
    std::map<int64_t, std::vector<std::string>> origins;  // Absent: written by an earlier release.
    std::set<int64_t> pinned;
    int64_t head = 0;  // 0: deleted.
    std::string passport;
  };
  // By "<kind> <name>"; empty if it never was.
  Held Look(const std::string& key) const {
    vault::v1::RecordName name;
    name.set_owner_type(vault::v1::ORG);
    name.set_owner_id("default");
    name.set_kind(key.substr(0, key.find(' ')));
    name.set_name(key.substr(key.find(' ') + 1));
    const Record record = Find(name);
    Held held;
    held.head = record.head;
    held.passport = record.written_with;
    for (const auto& [number, version] : record.versions) {
      held.versions[number] = version.payload;
      held.labels[number] = version.labels;
      if (version.bound) held.origins[number] = version.origins;
      if (version.pinned) held.pinned.insert(number);
    }
    return held;
  }
  // Records that hold a value.
  std::vector<std::string> Keys() const {
    std::vector<std::string> keys;
    for (const auto& name : Live()) keys.push_back(name.kind() + " " + name.name());
    return keys;
  }
  // What happens right before the next Delete or Adopt is carried out, or right after the next Put was, before it is
  // answered; once.
  void BeforeDelete(std::function<void()> hook) { SetHook(before_, "Delete", std::move(hook)); }
  void BeforeAdopt(std::function<void()> hook) { SetHook(before_, "Adopt", std::move(hook)); }
  void AfterPut(std::function<void()> hook) { SetHook(after_, "Put", std::move(hook)); }

 private:
  using Hooks = std::map<std::string, std::function<void()>>;

  static const Clock& Standing() {
    static const FakeClock clock;
    return clock;
  }
  void Before(const std::string& method, const google::protobuf::Message& request) {
    if (method == "Put") CheckPut(static_cast<const vault::v1::PutRequest&>(request));
    if (method == "Delete") {
      const auto& erase = static_cast<const vault::v1::DeleteRequest&>(request);
      EXPECT_TRUE(erase.has_through_version() || erase.labels_size() == 1) << "never the whole record, blindly";
    }
    if (method == "Adopt") {
      for (const auto& entry : static_cast<const vault::v1::AdoptRequest&>(request).entries()) {
        EXPECT_THAT(entry.origins(), ::testing::Not(::testing::IsEmpty()));
      }
    }
    RunHook(before_, method);
  }
  static void CheckPut(const vault::v1::PutRequest& request) {
    EXPECT_TRUE(request.pin() && request.keep_generation());
    EXPECT_EQ(request.only_if_changed(), request.has_compare_version());
    EXPECT_THAT(request.origins(), ::testing::Not(::testing::IsEmpty())) << "everything here is sent somewhere";
    const bool binding = request.record().kind() == "server_binding" || request.record().kind() == "app_binding";
    EXPECT_TRUE(!binding || request.payload().size() == 16U);
  }
  void SetHook(Hooks& hooks, const std::string& method, std::function<void()> hook) {
    MutexLock lock(hooks_mu_);
    hooks[method] = std::move(hook);
  }
  void RunHook(Hooks& hooks, const std::string& method) {
    std::function<void()> run;
    {
      MutexLock lock(hooks_mu_);
      run.swap(hooks[method]);
    }
    if (run) run();
  }

  Mutex hooks_mu_;
  Hooks before_;
  Hooks after_;
  sallyport::testing::FakeVaultService service_;
};

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
    auto database = Database::Open(DatabaseOptions(GetParam(), DatabaseAddress(), clock_));
    EXPECT_THAT(database, sallyport::testing::IsOk());
    return *std::move(database);
  }
  std::string DatabaseAddress() const {
    return GetParam() == Engine::kPostgresql ? connection_ : directory_.File("registry.db");
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

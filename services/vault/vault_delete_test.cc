// SPDX-License-Identifier: Apache-2.0
// Deleting some versions of a record while others are written, and comparing with a named version; on both engines.
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "services/vault/testing/harness.h"
#include "services/vault/vault.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using testing::Broker;
using testing::Connection;
using ::testing::ElementsAre;
using testing::Harness;
using testing::Registry;
using testing::ServerSecret;
using testing::Service;
using Code = absl::StatusCode;

class VaultDeleteTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_THAT(sallyport::testing::TestPostgres::CreateDatabase(), IsOk());
    }
    harness_ = std::make_unique<Harness>(GetParam());
  }
  static v1::PutRequest Value(const std::string& payload, const std::string& write = "") {
    v1::PutRequest request;
    *request.mutable_record() = ServerSecret();
    request.set_payload(payload);
    request.set_keep_generation(true);
    request.set_pin(true);
    if (!write.empty()) (*request.mutable_labels())["write"] = write;
    return request;
  }
  int64_t Put(const std::string& payload, const std::string& write = "") {
    const auto put = harness_->vault->Put(Registry(), Value(payload, write));
    EXPECT_THAT(put, IsOk());
    return put.ok() ? put->version() : 0;
  }
  absl::StatusOr<v1::PutResponse> PutIfChanged(const std::string& payload, int64_t compare) {
    v1::PutRequest request = Value(payload);
    request.set_only_if_changed(true);
    request.set_compare_version(compare);
    return harness_->vault->Put(Registry(), request);
  }
  static v1::DeleteRequest Through(int64_t version) {
    v1::DeleteRequest request;
    *request.mutable_record() = ServerSecret();
    request.set_through_version(version);
    return request;
  }
  static v1::DeleteRequest WrittenBy(const std::string& write) {
    v1::DeleteRequest request;
    *request.mutable_record() = ServerSecret();
    (*request.mutable_labels())["write"] = write;
    return request;
  }
  absl::StatusOr<v1::DeleteResponse> Delete(const v1::DeleteRequest& request) {
    return harness_->vault->Delete(Registry(), request);
  }
  std::string Read(int64_t version = 0) { return harness_->Payload(Service("token_broker"), ServerSecret(), version); }
  std::vector<int64_t> Versions() {
    std::vector<int64_t> versions;
    for (const Row& row : harness_->Query(
             "SELECT v.version AS version FROM record_version v JOIN record r ON r.rid = v.rid WHERE r.kind = "
             "'server_secret' ORDER BY v.version")) {
      versions.push_back(row.Int("version"));
    }
    return versions;
  }
  std::unique_ptr<Harness> harness_;
};

INSTANTIATE_TEST_SUITE_P(Engines, VaultDeleteTest, ::testing::Values(SqlDialect::kSqlite, SqlDialect::kPostgresql),
                         [](const auto& engine) {
                           return engine.param == SqlDialect::kSqlite ? "Sqlite" : "Postgresql";
                         });

TEST_P(VaultDeleteTest, WhatWasPutAfterTheNamedVersionStays) {
  Put("one");
  Put("two");
  Put("three");
  EXPECT_EQ(Delete(Through(2))->generation(), 1) << "the record lives on";
  EXPECT_THAT(Versions(), ElementsAre(3));
  EXPECT_EQ(Read(), "three");
  EXPECT_EQ(Read(3), "three");
}

TEST_P(VaultDeleteTest, WithNothingLeftItIsATombstoneAndNumbersGoOn) {
  Put("one");
  Put("two");
  EXPECT_EQ(Delete(Through(2))->generation(), 2);
  EXPECT_THAT(Versions(), ElementsAre());
  EXPECT_THAT(harness_->Get(Service("token_broker"), ServerSecret()), StatusIs(Code::kNotFound));
  EXPECT_EQ(Put("three"), 3);
  EXPECT_THAT(Delete(Through(2)), IsOk()) << "repeated late, it takes nothing";
  EXPECT_EQ(Read(), "three");
}

TEST_P(VaultDeleteTest, OneWritersVersionsGoAndTheNewestLeftIsTheHead) {
  Put("first", "a");
  Put("lost", "b");
  ASSERT_THAT(Delete(WrittenBy("b")), IsOk());
  EXPECT_EQ(Read(), "first");
  EXPECT_EQ(Read(1), "first");
  EXPECT_THAT(harness_->Get(Service("token_broker"), ServerSecret(), 2), StatusIs(Code::kNotFound));
  EXPECT_EQ(Put("next", "c"), 3) << "a number is never given out twice";
  ASSERT_THAT(Delete(WrittenBy("b")), IsOk()) << "again";
  EXPECT_THAT(Versions(), ElementsAre(1, 3));
}

TEST_P(VaultDeleteTest, UnknownWritersAndRecordsTakeNothing) {
  EXPECT_THAT(Delete(Through(7)), StatusIs(Code::kNotFound));
  Put("one", "a");
  EXPECT_THAT(Delete(WrittenBy("b")), IsOk());
  EXPECT_THAT(Delete(Through(0)), IsOk());
  EXPECT_EQ(Read(), "one");
}

TEST_P(VaultDeleteTest, BothConditionsMustHold) {
  Put("one", "a");
  Put("two", "a");
  v1::DeleteRequest request = WrittenBy("a");
  request.set_through_version(1);
  ASSERT_THAT(Delete(request), IsOk());
  EXPECT_THAT(Versions(), ElementsAre(2));
}

TEST_P(VaultDeleteTest, OnlyWhoSetsPinsMayDropVersions) {
  ASSERT_THAT(harness_->Put(Broker(), Connection(), "token"), IsOk());
  v1::DeleteRequest request;
  *request.mutable_record() = Connection();
  request.set_through_version(1);
  EXPECT_THAT(harness_->vault->Delete(Broker(), request), StatusIs(Code::kPermissionDenied));
  EXPECT_EQ(harness_->Payload(Broker(), Connection()), "token");
}

TEST_P(VaultDeleteTest, TheExpectedHeadAndAPartAreNotAskedTogether) {
  Put("one");
  v1::DeleteRequest request = Through(1);
  request.set_expected_version(1);
  EXPECT_THAT(Delete(request), StatusIs(Code::kInvalidArgument));
  EXPECT_EQ(Read(), "one");
}

TEST_P(VaultDeleteTest, ComparesWithTheNamedVersionAndNotWithAnothersHead) {
  Put("base");
  Put("of another writer");
  const auto same_as_other = PutIfChanged("of another writer", 1);
  ASSERT_THAT(same_as_other, IsOk());
  EXPECT_FALSE(same_as_other->unchanged());
  EXPECT_EQ(same_as_other->version(), 3) << "a version of its own";
  const auto same_as_base = PutIfChanged("base", 1);
  ASSERT_THAT(same_as_base, IsOk());
  EXPECT_TRUE(same_as_base->unchanged());
  EXPECT_EQ(same_as_base->version(), 1);
}

TEST_P(VaultDeleteTest, AVersionThatIsNotThereIsNoEqual) {
  Put("base");
  EXPECT_EQ(PutIfChanged("base", 9)->version(), 2);
  ASSERT_THAT(Delete(Through(2)), IsOk());
  EXPECT_EQ(PutIfChanged("base", 1)->version(), 3);
  v1::PutRequest pointless = Value("base");
  pointless.set_compare_version(3);
  EXPECT_THAT(harness_->vault->Put(Registry(), pointless), StatusIs(Code::kInvalidArgument));
}

// Whatever the interleaving, a value that Put has answered for is there unless it was named.
TEST_P(VaultDeleteTest, NothingPutMeanwhileIsLost) {
  const int64_t old = Put("old");
  std::vector<int64_t> put;
  std::thread writer([&] {
    for (int i = 0; i < 8; ++i) put.push_back(Put(absl::StrCat("value ", i)));
  });
  for (int i = 0; i < 8; ++i) EXPECT_THAT(Delete(Through(old)), IsOk());
  writer.join();
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(Read(put[static_cast<size_t>(i)]), absl::StrCat("value ", i));
  }
  EXPECT_THAT(harness_->Get(Service("token_broker"), ServerSecret(), old), StatusIs(Code::kNotFound));
}

}  // namespace
}  // namespace sallyport::vault

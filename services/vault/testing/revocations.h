// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/proto_time.h"
#include "common/text/hex.h"
#include "services/vault/testing/harness.h"

namespace sallyport::vault::testing {

using ::sallyport::testing::IsOk;

// Connections of app_1 and app_2, which have bindings, and what becomes of them.
class RevocationTest : public ::testing::TestWithParam<SqlDialect> {
 protected:
  void SetUp() override {
    if (GetParam() == SqlDialect::kPostgresql) {
      ASSERT_THAT(sallyport::testing::TestPostgres::Start(), IsOk());
    }
    harness_ = std::make_unique<Harness>(GetParam());
    for (const char* app : {"app_1", "app_2"}) Bind(app);
  }
  void Bind(const std::string& app) {
    ASSERT_THAT(harness_->Put(Administrator("registry", {"admin", "credential-admin"}),
                              Name(v1::ORG, "default", "app_binding", app + "/binding"), "a random name"),
                IsOk());
  }
  void Unbind(const std::string& app) {
    ASSERT_THAT(harness_->Delete(Service("registry"), Name(v1::ORG, "default", "app_binding", app + "/binding")),
                IsOk());
  }
  void Link(const std::string& user, const std::string& name, const std::string& payload,
            const std::map<std::string, std::string>& labels = {}, const std::string& state = "") {
    v1::PutRequest put;
    *put.mutable_record() = Connection(user, name);
    put.set_payload(payload);
    put.set_state(state);
    put.mutable_labels()->insert(labels.begin(), labels.end());
    ASSERT_THAT(harness_->vault->Put(Broker(user), put), IsOk());
  }
  static v1::OweRevocationRequest Of(const v1::RecordName& record) {
    v1::OweRevocationRequest request;
    *request.mutable_record() = record;
    return request;
  }
  static v1::OweRevocationRequest OfUser(const std::string& user = kUser) {
    v1::OweRevocationRequest request;
    request.set_owner_id(user);
    return request;
  }
  static v1::OweRevocationRequest OfApp(const std::string& app) {
    v1::OweRevocationRequest request;
    request.set_app_uid(app);
    return request;
  }
  absl::StatusOr<v1::OweRevocationResponse> Owe(const Caller& caller, const v1::OweRevocationRequest& request) {
    return harness_->vault->OweRevocation(caller, request);
  }
  absl::StatusOr<v1::AcquireLeaseResponse> Maintain(const v1::RecordName& record) {
    v1::AcquireLeaseRequest request;
    *request.mutable_record() = record;
    request.set_maintenance(true);
    return harness_->vault->AcquireLease(Service("token_broker"), request);
  }
  // What a revocation holds, as the broker is given it.
  std::string PayloadOf(const v1::RecordMetadata& revocation) {
    const auto lease = Maintain(revocation.record());
    EXPECT_THAT(lease, IsOk());
    return lease.ok() ? lease->lease().payload() : "";
  }
  std::vector<v1::RecordMetadata> Revocations(const std::string& prefix = "", const std::string& app = "",
                                              int limit = 0) {
    v1::ListRequest list;
    list.set_owner_type(v1::SYSTEM);
    list.set_owner_id("token_broker");
    list.set_kind("revocation");
    list.set_name_prefix(prefix);
    list.set_app_uid(app);
    list.set_limit(limit);
    const auto listed = harness_->vault->List(Service("token_broker"), list);
    EXPECT_THAT(listed, IsOk());
    return listed.ok() ? std::vector<v1::RecordMetadata>(listed->records().begin(), listed->records().end())
                       : std::vector<v1::RecordMetadata>();
  }
  // Names of those that a lane is told of.
  std::vector<std::string> Due() {
    v1::ListDueRequest request;
    request.add_kinds("revocation");
    const auto listed = harness_->vault->ListDue(Service("token_broker"), request);
    EXPECT_THAT(listed, IsOk());
    std::vector<std::string> names;
    for (int i = 0; listed.ok() && i < listed->records_size(); ++i) {
      names.push_back(listed->records(i).record().name());
    }
    return names;
  }
  // For what is told after ten seconds; on both engines.
  void PassTenSeconds() {
    harness_->Sql("UPDATE record SET listed_until = listed_until - 10000000 WHERE listed_until > 0");
  }
  std::string Read(const std::string& name = "app_1", const std::string& user = kUser) {
    return harness_->Payload(Broker(user), Connection(user, name));
  }
  bool IsGone(const std::string& name = "app_1", const std::string& user = kUser) {
    return absl::IsNotFound(harness_->Get(Broker(user), Connection(user, name)).status());
  }
  std::vector<audit::v1::Event> Audited(const std::string& type) {
    std::vector<audit::v1::Event> found;
    const auto sink = [&](const audit::v1::AppendRequest& batch) -> absl::StatusOr<uint64_t> {
      for (const auto& event : batch.events()) {
        if (event.type() == type) found.push_back(event);
      }
      return batch.events(batch.events_size() - 1).sequence();
    };
    EXPECT_THAT(harness_->outbox->ShipOnce(sink), IsOk());
    return found;
  }
  absl::StatusOr<v1::DeleteOwnerResponse> DeleteOwner(const Caller& caller, const std::string& user = kUser) {
    v1::DeleteOwnerRequest request;
    request.set_owner_type(v1::USER);
    request.set_owner_id(user);
    return harness_->vault->DeleteOwner(caller, request);
  }
  std::unique_ptr<Harness> harness_;
};

}  // namespace sallyport::vault::testing

// SPDX-License-Identifier: Apache-2.0
// The fake vault against the real one: the same calls, and the same answers.
#include <algorithm>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/proto_time.h"
#include "tests/contract/vault_contract_testing.h"

namespace sallyport::vault_contract {
namespace {

// Every service, with every passport, does everything to a record of every kind.
TEST_F(VaultContractTest, ServicesMayDoTheSame) {
  for (const RecordName& record : Records()) {
    for (const std::string service : kServices) {
      for (const auto& [passport, jwt] : passports_) {
        vault::v1::GetRequest get;
        *get.mutable_record() = record;
        Compare<vault::v1::GetRequest, vault::v1::GetResponse>(service, passport, &Stub::Get, get);
        vault::v1::PutRequest put;
        *put.mutable_record() = record;
        put.set_payload("payload");
        put.add_origins(kOrigins[0]);
        Compare<vault::v1::PutRequest, vault::v1::PutResponse>(service, passport, &Stub::Put, put);
        vault::v1::PinRequest pin;
        *pin.mutable_record() = record;
        pin.set_version(1);
        pin.set_pinned(true);
        Compare<vault::v1::PinRequest, vault::v1::PinResponse>(service, passport, &Stub::Pin, pin);
        vault::v1::RebindRequest rebind;
        *rebind.mutable_record() = record;
        rebind.set_version(1);
        rebind.add_origins(kOrigins[1]);
        Compare<vault::v1::RebindRequest, vault::v1::RebindResponse>(service, passport, &Stub::Rebind, rebind);
        vault::v1::AdoptRequest adopt;
        *adopt.add_entries()->mutable_record() = record;
        adopt.mutable_entries(0)->set_version(1);
        Compare<vault::v1::AdoptRequest, vault::v1::AdoptResponse>(service, passport, &Stub::Adopt, adopt);
        vault::v1::AcquireLeaseRequest lease;
        *lease.mutable_record() = record;
        lease.set_maintenance(passport == "none");
        Compare<vault::v1::AcquireLeaseRequest, vault::v1::AcquireLeaseResponse>(
            service, passport, &Stub::AcquireLease, lease, nullptr, [](auto& fake, auto& real) {
              if (fake.has_lease() && real.has_lease()) fake.mutable_lease()->set_id(real.lease().id());
            });
        vault::v1::DeleteRequest erase;
        *erase.mutable_record() = record;
        erase.set_through_version(1);
        Compare<vault::v1::DeleteRequest, vault::v1::DeleteResponse>(service, passport, &Stub::Delete, erase);
        vault::v1::ListRequest list;
        list.set_owner_type(record.owner_type());
        list.set_owner_id(record.owner_id());
        list.set_kind(record.kind());
        Compare<vault::v1::ListRequest, vault::v1::ListResponse>(service, passport, &Stub::List, list);
        vault::v1::GetCacheRootsRequest roots;
        roots.set_owner_type(record.owner_type());
        roots.set_owner_id(record.owner_id());
        Compare<vault::v1::GetCacheRootsRequest, vault::v1::GetCacheRootsResponse>(
            service, passport, &Stub::GetCacheRoots, roots, nullptr, [](auto& fake, auto& real) {
              for (auto& root : *fake.mutable_roots()) root.clear_root();
              for (auto& root : *real.mutable_roots()) {
                EXPECT_EQ(root.root().size(), 32U);
                root.clear_root();
              }
            });
        vault::v1::CountUsersRequest count;
        count.mutable_has()->set_kind(record.kind());
        count.mutable_has()->set_name(record.name());
        count.mutable_lacks()->set_kind("connection");
        count.mutable_lacks()->set_name("sso:corp");
        Compare<vault::v1::CountUsersRequest, vault::v1::CountUsersResponse>(service, passport, &Stub::CountUsers,
                                                                             count);
        vault::v1::RenameRequest rename;
        *rename.mutable_record() = record;
        rename.set_new_name(record.name() + "/home");
        Compare<vault::v1::RenameRequest, vault::v1::RenameResponse>(service, passport, &Stub::Rename, rename);
        vault::v1::OweRevocationRequest owe;
        *owe.mutable_record() = record;
        Compare<vault::v1::OweRevocationRequest, vault::v1::OweRevocationResponse>(service, passport,
                                                                                   &Stub::OweRevocation, owe);
        vault::v1::ListDueRequest due;
        due.add_kinds(record.kind());
        if (passport == "none") {
          Compare<vault::v1::ListDueRequest, vault::v1::ListDueResponse>(service, passport, &Stub::ListDue, due);
        }
      }
    }
    if (HasFailure()) return;
  }
  for (const std::string service : kServices) {
    for (const auto& [passport, jwt] : passports_) {
      for (const int whose : {0, 1, 2, 3}) {
        vault::v1::OweRevocationRequest owe;
        if (whose == 0) owe.set_owner_id("corp:ada");
        if (whose == 1) owe.set_app_uid("app_1");
        if (whose == 2) owe.set_app_uid("app_2");
        if (whose == 3) owe.set_app_uid("sso:corp");
        Compare<vault::v1::OweRevocationRequest, vault::v1::OweRevocationResponse>(
            service, passport, &Stub::OweRevocation, owe, nullptr, InOrder);
      }
      for (const char* kind : {"", "connection", "credential"}) {
        vault::v1::ListRequest list;
        list.set_owner_type(vault::v1::USER);
        list.set_owner_id("corp:ada");
        list.set_kind(kind);
        Compare<vault::v1::ListRequest, vault::v1::ListResponse>(service, passport, &Stub::List, list);
      }
      vault::v1::DeleteOwnerRequest erase;
      erase.set_owner_type(vault::v1::USER);
      erase.set_owner_id("corp:ada");
      Compare<vault::v1::DeleteOwnerRequest, vault::v1::DeleteOwnerResponse>(service, passport, &Stub::DeleteOwner,
                                                                             erase);
    }
  }
}

TEST_F(VaultContractTest, WhatIsMalformedIsRefusedAlike) {
  const RecordName good = Records()[0];
  std::vector<vault::v1::PutRequest> puts(13);
  for (vault::v1::PutRequest& put : puts) *put.mutable_record() = good;
  puts[0].mutable_record()->clear_kind();
  puts[1].mutable_record()->clear_name();
  puts[2].mutable_record()->clear_owner_id();
  puts[3].mutable_record()->set_owner_type(vault::v1::ORG);
  puts[4].mutable_record()->set_kind("nonsense");
  puts[5].add_origins("https://a.example/");
  puts[6].add_origins("a.example");
  puts[7].set_state("ok");
  puts[8].set_compare_version(1);
  puts[9].set_lease("x");
  puts[9].set_pin(true);
  puts[10].set_lease("no such lease");
  puts[11].set_expected_version(3);
  puts[12].set_owe_if_linked_again(true);
  for (const vault::v1::PutRequest& put : puts) {
    const std::string outcome =
        Compare<vault::v1::PutRequest, vault::v1::PutResponse>("token_broker", "ada", &Stub::Put, put);
    EXPECT_NE(outcome.substr(0, 2), "OK") << Text(put);
  }
  vault::v1::CountUsersRequest count;
  count.mutable_has()->set_kind("connection");
  for (int i = 0; i < 5; ++i) {
    Compare<vault::v1::CountUsersRequest, vault::v1::CountUsersResponse>("registry", "admin", &Stub::CountUsers, count);
    count.mutable_has()->set_name("app_1");
    count.mutable_has()->add_labels()->set_name("scope");
    if (i == 3) count.mutable_has()->add_labels();
  }
  std::vector<vault::v1::CountUsersRequest> every(5);
  for (auto& request : every) {
    request.mutable_has()->set_kind("connection");
    request.mutable_has()->set_name("app_1");
    request.mutable_has()->set_every_account(true);
  }
  every[1].mutable_has()->set_kind("credential");
  every[2].mutable_has()->add_labels()->set_name("scope");
  *every[3].mutable_lacks() = count.has();
  *every[4].mutable_lacks() = every[0].has();
  for (const auto& request : every) {
    Compare<vault::v1::CountUsersRequest, vault::v1::CountUsersResponse>("registry", "admin", &Stub::CountUsers,
                                                                         request);
  }
  vault::v1::AcquireLeaseRequest lease;
  *lease.mutable_record() = good;
  for (const int64_t seconds : {0, 61}) {
    lease.mutable_ttl()->set_seconds(seconds);
    Compare<vault::v1::AcquireLeaseRequest, vault::v1::AcquireLeaseResponse>("token_broker", "ada", &Stub::AcquireLease,
                                                                             lease);
  }
  std::vector<vault::v1::OweRevocationRequest> owes(6);
  *owes[1].mutable_record() = good;
  owes[1].set_owner_id("corp:ada");
  owes[2].set_owner_id("corp:ada");
  owes[2].set_lease("x");
  owes[3].set_app_uid("app_1");
  owes[3].set_expected_version(1);
  *owes[4].mutable_record() = Records()[3];
  *owes[5].mutable_record() = good;
  owes[5].set_lease("no such lease");
  for (const auto& owe : owes) {
    EXPECT_NE((Compare<vault::v1::OweRevocationRequest, vault::v1::OweRevocationResponse>("token_broker", "end_ada",
                                                                                          &Stub::OweRevocation, owe))
                  .substr(0, 2),
              "OK")
        << Text(owe);
  }
  for (const char* name : {"", "app_2", "app_1"}) {
    vault::v1::RenameRequest rename;
    *rename.mutable_record() = good;
    rename.set_new_name(name);
    EXPECT_NE(
        (Compare<vault::v1::RenameRequest, vault::v1::RenameResponse>("token_broker", "api", &Stub::Rename, rename))
            .substr(0, 2),
        "OK");
  }
  std::vector<vault::v1::ListDueRequest> dues(4);
  for (auto& due : dues) due.add_kinds("connection");
  dues[0].mutable_claim()->set_seconds(301);
  dues[1].mutable_claim()->set_seconds(-1);
  dues[2].set_limit(201);
  for (int i = 0; i < 1001; ++i) dues[3].add_without_apps("app_1");
  for (const auto& due : dues) {
    Compare<vault::v1::ListDueRequest, vault::v1::ListDueResponse>("token_broker", "none", &Stub::ListDue, due);
  }
  vault::v1::DeleteRequest erase;
  *erase.mutable_record() = Records()[4];
  erase.set_through_version(1);
  erase.set_expected_version(1);
  Compare<vault::v1::DeleteRequest, vault::v1::DeleteResponse>("registry", "none", &Stub::Delete, erase);
}

// A provider's answer that comes when the connection has ended, and what is owed then.
TEST_F(VaultContractTest, LateAnswersAreOwedAlike) {
  const RecordName record = Records()[0];
  bool owe_if_linked_again = false;
  const auto put = [&](const std::string& payload, const std::string& fake = "", const std::string& real = "") {
    vault::v1::PutRequest request;
    *request.mutable_record() = record;
    request.set_payload(payload);
    request.set_lease(fake);
    request.set_owe_if_linked_again(owe_if_linked_again && !fake.empty());
    return Compare<vault::v1::PutRequest, vault::v1::PutResponse>(
        "token_broker", fake.empty() ? "ada" : "none", &Stub::Put, request,
        [&](vault::v1::PutRequest& real_request) { real_request.set_lease(real); });
  };
  const auto due = [&] {
    vault::v1::ListDueRequest request;
    request.add_kinds("revocation");
    return Compare<vault::v1::ListDueRequest, vault::v1::ListDueResponse>(
        "token_broker", "none", &Stub::ListDue, request, nullptr, [](auto& fake, auto& real) {
          for (auto* response : {&fake, &real}) {  // They are due since the same moment.
            std::sort(response->mutable_records()->begin(), response->mutable_records()->end(),
                      [](const auto& a, const auto& b) { return Text(a.record()) < Text(b.record()); });
          }
        });
  };
  put("rt0");
  std::string fake_lease;
  std::string real_lease;
  vault::v1::AcquireLeaseRequest acquire;
  *acquire.mutable_record() = record;
  Compare<vault::v1::AcquireLeaseRequest, vault::v1::AcquireLeaseResponse>(
      "token_broker", "ada", &Stub::AcquireLease, acquire, nullptr, [&](auto& fake, auto& real) {
        fake_lease = fake.lease().id();
        real_lease = real.lease().id();
        fake.mutable_lease()->set_id(real_lease);
      });
  vault::v1::RenameRequest rename;
  *rename.mutable_record() = record;
  rename.set_new_name("app_1/home");
  clock_.Advance(absl::Seconds(40));
  EXPECT_EQ(
      (Compare<vault::v1::RenameRequest, vault::v1::RenameResponse>("token_broker", "api", &Stub::Rename, rename)),
      "ABORTED leased")
      << "its answer may still come";
  vault::v1::OweRevocationRequest owe;
  *owe.mutable_record() = record;
  Compare<vault::v1::OweRevocationRequest, vault::v1::OweRevocationResponse>("token_broker", "ada",
                                                                             &Stub::OweRevocation, owe);
  EXPECT_EQ(due().find("records"), std::string::npos) << "whoever owed it asks first";
  EXPECT_NE(put("rt1", fake_lease, real_lease).find("owed"), std::string::npos);
  put("rt1", fake_lease, real_lease);
  put("rt2", fake_lease, real_lease);
  put("", fake_lease, real_lease);
  clock_.Advance(absl::Seconds(10));
  EXPECT_NE(due().find("records"), std::string::npos);
  put("linked anew");
  EXPECT_EQ(put("rt3", fake_lease, real_lease), "ABORTED wrong_generation");
  owe_if_linked_again = true;
  EXPECT_NE(put("rt3", fake_lease, real_lease).find("owed"), std::string::npos);
  put("rt3", fake_lease, real_lease);
  put("", fake_lease, real_lease);
  vault::v1::DeleteOwnerRequest erase;
  erase.set_owner_type(vault::v1::USER);
  erase.set_owner_id("corp:ada");
  EXPECT_NE((Compare<vault::v1::DeleteOwnerRequest, vault::v1::DeleteOwnerResponse>("token_broker", "end_ada",
                                                                                    &Stub::DeleteOwner, erase))
                .find("owed"),
            std::string::npos);
  put("rt4", fake_lease, real_lease);
  EXPECT_EQ(fake_.Revocations().size(), 6U);
}

// A link that was in flight when everything of its user was ended.
TEST_F(VaultContractTest, LinksOfBeforeAnEndAreOwedAlike) {
  const auto put = [&](const RecordName& record, const std::string& payload, const std::string& passport = "ada") {
    vault::v1::PutRequest request;
    *request.mutable_record() = record;
    request.set_payload(payload);
    if (record.kind() == "credential") request.add_origins(kOrigins[0]);
    if (record.kind() == "connection") request.set_expected_version(0);
    (*request.mutable_labels())["scope"] = "read";
    return Compare<vault::v1::PutRequest, vault::v1::PutResponse>("token_broker", passport, &Stub::Put, request);
  };
  const RecordName app = Records()[0];
  const RecordName of_bob = Records()[2];
  const RecordName credential = Records()[3];
  put(app, "rt0");
  vault::v1::DeleteOwnerRequest erase;
  erase.set_owner_type(vault::v1::USER);
  erase.set_owner_id("corp:ada");
  Compare<vault::v1::DeleteOwnerRequest, vault::v1::DeleteOwnerResponse>("token_broker", "end_ada", &Stub::DeleteOwner,
                                                                         erase);
  for (const RecordName& record : {app, Records()[14]}) {
    EXPECT_NE(put(record, "late").find("owed"), std::string::npos) << Text(record);
    EXPECT_NE(put(record, "later", "link").find("owed"), std::string::npos) << Text(record);
    put(record, "");
  }
  EXPECT_EQ(put(credential, "key", "link"), "PERMISSION_DENIED user_ended");
  EXPECT_EQ(put(of_bob, "of bob", "bob").substr(0, 2), "OK");
  EXPECT_EQ(fake_.Revocations().size(), 5U);

  const std::string before = passports_.at("ada");
  clock_.Advance(absl::Seconds(1));
  SignAgain();
  EXPECT_EQ(put(app, "of a new sign-in").find("owed"), std::string::npos);
  passports_["before"] = before;
  EXPECT_NE(put(app, "late after all", "before").find("owed"), std::string::npos);
  vault::v1::GetRequest get;
  *get.mutable_record() = app;
  EXPECT_NE((Compare<vault::v1::GetRequest, vault::v1::GetResponse>("token_broker", "ada", &Stub::Get, get))
                .find("of a new sign-in"),
            std::string::npos);
  vault::v1::ListDueRequest due;
  due.add_kinds("revocation");
  Compare<vault::v1::ListDueRequest, vault::v1::ListDueResponse>(
      "token_broker", "none", &Stub::ListDue, due, nullptr, [](auto& fake, auto& real) {
        for (auto* response : {&fake, &real}) {  // They are due since the same moment.
          std::sort(response->mutable_records()->begin(), response->mutable_records()->end(),
                    [](const auto& a, const auto& b) { return Text(a.record()) < Text(b.record()); });
        }
      });
}

}  // namespace
}  // namespace sallyport::vault_contract

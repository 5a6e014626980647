// SPDX-License-Identifier: Apache-2.0
// The fake vault against the real one: long sequences of calls.
#include <algorithm>
#include <functional>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/proto_time.h"
#include "tests/contract/vault_contract_testing.h"

namespace sallyport::vault_contract {
namespace {

// Long sequences of calls as services make them, drawn at random; the state after each shows in the answers to the
// next.
class VaultSequenceTest : public VaultContractTest, public ::testing::WithParamInterface<int> {
 protected:
  int Draw(int below) { return static_cast<int>(random_() % static_cast<unsigned>(below)); }
  template <typename T>
  const T& DrawFrom(const std::vector<T>& from) {
    return from[static_cast<size_t>(Draw(static_cast<int>(from.size())))];
  }
  static std::string ServiceOf(const RecordName& record) {
    if (record.owner_type() == vault::v1::ORG) return "registry";
    return record.owner_id() == "authn" ? "authn" : "token_broker";
  }
  std::string PassportFor(const RecordName& record) {
    if (record.owner_type() == vault::v1::ORG) return "chief";
    if (record.owner_type() == vault::v1::SYSTEM) return "none";
    return record.owner_id() == "corp:ada" ? "ada" : "bob";
  }

  void Put() {
    vault::v1::PutRequest put;
    *put.mutable_record() = DrawFrom(Records());
    put.set_payload(absl::StrCat("payload-", Draw(4)));
    if (Draw(2) == 0) put.add_origins(kOrigins[Draw(2)]);
    if (Draw(3) == 0) put.set_expected_version(Draw(6));
    put.set_keep_generation(Draw(2) == 0);
    if (Draw(3) == 0) {
      put.set_only_if_changed(true);
      if (Draw(2) == 0) put.set_compare_version(1 + Draw(6));
    }
    put.set_pin(Draw(4) == 0);
    if (Draw(2) == 0) (*put.mutable_labels())["write"] = absl::StrCat("w", Draw(3));
    if (Draw(2) == 0) *put.mutable_next_at() = Later();
    Compare<vault::v1::PutRequest, vault::v1::PutResponse>(ServiceOf(put.record()), PassportFor(put.record()),
                                                           &Stub::Put, put);
  }
  void Get() {
    vault::v1::GetRequest get;
    *get.mutable_record() = DrawFrom(Records());
    get.set_version(Draw(3) == 0 ? Draw(8) : 0);
    Compare<vault::v1::GetRequest, vault::v1::GetResponse>(Draw(2) == 0 ? "token_broker" : ServiceOf(get.record()),
                                                           PassportFor(get.record()), &Stub::Get, get);
  }
  void Delete() {
    vault::v1::DeleteRequest erase;
    *erase.mutable_record() = DrawFrom(Records());
    const int how = Draw(6);
    if (how == 0) erase.set_expected_version(Draw(6));
    if (how == 1 || how == 2) erase.set_through_version(1 + Draw(6));
    if (how == 2 || how == 3) (*erase.mutable_labels())["write"] = absl::StrCat("w", Draw(3));
    Leased(erase, how == 4);
    Compare<vault::v1::DeleteRequest, vault::v1::DeleteResponse>(ServiceOf(erase.record()),
                                                                 how == 4 ? "none" : PassportFor(erase.record()),
                                                                 &Stub::Delete, erase, RealLease(erase));
  }
  void PinOrRebind() {
    const RecordName record = Records()[static_cast<size_t>(4 + Draw(5))];
    if (Draw(2) == 0) {
      vault::v1::PinRequest pin;
      *pin.mutable_record() = record;
      pin.set_version(1 + Draw(6));
      pin.set_pinned(Draw(2) == 0);
      Compare<vault::v1::PinRequest, vault::v1::PinResponse>("registry", "none", &Stub::Pin, pin);
      return;
    }
    vault::v1::RebindRequest rebind;
    *rebind.mutable_record() = record;
    rebind.set_version(1 + Draw(6));
    rebind.add_origins(kOrigins[Draw(2)]);
    Compare<vault::v1::RebindRequest, vault::v1::RebindResponse>("registry", "chief", &Stub::Rebind, rebind);
  }
  void Acquire() {
    vault::v1::AcquireLeaseRequest acquire;
    *acquire.mutable_record() = Records()[static_cast<size_t>(Draw(3))];
    acquire.mutable_ttl()->set_seconds(20);
    acquire.set_maintenance(Draw(3) == 0);
    Compare<vault::v1::AcquireLeaseRequest, vault::v1::AcquireLeaseResponse>(
        "token_broker", acquire.maintenance() ? "none" : PassportFor(acquire.record()), &Stub::AcquireLease, acquire,
        nullptr, [&](auto& fake, auto& real) {
          if (!fake.has_lease() || !real.has_lease()) return;
          leases_.push_back({acquire.record(), fake.lease().id(), real.lease().id()});
          fake.mutable_lease()->set_id("lease");
          real.mutable_lease()->set_id("lease");
        });
  }
  void Answer() {
    const int how = Draw(4);
    if (how <= 1) {
      vault::v1::PutRequest put;
      Leased(put, true);
      put.set_payload(absl::StrCat("renewed-", Draw(3)));
      if (Draw(2) == 0) *put.mutable_next_at() = Later();
      Compare<vault::v1::PutRequest, vault::v1::PutResponse>("token_broker", "none", &Stub::Put, put, RealLease(put));
    } else if (how == 2) {
      vault::v1::PutStatusRequest status;
      Leased(status, true);
      status.set_state(DrawFrom<std::string>({"OK", "NEEDS_REAUTH", ""}));
      status.set_reason(absl::StrCat("reason-", Draw(2)));
      if (Draw(2) == 0) *status.mutable_backoff_until() = Later();
      if (Draw(2) == 0) *status.mutable_next_at() = Later();
      Compare<vault::v1::PutStatusRequest, vault::v1::PutStatusResponse>("token_broker", "none", &Stub::PutStatus,
                                                                         status, RealLease(status));
    } else {
      vault::v1::ReleaseRequest release;
      Leased(release, true);
      Compare<vault::v1::ReleaseRequest, vault::v1::ReleaseResponse>("token_broker", "none", &Stub::Release, release,
                                                                     RealLease(release));
    }
  }
  void List() {
    if (Draw(2) == 0) {
      vault::v1::ListDueRequest due;
      due.add_kinds("connection");
      due.add_kinds("link_flow");
      due.set_limit(Draw(4));
      if (Draw(3) == 0) due.mutable_claim()->set_seconds(1 + Draw(60));
      if (Draw(3) == 0) due.add_without_apps(Draw(2) == 0 ? "app_1" : "sso:corp");
      Compare<vault::v1::ListDueRequest, vault::v1::ListDueResponse>("token_broker", "none", &Stub::ListDue, due);
      return;
    }
    const RecordName& record = DrawFrom(Records());
    vault::v1::ListRequest list;
    list.set_owner_type(record.owner_type());
    list.set_owner_id(record.owner_id());
    Compare<vault::v1::ListRequest, vault::v1::ListResponse>(
        ServiceOf(record), PassportFor(record), &Stub::List, list, nullptr, [](auto& fake, auto& real) {
          for (auto* response : {&fake, &real}) {
            std::sort(response->mutable_records()->begin(), response->mutable_records()->end(),
                      [](const auto& a, const auto& b) { return Text(a.record()) < Text(b.record()); });
          }
        });
  }
  void Owe() {
    vault::v1::OweRevocationRequest owe;
    const int how = Draw(8);
    const std::string who = Draw(2) == 0 ? "ada" : "bob";
    std::string passport = "none";
    if (how == 0) {
      owe.set_owner_id("corp:ada");
      passport = "end_ada";
    } else if (how == 1) {
      owe.set_app_uid("app_1");
      passport = Draw(2) == 0 ? "end_app" : "none";
    } else if (how <= 4) {
      *owe.mutable_record() = Name(vault::v1::USER, "corp:" + who, "connection", Draw(2) == 0 ? "app_1" : "app_1/work");
      if (Draw(3) == 0) owe.set_expected_version(Draw(6));
      passport = who;
    } else {
      Leased(owe, true);
    }
    Compare<vault::v1::OweRevocationRequest, vault::v1::OweRevocationResponse>(
        "token_broker", passport, &Stub::OweRevocation, owe, RealLease(owe), InOrder);
  }
  void Rename() {
    vault::v1::RenameRequest rename;
    const bool there = Draw(2) == 0;
    *rename.mutable_record() = Name(vault::v1::USER, "corp:ada", "connection", there ? "app_1" : "app_1/work");
    rename.set_new_name(there ? "app_1/work" : "app_1");
    (*rename.mutable_labels())["write"] = absl::StrCat("w", Draw(3));
    if (Draw(3) == 0) rename.set_expected_version(Draw(6));
    Compare<vault::v1::RenameRequest, vault::v1::RenameResponse>("token_broker", "api", &Stub::Rename, rename);
  }
  // What is owed is listed, leased, put off and done.
  void Revoke() {
    vault::v1::ListDueRequest due;
    due.add_kinds("revocation");
    due.set_limit(200);
    if (Draw(2) == 0) due.mutable_claim()->set_seconds(1);
    Compare<vault::v1::ListDueRequest, vault::v1::ListDueResponse>("token_broker", "none", &Stub::ListDue, due, nullptr,
                                                                   [](auto& fake, auto& real) { ByName(fake, real); });
    const std::vector<vault::v1::RecordMetadata> owed = fake_.Revocations();
    if (owed.empty()) return;
    vault::v1::ListRequest list;
    list.set_owner_type(vault::v1::SYSTEM);
    list.set_owner_id("token_broker");
    list.set_kind("revocation");
    const std::string name = DrawFrom(owed).record().name();
    if (Draw(2) == 0) list.set_name_prefix(name.substr(0, Draw(2) == 0 ? 64 : 66));
    if (Draw(2) == 0) list.set_app_uid(Draw(2) == 0 ? "app_1" : "sso:corp");
    Compare<vault::v1::ListRequest, vault::v1::ListResponse>("token_broker", "none", &Stub::List, list, nullptr,
                                                             [](auto& fake, auto& real) { ByName(fake, real); });
    vault::v1::AcquireLeaseRequest acquire;
    *acquire.mutable_record() = DrawFrom(owed).record();
    acquire.set_maintenance(Draw(8) != 0);
    Compare<vault::v1::AcquireLeaseRequest, vault::v1::AcquireLeaseResponse>(
        "token_broker", "none", &Stub::AcquireLease, acquire, nullptr, [&](auto& fake, auto& real) {
          if (!fake.has_lease() || !real.has_lease()) return;
          leases_.push_back({acquire.record(), fake.lease().id(), real.lease().id()});
          fake.mutable_lease()->set_id("lease");
          real.mutable_lease()->set_id("lease");
        });
  }
  template <typename Response>
  static void ByName(Response& fake, Response& real) {
    for (auto* response : {&fake, &real}) {
      std::sort(response->mutable_records()->begin(), response->mutable_records()->end(),
                [](const auto& a, const auto& b) { return Text(a.record()) < Text(b.record()); });
    }
  }
  void DeleteOwner() {
    vault::v1::DeleteOwnerRequest erase;
    erase.set_owner_type(vault::v1::USER);
    erase.set_owner_id(Draw(2) == 0 ? "corp:ada" : "corp:bob");
    Compare<vault::v1::DeleteOwnerRequest, vault::v1::DeleteOwnerResponse>("authn", "admin", &Stub::DeleteOwner, erase);
  }

 private:
  struct LeasePair {
    RecordName record;
    std::string fake;
    std::string real;
  };
  // A time that no other record is given.
  google::protobuf::Timestamp Later() {
    return ToTimestamp(clock_.Now() + absl::Seconds(Draw(60)) + absl::Microseconds(++given_times_));
  }
  // Names a lease that was given some time, or one that never was.
  template <typename Request>
  void Leased(Request& request, bool leased) {
    if (!leased) return;
    drawn_ =
        leases_.empty() || Draw(20) == 0
            ? LeasePair{Records()[0], "unknown", "unknown"}
            : leases_[leases_.size() - 1 - static_cast<size_t>(Draw(std::min(4, static_cast<int>(leases_.size()))))];
    *request.mutable_record() = drawn_.record;
    request.set_lease(drawn_.fake);
  }
  template <typename Request>
  std::function<void(Request&)> RealLease(const Request& request) {
    if (request.lease().empty()) return nullptr;
    return [real = drawn_.real](Request& real_request) { real_request.set_lease(real); };
  }

  std::mt19937 random_{static_cast<unsigned>(GetParam())};
  std::vector<LeasePair> leases_;
  LeasePair drawn_;
  int64_t given_times_ = 0;
};

TEST_P(VaultSequenceTest, SameAnswers) {
  for (int i = 0; i < 300 && !HasFailure(); ++i) {
    const int what = Draw(100);
    if (what < 25) {
      Put();
    } else if (what < 40) {
      Get();
    } else if (what < 48) {
      Delete();
    } else if (what < 56) {
      PinOrRebind();
    } else if (what < 72) {
      Acquire();
    } else if (what < 88) {
      Answer();
    } else if (what < 91) {
      List();
    } else if (what < 93) {
      Owe();
    } else if (what < 94) {
      Rename();
    } else if (what < 95) {
      Revoke();
    } else if (what < 96) {
      DeleteOwner();
    } else {
      clock_.Advance(absl::Seconds(1 + Draw(40)));
    }
    // Passports live five minutes.
    if (i % 4 == 0) SignAgain();
  }
  if (HasFailure()) {
    for (const std::string& call : calls_) std::cerr << call << "\n";
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, VaultSequenceTest, ::testing::Range(1, 13));

}  // namespace
}  // namespace sallyport::vault_contract

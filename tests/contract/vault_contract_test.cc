// SPDX-License-Identifier: Apache-2.0
// The fake vault against the real one: the same calls, and the same answers.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/proto_time.h"
#include "common/rpc/server.h"
#include "services/vault/vault_server.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fakes/fake_authn.h"
#include "tests/testing/fakes/fake_vault.h"
#include "tests/testing/fakes/in_process.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport {
namespace {

using testing::IsOk;
using vault::v1::OwnerType;
using vault::v1::RecordName;

constexpr char kPublicUrl[] = "https://gw.example.com";
constexpr const char* kServices[] = {"token_broker", "registry", "authn", "edge", "vault"};
constexpr const char* kOrigins[] = {"https://a.example", "https://b.example"};

RecordName Name(OwnerType type, const std::string& owner, const std::string& kind, const std::string& name) {
  RecordName out;
  out.set_owner_type(type);
  out.set_owner_id(owner);
  out.set_kind(kind);
  out.set_name(name);
  return out;
}

// One of every kind.
const std::vector<RecordName>& Records() {
  static const std::vector<RecordName> records = {
      Name(vault::v1::USER, "corp:ada", "connection", "app_1"),
      Name(vault::v1::USER, "corp:ada", "connection", "sso:corp"),
      Name(vault::v1::USER, "corp:bob", "connection", "app_1"),
      Name(vault::v1::USER, "corp:ada", "credential", "c"),
      Name(vault::v1::ORG, "default", "server_secret", "srv_1/token"),
      Name(vault::v1::ORG, "default", "app_secret", "app_1/client_secret"),
      Name(vault::v1::ORG, "default", "credential", "crd_1/value"),
      Name(vault::v1::ORG, "default", "server_binding", "srv_1/binding"),
      Name(vault::v1::ORG, "default", "app_binding", "app_1/binding"),
      Name(vault::v1::SYSTEM, "token_broker", "link_flow", "f"),
      Name(vault::v1::SYSTEM, "token_broker", "broker_key", "k"),
      Name(vault::v1::SYSTEM, "authn", "connector_secret", "corp/client_secret"),
      Name(vault::v1::SYSTEM, "authn", "signing_key", "s"),
      Name(vault::v1::SYSTEM, "authn", "session_key", "s"),
      Name(vault::v1::USER, "corp:ada", "connection", "app_1/work"),
      Name(vault::v1::SYSTEM, "token_broker", "revocation", "r"),
  };
  return records;
}

// Two vaults, one fake, and stubs of each service for both.
class VaultContractTest : public ::testing::Test {
 protected:
  using Stub = vault::v1::Vault::Stub;
  struct Pair {
    std::unique_ptr<Stub> fake;
    std::unique_ptr<Stub> real;
  };

  void SetUp() override {
    config::v1::VaultConfig config;
    config.mutable_database()->set_sqlite(directory_.File("vault.db"));
    config.mutable_kek()->set_directory(directory_.File("kek"));
    config.mutable_deployment()->set_public_url(kPublicUrl);
    auto started = vault::VaultServer::Start(config, clock_, {authn_server_.channel(), nullptr});
    ASSERT_THAT(started, IsOk());
    real_ = *std::move(started);
    for (const char* service : kServices) {
      fake_services_.push_back(std::make_unique<testing::FakeVaultService>(fake_, service));
      fake_servers_.push_back(
          std::make_unique<testing::InProcessServer>(std::vector<grpc::Service*>{fake_services_.back().get()}));
      stubs_[service] = {vault::v1::Vault::NewStub(fake_servers_.back()->channel()),
                         vault::v1::Vault::NewStub(real_->InProcessChannel(service))};
    }
    SignAgain();
  }
  void SignAgain() {
    passports_ = {{"none", ""},
                  {"ada", authn_.SignFor("corp:ada")},
                  {"bob", authn_.SignFor("corp:bob")},
                  {"admin", authn_.SignFor("local:root", {"admin"})},
                  {"chief", authn_.SignFor("local:root", {"admin", "credential-admin"})},
                  {"api", Of("corp:ada", Passport::Purpose::kApi)},
                  {"link", Of("corp:ada", Passport::Purpose::kLink)},
                  {"platform", Of("corp:ada", Passport::Purpose::kPlatform)},
                  {"sign_in", Of("corp:ada", Passport::Purpose::kSignIn)},
                  {"end_ada", Of("local:root", Passport::Purpose::kEnd, {.subject = "corp:ada"})},
                  {"end_app", Of("local:root", Passport::Purpose::kEnd, {.subject = "", .app_uid = "app_1"})},
                  {"end_work", Of("local:root", Passport::Purpose::kEnd,
                                  {.subject = "corp:ada", .app_uid = "app_1", .label = "work"})}};
  }
  std::string Of(const std::string& subject, Passport::Purpose purpose, const Passport::End& end = {}) {
    Passport passport;
    passport.subject = subject;
    passport.purpose = purpose;
    passport.actor = purpose == Passport::Purpose::kPlatform ? "batch" : "";
    passport.end = end;
    return authn_.Sign(passport);
  }

  template <typename Request, typename Response>
  using Method = grpc::Status (Stub::*)(grpc::ClientContext*, const Request&, Response*);

  // Makes the call of both, and compares code, reason and, as `normalize` leaves it, the answer. `to_real` says in the
  // second call what the first says in the fake's terms. Returns the outcome.
  template <typename Request, typename Response>
  std::string Compare(const std::string& service, const std::string& passport, Method<Request, Response> method,
                      const Request& request, const std::function<void(Request&)>& to_real = nullptr,
                      const std::function<void(Response&, Response&)>& normalize = nullptr) {
    Request real_request = request;
    if (to_real) to_real(real_request);
    Response fake;
    Response real;
    const auto fake_context = MakeClientContext(absl::Minutes(1), passports_.at(passport));
    const auto real_context = MakeClientContext(absl::Minutes(1), passports_.at(passport));
    const Pair& pair = stubs_.at(service);
    const absl::Status of_fake = FromGrpcStatus(((*pair.fake).*method)(fake_context.get(), request, &fake));
    const absl::Status of_real = FromGrpcStatus(((*pair.real).*method)(real_context.get(), real_request, &real));
    if (normalize && of_fake.ok() && of_real.ok()) normalize(fake, real);
    const std::string call =
        absl::StrCat(service, " with passport ", passport, ": ", Request::descriptor()->name(), " ", Text(request));
    const std::string outcome = Outcome(of_real, real);
    EXPECT_EQ(Outcome(of_fake, fake), outcome) << call << "\nfake: " << of_fake << "\nreal: " << of_real;
    calls_.push_back(absl::StrCat(call, " -> ", outcome.substr(0, 60)));
    return outcome;
  }
  static std::string Text(const google::protobuf::Message& message) {
    std::string text;
    google::protobuf::TextFormat::Printer printer;
    printer.SetSingleLineMode(true);
    printer.PrintToString(message, &text);
    return text;
  }
  static std::string Outcome(const absl::Status& status, const google::protobuf::Message& response) {
    if (status.ok()) return absl::StrCat("OK ", Text(response));
    return absl::StrCat(absl::StatusCodeToString(status.code()), " ", ReasonOf(status));
  }

  // What is of an app comes in any order.
  static void InOrder(vault::v1::OweRevocationResponse& fake, vault::v1::OweRevocationResponse& real) {
    for (auto* response : {&fake, &real}) {
      std::stable_sort(response->mutable_owed()->begin(), response->mutable_owed()->end(),
                       [](const auto& a, const auto& b) { return Text(a.connection()) < Text(b.connection()); });
    }
  }

  FakeClock clock_{absl::FromUnixSeconds(1'800'000'000)};
  testing::TempDirectory directory_;
  testing::FakeAuthn authn_{clock_, kPublicUrl};
  testing::InProcessServer authn_server_{{&authn_}};
  testing::FakeVault fake_{clock_};
  std::unique_ptr<vault::VaultServer> real_;
  std::vector<std::unique_ptr<testing::FakeVaultService>> fake_services_;
  std::vector<std::unique_ptr<testing::InProcessServer>> fake_servers_;
  std::map<std::string, Pair> stubs_;
  std::map<std::string, std::string> passports_;
  std::vector<std::string> calls_;
};

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
}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/rpc/server.h"
#include "services/vault/vault_server.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fakes/fake_authn.h"
#include "tests/testing/fakes/fake_vault.h"
#include "tests/testing/fakes/in_process.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

// The fake vault and the real one, for tests that call both.
namespace sallyport::vault_contract {

using vault::v1::OwnerType;
using vault::v1::RecordName;

inline constexpr char kPublicUrl[] = "https://gw.example.com";
inline constexpr const char* kServices[] = {"token_broker", "registry", "authn", "edge", "vault"};
inline constexpr const char* kOrigins[] = {"https://a.example", "https://b.example"};

inline RecordName Name(OwnerType type, const std::string& owner, const std::string& kind, const std::string& name) {
  RecordName out;
  out.set_owner_type(type);
  out.set_owner_id(owner);
  out.set_kind(kind);
  out.set_name(name);
  return out;
}

// One of every kind.
inline const std::vector<RecordName>& Records() {
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
    ASSERT_THAT(started, testing::IsOk());
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

}  // namespace sallyport::vault_contract

// SPDX-License-Identifier: Apache-2.0
// The fake authn against the real one: what its peers may rely on.
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/caller/passport.h"
#include "common/error.h"
#include "common/proto_time.h"
#include "common/rpc/server.h"
#include "services/authn/authn_server.h"
#include "services/authn/authn_testing.h"
#include "tests/testing/fakes/fake_audit.h"
#include "tests/testing/fakes/fake_authn.h"
#include "tests/testing/fakes/fake_registry.h"
#include "tests/testing/fakes/fake_vault.h"
#include "tests/testing/fakes/in_process.h"

namespace sallyport {
namespace {

using testing::IsOk;
using testing::StatusIs;
using Code = absl::StatusCode;

constexpr char kPublicUrl[] = "https://gw.example.com";
constexpr char kIssuer[] = "https://idp.example";

// An authn that admits "ada" and does not admit "stranger" to a server.
class Subject {
 public:
  virtual ~Subject() = default;
  virtual std::unique_ptr<authn::v1::Authn::Stub> As(const std::string& service) = 0;
  // A token of the identity provider's.
  virtual std::string Token(const std::string& name) = 0;
  // A passport that verifies.
  virtual std::string Passport() = 0;
  virtual std::shared_ptr<grpc::Channel> channel(const std::string& service) = 0;

  const FakeClock& clock() const { return clock_; }

 protected:
  FakeClock clock_{absl::FromUnixSeconds(absl::ToUnixSeconds(absl::Now()))};
};

class Fake final : public Subject {
 public:
  std::unique_ptr<authn::v1::Authn::Stub> As(const std::string& /*service*/) override {
    return authn::v1::Authn::NewStub(server_.channel());
  }
  std::string Token(const std::string& name) override { return "idp-" + name; }
  std::string Passport() override { return authn_.SignFor("okta:ada"); }
  std::shared_ptr<grpc::Channel> channel(const std::string& /*service*/) override { return server_.channel(); }

 private:
  testing::FakeAuthn authn_{clock_, kPublicUrl};
  testing::InProcessServer server_{{&authn_}};
};

class Real final : public Subject {
 public:
  Real() {
    registry::v1::McpServer server;
    server.set_uid("srv_a");
    server.set_slug("a");
    server.set_version(1);
    auto& interactive = *server.mutable_agent_auth()->mutable_interactive();
    interactive.mutable_allow()->add_groups("team");
    auto& trusted = *interactive.add_trusted_connectors();
    trusted.set_connector("okta");
    trusted.add_audiences("api://mcp");
    server.mutable_app_auth()->mutable_passthrough();
    registry_.Put(server);
    EXPECT_THAT(WriteFileAtomic(directory_.path() + "/jwks", idp_.Jwks()), IsOk());
    config::v1::AuthnConfig config;
    config.mutable_database()->set_sqlite(directory_.path() + "/authn.db");
    config.mutable_deployment()->set_public_url(kPublicUrl);
    config.set_data_directory(directory_.path());
    auto& connector = *config.add_connectors();
    connector.set_id("okta");
    connector.mutable_oidc()->set_issuer(kIssuer);
    connector.mutable_oidc()->set_jwks_file(directory_.path() + "/jwks");
    auto started = authn::AuthnServer::Start(config, clock_, {peers_.channel(), peers_.channel(), peers_.channel()});
    EXPECT_THAT(started, IsOk());
    server_ = *std::move(started);
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    while (!server_->Ready().ok() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
    EXPECT_THAT(server_->Ready(), IsOk());
  }
  std::unique_ptr<authn::v1::Authn::Stub> As(const std::string& service) override {
    return authn::v1::Authn::NewStub(channel(service));
  }
  std::string Token(const std::string& name) override {
    if (name == "ada") return idp_.Token(clock_.Now(), {{"sub", name}, {"groups", {"team"}}});
    return name == "stranger" ? idp_.Token(clock_.Now(), {{"sub", name}}) : name;
  }
  std::string Passport() override {
    authn::v1::AuthenticateRequest request;
    request.set_server_uid("srv_a");
    request.set_server_version(1);
    request.set_token(Token("ada"));
    authn::v1::AuthenticateResponse response;
    const auto context = MakeClientContext(absl::Minutes(1));
    EXPECT_TRUE(As("edge")->Authenticate(context.get(), request, &response).ok());
    return response.passport();
  }
  std::shared_ptr<grpc::Channel> channel(const std::string& service) override {
    return server_->InProcessChannel(service);
  }

 private:
  authn::TempDirectory directory_;
  authn::TestIssuer idp_{kIssuer};
  testing::FakeVault vault_{clock_};
  testing::FakeVaultService vault_service_{vault_, "authn"};
  testing::FakeRegistry registry_;
  testing::FakeAudit audit_;
  testing::InProcessServer peers_{{&vault_service_, &registry_, &audit_}};
  std::unique_ptr<authn::AuthnServer> server_;
};

class AuthnContractTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam()) {
      subject_ = std::make_unique<Real>();
    } else {
      subject_ = std::make_unique<Fake>();
    }
  }
  absl::StatusOr<authn::v1::AuthenticateResponse> Authenticate(const std::string& token) {
    authn::v1::AuthenticateRequest request;
    request.set_server_uid("srv_a");
    request.set_server_version(1);
    request.set_token(token);
    authn::v1::AuthenticateResponse response;
    const auto context = MakeClientContext(absl::Minutes(1));
    const grpc::Status status = subject_->As("edge")->Authenticate(context.get(), request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response;
  }

  std::unique_ptr<Subject> subject_;
};

TEST_P(AuthnContractTest, AnAdmittedCallerHasASubjectAPassportAndAnEnd) {
  ASSERT_OK_AND_ASSIGN(const auto admitted, Authenticate(subject_->Token("ada")));
  EXPECT_EQ(admitted.principal().subject(), "okta:ada");
  EXPECT_EQ(admitted.principal().token_kind(), authn::v1::CONNECTOR_ACCESS);
  EXPECT_FALSE(admitted.passport().empty());
  EXPECT_FALSE(admitted.rule().empty());
  const absl::Time now = subject_->clock().Now();
  EXPECT_GT(FromTimestamp(admitted.valid_until()), now);
  EXPECT_LE(FromTimestamp(admitted.valid_until()), now + kPassportLifetime);
  EXPECT_LE(FromTimestamp(admitted.valid_until()), FromTimestamp(admitted.principal().expires_at()));
}

TEST_P(AuthnContractTest, ACallerWhoIsNotAdmittedIsToldFromAnUnknownOne) {
  EXPECT_THAT(Authenticate(subject_->Token("stranger")), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Authenticate("garbage"), StatusIs(Code::kUnauthenticated));
  EXPECT_THAT(Authenticate(""), StatusIs(Code::kUnauthenticated));
}

TEST_P(AuthnContractTest, APassportVerifiesWithTheKeys) {
  const PassportVerifier verifier(kPublicUrl, std::make_unique<RpcKeySource>(subject_->channel("vault")));
  ASSERT_OK_AND_ASSIGN(const Passport passport, verifier.Verify(subject_->Passport(), subject_->clock().Now()));
  EXPECT_EQ(passport.subject, "okta:ada");
  EXPECT_EQ(passport.purpose, Passport::Purpose::kCall);
  EXPECT_THAT(verifier.Verify(subject_->Passport(), subject_->clock().Now() + kPassportLifetime),
              StatusIs(Code::kUnauthenticated));
}

TEST_P(AuthnContractTest, WithoutASessionThereIsNoPassport) {
  for (const bool cookie : {false, true}) {
    authn::v1::GetPassportRequest request;
    request.set_purpose(authn::v1::GetPassportRequest::API);
    if (cookie) {
      request.set_cookie("other=1");
    } else {
      request.set_api_token("nonsense");
    }
    authn::v1::GetPassportResponse response;
    const auto context = MakeClientContext(absl::Minutes(1));
    EXPECT_THAT(FromGrpcStatus(subject_->As("edge")->GetPassport(context.get(), request, &response)),
                StatusIs(Code::kUnauthenticated));
  }
}

TEST_P(AuthnContractTest, EdgesAreGivenKeysAndTheTimeToAskAgain) {
  authn::v1::GetEdgeKeysResponse keys;
  const auto context = MakeClientContext(absl::Minutes(1));
  ASSERT_TRUE(subject_->As("edge")->GetEdgeKeys(context.get(), {}, &keys).ok());
  ASSERT_GE(keys.session_tag_keys_size(), 1);
  for (const std::string& key : keys.session_tag_keys()) EXPECT_EQ(key.size(), 32U);
  EXPECT_GT(FromTimestamp(keys.refresh_after()), subject_->clock().Now());
}

TEST_P(AuthnContractTest, EndSignInNeedsAPassport) {
  authn::v1::EndSignInResponse response;
  const auto context = MakeClientContext(absl::Minutes(1));
  EXPECT_THAT(FromGrpcStatus(subject_->As("token_broker")->EndSignIn(context.get(), {}, &response)),
              StatusIs(Code::kUnauthenticated));
}

INSTANTIATE_TEST_SUITE_P(Authns, AuthnContractTest, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Real" : "Fake"; });

}  // namespace
}  // namespace sallyport

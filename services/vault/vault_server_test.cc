// SPDX-License-Identifier: Apache-2.0
#include "services/vault/vault_server.h"

#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

#include "common/error.h"
#include "common/rpc/server.h"
#include "common/status_macros.h"
#include "sallyport/vault/v1/vault.grpc.pb.h"
#include "services/vault/testing/harness.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/fakes/fake_authn.h"
#include "tests/testing/fakes/in_process.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;

constexpr char kPublicUrl[] = "https://gw.example.com";

class VaultServerTest : public ::testing::Test {
 protected:
  VaultServerTest() {
    config_.mutable_database()->set_sqlite(directory_.File("vault.db"));
    config_.mutable_kek()->set_directory(directory_.File("kek"));
    config_.mutable_deployment()->set_public_url(kPublicUrl);
  }
  void SetUp() override { Start(); }
  void Start() {
    server_.reset();
    auto server = VaultServer::Start(config_, clock_, {authn_server_.channel(), nullptr});
    ASSERT_THAT(server, IsOk());
    server_ = *std::move(server);
  }
  std::unique_ptr<v1::Vault::Stub> As(const std::string& caller) {
    return v1::Vault::NewStub(server_->InProcessChannel(caller));
  }
  std::unique_ptr<v1::VaultAdmin::Stub> AdminAs(const std::string& caller) {
    return v1::VaultAdmin::NewStub(server_->InProcessChannel(caller));
  }
  absl::Status Put(const std::string& caller, const v1::RecordName& record, const std::string& payload,
                   const std::string& passport = "") {
    v1::PutRequest request;
    *request.mutable_record() = record;
    request.set_payload(payload);
    v1::PutResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), passport);
    return FromGrpcStatus(As(caller)->Put(context.get(), request, &response));
  }
  absl::StatusOr<std::string> Get(const std::string& caller, const v1::RecordName& record,
                                  const std::string& passport = "") {
    v1::GetRequest request;
    *request.mutable_record() = record;
    v1::GetResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), passport);
    RETURN_IF_ERROR(FromGrpcStatus(As(caller)->Get(context.get(), request, &response)));
    return response.payload();
  }
  absl::StatusOr<v1::GetStatusResponse> Status(const std::string& passport) {
    v1::GetStatusResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), passport);
    RETURN_IF_ERROR(FromGrpcStatus(AdminAs("edge")->GetStatus(context.get(), {}, &response)));
    return response;
  }

  static std::string Content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  // As it stands in the file.
  std::string WrappedKeyOf(const std::string& user) {
    const auto database = Database::Open({.sqlite_path = directory_.File("vault.db")});
    std::string wrapped;
    EXPECT_THAT((*database)->Read([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(const auto row,
                       tx.QueryRow("SELECT wrapped FROM data_key WHERE owner_id = :user", {{"user", user}}));
      wrapped = row->Text("wrapped");
      return absl::OkStatus();
    }),
                IsOk());
    return wrapped;
  }

  testing::TempDirectory directory_;
  FakeClock clock_{absl::Now()};
  sallyport::testing::FakeAuthn authn_{clock_, kPublicUrl};
  sallyport::testing::InProcessServer authn_server_{{&authn_}};
  config::v1::VaultConfig config_;
  std::unique_ptr<VaultServer> server_;
};

TEST_F(VaultServerTest, UserSecretGoesInAndOutWithThatUsersPassport) {
  const std::string passport = authn_.SignFor("corp:ada");
  ASSERT_THAT(Put("token_broker", testing::Connection("corp:ada"), "rt", passport), IsOk());
  const auto got = Get("token_broker", testing::Connection("corp:ada"), passport);
  ASSERT_THAT(got, IsOk());
  EXPECT_EQ(*got, "rt");
}

TEST_F(VaultServerTest, AnotherUsersPassportIsRefused) {
  ASSERT_THAT(Put("token_broker", testing::Connection("corp:ada"), "rt", authn_.SignFor("corp:ada")), IsOk());
  EXPECT_THAT(Get("token_broker", testing::Connection("corp:ada"), authn_.SignFor("corp:eve")),
              StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Get("token_broker", testing::Connection("corp:ada")), StatusIs(Code::kPermissionDenied));
}

TEST_F(VaultServerTest, PassportThatDoesNotVerifyIsRefusedEvenWhereNoneIsNeeded) {
  EXPECT_THAT(Put("registry", testing::ServerSecret(), "x", "not.a.passport"), StatusIs(Code::kUnauthenticated));
  const std::string old = authn_.SignFor("corp:ada");
  clock_.Advance(absl::Hours(1));
  EXPECT_THAT(Put("token_broker", testing::Connection("corp:ada"), "x", old), StatusIs(Code::kUnauthenticated));
}

TEST_F(VaultServerTest, RegistryWritesWhatOnlyTheBrokerReads) {
  ASSERT_THAT(Put("registry", testing::ServerSecret(), "api-key"), IsOk());
  EXPECT_EQ(*Get("token_broker", testing::ServerSecret()), "api-key");
  for (const std::string caller : {"registry", "edge", "authn", "console", "vault"}) {
    EXPECT_THAT(Get(caller, testing::ServerSecret()), StatusIs(Code::kPermissionDenied)) << caller;
  }
}

TEST_F(VaultServerTest, AdminMethodsNeedTheEdgeAndAnAdmin) {
  EXPECT_FALSE(Status("").ok());
  EXPECT_THAT(Status(authn_.SignFor("corp:ada")), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Status(authn_.SignFor("corp:ada", {"auditor", "credential-admin"})), StatusIs(Code::kPermissionDenied));
  const auto status = Status(authn_.SignFor("corp:root", {"admin"}));
  ASSERT_THAT(status, IsOk());
  EXPECT_EQ(status->state(), "ACTIVE");
  ASSERT_EQ(status->terms_size(), 1);
  EXPECT_EQ(status->terms(0).state(), "active");

  v1::SealResponse response;
  const auto context = MakeClientContext(absl::Minutes(1), authn_.SignFor("corp:root", {"admin"}));
  EXPECT_THAT(FromGrpcStatus(AdminAs("token_broker")->Seal(context.get(), {}, &response)),
              StatusIs(Code::kPermissionDenied));
}

TEST_F(VaultServerTest, SealedVaultIsNotReadyAndSaysWhy) {
  ASSERT_THAT(Put("registry", testing::ServerSecret(), "api-key"), IsOk());
  server_.reset();
  std::filesystem::rename(directory_.File("kek"), directory_.File("away"));
  Start();
  EXPECT_THAT(server_->Ready(), StatusIs(Code::kUnavailable, "kek_missing"));
  const auto got = Get("token_broker", testing::ServerSecret());
  EXPECT_THAT(got, StatusIs(Code::kUnavailable));
  EXPECT_EQ(ReasonOf(got.status()), "vault_sealed");
  EXPECT_GT(DetailOf(got.status()).retry_after, absl::ZeroDuration());
  const auto status = Status(authn_.SignFor("corp:root", {"admin"}));
  ASSERT_THAT(status, IsOk());
  EXPECT_EQ(status->state(), "SEALED");
  EXPECT_EQ(status->reason(), "kek_missing");
}

TEST_F(VaultServerTest, SecretsSurviveARestart) {
  ASSERT_THAT(Put("registry", testing::ServerSecret(), "api-key"), IsOk());
  Start();
  EXPECT_THAT(server_->Ready(), IsOk());
  EXPECT_EQ(*Get("token_broker", testing::ServerSecret()), "api-key");
}

TEST_F(VaultServerTest, NothingOfAShreddedUserIsLeftInTheFiles) {
  const std::string passport = authn_.SignFor("corp:ada");
  ASSERT_THAT(Put("token_broker", testing::Connection("corp:ada"), "rt", passport), IsOk());
  const std::string wrapped = WrappedKeyOf("corp:ada");
  ASSERT_EQ(wrapped.size(), 80u);
  v1::DeleteOwnerRequest request;
  request.set_owner_type(v1::USER);
  request.set_owner_id("corp:ada");
  v1::DeleteOwnerResponse response;
  const auto context = MakeClientContext(absl::Minutes(1), passport);
  ASSERT_THAT(FromGrpcStatus(As("token_broker")->DeleteOwner(context.get(), request, &response)), IsOk());
  EXPECT_THAT(Get("token_broker", testing::Connection("corp:ada"), passport), StatusIs(Code::kNotFound));
  EXPECT_EQ(std::filesystem::file_size(directory_.File("vault.db-wal")), 0u) << "the log still holds old pages";
  EXPECT_EQ(Content(directory_.File("vault.db")).find(wrapped), std::string::npos) << "the wrapped key is still there";
}

TEST_F(VaultServerTest, ConfigurationIsChecked) {
  config::v1::VaultConfig config;
  const absl::Status status = ValidateVaultConfig(config);
  EXPECT_THAT(status, StatusIs(Code::kInvalidArgument));
  EXPECT_EQ(DetailOf(status).violations.size(), 2u);
  EXPECT_THAT(ValidateVaultConfig(config_), IsOk());
}

TEST_F(VaultServerTest, ProcessOfItsOwnNeedsAListenerAndAuthn) {
  const absl::Status status = ValidateSplitConfig(config_);
  EXPECT_THAT(status, StatusIs(Code::kInvalidArgument, "peers.authn"));
  EXPECT_THAT(status, StatusIs(Code::kInvalidArgument, "server.tls.certificate"));
}

}  // namespace
}  // namespace sallyport::vault

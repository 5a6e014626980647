// SPDX-License-Identifier: Apache-2.0
#include "common/caller/caller.h"

#include <grpcpp/test/server_context_test_spouse.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "sallyport/authn/v1/authn.pb.h"
#include "sallyport/registry/v1/registry.pb.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;
using Purpose = Passport::Purpose;

constexpr char kRegistry[] = "sallyport.registry.v1.Registry";
constexpr char kAuthn[] = "sallyport.authn.v1.Authn";
constexpr char kIssuer[] = "https://gw.example.com";
const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);

// Every method of the service, for the edge.
MethodTable TableFor(const std::string& service) {
  MethodTable table;
  const auto* descriptor = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(service);
  for (int i = 0; i < descriptor->method_count(); ++i) {
    table[descriptor->method(i)->name()] = {"edge"};
  }
  return table;
}

class OneKey final : public PassportKeySource {
 public:
  explicit OneKey(std::string jwks) : jwks_(std::move(jwks)) {}
  absl::StatusOr<std::string> FetchJwks() override { return jwks_; }

 private:
  std::string jwks_;
};

class CallGuardTest : public ::testing::Test {
 protected:
  CallGuardTest()
      : guard_(*CallGuard::Create({{kRegistry, TableFor(kRegistry)}, {kAuthn, TableFor(kAuthn)}})),
        verifier_(kIssuer, std::make_unique<OneKey>(JwkSet({key_.public_key()}).ToJson())) {}

  std::string Signed(Purpose purpose, const std::vector<std::string>& roles = {}) {
    Passport passport;
    passport.subject = "corp:ada";
    passport.purpose = purpose;
    passport.roles = roles;
    return *SignPassport(passport, kIssuer, key_, kNow);
  }
  absl::StatusOr<Caller> Check(const std::string& method, const std::vector<std::string>& passports = {},
                               const std::string& service = "edge") {
    grpc::ServerContext context;
    grpc::testing::ServerContextTestSpouse spouse(&context);
    for (const std::string& passport : passports) {
      spouse.AddClientMetadata(kPassportMetadata, passport);
    }
    return guard_.Check(method, context, FixedPeer(service), &verifier_, kNow);
  }

  PrivateKey key_ = *PrivateKey::GenerateP256();
  CallGuard guard_;
  PassportVerifier verifier_;
};

const std::string kWatch = std::string(kRegistry) + "/Watch";
const std::string kGet = std::string(kRegistry) + "/GetMcpServer";
const std::string kCreate = std::string(kRegistry) + "/CreateMcpServer";
const std::string kCreateCredential = std::string(kRegistry) + "/CreateCredential";
const std::string kWhoAmI = std::string(kAuthn) + "/WhoAmI";
const std::string kRedeem = std::string(kAuthn) + "/RedeemAdminToken";

TEST_F(CallGuardTest, AServiceOfTheTableMayCallAnInternalMethod) {
  ASSERT_OK_AND_ASSIGN(const Caller caller, Check(kWatch));
  EXPECT_EQ(caller.service, "edge");
  EXPECT_FALSE(caller.passport.has_value());
}

TEST_F(CallGuardTest, AServiceThatIsNotInTheTableMayNot) {
  const absl::StatusOr<Caller> caller = Check(kWatch, {}, "vault");
  EXPECT_THAT(caller, StatusIs(Code::kPermissionDenied, "vault may not call"));
  EXPECT_EQ(ReasonOf(caller.status()), "service_not_allowed");
}

TEST_F(CallGuardTest, AnEmptySetOfCallersMeansNobody) {
  MethodTable table = TableFor(kRegistry);
  table["Watch"] = {};
  ASSERT_OK_AND_ASSIGN(guard_, CallGuard::Create({{kRegistry, table}}));
  EXPECT_THAT(Check(kWatch), StatusIs(Code::kPermissionDenied));
}

TEST_F(CallGuardTest, AnUnknownMethodIsDenied) {
  EXPECT_THAT(Check("sallyport.registry.v1.Registry/Drop"), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Check("sallyport.vault.v1.Vault/Get"), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Check(""), StatusIs(Code::kPermissionDenied));
}

TEST_F(CallGuardTest, AnyoneNeedsNoPassport) { EXPECT_THAT(Check(kRedeem), IsOk()); }

TEST_F(CallGuardTest, UserNeedsAPassport) {
  EXPECT_THAT(Check(kWhoAmI), StatusIs(Code::kUnauthenticated));
  ASSERT_OK_AND_ASSIGN(const Caller caller, Check(kWhoAmI, {Signed(Purpose::kApi)}));
  EXPECT_EQ(caller.passport->subject, "corp:ada");
  EXPECT_THAT(Check(kWhoAmI, {Signed(Purpose::kCall)}), IsOk());
}

TEST_F(CallGuardTest, PassportsOfOtherPurposesAreNoUser) {
  for (Purpose purpose : {Purpose::kLink, Purpose::kSignIn}) {
    EXPECT_THAT(Check(kWhoAmI, {Signed(purpose)}), StatusIs(Code::kPermissionDenied))
        << std::string(PurposeName(purpose));
  }
}

TEST_F(CallGuardTest, AuditorMethodsTakeEveryRole) {
  for (const char* role : {"auditor", "credential-admin", "admin"}) {
    EXPECT_THAT(Check(kGet, {Signed(Purpose::kApi, {role})}), IsOk()) << role;
  }
  EXPECT_THAT(Check(kGet, {Signed(Purpose::kApi)}), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Check(kGet), StatusIs(Code::kUnauthenticated));
}

TEST_F(CallGuardTest, AdminMethodsTakeAdminOnly) {
  EXPECT_THAT(Check(kCreate, {Signed(Purpose::kApi, {"admin"})}), IsOk());
  EXPECT_THAT(Check(kCreate, {Signed(Purpose::kApi, {"auditor", "credential-admin"})}),
              StatusIs(Code::kPermissionDenied, "role admin"));
}

TEST_F(CallGuardTest, CredentialAdminMethodsRefuseAnAdmin) {
  EXPECT_THAT(Check(kCreateCredential, {Signed(Purpose::kApi, {"credential-admin"})}), IsOk());
  EXPECT_THAT(Check(kCreateCredential, {Signed(Purpose::kApi, {"admin"})}), StatusIs(Code::kPermissionDenied));
}

TEST_F(CallGuardTest, RolesDoNotCountInTheCourseOfACall) {
  EXPECT_THAT(Check(kCreate, {Signed(Purpose::kCall, {"admin"})}),
              StatusIs(Code::kPermissionDenied, "another purpose"));
}

TEST_F(CallGuardTest, ABadPassportIsAnErrorEvenWhereNoneIsNeeded) {
  EXPECT_THAT(Check(kWatch, {"a.b.c"}), StatusIs(Code::kUnauthenticated));
}

TEST_F(CallGuardTest, TwoPassportsAreRefused) {
  EXPECT_THAT(Check(kWatch, {Signed(Purpose::kApi), Signed(Purpose::kApi)}),
              StatusIs(Code::kUnauthenticated, "more than"));
}

TEST_F(CallGuardTest, WithoutAVerifierAPassportIsRefused) {
  grpc::ServerContext context;
  grpc::testing::ServerContextTestSpouse spouse(&context);
  spouse.AddClientMetadata(kPassportMetadata, Signed(Purpose::kApi));
  EXPECT_THAT(guard_.Check(kWatch, context, FixedPeer("edge"), nullptr, kNow), StatusIs(Code::kUnauthenticated));
}

TEST(CallGuardCreateTest, AMethodMissingFromTheTableStopsTheStart) {
  MethodTable table = TableFor(kRegistry);
  table.erase("Watch");
  EXPECT_THAT(CallGuard::Create({{kRegistry, table}}),
              StatusIs(Code::kFailedPrecondition, "Registry/Watch is missing from the table"));
}

TEST(CallGuardCreateTest, AnInventedMethodStopsTheStart) {
  MethodTable table = TableFor(kRegistry);
  table["Drop"] = {"edge"};
  EXPECT_THAT(CallGuard::Create({{kRegistry, table}}), StatusIs(Code::kFailedPrecondition, "no method Drop"));
}

TEST(CallGuardCreateTest, AnUnknownServiceStopsTheStart) {
  EXPECT_THAT(CallGuard::Create({{"sallyport.Nothing", {}}}), StatusIs(Code::kFailedPrecondition));
}

TEST(MtlsPeerTest, APlaintextPeerIsNobody) {
  grpc::ServerContext context;
  EXPECT_THAT(MtlsPeer("sallyport.test").ServiceOf(context), StatusIs(Code::kUnauthenticated));
}

}  // namespace
}  // namespace sallyport

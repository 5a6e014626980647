// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/secret_target.h"

#include <gmock/gmock.h>

#include "common/error.h"
#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport::edge {
namespace {

using ::sallyport::testing::MakeTestCertificate;
using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;
using Code = absl::StatusCode;

UpstreamTarget Base() {
  UpstreamTarget base = *ParseUpstreamUrl("https://hooks.example");
  base.pool_key = "srv_a/1";
  base.secret = true;
  return base;
}
std::string Identity() {
  const auto made = MakeTestCertificate(nullptr, {});
  return made.CertificatePem() + made.KeyPem();
}

TEST(SecretTarget, TheResolvedAddressIsDialledWhole) {
  SecretTarget maker(Base(), {.url = true});
  ASSERT_OK_AND_ASSIGN(const auto target, maker.Make("https://HOOKS.example:443/canary/x?k=1", ""));
  EXPECT_EQ(target->host, "hooks.example");
  EXPECT_EQ(target->port, 443);
  EXPECT_EQ(target->host_header, "hooks.example");
  EXPECT_EQ(target->path, "/canary/x");
  EXPECT_EQ(target->query, "k=1");
  EXPECT_EQ(target->origin, "https://hooks.example");
  EXPECT_TRUE(target->tls && target->secret);
  EXPECT_THAT(target->pool_key, Not(HasSubstr("canary")));
}

TEST(SecretTarget, AnAddressOfAnotherOriginIsRefusedAndNotQuoted) {
  SecretTarget maker(Base(), {.url = true});
  for (const char* url :
       {"https://evil.example/canary", "http://hooks.example/canary", "https://hooks.example:8443/canary",
        "https://hooks.example@evil.example/canary", "canary", "https://hooks.example/canary\r\nX: y"}) {
    const auto refused = maker.Make(url, "");
    EXPECT_THAT(refused, StatusIs(Code::kPermissionDenied)) << url;
    EXPECT_EQ(ReasonOf(refused.status()), "origin_not_allowed");
    EXPECT_THAT(std::string(refused.status().message()), Not(HasSubstr("canary")));
  }
}

TEST(SecretTarget, NothingStandsInForWhatIsMissing) {
  SecretTarget address(Base(), {.url = true});
  SecretTarget certificate(Base(), {.certificate = true});
  EXPECT_THAT(address.Make("", ""), StatusIs(Code::kFailedPrecondition));
  EXPECT_THAT(address.Make("https://hooks.example/x", Identity()), StatusIs(Code::kFailedPrecondition))
      << "not asked for";
  EXPECT_THAT(certificate.Make("", ""), StatusIs(Code::kFailedPrecondition));
  const auto broken = certificate.Make("", "no certificate");
  EXPECT_THAT(broken, StatusIs(Code::kFailedPrecondition));
  EXPECT_EQ(ReasonOf(broken.status()), "credential_missing");
}

TEST(SecretTarget, TheSameSecretsGiveTheSameTargetAndOthersAnotherPool) {
  SecretTarget maker(Base(), {.url = true, .certificate = true});
  const std::string one = Identity();
  const std::string two = Identity();
  ASSERT_OK_AND_ASSIGN(const auto first, maker.Make("https://hooks.example/x", one));
  ASSERT_OK_AND_ASSIGN(const auto again, maker.Make("https://hooks.example/x", one));
  EXPECT_EQ(first, again);
  ASSERT_OK_AND_ASSIGN(const auto renewed, maker.Make("https://hooks.example/x", two));
  EXPECT_NE(renewed->pool_key, first->pool_key);
  EXPECT_NE(renewed->client_certificate, first->client_certificate);
  ASSERT_OK_AND_ASSIGN(const auto moved, maker.Make("https://hooks.example/y", two));
  EXPECT_NE(moved->pool_key, renewed->pool_key);
  ASSERT_OK_AND_ASSIGN(const auto back, maker.Make("https://hooks.example/x", one));
  EXPECT_NE(back->pool_key, first->pool_key) << "nor is a pool taken up again";
  EXPECT_THAT(first->pool_key, HasSubstr("srv_a/1/"));
}

}  // namespace
}  // namespace sallyport::edge

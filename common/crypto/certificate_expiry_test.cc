// SPDX-License-Identifier: Apache-2.0
#include "common/crypto/certificate_expiry.h"

#include <gmock/gmock.h>

#include "tests/testing/status_matchers.h"
#include "tests/testing/test_certs.h"

namespace sallyport {
namespace {

using testing::MakeTestCertificate;
using testing::StatusIs;
using testing::TempDirectory;
using testing::TestCertificate;

// Signed again, which encodes it again.
TestCertificate EndingIn(long seconds) {
  TestCertificate made = MakeTestCertificate(nullptr, {});
  X509_gmtime_adj(X509_getm_notAfter(made.certificate.get()), seconds);
  X509_sign(made.certificate.get(), made.key.get(), EVP_sha256());
  return made;
}

double Expiry() {
  (void)SerializeMetrics();
  return MetricGauge("sallyport_tls_certificate_expiry_timestamp_seconds", "", {{"use", "test"}}).Value();
}

TEST(CertificateExpiryTest, EarliestOfAChainCounts) {
  const TestCertificate leaf = EndingIn(7200);
  const TestCertificate authority = EndingIn(600);

  const absl::StatusOr<absl::Time> end = EarliestExpiry(leaf.CertificatePem() + authority.CertificatePem());

  ASSERT_TRUE(end.ok());
  EXPECT_EQ(*end, *EarliestExpiry(authority.CertificatePem()));
  EXPECT_LT(*end, *EarliestExpiry(leaf.CertificatePem()));
}

TEST(CertificateExpiryTest, TextWithoutACertificateIsAnError) {
  EXPECT_THAT(EarliestExpiry("not a certificate"), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(CertificateExpiryTest, MetricFollowsTheFile) {
  const TempDirectory directory;
  const CertificateExpiry expiry(directory.File("tls.crt"), "test");
  EXPECT_EQ(Expiry(), 0) << "there is no file yet";

  const TestCertificate first = EndingIn(3600);
  directory.Write("tls.crt", first.CertificatePem());
  EXPECT_EQ(Expiry(), static_cast<double>(absl::ToUnixSeconds(*EarliestExpiry(first.CertificatePem()))));

  const TestCertificate second = EndingIn(86'400);
  directory.Write("tls.crt", second.CertificatePem());
  EXPECT_EQ(Expiry(), static_cast<double>(absl::ToUnixSeconds(*EarliestExpiry(second.CertificatePem()))));

  directory.Write("tls.crt", "");
  EXPECT_EQ(Expiry(), 0);
}

}  // namespace
}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "services/registry/tls_validation.h"

#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "services/registry/validation_testing.h"
#include "tests/testing/test_certs.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::MakeTestCertificate;
using ::sallyport::testing::TestCertificate;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class TlsValidationTest : public ValidationTest {
 protected:
  TlsValidationTest() { context_.now = absl::Now(); }

  std::vector<std::string> RefusedBundle(const std::string& pem) {
    v1::McpServer server = Server();
    server.mutable_policy()->mutable_tls()->set_ca_bundle(pem);
    return Refused(server);
  }
  std::vector<std::string> RefusedIdentity(const std::string& pem) {
    v1::McpServer server = Server();
    server.mutable_policy()->mutable_tls()->mutable_client_cert()->set_value(pem);
    std::vector<std::string> refused = Refused(server);
    EXPECT_THAT(Messages(), Not(HasSubstr("PRIVATE KEY-----")));
    return refused;
  }
  static std::string Pem(EVP_PKEY* key, const char* passphrase = nullptr) {
    const BioPtr bio(BIO_new(BIO_s_mem()));
    PEM_write_bio_PrivateKey(bio.get(), key, passphrase == nullptr ? nullptr : EVP_aes_256_cbc(), nullptr, 0, nullptr,
                             const_cast<char*>(passphrase));
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio.get(), &data);
    return std::string(data, static_cast<size_t>(size));
  }
  // A self-signed one over this key.
  static std::string SelfSigned(EVP_PKEY* key) {
    const TestCertificate made = MakeTestCertificate(nullptr, {});
    X509_set_pubkey(made.certificate.get(), key);
    const bool own_digest = EVP_PKEY_get_base_id(key) == EVP_PKEY_ED25519;
    EXPECT_GT(X509_sign(made.certificate.get(), key, own_digest ? nullptr : EVP_sha256()), 0);
    return made.CertificatePem() + Pem(key);
  }

  const TestCertificate authority_ = MakeTestCertificate(nullptr, {});
  const TestCertificate client_ = MakeTestCertificate(&authority_, {"spiffe://a/b"});
};

TEST_F(TlsValidationTest, AuthoritiesAndAnIdentityAreFineAsTheyAreUsuallyWritten) {
  EXPECT_THAT(RefusedBundle("# the house authority\n" + authority_.CertificatePem() + "\n" + client_.CertificatePem()),
              IsEmpty());
  EXPECT_THAT(Warned(), IsEmpty());
  EXPECT_THAT(RefusedIdentity(client_.CertificatePem() + authority_.CertificatePem() + client_.KeyPem()), IsEmpty());
  EXPECT_THAT(RefusedIdentity(client_.KeyPem() + client_.CertificatePem()), IsEmpty()) << "in this order, too";
  EXPECT_THAT(Warned(), IsEmpty());
}

TEST_F(TlsValidationTest, WhatIsNoBundleIsRefusedAndTheReasonNamed) {
  std::string damaged = authority_.CertificatePem();
  damaged[damaged.size() / 2] = '*';
  const std::string cut = authority_.CertificatePem().substr(0, 200);
  std::string empty_block = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
  for (const auto& [pem, reason] : std::vector<std::pair<std::string, std::string>>{
           {"/etc/ssl/ca.pem", "no certificate"},
           {damaged, "damaged"},
           {authority_.CertificatePem() + cut, "cut off"},
           {authority_.CertificatePem() + empty_block, "certificate 2 of 2 cannot be read"},
           {authority_.CertificatePem() + authority_.KeyPem(), "private key"},
           {"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "something else"},
           {std::string(300 << 10, 'x'), "256 KiB"}}) {
    EXPECT_THAT(RefusedBundle(pem), ElementsAre("policy.tls.caBundle")) << reason;
    EXPECT_THAT(Messages(), HasSubstr(reason));
  }
}

TEST_F(TlsValidationTest, WhatIsNoIdentityIsRefusedAndTheReasonNamed) {
  const std::string leaf = client_.CertificatePem();
  for (const auto& [pem, reason] : std::vector<std::pair<std::string, std::string>>{
           {"nothing", "no certificate"},
           {leaf, "no private key"},
           {client_.KeyPem(), "no certificate"},
           {authority_.CertificatePem() + leaf + client_.KeyPem(), "put the client's own first"},
           {leaf + authority_.KeyPem(), "does not belong"},
           {leaf + client_.KeyPem() + client_.KeyPem(), "more than one"},
           {leaf + Pem(client_.key.get(), "word"), "encrypted"},
           {leaf + client_.KeyPem().substr(0, 60), "cut off"},
           {leaf + client_.KeyPem() + "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "something else"}}) {
    EXPECT_THAT(RefusedIdentity(pem), ElementsAre("policy.tls.clientCert")) << reason;
    EXPECT_THAT(Messages(), HasSubstr(reason));
  }
}

TEST_F(TlsValidationTest, KeysMustBeStrongEnough) {
  const EvpPkeyPtr weak(EVP_RSA_gen(1024));
  const EvpPkeyPtr rsa(EVP_RSA_gen(2048));
  const EvpPkeyPtr other_curve(EVP_EC_gen("secp256k1"));
  const EvpPkeyPtr large(EVP_EC_gen("P-384"));
  const EvpPkeyPtr edwards(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  for (EVP_PKEY* good : {rsa.get(), large.get(), edwards.get()})
    EXPECT_THAT(RefusedIdentity(SelfSigned(good)), IsEmpty());
  EXPECT_THAT(RefusedIdentity(SelfSigned(weak.get())), ElementsAre("policy.tls.clientCert"));
  EXPECT_THAT(Messages(), HasSubstr("1024 bits"));
  EXPECT_THAT(RefusedIdentity(SelfSigned(other_curve.get())), ElementsAre("policy.tls.clientCert"));
}

TEST_F(TlsValidationTest, AnExpiredCertificateIsSavedWithAWarning) {
  context_.now = absl::Now() + absl::Hours(2);
  EXPECT_THAT(RefusedIdentity(client_.CertificatePem() + client_.KeyPem()), IsEmpty());
  EXPECT_THAT(Warned(), ElementsAre("policy.tls.clientCert"));
  EXPECT_THAT(RefusedBundle(authority_.CertificatePem()), IsEmpty());
  EXPECT_THAT(Warned(), ElementsAre("policy.tls.caBundle"));
  context_.now = absl::Now() - absl::Hours(2);
  EXPECT_THAT(RefusedIdentity(client_.CertificatePem() + client_.KeyPem()), IsEmpty());
  EXPECT_THAT(Warned(), ElementsAre("policy.tls.clientCert"));
}

TEST_F(TlsValidationTest, GoesWithHttpsOnly) {
  EXPECT_THAT(Refused(Server(R"({"upstreamUrl": "http://10.0.0.1/mcp", "policy": {"tls": {}}})")),
              ElementsAre("policy.tls"));
  v1::McpServer server = Server(R"({"secretUpstreamUrl": {"value": "http://10.0.0.1/mcp"}, "policy": {"tls": {}}})");
  server.clear_upstream_url();
  EXPECT_THAT(Refused(server), ElementsAre("policy.tls"));
  EXPECT_THAT(Messages(), HasSubstr("secretUpstreamUrl"));
}

TEST_F(TlsValidationTest, ASecretAddressIsCheckedLikeAnyOtherAndNeverQuoted) {
  for (const char* bad :
       {"npx -y canary", "ftp://hooks.example/canary", "https://me:pw@hooks.example/canary",
        "https://hooks.example/canary#x", "http://93.184.216.34/canary", "http://169.254.169.254/canary",
        "https://192.168.1.1/canary", "https://hooks.example:25/canary", "https://hooks.example/a/../canary"}) {
    v1::McpServer server = Server();
    server.clear_upstream_url();
    server.mutable_secret_upstream_url()->set_value(bad);
    EXPECT_THAT(Refused(server), ElementsAre("secretUpstreamUrl")) << bad;
    EXPECT_THAT(Messages(), Not(HasSubstr("canary")));
  }
  v1::McpServer server = Server();
  server.clear_upstream_url();
  server.mutable_secret_upstream_url()->set_value("https://hooks.example/canary?key=canary");
  EXPECT_THAT(Refused(server), IsEmpty());
  EXPECT_THAT(Warned(), IsEmpty()) << "nobody can read its query";
}

}  // namespace
}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
// RSA keys without "alg" (RFC 7517 section 4.4), as several providers publish them: the same algorithms wherever the
// keys come from.
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/crypto/openssl.h"
#include "common/text/base64url.h"
#include "services/authn/authn_testing.h"
#include "services/authn/connectors.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;

const absl::Time kNow = absl::FromUnixSeconds(1'800'000'000);
constexpr char kIssuer[] = "https://idp.example";

struct Algorithm {
  const char* name;
  const char* digest;
  bool pss;
};

class RsaKeysTest : public ::testing::TestWithParam<Algorithm> {
 protected:
  RsaKeysTest() : pkey_(EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", size_t{2048})), jwks_(fetcher_) {}

  std::string Number(const char* param) const {
    BIGNUM* number = nullptr;
    EXPECT_EQ(EVP_PKEY_get_bn_param(pkey_.get(), param, &number), 1);
    BignumPtr owner(number);
    std::string bytes(static_cast<size_t>(BN_num_bytes(number)), '\0');
    BN_bn2bin(number, reinterpret_cast<unsigned char*>(bytes.data()));
    return Base64UrlEncode(bytes);
  }
  std::string Jwks() const {
    return absl::StrCat(R"({"keys":[{"kty":"RSA","kid":"k","use":"sig","e":")", Number(OSSL_PKEY_PARAM_RSA_E),
                        R"(","n":")", Number(OSSL_PKEY_PARAM_RSA_N), R"("}]})");
  }
  std::string Token() const {
    const std::string claims = DumpJson(TestIssuer(kIssuer).Claims(kNow));
    const std::string input = absl::StrCat(
        Base64UrlEncode(absl::StrCat(R"({"kid":"k","alg":")", GetParam().name, "\"}")), ".", Base64UrlEncode(claims));
    EvpMdCtxPtr context(EVP_MD_CTX_new());
    EVP_PKEY_CTX* pkey_context = nullptr;
    EXPECT_EQ(
        EVP_DigestSignInit_ex(context.get(), &pkey_context, GetParam().digest, nullptr, nullptr, pkey_.get(), nullptr),
        1);
    if (GetParam().pss) {
      EVP_PKEY_CTX_set_rsa_padding(pkey_context, RSA_PKCS1_PSS_PADDING);
      EVP_PKEY_CTX_set_rsa_pss_saltlen(pkey_context, RSA_PSS_SALTLEN_DIGEST);
    }
    std::string signature(512, '\0');
    size_t size = signature.size();
    EXPECT_EQ(EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size, Bytes8(input),
                             input.size()),
              1);
    signature.resize(size);
    return absl::StrCat(input, ".", Base64UrlEncode(signature));
  }
  absl::Status ByConnector(const config::v1::Connector& config) {
    google::protobuf::RepeatedPtrField<config::v1::Connector> configs;
    *configs.Add() = config;
    auto connectors = Connectors::Create(configs, jwks_, vault_);
    EXPECT_THAT(connectors, IsOk());
    return (*connectors)->Find("corp")->VerifyPresented(Token(), {{"api://mcp"}, {}}, kNow).status();
  }
  static config::v1::Connector Corp() {
    config::v1::Connector config;
    config.set_id("corp");
    config.mutable_oidc()->set_issuer(kIssuer);
    return config;
  }
  static JwtValidator Validator() {
    return *JwtValidator::Builder()
                .ExpectIssuer(kIssuer)
                .ExpectAudience("api://mcp")
                .IgnoreType()
                .RequireSubject()
                .Build();
  }

  EvpPkeyPtr pkey_;
  FakeFetcher fetcher_;
  JwksCache jwks_;
  FakeVaultClient vault_;
};

TEST_P(RsaKeysTest, AConnectorTakesThem) {
  fetcher_.Serve(absl::StrCat(kIssuer, "/.well-known/openid-configuration"), TestIssuer(kIssuer).Discovery());
  fetcher_.Serve(absl::StrCat(kIssuer, "/jwks"), Jwks());
  EXPECT_THAT(ByConnector(Corp()), IsOk());
}

TEST_P(RsaKeysTest, AConnectorWithAFileOfKeysTakesThem) {
  TempDirectory directory;
  ASSERT_THAT(WriteFileAtomic(directory.path() + "/jwks", Jwks()), IsOk());
  config::v1::Connector config = Corp();
  config.mutable_oidc()->set_jwks_file(directory.path() + "/jwks");
  EXPECT_THAT(ByConnector(config), IsOk());
}

TEST_P(RsaKeysTest, JwksUrlTakesThem) {
  fetcher_.Serve("https://keys.example/jwks", Jwks());
  EXPECT_THAT(jwks_.Verify(Token(), "https://keys.example/jwks", Validator(), kNow), IsOk());
}

TEST_P(RsaKeysTest, JwksJsonTakesThem) {
  ASSERT_OK_AND_ASSIGN(const JwkSet keys, JwkSet::Parse(Jwks()));
  EXPECT_THAT(VerifyJwt(Token(), keys, Validator(), kNow), IsOk());
}

INSTANTIATE_TEST_SUITE_P(Algorithms, RsaKeysTest,
                         ::testing::Values(Algorithm{"RS256", "SHA256", false}, Algorithm{"RS384", "SHA384", false},
                                           Algorithm{"RS512", "SHA512", false}, Algorithm{"PS256", "SHA256", true},
                                           Algorithm{"PS384", "SHA384", true}, Algorithm{"PS512", "SHA512", true}),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace sallyport::authn

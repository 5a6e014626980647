// SPDX-License-Identifier: Apache-2.0
#include "common/jose/assertion_key.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>

#include "common/crypto/openssl.h"
#include "common/jose/jws.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;

EvpPkeyPtr Key(const char* type, const char* curve) {
  return EvpPkeyPtr(EVP_PKEY_Q_keygen(nullptr, nullptr, type, curve));
}
EvpPkeyPtr RsaKey(size_t bits) { return EvpPkeyPtr(EVP_PKEY_Q_keygen(nullptr, nullptr, "RSA", bits)); }

std::string Pem(EVP_PKEY* key, const char* passphrase = nullptr) {
  BioPtr bio(BIO_new(BIO_s_mem()));
  EXPECT_EQ(PEM_write_bio_PKCS8PrivateKey(bio.get(), key, passphrase == nullptr ? nullptr : EVP_aes_256_cbc(),
                                          passphrase, passphrase == nullptr ? 0 : 4, nullptr, nullptr),
            1);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}
std::string TraditionalPem(EVP_PKEY* key) {
  BioPtr bio(BIO_new(BIO_s_mem()));
  EXPECT_EQ(PEM_write_bio_PrivateKey_traditional(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr), 1);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return std::string(text, static_cast<size_t>(size));
}

void ExpectSigns(const std::string& pem, const std::string& algorithm) {
  ASSERT_OK_AND_ASSIGN(const AssertionKey key, AssertionKey::FromPem(Secret(pem)));
  EXPECT_THAT(key.public_key().ToJwk(), HasSubstr("\"alg\":\"" + algorithm + "\""));
  EXPECT_EQ(key.public_key().kid(), key.public_key().Thumbprint());
  ASSERT_OK_AND_ASSIGN(const std::string jws, key.SignJws(R"({"iss":"me"})", "JWT"));
  // As a provider does that was given the JWK.
  EXPECT_EQ(key.PublicJwk().rfind(R"({"kty":)", 0), 0U);
  ASSERT_OK_AND_ASSIGN(const PublicKey registered, PublicKey::FromJwk(key.PublicJwk()));
  EXPECT_EQ(registered.ToJwk(), key.public_key().ToJwk());
  ASSERT_OK_AND_ASSIGN(const Jws verified, VerifyJws(jws, JwkSet({registered})));
  EXPECT_EQ(verified.payload, R"({"iss":"me"})");
  EXPECT_EQ(verified.typ, "jwt");
  EXPECT_EQ(verified.kid, key.public_key().kid());
  ASSERT_OK_AND_ASSIGN(const std::string renamed, key.SignJws("{}", "JWT", "kid-7"));
  ASSERT_OK_AND_ASSIGN(const Jws parsed, ParseJws(renamed));
  EXPECT_EQ(parsed.kid, "kid-7");
}

TEST(AssertionKeyTest, RsaAndP256SignInEveryUsualForm) {
  const EvpPkeyPtr rsa = RsaKey(2048);
  const EvpPkeyPtr ec = Key("EC", "P-256");
  ExpectSigns(Pem(rsa.get()), "RS256");
  ExpectSigns(TraditionalPem(rsa.get()), "RS256");
  ExpectSigns(Pem(ec.get()), "ES256");
  ExpectSigns(TraditionalPem(ec.get()), "ES256");
}

TEST(AssertionKeyTest, AMadeKeyIsAnother) {
  ASSERT_OK_AND_ASSIGN(const Secret first, AssertionKey::GeneratePem());
  ASSERT_OK_AND_ASSIGN(const Secret second, AssertionKey::GeneratePem());
  EXPECT_NE(first.Expose(), second.Expose());
  ExpectSigns(std::string(first.Expose()), "ES256");
}

TEST(AssertionKeyTest, WeakEncryptedAndForeignKeysAreRefusedWithoutQuotingThem) {
  const EvpPkeyPtr rsa = RsaKey(2048);
  std::string cut = Pem(rsa.get());
  cut.resize(cut.size() / 2);
  for (const std::string& pem : {Pem(RsaKey(1024).get()), Pem(Key("EC", "P-384").get()), Pem(rsa.get(), "word"), cut,
                                 std::string("hunter2"), std::string()}) {
    const auto key = AssertionKey::FromPem(Secret(pem));
    EXPECT_THAT(key, StatusIs(absl::StatusCode::kInvalidArgument));
    EXPECT_THAT(std::string(key.status().message()), ::testing::Not(HasSubstr("hunter2")));
  }
}

}  // namespace
}  // namespace sallyport

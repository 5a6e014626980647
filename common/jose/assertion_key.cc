// SPDX-License-Identifier: Apache-2.0
#include "common/jose/assertion_key.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include <openssl/pem.h>

#include "common/crypto/openssl.h"
#include "common/jose/jws.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "common/text/json.h"

namespace sallyport {
namespace {

absl::Status Unusable() {
  return absl::InvalidArgumentError("is no private key in PEM: RSA of at least 2048 bits, or P-256, unencrypted");
}

// Never asks a terminal for the passphrase of an encrypted key.
int NoPassphrase(char* /*buffer*/, int /*size*/, int /*writing*/, void* /*context*/) { return -1; }

EvpPkeyPtr ReadPem(absl::string_view pem) {
  BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  EvpPkeyPtr pkey(bio == nullptr ? nullptr : PEM_read_bio_PrivateKey(bio.get(), nullptr, NoPassphrase, nullptr));
  ERR_clear_error();
  return pkey;
}

// Base64url of a big-endian number without leading zeros (RFC 7518 section 6.3.1).
absl::StatusOr<std::string> Number(const EVP_PKEY* pkey, const char* parameter) {
  BIGNUM* number = nullptr;
  if (EVP_PKEY_get_bn_param(pkey, parameter, &number) != 1) return OpenSslError("exporting a public key");
  const BignumPtr owner(number);
  std::string bytes(static_cast<size_t>(BN_num_bytes(number)), '\0');
  BN_bn2bin(number, reinterpret_cast<unsigned char*>(bytes.data()));
  return Base64UrlEncode(bytes);
}

// Made the way a receiver makes it: from the JWK, which refuses weak keys.
absl::StatusOr<PublicKey> RsaPublicHalf(const EVP_PKEY* pkey) {
  ASSIGN_OR_RETURN(const std::string n, Number(pkey, OSSL_PKEY_PARAM_RSA_N));
  ASSIGN_OR_RETURN(const std::string e, Number(pkey, OSSL_PKEY_PARAM_RSA_E));
  const std::string jwk = absl::StrCat(R"({"kty":"RSA","alg":"RS256","n":")", n, R"(","e":")", e, "\"");
  ASSIGN_OR_RETURN(const PublicKey nameless, PublicKey::FromJwk(absl::StrCat(jwk, "}")));
  return PublicKey::FromJwk(absl::StrCat(jwk, ",\"kid\":\"", nameless.Thumbprint(), "\"}"));
}

absl::StatusOr<Secret> ToPkcs8Der(EVP_PKEY* pkey) {
  Pkcs8Ptr pkcs8(EVP_PKEY2PKCS8(pkey));
  unsigned char* der = nullptr;
  const int size = pkcs8 == nullptr ? -1 : i2d_PKCS8_PRIV_KEY_INFO(pkcs8.get(), &der);
  if (size <= 0) return OpenSslError("exporting a private key");
  Secret secret = Secret::Copy({reinterpret_cast<const char*>(der), static_cast<size_t>(size)});
  OPENSSL_clear_free(der, static_cast<size_t>(size));
  return secret;
}

bool IsConsistent(EVP_PKEY* pkey) {
  EvpPkeyCtxPtr check(EVP_PKEY_CTX_new_from_pkey(nullptr, pkey, nullptr));
  const bool good = check != nullptr && EVP_PKEY_check(check.get()) == 1;
  ERR_clear_error();
  return good;
}

}  // namespace

struct AssertionKey::Rsa {
  EvpPkeyPtr pkey;
};

AssertionKey::AssertionKey(std::unique_ptr<PrivateKey> p256, std::unique_ptr<Rsa> rsa, PublicKey public_key)
    : p256_(std::move(p256)), rsa_(std::move(rsa)), public_key_(std::move(public_key)) {}
AssertionKey::AssertionKey(AssertionKey&&) noexcept = default;
AssertionKey& AssertionKey::operator=(AssertionKey&&) noexcept = default;
AssertionKey::~AssertionKey() = default;

absl::StatusOr<AssertionKey> AssertionKey::FromPem(const Secret& pem) {
  EvpPkeyPtr pkey = ReadPem(pem.Expose());
  if (pkey == nullptr) return Unusable();
  if (EVP_PKEY_is_a(pkey.get(), "RSA") == 1) {
    absl::StatusOr<PublicKey> public_key = RsaPublicHalf(pkey.get());
    if (!public_key.ok() || !IsConsistent(pkey.get())) return Unusable();
    auto rsa = std::make_unique<Rsa>();
    rsa->pkey = std::move(pkey);
    return AssertionKey(nullptr, std::move(rsa), *std::move(public_key));
  }
  ASSIGN_OR_RETURN(const Secret der, ToPkcs8Der(pkey.get()));
  absl::StatusOr<PrivateKey> p256 = PrivateKey::FromPkcs8(der);
  if (!p256.ok()) return Unusable();
  PublicKey public_key = p256->public_key();
  return AssertionKey(std::make_unique<PrivateKey>(*std::move(p256)), nullptr, std::move(public_key));
}

absl::StatusOr<Secret> AssertionKey::GeneratePem() {
  EvpPkeyPtr pkey(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
  BioPtr bio(BIO_new(BIO_s_secmem()));
  if (pkey == nullptr || bio == nullptr ||
      PEM_write_bio_PKCS8PrivateKey(bio.get(), pkey.get(), nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return OpenSslError("generating a key");
  }
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return Secret::Copy({text, static_cast<size_t>(size)});
}

std::string AssertionKey::PublicJwk() const {
  const nlohmann::json jwk = nlohmann::json::parse(public_key_.ToJwk(), nullptr, false);
  nlohmann::ordered_json ordered;
  for (const char* member : {"kty", "crv", "x", "y", "n", "e", "use", "alg", "kid"}) {
    if (const nlohmann::json* value = JsonMember(jwk, member); value != nullptr) ordered[member] = *value;
  }
  return ordered.dump();
}

absl::StatusOr<std::string> AssertionKey::SignJws(absl::string_view payload, absl::string_view typ,
                                                  absl::string_view kid) const {
  if (p256_ != nullptr) return sallyport::SignJws(payload, typ, *p256_, kid);
  const std::string id = kid.empty() ? public_key_.kid() : std::string(kid);
  const nlohmann::json header = {{"alg", "RS256"}, {"kid", id}, {"typ", std::string(typ)}};
  const std::string input = absl::StrCat(Base64UrlEncode(DumpJson(header)), ".", Base64UrlEncode(payload));
  EvpMdCtxPtr context(EVP_MD_CTX_new());
  size_t size = 0;
  if (context == nullptr ||
      EVP_DigestSignInit_ex(context.get(), nullptr, "SHA256", nullptr, nullptr, rsa_->pkey.get(), nullptr) != 1 ||
      EVP_DigestSign(context.get(), nullptr, &size, Bytes8(input), input.size()) != 1) {
    return OpenSslError("signing");
  }
  std::string signature(size, '\0');
  if (EVP_DigestSign(context.get(), reinterpret_cast<unsigned char*>(signature.data()), &size, Bytes8(input),
                     input.size()) != 1) {
    return OpenSslError("signing");
  }
  signature.resize(size);
  return absl::StrCat(input, ".", Base64UrlEncode(signature));
}

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/crypto/openssl.h"
#include "common/jose/jwk.h"
#include "common/jose/jwk_data.h"
#include "common/jose/low_s.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"

namespace sallyport {
namespace {

constexpr size_t kCoordinate = 32;

// PublicKey of the pair, made the way a receiver makes it: from the JWK.
absl::StatusOr<PublicKey> PublicHalf(const EVP_PKEY* pkey) {
  BIGNUM* x = nullptr;
  BIGNUM* y = nullptr;
  const bool got = EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_EC_PUB_X, &x) == 1 &&
                   EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_EC_PUB_Y, &y) == 1;
  BignumPtr x_owner(x);
  BignumPtr y_owner(y);
  unsigned char point[2 * kCoordinate];
  if (!got || BN_bn2binpad(x, point, kCoordinate) != static_cast<int>(kCoordinate) ||
      BN_bn2binpad(y, point + kCoordinate, kCoordinate) != static_cast<int>(kCoordinate)) {
    return OpenSslError("exporting a public key");
  }
  const absl::string_view bytes(reinterpret_cast<const char*>(point), sizeof(point));
  const std::string jwk = absl::StrCat("{\"kty\":\"EC\",\"crv\":\"P-256\",\"alg\":\"ES256\",\"x\":\"",
                                       Base64UrlEncode(bytes.substr(0, kCoordinate)), "\",\"y\":\"",
                                       Base64UrlEncode(bytes.substr(kCoordinate)), "\"");
  ASSIGN_OR_RETURN(const PublicKey nameless, PublicKey::FromJwk(absl::StrCat(jwk, "}")));
  return PublicKey::FromJwk(absl::StrCat(jwk, ",\"kid\":\"", nameless.Thumbprint(), "\"}"));
}

bool IsP256(const EVP_PKEY* pkey) {
  char group[64];
  size_t size = 0;
  return EVP_PKEY_is_a(pkey, "EC") == 1 && EVP_PKEY_get_group_name(pkey, group, sizeof(group), &size) == 1 &&
         absl::string_view(group, size) == "prime256v1";
}

}  // namespace

PrivateKey::PrivateKey(std::unique_ptr<Data> data, PublicKey public_key)
    : data_(std::move(data)), public_key_(std::move(public_key)) {}
PrivateKey::PrivateKey(PrivateKey&&) noexcept = default;
PrivateKey& PrivateKey::operator=(PrivateKey&&) noexcept = default;
PrivateKey::~PrivateKey() = default;

absl::StatusOr<PrivateKey> PrivateKey::GenerateP256() {
  auto data = std::make_unique<Data>();
  data->pkey.reset(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
  if (data->pkey == nullptr) return OpenSslError("generating a key");
  ASSIGN_OR_RETURN(PublicKey public_key, PublicHalf(data->pkey.get()));
  return PrivateKey(std::move(data), std::move(public_key));
}

absl::StatusOr<PrivateKey> PrivateKey::FromPkcs8(const Secret& der) {
  const absl::Status failure = absl::InvalidArgumentError("not a P-256 private key in PKCS #8 form");
  const unsigned char* position = Bytes8(der.Expose());
  const unsigned char* const end = position + der.Expose().size();
  Pkcs8Ptr pkcs8(d2i_PKCS8_PRIV_KEY_INFO(nullptr, &position, static_cast<long>(der.Expose().size())));
  auto data = std::make_unique<Data>();
  if (pkcs8 != nullptr && position == end) data->pkey.reset(EVP_PKCS82PKEY_ex(pkcs8.get(), nullptr, nullptr));
  ERR_clear_error();
  if (data->pkey == nullptr || !IsP256(data->pkey.get())) return failure;
  EvpPkeyCtxPtr check(EVP_PKEY_CTX_new_from_pkey(nullptr, data->pkey.get(), nullptr));
  if (check == nullptr || EVP_PKEY_check(check.get()) != 1) {
    ERR_clear_error();
    return failure;
  }
  ASSIGN_OR_RETURN(PublicKey public_key, PublicHalf(data->pkey.get()));
  return PrivateKey(std::move(data), std::move(public_key));
}

Secret PrivateKey::ToPkcs8() const {
  Pkcs8Ptr pkcs8(EVP_PKEY2PKCS8(data_->pkey.get()));
  unsigned char* der = nullptr;
  const int size = pkcs8 == nullptr ? -1 : i2d_PKCS8_PRIV_KEY_INFO(pkcs8.get(), &der);
  CheckCrypto(size > 0, "exporting a private key");
  Secret secret = Secret::Copy({reinterpret_cast<const char*>(der), static_cast<size_t>(size)});
  OPENSSL_clear_free(der, static_cast<size_t>(size));
  return secret;
}

absl::StatusOr<std::string> PrivateKey::Sign(absl::string_view signing_input) const {
  EvpMdCtxPtr context(EVP_MD_CTX_new());
  unsigned char der[128];
  size_t size = sizeof(der);
  if (context == nullptr ||
      EVP_DigestSignInit_ex(context.get(), nullptr, "SHA256", nullptr, nullptr, data_->pkey.get(), nullptr) != 1 ||
      EVP_DigestSign(context.get(), der, &size, Bytes8(signing_input), signing_input.size()) != 1) {
    return OpenSslError("signing");
  }
  const unsigned char* position = der;
  EcdsaSigPtr parsed(d2i_ECDSA_SIG(nullptr, &position, static_cast<long>(size)));
  std::string raw(2 * kCoordinate, '\0');
  auto* const out = reinterpret_cast<unsigned char*>(raw.data());
  if (parsed == nullptr || BN_bn2binpad(ECDSA_SIG_get0_r(parsed.get()), out, kCoordinate) < 0 ||
      BN_bn2binpad(ECDSA_SIG_get0_s(parsed.get()), out + kCoordinate, kCoordinate) < 0) {
    return OpenSslError("signing");
  }
  return WithLowS(std::move(raw));
}

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "common/crypto/crypto.h"

#include <climits>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/crypto/openssl.h"
#include "common/crypto/random.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"

namespace sallyport {
namespace {

constexpr int kScryptLogN = 15;
constexpr int kScryptR = 8;
constexpr int kScryptP = 1;
constexpr size_t kScryptSaltSize = 16;
constexpr size_t kScryptHashSize = 32;

std::string Digest(const EVP_MD* algorithm, absl::string_view data) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  CheckCrypto(EVP_Digest(data.data(), data.size(), digest, &size, algorithm, nullptr) == 1, "digest");
  return std::string(reinterpret_cast<const char*>(digest), size);
}

unsigned char* Mutable(absl::string_view bytes) {
  return const_cast<unsigned char*>(Bytes8(bytes));  // OSSL_PARAM takes no const, and only reads these.
}

Secret Hkdf(int mode, absl::string_view key, absl::string_view salt, absl::string_view info, size_t size) {
  EvpKdfCtxPtr context(EVP_KDF_CTX_new(GetAlgorithms().hkdf));
  CheckCrypto(context != nullptr && size > 0 && size <= 255 * kSha256Size, "hkdf context");
  char digest[] = "SHA256";
  std::vector<OSSL_PARAM> params = {
      OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, Mutable(key), key.size()),
  };
  if (!salt.empty()) {
    params.push_back(OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, Mutable(salt), salt.size()));
  }
  if (!info.empty()) {
    params.push_back(OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, Mutable(info), info.size()));
  }
  params.push_back(OSSL_PARAM_construct_end());
  std::string out(size, '\0');
  CheckCrypto(EVP_KDF_derive(context.get(), reinterpret_cast<unsigned char*>(out.data()), size, params.data()) == 1,
              "hkdf");
  return Secret(std::move(out));
}

EvpMacCtxPtr NewHmacSha256() {
  EvpMacCtxPtr context(EVP_MAC_CTX_new(GetAlgorithms().hmac));
  char digest[] = "SHA256";
  const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                               OSSL_PARAM_construct_end()};
  CheckCrypto(context != nullptr && EVP_MAC_CTX_set_params(context.get(), params) == 1, "hmac context");
  return context;
}

struct ScryptParams {
  int log_n = kScryptLogN;
  int r = kScryptR;
  int p = kScryptP;
};

std::string Scrypt(const Secret& password, absl::string_view salt, const ScryptParams& cost) {
  EvpKdfCtxPtr context(EVP_KDF_CTX_new(GetAlgorithms().scrypt));
  CheckCrypto(context != nullptr, "scrypt context");
  uint64_t n = uint64_t{1} << cost.log_n;
  uint32_t r = static_cast<uint32_t>(cost.r);
  uint32_t p = static_cast<uint32_t>(cost.p);
  uint64_t max_memory = 129 * n * r + (uint64_t{1} << 20);
  OSSL_PARAM params[] = {
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PASSWORD, Mutable(password.Expose()), password.Expose().size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, Mutable(salt), salt.size()),
      OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
      OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &r),
      OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &p),
      OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &max_memory),
      OSSL_PARAM_construct_end(),
  };
  std::string out(kScryptHashSize, '\0');
  CheckCrypto(EVP_KDF_derive(context.get(), reinterpret_cast<unsigned char*>(out.data()), out.size(), params) == 1,
              "scrypt");
  return out;
}

bool ParseCost(absl::string_view text, ScryptParams& cost) {
  const std::vector<std::string> parts = absl::StrSplit(text, ',');
  if (parts.size() != 3 || !absl::StartsWith(parts[0], "ln=") || !absl::StartsWith(parts[1], "r=") ||
      !absl::StartsWith(parts[2], "p=")) {
    return false;
  }
  return absl::SimpleAtoi(parts[0].substr(3), &cost.log_n) && absl::SimpleAtoi(parts[1].substr(2), &cost.r) &&
         absl::SimpleAtoi(parts[2].substr(2), &cost.p);
}

struct PasswordHash {
  ScryptParams cost;
  std::string salt;
  std::string hash;
};

absl::StatusOr<PasswordHash> ParsePasswordHash(absl::string_view encoded) {
  const absl::Status failure = absl::InvalidArgumentError("must be $scrypt$ln=…,r=…,p=…$salt$hash");
  const std::vector<std::string> parts = absl::StrSplit(encoded, '$');
  PasswordHash parsed;
  if (parts.size() != 5 || !parts[0].empty() || parts[1] != "scrypt" || !ParseCost(parts[2], parsed.cost)) {
    return failure;
  }
  const ScryptParams& cost = parsed.cost;
  if (cost.log_n < 10 || cost.log_n > 17 || cost.r < 1 || cost.r > 8 || cost.p < 1 || cost.p > 4) {
    return absl::InvalidArgumentError("must be scrypt with costs of ln=10 to 17, r=1 to 8, p=1 to 4");
  }
  absl::StatusOr<std::string> salt = Base64DecodeUnpadded(parts[3]);
  absl::StatusOr<std::string> hash = Base64DecodeUnpadded(parts[4]);
  if (!salt.ok() || !hash.ok() || salt->size() < 8 || salt->size() > 64 || hash->size() != kScryptHashSize) {
    return failure;
  }
  parsed.salt = *std::move(salt);
  parsed.hash = *std::move(hash);
  return parsed;
}

}  // namespace

std::string Sha256(absl::string_view data) { return Digest(GetAlgorithms().sha256, data); }
std::string Sha384(absl::string_view data) { return Digest(GetAlgorithms().sha384, data); }
std::string Sha512(absl::string_view data) { return Digest(GetAlgorithms().sha512, data); }

std::string HmacSha256(absl::string_view key, absl::string_view data) {
  // One a thread: to make one, and to look the digest up by its name, takes twice as long as a short message.
  thread_local const EvpMacCtxPtr context = NewHmacSha256();
  unsigned char out[kSha256Size];
  size_t size = 0;
  static constexpr unsigned char kNoKey[1] = {0};  // A null key would mean "keep the former one".
  CheckCrypto(EVP_MAC_init(context.get(), key.empty() ? kNoKey : Bytes8(key), key.size(), nullptr) == 1 &&
                  EVP_MAC_update(context.get(), Bytes8(data), data.size()) == 1 &&
                  EVP_MAC_final(context.get(), out, &size, sizeof(out)) == 1 && size == sizeof(out),
              "hmac");
  return std::string(reinterpret_cast<const char*>(out), size);
}

Secret HkdfExpandSha256(absl::string_view prk, absl::string_view info, size_t size) {
  // RFC 5869 section 2.3: a single block is one HMAC, which is made faster than a context for key derivation.
  if (size == kSha256Size) return Secret(HmacSha256(prk, absl::StrCat(info, absl::string_view("\x01", 1))));
  return Hkdf(EVP_KDF_HKDF_MODE_EXPAND_ONLY, prk, "", info, size);
}

Secret HkdfSha256(absl::string_view ikm, absl::string_view salt, absl::string_view info, size_t size) {
  return Hkdf(EVP_KDF_HKDF_MODE_EXTRACT_AND_EXPAND, ikm, salt, info, size);
}

absl::StatusOr<std::string> AeadSeal(const Secret& key, absl::string_view plaintext,
                                     absl::string_view associated_data) {
  if (key.Expose().size() != kAeadKeySize) return absl::InvalidArgumentError("key must be 32 bytes");
  if (plaintext.size() > INT_MAX / 2 || associated_data.size() > INT_MAX / 2) {
    return absl::InvalidArgumentError("too long to seal");
  }
  std::string sealed = RandomBytes(kAeadNonceSize);
  sealed.resize(kAeadOverhead + plaintext.size());
  auto* const out = reinterpret_cast<unsigned char*>(sealed.data());
  EvpCipherCtxPtr context(EVP_CIPHER_CTX_new());
  int size = 0;
  int rest = 0;
  const bool ok =
      context != nullptr &&
      EVP_EncryptInit_ex2(context.get(), GetAlgorithms().aes_256_gcm, Bytes8(key.Expose()), out, nullptr) == 1 &&
      EVP_EncryptUpdate(context.get(), nullptr, &size, Bytes8(associated_data),
                        static_cast<int>(associated_data.size())) == 1 &&
      EVP_EncryptUpdate(context.get(), out + kAeadNonceSize, &size, Bytes8(plaintext),
                        static_cast<int>(plaintext.size())) == 1 &&
      EVP_EncryptFinal_ex(context.get(), out + kAeadNonceSize + plaintext.size(), &rest) == 1 &&
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_GET_TAG, static_cast<int>(kAeadTagSize),
                          out + kAeadNonceSize + plaintext.size()) == 1;
  if (!ok) return OpenSslError("sealing");
  return sealed;
}

absl::StatusOr<Secret> AeadOpen(const Secret& key, absl::string_view sealed, absl::string_view associated_data) {
  if (key.Expose().size() != kAeadKeySize) return absl::InvalidArgumentError("key must be 32 bytes");
  const absl::Status failure = absl::DataLossError("cannot open");
  if (sealed.size() < kAeadOverhead || sealed.size() > INT_MAX / 2 || associated_data.size() > INT_MAX / 2) {
    return failure;
  }
  const absl::string_view ciphertext = sealed.substr(kAeadNonceSize, sealed.size() - kAeadOverhead);
  std::string tag(sealed.substr(sealed.size() - kAeadTagSize));
  std::string plain(ciphertext.size(), '\0');
  auto* const out = reinterpret_cast<unsigned char*>(plain.data());
  EvpCipherCtxPtr context(EVP_CIPHER_CTX_new());
  int size = 0;
  int rest = 0;
  const bool ok =
      context != nullptr &&
      EVP_DecryptInit_ex2(context.get(), GetAlgorithms().aes_256_gcm, Bytes8(key.Expose()), Bytes8(sealed), nullptr) ==
          1 &&
      EVP_DecryptUpdate(context.get(), nullptr, &size, Bytes8(associated_data),
                        static_cast<int>(associated_data.size())) == 1 &&
      EVP_DecryptUpdate(context.get(), out, &size, Bytes8(ciphertext), static_cast<int>(ciphertext.size())) == 1 &&
      EVP_CIPHER_CTX_ctrl(context.get(), EVP_CTRL_AEAD_SET_TAG, static_cast<int>(kAeadTagSize), tag.data()) == 1 &&
      EVP_DecryptFinal_ex(context.get(), out + ciphertext.size(), &rest) == 1;
  Secret result(std::move(plain));  // Owned before it is judged, so that it is wiped either way.
  if (!ok) {
    ERR_clear_error();
    return failure;
  }
  return result;
}

bool ConstantTimeEquals(absl::string_view a, absl::string_view b) {
  return a.size() == b.size() && (a.empty() || CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0);
}

std::string HashPassword(const Secret& password) {
  const std::string salt = RandomBytes(kScryptSaltSize);
  return absl::StrCat("$scrypt$ln=", kScryptLogN, ",r=", kScryptR, ",p=", kScryptP, "$", Base64EncodeUnpadded(salt),
                      "$", Base64EncodeUnpadded(Scrypt(password, salt, ScryptParams{})));
}

absl::Status CheckPasswordHash(absl::string_view encoded) { return ParsePasswordHash(encoded).status(); }

absl::StatusOr<bool> VerifyPassword(const Secret& password, absl::string_view encoded) {
  ASSIGN_OR_RETURN(const PasswordHash parsed, ParsePasswordHash(encoded));
  return ConstantTimeEquals(Scrypt(password, parsed.salt, parsed.cost), parsed.hash);
}

}  // namespace sallyport

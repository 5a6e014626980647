// SPDX-License-Identifier: Apache-2.0
#include "common/crypto/openssl.h"

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"

namespace sallyport {
namespace {

Algorithms FetchAll() {
  Algorithms algorithms{
      .sha256 = EVP_MD_fetch(nullptr, "SHA256", nullptr),
      .sha384 = EVP_MD_fetch(nullptr, "SHA384", nullptr),
      .sha512 = EVP_MD_fetch(nullptr, "SHA512", nullptr),
      .aes_256_gcm = EVP_CIPHER_fetch(nullptr, "AES-256-GCM", nullptr),
      .hmac = EVP_MAC_fetch(nullptr, "HMAC", nullptr),
      .hkdf = EVP_KDF_fetch(nullptr, "HKDF", nullptr),
      .scrypt = EVP_KDF_fetch(nullptr, "SCRYPT", nullptr),
  };
  CheckCrypto(algorithms.sha256 != nullptr && algorithms.sha384 != nullptr && algorithms.sha512 != nullptr &&
                  algorithms.aes_256_gcm != nullptr && algorithms.hmac != nullptr && algorithms.hkdf != nullptr &&
                  algorithms.scrypt != nullptr,
              "fetching algorithms");
  return algorithms;
}

}  // namespace

const Algorithms& GetAlgorithms() {
  static const Algorithms algorithms = FetchAll();  // Never freed: used until the last thread ends.
  return algorithms;
}

absl::Status OpenSslError(absl::string_view what) {
  ERR_clear_error();
  return absl::InternalError(absl::StrCat(what, " failed"));
}

void CheckCrypto(bool ok, const char* what) {
  if (ok) return;
  std::fprintf(stderr, "sallyport: cryptographic library failed: %s\n", what);
  std::abort();
}

}  // namespace sallyport

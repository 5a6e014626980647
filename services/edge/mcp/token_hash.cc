// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/token_hash.h"

#include "common/crypto/random.h"
#include "common/secret.h"
#include "common/text/string_view.h"

namespace sallyport::edge {
namespace {

constexpr size_t kKeyBytes = 16;

EVP_MAC* SipHash() {
  static EVP_MAC* const mac = EVP_MAC_fetch(nullptr, "SIPHASH", nullptr);
  return mac;
}

const Secret& ProcessKey() {
  static const Secret* const key = new Secret(RandomSecret(kKeyBytes));
  return *key;
}

const unsigned char* Bytes(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

}  // namespace

TokenHash::TokenHash() {
  CheckCrypto(SipHash() != nullptr, "SipHash");
  context_.reset(EVP_MAC_CTX_new(SipHash()));
  size_t size = sizeof(Value);
  const OSSL_PARAM params[] = {OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &size), OSSL_PARAM_construct_end()};
  CheckCrypto(context_ != nullptr && EVP_MAC_CTX_set_params(context_.get(), params) == 1, "SipHash");
}

TokenHash::Value TokenHash::Of(std::string_view token) {
  Value value;
  size_t size = 0;
  const absl::string_view key = ProcessKey().Expose();
  CheckCrypto(
      EVP_MAC_init(context_.get(), reinterpret_cast<const unsigned char*>(key.data()), key.size(), nullptr) == 1 &&
          EVP_MAC_update(context_.get(), Bytes(token), token.size()) == 1 &&
          EVP_MAC_final(context_.get(), value.data(), &size, value.size()) == 1 && size == value.size(),
      "SipHash");
  return value;
}

}  // namespace sallyport::edge

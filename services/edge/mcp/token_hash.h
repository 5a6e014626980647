// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "common/crypto/openssl.h"

namespace sallyport::edge {

// 128 bits that stand for a token in this process's caches: SipHash-2-4 under a random key that never leaves the
// process. Without the key, no two tokens can be made that are taken for one. It is computed for each call whose
// connection did not bring the same token before; SHA-256 takes five times as long. For one thread.
class TokenHash {
 public:
  using Value = std::array<uint8_t, 16>;
  TokenHash();
  Value Of(std::string_view token);

 private:
  EvpMacCtxPtr context_;
};

}  // namespace sallyport::edge

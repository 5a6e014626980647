// SPDX-License-Identifier: Apache-2.0
#include "common/crypto/random.h"

#include <climits>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/crypto/openssl.h"
#include "common/text/base32.h"
#include "common/text/base64url.h"

namespace sallyport {
namespace {

constexpr size_t kUidBytes = 16;

}  // namespace

std::string RandomBytes(size_t size) {
  std::string bytes(size, '\0');
  CheckCrypto(
      size <= INT_MAX && RAND_priv_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(size)) == 1,
      "random generator");
  return bytes;
}

Secret RandomSecret(size_t size) { return Secret(RandomBytes(size)); }

std::string RandomToken(absl::string_view prefix, size_t size) {
  return absl::StrCat(prefix, Base64UrlEncode(RandomBytes(size)));
}

std::string MakeUid(absl::string_view prefix) { return absl::StrCat(prefix, Base32Encode(RandomBytes(kUidBytes))); }

bool IsUid(absl::string_view text, absl::string_view prefix) {
  if (!absl::StartsWith(text, prefix)) return false;
  const auto bytes = Base32Decode(text.substr(prefix.size()));
  return bytes.ok() && bytes->size() == kUidBytes;
}

double RandomUnit() {
  uint64_t bits = 0;
  CheckCrypto(RAND_bytes(reinterpret_cast<unsigned char*>(&bits), sizeof(bits)) == 1, "random generator");
  return static_cast<double>(bits >> 11) * 0x1.0p-53;
}

}  // namespace sallyport

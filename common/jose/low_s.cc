// SPDX-License-Identifier: Apache-2.0
#include "common/jose/low_s.h"

#include <cstdint>

namespace sallyport {
namespace {

constexpr size_t kCoordinate = 32;
// The order n of P-256 (NIST SP 800-186 section 3.2.1.3) and n / 2, rounded down; big-endian.
constexpr unsigned char kOrder[kCoordinate + 1] =
    "\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"
    "\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51";
constexpr char kHalf[kCoordinate + 1] =
    "\x7f\xff\xff\xff\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff"
    "\xde\x73\x7d\x56\xd3\x8b\xcf\x42\x79\xdc\xe5\x61\x7e\x31\x92\xa8";

}  // namespace

bool HasLowS(absl::string_view raw) {
  // Bytes compare unsigned, so big-endian numbers of one length compare like text.
  return raw.size() == 2 * kCoordinate && raw.substr(kCoordinate) <= absl::string_view(kHalf, kCoordinate);
}

std::string WithLowS(std::string raw) {
  if (raw.size() != 2 * kCoordinate || HasLowS(raw)) return raw;
  int borrow = 0;
  for (size_t i = kCoordinate; i-- > 0;) {
    const int difference = kOrder[i] - static_cast<unsigned char>(raw[kCoordinate + i]) - borrow;
    borrow = difference < 0 ? 1 : 0;
    raw[kCoordinate + i] = static_cast<char>(difference & 0xff);
  }
  return raw;
}

}  // namespace sallyport

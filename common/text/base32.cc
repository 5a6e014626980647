// SPDX-License-Identifier: Apache-2.0
#include "common/text/base32.h"

#include <cstdint>

namespace sallyport {
namespace {

constexpr char kAlphabet[] = "abcdefghijklmnopqrstuvwxyz234567";

int ValueOf(char c) {
  if (c >= 'a' && c <= 'z') return c - 'a';
  if (c >= '2' && c <= '7') return c - '2' + 26;
  return -1;
}

}  // namespace

std::string Base32Encode(absl::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() * 8 + 4) / 5);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : bytes) {
    bits = (bits << 8 | static_cast<unsigned char>(c)) & 0xffff;
    count += 8;
    while (count >= 5) {
      count -= 5;
      out.push_back(kAlphabet[bits >> count & 31]);
    }
  }
  if (count > 0) out.push_back(kAlphabet[bits << (5 - count) & 31]);
  return out;
}

absl::StatusOr<std::string> Base32Decode(absl::string_view text) {
  const size_t rest = text.size() % 8;
  if (rest == 1 || rest == 3 || rest == 6) return absl::InvalidArgumentError("base32: impossible length");
  std::string out;
  out.reserve(text.size() * 5 / 8);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const int value = ValueOf(c);
    if (value < 0) return absl::InvalidArgumentError("base32: character outside the alphabet");
    bits = (bits << 5 | static_cast<uint32_t>(value)) & 0xffff;
    count += 5;
    if (count >= 8) {
      count -= 8;
      out.push_back(static_cast<char>(bits >> count & 0xff));
    }
  }
  if ((bits & ((1U << count) - 1)) != 0) return absl::InvalidArgumentError("base32: trailing bits are not zero");
  return out;
}

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "common/text/base64url.h"

#include <array>
#include <cstdint>

namespace sallyport {
namespace {

constexpr char kStandard[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr char kUrlSafe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

using DecodeTable = std::array<int8_t, 256>;
constexpr DecodeTable MakeTable(const char* alphabet) {
  DecodeTable table{};
  for (auto& entry : table) entry = -1;
  for (int i = 0; i < 64; ++i) table[static_cast<unsigned char>(alphabet[i])] = static_cast<int8_t>(i);
  return table;
}
constexpr DecodeTable kStandardTable = MakeTable(kStandard);
constexpr DecodeTable kUrlSafeTable = MakeTable(kUrlSafe);

std::string Encode(absl::string_view bytes, const char* alphabet) {
  std::string out;
  out.reserve((bytes.size() * 4 + 2) / 3);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : bytes) {
    bits = (bits << 8 | static_cast<unsigned char>(c)) & 0xffff;
    count += 8;
    while (count >= 6) {
      count -= 6;
      out.push_back(alphabet[bits >> count & 63]);
    }
  }
  if (count > 0) out.push_back(alphabet[bits << (6 - count) & 63]);
  return out;
}

absl::StatusOr<std::string> Decode(absl::string_view text, const DecodeTable& table) {
  if (text.size() % 4 == 1) return absl::InvalidArgumentError("base64: impossible length");
  std::string out;
  out.reserve(text.size() * 3 / 4);
  uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    const int8_t value = table[static_cast<unsigned char>(c)];
    if (value < 0) return absl::InvalidArgumentError("base64: character outside the alphabet");
    bits = (bits << 6 | static_cast<uint32_t>(value)) & 0xffff;
    count += 6;
    if (count >= 8) {
      count -= 8;
      out.push_back(static_cast<char>(bits >> count & 0xff));
    }
  }
  if ((bits & ((1U << count) - 1)) != 0) return absl::InvalidArgumentError("base64: trailing bits are not zero");
  return out;
}

}  // namespace

std::string Base64UrlEncode(absl::string_view bytes) { return Encode(bytes, kUrlSafe); }
absl::StatusOr<std::string> Base64UrlDecode(absl::string_view text) { return Decode(text, kUrlSafeTable); }

std::string Base64EncodeUnpadded(absl::string_view bytes) { return Encode(bytes, kStandard); }
absl::StatusOr<std::string> Base64DecodeUnpadded(absl::string_view text) { return Decode(text, kStandardTable); }

std::string Base64Encode(absl::string_view bytes) {
  std::string out = Encode(bytes, kStandard);
  out.append((4 - out.size() % 4) % 4, '=');
  return out;
}

absl::StatusOr<std::string> Base64Decode(absl::string_view text) {
  if (text.size() % 4 != 0) return absl::InvalidArgumentError("base64: padding is missing");
  size_t size = text.size();
  if (size > 0 && text[size - 1] == '=') --size;
  if (size > 0 && size < text.size() && text[size - 1] == '=') --size;
  return Decode(text.substr(0, size), kStandardTable);
}

}  // namespace sallyport

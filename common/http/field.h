// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

// Header only: the HTTP engine uses it without the library.
namespace sallyport {

namespace http_field_internal {
inline constexpr auto kNormal = [] {
  std::array<char, 256> table{};
  for (size_t byte = 'a'; byte <= 'z'; ++byte) {
    table[byte] = static_cast<char>(byte);
    table[byte - 'a' + 'A'] = static_cast<char>(byte);
  }
  for (char byte : std::string_view("!#$%&'*+-.^`|~0123456789")) {
    table[static_cast<unsigned char>(byte)] = byte;
  }
  table['_'] = '-';
  return table;
}();
}  // namespace http_field_internal

// The byte in the form field names are compared in: lower case, '-' for '_' (many servers take the two for one name). 0
// for a byte that no token has.
inline char NormalNameByte(char byte) { return http_field_internal::kNormal[static_cast<unsigned char>(byte)]; }
// RFC 9110 section 5.6.2: a tchar.
inline bool IsTokenChar(char byte) { return NormalNameByte(byte) != 0; }

// Every byte in the form of NormalNameByte; bytes that no token has stay.
inline std::string NormalizeFieldName(std::string_view name) {
  std::string normal(name);
  for (char& byte : normal) {
    if (IsTokenChar(byte)) byte = NormalNameByte(byte);
  }
  return normal;
}

// RFC 9110 section 5.6.2: at least one tchar and nothing else. What a field name and a method are.
inline bool IsToken(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), IsTokenChar);
}

// RFC 9110 section 5.5: no CR, LF, NUL or other control but HTAB. Bytes above 0x7f (obs-text) are legal.
inline bool IsFieldValue(std::string_view text) {
  constexpr uint64_t kOnes = 0x0101010101010101;
  constexpr uint64_t kHighs = 0x8080808080808080;
  const auto is_bad = [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && byte != '\t') || byte == 0x7f;
  };
  // Eight bytes at a time: tokens of a kilobyte come with every request. A word that holds a byte below 0x20 or 0x7f
  // (or one the borrow makes look like it) is looked at byte by byte.
  size_t at = 0;
  for (; at + sizeof(uint64_t) <= text.size(); at += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, text.data() + at, sizeof(word));
    const uint64_t below_space = (word - kOnes * 0x20) & ~word & kHighs;
    const uint64_t difference = word ^ (kOnes * 0x7f);
    const uint64_t is_delete = (difference - kOnes) & ~difference & kHighs;
    if ((below_space | is_delete) != 0 && std::any_of(text.data() + at, text.data() + at + sizeof(word), is_bad)) {
      return false;
    }
  }
  return std::none_of(text.begin() + static_cast<std::ptrdiff_t>(at), text.end(), is_bad);
}

// The same, and without white space around it, which a recipient would not see.
inline bool IsTrimmedFieldValue(std::string_view text) {
  const auto is_blank = [](char c) { return c == ' ' || c == '\t'; };
  return text.empty() || (!is_blank(text.front()) && !is_blank(text.back()) && IsFieldValue(text));
}

// RFC 9110 section 7.6.1: fields of one connection, which no intermediary passes on. Lower case.
inline constexpr std::array<std::string_view, 9> kHopByHopFields = {
    "connection",     "keep-alive",        "proxy-connection",  "te", "trailer", "upgrade",
    "http2-settings", "transfer-encoding", "proxy-authenticate"};
// Compared in the form of NormalNameByte.
inline bool IsHopByHopField(std::string_view name) {
  const std::string normal = NormalizeFieldName(name);
  return std::find(kHopByHopFields.begin(), kHopByHopFields.end(), normal) != kHopByHopFields.end();
}

}  // namespace sallyport

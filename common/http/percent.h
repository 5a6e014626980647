// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

// Header only: the HTTP engine uses it without the library.
namespace sallyport {

// RFC 3986 section 2.3.
inline bool IsUnreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
         c == '_' || c == '~';
}

// Section 2.1: every byte that is not an unreserved character as %XX.
inline void AppendPercentEncoded(std::string_view bytes, std::string& out) {
  constexpr char kDigits[] = "0123456789ABCDEF";
  for (const char c : bytes) {
    if (IsUnreserved(c)) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += '%';
      out += kDigits[byte >> 4];
      out += kDigits[byte & 15];
    }
  }
}

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include <arpa/inet.h>

// Header only: the HTTP engine uses it without the library.
namespace sallyport {

// An address in network order. IPv4 is ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2) and so equals its IPv4-mapped form.
using IpBytes = std::array<uint8_t, 16>;
inline constexpr std::array<uint8_t, 12> kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

// Dotted quad without leading zeros, or RFC 4291 text; no brackets, port or zone.
inline std::optional<IpBytes> ParseIpLiteral(std::string_view text) {
  char copy[INET6_ADDRSTRLEN] = {};
  if (text.size() >= sizeof(copy) || text.find('\0') != std::string_view::npos) return std::nullopt;
  text.copy(copy, text.size());
  IpBytes bytes{};
  if (inet_pton(AF_INET, copy, bytes.data() + kMappedPrefix.size()) == 1) {
    std::copy(kMappedPrefix.begin(), kMappedPrefix.end(), bytes.begin());
    return bytes;
  }
  if (inet_pton(AF_INET6, copy, bytes.data()) == 1) return bytes;
  return std::nullopt;
}

}  // namespace sallyport

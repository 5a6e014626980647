// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sallyport::edge {

// An IPv4 or IPv6 address with a port. IPv4 is held as ::ffff:a.b.c.d, so that one prefix comparison serves both; an
// IPv4-mapped peer and the same IPv4 peer are equal.
struct NetworkAddress {
  std::array<uint8_t, 16> bytes{};
  uint16_t port = 0;

  bool is_v4() const;
  // "192.0.2.1", "2001:db8::1"; without the port.
  std::string ToString() const;
  // A literal address without brackets, port or zone.
  static std::optional<NetworkAddress> Parse(std::string_view text, uint16_t port = 0);
  friend bool operator==(const NetworkAddress&, const NetworkAddress&) = default;
};

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/network_address.h"

#include <algorithm>

#include <arpa/inet.h>

namespace sallyport::edge {
namespace {

constexpr std::array<uint8_t, 12> kV4Prefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

}  // namespace

bool NetworkAddress::is_v4() const { return std::equal(kV4Prefix.begin(), kV4Prefix.end(), bytes.begin()); }

std::string NetworkAddress::ToString() const {
  char text[INET6_ADDRSTRLEN] = {};
  if (is_v4()) {
    inet_ntop(AF_INET, bytes.data() + kV4Prefix.size(), text, sizeof(text));
  } else {
    inet_ntop(AF_INET6, bytes.data(), text, sizeof(text));
  }
  return text;
}

std::optional<NetworkAddress> NetworkAddress::Parse(std::string_view text, uint16_t port) {
  char copy[INET6_ADDRSTRLEN] = {};
  if (text.empty() || text.size() >= sizeof(copy) || text.find('\0') != std::string_view::npos) {
    return std::nullopt;
  }
  text.copy(copy, text.size());
  NetworkAddress address;
  address.port = port;
  if (inet_pton(AF_INET, copy, address.bytes.data() + kV4Prefix.size()) == 1) {
    std::copy(kV4Prefix.begin(), kV4Prefix.end(), address.bytes.begin());
    return address;
  }
  if (inet_pton(AF_INET6, copy, address.bytes.data()) == 1) {
    return address;
  }
  return std::nullopt;
}

}  // namespace sallyport::edge

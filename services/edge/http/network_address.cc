// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/network_address.h"

#include <algorithm>

#include <arpa/inet.h>

#include "common/http/ip_literal.h"

namespace sallyport::edge {

bool NetworkAddress::is_v4() const { return std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), bytes.begin()); }

std::string NetworkAddress::ToString() const {
  char text[INET6_ADDRSTRLEN] = {};
  if (is_v4()) {
    inet_ntop(AF_INET, bytes.data() + kMappedPrefix.size(), text, sizeof(text));
  } else {
    inet_ntop(AF_INET6, bytes.data(), text, sizeof(text));
  }
  return text;
}

std::optional<NetworkAddress> NetworkAddress::Parse(std::string_view text, uint16_t port) {
  const std::optional<IpBytes> bytes = ParseIpLiteral(text);
  return bytes ? std::optional(NetworkAddress{*bytes, port}) : std::nullopt;
}

}  // namespace sallyport::edge

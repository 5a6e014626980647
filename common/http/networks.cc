// SPDX-License-Identifier: Apache-2.0
#include "common/http/networks.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include <arpa/inet.h>
#include <netinet/in.h>

#include "common/error.h"
#include "common/http/egress_proxy.h"
#include "common/http/ip_literal.h"
#include "common/status_macros.h"
#include "common/text/string_view.h"

namespace sallyport {
namespace {

// IANA IPv4 and IPv6 Special-Purpose Address Registries, what is not globally reachable there; multicast; and the
// deprecated site-local range. IPv6 outside 2000::/3 is not listed: it is special as a whole.
constexpr const char* kSpecialPurpose[] = {
    "0.0.0.0/8",     "10.0.0.0/8",      "100.64.0.0/10",  "127.0.0.0/8",    "169.254.0.0/16",
    "172.16.0.0/12", "192.0.0.0/24",    "192.0.2.0/24",   "192.88.99.0/24", "192.168.0.0/16",
    "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",    "240.0.0.0/4",
    "2001::/23",     "2001:db8::/32",   "2002::/16",      "3fff::/20",
};

constexpr const char* kNeverDialled[] = {
    "0.0.0.0/8",
    "169.254.0.0/16",
    "224.0.0.0/4",
    "255.255.255.255",
    "::",
    "fe80::/10",
    "ff00::/8",
    // Metadata services outside the link-local ranges: Oracle, Alibaba, Azure's wire server, AWS and Google over IPv6.
    "192.0.0.192",
    "100.100.100.200",
    "168.63.129.16",
    "fd00:ec2::254",
    "fd20:ce::254",
};

std::vector<Network> ParseTable(const char* const* begin, const char* const* end) {
  std::vector<Network> networks;
  for (const char* const* text = begin; text != end; ++text) networks.push_back(*Network::Parse(*text));
  return networks;
}

const Network& GlobalUnicast6() {
  static const Network network = *Network::Parse("2000::/3");
  return network;
}

// RFC 6052: the IPv4 address is in the last four bytes.
const Network& Nat64() {
  static const Network network = *Network::Parse("64:ff9b::/96");
  return network;
}

}  // namespace

absl::StatusOr<IpAddress> IpAddress::Parse(absl::string_view text) {
  const std::optional<IpBytes> bytes = ParseIpLiteral(ToStd(text));
  if (!bytes) return absl::InvalidArgumentError("not an IP address");
  return *FromBytes({reinterpret_cast<const char*>(bytes->data()), bytes->size()});
}

std::optional<IpAddress> IpAddress::FromBytes(absl::string_view bytes) {
  IpAddress address;
  if (bytes.size() == 16 && std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), bytes.begin(),
                                       [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); })) {
    bytes.remove_prefix(12);
  }
  if (bytes.size() != 4 && bytes.size() != 16) return std::nullopt;
  address.v4_ = bytes.size() == 4;
  std::transform(bytes.begin(), bytes.end(), address.bytes_.begin(), [](char c) { return static_cast<uint8_t>(c); });
  return address;
}

std::optional<IpAddress> IpAddress::FromSockaddr(const sockaddr* address) {
  if (address->sa_family == AF_INET) {
    sockaddr_in in{};
    std::memcpy(&in, address, sizeof(in));
    return FromBytes({reinterpret_cast<const char*>(&in.sin_addr), 4});
  }
  if (address->sa_family == AF_INET6) {
    sockaddr_in6 in{};
    std::memcpy(&in, address, sizeof(in));
    return FromBytes({reinterpret_cast<const char*>(&in.sin6_addr), 16});
  }
  return std::nullopt;
}

bool IpAddress::is_loopback() const {
  if (v4_) return bytes_[0] == 127;
  return std::all_of(bytes_.begin(), bytes_.end() - 1, [](uint8_t byte) { return byte == 0; }) && bytes_[15] == 1;
}

IpAddress IpAddress::Prefix64() const {
  IpAddress prefix = *this;
  if (!v4_) {
    std::fill(prefix.bytes_.begin() + 8, prefix.bytes_.end(), uint8_t{0});
  }
  return prefix;
}

std::string IpAddress::ToString() const {
  char text[INET6_ADDRSTRLEN];
  inet_ntop(v4_ ? AF_INET : AF_INET6, bytes_.data(), text, sizeof(text));
  return text;
}

absl::StatusOr<Network> Network::Parse(absl::string_view text) {
  Network network;
  const size_t slash = text.find('/');
  ASSIGN_OR_RETURN(network.base_, IpAddress::Parse(text.substr(0, slash)));
  const int width = network.base_.is_v4() ? 32 : 128;
  network.prefix_ = width;
  if (slash != absl::string_view::npos) {
    const absl::string_view digits = text.substr(slash + 1);
    const bool number = !digits.empty() && digits.size() <= 3 && std::all_of(digits.begin(), digits.end(), [](char c) {
      return absl::ascii_isdigit(static_cast<unsigned char>(c));
    });
    if (!number || (digits.size() > 1 && digits[0] == '0') || !absl::SimpleAtoi(digits, &network.prefix_) ||
        network.prefix_ > width) {
      return absl::InvalidArgumentError(absl::StrCat("the prefix length must be 0 to ", width));
    }
  }
  for (int bit = network.prefix_; bit < width; ++bit) {
    if ((network.base_.bytes_[static_cast<size_t>(bit / 8)] >> (7 - bit % 8) & 1) != 0) {
      return absl::InvalidArgumentError("the address has bits behind the prefix");
    }
  }
  return network;
}

bool Network::Contains(const IpAddress& address) const {
  if (address.v4_ != base_.v4_) return false;
  const auto whole = static_cast<size_t>(prefix_ / 8);
  if (!std::equal(base_.bytes_.begin(), base_.bytes_.begin() + static_cast<std::ptrdiff_t>(whole),
                  address.bytes_.begin())) {
    return false;
  }
  if (prefix_ % 8 == 0) return true;
  return (base_.bytes_[whole] ^ address.bytes_[whole]) >> (8 - prefix_ % 8) == 0;
}

std::string Network::ToString() const { return absl::StrCat(base_.ToString(), "/", prefix_); }

absl::StatusOr<std::vector<Network>> ParseNetworks(const std::vector<std::string>& texts, absl::string_view field) {
  std::vector<Network> networks;
  for (size_t i = 0; i < texts.size(); ++i) {
    auto network = Network::Parse(texts[i]);
    if (!network.ok()) return InvalidField(absl::StrCat(field, "[", i, "]"), network.status().message());
    networks.push_back(*network);
  }
  return networks;
}

bool ContainsAddress(const std::vector<Network>& networks, const IpAddress& address) {
  return std::any_of(networks.begin(), networks.end(),
                     [&](const Network& network) { return network.Contains(address); });
}

bool IsSpecialPurpose(const IpAddress& address) {
  static const std::vector<Network> networks = ParseTable(std::begin(kSpecialPurpose), std::end(kSpecialPurpose));
  if (!address.is_v4() && !GlobalUnicast6().Contains(address)) return true;
  return ContainsAddress(networks, address);
}

bool IsNeverDialled(const IpAddress& address) {
  static const std::vector<Network> networks = ParseTable(std::begin(kNeverDialled), std::end(kNeverDialled));
  if (ContainsAddress(networks, address)) return true;
  if (!Nat64().Contains(address)) return false;
  const auto embedded = address.Nat64Embedded();
  return !embedded || IsNeverDialled(*embedded);
}

bool IsLocalhostName(absl::string_view host) { return host == "localhost" || absl::EndsWith(host, ".localhost"); }

const EgressProxy* EgressPolicy::ProxyFor(absl::string_view host) const {
  return proxy_ != nullptr && proxy_->Covers(host) ? proxy_.get() : nullptr;
}

bool EgressPolicy::MayDial(const IpAddress& address, bool https) const {
  if (IsNeverDialled(address)) return false;
  const bool listed = ContainsAddress(private_networks_, address);
  if (!listed && IsSpecialPurpose(address)) return false;
  if (https) return true;
  return listed && (plain_http_ == PlainHttp::kPrivateNetworks || address.is_loopback());
}

bool EgressPolicy::MayDialPort(uint16_t port) {
  // Protocols that can be made to act on the text of an HTTP request, or that no web service listens on: ssh, telnet,
  // mail, DNS, file sharing, printers, databases, caches, queues.
  static constexpr std::array<uint16_t, 41> kBlocked = {
      1,   7,   9,   11,  13,  15,  17,  19,  20,  21,  22,  23,  25,  37,  42,  43,  53,   69,   79,   110,  111,
      113, 119, 123, 135, 137, 139, 143, 161, 389, 445, 465, 514, 515, 587, 993, 995, 3306, 5432, 6379, 11211};
  return port != 0 && std::find(kBlocked.begin(), kBlocked.end(), port) == kBlocked.end();
}

absl::Status EgressPolicy::CheckUrl(const Url& url) const {
  const auto refused = [](absl::string_view why) {
    return WithReason(absl::PermissionDeniedError(why), "network_not_allowed");
  };
  if (!MayDialPort(url.port())) return refused("this port is not allowed");
  if (auto address = IpAddress::Parse(url.host()); address.ok()) {
    if (MayDial(*address, url.is_https())) return absl::OkStatus();
    return MayDial(*address, true) ? refused("plain http is not allowed to this address; use https")
                                   : refused("this address is in a network that is not allowed");
  }
  const std::string& host = url.host();
  if (IsLocalhostName(host)) {
    const bool allowed =
        MayDial(*IpAddress::Parse("127.0.0.1"), url.is_https()) || MayDial(*IpAddress::Parse("::1"), url.is_https());
    return allowed ? absl::OkStatus() : refused("loopback is not an allowed network");
  }
  for (const char* name : {"metadata", "metadata.google.internal", "metadata.goog", "instance-data",
                           "instance-data.ec2.internal", "metadata.azure.internal", "metadata.tencentyun.com"}) {
    if (host == name) return refused("metadata services are never allowed");
  }
  if (!url.is_https() && (plain_http_ == PlainHttp::kLoopback || private_networks_.empty())) {
    return refused("plain http is not allowed to this host; use https");
  }
  if (!url.is_https() && ProxyFor(host) != nullptr) {
    return refused(
        "plain http is not allowed to a name that the egress proxy resolves; use https, or name the host in "
        "deployment.egress.proxy.noProxy");
  }
  return absl::OkStatus();
}

std::vector<Network> PrivateNetworks(bool with_loopback) {
  std::vector<Network> networks;
  for (const char* text : {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"}) {
    networks.push_back(*Network::Parse(text));
  }
  if (with_loopback) {
    networks.push_back(*Network::Parse("127.0.0.0/8"));
    networks.push_back(*Network::Parse("::1"));
  }
  return networks;
}

std::optional<IpAddress> IpAddress::Nat64Embedded() const {
  return FromBytes({reinterpret_cast<const char*>(bytes_.data()) + 12, 4});
}

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include <sys/socket.h>

#include "common/http/url.h"

namespace sallyport {

class EgressProxy;  // egress_proxy.h

// An IPv4 or IPv6 address. IPv4-mapped IPv6 addresses become IPv4, so that a rule for one holds for the other.
class IpAddress {
 public:
  // Dotted quad (no leading zeros) or RFC 4291 text without zone; INVALID_ARGUMENT otherwise.
  static absl::StatusOr<IpAddress> Parse(absl::string_view text);
  // Nothing for other address families.
  static std::optional<IpAddress> FromSockaddr(const sockaddr* address);
  // 4 or 16 bytes in network order.
  static std::optional<IpAddress> FromBytes(absl::string_view bytes);

  bool is_v4() const { return v4_; }
  bool is_loopback() const;
  // The IPv4 address in the last four bytes of an IPv6 one (RFC 6052 section 2.2, prefix of 96 bits).
  std::optional<IpAddress> Nat64Embedded() const;
  // The first address of its /64 (RFC 4291 section 2.5.4: what one subscriber has at least); IPv4 addresses themselves.
  IpAddress Prefix64() const;
  // Canonical text (RFC 5952).
  std::string ToString() const;
  friend bool operator==(const IpAddress&, const IpAddress&) = default;

 private:
  friend class Network;
  IpAddress() = default;
  bool v4_ = false;
  std::array<uint8_t, 16> bytes_{};  // IPv4 in the first four.
};

// A CIDR block. An address alone is a block of one.
class Network {
 public:
  // "10.0.0.0/8", "fc00::/7", "192.0.2.7". INVALID_ARGUMENT if bits behind the prefix are set.
  static absl::StatusOr<Network> Parse(absl::string_view text);
  bool Contains(const IpAddress& address) const;
  std::string ToString() const;

 private:
  Network() = default;
  IpAddress base_;
  int prefix_ = 0;
};

// Names the field and the entry that does not parse.
absl::StatusOr<std::vector<Network>> ParseNetworks(const std::vector<std::string>& texts, absl::string_view field);
bool ContainsAddress(const std::vector<Network>& networks, const IpAddress& address);

// In one of IANA's special-purpose ranges (not globally reachable unicast), or multicast.
bool IsSpecialPurpose(const IpAddress& address);
// Link-local, unspecified, multicast, broadcast, and addresses of cloud metadata services: never dialled, whatever is
// configured.
bool IsNeverDialled(const IpAddress& address);
// "localhost" and the names below it (RFC 6761 section 6.3).
bool IsLocalhostName(absl::string_view host);

// Which addresses outgoing connections may reach, and through which proxy. Public addresses always; special-purpose
// ones only inside `private_networks`; those of IsNeverDialled never. Immutable and thread-safe.
class EgressPolicy {
 public:
  // Where http:// is accepted: at loopback addresses, or at every address of `private_networks`. In both cases only at
  // addresses that may be dialled at all.
  enum class PlainHttp { kLoopback, kPrivateNetworks };

  EgressPolicy() = default;  // Public addresses over https only.
  // Without a proxy every connection is direct.
  EgressPolicy(std::vector<Network> private_networks, PlainHttp plain_http,
               std::shared_ptr<const EgressProxy> proxy = nullptr)
      : private_networks_(std::move(private_networks)), plain_http_(plain_http), proxy_(std::move(proxy)) {}

  bool MayDial(const IpAddress& address, bool https) const;
  // Ports of other well-known protocols (mail, ssh, databases) are refused.
  static bool MayDialPort(uint16_t port);
  // What can be said before name resolution: port, literal address, names that mean loopback ("localhost",
  // "*.localhost") or a metadata service, http to a name that does not mean loopback (kLoopback). PERMISSION_DENIED
  // with reason "network_not_allowed". A name that passes is still checked by MayDial when its address is known. The
  // address of a name that goes to the proxy never is; so plain http, which needs a private address, is refused there.
  absl::Status CheckUrl(const Url& url) const;
  // The proxy through which this host (as Url::host gives it) is reached; null: directly.
  const EgressProxy* ProxyFor(absl::string_view host) const;
  const std::shared_ptr<const EgressProxy>& proxy() const { return proxy_; }

 private:
  std::vector<Network> private_networks_;
  PlainHttp plain_http_ = PlainHttp::kLoopback;
  std::shared_ptr<const EgressProxy> proxy_;
};

// RFC 1918 and fc00::/7. With loopback: 127.0.0.0/8 and ::1 too.
std::vector<Network> PrivateNetworks(bool with_loopback);

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include <google/protobuf/repeated_ptr_field.h>

#include "common/http/networks.h"
#include "services/edge/http/network_address.h"
#include "services/edge/http/request_head.h"

namespace sallyport::edge {

// Who this gateway is and whom it believes; immutable.
struct SiteOptions {
  std::string public_url;   // Bare origin, no slash at the end.
  std::string public_host;  // As in Host: "gw.example.com", "127.0.0.1:8080".
  bool public_is_loopback = false;
  absl::flat_hash_set<std::string> hosts;  // Lower case: public_host and extra_hosts.
  absl::flat_hash_set<std::string> allowed_origins;
  absl::flat_hash_set<std::string> hosted_client_origins;
  std::vector<Network> trusted_proxies;
  EgressPolicy upstream_policy;
};

// Which origins may call a route (RFC 6454; a browser names it, other clients send none).
enum class OriginRule : uint8_t {
  // Pages, the API, MCP servers that verify nobody: our own, loopback where we are loopback, allowedOrigins.
  kOwn,
  // MCP servers and OAuth endpoints that demand a token or a client's credentials: also hosted MCP clients.
  kBearer,
  // Public documents: all.
  kAny,
};

// Host must be ours: DNS rebinding fails here.
bool HostAllowed(const SiteOptions& site, const RequestHead& head);
// Of a field that was sent: an empty one is nobody's origin.
bool OriginAllowed(const SiteOptions& site, std::string_view origin, OriginRule rule);
// What an origin that is not allowed is told: it is named, if it can be shown at all, and so is the setting.
std::string ForeignOriginMessage(std::string_view origin, OriginRule rule);

// deployment.hostedClientOrigins, or those that are allowed when it is not given.
absl::flat_hash_set<std::string> HostedClientOrigins(const google::protobuf::RepeatedPtrField<std::string>& configured);

// Only POST has a body here. An upstream that ignores one on another method would take it for the next request on the
// connection, which may be another caller's.
bool BodyAllowed(const RequestHead& head);

// The client behind trusted proxies: the rightmost element of X-Forwarded-For that is none of them. Nothing if that
// element is no address ("unknown", an obfuscated name): such a caller must not pass for the proxy, nor for what stands
// further to the left, which is the caller's say.
std::optional<NetworkAddress> ClientAddress(const SiteOptions& site, const NetworkAddress& peer,
                                            const RequestHead& head);
// For the audit and for limits by address, which all callers of unknown address share: "192.0.2.1" or "unknown".
std::string ClientAddressText(const SiteOptions& site, const NetworkAddress& peer, const RequestHead& head);
IpAddress ToIpAddress(const NetworkAddress& address);

}  // namespace sallyport::edge

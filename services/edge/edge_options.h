// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_set.h"

#include "common/networks.h"
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
  std::vector<Network> trusted_proxies;
  EgressPolicy upstream_policy;
};

// Host must be ours; a present Origin must be ours, loopback where we are loopback, or allowed. DNS rebinding fails
// here.
bool HostAllowed(const SiteOptions& site, const RequestHead& head);
// Of a field that was sent: an empty one is nobody's origin.
bool OriginAllowed(const SiteOptions& site, std::string_view origin);

// The client behind trusted proxies: the rightmost address of X-Forwarded-For that is none of them.
NetworkAddress ClientAddress(const SiteOptions& site, const NetworkAddress& peer, const RequestHead& head);
IpAddress ToIpAddress(const NetworkAddress& address);

}  // namespace sallyport::edge

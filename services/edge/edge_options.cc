// SPDX-License-Identifier: Apache-2.0
#include "services/edge/edge_options.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"

#include "common/string_view.h"
#include "common/url.h"

namespace sallyport::edge {

bool HostAllowed(const SiteOptions& site, const RequestHead& head) {
  if (head.host == site.public_host) return true;
  return site.hosts.contains(absl::AsciiStrToLower(ToAbsl(head.host)));
}

bool OriginAllowed(const SiteOptions& site, std::string_view origin) {
  if (origin == site.public_url) return true;
  if (site.allowed_origins.contains(ToAbsl(origin))) return true;
  if (!site.public_is_loopback) return false;
  const auto url = Url::Parse(ToAbsl(origin));
  if (!url.ok() || url->origin() != ToAbsl(origin)) return false;
  if (url->host() == "localhost") return true;
  const auto address = IpAddress::Parse(url->host());
  return address.ok() && address->is_loopback();
}

IpAddress ToIpAddress(const NetworkAddress& address) {
  const auto* bytes = reinterpret_cast<const char*>(address.bytes.data());
  return *IpAddress::FromBytes(absl::string_view(bytes, 16));
}

NetworkAddress ClientAddress(const SiteOptions& site, const NetworkAddress& peer, const RequestHead& head) {
  if (site.trusted_proxies.empty() || !ContainsAddress(site.trusted_proxies, ToIpAddress(peer))) return peer;
  NetworkAddress client = peer;
  // Several fields count as one list, in order.
  std::vector<absl::string_view> hops;
  for (const HeaderField& field : head.fields()) {
    if (field.id != HeaderId::kXForwardedFor) continue;
    for (absl::string_view hop : absl::StrSplit(ToAbsl(field.value), ','))
      hops.push_back(absl::StripAsciiWhitespace(hop));
  }
  for (auto hop = hops.rbegin(); hop != hops.rend(); ++hop) {
    const auto address = NetworkAddress::Parse(ToStd(*hop));
    if (!address) return client;  // Nothing beyond garbage is believed.
    client = *address;
    if (!ContainsAddress(site.trusted_proxies, ToIpAddress(client))) return client;
  }
  return client;
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/header_id.h"

#include <algorithm>
#include <array>
#include <bit>

namespace sallyport::edge {
namespace {

constexpr size_t kLongestKnown = 25;

struct Known {
  std::string_view name;
  HeaderId id;
};

// Ordered by length; kFirstOfLength below relies on it (and asserts it).
constexpr std::array kKnown = {
    Known{"te", HeaderId::kTe},
    Known{"nel", HeaderId::kNel},
    Known{"date", HeaderId::kDate},
    Known{"host", HeaderId::kHost},
    Known{"link", HeaderId::kLink},
    Known{"accept", HeaderId::kAccept},
    Known{"cookie", HeaderId::kCookie},
    Known{"expect", HeaderId::kExpect},
    Known{"origin", HeaderId::kOrigin},
    Known{"server", HeaderId::kServer},
    Known{"alt-svc", HeaderId::kAltSvc},
    Known{"referer", HeaderId::kReferer},
    Known{"refresh", HeaderId::kRefresh},
    Known{"trailer", HeaderId::kTrailer},
    Known{"upgrade", HeaderId::kUpgrade},
    Known{"mcp-name", HeaderId::kMcpName},
    Known{"forwarded", HeaderId::kForwarded},
    Known{"report-to", HeaderId::kReportTo},
    Known{"x-real-ip", HeaderId::kXRealIp},
    Known{"connection", HeaderId::kConnection},
    Known{"keep-alive", HeaderId::kKeepAlive},
    Known{"mcp-method", HeaderId::kMcpMethod},
    Known{"set-cookie", HeaderId::kSetCookie},
    Known{"user-agent", HeaderId::kUserAgent},
    Known{"content-type", HeaderId::kContentType},
    Known{"authorization", HeaderId::kAuthorization},
    Known{"cache-control", HeaderId::kCacheControl},
    Known{"last-event-id", HeaderId::kLastEventId},
    Known{"x-rewrite-url", HeaderId::kXRewriteUrl},
    Known{"content-length", HeaderId::kContentLength},
    Known{"http2-settings", HeaderId::kHttp2Settings},
    Known{"mcp-session-id", HeaderId::kMcpSessionId},
    Known{"x-original-url", HeaderId::kXOriginalUrl},
    Known{"accept-encoding", HeaderId::kAcceptEncoding},
    Known{"clear-site-data", HeaderId::kClearSiteData},
    Known{"x-forwarded-for", HeaderId::kXForwardedFor},
    Known{"content-encoding", HeaderId::kContentEncoding},
    Known{"proxy-connection", HeaderId::kProxyConnection},
    Known{"www-authenticate", HeaderId::kWwwAuthenticate},
    Known{"transfer-encoding", HeaderId::kTransferEncoding},
    Known{"x-accel-buffering", HeaderId::kXAccelBuffering},
    Known{"x-forwarded-proto", HeaderId::kXForwardedProto},
    Known{"proxy-authenticate", HeaderId::kProxyAuthenticate},
    Known{"proxy-authorization", HeaderId::kProxyAuthorization},
    Known{"mcp-protocol-version", HeaderId::kMcpProtocolVersion},
    Known{"service-worker-allowed", HeaderId::kServiceWorkerAllowed},
    Known{"x-http-method-override", HeaderId::kXHttpMethodOverride},
    Known{"strict-transport-security", HeaderId::kStrictTransportSecurity},
    Known{"x-sallyport-authorization", HeaderId::kSallyportAuthorization},
};
static_assert(std::is_sorted(kKnown.begin(), kKnown.end(),
                             [](const Known& a, const Known& b) { return a.name.size() < b.name.size(); }));
static_assert(kKnown.back().name.size() == kLongestKnown);

constexpr std::array<Known, 5> kPrefixes = {{
    {"sec-fetch-", HeaderId::kSecFetch},
    {"x-forwarded-", HeaderId::kXForwarded},
    {"x-sallyport-", HeaderId::kSallyport},
    {"access-control-", HeaderId::kAccessControl},
    {"content-security-policy", HeaderId::kContentSecurityPolicy},
}};

// kFirstOfLength[n] .. kFirstOfLength[n + 1] are the entries of kKnown with n bytes.
constexpr auto kFirstOfLength = [] {
  std::array<uint8_t, kLongestKnown + 2> first{};
  size_t entry = 0;
  for (size_t length = 0; length < first.size(); ++length) {
    while (entry < kKnown.size() && kKnown[entry].name.size() < length) {
      ++entry;
    }
    first[length] = static_cast<uint8_t>(entry);
  }
  return first;
}();

char Lower(char byte) { return byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte + ('a' - 'A')) : byte; }

HeaderId ClassifyNormalized(std::string_view name, size_t full_length) {
  if (full_length <= kLongestKnown) {
    for (size_t i = kFirstOfLength[full_length]; i < kFirstOfLength[full_length + 1]; ++i) {
      if (kKnown[i].name == name) {
        return kKnown[i].id;
      }
    }
  }
  for (const Known& prefix : kPrefixes) {
    if (name.starts_with(prefix.name)) {
      return prefix.id;
    }
  }
  return HeaderId::kOther;
}

constexpr uint64_t Bit(HeaderId id) { return uint64_t{1} << static_cast<unsigned>(id); }
static_assert(static_cast<unsigned>(HeaderId::kXRewriteUrl) < 64);

constexpr uint64_t kHopByHop = [] {
  uint64_t bits = 0;
  for (std::string_view name : kHopByHopFields) {
    for (const Known& known : kKnown) {
      bits |= known.name == name ? Bit(known.id) : 0;
    }
  }
  return bits;
}();
static_assert(std::popcount(kHopByHop) == int{kHopByHopFields.size()});
constexpr uint64_t kAlways = Bit(HeaderId::kAuthorization) | Bit(HeaderId::kProxyAuthorization) |
                             Bit(HeaderId::kCookie) | Bit(HeaderId::kForwarded) | Bit(HeaderId::kXForwarded) |
                             Bit(HeaderId::kXForwardedFor) | Bit(HeaderId::kXForwardedProto) | Bit(HeaderId::kXRealIp) |
                             Bit(HeaderId::kXOriginalUrl) | Bit(HeaderId::kXRewriteUrl) |
                             Bit(HeaderId::kXHttpMethodOverride) | Bit(HeaderId::kOrigin) | Bit(HeaderId::kReferer) |
                             Bit(HeaderId::kSecFetch) | Bit(HeaderId::kSallyport) |
                             Bit(HeaderId::kSallyportAuthorization);
constexpr uint64_t kResponse =
    Bit(HeaderId::kSetCookie) | Bit(HeaderId::kWwwAuthenticate) | Bit(HeaderId::kAccessControl) |
    Bit(HeaderId::kServer) | Bit(HeaderId::kClearSiteData) | Bit(HeaderId::kStrictTransportSecurity) |
    Bit(HeaderId::kAltSvc) | Bit(HeaderId::kRefresh) | Bit(HeaderId::kContentSecurityPolicy) |
    Bit(HeaderId::kServiceWorkerAllowed) | Bit(HeaderId::kLink) | Bit(HeaderId::kNel) | Bit(HeaderId::kReportTo);

}  // namespace

bool ClassifyToken(std::string_view name, HeaderId& id) {
  char normal[kLongestKnown];
  const size_t head = std::min(name.size(), sizeof(normal));
  bool valid = !name.empty();
  for (size_t i = 0; i < head; ++i) {
    normal[i] = NormalNameByte(name[i]);
    valid &= normal[i] != 0;
  }
  for (size_t i = head; i < name.size(); ++i) {
    valid &= NormalNameByte(name[i]) != 0;
  }
  if (!valid) {
    return false;
  }
  id = ClassifyNormalized({normal, head}, name.size());
  return true;
}

HeaderId ClassifyHeader(std::string_view name) {
  HeaderId id = HeaderId::kOther;
  ClassifyToken(name, id);
  return id;
}

bool EqualNames(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
           return x == y || (NormalNameByte(x) != 0 && NormalNameByte(x) == NormalNameByte(y));
         });
}

bool EqualIgnoreCase(std::string_view a, std::string_view b) {
  return a.size() == b.size() &&
         std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) { return Lower(x) == Lower(y); });
}

bool IsHopByHop(HeaderId id) { return (kHopByHop & Bit(id)) != 0; }
bool IsAlwaysDropped(HeaderId id) { return (kAlways & Bit(id)) != 0; }
bool IsDroppedFromResponse(HeaderId id) { return (kResponse & Bit(id)) != 0; }

}  // namespace sallyport::edge

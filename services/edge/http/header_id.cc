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
    Known{"proxy", HeaderId::kIdentity},
    Known{"accept", HeaderId::kAccept},
    Known{"cookie", HeaderId::kCookie},
    Known{"expect", HeaderId::kExpect},
    Known{"origin", HeaderId::kOrigin},
    Known{"server", HeaderId::kServer},
    Known{"x-host", HeaderId::kIdentity},
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
    Known{"x-client-ip", HeaderId::kIdentity},
    Known{"content-type", HeaderId::kContentType},
    Known{"authorization", HeaderId::kAuthorization},
    Known{"cache-control", HeaderId::kCacheControl},
    Known{"last-event-id", HeaderId::kLastEventId},
    Known{"x-rewrite-url", HeaderId::kXRewriteUrl},
    Known{"x-http-method", HeaderId::kIdentity},
    Known{"content-length", HeaderId::kContentLength},
    Known{"http2-settings", HeaderId::kHttp2Settings},
    Known{"mcp-session-id", HeaderId::kMcpSessionId},
    Known{"x-original-url", HeaderId::kXOriginalUrl},
    Known{"true-client-ip", HeaderId::kIdentity},
    Known{"accept-encoding", HeaderId::kAcceptEncoding},
    Known{"clear-site-data", HeaderId::kClearSiteData},
    Known{"persistent-auth", HeaderId::kPersistentAuth},
    Known{"x-forwarded-for", HeaderId::kXForwardedFor},
    Known{"x-original-host", HeaderId::kIdentity},
    Known{"cf-connecting-ip", HeaderId::kIdentity},
    Known{"content-encoding", HeaderId::kContentEncoding},
    Known{"proxy-connection", HeaderId::kProxyConnection},
    Known{"www-authenticate", HeaderId::kWwwAuthenticate},
    Known{"x-forwarded-user", HeaderId::kIdentity},
    Known{"transfer-encoding", HeaderId::kTransferEncoding},
    Known{"x-accel-buffering", HeaderId::kXAccelBuffering},
    Known{"x-forwarded-proto", HeaderId::kXForwardedProto},
    Known{"x-forwarded-email", HeaderId::kIdentity},
    Known{"x-method-override", HeaderId::kIdentity},
    Known{"proxy-authenticate", HeaderId::kProxyAuthenticate},
    Known{"proxy-authorization", HeaderId::kProxyAuthorization},
    Known{"x-cluster-client-ip", HeaderId::kIdentity},
    Known{"x-sallyport-account", HeaderId::kSallyportAccount},
    Known{"mcp-protocol-version", HeaderId::kMcpProtocolVersion},
    Known{"service-worker-allowed", HeaderId::kServiceWorkerAllowed},
    Known{"x-http-method-override", HeaderId::kXHttpMethodOverride},
    Known{"strict-transport-security", HeaderId::kStrictTransportSecurity},
    Known{"x-sallyport-authorization", HeaderId::kSallyportAuthorization},
};
static_assert(std::is_sorted(kKnown.begin(), kKnown.end(),
                             [](const Known& a, const Known& b) { return a.name.size() < b.name.size(); }));
static_assert(kKnown.back().name.size() == kLongestKnown);

constexpr std::array kPrefixes = {
    Known{"access-control-", HeaderId::kAccessControl},
    Known{"cf-access-", HeaderId::kIdentity},
    Known{"client-cert", HeaderId::kIdentity},
    Known{"content-security-policy", HeaderId::kContentSecurityPolicy},
    Known{"impersonate-", HeaderId::kIdentity},
    Known{"remote-", HeaderId::kIdentity},
    Known{"sec-fetch-", HeaderId::kSecFetch},
    Known{"ssl-client-", HeaderId::kIdentity},
    Known{"tailscale-user-", HeaderId::kIdentity},
    Known{"x-amzn-oidc-", HeaderId::kIdentity},
    Known{"x-auth-request-", HeaderId::kIdentity},
    Known{"x-forwarded-", HeaderId::kXForwarded},
    Known{"x-goog-authenticated-user-", HeaderId::kIdentity},
    Known{"x-goog-iap-", HeaderId::kIdentity},
    Known{"x-ms-client-principal", HeaderId::kIdentity},
    Known{"x-pomerium-", HeaderId::kIdentity},
    Known{"x-remote-", HeaderId::kIdentity},
    Known{"x-sallyport-", HeaderId::kSallyport},
    Known{"x-ssl-client-", HeaderId::kIdentity},
    Known{"x-webauth-", HeaderId::kIdentity},
};

// Prefixes are found by the name's first letter, or the third of one that begins with "x-": most names have none to be
// compared with.
constexpr size_t kPrefixBuckets = 64;
constexpr size_t PrefixBucket(std::string_view name) {
  const bool extension = name.size() > 2 && name[0] == 'x' && name[1] == '-';
  const size_t letter = static_cast<unsigned char>(extension ? name[2] : name[0]) & 31U;
  return extension ? 32 + letter : letter;
}
struct PrefixTable {
  std::array<uint8_t, kPrefixBuckets + 1> first{};  // first[n] .. first[n + 1] are the entries of bucket n.
  std::array<Known, kPrefixes.size()> entries{};
};
constexpr PrefixTable kPrefixTable = [] {
  PrefixTable table;
  uint8_t count = 0;
  for (size_t bucket = 0; bucket < kPrefixBuckets; ++bucket) {
    table.first[bucket] = count;
    for (const Known& prefix : kPrefixes) {
      if (PrefixBucket(prefix.name) == bucket) {
        table.entries[count++] = prefix;
      }
    }
  }
  table.first[kPrefixBuckets] = count;
  return table;
}();
// How much of a name is normalized to be compared.
constexpr size_t kLongestCompared = 32;
static_assert(std::all_of(kPrefixes.begin(), kPrefixes.end(),
                          [](const Known& prefix) { return prefix.name.size() <= kLongestCompared; }) &&
              kLongestKnown <= kLongestCompared);

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
  const size_t bucket = PrefixBucket(name);
  for (size_t i = kPrefixTable.first[bucket]; i < kPrefixTable.first[bucket + 1]; ++i) {
    if (name.starts_with(kPrefixTable.entries[i].name)) {
      return kPrefixTable.entries[i].id;
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
                             Bit(HeaderId::kSecFetch) | Bit(HeaderId::kSallyport) | Bit(HeaderId::kSallyportAccount) |
                             Bit(HeaderId::kSallyportAuthorization);
constexpr uint64_t kResponse =
    Bit(HeaderId::kSetCookie) | Bit(HeaderId::kWwwAuthenticate) | Bit(HeaderId::kAccessControl) |
    Bit(HeaderId::kServer) | Bit(HeaderId::kClearSiteData) | Bit(HeaderId::kStrictTransportSecurity) |
    Bit(HeaderId::kAltSvc) | Bit(HeaderId::kRefresh) | Bit(HeaderId::kContentSecurityPolicy) |
    Bit(HeaderId::kServiceWorkerAllowed) | Bit(HeaderId::kLink) | Bit(HeaderId::kNel) | Bit(HeaderId::kReportTo);

}  // namespace

bool ClassifyToken(std::string_view name, HeaderId& id) {
  char normal[kLongestCompared];
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

bool NamesConnectionAuthentication(std::string_view value) {
  static constexpr std::string_view kSchemes[] = {"negotiate", "ntlm", "kerberos", "nego2"};
  // Each element of the list may begin with a scheme. Quotes are not looked at: a comma in one is the rare exception,
  // and taking what follows for a scheme errs on the safe side.
  while (!value.empty()) {
    const size_t begin = value.find_first_not_of(" \t,");
    if (begin == std::string_view::npos) {
      return false;
    }
    value.remove_prefix(begin);
    const std::string_view scheme = value.substr(0, value.find_first_of(" \t,"));
    if (std::any_of(std::begin(kSchemes), std::end(kSchemes),
                    [scheme](std::string_view known) { return EqualIgnoreCase(scheme, known); })) {
      return true;
    }
    value.remove_prefix(std::min(value.find(','), value.size()));
  }
  return false;
}

bool IsHopByHop(HeaderId id) { return (kHopByHop & Bit(id)) != 0; }
bool IsAlwaysDropped(HeaderId id) { return (kAlways & Bit(id)) != 0; }
bool IsDroppedFromResponse(HeaderId id) { return (kResponse & Bit(id)) != 0; }

}  // namespace sallyport::edge

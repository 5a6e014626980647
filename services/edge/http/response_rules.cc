// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http/response_rules.h"

#include <algorithm>
#include <array>

#include "services/edge/http/header_rules.h"

namespace sallyport::edge {
namespace {

// Beside those that header_id.h knows. In the form of NormalNameByte, sorted.
constexpr std::array<std::string_view, 42> kSteering = {
    "accept-ch",
    "accept-ch-lifetime",
    "activate-storage-access",
    "content-disposition",
    "content-location",
    "critical-ch",
    "document-policy",
    "edge-control",
    "expect-ct",
    "expires",
    "feature-policy",
    "integrity-policy",
    "integrity-policy-report-only",
    "location",
    "no-vary-search",
    "observe-browsing-topics",
    "origin-agent-cluster",
    "origin-trial",
    "p3p",
    "permissions-policy",
    "permissions-policy-report-only",
    "pragma",
    "public-key-pins",
    "public-key-pins-report-only",
    "referrer-policy",
    "reporting-endpoints",
    "set-cookie2",
    "set-login",
    "sourcemap",
    "speculation-rules",
    "supports-loading-mode",
    "surrogate-control",
    "timing-allow-origin",
    "use-as-dictionary",
    "x-content-type-options",
    "x-dns-prefetch-control",
    "x-frame-options",
    "x-lighttpd-send-file",
    "x-litespeed-location",
    "x-sendfile",
    "x-sourcemap",
    "x-xss-protection",
};
static_assert(std::is_sorted(kSteering.begin(), kSteering.end()));
constexpr std::array<std::string_view, 6> kSteeringPrefixes = {"ad-auction-", "attribution-reporting-", "cross-origin-",
                                                               "sec-",        "secure-session-",        "x-accel-"};
// RFC 9213: "CDN-Cache-Control" and its like overrule Cache-Control in a cache in front of the gateway.
constexpr std::string_view kTargetedCache = "-cache-control";

constexpr size_t kLongest = 40;
static_assert(std::all_of(kSteering.begin(), kSteering.end(), [](auto name) { return name.size() <= kLongest; }));

bool Steers(std::string_view name) {
  char normal[kLongest];
  const size_t size = std::min(name.size(), kLongest);
  std::transform(name.begin(), name.begin() + static_cast<std::ptrdiff_t>(size), normal, NormalNameByte);
  const std::string_view head(normal, size);
  return (name.size() <= kLongest && std::binary_search(kSteering.begin(), kSteering.end(), head)) ||
         std::any_of(kSteeringPrefixes.begin(), kSteeringPrefixes.end(),
                     [head](std::string_view prefix) { return head.starts_with(prefix); }) ||
         (name.size() > kTargetedCache.size() &&
          EqualNames(name.substr(name.size() - kTargetedCache.size()), kTargetedCache));
}

bool IsNamedInConnection(const ResponseHead& head, std::string_view name) {
  const auto options = head.connection_options();
  return std::any_of(options.begin(), options.end(),
                     [name](std::string_view option) { return EqualNames(option, name); });
}

void AppendLine(std::string_view name, std::string_view value, std::string& out) {
  out += name;
  out += ": ";
  out += value;
  out += "\r\n";
}

}  // namespace

bool MayReachClient(const ResponseHead& head, const ResponseRules& rules, const HeaderField& field) {
  switch (field.id) {
    case HeaderId::kContentLength:
    case HeaderId::kContentType:
    case HeaderId::kCacheControl:
    case HeaderId::kXAccelBuffering:
      return false;
    case HeaderId::kContentEncoding:
      return !rules.without_body;
    case HeaderId::kDate:
      return true;  // Not for Connection to take away: the engine adds one only where there is none.
    case HeaderId::kWwwAuthenticate:
      return rules.keep_challenge;
    case HeaderId::kMcpSessionId:
      return !rules.drop_session_id;
    case HeaderId::kOther:
      return !Steers(field.name) && !IsNamedInConnection(head, field.name);
    default:
      return !IsHopByHop(field.id) && !IsDroppedFromResponse(field.id) && !IsNamedInConnection(head, field.name);
  }
}

void AppendResponseFields(const ResponseHead& head, const ResponseRules& rules, std::string& out) {
  // Not as it came: what is relayed has one of two types, and no parameter in which a reader could see another.
  const BodyType type = rules.without_body ? BodyType::kNone : head.body_type;
  if (type == BodyType::kJson) {
    out += "Content-Type: application/json\r\n";
  } else if (type == BodyType::kEventStream) {
    out += "Content-Type: text/event-stream\r\nX-Accel-Buffering: no\r\n";
  }
  for (const HeaderField& field : head.fields()) {
    if (MayReachClient(head, rules, field)) {
      const bool own_session = field.id == HeaderId::kMcpSessionId && !rules.session_id.empty();
      AppendLine(field.name, own_session ? rules.session_id : field.value, out);
    }
  }
  if (head.status == 401 && !rules.keep_challenge && !rules.own_challenge.empty()) {
    AppendLine("WWW-Authenticate", rules.own_challenge, out);
  }
  if (!rules.allowed_origin.empty()) {
    AppendLine("Access-Control-Allow-Origin", rules.allowed_origin, out);
    AppendLine("Access-Control-Expose-Headers", kCorsExposeHeaders, out);
    AppendLine("Vary", "Origin", out);
  }
}

}  // namespace sallyport::edge

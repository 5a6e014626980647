// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "common/http/field.h"

namespace sallyport::edge {

// Field names the gateway knows. A name is classified once, when it is parsed; every later question is about the
// number. Names compare case-insensitively and '_' counts as '-'.
enum class HeaderId : uint8_t {
  kOther,
  kAccept,
  kAcceptEncoding,
  kAccessControl,  // access-control-*
  kAltSvc,
  kAuthorization,
  kCacheControl,
  kClearSiteData,
  kConnection,
  kContentEncoding,
  kContentLength,
  kContentSecurityPolicy,  // content-security-policy*
  kContentType,
  kCookie,
  kDate,
  kExpect,
  kForwarded,
  kHost,
  kHttp2Settings,
  kIdentity,  // x-forwarded-user, remote-*, impersonate-*, ...: what a proxy in front says of its caller
  kKeepAlive,
  kLastEventId,
  kLink,
  kMcpMethod,
  kMcpName,
  kMcpProtocolVersion,
  kMcpSessionId,
  kNel,
  kOrigin,
  kPersistentAuth,
  kProxyAuthenticate,
  kProxyAuthorization,
  kProxyConnection,
  kReferer,
  kRefresh,
  kReportTo,
  kSallyport,               // x-sallyport-* but the next two
  kSallyportAccount,        // x-sallyport-account
  kSallyportAuthorization,  // x-sallyport-authorization
  kSecFetch,                // sec-fetch-*
  kServer,
  kServiceWorkerAllowed,
  kSetCookie,
  kStrictTransportSecurity,
  kTe,
  kTrailer,
  kTransferEncoding,
  kUpgrade,
  kUserAgent,
  kWwwAuthenticate,
  kXAccelBuffering,
  kXForwarded,  // x-forwarded-* but the next
  kXForwardedFor,
  kXForwardedProto,
  kXHttpMethodOverride,
  kXOriginalUrl,
  kXRealIp,
  kXRewriteUrl,
};

HeaderId ClassifyHeader(std::string_view name);

// Classifies and validates in one pass. False if `name` is not a token.
bool ClassifyToken(std::string_view name, HeaderId& id);

// Case-insensitive, '_' equal to '-'.
bool EqualNames(std::string_view a, std::string_view b);
// ASCII case-insensitive only.
bool EqualIgnoreCase(std::string_view a, std::string_view b);

// True if `value` (of Authorization, WWW-Authenticate or Proxy-Authenticate) names a scheme that authenticates the
// connection instead of the request (RFC 4559 and its relatives): whoever uses the connection next is the same caller.
bool NamesConnectionAuthentication(std::string_view value);

// One of kHopByHopFields.
bool IsHopByHop(HeaderId id);
// Never forwarded to an upstream, whatever the configuration says (beside hop-by-hop).
bool IsAlwaysDropped(HeaderId id);
// Never relayed from an upstream to a client (beside hop-by-hop).
bool IsDroppedFromResponse(HeaderId id);

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sallyport::registry {

// What the edge compiles; it serves nothing of a server with a longer name or glob. A vault record's name, which holds
// that of a header with a secret, has room for it too.
inline constexpr size_t kMaxHeaderName = 128;

// A header name that may be written: a token (RFC 9110 section 5.6.2) of at most kMaxHeaderName bytes, without '*',
// which would be a wildcard where names are compared.
bool IsHeaderName(std::string_view name);

// Names an outbound rule or an API key may not set: framing, routing, hop-by-hop, and those other parts own.
// X-Forwarded-User and X-Forwarded-Email are free: upstreams behind an authenticating proxy read them.
bool IsReservedOutboundName(std::string_view name);

// A scheme (RFC 9110 section 11.1) that authenticates the connection instead of the request. Connections to an upstream
// are shared by callers. White space around it does not matter.
bool IsConnectionScheme(std::string_view scheme);

// A prefix that is a scheme of Authorization alone ("Bearer", "Basic", "Token", however spelt) with the blank that
// parts it from what follows (RFC 9110 section 11.4); others as they are.
std::string WithSchemeSpace(const std::string& prefix);

// What may stand in restricted_inbound_headers: 1 to kMaxHeaderName token characters, '*' and '?'.
bool IsHeaderGlob(std::string_view glob);

}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "services/edge/http/request_head.h"

// What of an upstream's answer may reach a client.
namespace sallyport::edge {

// The field lines of every answer that is no page, so that no browser shows, runs, embeds or keeps what an upstream
// wrote under the gateway's origin. Cross-Origin-Resource-Policy concerns requests without CORS only (Fetch,
// "cross-origin resource policy check"): clients at allowed origins are not affected.
inline constexpr std::string_view kNoPageFields =
    "X-Content-Type-Options: nosniff\r\n"
    "Content-Security-Policy: sandbox; default-src 'none'; frame-ancestors 'none'\r\n"
    "Cross-Origin-Resource-Policy: same-origin\r\n"
    "Cache-Control: no-store, no-transform\r\n";

struct ResponseRules {
  // Our CORS answer: the caller's Origin if it is allowed, else empty.
  std::string_view allowed_origin;
  // Replaces the upstream's Mcp-Session-Id; empty: left as it is.
  std::string_view session_id;
  bool drop_session_id = false;
  // Passthrough in and out: the upstream's challenge is the caller's to answer.
  bool keep_challenge = false;
  // Stands in a 401 in place of a challenge that is not kept; empty: nothing does.
  std::string_view own_challenge;
  // No body is relayed, so nothing is said of its type and encoding.
  bool without_body = false;
};

// False for fields by which a server steers a browser or a proxy in front of the gateway ("Location",
// "X-Accel-Redirect", …), for connection fields, and for what the rules or the gateway decide: framing, type and
// caching.
bool MayReachClient(const ResponseHead& head, const ResponseRules& rules, const HeaderField& field);

// Appends the fields that may reach the client, the type of a body of a known type, and CORS. Framing fields,
// Connection, a missing Date and what every answer carries are the engine's (Exchange::SetCommonFields). An event
// stream gets X-Accel-Buffering: no.
void AppendResponseFields(const ResponseHead& head, const ResponseRules& rules, std::string& out);

}  // namespace sallyport::edge

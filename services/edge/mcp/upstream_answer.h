// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "services/edge/http/request_head.h"
#include "services/edge/http/upstream_target.h"

// What an upstream's answer may become for a client. An upstream is not trusted with a byte that a browser would take
// for a page of the gateway.
namespace sallyport::edge {

enum class AnswerKind : uint8_t {
  kRelayed,   // JSON or an event stream; or no body, whatever its type.
  kAccepted,  // 202: its body, if there is one, is dropped.
  kBodiless,  // Of another type or none: may be relayed only if there turns out to be no body.
  kRedirect,  // 3xx: never followed, never relayed.
};
AnswerKind KindOf(const ResponseHead& head);

// For error messages; nothing of the upstream's but short, harmless characters of a type, origin or path.
// "text/html", "no Content-Type", "more than one Content-Type", …
std::string DescribeType(const ResponseHead& head);
// What came and what to do about it. Of the Location only origin and path: query, fragment and path parameters may hold
// secrets. Nothing of it where the target itself is one.
std::string DescribeRedirect(const ResponseHead& head, const UpstreamTarget& target);

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace sallyport::registry {

// Names an outbound rule or an API key may not set: framing, routing, hop-by-hop, and those other parts own.
bool IsReservedOutboundName(std::string_view name);

// What may stand in restricted_inbound_headers: token characters, '*' and '?'.
bool IsHeaderGlob(std::string_view glob);

}  // namespace sallyport::registry

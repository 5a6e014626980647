// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/strings/string_view.h"

namespace sallyport::registry {

// Lower case, '_' as '-': how header names are compared everywhere, so that X_Internal_A is X-Internal-A.
std::string NormalizeHeaderName(absl::string_view name);

// RFC 9110 section 5.6.2.
bool IsToken(absl::string_view text);

// RFC 9110 section 5.5, without obsolete line folding: no CR, LF, NUL, no leading or trailing white space.
bool IsFieldValue(absl::string_view text);

// Names an outbound rule or an API key may not set: framing, routing, hop-by-hop, and those other parts own.
bool IsReservedOutboundName(absl::string_view name);

// What may stand in restricted_inbound_headers: token characters, '*' and '?'.
bool IsHeaderGlob(absl::string_view glob);

}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "services/edge/http/request_head.h"

namespace sallyport::edge {

// What one Content-Type field says (RFC 9110 section 8.3.1). kJson and kEventStream only if every reader must agree on
// that: a list of types, an unbalanced quote or a charset in which the bytes would mean something else is kOther. Other
// parameters do not matter.
BodyType ReadContentType(std::string_view value);

}  // namespace sallyport::edge

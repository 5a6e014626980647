// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace sallyport::edge {

// Whether `credentials` (the value of an Authorization header) hold a token that this gateway issued, in whatever
// scheme and behind whatever separator: an upstream might find it there. `issuer` is the gateway's own; a JWT's is read
// without verification.
bool HoldsOurToken(std::string_view credentials, const std::string& issuer);

}  // namespace sallyport::edge

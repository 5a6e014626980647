// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace sallyport::token_broker {

// When a JWT ends, from its `exp` (RFC 7519 section 4.1.4); nothing is verified. InfiniteFuture if it does not say, or
// if it is no JWT.
absl::Time JwtExpiry(absl::string_view jwt);

}  // namespace sallyport::token_broker

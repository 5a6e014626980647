// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sallyport {

// RFC 4648 section 6 in lower case (a-z2-7), without padding.
std::string Base32Encode(absl::string_view bytes);
// Strict: lower case only, no padding, zero trailing bits; else INVALID_ARGUMENT.
absl::StatusOr<std::string> Base32Decode(absl::string_view text);

}  // namespace sallyport

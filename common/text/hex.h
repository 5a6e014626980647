// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sallyport {

// Lower case.
std::string HexEncode(absl::string_view bytes);
// Either case; INVALID_ARGUMENT for an odd length or another character.
absl::StatusOr<std::string> HexDecode(absl::string_view text);

}  // namespace sallyport

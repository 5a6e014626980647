// SPDX-License-Identifier: Apache-2.0
#include "common/text/hex.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"

namespace sallyport {

std::string HexEncode(absl::string_view bytes) { return absl::BytesToHexString(bytes); }

absl::StatusOr<std::string> HexDecode(absl::string_view text) {
  if (text.size() % 2 != 0) return absl::InvalidArgumentError("hex: odd length");
  // Abseil reads any other character as some digit.
  if (!std::all_of(text.begin(), text.end(), absl::ascii_isxdigit)) {
    return absl::InvalidArgumentError("hex: not a hexadecimal digit");
  }
  return absl::HexStringToBytes(text);
}

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sallyport {

// RFC 4648 section 5, without padding.
std::string Base64UrlEncode(absl::string_view bytes);
// Strict: INVALID_ARGUMENT for padding, whitespace, the other alphabet, an impossible length or non-zero trailing bits,
// so that every value has exactly one encoding.
absl::StatusOr<std::string> Base64UrlDecode(absl::string_view text);

// RFC 4648 section 4, with padding.
std::string Base64Encode(absl::string_view bytes);
// Strict: padding required, no whitespace, zero trailing bits.
absl::StatusOr<std::string> Base64Decode(absl::string_view text);

// RFC 4648 section 4 alphabet without padding, as in password hashes.
std::string Base64EncodeUnpadded(absl::string_view bytes);
absl::StatusOr<std::string> Base64DecodeUnpadded(absl::string_view text);

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace sallyport {

// RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF.
bool IsValidUtf8(absl::string_view text);

// Length of the character that `text` begins with; 0 if it begins with none.
size_t Utf8CharacterSize(absl::string_view text);

// The first `max_bytes` of UTF-8, less what would be half a character.
absl::string_view Utf8Prefix(absl::string_view text, size_t max_bytes);

// Text of strangers as it may be shown beside ours, on a terminal and elsewhere: one line, at most `max_bytes` (what is
// longer ends in "…"). Control characters, characters that reorder or hide text, and bytes that are no UTF-8 become
// U+FFFD each.
std::string PlainText(absl::string_view text, size_t max_bytes);

}  // namespace sallyport

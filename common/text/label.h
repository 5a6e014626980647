// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/string_view.h"

namespace sallyport {

inline constexpr size_t kMaxLabel = 64;

// 1 to 64 of letters, digits and "._@+-": a name that people choose, and that can stand in a path, a header and a key
// without being escaped.
inline bool IsLabel(absl::string_view text) {
  return !text.empty() && text.size() <= kMaxLabel && std::all_of(text.begin(), text.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
           absl::string_view("._@+-").find(c) != absl::string_view::npos;
  });
}

}  // namespace sallyport

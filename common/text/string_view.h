// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "absl/strings/string_view.h"

namespace sallyport {

// Debian's Abseil has its own string_view, which does not convert to or from the standard's.
inline std::string_view ToStd(absl::string_view view) { return {view.data(), view.size()}; }
inline absl::string_view ToAbsl(std::string_view view) { return {view.data(), view.size()}; }

}  // namespace sallyport

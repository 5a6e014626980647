// SPDX-License-Identifier: Apache-2.0
#include "services/registry/header_names.h"

#include <algorithm>
#include <array>
#include <string>

#include "common/http_field.h"

namespace sallyport::registry {

bool IsHeaderName(std::string_view name) {
  return name.size() <= kMaxHeaderName && IsToken(name) && name.find('*') == std::string_view::npos;
}

bool IsReservedOutboundName(std::string_view name) {
  static constexpr std::array<std::string_view, 6> kReserved = {"host",   "content-length", "content-type",
                                                                "expect", "forwarded",      "accept"};
  const std::string normalized = NormalizeFieldName(name);
  return IsHopByHopField(normalized) || std::find(kReserved.begin(), kReserved.end(), normalized) != kReserved.end() ||
         normalized.starts_with("x-forwarded-") || normalized.starts_with("mcp-") ||
         normalized.starts_with("x-sallyport-") || normalized.starts_with(":");
}

bool IsHeaderGlob(std::string_view glob) {
  return !glob.empty() && glob.size() <= kMaxHeaderName &&
         std::all_of(glob.begin(), glob.end(), [](char c) { return IsTokenChar(c) || c == '?'; });
}

}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#include "services/registry/header_names.h"

#include <algorithm>
#include <array>
#include <string>

#include "common/http/field.h"

namespace sallyport::registry {

bool IsHeaderName(std::string_view name) {
  return name.size() <= kMaxHeaderName && IsToken(name) && name.find('*') == std::string_view::npos;
}

bool IsReservedOutboundName(std::string_view name) {
  static constexpr std::array<std::string_view, 6> kReserved = {"host",   "content-length", "content-type",
                                                                "expect", "forwarded",      "accept"};
  const std::string normalized = NormalizeFieldName(name);
  if (normalized == "x-forwarded-user" || normalized == "x-forwarded-email") return false;
  return IsHopByHopField(normalized) || std::find(kReserved.begin(), kReserved.end(), normalized) != kReserved.end() ||
         normalized.starts_with("x-forwarded-") || normalized.starts_with("mcp-") ||
         normalized.starts_with("x-sallyport-") || normalized.starts_with(":");
}

bool IsConnectionScheme(std::string_view scheme) {
  static constexpr std::array<std::string_view, 4> kSchemes = {"kerberos", "nego2", "negotiate", "ntlm"};
  const size_t begin = std::min(scheme.find_first_not_of(" \t"), scheme.size());
  const std::string normalized = NormalizeFieldName(scheme.substr(begin, scheme.find_last_not_of(" \t") + 1 - begin));
  return std::find(kSchemes.begin(), kSchemes.end(), normalized) != kSchemes.end();
}

std::string WithSchemeSpace(const std::string& prefix) {
  static constexpr std::array<std::string_view, 3> kSchemes = {"basic", "bearer", "token"};
  const bool is_scheme = std::find(kSchemes.begin(), kSchemes.end(), NormalizeFieldName(prefix)) != kSchemes.end();
  return is_scheme ? prefix + " " : prefix;
}

bool IsHeaderGlob(std::string_view glob) {
  return !glob.empty() && glob.size() <= kMaxHeaderName &&
         std::all_of(glob.begin(), glob.end(), [](char c) { return IsTokenChar(c) || c == '?'; });
}

}  // namespace sallyport::registry

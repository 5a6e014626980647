// SPDX-License-Identifier: Apache-2.0
#include "services/registry/header_names.h"

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace sallyport::registry {
namespace {

bool IsTokenChar(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
         absl::string_view("!#$%&'*+-.^_`|~").find(c) != absl::string_view::npos;
}

}  // namespace

std::string NormalizeHeaderName(absl::string_view name) {
  std::string normalized = absl::AsciiStrToLower(name);
  std::replace(normalized.begin(), normalized.end(), '_', '-');
  return normalized;
}

bool IsToken(absl::string_view text) { return !text.empty() && std::all_of(text.begin(), text.end(), IsTokenChar); }

bool IsFieldValue(absl::string_view text) {
  if (text.empty()) return true;
  const auto blank = [](char c) { return c == ' ' || c == '\t'; };
  if (blank(text.front()) || blank(text.back())) return false;
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte >= 0x20 && byte != 0x7f) || byte == '\t';
  });
}

bool IsReservedOutboundName(absl::string_view name) {
  static constexpr std::array<absl::string_view, 14> kReserved = {
      "host",    "content-length", "content-type",      "connection", "keep-alive", "proxy-connection",   "te",
      "trailer", "upgrade",        "transfer-encoding", "expect",     "forwarded",  "proxy-authenticate", "accept"};
  const std::string normalized = NormalizeHeaderName(name);
  return std::find(kReserved.begin(), kReserved.end(), normalized) != kReserved.end() ||
         absl::StartsWith(normalized, "x-forwarded-") || absl::StartsWith(normalized, "mcp-") ||
         absl::StartsWith(normalized, "x-sallyport-") || absl::StartsWith(normalized, ":");
}

bool IsHeaderGlob(absl::string_view glob) {
  return !glob.empty() && glob.size() <= 256 &&
         std::all_of(glob.begin(), glob.end(), [](char c) { return IsTokenChar(c) || c == '?'; });
}

}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/request_credentials.h"

#include <algorithm>

namespace sallyport::edge {
namespace {

std::string_view TrimBlanks(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

bool IsVisibleAscii(char byte) { return byte > 0x20 && byte < 0x7f; }

bool IsTokenByte(char byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
         std::string_view("-._~+/").find(byte) != std::string_view::npos;
}

}  // namespace

std::string_view BearerOf(const RequestHead& head) {
  const HeaderField* field = head.Find(HeaderId::kAuthorization);
  if (field == nullptr) return {};
  const size_t space = field->value.find(' ');
  if (space == std::string_view::npos || !EqualIgnoreCase(field->value.substr(0, space), "bearer")) return {};
  return TrimBlanks(field->value.substr(space + 1));
}

bool IsBearerToken(std::string_view token) {
  const size_t last = token.find_last_not_of('=');
  if (last == std::string_view::npos) return false;
  return std::all_of(token.begin(), token.begin() + static_cast<std::ptrdiff_t>(last) + 1, IsTokenByte);
}

std::string CookiesOf(const RequestHead& head) {
  std::string cookies;
  for (const HeaderField& field : head.fields()) {
    if (field.id != HeaderId::kCookie) continue;
    for (std::string_view rest = field.value; !rest.empty();) {
      const size_t end = std::min(rest.find(';'), rest.size());
      const std::string_view pair = TrimBlanks(rest.substr(0, end));
      rest.remove_prefix(std::min(end + 1, rest.size()));
      if (pair.empty() || !std::all_of(pair.begin(), pair.end(), IsVisibleAscii)) continue;
      if (!cookies.empty()) cookies += "; ";
      cookies += pair;
    }
  }
  return cookies;
}

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/own_token.h"

#include <algorithm>

#include "common/text/base64url.h"
#include "common/text/json.h"
#include "common/text/string_view.h"

namespace sallyport::edge {
namespace {

// A token of ours on a Passthrough server would travel upstream: its issuer, read without verification, gives it away.
bool IsOurToken(std::string_view token, const std::string& issuer) {
  if (token.starts_with("spr_") || token.starts_with("spa_")) return true;
  const size_t first = token.find('.');
  const size_t second = first == std::string_view::npos ? first : token.find('.', first + 1);
  if (second == std::string_view::npos) return false;
  const auto payload = Base64UrlDecode(ToAbsl(token.substr(first + 1, second - first - 1)));
  if (!payload.ok()) return false;
  const auto claims = ParseJson(*payload);
  return claims.ok() && claims->is_object() && claims->contains("iss") && (*claims)["iss"] == issuer;
}

}  // namespace

bool HoldsOurToken(std::string_view credentials, const std::string& issuer) {
  constexpr std::string_view kSeparators = " \t,;=\"";
  while (!credentials.empty()) {
    const size_t end = std::min(credentials.find_first_of(kSeparators), credentials.size());
    if (end > 0 && IsOurToken(credentials.substr(0, end), issuer)) return true;
    credentials.remove_prefix(std::min(end + 1, credentials.size()));
  }
  return false;
}

}  // namespace sallyport::edge

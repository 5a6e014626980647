// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/jwt_expiry.h"

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"

#include "common/text/base64url.h"
#include "common/text/json.h"

namespace sallyport::token_broker {
namespace {

// The year 9999: what a Timestamp can hold.
constexpr double kMaxSeconds = 253'402'300'799;

}  // namespace

absl::Time JwtExpiry(absl::string_view jwt) {
  const std::vector<absl::string_view> parts = absl::StrSplit(jwt, '.');
  if (parts.size() != 3) {
    return absl::InfiniteFuture();
  }
  const absl::StatusOr<std::string> payload = Base64UrlDecode(parts[1]);
  if (!payload.ok()) {
    return absl::InfiniteFuture();
  }
  const absl::StatusOr<nlohmann::json> claims = ParseJsonObject(*payload);
  const nlohmann::json* exp = claims.ok() ? JsonMember(*claims, "exp") : nullptr;
  if (exp == nullptr || !exp->is_number()) {
    return absl::InfiniteFuture();
  }
  const double seconds = std::floor(exp->get<double>());
  return std::isfinite(seconds) && std::abs(seconds) <= kMaxSeconds
             ? absl::FromUnixSeconds(static_cast<int64_t>(seconds))
             : absl::InfiniteFuture();
}

}  // namespace sallyport::token_broker

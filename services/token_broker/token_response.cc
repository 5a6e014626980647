// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/token_response.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

#include "common/json.h"
#include "common/oauth/error.h"
#include "common/url.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kMaxLifetime = absl::Hours(24 * 366);
constexpr absl::Duration kMaxRetryAfter = absl::Hours(24);
constexpr size_t kMaxToken = 32 << 10;
// A refresh token that came with a refresh replaces one that may be dead: kept as long as it can be stored at all.
constexpr size_t kMaxRotatedToken = 60 << 10;

struct ErrorRule {
  const char* code;
  ProviderFailure failure;
};
// Exact codes only. Everything else says nothing about the grant.
constexpr ErrorRule kErrorRules[] = {
    {oauth::kInvalidGrant, ProviderFailure::kInvalidGrant},
    {oauth::kInteractionRequired, ProviderFailure::kInteractionRequired},
    {oauth::kLoginRequired, ProviderFailure::kInteractionRequired},
    {oauth::kConsentRequired, ProviderFailure::kInteractionRequired},
    {oauth::kInvalidClient, ProviderFailure::kClientRejected},
    {oauth::kUnauthorizedClient, ProviderFailure::kClientRejected},
    {"slow_down", ProviderFailure::kRateLimited},
};

// A code that may be logged, audited and shown.
std::string SafeCode(absl::string_view code) {
  const bool safe = !code.empty() && code.size() <= 64 && std::all_of(code.begin(), code.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
  });
  return safe ? std::string(code) : "unreadable_error";
}

nlohmann::json FromForm(absl::string_view body) {
  nlohmann::json object = nlohmann::json::object();
  if (absl::StatusOr<std::map<std::string, std::string>> fields = FormDecodeUnique(body); fields.ok()) {
    for (auto& [name, value] : *fields) {
      object[name] = std::move(value);
    }
  }
  return object;
}

ProviderError Odd(std::string code) { return {.failure = ProviderFailure::kUnavailable, .code = std::move(code)}; }

// False if it is there and makes no sense. Some providers send it as a string.
bool ReadExpiresIn(const nlohmann::json& object, std::optional<absl::Duration>* expires_in) {
  const nlohmann::json* member = JsonMember(object, "expires_in");
  if (member == nullptr || member->is_null()) {
    return true;
  }
  double seconds = -1;
  if (member->is_number()) {
    seconds = member->get<double>();
  } else if (!member->is_string() || !absl::SimpleAtod(member->get_ref<const std::string&>(), &seconds)) {
    return false;
  }
  if (!std::isfinite(seconds) || seconds <= 0 || seconds > absl::ToDoubleSeconds(kMaxLifetime)) {
    return false;
  }
  *expires_in = absl::Seconds(std::floor(seconds));
  return true;
}

std::optional<std::vector<std::string>> ReadScopes(const nlohmann::json& object) {
  const std::optional<std::string> scope = JsonString(object, "scope");
  if (!scope.has_value()) {
    return std::nullopt;
  }
  // RFC 6749 section 3.3 says spaces; some providers answer with commas.
  return absl::StrSplit(*scope, absl::ByAnyChar(" ,"), absl::SkipEmpty());
}

Secret ReadToken(const nlohmann::json& object, const char* name, size_t max_bytes = kMaxToken) {
  std::optional<std::string> token = JsonString(object, name);
  return token.has_value() && token->size() <= max_bytes ? Secret(std::move(*token)) : Secret();
}

bool IsHeaderSafe(absl::string_view token) {
  return std::all_of(token.begin(), token.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

TokenResult ReadTokens(GrantKind kind, const nlohmann::json& object) {
  const bool refresh = kind == GrantKind::kRefresh;
  TokenAnswer answer;
  answer.access_token = ReadToken(object, "access_token");
  answer.refresh_token = ReadToken(object, "refresh_token", refresh ? kMaxRotatedToken : kMaxToken);
  answer.id_token = ReadToken(object, "id_token");
  answer.scopes = ReadScopes(object);
  if (!IsHeaderSafe(answer.access_token.Expose())) {
    answer.access_token = Secret();
  }
  if (answer.access_token.empty() && (!refresh || answer.refresh_token.empty())) {
    return Odd("no_access_token");
  }
  const bool expires_in_ok = ReadExpiresIn(object, &answer.expires_in);
  if (refresh) {
    return answer;
  }
  const std::string type = JsonString(object, "token_type").value_or("Bearer");
  if (!absl::EqualsIgnoreCase(type, "bearer")) {
    return Odd("unsupported_token_type");
  }
  if (!expires_in_ok) {
    return Odd("bad_expires_in");
  }
  return answer;
}

}  // namespace

ProviderFailure ClassifyError(int http_status, absl::string_view code) {
  if (http_status == 429) {
    return ProviderFailure::kRateLimited;
  }
  if (http_status >= 500) {
    return ProviderFailure::kUnavailable;
  }
  for (const ErrorRule& rule : kErrorRules) {
    if (code == rule.code) {
      return rule.failure;
    }
  }
  return ProviderFailure::kUnavailable;
}

absl::Duration ParseRetryAfter(absl::string_view value, absl::Time now) {
  absl::Duration after = absl::ZeroDuration();
  if (int64_t seconds = 0; absl::SimpleAtoi(value, &seconds)) {
    after = absl::Seconds(std::clamp<int64_t>(seconds, 0, 86'400));
  } else if (absl::Time date; absl::ParseTime("%a, %d %b %Y %H:%M:%S GMT", value, &date, nullptr)) {
    after = date - now;
  }
  return std::clamp(after, absl::ZeroDuration(), kMaxRetryAfter);
}

TokenResult ParseTokenResponse(GrantKind kind, int http_status, absl::string_view media_type, absl::string_view body,
                               absl::Duration retry_after) {
  nlohmann::json object;
  if (media_type == "application/x-www-form-urlencoded") {
    object = FromForm(body);
  } else if (absl::StatusOr<nlohmann::json> parsed =
                 ParseJsonObject(body, {.max_bytes = 256 << 10, .max_depth = 16, .max_keys = 1000});
             parsed.ok()) {
    object = *std::move(parsed);
  }
  std::string code;
  if (std::optional<std::string> error = JsonString(object, "error"); error.has_value() && !error->empty()) {
    code = *std::move(error);
  } else if (JsonBool(object, "ok") == false) {
    code = "ok_false";
  }
  // RFC 6749 section 5.1 says 200. A refresh that some other 2xx answers has happened all the same.
  const bool success = http_status == 200 || (kind == GrantKind::kRefresh && http_status / 100 == 2);
  if (success && code.empty()) {
    return object.is_object() ? ReadTokens(kind, object) : TokenResult(Odd("malformed_answer"));
  }
  ProviderError error{.failure = ClassifyError(http_status, code), .retry_after = retry_after};
  error.code = code.empty() ? absl::StrCat("http_", http_status) : SafeCode(code);
  return error;
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/token_response.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/http/url.h"
#include "common/oauth/claims_parameter.h"
#include "common/oauth/error.h"
#include "common/text/json.h"
#include "services/token_broker/freshness.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kMaxRetryAfter = absl::Hours(24);
constexpr size_t kMaxToken = 32 << 10;
// A refresh token that came with a refresh replaces one that may be dead: kept as long as it can be stored at all.
constexpr size_t kMaxRotatedToken = 60 << 10;

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

// Nothing where it makes no sense: no lifetime is worth failing a link for. Some providers send it as a string.
std::optional<absl::Duration> ReadExpiresIn(const nlohmann::json& object) {
  const nlohmann::json* member = JsonMember(object, "expires_in");
  double seconds = 0;
  if (member != nullptr && member->is_number()) {
    seconds = member->get<double>();
  } else if (member == nullptr || !member->is_string() ||
             !absl::SimpleAtod(member->get_ref<const std::string&>(), &seconds)) {
    return std::nullopt;
  }
  if (!std::isfinite(seconds) || seconds < 1 || seconds > absl::ToDoubleSeconds(kMaxTokenLifetime)) {
    return std::nullopt;
  }
  return absl::Seconds(std::floor(seconds));
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

enum class TokenType { kBearer, kBound, kOther };

// RFC 6749 section 7.1. Slack names the kind of account it belongs to.
TokenType ReadTokenType(const nlohmann::json& object) {
  const std::string type = absl::AsciiStrToLower(JsonString(object, "token_type").value_or(""));
  if (type.empty() || type == "bearer" || type == "user" || type == "bot") {
    return TokenType::kBearer;
  }
  // Good only with a proof that is not made here (RFC 9449, RFC 6749 section 7.1).
  return type == "dpop" || type == "pop" || type == "mac" ? TokenType::kBound : TokenType::kOther;
}

TokenResult ReadTokens(GrantKind kind, const nlohmann::json& object) {
  const bool refresh = kind == GrantKind::kRefresh;
  TokenAnswer answer;
  answer.access_token = ReadToken(object, "access_token");
  answer.refresh_token = ReadToken(object, "refresh_token", refresh ? kMaxRotatedToken : kMaxToken);
  answer.id_token = ReadToken(object, "id_token");
  answer.scopes = ReadScopes(object);
  answer.expires_in = ReadExpiresIn(object);
  answer.issued_token_type = JsonString(object, "issued_token_type").value_or("");
  const TokenType type = ReadTokenType(object);
  const bool usable = type == TokenType::kBearer || (refresh && type == TokenType::kOther);
  if (!usable && !refresh) {
    return Odd("unsupported_token_type");
  }
  if (!usable || !IsHeaderSafe(answer.access_token.Expose())) {
    answer.access_token = Secret();
  }
  if (answer.access_token.empty() && (!refresh || answer.refresh_token.empty())) {
    return ProviderError{.failure = refresh ? ProviderFailure::kNoAccessToken : ProviderFailure::kUnavailable,
                         .code = usable ? "no_access_token" : "unsupported_token_type"};
  }
  return answer;
}

}  // namespace

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
  TokenErrorAnswer refused{.http_status = http_status};
  if (std::optional<std::string> error = JsonString(object, "error"); error.has_value() && !error->empty()) {
    refused.code = *std::move(error);
  } else if (JsonBool(object, "ok") == false) {
    refused.code = "ok_false";
  }
  // RFC 6749 section 5.1 says 200. A refresh that some other 2xx answers has happened all the same.
  const bool success = http_status == 200 || (kind == GrantKind::kRefresh && http_status / 100 == 2);
  if (success && refused.code.empty()) {
    return object.is_object() ? ReadTokens(kind, object) : TokenResult(Odd("malformed_answer"));
  }
  refused.suberror = JsonString(object, "suberror").value_or("");
  refused.description = JsonString(object, "error_description").value_or("");
  refused.html = media_type == "text/html" || absl::StartsWith(absl::StripLeadingAsciiWhitespace(body), "<");
  ProviderError error{.failure = ClassifyError(kind, refused), .retry_after = retry_after};
  error.code = refused.code.empty() ? absl::StrCat("http_", http_status) : oauth::SafeErrorCode(refused.code);
  if (error.failure == ProviderFailure::kInteractionRequired) {
    error.claims = oauth::ClaimsParameter(JsonString(object, "claims").value_or(""));
  }
  error.blames_refresh_token = error.failure == ProviderFailure::kGrantDoubted &&
                               (BlamesRefreshToken(refused.code) || BlamesRefreshToken(refused.description));
  return error;
}

}  // namespace sallyport::token_broker

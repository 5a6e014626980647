// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/token_error.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

#include "common/oauth/error.h"
#include "services/token_broker/provider_trouble.h"

namespace sallyport::token_broker {
namespace {

struct ErrorRule {
  const char* code;
  ProviderFailure failure;
};
// Exact codes only, whatever the status. The second half says that it will pass; some providers send it with status
// 200.
constexpr ErrorRule kErrorRules[] = {
    {oauth::kInvalidGrant, ProviderFailure::kInvalidGrant},
    {oauth::kInteractionRequired, ProviderFailure::kInteractionRequired},
    {oauth::kLoginRequired, ProviderFailure::kInteractionRequired},
    {oauth::kConsentRequired, ProviderFailure::kInteractionRequired},
    {oauth::kInvalidClient, ProviderFailure::kClientRejected},
    {"slow_down", ProviderFailure::kRateLimited},
    {"ratelimited", ProviderFailure::kRateLimited},
    {"rate_limited", ProviderFailure::kRateLimited},
    {"rate_limit_exceeded", ProviderFailure::kRateLimited},
    {"too_many_requests", ProviderFailure::kRateLimited},
    {oauth::kTemporarilyUnavailable, ProviderFailure::kUnavailable},
    {oauth::kServerError, ProviderFailure::kUnavailable},
    {"service_unavailable", ProviderFailure::kUnavailable},
    {"internal_error", ProviderFailure::kUnavailable},
    {"internal_server_error", ProviderFailure::kUnavailable},
    {"fatal_error", ProviderFailure::kUnavailable},
    {"request_timeout", ProviderFailure::kUnavailable},
};

constexpr const char* kFaults[] = {"invalid",   "expired",   "revoked",      "unknown",  "not found",      "not valid",
                                   "inactive",  "reused",    "reuse",        "consumed", "malformed",      "not exist",
                                   "no longer", "been used", "already used", "bad ",     "not recognized", "issued to"};

// Microsoft Entra says invalid_grant of grants that give a token once their user has agreed, or proved more.
bool WantsUser(const TokenErrorAnswer& answer) {
  static constexpr absl::string_view kSuberrors[] = {"consent_required", "basic_action", "additional_action"};
  return answer.code == oauth::kInvalidGrant &&
         (std::find(std::begin(kSuberrors), std::end(kSuberrors), answer.suberror) != std::end(kSuberrors) ||
          absl::StartsWith(answer.description, "AADSTS65001"));
}

}  // namespace

bool BlamesRefreshToken(absl::string_view text) {
  std::string words = absl::AsciiStrToLower(text.substr(0, 1024));
  std::replace_if(
      words.begin(), words.end(), [](char c) { return c == '_' || c == '-'; }, ' ');
  const bool names_it = absl::StrContains(words, "refresh token") || absl::StrContains(words, "refreshtoken");
  const bool of_grant_type = absl::StrContains(words, "grant type") || absl::StrContains(words, "granttype");
  const bool of_client = absl::StrContains(words, "client") && !absl::StrContains(words, "issued to");
  return names_it && !of_grant_type && !of_client &&
         std::any_of(std::begin(kFaults), std::end(kFaults),
                     [&](const char* fault) { return absl::StrContains(words, fault); });
}

ProviderFailure ClassifyError(GrantKind kind, const TokenErrorAnswer& answer) {
  if (answer.http_status == 429) {
    return ProviderFailure::kRateLimited;
  }
  if (answer.http_status >= 500) {
    return ProviderFailure::kUnavailable;
  }
  // Not of a refresh: there it ends the sign-in, and the next one asks for whatever it takes.
  if (kind == GrantKind::kCode && WantsUser(answer)) {
    return ProviderFailure::kInteractionRequired;
  }
  for (const ErrorRule& rule : kErrorRules) {
    if (answer.code == rule.code) {
      return rule.failure;
    }
  }
  if (kind == GrantKind::kCode || RejectsClient(answer.code)) {
    return ProviderFailure::kUnavailable;
  }
  const bool of_this_grant = answer.code == oauth::kUnauthorizedClient || BlamesRefreshToken(answer.code) ||
                             (answer.http_status == 403 && !answer.html) ||
                             (answer.http_status / 100 == 2 && !answer.code.empty());
  return of_this_grant ? ProviderFailure::kGrantDoubted : ProviderFailure::kUnavailable;
}

}  // namespace sallyport::token_broker

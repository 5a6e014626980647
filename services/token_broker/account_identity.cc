// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/account_identity.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/error.h"
#include "common/http/url.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "common/text/json.h"
#include "common/text/utf8.h"
#include "services/token_broker/account_rules.h"
#include "services/token_broker/provider_binding.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(5);
constexpr size_t kMaxAnswer = 64 << 10;
constexpr JsonLimits kLimits = {.max_bytes = kMaxAnswer, .max_depth = 16, .max_keys = 2000};
constexpr size_t kMaxId = 256;
constexpr size_t kMaxName = 128;
constexpr size_t kMaxEmail = 254;

constexpr CounterInfo kQuestions = {
    .name = "sallyport_broker_account_questions_total",
    .help = "Questions to providers which account was linked",
    .unit = "questions",
    .labels = {{"outcome", "answered, failed"}},
    .rise = "failed: the provider did not say, or the app's `account` setting does not fit its answer",
    .action = "The log event `account_not_known` says which app and why",
};

prometheus::Counter& Questions(const std::string& outcome) { return MetricCounter(kQuestions, {{"outcome", outcome}}); }

// The member that a path leads to: "data.user.id". Null if there is none.
const nlohmann::json* MemberAt(const nlohmann::json& object, const std::string& path) {
  const nlohmann::json* member = &object;
  for (const std::string& name : std::vector<std::string>(absl::StrSplit(path, '.'))) {
    member = member->is_object() ? JsonMember(*member, name.c_str()) : nullptr;
    if (member == nullptr) {
      return nullptr;
    }
  }
  return member;
}

// A string, or a number that is whole and exact: one that was rounded would be several accounts' id.
std::string TextAt(const nlohmann::json& object, const std::string& path) {
  const nlohmann::json* member = MemberAt(object, path);
  if (member == nullptr) {
    return "";
  }
  if (member->is_number_unsigned()) {
    return absl::StrCat(member->get<uint64_t>());
  }
  if (member->is_number_integer()) {
    return absl::StrCat(member->get<int64_t>());
  }
  return member->is_string() ? member->get<std::string>() : "";
}

std::string Or(const std::string& configured, const char* standard) {
  return configured.empty() ? standard : configured;
}

// OpenID Connect Core section 3.1.3.7: it came from the token endpoint itself, so that TLS stands for its signature.
absl::StatusOr<nlohmann::json> ClaimsOf(const Secret& id_token, const Provider& provider) {
  const std::vector<absl::string_view> parts = absl::StrSplit(id_token.Expose(), '.');
  if (parts.size() != 3) {
    return absl::NotFoundError("no_id_token");
  }
  ASSIGN_OR_RETURN(const std::string payload, Base64UrlDecode(parts[1]));
  ASSIGN_OR_RETURN(nlohmann::json claims, ParseJsonObject(payload, kLimits));
  if (!provider.issuer.empty() && JsonString(claims, "iss") != provider.issuer) {
    return absl::InvalidArgumentError("id_token_issuer");
  }
  const std::optional<std::string> audience = JsonString(claims, "aud");
  const std::vector<std::string> audiences = audience.has_value()
                                                 ? std::vector<std::string>{*audience}
                                                 : JsonStrings(claims, "aud").value_or(std::vector<std::string>());
  if (std::find(audiences.begin(), audiences.end(), provider.client_id) == audiences.end()) {
    return absl::InvalidArgumentError("id_token_audience");
  }
  return claims;
}

v1::TokenSet::Account AccountIn(const nlohmann::json& answer, const registry::v1::App::AccountIdentity& identity) {
  v1::TokenSet::Account account;
  if (std::string id = TextAt(answer, Or(identity.id_member(), "sub")); id.size() <= kMaxId) {
    account.set_id(std::move(id));
  }
  const std::string email = TextAt(answer, Or(identity.email_member(), "email"));
  const nlohmann::json* verified = MemberAt(answer, Or(identity.email_verified_member(), "email_verified"));
  const bool believed = verified != nullptr && verified->is_boolean() && verified->get<bool>();
  if (believed && email.size() <= kMaxEmail && PlainText(email, kMaxEmail) == email && !DomainOf(email).empty()) {
    account.set_email(email);
  }
  std::string name = PlainText(TextAt(answer, Or(identity.name_member(), "preferred_username")), kMaxName);
  account.set_name(name.empty() ? account.email() : std::move(name));
  return account;
}

// OpenID Connect Core section 5.3.2: an answer about somebody else than the ID token is about somebody else.
bool Contradicts(const v1::TokenSet::Account& account, const registry::v1::App::AccountIdentity& identity,
                 const Provider& provider, const TokenAnswer& answer) {
  if (Or(identity.id_member(), "sub") != "sub") {
    return false;
  }
  const absl::StatusOr<nlohmann::json> claims = ClaimsOf(answer.id_token, provider);
  return claims.ok() && TextAt(*claims, "sub") != account.id();
}

}  // namespace

absl::StatusOr<std::string> AccountIdentity::AskProvider(const std::string& url, const Provider& provider,
                                                         const TokenAnswer& answer,
                                                         const SecretReader::Binding& binding) {
  const std::string origin = OriginOf(url);
  if (origin.empty() || (origin != OriginOf(provider.token_url) && !binding.Allows(origin))) {
    return absl::PermissionDeniedError("origin_not_allowed");
  }
  HttpRequest request;
  request.url = url;
  request.timeout = kTimeout;
  request.max_body = kMaxAnswer;
  request.headers = {{"accept", "application/json"},
                     {"user-agent", "sallyport"},
                     {"authorization", absl::StrCat("Bearer ", answer.access_token.Expose())}};
  absl::StatusOr<HttpResponse> response = http_.Fetch(std::move(request));
  if (!response.ok()) {
    return absl::UnavailableError(absl::IsDeadlineExceeded(response.status()) ? "timeout" : "no_answer");
  }
  if (response->status != 200) {
    return absl::UnavailableError(absl::StrCat("http_", response->status));
  }
  return std::move(response->body);
}

v1::TokenSet::Account AccountIdentity::Learn(const registry::v1::App& app, const Provider& provider,
                                             const TokenAnswer& answer, const SecretReader::Binding& binding) {
  const registry::v1::App::AccountIdentity& identity = app.account_identity();
  absl::StatusOr<nlohmann::json> said = nlohmann::json();
  if (identity.userinfo_url().empty()) {
    said = ClaimsOf(answer.id_token, provider);
    if (absl::IsNotFound(said.status()) && !app.has_account_identity()) {
      return {};  // Nobody was asked for one.
    }
  } else if (const absl::StatusOr<std::string> body = AskProvider(identity.userinfo_url(), provider, answer, binding);
             body.ok()) {
    said = ParseJsonObject(*body, kLimits);
  } else {
    said = body.status();
  }
  v1::TokenSet::Account account;
  std::string failure;
  if (!said.ok()) {
    failure = absl::IsInvalidArgument(said.status()) && !identity.userinfo_url().empty()
                  ? "not_json"
                  : std::string(said.status().message());
  } else {
    account = AccountIn(*said, identity);
    if (account.id().empty()) {
      failure = "no_id";
    } else if (!identity.userinfo_url().empty() && Contradicts(account, identity, provider, answer)) {
      account.Clear();
      failure = "contradicts_id_token";
    }
  }
  Questions(failure.empty() ? "answered" : "failed").Increment();
  if (!failure.empty()) {
    Log(LogLevel::kWarning, "account_not_known",
        {{"app", app.slug()}, {"failure", failure.substr(0, 64)}, {"remedy", "check accountIdentity of the app"}});
  }
  return account;
}

void ExpectAccountQuestions() {
  Questions("answered");
  Questions("failed");
}

}  // namespace sallyport::token_broker

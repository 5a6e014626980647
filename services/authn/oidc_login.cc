// SPDX-License-Identifier: Apache-2.0
#include "services/authn/oidc_login.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/http/url.h"
#include "common/json_log.h"
#include "common/oauth/claims_parameter.h"
#include "common/oauth/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "common/text/json.h"
#include "services/authn/errors.h"
#include "services/authn/refusals.h"

namespace sallyport::authn {
namespace {

constexpr absl::Duration kTokenTimeout = absl::Seconds(10);
// Tokens whose end the provider does not name are taken for this.
constexpr int64_t kDefaultExpiresIn = 3600;
constexpr int64_t kMaxExpiresIn = 365 * 24 * 3600;

// 43 characters of base64url: both a nonce and a code verifier (RFC 7636 section 4.1).
std::string Derived(absl::string_view browser_cookie, absl::string_view purpose, absl::string_view state) {
  return Base64UrlEncode(HmacSha256(browser_cookie, absl::StrCat("oidc ", purpose, "\n", state)));
}

std::string ScopesOf(const config::v1::OidcConnector& oidc, const std::vector<std::string>& more = {}) {
  std::vector<std::string> scopes(oidc.scopes().begin(), oidc.scopes().end());
  if (scopes.empty()) {
    scopes = {"openid", "email", "profile"};
  }
  if (std::find(scopes.begin(), scopes.end(), "openid") == scopes.end()) {
    scopes.insert(scopes.begin(), "openid");
  }
  for (const std::string& scope : more) {
    if (std::find(scopes.begin(), scopes.end(), scope) == scopes.end()) {
      scopes.push_back(scope);
    }
  }
  return absl::StrJoin(scopes, " ");
}

// A refusal with the provider's own code. A wrong client secret is the gateway's matter, not the user's.
absl::Status RefusedBy(const HttpResponse& response) {
  const absl::StatusOr<nlohmann::json> json = ParseJsonObject(response.body);
  const std::string code = json.ok() ? JsonString(*json, "error").value_or("") : "";
  const bool client = code == oauth::kInvalidClient || code == oauth::kUnauthorizedClient || response.status == 401;
  return SignInRefused(client ? "client_refused" : "code_refused", code);
}

// OpenID Connect Core 3.1.3.3.
absl::StatusOr<token_broker::v1::StoreTokensRequest> ParseTokens(const HttpResponse& response,
                                                                 absl::string_view asked_scopes, absl::Time now) {
  if (response.status >= 500 || response.status == 429) {
    return ProviderUnavailable(absl::StrCat("the identity provider's token endpoint answered ", response.status));
  }
  if (response.status != 200) {
    return RefusedBy(response);
  }
  const absl::StatusOr<nlohmann::json> json = ParseJsonObject(response.body);
  if (!json.ok()) {
    return SignInRefused("token_response_invalid");
  }
  if (JsonMember(*json, "error") != nullptr) {
    return RefusedBy(response);
  }
  token_broker::v1::StoreTokensRequest tokens;
  tokens.set_access_token(JsonString(*json, "access_token").value_or(""));
  tokens.set_id_token(JsonString(*json, "id_token").value_or(""));
  tokens.set_refresh_token(JsonString(*json, "refresh_token").value_or(""));
  if (tokens.access_token().empty() || tokens.id_token().empty() ||
      absl::AsciiStrToLower(JsonString(*json, "token_type").value_or("")) != "bearer") {
    return SignInRefused("token_response_invalid");
  }
  const std::string scope = JsonString(*json, "scope").value_or(std::string(asked_scopes));
  for (const absl::string_view name : absl::StrSplit(scope, ' ', absl::SkipEmpty())) {
    tokens.add_scopes(std::string(name));
  }
  int64_t expires_in = JsonInt(*json, "expires_in").value_or(kDefaultExpiresIn);
  expires_in = expires_in <= 0 ? kDefaultExpiresIn : std::min(expires_in, kMaxExpiresIn);
  *tokens.mutable_expires_at() = ToTimestamp(now + absl::Seconds(expires_in));
  *tokens.mutable_obtained_at() = ToTimestamp(now);
  return tokens;
}

}  // namespace

std::string OidcLogin::RedirectUri(const Connector& connector) const {
  return absl::StrCat(public_url_, "/oauth/callback/", connector.id());
}

absl::StatusOr<std::string> OidcLogin::AuthorizationUrl(const Connector& connector, absl::string_view state,
                                                        absl::string_view browser_cookie, const Wish& wish,
                                                        absl::Time now) const {
  ASSIGN_OR_RETURN(const std::shared_ptr<const Discovery> discovery, connector.GetDiscovery(now));
  const std::string verifier = Derived(browser_cookie, "verifier", state);
  FormFields fields = {{"response_type", "code"},
                       {"client_id", connector.client_id()},
                       {"redirect_uri", RedirectUri(connector)},
                       {"scope", ScopesOf(connector.config().oidc(), wish.scopes)},
                       {"state", std::string(state)},
                       {"nonce", Derived(browser_cookie, "nonce", state)},
                       {"code_challenge", Base64UrlEncode(Sha256(verifier))},
                       {"code_challenge_method", "S256"}};
  for (const auto& [name, value] : connector.config().oidc().authorization_params()) {
    // Never ours to be overridden.
    const bool taken =
        std::any_of(fields.begin(), fields.end(), [&name = name](const auto& field) { return field.first == name; });
    const bool wished = name == "prompt" && !wish.prompt.empty();
    if (!taken && !wished) {
      fields.emplace_back(name,
                          name == "claims" && !wish.claims.empty() ? oauth::MergeClaims(value, wish.claims) : value);
    }
  }
  if (!wish.prompt.empty()) {
    fields.emplace_back("prompt", wish.prompt);
  }
  if (!wish.claims.empty() && connector.config().oidc().authorization_params().count("claims") == 0) {
    fields.emplace_back("claims", wish.claims);
  }
  return AppendQuery(discovery->authorization_endpoint, fields);
}

absl::Status OidcLogin::CheckIssuer(const Connector& connector, bool has_iss, absl::string_view iss,
                                    absl::Time now) const {
  if (has_iss && iss != connector.issuer()) {
    LogForeignIssuer({.where = "callback",
                      .subject = connector.id(),
                      .said = iss,
                      .expected = {connector.issuer()},
                      .remedy = "set the connector's oidc.issuer to exactly what the provider says"},
                     now);
    return SignInRefused("issuer_mismatch");
  }
  if (has_iss) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<const Discovery> discovery, connector.GetDiscovery(now));
  return discovery->iss_parameter_supported ? SignInRefused("issuer_mismatch") : absl::OkStatus();
}

absl::StatusOr<HttpRequest> OidcLogin::TokenRequest(const Connector& connector, const Discovery& discovery,
                                                    absl::string_view code, absl::string_view verifier, bool narrowed,
                                                    absl::Time now) const {
  ASSIGN_OR_RETURN(const Secret secret, connector.GetClientSecret(now));
  FormFields fields = {{"grant_type", "authorization_code"},
                       {"code", std::string(code)},
                       {"redirect_uri", RedirectUri(connector)},
                       {"code_verifier", std::string(verifier)}};
  if (narrowed) {
    fields.emplace_back("scope", ScopesOf(connector.config().oidc()));
  }
  HttpRequest request;
  request.method = "POST";
  request.url = discovery.token_endpoint;
  request.timeout = kTokenTimeout;
  request.once = true;  // Providers end the grant of a code that comes twice (RFC 6749 section 4.1.2).
  request.headers = {{"Content-Type", "application/x-www-form-urlencoded"}, {"Accept", "application/json"}};
  const std::string method = oauth::ClientAuthMethod(discovery, !secret.empty());
  if (method == "none") {
    fields.emplace_back("client_id", connector.client_id());
  } else if (method == "client_secret_post") {
    fields.emplace_back("client_id", connector.client_id());
    fields.emplace_back("client_secret", std::string(secret.Expose()));
  } else {
    // RFC 6749 section 2.3.1: both parts form-encoded.
    const std::string pair = absl::StrCat(PercentEncode(connector.client_id()), ":", PercentEncode(secret.Expose()));
    request.headers.emplace_back("Authorization", absl::StrCat("Basic ", Base64Encode(pair)));
  }
  request.body = FormEncode(fields);
  return request;
}

absl::StatusOr<HttpResponse> OidcLogin::Ask(const Connector& connector, HttpRequest request) const {
  absl::StatusOr<HttpResponse> response = fetch_(std::move(request));
  if (response.ok()) {
    return response;
  }
  return IsNetworkNotAllowed(response.status()) ? NetworkNotAllowed(connector.id(), response.status())
                                                : ProviderUnavailable(response.status().message());
}

absl::Status OidcLogin::AddUserInfo(const Connector& connector, const std::string& endpoint, absl::string_view sub,
                                    SignedIn& signed_in) const {
  if (endpoint.empty() || !connector.NeedsUserInfo(signed_in.identity)) {
    return absl::OkStatus();
  }
  HttpRequest request;
  request.url = endpoint;
  request.timeout = kTokenTimeout;
  request.headers = {{"Accept", "application/json"},
                     {"Authorization", absl::StrCat("Bearer ", signed_in.tokens.access_token())}};
  ASSIGN_OR_RETURN(const HttpResponse response, Ask(connector, std::move(request)));
  if (response.status >= 500) {
    // A person whose groups are not known would be kept out for as long as the session lasts.
    return ProviderUnavailable("the identity provider's UserInfo endpoint is failing");
  }
  if (response.status != 200 || !connector.AddUserInfo(response.body, sub, signed_in.identity)) {
    Log(LogLevel::kWarning, "userinfo_not_used", {{"connector", connector.id()}, {"http_status", response.status}});
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> OidcLogin::SignOutUrl(const Connector& connector, absl::Time now) const {
  ASSIGN_OR_RETURN(const std::shared_ptr<const Discovery> discovery, connector.GetDiscovery(now));
  if (discovery->end_session_endpoint.empty()) {
    return absl::NotFoundError("the identity provider announces no end_session_endpoint");
  }
  return AppendQuery(
      discovery->end_session_endpoint,
      {{"client_id", connector.client_id()}, {"post_logout_redirect_uri", absl::StrCat(public_url_, "/signed-out")}});
}

absl::StatusOr<OidcLogin::SignedIn> OidcLogin::Redeem(const Connector& connector, absl::string_view code,
                                                      absl::string_view state, absl::string_view browser_cookie,
                                                      bool narrowed, absl::Time now) const {
  ASSIGN_OR_RETURN(const std::shared_ptr<const Discovery> discovery, connector.GetDiscovery(now));
  ASSIGN_OR_RETURN(HttpRequest request, TokenRequest(connector, *discovery, code,
                                                     Derived(browser_cookie, "verifier", state), narrowed, now));
  ASSIGN_OR_RETURN(const HttpResponse response, Ask(connector, std::move(request)));
  SignedIn signed_in;
  ASSIGN_OR_RETURN(signed_in.tokens, ParseTokens(response, ScopesOf(connector.config().oidc()), now));
  absl::StatusOr<SignInIdentity> verified = connector.VerifyIdToken(
      signed_in.tokens.id_token(),
      {.nonce = Derived(browser_cookie, "nonce", state), .access_token = signed_in.tokens.access_token()}, now);
  if (absl::IsUnauthenticated(verified.status())) {
    return SignInRefused(ReasonOf(verified.status()));  // Its oauth_error is for callers of ours.
  }
  RETURN_IF_ERROR(verified.status());
  signed_in.identity = std::move(verified->identity);
  RETURN_IF_ERROR(AddUserInfo(connector, discovery->userinfo_endpoint, verified->sub, signed_in));
  return signed_in;
}

}  // namespace sallyport::authn

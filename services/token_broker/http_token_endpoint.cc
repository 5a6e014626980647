// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/http_token_endpoint.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/jose/assertion_key.h"
#include "common/json_log.h"
#include "common/status_macros.h"
#include "common/text/base64url.h"
#include "common/text/json.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kDeadline = absl::Seconds(10);
constexpr absl::Duration kRejectedFor = absl::Seconds(60);
constexpr absl::Duration kAssertionLife = absl::Minutes(2);

// RFC 6749 section 2.3.1: id and secret are form-encoded before they go into the header.
std::string FormValue(absl::string_view text) {
  const std::string field = FormEncode({{"v", std::string(text)}});
  return field.substr(2);
}

// RFC 7523 section 2.2. The audience is the endpoint it is sent to: nobody else can use it.
absl::StatusOr<std::string> Assertion(const Provider& provider, const std::string& url, absl::Time now) {
  ASSIGN_OR_RETURN(const AssertionKey key, AssertionKey::FromPem(*provider.client_secret));
  const int64_t seconds = absl::ToUnixSeconds(now);
  const nlohmann::json claims = {{"iss", provider.client_id},
                                 {"sub", provider.client_id},
                                 {"aud", url},
                                 {"jti", RandomToken("", 16)},
                                 {"iat", seconds},
                                 {"exp", seconds + absl::ToInt64Seconds(kAssertionLife)}};
  return key.SignJws(DumpJson(claims), "JWT", provider.key_id);
}

}  // namespace

absl::StatusOr<HttpRequest> HttpTokenEndpoint::ClientRequest(const Provider& provider, const std::string& url,
                                                             FormFields fields) const {
  HttpRequest request;
  request.method = "POST";
  request.url = url;
  request.timeout = kDeadline;
  request.once = true;
  request.headers = {{"content-type", "application/x-www-form-urlencoded"}, {"accept", "application/json"}};
  if (provider.client_auth == Provider::ClientAuth::kBasic && provider.client_secret != nullptr) {
    const std::string pair =
        absl::StrCat(FormValue(provider.client_id), ":", FormValue(provider.client_secret->Expose()));
    request.headers.emplace_back("authorization", absl::StrCat("Basic ", Base64Encode(pair)));
  } else if (provider.client_auth == Provider::ClientAuth::kPrivateKeyJwt && provider.client_secret != nullptr) {
    ASSIGN_OR_RETURN(std::string assertion, Assertion(provider, url, clock_.Now()));
    fields.emplace_back("client_id", provider.client_id);
    fields.emplace_back("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    fields.emplace_back("client_assertion", std::move(assertion));
  } else {
    fields.emplace_back("client_id", provider.client_id);
    if (provider.client_auth == Provider::ClientAuth::kPost && provider.client_secret != nullptr) {
      fields.emplace_back("client_secret", std::string(provider.client_secret->Expose()));
    }
  }
  request.body = FormEncode(fields);
  return request;
}

namespace {

ProviderError TransportError(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  const bool not_sent = reason == "circuit_open" || reason == "not_sent" || reason == "network_not_allowed" ||
                        absl::IsInvalidArgument(status) || absl::IsPermissionDenied(status);
  if (not_sent || (absl::IsResourceExhausted(status) && DetailOf(status).retry_after > absl::ZeroDuration())) {
    return {.failure = ProviderFailure::kNotSent,
            .code = reason.empty() ? "not_sent" : reason,
            .retry_after = DetailOf(status).retry_after};
  }
  if (absl::IsResourceExhausted(status)) {
    return {.failure = ProviderFailure::kUnavailable, .code = "answer_too_long"};
  }
  return {.failure = ProviderFailure::kAmbiguous, .code = absl::IsDeadlineExceeded(status) ? "timeout" : "no_answer"};
}

// RFC 7009 section 2.2: 200 also for a token that was already invalid, for which some have an error all the same.
RevocationResult ParseRevocation(const HttpResponse& response) {
  if (response.status == 200 || response.status == 204) {
    return RevocationResult::kRevoked;
  }
  // Of the others of 4xx that are seen, each is about the client, the endpoint or the rate: about everybody's tokens.
  if (response.status != 400 && response.status != 422) {
    return RevocationResult::kRetry;
  }
  const absl::StatusOr<nlohmann::json> body = ParseJsonObject(response.body);
  const std::string error = body.ok() ? JsonString(*body, "error").value_or("") : "";
  if (error == "invalid_token") {
    return RevocationResult::kRevoked;
  }
  return error == "invalid_client" || error == "unauthorized_client" ? RevocationResult::kRetry
                                                                     : RevocationResult::kRefused;
}

}  // namespace

absl::Duration HttpTokenEndpoint::RejectedFor(const Provider& provider) {
  MutexLock lock(mu_);
  const auto found = rejected_until_.find({provider.token_url, provider.client_id});
  return found == rejected_until_.end() ? absl::ZeroDuration()
                                        : std::max(found->second - clock_.Now(), absl::ZeroDuration());
}

void HttpTokenEndpoint::SetRejected(const Provider& provider) {
  Log(LogLevel::kError, "provider_rejects_client",
      {{"connection", provider.connection}, {"client_id", provider.client_id}});
  MutexLock lock(mu_);
  rejected_until_[{provider.token_url, provider.client_id}] = clock_.Now() + kRejectedFor;
}

TokenResult HttpTokenEndpoint::Ask(const Provider& provider, GrantKind kind, FormFields fields) {
  if (const absl::Duration rejected = RejectedFor(provider); rejected > absl::ZeroDuration()) {
    return ProviderError{.failure = ProviderFailure::kNotSent, .code = "client_rejected", .retry_after = rejected};
  }
  for (const auto& [name, value] : provider.token_params) {
    fields.emplace_back(name, value);
  }
  absl::StatusOr<HttpRequest> request = ClientRequest(provider, provider.token_url, std::move(fields));
  if (!request.ok()) {
    return ProviderError{.failure = ProviderFailure::kNotSent, .code = "client_key_unusable"};
  }
  absl::StatusOr<HttpResponse> response = http_.Fetch(*std::move(request));
  if (!response.ok()) {
    return TransportError(response.status());
  }
  TokenResult result = ParseTokenResponse(kind, response->status, response->MediaType(), response->body,
                                          ParseRetryAfter(response->Header("retry-after"), clock_.Now()));
  OPENSSL_cleanse(response->body.data(), response->body.size());
  if (const auto* error = std::get_if<ProviderError>(&result);
      error != nullptr && error->failure == ProviderFailure::kClientRejected) {
    SetRejected(provider);
  }
  return result;
}

TokenResult HttpTokenEndpoint::ExchangeCode(const Provider& provider, const Secret& code,
                                            const std::string& redirect_uri, const Secret& code_verifier) {
  FormFields fields = {
      {"grant_type", "authorization_code"}, {"code", std::string(code.Expose())}, {"redirect_uri", redirect_uri}};
  if (!code_verifier.empty()) {
    fields.emplace_back("code_verifier", std::string(code_verifier.Expose()));
  }
  return Ask(provider, GrantKind::kCode, std::move(fields));
}

TokenResult HttpTokenEndpoint::Refresh(const Provider& provider, const Secret& refresh_token) {
  return Ask(provider, GrantKind::kRefresh,
             {{"grant_type", "refresh_token"}, {"refresh_token", std::string(refresh_token.Expose())}});
}

TokenResult HttpTokenEndpoint::Ask(const Provider& provider, const FormFields& fields) {
  return Ask(provider, GrantKind::kCode, fields);
}

RevocationResult HttpTokenEndpoint::Revoke(const Provider& provider, const Secret& token, absl::string_view hint) {
  if (provider.revocation_url.empty()) {
    return RevocationResult::kUnsupported;
  }
  FormFields fields = {{"token", std::string(token.Expose())}, {"token_type_hint", std::string(hint)}};
  absl::StatusOr<HttpRequest> request = ClientRequest(provider, provider.revocation_url, std::move(fields));
  if (!request.ok()) {
    return RevocationResult::kRetry;
  }
  absl::StatusOr<HttpResponse> response = http_.Fetch(*std::move(request));
  if (!response.ok()) {
    return RevocationResult::kRetry;
  }
  return ParseRevocation(*response);
}

}  // namespace sallyport::token_broker

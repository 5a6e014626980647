// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/providers.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/json.h"
#include "common/rpc_server.h"
#include "common/status_macros.h"
#include "common/url.h"
#include "services/token_broker/provider_binding.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kMetadataKept = absl::Minutes(10);
constexpr absl::Duration kFailureKept = absl::Seconds(10);

absl::Status ReadEndpoint(const nlohmann::json& object, const char* name, std::string* endpoint) {
  std::optional<std::string> value = JsonString(object, name);
  if (!value.has_value() || value->empty()) {
    return absl::OkStatus();
  }
  if (!Url::Parse(*value).ok()) {
    return absl::InvalidArgumentError(absl::StrCat("the issuer's metadata names no usable ", name));
  }
  *endpoint = *std::move(value);
  return absl::OkStatus();
}

Provider::ClientAuth AuthOf(registry::v1::ClientAuth auth, bool has_secret) {
  switch (auth) {
    case registry::v1::BASIC:
      return Provider::ClientAuth::kBasic;
    case registry::v1::NONE:
      return Provider::ClientAuth::kNone;
    default:
      return has_secret ? Provider::ClientAuth::kPost : Provider::ClientAuth::kNone;
  }
}

// Nothing there (RFC 9110 section 15.5.5).
bool IsGone(int http_status) { return http_status == 404 || http_status == 410; }

// Says nothing about whether there is a document: another one must not be taken in its place.
bool IsPassing(int http_status) {
  return http_status >= 500 || http_status == 408 || http_status == 425 || http_status == 429;
}

}  // namespace

absl::StatusOr<ProviderMetadata> ParseProviderMetadata(absl::string_view json, const std::string& issuer) {
  ASSIGN_OR_RETURN(const nlohmann::json object, ParseJsonObject(json, {.max_bytes = 256 << 10, .max_depth = 16}));
  // RFC 8414 section 3.3: identical, or somebody else speaks for the issuer.
  if (JsonString(object, "issuer") != issuer) {
    return absl::InvalidArgumentError("the metadata is another issuer's");
  }
  ProviderMetadata metadata;
  RETURN_IF_ERROR(ReadEndpoint(object, "authorization_endpoint", &metadata.authorization_endpoint));
  RETURN_IF_ERROR(ReadEndpoint(object, "token_endpoint", &metadata.token_endpoint));
  RETURN_IF_ERROR(ReadEndpoint(object, "revocation_endpoint", &metadata.revocation_endpoint));
  metadata.iss_promised = JsonBool(object, "authorization_response_iss_parameter_supported").value_or(false);
  return metadata;
}

std::vector<std::string> MetadataUrls(const std::string& issuer) {
  absl::StatusOr<Url> url = Url::Parse(issuer);
  if (!url.ok() || !url->query().empty()) {
    return {};
  }
  const std::string path = url->path() == "/" ? "" : url->path();
  const std::string trimmed = !path.empty() && path.back() == '/' ? path.substr(0, path.size() - 1) : path;
  return {absl::StrCat(url->origin(), "/.well-known/oauth-authorization-server", trimmed),
          absl::StrCat(url->origin(), trimmed, "/.well-known/openid-configuration")};
}

Providers::Providers(const std::shared_ptr<grpc::Channel>& authn, HttpClient& http, EgressPolicy policy,
                     SecretReader& secrets, TaskRunner& behind, const Clock& clock)
    : authn_(authn::v1::Authn::NewStub(authn)),
      http_(http),
      policy_(std::move(policy)),
      secrets_(secrets),
      behind_(behind),
      clock_(clock) {}

absl::StatusOr<ProviderMetadata> Providers::FetchMetadata(const std::string& issuer) {
  const std::vector<std::string> urls = MetadataUrls(issuer);
  absl::Status last = absl::InvalidArgumentError("the issuer is no URL");
  size_t gone = 0;
  for (const std::string& url : urls) {
    HttpRequest request;
    request.url = url;
    request.headers = {{"accept", "application/json"}};
    request.timeout = absl::Seconds(5);
    absl::StatusOr<HttpResponse> response = http_.Fetch(std::move(request));
    if (!response.ok()) {
      last = response.status();
      break;
    }
    if (IsPassing(response->status)) {
      last = absl::UnavailableError(absl::StrCat("the issuer answers ", response->status));
      break;
    }
    if (response->status != 200) {
      gone += IsGone(response->status) ? 1U : 0U;
      last = absl::NotFoundError("the issuer publishes none");
      continue;
    }
    absl::StatusOr<ProviderMetadata> metadata = ParseProviderMetadata(response->body, issuer);
    if (metadata.ok()) {
      return metadata;
    }
    last = metadata.status();
  }
  if (!urls.empty() && gone == urls.size()) {
    ProviderMetadata none;
    none.published = false;
    return none;
  }
  return WithRetryAfter(absl::UnavailableError(absl::StrCat("the issuer's metadata cannot be had: ", last.message())),
                        kFailureKept);
}

absl::StatusOr<ProviderMetadata> Providers::Metadata(const std::string& issuer) {
  {
    MutexLock lock(mu_);
    if (const auto found = metadata_.find(issuer); found != metadata_.end() && found->second.until > clock_.Now()) {
      return found->second.metadata;
    }
  }
  absl::StatusOr<ProviderMetadata> fetched = FetchMetadata(issuer);
  const absl::Time now = clock_.Now();
  MutexLock lock(mu_);
  Entry& entry = metadata_.try_emplace(issuer, Entry{fetched, now}).first->second;
  // What was once known goes on serving while the issuer is down.
  const bool found = fetched.ok() && fetched->published;
  const bool known = entry.metadata.ok() && entry.metadata->published;
  if (found || !known) {
    entry.metadata = fetched;
  }
  entry.until = now + (found ? kMetadataKept : kFailureKept);
  return entry.metadata;
}

bool Providers::HasMoved(const registry::v1::App& app, const std::string& bound_to) {
  if (!app.token_url().empty() || app.issuer().empty()) {
    return !app.token_url().empty() && !IsBoundTo(bound_to, app.token_url());
  }
  const absl::Time now = clock_.Now();
  std::string token_url;
  bool ask = false;
  {
    MutexLock lock(mu_);
    const auto found = metadata_.find(app.issuer());
    if (found != metadata_.end() && found->second.metadata.ok()) {
      token_url = found->second.metadata->token_endpoint;
    }
    if (found == metadata_.end() || found->second.until <= now) {
      absl::Time& asked = asked_.try_emplace(app.issuer(), absl::InfinitePast()).first->second;
      ask = now - asked >= kFailureKept;
      asked = ask ? now : asked;
    }
  }
  if (ask) {
    behind_.PostAfter(absl::ZeroDuration(), [this, issuer = app.issuer()] { Metadata(issuer).status().IgnoreError(); });
  }
  return !token_url.empty() && !IsBoundTo(bound_to, token_url);
}

absl::Status Providers::Fill(const char* field, const std::string& endpoint, std::string* url) const {
  if (!url->empty() || endpoint.empty()) {
    return absl::OkStatus();
  }
  // As where an administrator enters it: nobody else may send browsers, codes and tokens where they could not.
  const absl::StatusOr<Url> parsed = Url::Parse(endpoint);
  if (const absl::Status allowed = parsed.ok() ? policy_.CheckUrl(*parsed) : parsed.status(); !allowed.ok()) {
    return WithRetryAfter(absl::FailedPreconditionError(
                              absl::StrCat(field, " of the issuer's metadata cannot be used: ", allowed.message())),
                          kFailureKept);
  }
  *url = endpoint;
  return absl::OkStatus();
}

absl::StatusOr<Provider> Providers::ForApp(const registry::v1::App& app) {
  Provider provider;
  provider.connection = app.uid();
  provider.issuer = app.issuer();
  provider.authorization_url = app.authorization_url();
  provider.token_url = app.token_url();
  provider.revocation_url = app.revocation_url();
  provider.client_id = app.client_id();
  provider.token_params = {app.token_params().begin(), app.token_params().end()};
  if (!app.issuer().empty()) {
    const absl::StatusOr<ProviderMetadata> metadata = Metadata(app.issuer());
    const bool needed = app.authorization_url().empty() || app.token_url().empty();
    if (needed && !metadata.ok()) {
      return metadata.status();
    }
    if (needed && !metadata->published) {
      return WithRetryAfter(absl::UnavailableError("the issuer publishes no metadata"), kFailureKept);
    }
    provider.metadata_missing = !metadata.ok();
    if (metadata.ok()) {
      RETURN_IF_ERROR(Fill("authorization_endpoint", metadata->authorization_endpoint, &provider.authorization_url));
      RETURN_IF_ERROR(Fill("token_endpoint", metadata->token_endpoint, &provider.token_url));
      RETURN_IF_ERROR(Fill("revocation_endpoint", metadata->revocation_endpoint, &provider.revocation_url));
      provider.iss_promised = metadata->iss_promised;
    }
  }
  if (provider.authorization_url.empty() || provider.token_url.empty()) {
    return WithReason(absl::FailedPreconditionError("the app has no authorization or token URL"), "credential_missing");
  }
  if (app.client_secret().set()) {
    ASSIGN_OR_RETURN(provider.client_secret,
                     secrets_.Read(OrganizationRecord("app_secret", app.client_secret().vault_record()),
                                   app.client_secret().version()));
  }
  provider.client_auth = AuthOf(app.client_auth(), provider.client_secret != nullptr);
  return provider;
}

absl::StatusOr<Provider> Providers::ForConnector(const std::string& id) {
  authn::v1::GetConnectorRequest request;
  request.set_id(id);
  authn::v1::Connector connector;
  std::unique_ptr<grpc::ClientContext> context = MakeClientContext(absl::Seconds(5));
  if (grpc::Status status = authn_->GetConnector(context.get(), request, &connector); !status.ok()) {
    return FromGrpcStatus(status);
  }
  Provider provider;
  provider.connection = absl::StrCat("sso:", id);
  provider.issuer = connector.issuer();
  provider.token_url = connector.token_endpoint();
  provider.revocation_url = connector.revocation_endpoint();
  provider.client_id = connector.client_id();
  if (!connector.client_secret().name().empty()) {
    ASSIGN_OR_RETURN(provider.client_secret, secrets_.Read(connector.client_secret(), 0));
  }
  const std::string& method = connector.token_endpoint_auth_method();
  provider.client_auth = provider.client_secret == nullptr || method == "none" ? Provider::ClientAuth::kNone
                         : method == "client_secret_post"                      ? Provider::ClientAuth::kPost
                                                                               : Provider::ClientAuth::kBasic;
  return provider;
}

}  // namespace sallyport::token_broker

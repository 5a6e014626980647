// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/providers.h"

#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/rpc_server.h"
#include "common/status_macros.h"
#include "common/url.h"
#include "services/token_broker/provider_binding.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kMetadataKept = absl::Minutes(10);
constexpr absl::Duration kFailureKept = absl::Seconds(10);

constexpr oauth::FetchTiming kMetadataTiming = {kMetadataKept, kFailureKept, kFailureKept, absl::InfiniteDuration()};

// Whether one may be used is for Fill to say.
absl::Status CheckEndpoints(const oauth::IssuerMetadata& metadata) {
  for (const auto& [name, url] :
       {std::pair<const char*, const std::string&>("authorization_endpoint", metadata.authorization_endpoint),
        {"token_endpoint", metadata.token_endpoint},
        {"revocation_endpoint", metadata.revocation_endpoint}}) {
    if (!url.empty() && !Url::Parse(url).ok()) {
      return absl::FailedPreconditionError(absl::StrCat("the issuer's metadata names no usable ", name));
    }
  }
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

}  // namespace

Providers::Providers(const std::shared_ptr<grpc::Channel>& authn, HttpClient& http, EgressPolicy policy,
                     SecretReader& secrets, TaskRunner& behind, const Clock& clock)
    : authn_(authn::v1::Authn::NewStub(authn)),
      fetcher_(http),
      metadata_(fetcher_, {.timing = kMetadataTiming, .required = false, .check = CheckEndpoints}),
      policy_(std::move(policy)),
      secrets_(secrets),
      behind_(behind),
      clock_(clock) {}

bool Providers::HasMoved(const registry::v1::App& app, const std::string& bound_to) {
  if (!app.token_url().empty() || app.issuer().empty()) {
    return !app.token_url().empty() && !IsBoundTo(bound_to, app.token_url());
  }
  bool due = false;
  const std::shared_ptr<const oauth::IssuerMetadata> metadata = metadata_.Peek(app.issuer(), clock_.Now(), &due);
  if (due) {
    behind_.PostAfter(absl::ZeroDuration(),
                      [this, issuer = app.issuer()] { metadata_.Get(issuer, clock_.Now()).status().IgnoreError(); });
  }
  return metadata != nullptr && !metadata->token_endpoint.empty() && !IsBoundTo(bound_to, metadata->token_endpoint);
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
    const auto metadata = metadata_.Get(app.issuer(), clock_.Now());
    if (!metadata.ok() && (app.authorization_url().empty() || app.token_url().empty())) {
      return WithRetryAfter(absl::UnavailableError(metadata.status().message()), kFailureKept);
    }
    // An issuer that says that it publishes none has told all there is.
    provider.metadata_missing = !metadata.ok() && !absl::IsNotFound(metadata.status());
    if (metadata.ok()) {
      const oauth::IssuerMetadata& known = **metadata;
      RETURN_IF_ERROR(Fill("authorization_endpoint", known.authorization_endpoint, &provider.authorization_url));
      RETURN_IF_ERROR(Fill("token_endpoint", known.token_endpoint, &provider.token_url));
      RETURN_IF_ERROR(Fill("revocation_endpoint", known.revocation_endpoint, &provider.revocation_url));
      provider.iss_promised = known.iss_parameter_supported;
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

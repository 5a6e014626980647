// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/providers.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/http/url.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/rpc/server.h"
#include "common/status_macros.h"
#include "services/token_broker/connection_name.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/provider_binding.h"
#include "services/token_broker/provider_trouble.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kMetadataKept = absl::Minutes(10);
constexpr absl::Duration kFailureKept = absl::Seconds(10);

constexpr oauth::FetchTiming kMetadataTiming = {kMetadataKept, kFailureKept, kFailureKept, absl::InfiniteDuration()};

constexpr GaugeInfo kFindings = {
    .name = "sallyport_broker_app_findings",
    .help = "1 while a setting of the app contradicts what its issuer announces",
    .unit = "1",
    .labels = {{"app", "slug of a configured app"}, {"setting", "client_auth"}},
    .rise = "The provider does not announce the way in which the app authenticates",
    .action = "Change the setting to what the log event `app_client_auth_not_announced` lists",
};

prometheus::Gauge& FindingGauge(const std::string& app) {
  return MetricGauge(kFindings, {{"app", app}, {"setting", "client_auth"}});
}

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

Provider::ClientAuth FromMethod(const std::string& method) {
  return method == "none"                 ? Provider::ClientAuth::kNone
         : method == "client_secret_post" ? Provider::ClientAuth::kPost
                                          : Provider::ClientAuth::kBasic;
}

// `metadata` is null where nothing is known.
Provider::ClientAuth AuthOf(const registry::v1::App& app, const Provider& provider,
                            const oauth::IssuerMetadata* metadata) {
  switch (app.client_auth()) {
    case registry::v1::BASIC:
      return Provider::ClientAuth::kBasic;
    case registry::v1::POST:
      return Provider::ClientAuth::kPost;
    case registry::v1::NONE:
      return Provider::ClientAuth::kNone;
    default:
      break;
  }
  if (provider.client_secret == nullptr) {
    return Provider::ClientAuth::kNone;
  }
  if (metadata != nullptr) {
    return FromMethod(oauth::ClientAuthMethod(*metadata, /*has_client_secret=*/true));
  }
  // Every server must take basic (RFC 6749 section 2.3.1), and those that announce something mostly do. Where nothing
  // is announced at all, post is what most providers want.
  return provider.metadata_missing ? Provider::ClientAuth::kBasic : Provider::ClientAuth::kPost;
}

// As in RFC 8414 section 2; empty if the setting leaves it open.
std::string MethodOf(registry::v1::ClientAuth auth) {
  switch (auth) {
    case registry::v1::BASIC:
      return "client_secret_basic";
    case registry::v1::POST:
      return "client_secret_post";
    case registry::v1::NONE:
      return "none";
    default:
      return "";
  }
}

// Why an app whose issuer's metadata it takes cannot be used.
absl::Status MetadataTrouble(const absl::Status& status) {
  const char* code = ReasonOf(status) == "network_not_allowed" ? "network_not_allowed"
                     : absl::IsFailedPrecondition(status)      ? "metadata_unusable"
                     : absl::IsNotFound(status)                ? "metadata_not_found"
                                                               : kMetadataUnavailable;
  return WithDetail(absl::UnavailableError(status.message()),
                    {.oauth_error = code, .reason = kProviderUnavailable, .retry_after = kFailureKept});
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

bool Providers::HasMoved(const registry::v1::App& app, const std::string& token_origin) {
  if (!app.token_url().empty() || app.issuer().empty()) {
    return !app.token_url().empty() && !IsBoundTo(token_origin, app.token_url());
  }
  bool due = false;
  const std::shared_ptr<const oauth::IssuerMetadata> metadata = metadata_.Peek(app.issuer(), clock_.Now(), &due);
  if (due) {
    behind_.PostAfter(absl::ZeroDuration(),
                      [this, issuer = app.issuer()] { metadata_.Get(issuer, clock_.Now()).status().IgnoreError(); });
  }
  return metadata != nullptr && !metadata->token_endpoint.empty() && !IsBoundTo(token_origin, metadata->token_endpoint);
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

absl::Status Providers::ReadClientSecret(const vault::v1::RecordName& record, int64_t version, bool token_announced,
                                         bool revocation_announced, Provider* provider) {
  // An endpoint that the issuer announces is the issuer's own word: the secret is meant for whom it names.
  const auto origins = [provider](const std::string& url, bool announced) {
    std::vector<std::string> where = {OriginOf(url)};
    if (announced && !provider->issuer.empty()) {
      where.push_back(OriginOf(provider->issuer));
    }
    return where;
  };
  ASSIGN_OR_RETURN(provider->client_secret,
                   secrets_.Read(record, version, origins(provider->token_url, token_announced)));
  if (!provider->revocation_url.empty() &&
      absl::IsPermissionDenied(
          secrets_.Read(record, version, origins(provider->revocation_url, revocation_announced)).status())) {
    provider->revocation_url.clear();  // Whoever edits the configuration gets no secret by pointing it elsewhere.
  }
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
  std::shared_ptr<const oauth::IssuerMetadata> announced;
  if (!app.issuer().empty()) {
    const auto metadata = metadata_.Get(app.issuer(), clock_.Now());
    if (!metadata.ok() && (app.authorization_url().empty() || app.token_url().empty())) {
      return MetadataTrouble(metadata.status());
    }
    // An issuer that says that it publishes none has told all there is.
    provider.metadata_missing = !metadata.ok() && !absl::IsNotFound(metadata.status());
    if (metadata.ok()) {
      const oauth::IssuerMetadata& known = **metadata;
      RETURN_IF_ERROR(Fill("authorization_endpoint", known.authorization_endpoint, &provider.authorization_url));
      RETURN_IF_ERROR(Fill("token_endpoint", known.token_endpoint, &provider.token_url));
      RETURN_IF_ERROR(Fill("revocation_endpoint", known.revocation_endpoint, &provider.revocation_url));
      provider.iss_promised = known.iss_parameter_supported;
      announced = *metadata;
      NoteClientAuth(app, known);
    }
  }
  if (provider.authorization_url.empty() || provider.token_url.empty()) {
    return error::CredentialMissing("the app has no authorization or token URL");
  }
  if (app.client_secret().set()) {
    RETURN_IF_ERROR(ReadClientSecret(OrganizationRecord("app_secret", app.client_secret().vault_record()),
                                     app.client_secret().version(), app.token_url().empty(),
                                     app.revocation_url().empty(), &provider));
  }
  provider.client_auth = AuthOf(app, provider, announced.get());
  return provider;
}

void Providers::Examine(std::shared_ptr<const RegistrySnapshot> snapshot) {
  MutexLock lock(mu_);
  const bool waits = unexamined_ != nullptr;
  unexamined_ = std::move(snapshot);
  if (!waits) {
    behind_.PostAfter(absl::ZeroDuration(), [this] { ExamineAll(); });
  }
}

void Providers::ExamineAll() {
  std::shared_ptr<const RegistrySnapshot> snapshot;
  std::vector<std::string> gone;
  {
    MutexLock lock(mu_);
    snapshot.swap(unexamined_);
    for (const auto& [uid, finding] : contradicted_) {
      if (snapshot->AppByUid(uid) == nullptr) {
        gone.push_back(uid);
      }
    }
  }
  for (const std::string& uid : gone) {
    SetFinding(uid, "", "");
  }
  for (const auto& [uid, app] : snapshot->apps_by_uid) {
    FindingGauge(app->slug());  // There from the start: an alert must see the first finding as a rise from 0.
    if (app->issuer().empty() || MethodOf(app->client_auth()).empty()) {
      SetFinding(uid, "", "");
    } else if (const auto metadata = metadata_.Get(app->issuer(), clock_.Now()); metadata.ok()) {
      NoteClientAuth(*app, **metadata);
    }
  }
}

void Providers::NoteClientAuth(const registry::v1::App& app, const oauth::IssuerMetadata& metadata) {
  const std::string method = MethodOf(app.client_auth());
  // Absent means basic (RFC 8414 section 2).
  const std::vector<std::string> announced =
      metadata.token_endpoint_auth_methods.value_or(std::vector<std::string>{"client_secret_basic"});
  if (method.empty() || std::find(announced.begin(), announced.end(), method) != announced.end()) {
    return SetFinding(app.uid(), "", "");
  }
  {
    MutexLock lock(mu_);
    if (const auto found = contradicted_.find(app.uid());
        found != contradicted_.end() && found->second == std::make_pair(app.slug(), method)) {
      return;
    }
  }
  SetFinding(app.uid(), app.slug(), method);
  Log(LogLevel::kWarning, "app_client_auth_not_announced",
      {{"app", app.slug()},
       {"issuer", app.issuer()},
       {"configured", method},
       {"announced", absl::StrJoin(announced, " ").substr(0, 256)},
       {"remedy", "leave clientAuth of the app out, or set it to what the issuer announces"}});
}

// No method: nothing is wrong.
void Providers::SetFinding(const std::string& app_uid, const std::string& slug, const std::string& method) {
  std::string former;
  {
    MutexLock lock(mu_);
    if (const auto found = contradicted_.find(app_uid); found != contradicted_.end()) {
      former = found->second.first;
      contradicted_.erase(found);
    }
    if (!method.empty()) {
      contradicted_.emplace(app_uid, std::make_pair(slug, method));
    }
  }
  if (!former.empty() && former != slug) {
    FindingGauge(former).Set(0);
  }
  if (!method.empty()) {
    FindingGauge(slug).Set(1);
  }
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
  provider.connection = SignInName(id);
  provider.issuer = connector.issuer();
  provider.token_url = connector.token_endpoint();
  provider.revocation_url = connector.revocation_endpoint();
  provider.client_id = connector.client_id();
  if (!connector.client_secret().name().empty()) {
    RETURN_IF_ERROR(ReadClientSecret(connector.client_secret(), 0, true, true, &provider));
  }
  // authn has read what the issuer announces, as for the code.
  provider.client_auth = provider.client_secret == nullptr ? Provider::ClientAuth::kNone
                                                           : FromMethod(connector.token_endpoint_auth_method());
  return provider;
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "common/oauth/issuer_metadata.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/error.h"
#include "common/http/url.h"
#include "common/json_log.h"
#include "common/text/json.h"

namespace sallyport::oauth {
namespace {

constexpr size_t kMaxShownIssuer = 256;
constexpr char kDocument[] = "issuer_metadata";

bool IsRefusedByPolicy(const absl::Status& status) {
  return absl::IsPermissionDenied(status) && ReasonOf(status) == "network_not_allowed";
}

}  // namespace

absl::StatusOr<IssuerMetadata> ParseIssuerMetadata(absl::string_view json, const std::string& issuer) {
  const absl::StatusOr<nlohmann::json> document =
      ParseJsonObject(json, {.max_bytes = kMaxMetadataBytes, .max_depth = 16});
  if (!document.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the issuer's metadata is unusable: ", document.status().message()));
  }
  // Identical, or somebody else speaks for the issuer.
  if (const std::string said = JsonString(*document, "issuer").value_or(""); said != issuer) {
    // Nothing but the two strings shows the difference, which is often a slash or a tenant.
    Log(LogLevel::kWarning, "issuer_not_expected",
        {{"where", "metadata"},
         {"said", said.substr(0, kMaxShownIssuer)},
         {"expected", issuer},
         {"remedy", "set the issuer in the configuration to exactly what its metadata says"}});
    return absl::FailedPreconditionError("the metadata is of another issuer");
  }
  const auto text = [&document](const char* name) { return JsonString(*document, name).value_or(""); };
  IssuerMetadata metadata;
  metadata.issuer = issuer;
  metadata.authorization_endpoint = text("authorization_endpoint");
  metadata.token_endpoint = text("token_endpoint");
  metadata.jwks_uri = text("jwks_uri");
  metadata.revocation_endpoint = text("revocation_endpoint");
  metadata.end_session_endpoint = text("end_session_endpoint");
  metadata.userinfo_endpoint = text("userinfo_endpoint");
  metadata.iss_parameter_supported =
      JsonBool(*document, "authorization_response_iss_parameter_supported").value_or(false);
  metadata.token_endpoint_auth_methods = JsonStrings(*document, "token_endpoint_auth_methods_supported");
  return metadata;
}

std::string OpenIdConfigurationUrl(absl::string_view issuer) {
  return absl::StrCat(absl::StripSuffix(issuer, "/"), "/.well-known/openid-configuration");
}

std::vector<std::string> MetadataUrls(const std::string& issuer) {
  const absl::StatusOr<Url> url = Url::Parse(issuer);
  if (!url.ok() || !url->query().empty()) {
    return {};
  }
  return {absl::StrCat(url->origin(), "/.well-known/oauth-authorization-server", absl::StripSuffix(url->path(), "/")),
          OpenIdConfigurationUrl(absl::StrCat(url->origin(), url->path()))};
}

std::string ClientAuthMethod(const IssuerMetadata& metadata, bool has_client_secret) {
  if (!has_client_secret) {
    return "none";
  }
  const auto& methods = metadata.token_endpoint_auth_methods;
  const auto offers = [&methods](const char* method) {
    return std::find(methods->begin(), methods->end(), method) != methods->end();
  };
  return methods.has_value() && !offers("client_secret_basic") && offers("client_secret_post") ? "client_secret_post"
                                                                                               : "client_secret_basic";
}

MetadataCache::MetadataCache(DocumentFetcher& fetcher, Options options)
    : fetcher_(fetcher), options_(std::move(options)), documents_(options_.timing) {
  FetchFailures(kDocument);
}

absl::StatusOr<IssuerMetadata> MetadataCache::Fetch(const std::string& issuer) const {
  const std::vector<std::string> urls = options_.urls(issuer);
  if (urls.empty()) {
    return absl::FailedPreconditionError("the issuer is no URL");
  }
  absl::Status refused;
  absl::Status failed;
  size_t gone = 0;
  for (const std::string& url : urls) {
    const absl::StatusOr<std::string> body = fetcher_.Fetch(url, kMaxMetadataBytes);
    if (body.ok()) {
      absl::StatusOr<IssuerMetadata> metadata = ParseIssuerMetadata(*body, issuer);
      refused = metadata.ok() ? options_.check(*metadata) : metadata.status();
      if (refused.ok()) {
        return metadata;
      }
      continue;
    }
    failed = body.status();
    gone += absl::IsNotFound(failed) ? 1U : 0U;
    // Anything but an answer of the issuer's says nothing about whether there is a document, and another one must not
    // be taken in its place.
    if (!absl::IsNotFound(failed) && !absl::IsFailedPrecondition(failed)) {
      break;
    }
  }
  if (gone == urls.size()) {
    return absl::NotFoundError("the issuer publishes no metadata");
  }
  if (!refused.ok() || IsRefusedByPolicy(failed)) {
    return refused.ok() ? failed : refused;
  }
  return absl::UnavailableError(absl::StrCat("the issuer's metadata cannot be fetched: ", failed.message()));
}

absl::StatusOr<std::shared_ptr<const IssuerMetadata>> MetadataCache::Get(const std::string& issuer, absl::Time now) {
  const auto fetch = [&]() -> absl::StatusOr<IssuerMetadata> {
    absl::StatusOr<IssuerMetadata> metadata = Fetch(issuer);
    if (!metadata.ok() && (options_.required || !absl::IsNotFound(metadata.status()))) {
      FetchFailures(kDocument).Increment();
      Log(LogLevel::kWarning, "issuer_metadata_fetch_failed", {{"issuer", issuer}, {"status", metadata.status()}});
    }
    return metadata;
  };
  return documents_.Of(issuer, now)
      ->Get(
          now, [](const IssuerMetadata&) { return true; }, fetch);
}

}  // namespace sallyport::oauth

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/oauth/document_fetcher.h"
#include "common/oauth/fetched_document.h"

namespace sallyport::oauth {

// What an issuer publishes (RFC 8414 section 2, OpenID Connect Discovery 1.0 section 3), as far as it is used.
// Endpoints are as the document has them, empty where it has none: who sends something there checks that it may.
struct IssuerMetadata {
  std::string issuer;  // Compared byte for byte with the configuration.
  std::string authorization_endpoint;
  std::string token_endpoint;
  std::string jwks_uri;
  std::string revocation_endpoint;
  std::string end_session_endpoint;
  std::string userinfo_endpoint;
  // RFC 9207 section 3: answers carry `iss`, and one without it is refused.
  bool iss_parameter_supported = false;
  // Nothing if the document does not say.
  std::optional<std::vector<std::string>> token_endpoint_auth_methods;
};

inline constexpr size_t kMaxMetadataBytes = 256 << 10;

// FAILED_PRECONDITION if it is no JSON object or another issuer's (RFC 8414 section 3.3).
absl::StatusOr<IssuerMetadata> ParseIssuerMetadata(absl::string_view json, const std::string& issuer);

// Where an OpenID provider's document is: a trailing slash of the issuer does not count (Discovery section 4.1).
std::string OpenIdConfigurationUrl(absl::string_view issuer);
// Where metadata of `issuer` may be: RFC 8414 section 3.1, then OpenID Connect Discovery. None if it is no URL or has a
// query.
std::vector<std::string> MetadataUrls(const std::string& issuer);

// How a client authenticates at the token endpoint unless it was told: "none" without a secret, else what the issuer
// offers, "client_secret_basic" before "client_secret_post"; basic where the document does not say (RFC 8414 section
// 2).
std::string ClientAuthMethod(const IssuerMetadata& metadata, bool has_client_secret);

// Metadata by issuer. Thread-safe; one fetch at a time per issuer.
class MetadataCache {
 public:
  struct Options {
    FetchTiming timing;
    // False: an issuer that publishes none is nothing to warn of.
    bool required = true;
    // Where to look, in this order.
    std::function<std::vector<std::string>(const std::string& issuer)> urls = MetadataUrls;
    // What a document must be to be taken; FAILED_PRECONDITION if it is not.
    std::function<absl::Status(const IssuerMetadata&)> check = [](const IssuerMetadata&) { return absl::OkStatus(); };
  };
  // `fetcher` outlives this.
  MetadataCache(DocumentFetcher& fetcher, Options options);

  // NOT_FOUND if the issuer says that it publishes none; FAILED_PRECONDITION if what it publishes is not its own or
  // does not pass the check; PERMISSION_DENIED reason "network_not_allowed"; UNAVAILABLE if it cannot be fetched. With
  // retry_after.
  absl::StatusOr<std::shared_ptr<const IssuerMetadata>> Get(const std::string& issuer, absl::Time now);
  // As FetchedDocument::Peek.
  std::shared_ptr<const IssuerMetadata> Peek(const std::string& issuer, absl::Time now, bool* due) {
    return documents_.Of(issuer, now)->Peek(now, due);
  }

 private:
  absl::StatusOr<IssuerMetadata> Fetch(const std::string& issuer) const;

  DocumentFetcher& fetcher_;
  const Options options_;
  FetchedDocuments<IssuerMetadata> documents_;
};

}  // namespace sallyport::oauth

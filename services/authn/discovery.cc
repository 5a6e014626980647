// SPDX-License-Identifier: Apache-2.0
#include "services/authn/discovery.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/http/url.h"

namespace sallyport::authn {

absl::Status CheckDiscovery(const Discovery& discovery) {
  const bool plain_ok = absl::StartsWith(discovery.issuer, "http://");
  const struct {
    const char* name;
    const std::string& url;
    bool required;
  } endpoints[] = {{"authorization_endpoint", discovery.authorization_endpoint, true},
                   {"token_endpoint", discovery.token_endpoint, true},
                   {"jwks_uri", discovery.jwks_uri, true},
                   {"revocation_endpoint", discovery.revocation_endpoint, false},
                   {"end_session_endpoint", discovery.end_session_endpoint, false},
                   {"userinfo_endpoint", discovery.userinfo_endpoint, false}};
  for (const auto& endpoint : endpoints) {
    if (endpoint.url.empty()) {
      if (endpoint.required) {
        return absl::FailedPreconditionError(absl::StrCat("the issuer's metadata lacks ", endpoint.name));
      }
      continue;
    }
    const absl::StatusOr<Url> url = Url::Parse(endpoint.url);
    if (!url.ok() || (!url->is_https() && !plain_ok)) {
      return absl::FailedPreconditionError(
          absl::StrCat(endpoint.name, " of the issuer's metadata is not an https URL"));
    }
  }
  return absl::OkStatus();
}

}  // namespace sallyport::authn

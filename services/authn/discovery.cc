// SPDX-License-Identifier: Apache-2.0
#include "services/authn/discovery.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/json.h"
#include "common/status_macros.h"
#include "common/url.h"

namespace sallyport::authn {
namespace {

absl::StatusOr<std::string> Endpoint(const nlohmann::json& document, const char* name, bool required, bool plain_ok) {
  const std::string text = JsonString(document, name).value_or("");
  if (text.empty()) {
    if (required) {
      return absl::FailedPreconditionError(absl::StrCat("the issuer's metadata lacks ", name));
    }
    return text;
  }
  const absl::StatusOr<Url> url = Url::Parse(text);
  if (!url.ok() || (!url->is_https() && !plain_ok)) {
    return absl::FailedPreconditionError(absl::StrCat(name, " of the issuer's metadata is not an https URL"));
  }
  return text;
}

std::string AuthMethod(const nlohmann::json& document, bool has_client_secret) {
  if (!has_client_secret) {
    return "none";
  }
  const auto methods = JsonStrings(document, "token_endpoint_auth_methods_supported");
  const auto offers = [&](const char* method) {
    return std::find(methods->begin(), methods->end(), method) != methods->end();
  };
  // Absent means client_secret_basic (Discovery section 3).
  return methods.has_value() && !offers("client_secret_basic") && offers("client_secret_post") ? "client_secret_post"
                                                                                               : "client_secret_basic";
}

}  // namespace

std::string DiscoveryUrl(absl::string_view issuer) {
  return absl::StrCat(absl::StripSuffix(issuer, "/"), "/.well-known/openid-configuration");
}

absl::StatusOr<Discovery> ParseDiscovery(absl::string_view json, const std::string& issuer, bool has_client_secret) {
  ASSIGN_OR_RETURN(nlohmann::json document, ParseJsonObject(json, {.max_bytes = kMaxDiscoveryBytes}));
  if (JsonString(document, "issuer") != issuer) {
    return absl::FailedPreconditionError("the metadata is of another issuer");
  }
  const bool plain_ok = absl::StartsWith(issuer, "http://");
  Discovery out;
  ASSIGN_OR_RETURN(out.authorization_endpoint, Endpoint(document, "authorization_endpoint", true, plain_ok));
  ASSIGN_OR_RETURN(out.token_endpoint, Endpoint(document, "token_endpoint", true, plain_ok));
  ASSIGN_OR_RETURN(out.jwks_uri, Endpoint(document, "jwks_uri", true, plain_ok));
  ASSIGN_OR_RETURN(out.revocation_endpoint, Endpoint(document, "revocation_endpoint", false, plain_ok));
  ASSIGN_OR_RETURN(out.end_session_endpoint, Endpoint(document, "end_session_endpoint", false, plain_ok));
  ASSIGN_OR_RETURN(out.userinfo_endpoint, Endpoint(document, "userinfo_endpoint", false, plain_ok));
  out.iss_parameter_supported = JsonBool(document, "authorization_response_iss_parameter_supported").value_or(false);
  out.token_endpoint_auth_method = AuthMethod(document, has_client_secret);
  return out;
}

}  // namespace sallyport::authn

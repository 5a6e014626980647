// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/metadata.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/error.h"
#include "common/status_macros.h"
#include "common/text/json.h"
#include "services/authn/errors.h"

namespace sallyport::authn::web {
namespace {

constexpr absl::Duration kMetadataAge = absl::Minutes(5);
// Shorter than the day a key is published before it signs.
constexpr absl::Duration kJwksAge = absl::Minutes(5);

}  // namespace

absl::StatusOr<WebResponse> Metadata::WellKnown(absl::string_view path) const {
  const absl::Status not_found = NoSuchPage("no such document");
  if (!absl::ConsumePrefix(&path, "/.well-known/")) {
    return not_found;
  }
  const size_t slash = path.find('/');
  const absl::string_view document = path.substr(0, slash);
  absl::string_view rest = slash == absl::string_view::npos ? absl::string_view() : path.substr(slash);
  const bool is_resource = document == "oauth-protected-resource";
  const bool is_openid = document == "openid-configuration";
  if (!is_resource && !is_openid && document != "oauth-authorization-server") {
    return not_found;
  }
  if (rest.empty() && !is_resource) {
    return PublicJson(AuthorizationServer(is_openid), kMetadataAge);
  }
  if (!absl::ConsumePrefix(&rest, "/mcp/") || rest.empty()) {
    return not_found;
  }
  if (!context_.parts.servers.ready()) {
    return ServersUnknown();
  }
  const auto server = context_.parts.servers.FindBySlug(rest);
  if (server == nullptr || !server->interactive) {
    return not_found;
  }
  if (!is_resource) {
    return PublicJson(AuthorizationServer(is_openid), kMetadataAge);
  }
  const nlohmann::json json = {{"resource", context_.parts.tokens.McpAudience(server->slug())},
                               {"authorization_servers", nlohmann::json::array({context_.parts.public_url})},
                               {"scopes_supported", nlohmann::json::array({"mcp"})},
                               {"bearer_methods_supported", nlohmann::json::array({"header"})},
                               {"resource_name", server->name()}};
  return PublicJson(DumpJson(json), kMetadataAge);
}

std::string Metadata::AuthorizationServer(bool as_openid) const {
  const std::string& issuer = context_.parts.public_url;
  const nlohmann::json methods = nlohmann::json::array({"none", "client_secret_basic", "client_secret_post"});
  nlohmann::json json = {{"issuer", issuer},
                         {"authorization_endpoint", issuer + "/oauth/authorize"},
                         {"token_endpoint", issuer + "/oauth/token"},
                         {"registration_endpoint", issuer + "/oauth/register"},
                         {"revocation_endpoint", issuer + "/oauth/revoke"},
                         {"jwks_uri", issuer + "/oauth/jwks"},
                         {"scopes_supported", nlohmann::json::array({"mcp"})},
                         {"response_types_supported", nlohmann::json::array({"code"})},
                         {"response_modes_supported", nlohmann::json::array({"query"})},
                         {"grant_types_supported", nlohmann::json::array({"authorization_code", "refresh_token"})},
                         {"token_endpoint_auth_methods_supported", methods},
                         {"revocation_endpoint_auth_methods_supported", methods},
                         {"code_challenge_methods_supported", nlohmann::json::array({"S256"})},
                         {"authorization_response_iss_parameter_supported", true}};
  if (as_openid) {
    // Required by OpenID Connect Discovery section 3; clients that look here parse by it. No ID tokens are issued.
    json["subject_types_supported"] = nlohmann::json::array({"public"});
    json["id_token_signing_alg_values_supported"] = nlohmann::json::array({"ES256"});
  }
  return DumpJson(json);
}

absl::StatusOr<WebResponse> Metadata::Jwks() const {
  ASSIGN_OR_RETURN(std::string jwks, context_.parts.keys.Jwks());
  return PublicJson(std::move(jwks), kJwksAge);
}

}  // namespace sallyport::authn::web

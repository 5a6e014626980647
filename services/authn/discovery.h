// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sallyport::authn {

// OpenID Connect Discovery 1.0 section 3, what we use of it. `issuer` was compared byte for byte with the
// configuration.
struct Discovery {
  std::string authorization_endpoint;
  std::string token_endpoint;
  std::string jwks_uri;
  std::string revocation_endpoint;
  std::string end_session_endpoint;
  // Empty: the issuer has none.
  std::string userinfo_endpoint;
  // RFC 9207 section 3: answers carry `iss`, and one without it is refused.
  bool iss_parameter_supported = false;
  // "client_secret_basic", "client_secret_post" or "none": what this client uses.
  std::string token_endpoint_auth_method;
};

inline constexpr size_t kMaxDiscoveryBytes = 64 * 1024;

// Where an issuer's document is: a trailing slash of the issuer does not count (section 4.1).
std::string DiscoveryUrl(absl::string_view issuer);
// FAILED_PRECONDITION if `issuer` is another one, an endpoint we need is missing, or one is no https URL (http only if
// the issuer's is).
absl::StatusOr<Discovery> ParseDiscovery(absl::string_view json, const std::string& issuer, bool has_client_secret);

}  // namespace sallyport::authn

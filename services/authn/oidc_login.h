// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/http/client.h"
#include "sallyport/token_broker/v1/sign_ins.pb.h"
#include "services/authn/connectors.h"

namespace sallyport::authn {

// Signs people in at an OpenID provider (authorization code flow with PKCE, OpenID Connect Core 3.1). Thread-safe;
// holds nothing: nonce and verifier are derived from the browser's transaction cookie and the state, so that no other
// browser can finish what this one began, and no table knows them.
class OidcLogin {
 public:
  using Fetch = std::function<absl::StatusOr<HttpResponse>(HttpRequest)>;

  OidcLogin(std::string public_url, Fetch fetch) : public_url_(std::move(public_url)), fetch_(std::move(fetch)) {}

  // "<public_url>/oauth/callback/<connector>": to be registered at the provider.
  std::string RedirectUri(const Connector& connector) const;

  // What an authorization request asks beyond what the connector's configuration says.
  struct Wish {
    std::string prompt;               // Empty: as configured.
    std::vector<std::string> scopes;  // Beside the connector's.
    std::string claims;               // OpenID Connect Core 1.0 section 5.5; empty: as configured.
  };
  // Where to send the browser. UNAVAILABLE, FAILED_PRECONDITION: discovery.
  absl::StatusOr<std::string> AuthorizationUrl(const Connector& connector, absl::string_view state,
                                               absl::string_view browser_cookie, const Wish& wish,
                                               absl::Time now) const;

  // RFC 9207 section 2.4: before anything else in the answer is believed, errors included. UNAUTHENTICATED reason
  // "issuer_mismatch"; also when `iss` is missing although the provider's metadata promises it.
  absl::Status CheckIssuer(const Connector& connector, bool has_iss, absl::string_view iss, absl::Time now) const;

  struct SignedIn {
    Identity identity;
    // As the broker takes it.
    token_broker::v1::StoreTokensRequest tokens;
  };
  // Redeems the code, verifies the ID token and asks UserInfo for what that leaves open. UNAUTHENTICATED if the
  // provider refuses the code or the token does not hold; reason "client_refused" if it does not accept our
  // credentials. UNAVAILABLE reason "provider_unavailable" or "network_not_allowed" if it does not answer. Of what the
  // provider says only its error code is repeated, as oauth_error. `narrowed`: more scopes were asked for than the
  // sign-in's, and the tokens are to be for these alone. Microsoft Entra makes a token for one resource only; others
  // know no scope of this request.
  absl::StatusOr<SignedIn> Redeem(const Connector& connector, absl::string_view code, absl::string_view state,
                                  absl::string_view browser_cookie, bool narrowed, absl::Time now) const;

  // Where a browser ends its session at the provider (OpenID Connect RP-Initiated Logout 1.0 section 2), to come back
  // to /signed-out. NOT_FOUND if the provider announces no such address; errors as AuthorizationUrl.
  absl::StatusOr<std::string> SignOutUrl(const Connector& connector, absl::Time now) const;

 private:
  // fetch_, with errors that say whose they are.
  absl::StatusOr<HttpResponse> Ask(const Connector& connector, HttpRequest request) const;
  // A provider that refuses UserInfo, or answers for somebody else, signs in all the same, with what the ID token says.
  absl::Status AddUserInfo(const Connector& connector, const std::string& endpoint, absl::string_view sub,
                           SignedIn& signed_in) const;
  absl::StatusOr<HttpRequest> TokenRequest(const Connector& connector, const Discovery& discovery,
                                           absl::string_view code, absl::string_view verifier, bool narrowed,
                                           absl::Time now) const;

  const std::string public_url_;
  const Fetch fetch_;
};

}  // namespace sallyport::authn

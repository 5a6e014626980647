// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/jose/jwt.h"
#include "services/authn/signing_keys.h"

namespace sallyport::authn {

// An access token of ours (RFC 9068): typ at+jwt, ES256, iss = public_url, scope "mcp" or "api".
struct AccessToken {
  std::string subject;
  std::string client_id;
  // Claim `sid`: the grant it was issued under. Empty only for API tokens of the one-time admin token and of service
  // accounts.
  std::string grant_id;
  // Claim `srv`: the server's uid. Empty for API tokens.
  std::string server_uid;
  std::string jti;
  std::string scope;
  // Claim `roles`, API tokens only: roles the token itself carries (bootstrap). Usually empty.
  std::vector<std::string> roles;
  absl::Time issued_at = absl::InfinitePast();
  absl::Time expires_at = absl::InfinitePast();
};

struct MintedToken {
  std::string token;
  std::string jti;
  absl::Time expires_at = absl::InfinitePast();
  // Whole seconds, for `expires_in`.
  int64_t expires_in = 0;
};

// Mints and verifies. Thread-safe.
class AccessTokens {
 public:
  // `public_url` is the bare origin and the issuer, byte for byte. `lifetime` at least 5 s.
  AccessTokens(std::string public_url, const SigningKeys& keys, absl::Duration lifetime)
      : public_url_(std::move(public_url)), keys_(keys), lifetime_(lifetime) {}

  const std::string& issuer() const { return public_url_; }
  absl::Duration lifetime() const { return lifetime_; }
  // "<public_url>/mcp/<slug>": the resource (RFC 8707) and exact `aud` of tokens for that server.
  std::string McpAudience(absl::string_view slug) const;
  // "<public_url>/api".
  std::string ApiAudience() const;

  struct McpGrant {
    std::string subject;
    std::string client_id;
    std::string grant_id;
    std::string server_slug;
    std::string server_uid;
  };
  absl::StatusOr<MintedToken> MintMcp(const McpGrant& grant, absl::Time now) const;

  struct ApiGrant {
    std::string subject;
    std::string client_id;
    std::string grant_id;
    std::vector<std::string> roles;
    // Ends no later.
    absl::Time not_after = absl::InfiniteFuture();
  };
  // Lives `lifetime()`, but never longer than an hour; the bootstrap token lives an hour, whatever `lifetime()` is.
  // INVALID_ARGUMENT if `not_after` leaves no second.
  absl::StatusOr<MintedToken> MintApi(const ApiGrant& grant, absl::Time now) const;

  // Is it one of ours, by its unverified issuer?
  bool IsOurs(const UnverifiedJwt& jwt) const { return jwt.issuer == public_url_; }

  // Signature, typ, iss, aud exact (RFC 8707: one string), srv, exp, claims present. 30 s leeway for iat and nbf, none
  // for exp. Whether its grant lives and whether it was revoked is the caller's to ask. UNAUTHENTICATED oauth_error
  // invalid_token; UNAVAILABLE until keys are loaded.
  absl::StatusOr<AccessToken> VerifyMcp(absl::string_view token, absl::string_view server_slug,
                                        absl::string_view server_uid, absl::Time now) const;
  absl::StatusOr<AccessToken> VerifyApi(absl::string_view token, absl::Time now) const;
  // Any token of ours of any audience, expired or not: for /oauth/revoke. Signature and issuer only.
  absl::StatusOr<AccessToken> VerifyForRevocation(absl::string_view token) const;

 private:
  absl::StatusOr<MintedToken> Mint(const AccessToken& token, const std::string& audience, absl::Duration lifetime,
                                   absl::Time now) const;
  absl::StatusOr<AccessToken> Verify(absl::string_view token, const JwtValidator& validator, absl::Time now) const;

  const std::string public_url_;
  const SigningKeys& keys_;
  const absl::Duration lifetime_;
};

}  // namespace sallyport::authn

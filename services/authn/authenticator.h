// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/jose/jwt.h"
#include "sallyport/authn/v1/authn.pb.h"
#include "services/authn/access_token.h"
#include "services/authn/connectors.h"
#include "services/authn/grants.h"
#include "services/authn/jwks_cache.h"
#include "services/authn/passports.h"
#include "services/authn/revocations.h"
#include "services/authn/servers.h"

namespace sallyport::authn {

// A larger token is refused before it is parsed.
inline constexpr size_t kMaxTokenBytes = 8 * 1024;

// Door one: whose is this token, and may they use this server? Thread-safe. Every way out but one is an error: there is
// no anonymous caller.
class Authenticator {
 public:
  // All outlive this.
  struct Parts {
    const Servers& servers;
    const Connectors& connectors;
    JwksCache& jwks;
    const AccessTokens& tokens;
    const Grants& grants;
    const Revocations& revocations;
    const RolePolicy& roles;
    const Passports& passports;
  };
  explicit Authenticator(const Parts& parts) : parts_(parts) {}

  // Who a token says the caller is, before the server's policy.
  struct Verified {
    Identity identity;
    v1::TokenKind kind = v1::TOKEN_KIND_UNSPECIFIED;
    std::string client_id;
    std::vector<std::string> scopes;
    absl::Time expires_at = absl::InfinitePast();
    // Grant of a token of ours, else empty.
    std::string session_id;
    // A token that is not ours.
    std::optional<Jwt> jwt;
  };
  struct Outcome {
    // Filled as far as the caller became known, also when `status` refuses them; for the audit.
    std::string subject;
    std::string client_id;
    std::string server_slug;
    std::string rule;
    absl::StatusOr<v1::AuthenticateResponse> response;
  };

  // Errors are those of the RPC (authn.proto).
  Outcome Authenticate(const v1::AuthenticateRequest& request, absl::Time now) const;

  // The live grant behind a token of ours, and nothing else: revoked, expired or foreign ones are UNAUTHENTICATED.
  absl::StatusOr<Grant> LiveGrant(const AccessToken& token, absl::Time now) const;
  // An API token (aud <public_url>/api): who, and the roles configuration and token give them.
  struct ApiCaller {
    Identity identity;
    std::string client_id;
    std::string session_id;
    std::vector<std::string> roles;
    absl::Time expires_at = absl::InfinitePast();
  };
  absl::StatusOr<ApiCaller> AuthenticateApi(absl::string_view token, absl::Time now) const;
  // May they use this server, whatever token brought them? For the list of servers in a link passport.
  bool MayUse(const ServerView& server, const Identity& identity) const;

 private:
  absl::StatusOr<Verified> VerifyInteractive(const ServerView& server, absl::string_view token, absl::Time now) const;
  absl::StatusOr<Verified> VerifyPassthrough(const ServerView& server, absl::string_view token, absl::Time now) const;
  absl::StatusOr<Verified> VerifyOurs(const ServerView& server, absl::string_view token, absl::Time now) const;
  absl::StatusOr<Verified> VerifyWithServerKeys(const ServerView& server, absl::string_view token,
                                                absl::Time now) const;
  void NoteForeignIssuer(const ServerView& server, absl::string_view token, absl::Time now) const;
  // What is asked of a token that is not ours beyond its own word: whether its subject was revoked after it was issued.
  absl::Status CheckPresented(const Verified& verified) const;
  absl::StatusOr<v1::AuthenticateResponse> Admit(const ServerView& server, const Verified& verified,
                                                 const std::string& rule, absl::Time now) const;

  const Parts parts_;
};

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "services/authn/web/context.h"

namespace sallyport::authn::web {

// The endpoints that clients, not people, call: JSON, no redirects, no cookies. OAuth refusals are responses; statuses
// are failures of ours (UNAVAILABLE and the like).
class OAuthEndpoints {
 public:
  explicit OAuthEndpoints(Context& context) : context_(context) {}

  // RFC 7591.
  absl::StatusOr<WebResponse> Register(const WebRequest& request, absl::Time now);
  // RFC 6749 section 3.2: authorization_code (RFC 7636) and refresh_token.
  absl::StatusOr<WebResponse> Token(const WebRequest& request, absl::Time now);
  // RFC 7009: 200 whatever the token was.
  absl::StatusOr<WebResponse> Revoke(const WebRequest& request, absl::Time now);

 private:
  // The refusal of a grant, a client or a parameter as a status with its OAuth error.
  absl::StatusOr<WebResponse> RedeemCode(const Client& client, const Form& form, const WebRequest& request,
                                         absl::Time now);
  absl::StatusOr<WebResponse> RedeemRefreshToken(const Client& client, const Form& form, const WebRequest& request,
                                                 absl::Time now);
  absl::StatusOr<Client> AuthenticateClient(const Form& form, const WebRequest& request, absl::Time now);
  // May the grant's user still use what it is for, and is that still there?
  absl::Status CheckStillAllowed(const Grant& grant) const;
  absl::StatusOr<WebResponse> Answer(const Grants::Tokens& tokens, absl::Time now) const;
  // `grant_id` empty: nothing to do.
  absl::Status PublishRevoked(const std::string& grant_id, absl::Time now);

  Context& context_;
};

}  // namespace sallyport::authn::web

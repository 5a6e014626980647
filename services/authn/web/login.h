// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "services/authn/web/authorize.h"
#include "services/authn/web/context.h"
#include "services/authn/web/sign_in_step.h"

namespace sallyport::authn::web {

// Signing in and out. Statuses are for StatusPage.
class LoginFlow {
 public:
  LoginFlow(Context& context, const AuthorizeFlow& authorize);

  // GET /login: the choice, or straight on when there is one way. `connector`, `return_to`, `switch` (sign in again, as
  // somebody else perhaps), `consent` and `claims` (ConsentRequestOf).
  absl::StatusOr<WebResponse> Login(const WebRequest& request, absl::Time now);
  // GET /: who is signed in; others are sent to sign in.
  absl::StatusOr<WebResponse> Home(const WebRequest& request, absl::Time now);
  absl::StatusOr<WebResponse> LocalForm(const WebRequest& request, absl::Time now);
  absl::StatusOr<WebResponse> LocalSubmit(const WebRequest& request, absl::Time now);
  // GET /oauth/callback/<connector>
  absl::StatusOr<WebResponse> Callback(absl::string_view connector_id, const WebRequest& request, absl::Time now);
  absl::StatusOr<WebResponse> LogoutForm(const WebRequest& request, absl::Time now);
  absl::StatusOr<WebResponse> LogoutSubmit(const WebRequest& request, absl::Time now);

 private:
  absl::StatusOr<WebResponse> StartOidc(const Connector& connector, const Browser& browser, const SignInStep& step,
                                        const OidcLogin::Wish& wish, absl::Time now);
  // `tries_left` as in the page; the status of the response follows it.
  WebResponse LocalPage(const Connector& connector, const Browser& browser, absl::string_view return_to,
                        absl::string_view username, int tries_left, absl::Time now) const;
  // A new session with a new id; `cookie` is its value.
  absl::StatusOr<Session> Begin(const Identity& identity, const Browser& browser, const WebRequest& request,
                                const char* rule, absl::Time now, std::string* cookie);
  // `connector` may be null: an answer at the address of none. `provider_error`: its own error code, if it gave one.
  absl::Status RecordFailure(const Connector* connector, absl::string_view rule, const WebRequest& request,
                             absl::Time now, const std::string& provider_error = "");
  // The provider's tokens, for rules that pass the caller's token on. A vault that is down does not keep people out:
  // they are stored at the next sign-in, and until then such a rule says what is missing.
  void KeepTokens(const SignInStep& step, const Session& session, const OidcLogin::SignedIn& signed_in, absl::Time now);
  // The local connector of a form, or NOT_FOUND.
  absl::StatusOr<const Connector*> LocalConnectorOf(absl::string_view id) const;

  Context& context_;
  const AuthorizeFlow& authorize_;
};

}  // namespace sallyport::authn::web

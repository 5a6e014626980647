// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "services/authn/oidc_login.h"
#include "services/authn/web/context.h"
#include "services/authn/web/urls.h"

namespace sallyport::authn::web {

// A sign-in between leaving for the provider and coming back: what its transaction keeps.
struct SignInStep {
  std::string connector;
  std::string return_to;
  // Of a sign-in that asks a person who is signed in to agree to what a server's token exchange needs. Empty: an
  // ordinary one.
  std::string consent_server_uid;
  // Whose session it was: nobody else is led back.
  std::string consent_subject;
  // It asks for more than the connector's scopes.
  bool more_scopes = false;

  bool asks_consent() const { return !consent_server_uid.empty(); }
  // Whether `subject`, who came back, is the person who was asked.
  bool IsConsentOf(absl::string_view subject) const { return asks_consent() && consent_subject == subject; }

  std::string ToPayload() const;
  static absl::StatusOr<SignInStep> FromPayload(const std::string& payload);
};

struct ConsentRequest {
  SignInStep step;
  OidcLogin::Wish wish;
};
// GET /login with `consent`: the slug of a server. What is asked is read from the server's plan; of the address only
// `claims` goes on, if it is what such a parameter may be. UNAUTHENTICATED reason "session_ended" if nobody is signed
// in; PERMISSION_DENIED reason "consent_not_possible" unless they have signed in at `connector` (may be null), may use
// the server, and it needs an exchange of their sign-in's token.
absl::StatusOr<ConsentRequest> ConsentRequestOf(const Context& context, const Form& query, const Browser& browser,
                                                const Connector* connector);

// The person said no at the provider, or the provider did; `said` are its words. Who was signed in still is.
WebResponse ConsentRefusedPage(const Context& context, const Connector& connector, const std::string& said);

}  // namespace sallyport::authn::web

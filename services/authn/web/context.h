// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/clock.h"
#include "common/web/ticket.h"
#include "sallyport/audit/v1/audit.pb.h"
#include "services/authn/access_token.h"
#include "services/authn/anonymous_events.h"
#include "services/authn/audit.h"
#include "services/authn/connectors.h"
#include "services/authn/ended_sign_ins.h"
#include "services/authn/grants.h"
#include "services/authn/local_users.h"
#include "services/authn/oidc_login.h"
#include "services/authn/passports.h"
#include "services/authn/revocations.h"
#include "services/authn/servers.h"
#include "services/authn/sessions.h"
#include "services/authn/sign_in_tokens.h"
#include "services/authn/signing_keys.h"
#include "services/authn/web/clients.h"
#include "services/authn/web/responses.h"
#include "services/authn/web/transactions.h"

namespace sallyport::authn::web {

using sallyport::web::CsrfToken;
using sallyport::web::CsrfTokenFits;

// What authn gives its pages. Everything outlives them.
struct Parts {
  // Bare origin; the issuer, byte for byte.
  std::string public_url;
  absl::Duration session_lifetime;
  const Clock& clock;
  Database& database;
  Sessions& sessions;
  Grants& grants;
  Revocations& revocations;
  const Servers& servers;
  const Connectors& connectors;
  const AccessTokens& tokens;
  const SigningKeys& keys;
  const Passports& passports;
  SignInTokens& sign_in_tokens;
  Audit& audit;
  OidcLogin::Fetch fetch;
  // Registered by configuration.
  std::vector<Client> clients = {};
};

// Parts, and what only the pages use. One per process.
struct Context {
  explicit Context(const Parts& given)
      : parts(given),
        host(given.public_url.substr(given.public_url.find("://") + 3)),
        clients(given.database, given.clients),
        consents(given.database),
        ended_sign_ins(given.database),
        transactions(given.database),
        attempts(given.database),
        oidc(given.public_url, given.fetch) {}

  const Parts parts;
  const std::string host;
  Clients clients;
  Consents consents;
  EndedSignIns ended_sign_ins;
  BrowserTransactions transactions;
  LoginAttempts attempts;
  OidcLogin oidc;
  AnonymousEvents anonymous;
};

// Who is at the other end.
struct Browser {
  std::string session_cookie;
  std::optional<Session> session;
  // Transaction cookie; made when the browser had none, and then to be set.
  std::string transaction_cookie;
  bool transaction_cookie_is_new = false;
};
// UNAVAILABLE if the sessions cannot be read: never taken for "not signed in".
absl::StatusOr<Browser> Recognize(const Context& context, const WebRequest& request, absl::Time now);
// Adds the transaction cookie to `response` if it is new.
void KeepTransactionCookie(const Browser& browser, WebResponse& response);

// A POST from a form of ours: parsed body. PERMISSION_DENIED reason "cross_site_form" or "csrf_token",
// INVALID_ARGUMENT.
absl::StatusOr<Form> ParsePostedForm(const Context& context, const WebRequest& request);

// An event of a request: address filled in.
audit::v1::Event EventOf(const char* type, audit::v1::Decision decision, absl::string_view subject,
                         const WebRequest& request);

// What a page asks the reader to send to an administrator: the reason and the time.
std::string ReportCode(const Context& context, absl::string_view reason);

// The error page for a status of a page's flow, with its reason as code. INTERNAL and UNKNOWN say nothing of their
// message.
WebResponse StatusPage(const Context& context, const absl::Status& status);

}  // namespace sallyport::authn::web

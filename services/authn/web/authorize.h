// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "services/authn/web/authorization.h"
#include "services/authn/web/context.h"
#include "services/authn/web/pages.h"

namespace sallyport::authn::web {

// Kinds of browser transactions.
inline constexpr char kAuthorizing[] = "authorize";
inline constexpr char kConsenting[] = "consent";
inline constexpr char kLinking[] = "link";

inline constexpr char kContinuePath[] = "/oauth/continue";
inline constexpr char kConsentPath[] = "/oauth/consent";
std::string WithTransaction(absl::string_view path, absl::string_view id);
ConsentKey ConsentKeyOf(const Authorization& authorization, absl::string_view subject);

// The authorization endpoint (RFC 6749 section 3.1) and the steps after it:
//   /oauth/authorize → /login → /oauth/continue → /oauth/consent → /connect/<server> → /oauth/continue → the client,
//   with a code
// Statuses are for StatusPage.
class AuthorizeFlow {
 public:
  explicit AuthorizeFlow(Context& context) : context_(context) {}

  absl::StatusOr<WebResponse> Authorize(const WebRequest& request, absl::Time now);
  absl::StatusOr<WebResponse> Continue(const WebRequest& request, absl::Time now);
  absl::StatusOr<WebResponse> ShowConsent(const WebRequest& request, absl::Time now);
  absl::StatusOr<WebResponse> DecideConsent(const WebRequest& request, absl::Time now);

  // "<client> wants to use <server>" for a sign-in on the way to `return_to`; empty if it is not for a client of this
  // browser.
  Errand ErrandOf(absl::string_view return_to, const Browser& browser, absl::Time now) const;

 private:
  // A redirect address that was checked, and what the client is told there.
  struct Refusal {
    const char* error;
    std::string description;
  };
  absl::StatusOr<Client> FindClient(const Form& query) const;
  // Also for a later step: it may be gone meanwhile.
  absl::StatusOr<Client> FindClient(const std::string& client_id, const std::string& redirect_uri) const;
  // Fills `authorization` and says what is wrong with the rest of the request, if something is.
  std::optional<Refusal> ReadRequest(const Form& query, const Client& client, Authorization& authorization) const;
  std::optional<Refusal> ReadTarget(const Form& query, const Client& client, Authorization& authorization) const;

  void Choose(const ServerView& server, Authorization& authorization) const;
  // Those the user may use, for a client that names none. Only those it is approved for, if there are any.
  std::vector<std::shared_ptr<const ServerView>> ServersFor(const Identity& user, const Client& client) const;

  // Does the user have to look at the consent page? `server` is null for the API, and while none is chosen.
  absl::StatusOr<bool> MustAsk(Authorization& authorization, const Client& client, const ServerView* server,
                               const Identity& user) const;
  // `note` says what was missing on a page that was sent; empty the first time.
  absl::StatusOr<WebResponse> PageOfConsent(const Authorization& authorization, const Browser& browser,
                                            const std::string& id, const WebRequest& request, absl::string_view note);

  // The next step for somebody who is signed in.
  absl::StatusOr<WebResponse> Advance(Authorization authorization, const Browser& browser, const WebRequest& request,
                                      absl::Time now);
  absl::StatusOr<WebResponse> ToLogin(const Authorization& authorization, const Browser& browser, bool again,
                                      absl::Time now);
  // The server forwards the tokens of the browser's sign-in, and those have ended at the identity provider: its session
  // goes on here, and only a new sign-in there gives new ones. Not for servers that need no such token.
  absl::StatusOr<bool> NeedsFreshTokens(const Authorization& authorization, const Browser& browser) const;
  // To the identity provider of the browser's session, which is asked nothing more than it would ask anybody.
  absl::StatusOr<WebResponse> ToProvider(const Authorization& authorization, const Browser& browser, bool after_post,
                                         absl::Time now);
  // After the consent. `after_post`: the answer to a form, so a page and not a redirect.
  absl::StatusOr<WebResponse> LinkOrIssue(Authorization authorization, const Browser& browser,
                                          const WebRequest& request, bool after_post, absl::Time now);
  absl::StatusOr<WebResponse> Issue(const Authorization& authorization, const Browser& browser,
                                    const WebRequest& request, bool after_post, absl::Time now);
  // A page with a link back, or a redirect where that is safe: to a program on this computer, or where the user sent
  // codes before (RFC 9700 section 4.11.2).
  absl::StatusOr<WebResponse> Refuse(const Authorization& authorization, const Browser& browser,
                                     const Refusal& refusal);
  absl::StatusOr<WebResponse> Denied(const Authorization& authorization, const Browser& browser,
                                     const WebRequest& request, const char* rule);
  std::string ErrorLocation(const Authorization& authorization, const Refusal& refusal) const;
  // Null if it is gone or takes no sign-in any more.
  std::shared_ptr<const ServerView> ServerOf(const Authorization& authorization) const;
  std::string ServerName(const Authorization& authorization) const;

  Context& context_;
};

}  // namespace sallyport::authn::web

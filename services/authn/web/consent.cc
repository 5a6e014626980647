// SPDX-License-Identifier: Apache-2.0
// The consent page: who is asked, for what, and what comes of the answer.
#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/oauth/error.h"
#include "common/status_macros.h"
#include "common/web/page.h"
#include "services/authn/errors.h"
#include "services/authn/web/authorize.h"
#include "services/authn/web/local_programs.h"

namespace sallyport::authn::web {

ConsentKey ConsentKeyOf(const Authorization& authorization, absl::string_view subject) {
  return {std::string(subject), authorization.client_id, RedirectHost(authorization.redirect_uri),
          authorization.server_uid};
}

std::vector<std::shared_ptr<const ServerView>> AuthorizeFlow::ServersFor(const Identity& user,
                                                                         const Client& client) const {
  const bool email_counts = context_.parts.connectors.SpeaksFor(user);
  std::vector<std::shared_ptr<const ServerView>> allowed;
  std::vector<std::shared_ptr<const ServerView>> approved;
  for (auto& server : context_.parts.servers.Interactive()) {
    if (!server->policy.Decide(user, email_counts).allowed) {
      continue;
    }
    if (client.IsApprovedFor(server->slug())) {
      approved.push_back(server);
    }
    allowed.push_back(std::move(server));
  }
  return approved.empty() ? allowed : approved;
}

absl::StatusOr<bool> AuthorizeFlow::MustAsk(Authorization& authorization, const Client& client,
                                            const ServerView* server, const Identity& user) const {
  authorization.approved = false;
  // Power over the gateway itself is asked for each time, and so is what any program on the computer could ask for in
  // the name of one that was allowed (RFC 8252 section 8.6).
  if (server == nullptr || authorization.is_api() || LeadsToLocalProgram(authorization.redirect_uri) ||
      authorization.prompt == "consent") {
    return true;
  }
  authorization.approved = client.IsApprovedFor(server->slug());
  if (authorization.approved) {
    return false;
  }
  ASSIGN_OR_RETURN(const bool remembered, context_.consents.Has(ConsentKeyOf(authorization, user.subject)));
  return !remembered;
}

absl::StatusOr<WebResponse> AuthorizeFlow::PageOfConsent(const Authorization& authorization, const Browser& browser,
                                                         const std::string& id, const WebRequest& request,
                                                         absl::string_view note) {
  ASSIGN_OR_RETURN(const Client client, FindClient(authorization.client_id, authorization.redirect_uri));
  const auto server = ServerOf(authorization);
  const Identity& user = browser.session->user;
  const Connector* connector = context_.parts.connectors.Find(user.connector);
  Consent consent;
  consent.user = user;
  consent.connector_name = connector == nullptr ? user.connector : connector->display_name();
  consent.client_name = authorization.client_name;
  consent.client_is_registered = client.configured;
  consent.redirect_host = RedirectHost(authorization.redirect_uri);
  consent.local_program = LeadsToLocalProgram(authorization.redirect_uri);
  consent.server_name = ServerName(authorization);
  consent.resource = authorization.resource;
  consent.links_app = server != nullptr && server->needs_connecting();
  consent.is_api = authorization.is_api();
  consent.transaction = id;
  consent.csrf = CsrfToken(browser.session_cookie, id);
  consent.note = std::string(note);
  if (authorization.needs_server()) {
    for (const auto& choice : ServersFor(user, client)) {
      consent.choices.push_back({choice->slug(), choice->name(), context_.parts.tokens.McpAudience(choice->slug())});
    }
    if (consent.choices.empty()) {
      return Denied(authorization, browser, request, AccessDecision().rule);
    }
  } else if (consent.local_program && !consent.is_api && authorization.prompt != "consent") {
    ASSIGN_OR_RETURN(consent.allowed_before, context_.consents.Has(ConsentKeyOf(authorization, user.subject)));
  }
  return HtmlResponse(note.empty() ? 200 : 400, ConsentPage(consent, context_.host));
}

absl::StatusOr<WebResponse> AuthorizeFlow::ShowConsent(const WebRequest& request, absl::Time now) {
  ASSIGN_OR_RETURN(const Form query, Form::Parse(request.query()));
  ASSIGN_OR_RETURN(const Browser browser, Recognize(context_, request, now));
  const std::string& id = query.Get("txn");
  ASSIGN_OR_RETURN(const std::string payload,
                   context_.transactions.Look(id, browser.transaction_cookie, kConsenting, now));
  if (!browser.session.has_value()) {
    return Redirect(WithParameters("/login", {{"return_to", WithTransaction(kContinuePath, id)}}));
  }
  ASSIGN_OR_RETURN(const Authorization authorization, DecodeAuthorization(payload));
  return PageOfConsent(authorization, browser, id, request, "");
}

absl::StatusOr<WebResponse> AuthorizeFlow::DecideConsent(const WebRequest& request, absl::Time now) {
  ASSIGN_OR_RETURN(const Form form, ParsePostedForm(context_, request));
  ASSIGN_OR_RETURN(const Browser browser, Recognize(context_, request, now));
  const std::string& id = form.Get("txn");
  // The token is bound to the session and to this transaction: neither another user's nor another client's consent
  // fits.
  if (!browser.session.has_value() || !CsrfTokenFits(form.Get("csrf"), browser.session_cookie, id)) {
    return WrongFormToken();
  }
  const std::string& decision = form.Get("decision");
  if (decision != "allow" && decision != "deny") {
    return absl::InvalidArgumentError("decision must be allow or deny");
  }
  const bool allowed = decision == "allow";
  ASSIGN_OR_RETURN(const std::string payload,
                   context_.transactions.Look(id, browser.transaction_cookie, kConsenting, now));
  ASSIGN_OR_RETURN(Authorization authorization, DecodeAuthorization(payload));
  const Identity& user = browser.session->user;
  if (allowed && authorization.needs_server()) {
    ASSIGN_OR_RETURN(const Client client, FindClient(authorization.client_id, authorization.redirect_uri));
    const auto servers = ServersFor(user, client);
    const auto chosen = std::find_if(servers.begin(), servers.end(),
                                     [&](const auto& server) { return server->slug() == form.Get("server"); });
    if (chosen == servers.end()) {
      return PageOfConsent(authorization, browser, id, request, "Choose a server first.");
    }
    Choose(**chosen, authorization);
  }
  // Used up only now: a form that was not complete can be sent again.
  RETURN_IF_ERROR(context_.transactions.Take(id, browser.transaction_cookie, kConsenting, now).status());
  const ConsentKey key = ConsentKeyOf(authorization, user.subject);
  audit::v1::Event event =
      EventOf("consent", allowed ? audit::v1::DECISION_ALLOWED : audit::v1::DECISION_DENIED, user.subject, request);
  event.set_client_id(authorization.client_id);
  event.set_server_uid(authorization.server_uid);
  event.set_rule("user");
  NameUser(user, event);
  NameClient(authorization.own_client_name(), event);
  (*event.mutable_details())["redirect_host"] = key.redirect_host;
  RETURN_IF_ERROR(context_.parts.audit.Record(std::move(event)));
  if (!allowed) {
    const std::string target = ErrorLocation(authorization, {oauth::kAccessDenied, "the user did not allow it"});
    return HtmlResponse(
        200, page::RenderContinue("Not allowed", absl::StrCat(authorization.client_name, " gets no access."), target,
                                  context_.host));
  }
  if (const auto server = ServerOf(authorization); !authorization.is_api()) {
    if (server == nullptr) {
      return WithReason(absl::NotFoundError("the server is gone"), "server_gone");
    }
    const AccessDecision access = server->policy.Decide(user, context_.parts.connectors.SpeaksFor(user));
    if (!access.allowed) {
      return Denied(authorization, browser, request, access.rule);
    }
  }
  RETURN_IF_ERROR(context_.consents.Give(key, now));
  return LinkOrIssue(authorization, browser, request, /*after_post=*/true, now);
}

}  // namespace sallyport::authn::web

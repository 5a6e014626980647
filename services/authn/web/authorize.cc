// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/authorize.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

#include "common/error.h"
#include "common/oauth/error.h"
#include "common/status_macros.h"
#include "common/text/utf8.h"
#include "common/web/page.h"
#include "services/authn/errors.h"
#include "services/authn/groups_overage.h"
#include "services/authn/web/resource.h"

namespace sallyport::authn::web {
namespace {

constexpr size_t kMaxState = 2048;
constexpr size_t kMaxShownName = 80;

// What the client calls itself, shortened to what fits a title.
std::string ShownName(const Client& client, absl::string_view redirect_uri) {
  std::string name = client.metadata.client_name.substr(0, kMaxShownName);
  while (!IsValidUtf8(name)) {
    name.pop_back();
  }
  return name.empty() ? RedirectHost(redirect_uri) : name;
}

absl::Status BadClientRequest(const char* reason, absl::string_view message) {
  return WithReason(absl::InvalidArgumentError(message), reason);
}

}  // namespace

std::string WithTransaction(absl::string_view path, absl::string_view id) { return absl::StrCat(path, "?txn=", id); }

absl::StatusOr<Client> AuthorizeFlow::FindClient(const Form& query) const {
  if (query.Count("client_id") != 1 || query.Count("redirect_uri") != 1) {
    return BadClientRequest("client_or_redirect_missing", "client_id and redirect_uri are each required once");
  }
  return FindClient(query.Get("client_id"), query.Get("redirect_uri"));
}

absl::StatusOr<Client> AuthorizeFlow::FindClient(const std::string& client_id, const std::string& redirect_uri) const {
  absl::StatusOr<Client> client = context_.clients.Find(client_id);
  if (!client.ok()) {
    return absl::IsNotFound(client.status()) ? BadClientRequest("client_unknown", "the client is not registered here")
                                             : client.status();
  }
  // RFC 9700 section 2.1: never a redirect to an address the client did not register.
  if (!client->AllowsRedirect(redirect_uri)) {
    return BadClientRequest("redirect_uri_unknown", "redirect_uri is not registered for this client");
  }
  return client;
}

std::optional<AuthorizeFlow::Refusal> AuthorizeFlow::ReadRequest(const Form& query, const Client& client,
                                                                 Authorization& authorization) const {
  if (query.Get("state").size() > kMaxState) {
    return Refusal{oauth::kInvalidRequest, "state is longer than 2048 bytes"};
  }
  authorization.state = query.Count("state") == 1 ? query.Get("state") : "";
  if (!query.Duplicate("resource").empty()) {
    return Refusal{oauth::kInvalidRequest, "a parameter occurs more than once"};
  }
  if (query.Has("request") || query.Has("request_uri")) {
    return Refusal{"request_not_supported", "request objects are not supported"};
  }
  if (query.Get("response_type") != "code") {
    return query.Get("response_type").empty() ? Refusal{oauth::kInvalidRequest, "response_type is missing"}
                                              : Refusal{oauth::kUnsupportedResponseType, "response_type must be code"};
  }
  if (query.Has("response_mode") && query.Get("response_mode") != "query") {
    return Refusal{oauth::kInvalidRequest, "response_mode must be query"};
  }
  authorization.code_challenge = query.Get("code_challenge");
  if (!IsS256Challenge(authorization.code_challenge) || query.Get("code_challenge_method") != "S256") {
    return Refusal{oauth::kInvalidRequest, "code_challenge with code_challenge_method S256 is required"};
  }
  if (std::optional<Refusal> refusal = ReadTarget(query, client, authorization); refusal.has_value()) {
    return refusal;
  }
  const std::string& prompt = query.Get("prompt");
  if (prompt == "none") {
    return Refusal{oauth::kInteractionRequired, "a person has to look at this"};
  }
  authorization.prompt = prompt == "login" || prompt == "consent" ? prompt : "";
  return std::nullopt;
}

std::optional<AuthorizeFlow::Refusal> AuthorizeFlow::ReadTarget(const Form& query, const Client& client,
                                                                Authorization& authorization) const {
  const Refusal unknown{oauth::kInvalidTarget, "resource must be the address of one server of this gateway"};
  if (query.Count("resource") > 1) {
    return unknown;
  }
  const std::string resource = NormalizeResource(query.Get("resource"));
  if (client.id == kCliClientId) {
    if (resource != context_.parts.tokens.ApiAudience()) {
      return unknown;
    }
    authorization.resource = resource;
    return std::nullopt;
  }
  if (NamesNoServer(query.Get("resource"), context_.parts.public_url)) {
    authorization.named_none = true;
    const auto servers = context_.parts.servers.Interactive();
    if (servers.empty()) {
      return Refusal{oauth::kInvalidTarget, "this gateway has no server that people sign in to"};
    }
    // With several the user chooses, among those they may use.
    if (servers.size() == 1) {
      Choose(*servers[0], authorization);
    }
    return std::nullopt;
  }
  absl::string_view slug = resource;
  if (!absl::ConsumePrefix(&slug, context_.parts.tokens.McpAudience(""))) {
    return unknown;
  }
  const auto server = context_.parts.servers.FindBySlug(slug);
  if (server == nullptr || !server->interactive) {
    return unknown;
  }
  Choose(*server, authorization);
  return std::nullopt;
}

void AuthorizeFlow::Choose(const ServerView& server, Authorization& authorization) const {
  // The audience of the tokens: the address as we write it, however the client did.
  authorization.resource = context_.parts.tokens.McpAudience(server.slug());
  authorization.server_uid = server.uid();
}

absl::StatusOr<WebResponse> AuthorizeFlow::Authorize(const WebRequest& request, absl::Time now) {
  const absl::StatusOr<Form> query = Form::Parse(request.query());
  if (!query.ok()) {
    return BadClientRequest("query_malformed", "the query does not parse");
  }
  ASSIGN_OR_RETURN(const Client client, FindClient(*query));
  if (!context_.parts.servers.ready()) {
    return ServersUnknown();
  }
  ASSIGN_OR_RETURN(const Browser browser, Recognize(context_, request, now));
  Authorization authorization;
  authorization.client_id = client.id;
  authorization.redirect_uri = query->Get("redirect_uri");
  authorization.client_name = ShownName(client, authorization.redirect_uri);
  authorization.begun_at = now;
  if (const std::optional<Refusal> refusal = ReadRequest(*query, client, authorization); refusal.has_value()) {
    return Refuse(authorization, browser, *refusal);
  }
  if (!browser.session.has_value() || authorization.prompt == "login") {
    return ToLogin(authorization, browser, authorization.prompt == "login", now);
  }
  ASSIGN_OR_RETURN(const bool needs_tokens, NeedsFreshTokens(authorization, browser));
  return needs_tokens ? ToProvider(authorization, browser, /*after_post=*/false, now)
                      : Advance(std::move(authorization), browser, request, now);
}

absl::StatusOr<bool> AuthorizeFlow::NeedsFreshTokens(const Authorization& authorization, const Browser& browser) const {
  const auto server = authorization.is_api() ? nullptr : ServerOf(authorization);
  if (server == nullptr || !server->forwards_sign_in_token) {
    return false;
  }
  return context_.ended_sign_ins.Has(browser.session->user.subject, browser.session->created_at);
}

absl::StatusOr<WebResponse> AuthorizeFlow::ToProvider(const Authorization& authorization, const Browser& browser,
                                                      bool after_post, absl::Time now) {
  ASSIGN_OR_RETURN(const std::string id, context_.transactions.Begin(browser.transaction_cookie, kAuthorizing,
                                                                     EncodeAuthorization(authorization), now));
  const std::string target = WithParameters(
      "/login", {{"connector", browser.session->user.connector}, {"return_to", WithTransaction(kContinuePath, id)}});
  WebResponse response =
      after_post ? HtmlResponse(200, page::RenderContinue("One more step",
                                                          absl::StrCat("Next: sign in again, because ",
                                                                       ServerName(authorization), " needs it."),
                                                          target, context_.host))
                 : Redirect(target);
  KeepTransactionCookie(browser, response);
  return response;
}

absl::StatusOr<WebResponse> AuthorizeFlow::ToLogin(const Authorization& authorization, const Browser& browser,
                                                   bool again, absl::Time now) {
  ASSIGN_OR_RETURN(const std::string id, context_.transactions.Begin(browser.transaction_cookie, kAuthorizing,
                                                                     EncodeAuthorization(authorization), now));
  WebResponse response = Redirect(
      WithParameters("/login", {{"switch", again ? "1" : ""}, {"return_to", WithTransaction(kContinuePath, id)}}));
  KeepTransactionCookie(browser, response);
  return response;
}

absl::StatusOr<WebResponse> AuthorizeFlow::Continue(const WebRequest& request, absl::Time now) {
  ASSIGN_OR_RETURN(const Form query, Form::Parse(request.query()));
  ASSIGN_OR_RETURN(const Browser browser, Recognize(context_, request, now));
  const std::string& id = query.Get("txn");
  // Which step it is lies in the kind; an id has one.
  absl::StatusOr<std::string> payload;
  std::string step;
  for (const char* kind : {kAuthorizing, kConsenting, kLinking}) {
    step = kind;
    payload = context_.transactions.Take(id, browser.transaction_cookie, kind, now);
    if (payload.ok() || ReasonOf(payload.status()) != "transaction_expired") {
      break;
    }
  }
  RETURN_IF_ERROR(payload.status());
  ASSIGN_OR_RETURN(Authorization authorization, DecodeAuthorization(*payload));
  const bool stale = authorization.prompt == "login" && browser.session.has_value() &&
                     browser.session->created_at < authorization.begun_at;
  if (!browser.session.has_value() || stale) {
    authorization.linking_subject.clear();
    return ToLogin(authorization, browser, stale, now);
  }
  ASSIGN_OR_RETURN(const bool needs_tokens, NeedsFreshTokens(authorization, browser));
  if (needs_tokens) {
    authorization.linking_subject.clear();
    return ToProvider(authorization, browser, /*after_post=*/false, now);
  }
  if (step == kLinking && authorization.linking_subject == browser.session->user.subject) {
    const auto server = ServerOf(authorization);
    if (server == nullptr) {
      return Refuse(authorization, browser, {oauth::kInvalidTarget, "the server is gone"});
    }
    const Identity& user = browser.session->user;
    const AccessDecision decision = server->policy.Decide(user, context_.parts.connectors.SpeaksFor(user));
    return decision.allowed ? Issue(authorization, browser, request, /*after_post=*/false, now)
                            : Denied(authorization, browser, request, decision.rule);
  }
  authorization.linking_subject.clear();
  // Perhaps another user by now, who may use other servers.
  if (authorization.named_none) {
    authorization.resource.clear();
    authorization.server_uid.clear();
  }
  return Advance(std::move(authorization), browser, request, now);
}

absl::StatusOr<WebResponse> AuthorizeFlow::Advance(Authorization authorization, const Browser& browser,
                                                   const WebRequest& request, absl::Time now) {
  const Identity& user = browser.session->user;
  ASSIGN_OR_RETURN(const Client client, FindClient(authorization.client_id, authorization.redirect_uri));
  if (authorization.needs_server()) {
    const auto servers = ServersFor(user, client);
    if (servers.empty()) {
      return Denied(authorization, browser, request, AccessDecision().rule);
    }
    if (servers.size() == 1) {
      Choose(*servers[0], authorization);
    }
  }
  const auto server = ServerOf(authorization);
  if (!authorization.is_api() && !authorization.needs_server()) {
    if (server == nullptr) {
      return Refuse(authorization, browser, {oauth::kInvalidTarget, "the server is gone"});
    }
    const AccessDecision decision = server->policy.Decide(user, context_.parts.connectors.SpeaksFor(user));
    if (!decision.allowed) {
      return Denied(authorization, browser, request, decision.rule);
    }
  }
  ASSIGN_OR_RETURN(const bool asks, MustAsk(authorization, client, server.get(), user));
  if (!asks) {
    return LinkOrIssue(authorization, browser, request, /*after_post=*/false, now);
  }
  ASSIGN_OR_RETURN(const std::string id, context_.transactions.Begin(browser.transaction_cookie, kConsenting,
                                                                     EncodeAuthorization(authorization), now));
  WebResponse response = Redirect(WithTransaction(kConsentPath, id));
  KeepTransactionCookie(browser, response);
  return response;
}

absl::StatusOr<WebResponse> AuthorizeFlow::LinkOrIssue(Authorization authorization, const Browser& browser,
                                                       const WebRequest& request, bool after_post, absl::Time now) {
  // Which server it is may not have been known before the consent.
  ASSIGN_OR_RETURN(const bool needs_tokens, NeedsFreshTokens(authorization, browser));
  if (needs_tokens) {
    return ToProvider(authorization, browser, after_post, now);
  }
  const auto server = ServerOf(authorization);
  if (authorization.is_api() || server == nullptr || !server->needs_connecting()) {
    return Issue(authorization, browser, request, after_post, now);
  }
  authorization.linking_subject = browser.session->user.subject;
  ASSIGN_OR_RETURN(const std::string id, context_.transactions.Begin(browser.transaction_cookie, kLinking,
                                                                     EncodeAuthorization(authorization), now));
  const std::string target = WithTransaction(absl::StrCat("/connect/", server->slug()), id);
  WebResponse response =
      after_post ? HtmlResponse(200, page::RenderContinue("One more step",
                                                          absl::StrCat("Next: your account for ", server->name(), "."),
                                                          target, context_.host))
                 : Redirect(target);
  KeepTransactionCookie(browser, response);
  return response;
}

absl::StatusOr<WebResponse> AuthorizeFlow::Issue(const Authorization& authorization, const Browser& browser,
                                                 const WebRequest& request, bool after_post, absl::Time now) {
  const char* rule = authorization.approved ? "client.approved" : "consent";
  ASSIGN_OR_RETURN(const Secret code, context_.parts.grants.IssueCode(browser.session->user,
                                                                      {.client_id = authorization.client_id,
                                                                       .client_name = authorization.own_client_name(),
                                                                       .redirect_uri = authorization.redirect_uri,
                                                                       .code_challenge = authorization.code_challenge,
                                                                       .resource = authorization.resource,
                                                                       .server_uid = authorization.server_uid,
                                                                       .scope = authorization.is_api() ? "api" : "mcp",
                                                                       .session_id = browser.session->id,
                                                                       .rule = rule},
                                                                      request.client_address(), now));
  const std::string target = WithParameters(
      authorization.redirect_uri,
      {{"code", std::string(code.Expose())}, {"state", authorization.state}, {"iss", context_.parts.public_url}});
  if (!after_post) {
    return Redirect(target);
  }
  return HtmlResponse(200, page::RenderContinue(absl::StrCat("Back to ", authorization.client_name),
                                                "You are signed in. You can close this tab if nothing happens.", target,
                                                context_.host));
}

std::string AuthorizeFlow::ErrorLocation(const Authorization& authorization, const Refusal& refusal) const {
  return WithParameters(authorization.redirect_uri, {{"error", refusal.error},
                                                     {"error_description", refusal.description},
                                                     {"state", authorization.state},
                                                     {"iss", context_.parts.public_url}});
}

absl::StatusOr<WebResponse> AuthorizeFlow::Refuse(const Authorization& authorization, const Browser& browser,
                                                  const Refusal& refusal) {
  const std::string target = ErrorLocation(authorization, refusal);
  bool trusted = IsLoopbackRedirect(authorization.redirect_uri);
  if (!trusted && browser.session.has_value()) {
    ASSIGN_OR_RETURN(trusted,
                     context_.consents.TrustsRedirect(ConsentKeyOf(authorization, browser.session->user.subject)));
  }
  if (trusted) {
    return Redirect(target);
  }
  return HtmlResponse(
      400, ErrorPage({"This request is not valid",
                      absl::StrCat(authorization.client_name,
                                   " asked for something that cannot be given: ", refusal.description, "."),
                      refusal.error, target, absl::StrCat("Back to ", RedirectHost(authorization.redirect_uri))},
                     context_.host));
}

absl::StatusOr<WebResponse> AuthorizeFlow::Denied(const Authorization& authorization, const Browser& browser,
                                                  const WebRequest& request, const char* rule) {
  const Identity& user = browser.session->user;
  audit::v1::Event event = EventOf("code.issued", audit::v1::DECISION_DENIED, user.subject, request);
  event.set_client_id(authorization.client_id);
  event.set_server_uid(authorization.server_uid);
  event.set_rule(rule);
  NameUser(user, event);
  NameClient(authorization.own_client_name(), event);
  RETURN_IF_ERROR(context_.parts.audit.Record(std::move(event)));
  const std::string server =
      authorization.needs_server() ? std::string("any server of this gateway") : ServerName(authorization);
  const bool overage = absl::string_view(rule) == kGroupsOverageRule;
  const Connector* connector = context_.parts.connectors.Find(user.connector);
  const std::string why =
      overage ? absl::StrCat(". ", server, " goes by groups, and ",
                             connector == nullptr ? user.connector : connector->display_name(),
                             " sent none of yours because there are too many. What your administrator can do: ",
                             kGroupsOverageRemedy, ".")
              : absl::StrCat(". An administrator decides who may use ", server, ".");
  return HtmlResponse(
      403, ErrorPage({absl::StrCat("You may not use ", server),
                      absl::StrCat("You are signed in as ", user.email.empty() ? user.subject : user.email, why),
                      absl::StrCat(overage ? "groups_overage · " : "not_allowed · ", user.subject),
                      ErrorLocation(authorization, {oauth::kAccessDenied, "the user may not use this server"}),
                      absl::StrCat("Back to ", authorization.client_name)},
                     context_.host));
}

std::shared_ptr<const ServerView> AuthorizeFlow::ServerOf(const Authorization& authorization) const {
  auto server = context_.parts.servers.FindByUid(authorization.server_uid);
  return server != nullptr && server->interactive ? server : nullptr;
}

std::string AuthorizeFlow::ServerName(const Authorization& authorization) const {
  if (authorization.is_api()) {
    return "this gateway";
  }
  if (authorization.needs_server()) {
    return "a server of this gateway";
  }
  const auto server = ServerOf(authorization);
  return server == nullptr ? "the server" : server->name();
}

Errand AuthorizeFlow::ErrandOf(absl::string_view return_to, const Browser& browser, absl::Time now) const {
  if (!absl::ConsumePrefix(&return_to, WithTransaction(kContinuePath, ""))) {
    return {};
  }
  for (const char* kind : {kAuthorizing, kConsenting}) {
    const absl::StatusOr<std::string> payload =
        context_.transactions.Look(return_to, browser.transaction_cookie, kind, now);
    if (!payload.ok()) {
      continue;
    }
    if (const absl::StatusOr<Authorization> authorization = DecodeAuthorization(*payload); authorization.ok()) {
      return {authorization->client_name, ServerName(*authorization)};
    }
  }
  return {};
}

}  // namespace sallyport::authn::web

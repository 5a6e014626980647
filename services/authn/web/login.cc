// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/login.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/oauth/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/utf8.h"
#include "common/web/page.h"
#include "services/authn/errors.h"
#include "services/authn/groups_overage.h"
#include "services/authn/web/pages.h"
#include "services/authn/web/provider_pages.h"

namespace sallyport::authn::web {
namespace {

constexpr char kSigningIn[] = "sign_in";
constexpr char kLocalForm[] = "local sign-in";
constexpr char kLogoutForm[] = "sign-out";
// The provider's own words, for whoever reads the page; longer ones are cut.
constexpr size_t kMaxProviderText = 200;

std::string Shortened(absl::string_view text) {
  std::string shortened(text.substr(0, kMaxProviderText));
  while (!IsValidUtf8(shortened)) {
    shortened.pop_back();
  }
  return shortened;
}

absl::Status BadCallback(const char* reason) {
  return WithReason(absl::InvalidArgumentError("the answer does not belong to a sign-in of this browser"), reason);
}

constexpr CounterInfo kSignIns = {
    .name = "sallyport_authn_sign_ins_total",
    .help = "Sign-ins of people that came to an end",
    .unit = "sign-ins",
    .labels = {{"connector", "id of a configured connector"},
               {"outcome", "signed_in, refused, paused (too many wrong passwords), unavailable"}},
    .rise =
        "refused: wrong passwords, or answers of the provider that do not hold. paused: somebody guesses passwords. "
        "unavailable: the identity provider is down",
    .action =
        "The audit names the check that refused; for unavailable look at the identity provider and at "
        "`sallyport_oauth_fetch_failures_total`",
};

prometheus::Counter& SignIns(const std::string& connector, const std::string& outcome) {
  return MetricCounter(kSignIns, {{"connector", connector}, {"outcome", outcome}});
}

void CountSignIn(const std::string& connector, const std::string& outcome) { SignIns(connector, outcome).Increment(); }

}  // namespace

LoginFlow::LoginFlow(Context& context, const AuthorizeFlow& authorize) : context_(context), authorize_(authorize) {
  // There from the start: an alert must see the first one as a rise from 0.
  for (const auto& connector : context.parts.connectors.all()) {
    for (const char* outcome : {"signed_in", "refused", "paused", "unavailable"}) {
      SignIns(connector->id(), outcome);
    }
  }
}

absl::StatusOr<WebResponse> LoginFlow::Login(const WebRequest& request, absl::Time now) {
  ASSIGN_OR_RETURN(const Form query, Form::Parse(request.query()));
  ASSIGN_OR_RETURN(const Browser browser, Recognize(context_, request, now));
  const std::string return_to = SafeReturnTo(query.Get("return_to"));
  const bool again = query.Get("switch") == "1";
  if (query.Has("consent")) {
    const Connector* connector = context_.parts.connectors.Find(query.Get("connector"));
    ASSIGN_OR_RETURN(const ConsentRequest consent, ConsentRequestOf(context_, query, browser, connector));
    return StartOidc(*connector, browser, consent.step, consent.wish, now);
  }
  if (browser.session.has_value() && !again && !query.Has("connector")) {
    return Redirect(return_to);
  }
  std::vector<const Connector*> usable;
  for (const auto& connector : context_.parts.connectors.all()) {
    if (connector->can_sign_in()) {
      usable.push_back(connector.get());
    }
  }
  const Connector* chosen = usable.size() == 1 ? usable[0] : nullptr;
  if (query.Has("connector")) {
    chosen = context_.parts.connectors.Find(query.Get("connector"));
    if (chosen == nullptr || !chosen->can_sign_in()) {
      return ConnectorUnknown();
    }
  }
  if (chosen != nullptr && chosen->type() == Connector::Type::kOidc) {
    return StartOidc(*chosen, browser, {.connector = chosen->id(), .return_to = return_to},
                     {.prompt = again ? "login" : ""}, now);
  }
  if (chosen != nullptr) {
    return Redirect(WithParameters("/login/local", {{"connector", chosen->id()}, {"return_to", return_to}}));
  }
  std::vector<LoginChoice> choices;
  choices.reserve(usable.size());
  for (const Connector* connector : usable) {
    choices.push_back({connector->id(), connector->display_name(), connector->type() == Connector::Type::kLocal});
  }
  return HtmlResponse(
      200, LoginPage(choices, authorize_.ErrandOf(return_to, browser, now), return_to, again, context_.host));
}

absl::StatusOr<WebResponse> LoginFlow::StartOidc(const Connector& connector, const Browser& browser,
                                                 const SignInStep& step, const OidcLogin::Wish& wish, absl::Time now) {
  ASSIGN_OR_RETURN(const std::string state,
                   context_.transactions.Begin(browser.transaction_cookie, kSigningIn, step.ToPayload(), now));
  const absl::StatusOr<std::string> target =
      context_.oidc.AuthorizationUrl(connector, state, browser.transaction_cookie, wish, now);
  if (!target.ok()) {
    CountSignIn(connector.id(), "unavailable");
    return ProviderFailure(context_, connector, target.status(), step.return_to);
  }
  WebResponse response = Redirect(*target);
  KeepTransactionCookie(browser, response);
  return response;
}

absl::StatusOr<WebResponse> LoginFlow::Home(const WebRequest& request, absl::Time now) {
  ASSIGN_OR_RETURN(const Browser browser, Recognize(context_, request, now));
  return browser.session.has_value()
             ? HtmlResponse(200, HomePage(browser.session->user, context_.parts.public_url, context_.host))
             : Redirect("/login");
}

absl::StatusOr<const Connector*> LoginFlow::LocalConnectorOf(absl::string_view id) const {
  const Connector* connector = context_.parts.connectors.Find(id);
  if (id.empty()) {
    for (const auto& candidate : context_.parts.connectors.all()) {
      if (candidate->type() == Connector::Type::kLocal) {
        connector = candidate.get();
        break;
      }
    }
  }
  if (connector == nullptr || connector->type() != Connector::Type::kLocal) {
    return ConnectorUnknown();
  }
  return connector;
}

WebResponse LoginFlow::LocalPage(const Connector& connector, const Browser& browser, absl::string_view return_to,
                                 absl::string_view username, int tries_left, absl::Time now) const {
  LocalLogin form;
  form.connector = connector.id();
  form.return_to = std::string(return_to);
  form.csrf = CsrfToken(browser.transaction_cookie, kLocalForm);
  form.username = std::string(username);
  form.tries_left = tries_left;
  form.has_other_ways = context_.parts.connectors.all().size() > 1;
  const int status = tries_left < 0 ? 200 : tries_left == 0 ? 429 : 401;
  WebResponse response =
      HtmlResponse(status, LocalLoginPage(form, authorize_.ErrandOf(return_to, browser, now), context_.host));
  KeepTransactionCookie(browser, response);
  return response;
}

absl::StatusOr<WebResponse> LoginFlow::LocalForm(const WebRequest& request, absl::Time now) {
  ASSIGN_OR_RETURN(const Form query, Form::Parse(request.query()));
  ASSIGN_OR_RETURN(const Browser browser, Recognize(context_, request, now));
  ASSIGN_OR_RETURN(const Connector* connector, LocalConnectorOf(query.Get("connector")));
  return LocalPage(*connector, browser, SafeReturnTo(query.Get("return_to")), "", -1, now);
}

absl::StatusOr<WebResponse> LoginFlow::LocalSubmit(const WebRequest& request, absl::Time now) {
  ASSIGN_OR_RETURN(const Form form, ParsePostedForm(context_, request));
  ASSIGN_OR_RETURN(const Browser browser, Recognize(context_, request, now));
  // Login CSRF: the form must come from this browser's own page.
  if (browser.transaction_cookie_is_new || !CsrfTokenFits(form.Get("csrf"), browser.transaction_cookie, kLocalForm)) {
    return WrongFormToken();
  }
  ASSIGN_OR_RETURN(const Connector* connector, LocalConnectorOf(form.Get("connector")));
  const std::string return_to = SafeReturnTo(form.Get("return_to"));
  const std::string& username = form.Get("username");
  const absl::StatusOr<int> tries_left = context_.attempts.Begin(username, request.client_address(), now);
  if (absl::IsResourceExhausted(tries_left.status())) {
    RETURN_IF_ERROR(RecordFailure(connector, "local.paused", request, now));
    return LocalPage(*connector, browser, return_to, username, 0, now);
  }
  RETURN_IF_ERROR(tries_left.status());
  ASSIGN_OR_RETURN(const config::v1::LocalConnector::User* user,
                   LocalUsers::Check(connector->config().local(), username, Secret(form.Get("password"))));
  if (user == nullptr) {
    RETURN_IF_ERROR(RecordFailure(connector, "local.password", request, now));
    return LocalPage(*connector, browser, return_to, username, *tries_left, now);
  }
  RETURN_IF_ERROR(context_.attempts.Succeeded(username, request.client_address()));
  std::string cookie;
  RETURN_IF_ERROR(Begin(connector->IdentityOfLocalUser(*user), browser, request, "local", now, &cookie).status());
  // What follows may lead off the origin, and a redirect there after a form would be blocked.
  WebResponse response =
      HtmlResponse(200, page::RenderContinue("Signed in", "Taking you on.", return_to, context_.host));
  SetCookie(response, kSessionCookie, cookie, context_.parts.session_lifetime);
  return response;
}

absl::StatusOr<WebResponse> LoginFlow::Callback(absl::string_view connector_id, const WebRequest& request,
                                                absl::Time now) {
  const absl::StatusOr<Form> query = Form::Parse(request.query());
  if (!query.ok() || !query->Duplicate().empty() || query->Get("state").empty()) {
    return BadCallback("callback_malformed");
  }
  ASSIGN_OR_RETURN(const Browser browser, Recognize(context_, request, now));
  ASSIGN_OR_RETURN(const std::string payload,
                   context_.transactions.Take(query->Get("state"), browser.transaction_cookie, kSigningIn, now));
  ASSIGN_OR_RETURN(const SignInStep step, SignInStep::FromPayload(payload));
  const Connector* connector = context_.parts.connectors.Find(connector_id);
  // Another provider's answer at this provider's address is a mix-up (RFC 9207 section 1).
  if (connector == nullptr || step.connector != connector->id()) {
    RETURN_IF_ERROR(RecordFailure(connector, "oidc.other_connector", request, now));
    return BadCallback("connector_mismatch");
  }
  if (const absl::Status issuer = context_.oidc.CheckIssuer(*connector, query->Has("iss"), query->Get("iss"), now);
      !issuer.ok()) {
    if (!absl::IsUnauthenticated(issuer)) {
      const auto page = ProviderFailure(context_, *connector, issuer, step.return_to);
      RETURN_IF_ERROR(RecordFailure(connector, "oidc.unavailable", request, now));
      return page;
    }
    RETURN_IF_ERROR(RecordFailure(connector, "oidc.issuer", request, now));
    return BadCallback("issuer_mismatch");
  }
  if (query->Has("error") || query->Get("code").empty()) {
    const std::string code = query->Has("error") ? oauth::SafeErrorCode(query->Get("error")) : "code_missing";
    Log(LogLevel::kWarning, "sign_in_refused", {{"connector", connector->id()}, {"provider_error", code}});
    RETURN_IF_ERROR(RecordFailure(connector, "oidc.provider_error", request, now, code));
    const std::string said = absl::StrCat(Shortened(query->Get("error")), query->Has("error_description") ? ": " : "",
                                          Shortened(query->Get("error_description")));
    if (step.asks_consent()) {
      return ConsentRefusedPage(context_, *connector, said);
    }
    return HtmlResponse(
        400, ErrorPage({absl::StrCat(connector->display_name(), " did not sign you in"),
                        "You are not signed in here. It gave this reason:", said,
                        WithParameters("/login", {{"switch", "1"}, {"return_to", step.return_to}}), "Try again"},
                       context_.host));
  }
  const absl::StatusOr<OidcLogin::SignedIn> signed_in = context_.oidc.Redeem(
      *connector, query->Get("code"), query->Get("state"), browser.transaction_cookie, step.more_scopes, now);
  if (!signed_in.ok()) {
    const absl::Status& status = signed_in.status();
    const auto page = ProviderFailure(context_, *connector, status, step.return_to);
    RETURN_IF_ERROR(RecordFailure(connector, absl::IsUnauthenticated(status) ? "oidc.token" : "oidc.unavailable",
                                  request, now, DetailOf(status).oauth_error));
    return page;
  }
  std::string cookie;
  ASSIGN_OR_RETURN(const Session session, Begin(signed_in->identity, browser, request, "oidc", now, &cookie));
  KeepTokens(step, session, *signed_in, now);
  // Somebody else is not led on with what the former person began.
  const bool led_back = !step.asks_consent() || step.IsConsentOf(session.user.subject);
  WebResponse response = Redirect(led_back ? step.return_to : "/");
  SetCookie(response, kSessionCookie, cookie, context_.parts.session_lifetime);
  return response;
}

absl::StatusOr<Session> LoginFlow::Begin(const Identity& identity, const Browser& browser, const WebRequest& request,
                                         const char* rule, absl::Time now, std::string* cookie) {
  audit::v1::Event event = EventOf("login", audit::v1::DECISION_ALLOWED, identity.subject, request);
  event.set_rule(rule);
  event.set_client_id("browser");
  NameUser(identity, event);
  (*event.mutable_details())["connector"] = identity.connector;
  if (identity.groups_overage) {
    (*event.mutable_details())["groups"] = "overage";
    CountGroupsOverage(identity.connector, "sign_in");
    Log(LogLevel::kWarning, "groups_overage", {{"connector", identity.connector}, {"remedy", kGroupsOverageRemedy}});
  }
  RETURN_IF_ERROR(context_.parts.audit.Record(std::move(event)));
  ASSIGN_OR_RETURN(Sessions::Created created, context_.parts.sessions.Create(identity, browser.session_cookie, now));
  CountSignIn(identity.connector, "signed_in");
  if (created.identity_changed) {
    context_.parts.revocations.Wake();
  }
  if (browser.session.has_value()) {
    RETURN_IF_ERROR(context_.parts.revocations.PublishSessions({browser.session->id}, now));
  }
  *cookie = std::string(created.cookie.Expose());
  return std::move(created.session);
}

absl::Status LoginFlow::RecordFailure(const Connector* connector, absl::string_view rule, const WebRequest& request,
                                      absl::Time now, const std::string& provider_error) {
  audit::v1::Event event = EventOf("login.failed", audit::v1::DECISION_DENIED, "", request);
  event.set_rule(std::string(rule));
  if (connector != nullptr) {
    CountSignIn(connector->id(), rule == "local.paused"       ? "paused"
                                 : rule == "oidc.unavailable" ? "unavailable"
                                                              : "refused");
    (*event.mutable_details())["connector"] = connector->id();
  }
  if (!provider_error.empty()) {
    (*event.mutable_details())["error"] = provider_error;
  }
  // Wrong passwords are bounded by name and address (LoginAttempts), and none must hide behind a flood of the others.
  return rule == "local.password" ? context_.parts.audit.Record(std::move(event))
                                  : context_.anonymous.Record(context_.parts.audit, std::move(event), now);
}

void LoginFlow::KeepTokens(const SignInStep& step, const Session& session, const OidcLogin::SignedIn& signed_in,
                           absl::Time now) {
  const auto store = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(const std::string passport,
                     context_.parts.passports.MintForSignIn(session.user.subject, session.id, now));
    token_broker::v1::StoreTokensRequest tokens = signed_in.tokens;
    tokens.set_connector(step.connector);
    if (step.IsConsentOf(session.user.subject)) {
      tokens.set_consent_server_uid(step.consent_server_uid);
    }
    RETURN_IF_ERROR(context_.parts.sign_in_tokens.Store(tokens, passport));
    return context_.ended_sign_ins.Clear(session.user.subject);
  };
  if (const absl::Status stored = store(); !stored.ok()) {
    Log(LogLevel::kError, "sign_in_tokens_not_stored", {{"connector", step.connector}, {"status", stored}});
  }
}

absl::StatusOr<WebResponse> LoginFlow::LogoutForm(const WebRequest& request, absl::Time now) {
  ASSIGN_OR_RETURN(const Browser browser, Recognize(context_, request, now));
  if (!browser.session.has_value()) {
    return Redirect("/signed-out");
  }
  return HtmlResponse(200,
                      LogoutPage(browser.session->user, CsrfToken(browser.session_cookie, kLogoutForm), context_.host));
}

absl::StatusOr<WebResponse> LoginFlow::LogoutSubmit(const WebRequest& request, absl::Time now) {
  ASSIGN_OR_RETURN(const Form form, ParsePostedForm(context_, request));
  ASSIGN_OR_RETURN(const Browser browser, Recognize(context_, request, now));
  if (browser.session.has_value()) {
    if (!CsrfTokenFits(form.Get("csrf"), browser.session_cookie, kLogoutForm)) {
      return WrongFormToken();
    }
    audit::v1::Event event = EventOf("logout", audit::v1::DECISION_ALLOWED, browser.session->user.subject, request);
    event.set_rule("user");
    RETURN_IF_ERROR(context_.parts.audit.Record(std::move(event)));
    ASSIGN_OR_RETURN(const std::optional<Session> ended, context_.parts.sessions.End(browser.session_cookie, now));
    if (ended.has_value()) {
      RETURN_IF_ERROR(context_.parts.revocations.PublishSessions({ended->id}, now));
    }
  }
  WebResponse response = SignedOut(context_, browser, now);
  SetCookie(response, kSessionCookie, "", absl::ZeroDuration());
  SetCookie(response, kTransactionCookie, "", absl::ZeroDuration());
  return response;
}

}  // namespace sallyport::authn::web

// SPDX-License-Identifier: Apache-2.0
#include "services/authn/web/context.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/json_log.h"
#include "common/status_macros.h"
#include "common/web/same_origin.h"
#include "services/authn/web/pages.h"

namespace sallyport::authn::web {
namespace {

constexpr size_t kMaxBody = 64 << 10;
// The cookie outlives a step, so that several flows of one browser can share it.
constexpr absl::Duration kTransactionCookieLife = absl::Hours(1);

struct Wording {
  int status;
  const char* title;
  const char* lead;
};

Wording WordingOf(absl::StatusCode code, absl::string_view reason) {
  if (reason == "transaction_expired") {
    return {400, "This step is over",
            "It was used already or is more than 10 minutes old. Start again where you came from."};
  }
  if (reason == "transaction_mismatch") {
    return {400, "This step belongs to another browser",
            "It was begun in another browser, or your browser does not keep cookies. Nothing was allowed. Start again "
            "where "
            "you came from."};
  }
  if (reason == "client_unknown") {
    return {
        400, "This client is not known here",
        "Its registration is gone, or it was made at another gateway. Remove the connection in your client and add it "
        "again. You were not sent back to it, because nobody vouches for the address."};
  }
  if (reason == "redirect_uri_unknown") {
    return {400, "This client did not register that address",
            "It asked to send you to an address it had not named before. You were not sent there."};
  }
  if (reason == "cross_site_form" || reason == "csrf_token") {
    return {403, "This form is not from here", "It was sent by another site or is too old. Nothing was changed."};
  }
  if (reason == "session_ended") {
    return {401, "You are signed out", "Your session ended in the middle of this step. Nothing was allowed."};
  }
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return {400, "This request is not valid", "The address is incomplete or was changed on the way."};
    case absl::StatusCode::kUnauthenticated:
      return {401, "Sign-in failed", "The identity provider’s answer could not be verified. You are not signed in."};
    case absl::StatusCode::kPermissionDenied:
      return {403, "Not allowed", "You may not do this."};
    case absl::StatusCode::kNotFound:
      return {404, "There is nothing here", "The address is wrong or what it named is gone."};
    case absl::StatusCode::kResourceExhausted:
      return {429, "Too many attempts", "Wait a few minutes and try again."};
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
    case absl::StatusCode::kFailedPrecondition:
      return {503, "Not available right now", "Something this gateway needs does not answer. Try again in a minute."};
    default:
      return {500, "Something went wrong", "The error has been recorded. Try again in a minute."};
  }
}

}  // namespace

absl::StatusOr<Browser> Recognize(const Context& context, const WebRequest& request, absl::Time now) {
  const std::string cookies = HeaderOf(request, "cookie");
  Browser browser;
  browser.session_cookie = CookieValue(cookies, kSessionCookie);
  absl::StatusOr<Session> session = context.parts.sessions.Find(browser.session_cookie, now);
  if (session.ok()) {
    if (std::optional<Identity> user = context.parts.connectors.Current(session->user); user.has_value()) {
      session->user = *std::move(user);
      browser.session = *std::move(session);
    }
  } else if (!absl::IsUnauthenticated(session.status())) {
    return session.status();
  }
  browser.transaction_cookie = CookieValue(cookies, kTransactionCookie);
  if (!BrowserTransactions::IsCookie(browser.transaction_cookie)) {
    browser.transaction_cookie = BrowserTransactions::NewCookie();
    browser.transaction_cookie_is_new = true;
  }
  return browser;
}

void KeepTransactionCookie(const Browser& browser, WebResponse& response) {
  if (browser.transaction_cookie_is_new) {
    SetCookie(response, kTransactionCookie, browser.transaction_cookie, kTransactionCookieLife);
  }
}

absl::StatusOr<Form> ParsePostedForm(const Context& context, const WebRequest& request) {
  if (const absl::Status origin = sallyport::web::CheckSameOrigin(request, context.parts.public_url); !origin.ok()) {
    return WithReason(origin, "cross_site_form");
  }
  if (!IsFormContent(request) || request.body().size() > kMaxBody) {
    return absl::InvalidArgumentError("the body must be a form");
  }
  ASSIGN_OR_RETURN(Form form, Form::Parse(request.body()));
  if (!form.Duplicate().empty()) {
    return absl::InvalidArgumentError("a field occurs twice");
  }
  return form;
}

audit::v1::Event EventOf(const char* type, audit::v1::Decision decision, absl::string_view subject,
                         const WebRequest& request) {
  audit::v1::Event event = MakeEvent(type, decision, std::string(subject));
  event.set_client_address(request.client_address());
  return event;
}

std::string ReportCode(const Context& context, absl::string_view reason) {
  return absl::StrCat(reason, " · ",
                      absl::FormatTime("%d %b %Y %H:%M UTC", context.parts.clock.Now(), absl::UTCTimeZone()));
}

WebResponse StatusPage(const Context& context, const absl::Status& status) {
  std::string reason = ReasonOf(status);
  const Wording wording = WordingOf(status.code(), reason);
  if (wording.status >= 500) {
    Log(LogLevel::kError, "page_failed", {{"status", status}});
  }
  if (reason.empty()) {
    reason = absl::StrCat("http_", wording.status);
  }
  Problem problem{wording.title, wording.lead, ReportCode(context, reason), "", ""};
  if (wording.status == 401) {
    problem.href = "/login";
    problem.label = "Sign in again";
  }
  WebResponse response = HtmlResponse(wording.status, ErrorPage(problem, context.host));
  if (wording.status == 503) {
    AddHeader(response, "retry-after", "2");
  }
  return response;
}

}  // namespace sallyport::authn::web

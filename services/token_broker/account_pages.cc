// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/account_pages.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/http/url.h"
#include "common/json_log.h"
#include "common/web/responses.h"
#include "services/token_broker/error_pages.h"
#include "services/token_broker/link_scopes.h"
#include "services/token_broker/names.h"

namespace sallyport::token_broker {
namespace {

using web::WebResponse;

// With what the page showed: whatever has changed since, its user has not agreed to.
std::string PurposeOf(const PageVisit& visit, const Linker::Unconfirmed& shown) {
  return absl::StrCat("account ", visit.server->uid(), " ", ConnectionName(visit.app->uid(), visit.account), " ",
                      shown.version, " ", shown.former_version);
}

std::string Query(const registry::v1::McpServer& server, const std::string& account, const std::string& txn,
                  const std::string& return_to) {
  std::vector<std::string> parts;
  if (std::string part = AccountParameter(server, account); !part.empty()) {
    parts.push_back(std::move(part));
  }
  if (!txn.empty()) {
    parts.push_back(absl::StrCat("txn=", PercentEncode(txn)));
  }
  if (!return_to.empty()) {
    parts.push_back(absl::StrCat("return_to=", PercentEncode(return_to)));
  }
  return parts.empty() ? "" : absl::StrCat("?", absl::StrJoin(parts, "&"));
}

std::string Or(const std::string& name, const char* otherwise) { return name.empty() ? otherwise : name; }

}  // namespace

std::string AccountPages::ConfirmUrl(const registry::v1::McpServer& server, const Linker::Outcome& outcome,
                                     const Passport& passport) const {
  std::string url = absl::StrCat("/connect/", server.slug(), "/confirm",
                                 Query(server, outcome.account, outcome.txn, outcome.return_to));
  // The server's policy need not allow what the platform's configuration did. Without a way back, too: the server's
  // page is no remedy for a platform's link.
  if (!outcome.platform.empty()) {
    absl::StrAppend(&url, url.find('?') == std::string::npos ? "?" : "&",
                    "back=", PercentEncode(forms_.SignedWayBack(passport, outcome.return_to)));
  }
  return url;
}

std::string AccountPages::ConnectUrl(const registry::v1::McpServer& server, const std::string& account,
                                     const std::string& txn, const std::string& return_to) {
  return absl::StrCat("/connect/", server.slug(), Query(server, account, txn, return_to));
}

std::string AccountPages::DoneQuery(const registry::v1::McpServer& server, const std::string& account) {
  return Query(server, account, "", "");
}

std::string AccountPages::DoneUrl(const registry::v1::McpServer& server, const std::string& account) {
  return absl::StrCat("/connect/", server.slug(), "/done", DoneQuery(server, account));
}

page::Html AccountPages::Onward(const PageVisit& visit) const {
  if (forms_.IsSignedWayBack(visit)) {
    // The server's page would connect another account, other scopes, or nothing: only the platform makes such links.
    return visit.return_to.empty() ? page::Lead("Begin again where you came from.")
                                   : page::ButtonLink(visit.return_to, "Back to where you came from");
  }
  page::Html next =
      page::ButtonLink(ConnectUrl(*visit.server, visit.account, visit.txn, visit.return_to), "Connect again");
  next += BackLink(visit.txn);
  return next;
}

WebResponse AccountPages::NotFound(const PageVisit& visit, const absl::Status& status) const {
  if (absl::IsNotFound(status)) {
    return Message(410, forms_.host(), "Nothing to confirm",
                   "This was answered already, or ten minutes have passed. What was not confirmed is revoked.",
                   Onward(visit));
  }
  Log(LogLevel::kWarning, "account_not_confirmed", {{"app", visit.app->slug()}, {"status", status}});
  return NotNow(forms_.host(), forms_.IsSignedWayBack(visit) ? BackToPlatform(visit.return_to) : BackLink(visit.txn));
}

WebResponse AccountPages::Show(const PageVisit& visit) const {
  const absl::StatusOr<Linker::Unconfirmed> shown = linker_.Find(*visit.app, visit.account, visit.passport);
  if (!shown.ok()) {
    return NotFound(visit, shown.status());
  }
  absl::StatusOr<page::Html> fields = forms_.Fields(visit, PurposeOf(visit, *shown), {"txn", "return_to", "back"});
  if (!fields.ok()) {
    return NotNow(forms_.host());
  }
  *fields += page::HiddenField("account", visit.account);
  const std::string app = NameOf(*visit.app);
  const std::string now = Or(shown->account_name, "another account");
  const std::string former = Or(shown->former_name, "the former account");
  page::Page page = forms_.PageFor(visit, absl::StrCat("Another ", app, " account"), app);
  page.body = page::Fill("<h1>Another {} account</h1>", {app});
  page.body += page::Lead(absl::StrCat("As your ", AccountInWords(*visit.app, visit.account), " you connected ", former,
                                       " before; now it is ", now, ". Use ", now, "?"));
  page.body += WhoIsAsked(visit.passport);
  page.body += page::Note(page::Tone::kWarn, "If you did not expect this:",
                          absl::StrCat("you are signed in to ", app,
                                       " with another account than before. Answer no, sign "
                                       "in there with the right one and connect again."));
  page.body += page::Fill(
      "<form class=\"stack\" method=\"post\" action=\"/connect/{}/confirm\">{}"
      "<button class=\"btn primary wide\" type=\"submit\" name=\"answer\" value=\"yes\">Use {}</button>"
      "<button class=\"btn wide\" type=\"submit\" name=\"answer\" value=\"no\">No, keep {}</button></form>",
      {visit.server->slug(), *fields, now, former});
  return web::HtmlResponse(200, page::Render(page));
}

WebResponse AccountPages::Answer(const PageVisit& visit) const {
  const absl::StatusOr<Linker::Unconfirmed> shown = linker_.Find(*visit.app, visit.account, visit.passport);
  if (!shown.ok()) {
    return NotFound(visit, shown.status());
  }
  const std::string answer = visit.Field("answer");
  if (!forms_.IsOurs(visit, PurposeOf(visit, *shown)) || (answer != "yes" && answer != "no")) {
    std::string again = absl::StrCat("/connect/", visit.server->slug(), "/confirm",
                                     Query(*visit.server, visit.account, visit.txn, visit.return_to));
    if (const std::string back = visit.Field("back"); !back.empty()) {
      absl::StrAppend(&again, again.find('?') == std::string::npos ? "?" : "&", "back=", PercentEncode(back));
    }
    return FormTooOld(forms_.host(), again);
  }
  Linker::Choice choice{.app = visit.app, .server = visit.server, .account = visit.account};
  choice.client_address = visit.request->client_address();
  choice.version = shown->version;
  choice.former_version = shown->former_version;
  const absl::Status status =
      answer == "yes" ? linker_.Confirm(choice, visit.passport) : linker_.Decline(choice, visit.passport);
  const std::string app = NameOf(*visit.app);
  if (IsRefusal(status)) {
    const Linker::Outcome outcome{
        .account = visit.account, .account_name = shown->account_name, .former_name = shown->former_name};
    return Refused(*visit.app, visit.passport, status, outcome, Onward(visit));
  }
  if (!status.ok()) {
    return NotFound(visit, absl::IsAborted(status) ? absl::NotFoundError("") : status);
  }
  if (answer == "no") {
    return Message(200, forms_.host(), absl::StrCat(Or(shown->account_name, "The account"), " was not connected"),
                   absl::StrCat("Nothing was changed. What ", app, " gave for it is being revoked."), Onward(visit));
  }
  const std::string done = DoneUrl(*visit.server, visit.account);
  const std::string target =
      forms_.IsSignedWayBack(visit)
          ? (visit.return_to.empty() ? done : visit.return_to)
          : progress_.NextOf(visit, *visit.server, visit.txn, visit.return_to, DoneQuery(*visit.server, visit.account));
  return web::HtmlResponse(
      200, page::RenderContinue(absl::StrCat(app, " is connected"),
                                absl::StrCat("Your ", AccountInWords(*visit.app, visit.account), " is connected."),
                                target, forms_.host()));
}

bool AccountPages::IsRefusal(const absl::Status& status) {
  const std::string reason = ReasonOf(status);
  return absl::IsPermissionDenied(status) &&
         (reason == "account_changed" || reason == "account_unknown" || reason == "account_domain");
}

WebResponse AccountPages::Refused(const registry::v1::App& app, const Passport& passport, const absl::Status& status,
                                  const Linker::Outcome& outcome, const page::Html& next) const {
  const std::string name = NameOf(app);
  const std::string reason = ReasonOf(status);
  const std::string account = Or(outcome.account_name, "this account");
  const std::string end =
      absl::StrCat(" Nothing was changed, and what ", name, " gave is being revoked. (", reason, ")");
  if (reason == "account_changed") {
    return Message(403, forms_.host(), absl::StrCat("Another ", name, " account"),
                   absl::StrCat("As your ", AccountInWords(app, outcome.account), " you connected ",
                                Or(outcome.former_name, "another one"), " before, and ", account,
                                " may not take its place. Disconnect it first, or connect ", account,
                                " under another label.", end),
                   next);
  }
  if (reason == "account_domain") {
    const std::string domain = DomainOf(passport.email);
    const bool known = passport.email_verified && !domain.empty();
    return Message(403, forms_.host(), absl::StrCat(name, " was not connected"),
                   absl::StrCat(known ? absl::StrCat("Only accounts with an email address of ", domain,
                                                     ", with which you signed in, may be connected, and ", account,
                                                     " has another.")
                                      : std::string("Only accounts of the email domain you signed in with may be "
                                                    "connected, and your sign-in gave no verified email address."),
                                end),
                   next);
  }
  return Message(403, forms_.host(), absl::StrCat(name, " was not connected"),
                 absl::StrCat(name,
                              " did not say enough about the account: which one it is, or a verified email "
                              "address of it. This app does not take such accounts; its administrator finds the "
                              "reason in the log.",
                              end),
                 next);
}

}  // namespace sallyport::token_broker

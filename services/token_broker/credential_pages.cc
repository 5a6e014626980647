// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/credential_pages.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/json_log.h"
#include "common/web/responses.h"
#include "services/token_broker/connectables.h"
#include "services/token_broker/error_pages.h"
#include "services/token_broker/names.h"

namespace sallyport::token_broker {
namespace {

using web::WebResponse;

// With the origins that the page named: what is allowed since, its user has not agreed to.
std::string PurposeOf(const PageVisit& visit) {
  return absl::StrCat("credential ", visit.server->uid(), " ", visit.credential->uid(), " ",
                      absl::StrJoin(visit.credential->allowed_upstream_origins(), " "));
}

page::Html UsernameField(const PageVisit& visit) {
  if (visit.credential->kind() != registry::v1::Credential::PASSWORD) {
    return {};
  }
  return page::Fill(
      R"(<div class="field"><label for="u">Name</label><input class="input" id="u" name="username" autocomplete="off" autocapitalize="none" spellcheck="false" required maxlength="256" value="{}"></div>)",
      {visit.is_post() ? visit.Field("username") : ""});
}

}  // namespace

WebResponse CredentialPages::Show(const PageVisit& visit, bool stored) const {
  return Show(visit, 200,
              stored ? page::Note(page::Tone::kOk, "One is stored.", "What you enter takes its place.") : page::Html());
}

WebResponse CredentialPages::Show(const PageVisit& visit, int status, const page::Html& note) const {
  absl::StatusOr<page::Html> fields = forms_.Fields(visit, PurposeOf(visit), {"for", "txn", "return_to"});
  if (!fields.ok()) {
    return NotNow(forms_.host());
  }
  *fields += page::HiddenField("credential", visit.credential->slug());
  const std::string name = NameOf(*visit.credential);
  page::Page page = forms_.PageFor(visit, absl::StrCat("Enter your ", name), NameOf(*visit.server));
  page.body = page::Fill("<h1>Enter your {}</h1>", {name});
  page.body += page::Lead(absl::StrCat(NameOf(*visit.server), " works with your own ", name,
                                       ". It is kept encrypted, sent to the addresses below and nowhere else, and "
                                       "never shown again, not to the program that calls either."));
  page.body += WhoIsAsked(visit.passport);
  for (const std::string& origin : visit.credential->allowed_upstream_origins()) {
    page.body += page::Fill("<p class=\"small\">May be sent to: {}</p>", {origin});
  }
  page.body += note;
  const bool password = visit.credential->kind() == registry::v1::Credential::PASSWORD;
  page.body += page::Fill(
      R"(<form class="stack" method="post" action="/connect/{}">{}{})"
      R"(<div class="field"><label for="v">{}</label><input class="input" id="v" name="value" type="password" autocomplete="off" required maxlength="4096"></div>)"
      R"(<button class="btn primary wide" type="submit">Store it</button></form>)",
      {visit.server->slug(), *fields, UsernameField(visit), password ? std::string("Password") : name});
  // Which of several a server has refused, it does not say.
  for (const Connectable& other : ConnectablesOf(*visit.server, *visit.snapshot)) {
    if (other.credential != nullptr && other.uid() != visit.credential->uid()) {
      page.body += page::QuietLink(absl::StrCat("/connect/", visit.server->slug(), "?credential=", other.slug()),
                                   absl::StrCat("Enter your ", other.name(), " instead"));
    }
  }
  if (!visit.txn.empty()) {
    page.body += page::QuietLink(ContinueUrl(visit.txn), "Not now");
  }
  return web::HtmlResponse(status, page::Render(page));
}

WebResponse CredentialPages::Enter(const PageVisit& visit) const {
  if (!forms_.IsOurs(visit, PurposeOf(visit))) {
    return FormTooOld(forms_.host(), absl::StrCat("/connect/", visit.server->slug()));
  }
  const std::string value = visit.Field("value");
  const std::string username = visit.Field("username");
  UserCredentials::Entry entry{.credential = visit.credential, .value = value, .username = username};
  entry.subject = visit.passport.subject;
  entry.client_address = visit.request->client_address();
  if (const absl::Status status = credentials_.Set(entry, visit.passport); absl::IsInvalidArgument(status)) {
    return Show(visit, 400, page::Note(page::Tone::kBad, "Not stored:", status.message()));
  } else if (!status.ok()) {
    Log(LogLevel::kWarning, "credential_not_stored", {{"credential", visit.credential->slug()}, {"status", status}});
    return NotNow(forms_.host(), BackLink(visit.txn));
  }
  const std::string target = progress_.NextOf(visit, *visit.server, visit.txn, visit.return_to,
                                              absl::StrCat("?credential=", visit.credential->slug()));
  return web::HtmlResponse(
      200, page::RenderContinue("Stored", absl::StrCat("Your ", NameOf(*visit.credential), " is stored."), target,
                                forms_.host()));
}

WebResponse CredentialPages::Done(const PageVisit& visit) const {
  const std::string name = NameOf(*visit.credential);
  if (progress_.IsComplete(visit)) {
    return Message(200, forms_.host(), absl::StrCat("Your ", name, " is stored"),
                   "You can close this page. What you were doing goes on by itself, or on the next try.");
  }
  return Message(
      200, forms_.host(), absl::StrCat("Your ", name, " is not stored"),
      "Nothing that this server could use is stored for you.",
      page::ButtonLink(absl::StrCat("/connect/", visit.server->slug(), "?credential=", visit.credential->slug()),
                       "Enter it"));
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/consent_pages.h"

#include "absl/strings/str_cat.h"

#include "common/http/url.h"
#include "common/status_macros.h"
#include "common/web/page.h"
#include "common/web/responses.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/consent.h"
#include "services/token_broker/error_pages.h"
#include "services/token_broker/linker.h"
#include "services/token_broker/names.h"

namespace sallyport::token_broker {
namespace {

using web::WebResponse;

constexpr int kFound = 302;

std::string PurposeOf(const PageVisit& visit) { return absl::StrCat("consent ", visit.server->uid()); }

// The page that people come back to.
std::string BackOf(const PageVisit& visit) {
  if (!visit.txn.empty()) {
    return ContinueUrl(visit.txn);
  }
  return absl::StrCat("/connect/", visit.server->slug(), "/done?consent=1",
                      visit.return_to.empty() ? "" : absl::StrCat("&return_to=", PercentEncode(visit.return_to)));
}

}  // namespace

WebResponse ConsentPages::Connect(const PageVisit& visit, bool invited) {
  if (!ExchangesSignIns(*visit.server)) {
    return Message(404, forms_.host(), "Not found", "This server needs nothing of you at your identity provider.");
  }
  if (visit.is_post()) {
    return Submit(visit);
  }
  if (!invited || visit.return_to.empty()) {
    return Show(visit);
  }
  // The platform they came from has told them what it is for.
  if (HasConsented(Last(visit), *visit.server, clock_.Now())) {
    return web::Redirect(visit.return_to, kFound);
  }
  const absl::StatusOr<std::string> target = Begin(visit);
  return target.ok() ? web::Redirect(*target, kFound) : NotNow(forms_.host());
}

WebResponse ConsentPages::Show(const PageVisit& visit) {
  const absl::StatusOr<page::Html> fields =
      forms_.Fields(visit, PurposeOf(visit), {"consent", "for", "claims", "txn", "return_to"});
  if (!fields.ok()) {
    return NotNow(forms_.host());
  }
  const std::string provider = ConnectorOf(visit.passport.subject);
  page::Page page = forms_.PageFor(visit, absl::StrCat("Agree at ", provider), NameOf(*visit.server));
  page.body = page::Fill("<h1>Agree at {}</h1>", {provider});
  page.body +=
      page::Lead(absl::StrCat(NameOf(*visit.server), " acts on your behalf. The identity provider you sign in ",
                              "with, ", provider, ", allows that only after you have agreed there once more."));
  page.body += WhoIsAsked(visit.passport);
  page.body += page::Fill(
      "<form method=\"post\" action=\"/connect/{}\">{}<button class=\"btn primary wide\" type=\"submit\">Continue at "
      "{}</button></form>",
      {visit.server->slug(), *fields, provider});
  if (!visit.txn.empty()) {
    page.body += page::QuietLink(ContinueUrl(visit.txn), "Not now");
  }
  return web::HtmlResponse(200, page::Render(page));
}

WebResponse ConsentPages::Submit(const PageVisit& visit) {
  if (!forms_.IsOurs(visit, PurposeOf(visit))) {
    return Message(403, forms_.host(), "Begin again",
                   "This form is too old, or it was not sent from our page. Make the call again: it gives you a new "
                   "link.");
  }
  const absl::StatusOr<std::string> target = Begin(visit);
  if (!target.ok()) {
    return NotNow(forms_.host(), BackLink(visit.txn));
  }
  // No redirect: it would lead off the origin, which may not follow a form.
  const std::string provider = ConnectorOf(visit.passport.subject);
  return web::HtmlResponse(
      200, page::RenderContinue(absl::StrCat("On to ", provider),
                                absl::StrCat("You are being taken to ", provider, "."), *target, forms_.host()));
}

absl::StatusOr<std::string> ConsentPages::Begin(const PageVisit& visit) {
  const std::string connector = ConnectorOf(visit.passport.subject);
  AuditLog::Entry entry{.type = "link.started", .subject = visit.passport.subject};
  entry.client_address = visit.request->client_address();
  entry.server_uid = visit.server->uid();
  entry.server_slug = visit.server->slug();
  entry.details = {{"connector", connector}};
  RETURN_IF_ERROR(audit_.Record(entry));
  CountLink(ConsentUid(visit.passport.subject), "started");
  FormFields parameters = {{"connector", connector}, {"consent", visit.server->slug()}};
  if (std::string claims = ClaimsOf(visit); !claims.empty()) {
    parameters.emplace_back("claims", std::move(claims));
  }
  parameters.emplace_back("return_to", BackOf(visit));
  return absl::StrCat("/login?", FormEncode(parameters));
}

std::string ConsentPages::ClaimsOf(const PageVisit& visit) {
  const std::string sealed = visit.Field("claims");
  const absl::StatusOr<Secret> key = sealed.empty() ? absl::NotFoundError("") : key_.For(kClaimsKey);
  return key.ok() ? OpenClaims(*key, visit.passport.subject, visit.server->uid(), sealed) : "";
}

v1::TokenSet::Consent ConsentPages::Last(const PageVisit& visit) {
  vault::v1::GetRequest get;
  *get.mutable_record() = ConnectionRecord(visit.passport.subject, ConsentUid(visit.passport.subject));
  const absl::StatusOr<vault::v1::GetResponse> record = vault_.Get(get, visit.passport.jwt);
  const auto view = record.ok() ? ViewOf(*record) : absl::StatusOr<std::shared_ptr<ConnectionView>>(record.status());
  return view.ok() ? (*view)->consent : v1::TokenSet::Consent();
}

WebResponse ConsentPages::Done(const PageVisit& visit) {
  if (!visit.return_to.empty()) {
    return web::Redirect(visit.return_to, kFound);
  }
  const std::string provider = ConnectorOf(visit.passport.subject);
  if (Last(visit).server_uid() == visit.server->uid()) {
    return Message(200, forms_.host(), absl::StrCat("You have agreed at ", provider),
                   "You can close this page. What you were doing goes on by itself, or on the next try.");
  }
  return Message(200, forms_.host(), absl::StrCat("You have not agreed at ", provider),
                 "Nothing was changed. To try again, make the call again: it gives you a new link.");
}

}  // namespace sallyport::token_broker

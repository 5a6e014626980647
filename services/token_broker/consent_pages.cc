// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/consent_pages.h"

#include "absl/strings/str_cat.h"

#include "common/http/url.h"
#include "common/status_macros.h"
#include "common/web/page.h"
#include "common/web/responses.h"
#include "common/web/same_origin.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/consent.h"
#include "services/token_broker/error_pages.h"
#include "services/token_broker/link_ticket.h"
#include "services/token_broker/linker.h"
#include "services/token_broker/names.h"

namespace sallyport::token_broker {
namespace {

using web::WebResponse;

constexpr char kFormKey[] = "sallyport link ticket v1";
constexpr int kFound = 302;

std::string FieldOf(const ConsentPages::Visit& visit, const char* name) {
  const auto found = visit.fields.find(name);
  return found == visit.fields.end() ? "" : found->second;
}

std::string SessionOf(const ConsentPages::Visit& visit) {
  return absl::StrCat(visit.passport.subject, " ", visit.passport.session_id);
}

std::string PurposeOf(const ConsentPages::Visit& visit) { return absl::StrCat("consent ", visit.server.uid()); }

// The page that people come back to.
std::string BackOf(const ConsentPages::Visit& visit) {
  if (!visit.txn.empty()) {
    return ContinueUrl(visit.txn);
  }
  return absl::StrCat("/connect/", visit.server.slug(), "/done?consent=1",
                      visit.return_to.empty() ? "" : absl::StrCat("&return_to=", PercentEncode(visit.return_to)));
}

}  // namespace

WebResponse ConsentPages::Connect(const Visit& visit, bool invited) {
  if (!ExchangesSignIns(visit.server)) {
    return Message(404, host_, "Not found", "This server needs nothing of you at your identity provider.");
  }
  if (visit.request.method() == "POST") {
    return Submit(visit);
  }
  if (!invited || visit.return_to.empty()) {
    return Show(visit);
  }
  // The platform they came from has told them what it is for.
  if (HasConsented(Last(visit), visit.server, clock_.Now())) {
    return web::Redirect(visit.return_to, kFound);
  }
  const absl::StatusOr<std::string> target = Begin(visit);
  return target.ok() ? web::Redirect(*target, kFound) : NotNow(host_);
}

WebResponse ConsentPages::Show(const Visit& visit) {
  const absl::StatusOr<Secret> key = key_.For(kFormKey);
  if (!key.ok()) {
    return NotNow(host_);
  }
  const Passport& passport = visit.passport;
  const std::string provider = ConnectorOf(passport.subject);
  page::Page page;
  page.title = absl::StrCat("Agree at ", provider);
  page.place = page::Place::kInside;
  page.left = passport.name.empty() ? "You" : passport.name;
  page.right = NameOf(visit.server);
  page.host = host_;
  page.body = page::Fill("<h1>Agree at {}</h1>", {provider});
  page.body +=
      page::Lead(absl::StrCat(NameOf(visit.server), " acts on your behalf. The identity provider you sign in ",
                              "with, ", provider, ", allows that only after you have agreed there once more."));
  page.body += page::WhoAmI(passport.name.empty() ? passport.subject : passport.name,
                            passport.email.empty() ? passport.subject : passport.email, "");
  page::Html fields =
      page::HiddenField("csrf", MakeFormToken(*key, SessionOf(visit), PurposeOf(visit), clock_.Now() + absl::Hours(1)));
  fields += page::HiddenField("consent", "1");
  for (const char* name : {"for", "claims", "txn", "return_to"}) {
    if (const std::string value = FieldOf(visit, name); !value.empty()) {
      fields += page::HiddenField(name, value);
    }
  }
  page.body += page::Fill(
      "<form method=\"post\" action=\"/connect/{}\">{}<button class=\"btn primary wide\" type=\"submit\">Continue at "
      "{}</button></form>",
      {visit.server.slug(), fields, provider});
  if (!visit.txn.empty()) {
    page.body += page::QuietLink(ContinueUrl(visit.txn), "Not now");
  }
  return web::HtmlResponse(200, page::Render(page));
}

WebResponse ConsentPages::Submit(const Visit& visit) {
  const absl::StatusOr<Secret> key = key_.For(kFormKey);
  if (!web::CheckSameOrigin(visit.request, public_url_).ok() || !key.ok() ||
      !CheckFormToken(*key, FieldOf(visit, "csrf"), SessionOf(visit), PurposeOf(visit), clock_.Now())) {
    return Message(403, host_, "Begin again",
                   "This form is too old, or it was not sent from our page. Make the call again: it gives you a new "
                   "link.");
  }
  const absl::StatusOr<std::string> target = Begin(visit);
  if (!target.ok()) {
    return NotNow(host_, BackLink(visit.txn));
  }
  // No redirect: it would lead off the origin, which may not follow a form.
  const std::string provider = ConnectorOf(visit.passport.subject);
  return web::HtmlResponse(
      200, page::RenderContinue(absl::StrCat("On to ", provider),
                                absl::StrCat("You are being taken to ", provider, "."), *target, host_));
}

absl::StatusOr<std::string> ConsentPages::Begin(const Visit& visit) {
  const std::string connector = ConnectorOf(visit.passport.subject);
  AuditLog::Entry entry{.type = "link.started", .subject = visit.passport.subject};
  entry.client_address = visit.request.client_address();
  entry.server_uid = visit.server.uid();
  entry.server_slug = visit.server.slug();
  entry.details = {{"connector", connector}};
  RETURN_IF_ERROR(audit_.Record(entry));
  CountLink(ConsentUid(visit.passport.subject), "started");
  FormFields parameters = {{"connector", connector}, {"consent", visit.server.slug()}};
  if (std::string claims = ClaimsOf(visit); !claims.empty()) {
    parameters.emplace_back("claims", std::move(claims));
  }
  parameters.emplace_back("return_to", BackOf(visit));
  return absl::StrCat("/login?", FormEncode(parameters));
}

std::string ConsentPages::ClaimsOf(const Visit& visit) {
  const std::string sealed = FieldOf(visit, "claims");
  const absl::StatusOr<Secret> key = sealed.empty() ? absl::NotFoundError("") : key_.For(kClaimsKey);
  return key.ok() ? OpenClaims(*key, visit.passport.subject, visit.server.uid(), sealed) : "";
}

v1::TokenSet::Consent ConsentPages::Last(const Visit& visit) {
  vault::v1::GetRequest get;
  *get.mutable_record() = ConnectionRecord(visit.passport.subject, ConsentUid(visit.passport.subject));
  const absl::StatusOr<vault::v1::GetResponse> record = vault_.Get(get, visit.passport.jwt);
  const auto view = record.ok() ? ViewOf(*record) : absl::StatusOr<std::shared_ptr<ConnectionView>>(record.status());
  return view.ok() ? (*view)->consent : v1::TokenSet::Consent();
}

WebResponse ConsentPages::Done(const Visit& visit) {
  if (!visit.return_to.empty()) {
    return web::Redirect(visit.return_to, kFound);
  }
  const std::string provider = ConnectorOf(visit.passport.subject);
  if (Last(visit).server_uid() == visit.server.uid()) {
    return Message(200, host_, absl::StrCat("You have agreed at ", provider),
                   "You can close this page. What you were doing goes on by itself, or on the next try.");
  }
  return Message(200, host_, absl::StrCat("You have not agreed at ", provider),
                 "Nothing was changed. To try again, make the call again: it gives you a new link.");
}

}  // namespace sallyport::token_broker

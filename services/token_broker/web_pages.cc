// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/web_pages.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

#include "common/error.h"
#include "common/http/url.h"
#include "common/json_log.h"
#include "common/web/page.h"
#include "common/web/responses.h"
#include "services/token_broker/connectables.h"
#include "services/token_broker/error_pages.h"
#include "services/token_broker/link_return.h"
#include "services/token_broker/link_scopes.h"
#include "services/token_broker/link_ticket.h"
#include "services/token_broker/names.h"
#include "services/token_broker/provider_trouble.h"

namespace sallyport::token_broker {
namespace {

using web::WebRequest;
using web::WebResponse;

constexpr int kFound = 302;

// To our own origin: targets begin with "/".
WebResponse Redirect(const std::string& target) { return web::Redirect(target, kFound); }

// authn's transaction ids are opaque, but they go into a URL of ours.
bool IsTransaction(const std::string& txn) {
  return txn.size() <= 256 &&
         txn.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~") ==
             std::string::npos;
}

std::string PurposeOf(const PageVisit& visit) {
  return absl::StrCat("connect ", visit.server->uid(), visit.account.empty() ? "" : " ", visit.account);
}

bool MayUse(const PageVisit& visit) {
  const std::vector<std::string>& mine = visit.passport.link_server_uids;
  return std::find(mine.begin(), mine.end(), visit.server->uid()) != mine.end();
}

}  // namespace

WebPages::WebPages(std::string public_url, const ControlStream& control, const PassportVerifier* verifier,
                   VaultClient& vault, Linker& linker, UserCredentials& credentials, BrokerKey& key,
                   const AuditLog& audit, const Clock& clock)
    : control_(control),
      verifier_(verifier),
      linker_(linker),
      key_(key),
      audit_(audit),
      clock_(clock),
      forms_(std::move(public_url), key, clock),
      progress_(vault, credentials, clock),
      credential_pages_(forms_, progress_, credentials),
      account_pages_(forms_, progress_, linker),
      consents_(forms_, vault, key, audit, clock) {}

WebResponse WebPages::Handle(const WebRequest& request) {
  const std::vector<std::string> path = absl::StrSplit(request.path(), '/');
  const std::string step = path.size() == 4 ? path[3] : "";
  const bool connect = path.size() >= 3 && path[1] == "connect" &&
                       (path.size() == 3 || (path.size() == 4 && (step == "done" || step == "confirm")));
  const bool callback = path.size() == 3 && path[1] == "callback";
  const bool post = request.method() == "POST";
  if ((!connect && !callback) || path[2].empty()) {
    return Message(404, host(), "Not found", "There is no such page.");
  }
  if (request.method() != "GET" && !(post && connect && step != "done")) {
    return Message(405, host(), "Not possible", "This page cannot be used like this.");
  }
  absl::StatusOr<std::map<std::string, std::string>> fields =
      FormDecodeUnique(post ? request.body() : request.query(), 50);
  if (!fields.ok()) {
    return Message(400, host(), "Not understood",
                   "The address of this page is damaged. Begin again where you came from.");
  }
  if (request.passport().empty()) {
    const std::string target =
        request.query().empty() ? request.path() : absl::StrCat(request.path(), "?", request.query());
    // The way they have signed in where the link was made: nobody is asked for it.
    const std::string connector = connect && fields->count("connector") > 0 ? fields->at("connector") : "";
    return Redirect(absl::StrCat("/login?return_to=", PercentEncode(target),
                                 connector.empty() ? "" : absl::StrCat("&connector=", PercentEncode(connector))));
  }
  absl::StatusOr<Passport> passport = verifier_->Verify(request.passport(), clock_.Now());
  if (!passport.ok() || passport->purpose != Passport::Purpose::kLink) {
    return Message(403, host(), "Not possible", "Your sign-in could not be verified. Sign in again.");
  }
  PageVisit visit{.request = &request, .passport = *std::move(passport), .fields = *std::move(fields)};
  visit.snapshot = control_.snapshot();
  if (callback) {
    visit.app = visit.snapshot->AppBySlug(path[2]);
    return visit.app == nullptr ? Message(404, host(), "Not found", "There is no such app.") : Callback(visit);
  }
  visit.server = visit.snapshot->ServerBySlug(path[2]);
  visit.txn = visit.Field("txn");
  if (visit.server == nullptr || (visit.server->has_enabled() && !visit.server->enabled())) {
    return Message(404, host(), "Not found", "There is no such server.");
  }
  if (!IsTransaction(visit.txn)) {
    return Message(400, host(), "Not understood",
                   "The address of this page is damaged. Begin again where you came from.");
  }
  visit.return_to = visit.Field("return_to");
  if (const PlatformLink link = PlatformLinkIn(visit.fields); !link.empty()) {
    return path.size() == 3 ? ConnectForPlatform(visit, link)
                            : Message(404, host(), "Not found", "There is no such page.");
  }
  const bool signed_way = step == "confirm" && forms_.IsSignedWayBack(visit);
  if (!visit.return_to.empty() && !signed_way && !MayReturnTo(*visit.server, visit.return_to)) {
    return Message(400, host(), "No way back there",
                   "The address that this link leads back to is not one that the server's administrator has allowed "
                   "(policy.returnOrigins). Begin again where you came from.");
  }
  if (!visit.Field("consent").empty()) {
    return Consent(visit, step == "done");
  }
  if (!Choose(visit, visit.Field("credential"))) {
    return Message(404, host(), "Not found", "This server needs no such credential of yours.");
  }
  if (visit.app != nullptr && !CheckAccountLabel("account", visit.account).ok()) {
    return Message(400, host(), "Not understood",
                   "The account's label in the address of this page is none: 1 to 64 letters, digits or ._@+-.");
  }
  if (step == "confirm") {
    // What waits is of this session: whoever linked it may answer, for whatever server it was.
    return visit.app == nullptr ? Message(404, host(), "Not found", "There is no such page.")
           : visit.is_post()    ? account_pages_.Answer(visit)
                                : account_pages_.Show(visit);
  }
  return step == "done" ? Done(visit) : Connect(visit);
}

bool WebPages::Choose(PageVisit& visit, const std::string& credential) {
  const registry::v1::Credential* first = nullptr;
  const registry::v1::Credential* missing = nullptr;
  for (const Connectable& one : ConnectablesOf(*visit.server, *visit.snapshot)) {
    if (one.app != nullptr) {
      visit.app = one.app;
      const auto account = visit.fields.find("account");
      visit.account = account == visit.fields.end() ? AccountOf(*visit.server)->label() : account->second;
    } else if (!credential.empty() && one.slug() == credential) {
      visit.credential = one.credential;
    } else {
      first = first == nullptr ? one.credential : first;
      missing = missing == nullptr && !progress_.IsEntered(*visit.server, *one.credential, visit.passport)
                    ? one.credential
                    : missing;
    }
  }
  if (!credential.empty()) {
    visit.app = nullptr;
    return visit.credential != nullptr;
  }
  // The account comes first; then, where nothing is missing, what was entered can be entered anew.
  if (visit.app == nullptr) {
    visit.credential = missing != nullptr ? missing : first;
  }
  return true;
}

WebResponse WebPages::Connect(const PageVisit& visit) {
  if (!MayUse(visit)) {
    return visit.app == nullptr && visit.credential == nullptr && !visit.txn.empty()
               ? Redirect(ContinueUrl(visit.txn))
               : Message(403, host(), "Not for you", "You may not use this server. Ask its administrator.");
  }
  if (visit.app == nullptr && visit.credential == nullptr) {
    return !visit.txn.empty() ? Redirect(ContinueUrl(visit.txn))
                              : Message(200, host(), "Nothing to connect", "This server needs no account of yours.");
  }
  // A key takes longer to get than a link lasts; its form is bound to its user by itself.
  const bool entered = visit.credential != nullptr && visit.is_post();
  if (const std::string ticket = visit.Field("for"); !ticket.empty() && !entered) {
    bool refused = false;
    WebResponse response = CheckLink(visit, ticket, &refused);
    if (refused) {
      return response;
    }
    // The platform they came from has told them what it is for, and made this link for them alone.
    if (visit.app != nullptr && !visit.return_to.empty() && !visit.is_post()) {
      return progress_.IsComplete(visit) ? Redirect(visit.return_to) : LeaveForProvider(visit);
    }
  }
  if (visit.is_post()) {
    return visit.app != nullptr ? BeginLink(visit) : credential_pages_.Enter(visit);
  }
  return ShowConnect(visit);
}

WebResponse WebPages::Consent(const PageVisit& visit, bool done) {
  if (!MayUse(visit)) {
    return Message(403, host(), "Not for you", "You may not use this server. Ask its administrator.");
  }
  if (done) {
    return consents_.Done(visit);
  }
  const std::string ticket = visit.Field("for");
  bool refused = false;
  WebResponse response = ticket.empty() ? WebResponse() : CheckLink(visit, ticket, &refused);
  return refused ? response : consents_.Connect(visit, !ticket.empty());
}

WebResponse WebPages::CheckLink(const PageVisit& visit, const std::string& ticket, bool* refused) {
  *refused = true;
  absl::StatusOr<Secret> key = key_.For("sallyport link ticket v1");
  if (!key.ok()) {
    return NotNow(host());
  }
  const absl::Status status = CheckTicket(*key, ticket, visit.passport.subject, visit.server->uid(), clock_.Now());
  if (!status.ok()) {
    return LinkRefused(visit, status);
  }
  *refused = false;
  return {};
}

WebResponse WebPages::LinkRefused(const PageVisit& visit, const absl::Status& status) const {
  if (absl::IsDeadlineExceeded(status)) {
    return Message(410, host(), "This link has expired",
                   "Links are good for ten minutes. Make the call again, and it will give you a new one.");
  }
  AuditLog::Entry entry{.type = "link.refused", .decision = audit::v1::DECISION_DENIED, .rule = "link_user_mismatch"};
  entry.subject = visit.passport.subject;
  entry.client_address = visit.request->client_address();
  entry.server_uid = visit.server->uid();
  entry.server_slug = visit.server->slug();
  audit_.Record(entry).IgnoreError();  // It is refused either way.
  return Message(403, host(), "This link is somebody else's",
                 "It was made for another person's call, so it cannot connect your account. Never open such links from "
                 "others: whoever opens one would let the other person act with their account. (link_user_mismatch)");
}

WebResponse WebPages::ShowConnect(const PageVisit& visit) {
  // A link that was made for a call is made because what is stored does not do, whatever we know of it.
  const bool asked = visit.credential != nullptr && !visit.Field("for").empty();
  std::string account_name;
  const bool complete = !asked && progress_.IsComplete(visit, &account_name);
  if (complete && !visit.txn.empty()) {
    return Redirect(progress_.NextOf(visit, *visit.server, visit.txn, "", ""));
  }
  if (visit.credential != nullptr) {
    return credential_pages_.Show(visit, complete);
  }
  absl::StatusOr<page::Html> fields = forms_.Fields(visit, PurposeOf(visit), {"for", "txn", "return_to"});
  if (!fields.ok()) {
    return NotNow(host());
  }
  if (visit.fields.count("account") > 0) {
    *fields += page::HiddenField("account", visit.account);
  }
  if (!visit.by_platform.empty()) {
    // What its ticket covers, beside the account.
    for (const char* name : {"platform", "scopes"}) {
      if (const std::string value = visit.Field(name); !value.empty()) {
        *fields += page::HiddenField(name, value);
      }
    }
  }
  const std::string app = NameOf(*visit.app);
  page::Page page = forms_.PageFor(visit, absl::StrCat("Connect ", app), app);
  page.body = page::Fill(complete ? "<h1>{} is connected</h1>" : "<h1>Connect {}</h1>", {app});
  const std::string account = AccountInWords(*visit.app, visit.account);
  page.body += page::Lead(
      complete ? absl::StrCat(NameOf(*visit.server), " already acts with your ", account,
                              account_name.empty() ? "" : absl::StrCat(" (", account_name, ")"),
                              ". You can connect it anew, for instance to choose another account.")
               : absl::StrCat(NameOf(*visit.server), " works with your own ", account,
                              ". You will be asked there to agree; what it gives us is kept encrypted and never shown "
                              "to the program that calls."));
  page.body += WhoIsAsked(visit.passport);
  const std::vector<std::string> scopes = ScopesOf(visit);
  if (!scopes.empty()) {
    page.body += page::Fill("<p class=\"small\">Asked for: {}</p>", {absl::StrJoin(scopes, " ")});
  }
  page.body += page::Fill(
      "<form method=\"post\" action=\"/connect/{}\">{}<button class=\"btn primary wide\" type=\"submit\">Connect "
      "{}</button></form>",
      {visit.server->slug(), *fields, app});
  if (!visit.txn.empty()) {
    page.body += page::QuietLink(ContinueUrl(visit.txn), "Not now");
  }
  return web::HtmlResponse(200, page::Render(page));
}

WebResponse WebPages::BeginLink(const PageVisit& visit) {
  if (!forms_.IsOurs(visit, PurposeOf(visit))) {
    return !visit.by_platform.empty()
               ? PlatformFormTooOld()
               : FormTooOld(host(), AccountPages::ConnectUrl(*visit.server, visit.account, "", ""));
  }
  absl::StatusOr<std::string> target = Begin(visit);
  if (!target.ok()) {
    return NotBegun(visit, target.status());
  }
  const std::string app = NameOf(*visit.app);
  return web::HtmlResponse(
      200, page::RenderContinue(absl::StrCat("On to ", app), absl::StrCat("You are being taken to ", app, "."), *target,
                                host()));
}

absl::StatusOr<std::string> WebPages::Begin(const PageVisit& visit) {
  Linker::Start start{.app = visit.app, .server = visit.server, .account = visit.account};
  start.txn = visit.txn;
  start.return_to = visit.return_to;
  start.scopes = ScopesOf(visit);
  start.platform = visit.by_platform.platform;
  start.client_address = visit.request->client_address();
  return linker_.Begin(start, visit.passport);
}

WebResponse WebPages::NotBegun(const PageVisit& visit, const absl::Status& status) const {
  Log(LogLevel::kWarning, "link_not_begun", {{"app", visit.app->slug()}, {"status", status}});
  const std::string name = NameOf(*visit.app);
  const page::Html back = visit.by_platform.empty() ? BackLink(visit.txn) : BackToPlatform(visit.return_to);
  return ReasonOf(status) == kProviderUnavailable ? ProviderFailed(host(), name, TroubleCodeOf(status), {}, back)
         : absl::IsFailedPrecondition(status)     ? Misconfigured(host(), name, back)
                                                  : NotNow(host(), back);
}

WebResponse WebPages::LeaveForProvider(const PageVisit& visit) {
  const absl::StatusOr<std::string> target = Begin(visit);
  return target.ok() ? Redirect(*target) : NotBegun(visit, target.status());
}

WebResponse WebPages::Done(const PageVisit& visit) {
  if (visit.app == nullptr && visit.credential == nullptr) {
    return Message(404, host(), "Not found", "There is no such page.");
  }
  if (visit.credential != nullptr) {
    return credential_pages_.Done(visit);
  }
  const std::string app = NameOf(*visit.app);
  page::Page page = forms_.PageFor(visit, absl::StrCat(app, " is connected"), app);
  page.place = page::Place::kBeyond;
  if (std::string account; progress_.IsComplete(visit, &account)) {
    page.body = page::Fill("<h1>{} is connected</h1>", {app});
    if (!account.empty()) {
      page.body += page::Lead(absl::StrCat("Your ", AccountInWords(*visit.app, visit.account), " is ", account, "."));
    }
    page.body += page::Note(page::Tone::kOk, "Done.",
                            "You can close this page. What you were doing goes on by itself, or on the next try.");
  } else {
    page.body = page::Fill("<h1>{} is not fully connected</h1>", {app});
    page.body += page::Note(page::Tone::kWarn, "Something is missing.",
                            absl::StrCat(app, " did not grant everything ", NameOf(*visit.server), " asks for."));
    page.body += page::ButtonLink(AccountPages::ConnectUrl(*visit.server, visit.account, "", ""), "Connect again");
  }
  return web::HtmlResponse(200, page::Render(page));
}

}  // namespace sallyport::token_broker

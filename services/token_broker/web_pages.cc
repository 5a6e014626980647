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
#include "common/web/same_origin.h"
#include "services/token_broker/error_pages.h"
#include "services/token_broker/link_return.h"
#include "services/token_broker/link_scopes.h"
#include "services/token_broker/link_ticket.h"
#include "services/token_broker/names.h"
#include "services/token_broker/platform/platform_link.h"
#include "services/token_broker/provider_trouble.h"
#include "services/token_broker/upstream_origin.h"

namespace sallyport::token_broker {
namespace {

using web::WebRequest;
using web::WebResponse;

constexpr int kFound = 302;

// To our own origin: targets begin with "/".
WebResponse Redirect(const std::string& target) { return web::Redirect(target, kFound); }

std::string FieldOf(const std::map<std::string, std::string>& fields, const std::string& name) {
  const auto found = fields.find(name);
  return found == fields.end() ? "" : found->second;
}

std::string HostOf(const std::string& public_url) {
  const absl::StatusOr<Url> url = Url::Parse(public_url);
  return url.ok() ? url->authority() : "";
}

// authn's transaction ids are opaque, but they go into a URL of ours.
bool IsTransaction(const std::string& txn) {
  return txn.size() <= 256 &&
         txn.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~") ==
             std::string::npos;
}

}  // namespace

// One request, as far as it is understood.
struct WebPages::Visit {
  const WebRequest* request = nullptr;
  Passport passport;
  std::map<std::string, std::string> fields;  // Of the query, or of the form.
  std::shared_ptr<const RegistrySnapshot> snapshot;
  const registry::v1::McpServer* server = nullptr;
  // What the page is about: an app, or a credential of the caller's own.
  const registry::v1::App* app = nullptr;
  const registry::v1::Credential* credential = nullptr;
  std::string txn;
  // Allowed by the server's policy, or by the platform's configuration; empty: nowhere.
  std::string return_to;
  // Of the platform that made the link for this user, once its ticket has been checked; empty: none did.
  PlatformLink by_platform = {};
};

WebPages::WebPages(std::string public_url, const ControlStream& control, const PassportVerifier* verifier,
                   VaultClient& vault, Linker& linker, UserCredentials& credentials, BrokerKey& key,
                   const AuditLog& audit, const Clock& clock)
    : public_url_(std::move(public_url)),
      host_(HostOf(public_url_)),
      control_(control),
      verifier_(verifier),
      vault_(vault),
      linker_(linker),
      credentials_(credentials),
      key_(key),
      audit_(audit),
      clock_(clock),
      consents_(public_url_, host_, vault, key, audit, clock) {}

WebResponse WebPages::Handle(const WebRequest& request) {
  const std::vector<std::string> path = absl::StrSplit(request.path(), '/');
  const bool connect =
      path.size() >= 3 && path[1] == "connect" && (path.size() == 3 || (path.size() == 4 && path[3] == "done"));
  const bool callback = path.size() == 3 && path[1] == "callback";
  const bool post = request.method() == "POST";
  if ((!connect && !callback) || path[2].empty()) {
    return Message(404, host_, "Not found", "There is no such page.");
  }
  if (request.method() != "GET" && !(post && connect && path.size() == 3)) {
    return Message(405, host_, "Not possible", "This page cannot be used like this.");
  }
  absl::StatusOr<std::map<std::string, std::string>> fields =
      FormDecodeUnique(post ? request.body() : request.query(), 50);
  if (!fields.ok()) {
    return Message(400, host_, "Not understood",
                   "The address of this page is damaged. Begin again where you came from.");
  }
  if (request.passport().empty()) {
    const std::string target =
        request.query().empty() ? request.path() : absl::StrCat(request.path(), "?", request.query());
    // The way they have signed in where the link was made: nobody is asked for it.
    const std::string connector = connect ? FieldOf(*fields, "connector") : "";
    return Redirect(absl::StrCat("/login?return_to=", PercentEncode(target),
                                 connector.empty() ? "" : absl::StrCat("&connector=", PercentEncode(connector))));
  }
  absl::StatusOr<Passport> passport = verifier_->Verify(request.passport(), clock_.Now());
  if (!passport.ok() || passport->purpose != Passport::Purpose::kLink) {
    return Message(403, host_, "Not possible", "Your sign-in could not be verified. Sign in again.");
  }
  Visit visit{.request = &request, .passport = *std::move(passport), .fields = *std::move(fields)};
  visit.snapshot = control_.snapshot();
  if (callback) {
    visit.app = visit.snapshot->AppBySlug(path[2]);
    return visit.app == nullptr ? Message(404, host_, "Not found", "There is no such app.") : Callback(visit);
  }
  visit.server = visit.snapshot->ServerBySlug(path[2]);
  visit.txn = FieldOf(visit.fields, "txn");
  if (visit.server == nullptr || (visit.server->has_enabled() && !visit.server->enabled())) {
    return Message(404, host_, "Not found", "There is no such server.");
  }
  if (!IsTransaction(visit.txn)) {
    return Message(400, host_, "Not understood",
                   "The address of this page is damaged. Begin again where you came from.");
  }
  visit.return_to = FieldOf(visit.fields, "return_to");
  if (const PlatformLink link = PlatformLinkIn(visit.fields); !link.empty()) {
    return path.size() == 3 ? ConnectForPlatform(visit, link)
                            : Message(404, host_, "Not found", "There is no such page.");
  }
  if (!visit.return_to.empty() && !MayReturnTo(*visit.server, visit.return_to)) {
    return Message(400, host_, "No way back there",
                   "The address that this link leads back to is not one that the server's administrator has allowed "
                   "(policy.returnOrigins). Begin again where you came from.");
  }
  if (!FieldOf(visit.fields, "consent").empty()) {
    return Consent(visit, path.size() == 4);
  }
  if (!Choose(visit, FieldOf(visit.fields, "credential"))) {
    return Message(404, host_, "Not found", "This server needs no such credential of yours.");
  }
  return path.size() == 4 ? Done(visit) : Connect(visit);
}

bool WebPages::Choose(Visit& visit, const std::string& credential) {
  const registry::v1::Credential* first = nullptr;
  const registry::v1::Credential* missing = nullptr;
  for (const Connectable& one : ConnectablesOf(*visit.server, *visit.snapshot)) {
    if (one.app != nullptr) {
      visit.app = one.app;
    } else if (!credential.empty() && one.slug() == credential) {
      visit.credential = one.credential;
    } else {
      first = first == nullptr ? one.credential : first;
      missing =
          missing == nullptr && !IsEntered(*visit.server, *one.credential, visit.passport) ? one.credential : missing;
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

WebResponse WebPages::ConnectForPlatform(Visit& visit, const PlatformLink& link) {
  const UserConnection* account = AccountOf(*visit.server);
  if (account == nullptr || !Choose(visit, "") || visit.app == nullptr) {
    return Message(404, host_, "Nothing to connect", "This server needs no account of yours.");
  }
  const absl::StatusOr<Secret> key = key_.For(kPlatformLinkKey);
  if (!key.ok()) {
    return NotNow(host_);
  }
  const PlatformLinkTarget target = {visit.passport.subject, visit.server->uid(), visit.app->uid()};
  if (const absl::Status status = CheckPlatformLink(*key, FieldOf(visit.fields, "for"), link, target, clock_.Now());
      !status.ok()) {
    return LinkRefused(visit, status);
  }
  visit.by_platform = link;
  if (visit.request->method() == "POST") {
    return BeginLink(visit);
  }
  return visit.return_to.empty() ? ShowConnect(visit) : LeaveForProvider(visit);
}

WebResponse WebPages::Connect(const Visit& visit) {
  const std::vector<std::string>& mine = visit.passport.link_server_uids;
  if (std::find(mine.begin(), mine.end(), visit.server->uid()) == mine.end()) {
    return visit.app == nullptr && visit.credential == nullptr && !visit.txn.empty()
               ? Redirect(ContinueUrl(visit.txn))
               : Message(403, host_, "Not for you", "You may not use this server. Ask its administrator.");
  }
  if (visit.app == nullptr && visit.credential == nullptr) {
    return !visit.txn.empty() ? Redirect(ContinueUrl(visit.txn))
                              : Message(200, host_, "Nothing to connect", "This server needs no account of yours.");
  }
  // A key takes longer to get than a link lasts; its form is bound to its user by itself.
  const bool entered = visit.credential != nullptr && visit.request->method() == "POST";
  if (const std::string ticket = FieldOf(visit.fields, "for"); !ticket.empty() && !entered) {
    bool refused = false;
    WebResponse response = CheckLink(visit, ticket, &refused);
    if (refused) {
      return response;
    }
    // The platform they came from has told them what it is for, and made this link for them alone.
    if (visit.app != nullptr && !visit.return_to.empty() && visit.request->method() == "GET") {
      return IsComplete(visit) ? Redirect(visit.return_to) : LeaveForProvider(visit);
    }
  }
  if (visit.request->method() == "POST") {
    return visit.app != nullptr ? BeginLink(visit) : EnterCredential(visit);
  }
  return ShowConnect(visit);
}

WebResponse WebPages::Consent(const Visit& visit, bool done) {
  const std::vector<std::string>& mine = visit.passport.link_server_uids;
  if (std::find(mine.begin(), mine.end(), visit.server->uid()) == mine.end()) {
    return Message(403, host_, "Not for you", "You may not use this server. Ask its administrator.");
  }
  const ConsentPages::Visit consent{*visit.request, visit.passport, visit.fields,
                                    *visit.server,  visit.txn,      visit.return_to};
  if (done) {
    return consents_.Done(consent);
  }
  const std::string ticket = FieldOf(visit.fields, "for");
  bool refused = false;
  WebResponse response = ticket.empty() ? WebResponse() : CheckLink(visit, ticket, &refused);
  return refused ? response : consents_.Connect(consent, !ticket.empty());
}

WebResponse WebPages::CheckLink(const Visit& visit, const std::string& ticket, bool* refused) {
  *refused = true;
  absl::StatusOr<Secret> key = key_.For("sallyport link ticket v1");
  if (!key.ok()) {
    return NotNow(host_);
  }
  const absl::Status status = CheckTicket(*key, ticket, visit.passport.subject, visit.server->uid(), clock_.Now());
  if (!status.ok()) {
    return LinkRefused(visit, status);
  }
  *refused = false;
  return {};
}

WebResponse WebPages::LinkRefused(const Visit& visit, const absl::Status& status) const {
  if (absl::IsDeadlineExceeded(status)) {
    return Message(410, host_, "This link has expired",
                   "Links are good for ten minutes. Make the call again, and it will give you a new one.");
  }
  AuditLog::Entry entry{.type = "link.refused", .decision = audit::v1::DECISION_DENIED, .rule = "link_user_mismatch"};
  entry.subject = visit.passport.subject;
  entry.client_address = visit.request->client_address();
  entry.server_uid = visit.server->uid();
  entry.server_slug = visit.server->slug();
  audit_.Record(entry).IgnoreError();  // It is refused either way.
  return Message(403, host_, "This link is somebody else's",
                 "It was made for another person's call, so it cannot connect your account. Never open such links from "
                 "others: whoever opens one would let the other person act with their account. (link_user_mismatch)");
}

bool WebPages::IsEntered(const registry::v1::McpServer& server, const registry::v1::Credential& credential,
                         const Passport& passport) {
  const absl::StatusOr<std::optional<UserCredentials::Stored>> stored = credentials_.Read(credential.uid(), passport);
  const std::string origin = UpstreamOriginOf(server);
  return stored.ok() && stored->has_value() && !origin.empty() && (*stored)->Allows(origin) &&
         (credential.kind() != registry::v1::Credential::PASSWORD || !(*stored)->username.empty());
}

bool WebPages::IsComplete(const Visit& visit) {
  if (visit.credential != nullptr) {
    return IsEntered(*visit.server, *visit.credential, visit.passport);
  }
  vault::v1::GetRequest get;
  *get.mutable_record() = ConnectionRecord(visit.passport.subject, visit.app->uid());
  const absl::StatusOr<vault::v1::GetResponse> record = vault_.Get(get, visit.passport.jwt);
  if (!record.ok()) {
    return false;
  }
  const absl::StatusOr<std::shared_ptr<ConnectionView>> view = ViewOf(*record);
  if (!view.ok() || (*view)->state != ConnectionView::State::kLinked) {
    return false;
  }
  const bool alive = (*view)->can_refresh || IsUsable((*view)->times, clock_.Now());
  return alive && MissingScopes((*view)->scopes, NeededScopes(*visit.app, *AccountOf(*visit.server))).empty();
}

std::string WebPages::NextOf(const Visit& visit, const registry::v1::McpServer& server, const std::string& txn,
                             const std::string& return_to, const std::string& done) {
  for (const Connectable& one : ConnectablesOf(server, *visit.snapshot)) {
    if (one.credential != nullptr && !IsEntered(server, *one.credential, visit.passport)) {
      return absl::StrCat("/connect/", server.slug(), "?credential=", one.slug(),
                          txn.empty() ? "" : absl::StrCat("&txn=", PercentEncode(txn)),
                          return_to.empty() ? "" : absl::StrCat("&return_to=", PercentEncode(return_to)));
    }
  }
  if (!txn.empty()) {
    return ContinueUrl(txn);
  }
  // The policy may have changed since the link was begun.
  return MayReturnTo(server, return_to) ? return_to : absl::StrCat("/connect/", server.slug(), "/done", done);
}

std::string WebPages::FormPurpose(const Visit& visit) {
  return visit.credential == nullptr
             ? absl::StrCat("connect ", visit.server->uid())
             // With the origins that the page named: what is allowed since, its user has not agreed to.
             : absl::StrCat("credential ", visit.server->uid(), " ", visit.credential->uid(), " ",
                            absl::StrJoin(visit.credential->allowed_upstream_origins(), " "));
}

page::Html WebPages::FormFields(const Visit& visit, const Secret& key) const {
  page::Html fields =
      page::HiddenField("csrf", MakeFormToken(key, absl::StrCat(visit.passport.subject, " ", visit.passport.session_id),
                                              FormPurpose(visit), clock_.Now() + absl::Hours(1)));
  for (const char* name : {"for", "txn", "return_to"}) {
    if (const std::string value = FieldOf(visit.fields, name); !value.empty()) {
      fields += page::HiddenField(name, value);
    }
  }
  if (!visit.by_platform.empty()) {
    // What its ticket covers.
    for (const char* name : {"platform", "account", "scopes"}) {
      if (const std::string value = FieldOf(visit.fields, name); !value.empty()) {
        fields += page::HiddenField(name, value);
      }
    }
  }
  if (visit.credential != nullptr) {
    fields += page::HiddenField("credential", visit.credential->slug());
  }
  return fields;
}

bool WebPages::IsOurForm(const Visit& visit) {
  const absl::StatusOr<Secret> key = key_.For("sallyport link ticket v1");
  return web::CheckSameOrigin(*visit.request, public_url_).ok() && key.ok() &&
         CheckFormToken(*key, FieldOf(visit.fields, "csrf"),
                        absl::StrCat(visit.passport.subject, " ", visit.passport.session_id), FormPurpose(visit),
                        clock_.Now());
}

WebResponse WebPages::ShowCredential(const Visit& visit, int status, const page::Html& note) {
  const absl::StatusOr<Secret> key = key_.For("sallyport link ticket v1");
  if (!key.ok()) {
    return NotNow(host_);
  }
  const std::string name = NameOf(*visit.credential);
  const Passport& passport = visit.passport;
  const bool password = visit.credential->kind() == registry::v1::Credential::PASSWORD;
  page::Page page;
  page.title = absl::StrCat("Enter your ", name);
  page.place = page::Place::kInside;
  page.left = passport.name.empty() ? "You" : passport.name;
  page.right = NameOf(*visit.server);
  page.host = host_;
  page.body = page::Fill("<h1>Enter your {}</h1>", {name});
  page.body += page::Lead(absl::StrCat(NameOf(*visit.server), " works with your own ", name,
                                       ". It is kept encrypted, sent to the addresses below and nowhere else, and "
                                       "never shown again, not to the program that calls either."));
  page.body += page::WhoAmI(passport.name.empty() ? passport.subject : passport.name,
                            passport.email.empty() ? passport.subject : passport.email, "");
  for (const std::string& origin : visit.credential->allowed_upstream_origins()) {
    page.body += page::Fill("<p class=\"small\">May be sent to: {}</p>", {origin});
  }
  page.body += note;
  const page::Html username =
      password
          ? page::Fill(
                R"(<div class="field"><label for="u">Name</label><input class="input" id="u" name="username" autocomplete="off" autocapitalize="none" spellcheck="false" required maxlength="256" value="{}"></div>)",
                {visit.request->method() == "POST" ? FieldOf(visit.fields, "username") : ""})
          : page::Html();
  page.body += page::Fill(
      R"(<form class="stack" method="post" action="/connect/{}">{}{})"
      R"(<div class="field"><label for="v">{}</label><input class="input" id="v" name="value" type="password" autocomplete="off" required maxlength="4096"></div>)"
      R"(<button class="btn primary wide" type="submit">Store it</button></form>)",
      {visit.server->slug(), FormFields(visit, *key), username, password ? std::string("Password") : name});
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

WebResponse WebPages::EnterCredential(const Visit& visit) {
  if (!IsOurForm(visit)) {
    return Message(403, host_, "Begin again", "This form is too old, or it was not sent from our page.",
                   page::ButtonLink(absl::StrCat("/connect/", visit.server->slug()), "Begin again"));
  }
  const std::string value = FieldOf(visit.fields, "value");
  const std::string username = FieldOf(visit.fields, "username");
  UserCredentials::Entry entry{.credential = visit.credential, .value = value, .username = username};
  entry.subject = visit.passport.subject;
  entry.client_address = visit.request->client_address();
  if (const absl::Status status = credentials_.Set(entry, visit.passport); absl::IsInvalidArgument(status)) {
    return ShowCredential(visit, 400, page::Note(page::Tone::kBad, "Not stored:", status.message()));
  } else if (!status.ok()) {
    Log(LogLevel::kWarning, "credential_not_stored", {{"credential", visit.credential->slug()}, {"status", status}});
    return NotNow(host_, BackLink(visit.txn));
  }
  const std::string target =
      NextOf(visit, *visit.server, visit.txn, visit.return_to, absl::StrCat("?credential=", visit.credential->slug()));
  return web::HtmlResponse(
      200,
      page::RenderContinue("Stored", absl::StrCat("Your ", NameOf(*visit.credential), " is stored."), target, host_));
}

WebResponse WebPages::ShowConnect(const Visit& visit) {
  // A link that was made for a call is made because what is stored does not do, whatever we know of it.
  const bool asked = visit.credential != nullptr && !FieldOf(visit.fields, "for").empty();
  const bool complete = !asked && IsComplete(visit);
  if (complete && !visit.txn.empty()) {
    return Redirect(NextOf(visit, *visit.server, visit.txn, "", ""));
  }
  if (visit.credential != nullptr) {
    return ShowCredential(
        visit, 200,
        complete ? page::Note(page::Tone::kOk, "One is stored.", "What you enter takes its place.") : page::Html());
  }
  absl::StatusOr<Secret> key = key_.For("sallyport link ticket v1");
  if (!key.ok()) {
    return NotNow(host_);
  }
  const std::string app = NameOf(*visit.app);
  const Passport& passport = visit.passport;
  page::Page page;
  page.title = absl::StrCat("Connect ", app);
  page.place = page::Place::kInside;
  page.left = passport.name.empty() ? "You" : passport.name;
  page.right = app;
  page.host = host_;
  page.body = page::Fill(complete ? "<h1>{} is connected</h1>" : "<h1>Connect {}</h1>", {app});
  page.body += page::Lead(
      complete ? absl::StrCat(NameOf(*visit.server), " already acts with your ", app,
                              " account. You can connect it anew, for instance to choose another account.")
               : absl::StrCat(NameOf(*visit.server), " works with your own ", app,
                              " account. You will be asked there to agree; what it gives us is kept encrypted "
                              "and never shown to the program that calls."));
  page.body += page::WhoAmI(passport.name.empty() ? passport.subject : passport.name,
                            passport.email.empty() ? passport.subject : passport.email, "");
  const std::vector<std::string> scopes = ScopesOf(visit);
  if (!scopes.empty()) {
    page.body += page::Fill("<p class=\"small\">Asked for: {}</p>", {absl::StrJoin(scopes, " ")});
  }
  page.body += page::Fill(
      "<form method=\"post\" action=\"/connect/{}\">{}<button class=\"btn primary wide\" type=\"submit\">Connect "
      "{}</button></form>",
      {visit.server->slug(), FormFields(visit, *key), app});
  if (!visit.txn.empty()) {
    page.body += page::QuietLink(ContinueUrl(visit.txn), "Not now");
  }
  return web::HtmlResponse(200, page::Render(page));
}

WebResponse WebPages::BeginLink(const Visit& visit) {
  if (!IsOurForm(visit)) {
    return Message(403, host_, "Begin again", "This form is too old, or it was not sent from our page.",
                   page::ButtonLink(absl::StrCat("/connect/", visit.server->slug()), "Begin again"));
  }
  absl::StatusOr<std::string> target = Begin(visit);
  if (!target.ok()) {
    return NotBegun(visit, target.status());
  }
  const std::string app = NameOf(*visit.app);
  return web::HtmlResponse(
      200, page::RenderContinue(absl::StrCat("On to ", app), absl::StrCat("You are being taken to ", app, "."), *target,
                                host_));
}

std::vector<std::string> WebPages::ScopesOf(const Visit& visit) {
  std::vector<std::string> servers = visit.passport.link_server_uids;
  if (!visit.by_platform.empty()) {
    servers.push_back(visit.server->uid());
  }
  return WithScopes(ScopesToAsk(*visit.app, *visit.snapshot, servers), visit.by_platform.ScopeList());
}

absl::StatusOr<std::string> WebPages::Begin(const Visit& visit) {
  Linker::Start start{.app = visit.app, .server = visit.server, .txn = visit.txn, .return_to = visit.return_to};
  start.scopes = ScopesOf(visit);
  start.platform = visit.by_platform.platform;
  start.client_address = visit.request->client_address();
  return linker_.Begin(start, visit.passport);
}

WebResponse WebPages::NotBegun(const Visit& visit, const absl::Status& status) const {
  Log(LogLevel::kWarning, "link_not_begun", {{"app", visit.app->slug()}, {"status", status}});
  const std::string name = NameOf(*visit.app);
  return ReasonOf(status) == kProviderUnavailable
             ? ProviderFailed(host_, name, TroubleCodeOf(status), {}, BackLink(visit.txn))
         : absl::IsFailedPrecondition(status) ? Misconfigured(host_, name, BackLink(visit.txn))
                                              : NotNow(host_, BackLink(visit.txn));
}

WebResponse WebPages::LeaveForProvider(const Visit& visit) {
  const absl::StatusOr<std::string> target = Begin(visit);
  return target.ok() ? Redirect(*target) : NotBegun(visit, target.status());
}

WebResponse WebPages::Done(const Visit& visit) {
  if (visit.app == nullptr && visit.credential == nullptr) {
    return Message(404, host_, "Not found", "There is no such page.");
  }
  if (visit.credential != nullptr) {
    return IsComplete(visit)
               ? Message(200, host_, absl::StrCat("Your ", NameOf(*visit.credential), " is stored"),
                         "You can close this page. What you were doing goes on by itself, or on the next try.")
               : Message(200, host_, absl::StrCat("Your ", NameOf(*visit.credential), " is not stored"),
                         "Nothing that this server could use is stored for you.",
                         page::ButtonLink(
                             absl::StrCat("/connect/", visit.server->slug(), "?credential=", visit.credential->slug()),
                             "Enter it"));
  }
  const std::string app = NameOf(*visit.app);
  page::Page page;
  page.title = absl::StrCat(app, " is connected");
  page.place = page::Place::kBeyond;
  page.left = visit.passport.name.empty() ? "You" : visit.passport.name;
  page.right = app;
  page.host = host_;
  if (IsComplete(visit)) {
    page.body = page::Fill("<h1>{} is connected</h1>", {app});
    page.body += page::Note(page::Tone::kOk, "Done.",
                            "You can close this page. What you were doing goes on by itself, or on the next try.");
  } else {
    page.body = page::Fill("<h1>{} is not fully connected</h1>", {app});
    page.body += page::Note(page::Tone::kWarn, "Something is missing.",
                            absl::StrCat(app, " did not grant everything ", NameOf(*visit.server), " asks for."));
    page.body += page::ButtonLink(absl::StrCat("/connect/", visit.server->slug()), "Connect again");
  }
  return web::HtmlResponse(200, page::Render(page));
}

WebResponse WebPages::Callback(const Visit& visit) {
  Linker::Return returned{.app = visit.app, .parameters = visit.fields};
  returned.client_address = visit.request->client_address();
  Linker::Outcome outcome;
  if (const absl::Status status = linker_.Finish(returned, visit.passport, &outcome); !status.ok()) {
    return CallbackError(visit, status, outcome);
  }
  if (!outcome.platform.empty() && !outcome.return_to.empty()) {
    // Its configuration allowed it when the link was made, ten minutes ago at most.
    return Redirect(outcome.return_to);
  }
  const registry::v1::McpServer* server = visit.snapshot->ServerByUid(outcome.server_uid);
  if (server != nullptr && !outcome.platform.empty()) {
    return Redirect(absl::StrCat("/connect/", server->slug(), "/done"));
  }
  if (server != nullptr) {
    return Redirect(NextOf(visit, *server, outcome.txn, outcome.return_to, ""));
  }
  return outcome.txn.empty() ? Message(200, host_, "Connected", "Your account is connected. You can close this page.")
                             : Redirect(ContinueUrl(outcome.txn));
}

WebResponse WebPages::CallbackError(const Visit& visit, const absl::Status& status, const Linker::Outcome& outcome) {
  const std::string app = NameOf(*visit.app);
  const std::string reason = ReasonOf(status);
  page::Html again;
  page::Html back = BackLink(outcome.txn);
  if (const registry::v1::McpServer* server = visit.snapshot->ServerByUid(outcome.server_uid); server != nullptr) {
    if (!outcome.return_to.empty() && (!outcome.platform.empty() || MayReturnTo(*server, outcome.return_to))) {
      back = page::QuietLink(outcome.return_to, "Back to where you came from");
    }
    const std::string txn = outcome.txn.empty() ? "" : absl::StrCat("?txn=", PercentEncode(outcome.txn));
    again = page::ButtonLink(absl::StrCat("/connect/", server->slug(), txn), "Try again");
  }
  page::Html next = again;
  next += back;
  if (absl::IsCancelled(status)) {
    return Message(200, host_, absl::StrCat(app, " was not connected"),
                   reason == "access_denied"
                       ? std::string("You, or an administrator there, did not agree. Nothing was stored.")
                       : absl::StrCat(app, " refused (", reason, "). Nothing was stored."),
                   next);
  }
  if (absl::IsPermissionDenied(status)) {
    return Message(
        403, host_, "This is not your link",
        "It was begun by another user, or before you signed in anew. Nothing was connected. Begin again yourself. "
        "(link_user_mismatch)");
  }
  if (absl::IsInvalidArgument(status)) {
    return Message(400, host_, "This link cannot be used",
                   absl::StrCat("It was used already, has expired, or does not belong here. Nothing was connected. (",
                                reason, ")"),
                   next);
  }
  Log(LogLevel::kWarning, "link_failed", {{"app", visit.app->slug()}, {"status", status}});
  if (reason == kProviderUnavailable) {
    return ProviderFailed(host_, app, TroubleCodeOf(status), again, back);
  }
  if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) {
    return NotNow(host_, next);
  }
  return absl::IsFailedPrecondition(status)
             ? Misconfigured(host_, app, back)
             : Message(500, host_, absl::StrCat(app, " could not be connected"),
                       "Something went wrong here. Nothing was stored. Try again in a minute.", next);
}

}  // namespace sallyport::token_broker

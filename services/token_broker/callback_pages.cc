// SPDX-License-Identifier: Apache-2.0
// The part of WebPages that people come back to from a provider.
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/http/url.h"
#include "common/json_log.h"
#include "common/web/page.h"
#include "common/web/responses.h"
#include "services/token_broker/error_pages.h"
#include "services/token_broker/link_return.h"
#include "services/token_broker/link_scopes.h"
#include "services/token_broker/names.h"
#include "services/token_broker/provider_trouble.h"
#include "services/token_broker/web_pages.h"

namespace sallyport::token_broker {
namespace {

using web::WebResponse;

constexpr int kFound = 302;

WebResponse Redirect(const std::string& target) { return web::Redirect(target, kFound); }

}  // namespace

WebResponse WebPages::Callback(const PageVisit& visit) {
  Linker::Return returned{.app = visit.app, .parameters = visit.fields};
  returned.client_address = visit.request->client_address();
  Linker::Outcome outcome;
  if (const absl::Status status = linker_.Finish(returned, visit.passport, &outcome); !status.ok()) {
    return CallbackError(visit, status, outcome);
  }
  const registry::v1::McpServer* server = visit.snapshot->ServerByUid(outcome.server_uid);
  if (server != nullptr && outcome.unconfirmed) {
    return Redirect(account_pages_.ConfirmUrl(*server, outcome, visit.passport));
  }
  if (!outcome.unconfirmed && !outcome.platform.empty() && !outcome.return_to.empty()) {
    return Redirect(
        outcome.return_to);  // Its configuration allowed it when the link was made, ten minutes ago at most.
  }
  if (server != nullptr && !outcome.unconfirmed && !outcome.platform.empty()) {
    return Redirect(AccountPages::DoneUrl(*server, outcome.account));
  }
  if (server != nullptr) {
    return Redirect(progress_.NextOf(visit, *server, outcome.txn, outcome.return_to,
                                     AccountPages::DoneQuery(*server, outcome.account)));
  }
  if (outcome.unconfirmed) {
    return Message(400, host(), "This link cannot be used",
                   "The server that it was begun for is gone. Nothing was connected.", BackLink(outcome.txn));
  }
  return outcome.txn.empty() ? Message(200, host(), "Connected", "Your account is connected. You can close this page.")
                             : Redirect(ContinueUrl(outcome.txn));
}

WebResponse WebPages::CallbackError(const PageVisit& visit, const absl::Status& status,
                                    const Linker::Outcome& outcome) {
  const std::string app = NameOf(*visit.app);
  const std::string reason = ReasonOf(status);
  page::Html again;
  page::Html back = BackLink(outcome.txn);
  if (!outcome.platform.empty()) {
    // The server's page would connect another account, other scopes, or nothing: only the platform makes such links.
    back = BackToPlatform(outcome.return_to);
  } else if (const auto* server = visit.snapshot->ServerByUid(outcome.server_uid); server != nullptr) {
    if (!outcome.return_to.empty() && MayReturnTo(*server, outcome.return_to)) {
      back = page::QuietLink(outcome.return_to, "Back to where you came from");
    }
    again = page::ButtonLink(AccountPages::ConnectUrl(*server, outcome.account, outcome.txn, ""), "Try again");
  }
  page::Html next = again;
  next += back;
  if (absl::IsCancelled(status)) {
    return Message(200, host(), absl::StrCat(app, " was not connected"),
                   reason == "access_denied"
                       ? std::string("You, or an administrator there, did not agree. Nothing was stored.")
                       : absl::StrCat(app, " refused (", reason, "). Nothing was stored."),
                   next);
  }
  if (AccountPages::IsRefusal(status)) {
    return account_pages_.Refused(*visit.app, visit.passport, status, outcome, next);
  }
  if (absl::IsPermissionDenied(status)) {
    return Message(
        403, host(), "This is not your link",
        "It was begun by another user, or before you signed in anew. Nothing was connected. Begin again yourself. "
        "(link_user_mismatch)");
  }
  if (absl::IsInvalidArgument(status)) {
    return Message(400, host(), "This link cannot be used",
                   absl::StrCat("It was used already, has expired, or does not belong here. Nothing was connected. (",
                                reason, ")"),
                   next);
  }
  Log(LogLevel::kWarning, "link_failed", {{"app", visit.app->slug()}, {"status", status}});
  if (reason == kProviderUnavailable) {
    return ProviderFailed(host(), app, TroubleCodeOf(status), again, back);
  }
  if (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status)) {
    return NotNow(host(), next);
  }
  return absl::IsFailedPrecondition(status)
             ? Misconfigured(host(), app, back)
             : Message(500, host(), absl::StrCat(app, " could not be connected"),
                       "Something went wrong here. Nothing was stored. Try again in a minute.", next);
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/platform_accounts.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/http/url.h"
#include "common/status_macros.h"
#include "common/text/utf8.h"
#include "services/token_broker/link_return.h"
#include "services/token_broker/link_scopes.h"
#include "services/token_broker/link_ticket.h"
#include "services/token_broker/names.h"
#include "services/token_broker/platform/platform_errors.h"
#include "services/token_broker/platform/platform_link.h"

namespace sallyport::token_broker {
namespace {

constexpr size_t kMaxScopes = 64;
constexpr size_t kMaxScopeBytes = 1024;  // Of all, which stand in an address.
constexpr size_t kShown = 64;

// On whose page the app is connected: the first by slug that is enabled. Null if there is none.
const registry::v1::McpServer* ServerFor(const registry::v1::App& app, const RegistrySnapshot& snapshot) {
  const registry::v1::McpServer* first = nullptr;
  for (const auto& [uid, server] : snapshot.servers_by_uid) {
    const UserConnection* account = AccountOf(*server);
    const bool enabled = !server->has_enabled() || server->enabled();
    if (enabled && account != nullptr && account->app_uid() == app.uid() &&
        (first == nullptr || server->slug() < first->slug())) {
      first = server.get();
    }
  }
  return first;
}

// RFC 6749 section 3.3: scope-token.
bool IsScope(const std::string& scope) {
  return !scope.empty() &&
         std::all_of(scope.begin(), scope.end(), [](char c) { return c > 0x20 && c < 0x7f && c != '"' && c != '\\'; });
}

}  // namespace

absl::StatusOr<const registry::v1::App*> GrantedApp(const RegistrySnapshot& snapshot, const std::string& slug,
                                                    const Admission& admission) {
  if (slug.empty()) {
    return InvalidField("app", "is required: the slug of an app");
  }
  // First: which apps there are is not told to whoever may use none of them.
  if (!admission.MayAskFor(slug)) {
    return WithReason(
        absl::PermissionDeniedError(absl::StrCat("no grant of the platform ", admission.platform, " covers the app ",
                                                 Utf8Prefix(slug, kShown), " for this user")),
        kPlatformNotGranted);
  }
  if (snapshot.store_id.empty()) {
    return NothingConfigured();
  }
  const registry::v1::App* app = snapshot.AppBySlug(slug);
  if (app == nullptr) {
    return absl::NotFoundError("app: there is no such app");
  }
  return app;
}

AuditLog::Entry OfferOf(const AccountWish& wish, const Admission& admission) {
  AuditLog::Entry entry{.type = "link.offered", .subject = admission.passport.subject, .actor = admission.platform};
  entry.details = {{"app", wish.app->slug()}, {"scopes", absl::StrJoin(wish.scopes, " ")}};
  if (!wish.account.empty()) {
    entry.details.emplace_back("account", wish.account);
  }
  return entry;
}

absl::Status CheckScopes(const std::vector<std::string>& scopes) {
  size_t bytes = 0;
  for (const std::string& scope : scopes) {
    bytes += scope.size() + 1;
    if (!IsScope(scope)) {
      return InvalidField("scopes", "must have one scope an entry, without spaces, quotes and backslashes");
    }
  }
  return scopes.size() > kMaxScopes || bytes > kMaxScopeBytes
             ? InvalidField("scopes", "must have at most 64 entries and 1024 bytes")
             : absl::OkStatus();
}

PlatformAccounts::PlatformAccounts(std::string public_url, const ControlStream& control, Accounts& accounts,
                                   BrokerKey& key, const AuditLog& audit, const Clock& clock)
    : public_url_(std::move(public_url)),
      control_(control),
      accounts_(accounts),
      key_(key),
      audit_(audit),
      clock_(clock) {}

absl::StatusOr<v1::StartUserLinkResponse> PlatformAccounts::LinkFor(const AccountWish& wish,
                                                                    const RegistrySnapshot& snapshot,
                                                                    const Admission& admission) {
  const std::string name = NameOf(*wish.app);
  if (!wish.return_to.empty() && !IsAddressOf(admission.return_origins, wish.return_to)) {
    return InvalidField("return_to",
                        "must be an address of one of the origins that the platform's returnOrigins name, or empty");
  }
  const registry::v1::McpServer* server = ServerFor(*wish.app, snapshot);
  if (server == nullptr) {
    return WithReason(
        absl::FailedPreconditionError(absl::StrCat(
            "no enabled server connects accounts of ", Utf8Prefix(name, kShown),
            "; an administrator can add one with appAuth.oauthAuthorization of the app ", wish.app->slug())),
        "no_server_for_link");
  }
  const PlatformLink link = {admission.platform, wish.account, absl::StrJoin(wish.scopes, " "), wish.return_to};
  const std::string& subject = admission.passport.subject;
  ASSIGN_OR_RETURN(const Secret key, key_.For(kPlatformLinkKey));
  v1::StartUserLinkResponse response;
  response.set_url(absl::StrCat(
      public_url_, "/connect/", server->slug(), "?",
      PlatformLinkQuery(key, link, {subject, server->uid(), wish.app->uid()}, clock_.Now() + kLinkLifetime),
      "&connector=", PercentEncode(subject.substr(0, subject.find(':')))));
  response.set_message(absl::StrCat("Connect your ", Utf8Prefix(name, kShown), " account to continue."));
  return response;
}

absl::Status PlatformAccounts::LinkRequired(const AccountWish& wish, const RegistrySnapshot& snapshot,
                                            const Admission& admission) {
  absl::StatusOr<v1::StartUserLinkResponse> link = LinkFor(wish, snapshot, admission);
  if (!link.ok()) {
    return link.status();
  }
  return WithDetail(absl::FailedPreconditionError(link->message()),
                    {.reason = "link_required", .link = std::move(*link->mutable_url())});
}

absl::StatusOr<v1::StartUserLinkResponse> PlatformAccounts::Start(const AccountWish& wish,
                                                                  const RegistrySnapshot& snapshot,
                                                                  const Admission& admission) {
  ASSIGN_OR_RETURN(v1::StartUserLinkResponse response, LinkFor(wish, snapshot, admission));
  RETURN_IF_ERROR(audit_.Record(OfferOf(wish, admission)));
  return response;
}

absl::StatusOr<v1::ListConnectionsResponse> PlatformAccounts::List(const Admission& admission) {
  if (control_.snapshot()->store_id.empty()) {
    return NothingConfigured();
  }
  ASSIGN_OR_RETURN(v1::ListConnectionsResponse all, accounts_.List(admission.passport));
  v1::ListConnectionsResponse granted;
  for (v1::Connection& connection : *all.mutable_connections()) {
    if (admission.MayAskFor(connection.app_slug())) {
      *granted.add_connections() = std::move(connection);
    }
  }
  return granted;
}

absl::StatusOr<v1::DisconnectResponse> PlatformAccounts::Disconnect(const v1::DisconnectUserRequest& request,
                                                                    const Admission& admission) {
  RETURN_IF_ERROR(CheckAccountLabel("account", request.account()));
  RETURN_IF_ERROR(GrantedApp(*control_.snapshot(), request.app(), admission).status());
  v1::DisconnectRequest disconnect;
  disconnect.set_app_slug(request.app());
  disconnect.set_label(request.account());
  return accounts_.Disconnect(disconnect, admission.passport);
}

}  // namespace sallyport::token_broker

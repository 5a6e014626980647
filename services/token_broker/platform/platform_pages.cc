// SPDX-License-Identifier: Apache-2.0
// The part of WebPages for links that internal platforms make for their users.
#include <string>
#include <utility>
#include <vector>

#include "common/web/page.h"
#include "services/token_broker/error_pages.h"
#include "services/token_broker/link_scopes.h"
#include "services/token_broker/platform/platform_accounts.h"
#include "services/token_broker/platform/platform_link.h"
#include "services/token_broker/web_pages.h"

namespace sallyport::token_broker {

using web::v1::WebResponse;

WebResponse WebPages::ConnectForPlatform(PageVisit& visit, const PlatformLink& link) {
  const UserConnection* account = AccountOf(*visit.server);
  if (account == nullptr || !Choose(visit, "") || visit.app == nullptr) {
    return Message(404, host(), "Nothing to connect", "This server needs no account of yours.");
  }
  const absl::StatusOr<Secret> key = key_.For(kPlatformLinkKey);
  if (!key.ok()) {
    return NotNow(host());
  }
  const PlatformLinkTarget target = {visit.passport.subject, visit.server->uid(), visit.app->uid()};
  if (const absl::Status status = CheckPlatformLink(*key, visit.Field("for"), link, target, clock_.Now());
      !status.ok()) {
    return LinkRefused(visit, status);
  }
  visit.by_platform = link;
  visit.account = link.account;  // The platform says which, not the server.
  if (visit.is_post()) {
    return BeginLink(visit);
  }
  return visit.return_to.empty() ? ShowConnect(visit) : LeaveForProvider(visit);
}

WebResponse WebPages::PlatformFormTooOld() const {
  return Message(403, host(), "Begin again",
                 "This form is too old, or it was not sent from our page. Begin again where you came from.");
}

std::vector<std::string> WebPages::ScopesOf(const PageVisit& visit) const {
  std::vector<std::string> servers = visit.passport.link_server_uids;
  if (visit.by_platform.empty()) {
    return ScopesToAsk(*visit.app, *visit.snapshot, servers);
  }
  servers.push_back(visit.server->uid());
  std::vector<std::string> scopes =
      WithScopes(ScopesToAsk(*visit.app, *visit.snapshot, servers), visit.by_platform.ScopeList());
  // Two platforms with wishes of their own would otherwise take each other's scopes away at every link.
  std::vector<std::string> all = WithScopes(scopes, progress_.GivenScopes(visit));
  return CheckScopes(all).ok() ? std::move(all) : std::move(scopes);
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/link_progress.h"

#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"

#include "common/http/url.h"
#include "services/token_broker/connectables.h"
#include "services/token_broker/error_pages.h"
#include "services/token_broker/link_return.h"
#include "services/token_broker/link_scopes.h"
#include "services/token_broker/provider_binding.h"
#include "services/token_broker/upstream_origin.h"

namespace sallyport::token_broker {

bool LinkProgress::IsEntered(const registry::v1::McpServer& server, const registry::v1::Credential& credential,
                             const Passport& passport) const {
  const absl::StatusOr<std::optional<UserCredentials::Stored>> stored = credentials_.Read(credential.uid(), passport);
  const std::string origin = UpstreamOriginOf(server);
  return stored.ok() && stored->has_value() && !origin.empty() && (*stored)->Allows(origin) &&
         (credential.kind() != registry::v1::Credential::PASSWORD || !(*stored)->username.empty());
}

std::shared_ptr<const ConnectionView> LinkProgress::LinkedOf(const PageVisit& visit) const {
  vault::v1::GetRequest get;
  *get.mutable_record() = ConnectionRecord(visit.passport.subject, ConnectionName(visit.app->uid(), visit.account));
  const absl::StatusOr<vault::v1::GetResponse> record = vault_.Get(get, visit.passport.jwt);
  if (!record.ok()) {
    return nullptr;
  }
  const absl::StatusOr<std::shared_ptr<ConnectionView>> view = ViewOf(*record);
  return view.ok() && (*view)->state == ConnectionView::State::kLinked ? *view : nullptr;
}

bool LinkProgress::IsComplete(const PageVisit& visit, std::string* account_name) const {
  if (visit.credential != nullptr) {
    return IsEntered(*visit.server, *visit.credential, visit.passport);
  }
  const std::shared_ptr<const ConnectionView> view = LinkedOf(visit);
  if (view == nullptr) {
    return false;
  }
  if (account_name != nullptr) {
    *account_name = view->account_name;
  }
  const bool alive = view->can_refresh || IsUsable(view->times, clock_.Now());
  return alive && MissingScopes(view->scopes, NeededScopes(*visit.app, *AccountOf(*visit.server))).empty();
}

std::vector<std::string> LinkProgress::GivenScopes(const PageVisit& visit) const {
  const std::shared_ptr<const ConnectionView> view = LinkedOf(visit);
  // Another provider may know none of them, and refuse whoever asks.
  const std::string& token_url = visit.app->token_url();
  const bool moved = view != nullptr && !token_url.empty() && !IsBoundTo(view->provenance.token_origin(), token_url);
  return view == nullptr || moved ? std::vector<std::string>() : view->scopes;
}

std::string LinkProgress::NextOf(const PageVisit& visit, const registry::v1::McpServer& server, const std::string& txn,
                                 const std::string& return_to, const std::string& done) const {
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

}  // namespace sallyport::token_broker

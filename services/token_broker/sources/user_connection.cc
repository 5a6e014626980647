// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/user_connection.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/status_macros.h"
#include "common/text/utf8.h"
#include "services/token_broker/connectables.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/link_scopes.h"
#include "services/token_broker/names.h"
#include "services/token_broker/provider_trouble.h"
#include "services/token_broker/sources/connection_value.h"

namespace sallyport::token_broker {
namespace {

// An upstream that refuses so many renewed tokens in a row, 30 s apart, has not only stumbled: perhaps another account
// helps.
constexpr int kRenewalsBeforeLink = 5;

// The account is linked, and its provider renews it: connecting it again would change nothing.
absl::Status RenewedTokenRefused(const std::string& app, absl::Duration retry_after) {
  return WithDetail(
      absl::UnavailableError(absl::StrCat("the server refuses the token that ", Utf8Prefix(app, 64),
                                          " has just renewed; your account is still connected, try again")),
      {.reason = kRenewedTokenRefused, .retry_after = std::max(retry_after, absl::Seconds(1))});
}

}  // namespace

ConnectionKey UserConnectionSource::KeyOf(const Need& need) {
  const UserConnection& account = need.piece->user_connection();
  return {need.passport->subject,
          ConnectionName(account.app_uid(), need.account.empty() ? account.label() : need.account)};
}

Outcome UserConnectionSource::Link(const Need& need, const registry::v1::App& app, v1::LinkRequired::Reason reason) {
  v1::LinkRequired link = LinkOf({.app = &app}, reason);
  link.set_account(AccountLabelOf(KeyOf(need).connection));
  return link;
}

std::string UserConnectionSource::CacheKey(const Need& need) const { return KeyOf(need).ToString(); }

absl::StatusOr<UserConnectionSource::Binding> UserConnectionSource::Admit(const Need& need,
                                                                          const registry::v1::App& app) {
  const auto& allowed = app.allowed_upstream_origins();
  ASSIGN_OR_RETURN(Binding binding, secrets_.ReadBinding("app_binding", app.uid(), app.binding().version()));
  // What is sealed bounds what the configuration says.
  if (std::find(allowed.begin(), allowed.end(), need.upstream_origin) == allowed.end() ||
      !binding->Allows(need.upstream_origin)) {
    return error::OriginNotAllowed("tokens of this app");
  }
  return binding;
}

void UserConnectionSource::SealBehind(const Need& need, const Binding& binding) {
  // Not while the caller waits; and if there is no room now, at the next call.
  (void)runner_.Post([this, key = KeyOf(need), passport = need.passport->jwt, name = binding->name] {
    connections_.SealProvenance(key, passport, name);
  });
}

absl::StatusOr<Outcome> UserConnectionSource::Judge(const Need& need, const registry::v1::App& app,
                                                    const Binding& binding, const SharedConnection& view) {
  const bool linked = view->state == ConnectionView::State::kLinked;
  // Linked when another binding said where its tokens may go: one that was made anew does not speak for it.
  const std::string& linked_under = view->provenance.binding();
  const bool stranger = linked && !linked_under.empty() && !binding->pending && linked_under != binding->name;
  if (linked && linked_under.empty() && !binding->pending) {
    SealBehind(need, binding);
  }
  if (linked && view->refused_again && view->forced_in_a_row < kRenewalsBeforeLink) {
    return RenewedTokenRefused(NameOf(app), view->forced_next - clock_.Now());
  }
  if (stranger || !linked || view->refused_again) {
    const bool absent = view->state == ConnectionView::State::kAbsent;
    return Link(need, app, absent ? v1::LinkRequired::NOT_LINKED : v1::LinkRequired::NEEDS_REAUTH);
  }
  if (!MissingScopes(view->scopes, NeededScopes(app, need.piece->user_connection())).empty()) {
    return Link(need, app, v1::LinkRequired::MISSING_SCOPE);
  }
  return Outcome(ValueOf(KeyOf(need), view, /*id_token=*/false, clock_.Now()));
}

void UserConnectionSource::Get(const std::shared_ptr<const Need>& need, Done done) {
  const registry::v1::App* app = need->snapshot->AppByUid(need->piece->user_connection().app_uid());
  if (app == nullptr) {
    return done(error::CredentialMissing("the app of this server is gone"));
  }
  absl::StatusOr<Binding> binding = Admit(*need, *app);
  if (!binding.ok()) {
    return done(binding.status());
  }
  Connections::Need wanted;
  wanted.key = KeyOf(*need);
  wanted.passport = need->passport->jwt;
  wanted.refused_generation = need->refused_generation;
  wanted.refused_version = need->refused_version;
  connections_.Current(wanted, [this, need, app, binding = *std::move(binding),
                                done = std::move(done)](const absl::StatusOr<SharedConnection>& view) {
    done(view.ok() ? Judge(*need, *app, binding, *view) : NameProvider(view.status(), NameOf(*app)));
  });
}

}  // namespace sallyport::token_broker

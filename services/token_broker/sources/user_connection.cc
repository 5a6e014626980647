// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/sources/user_connection.h"

#include <algorithm>

#include "common/status_macros.h"
#include "services/token_broker/account_check.h"
#include "services/token_broker/connectables.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/link_scopes.h"
#include "services/token_broker/names.h"
#include "services/token_broker/provider_trouble.h"
#include "services/token_broker/sources/connection_value.h"

namespace sallyport::token_broker {
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

bool UserConnectionSource::IsAllowed(const Need& need, const registry::v1::App& app,
                                     const SecretReader::Binding& binding) {
  const auto& allowed = app.allowed_upstream_origins();
  // What is sealed bounds what the configuration says.
  return std::find(allowed.begin(), allowed.end(), need.upstream_origin) != allowed.end() &&
         binding.Allows(need.upstream_origin);
}

absl::StatusOr<UserConnectionSource::Binding> UserConnectionSource::Admit(const Need& need,
                                                                          const registry::v1::App& app) {
  ASSIGN_OR_RETURN(Binding binding, secrets_.ReadBinding("app_binding", app.uid(), app.binding().version()));
  if (!IsAllowed(need, app, *binding)) {
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
  ASSIGN_OR_RETURN(const AccountCheck check,
                   CheckAccount(app, *binding, *view, NeededScopes(app, need.piece->user_connection()), clock_.Now()));
  if (check.unsealed) {
    SealBehind(need, binding);
  }
  if (check.link.has_value()) {
    return Link(need, app, *check.link);
  }
  return Outcome(ValueOf(KeyOf(need), view, /*id_token=*/false, clock_.Now()));
}

Connections::Need UserConnectionSource::WantedOf(const Need& need) {
  Connections::Need wanted;
  wanted.key = KeyOf(need);
  wanted.passport = need.passport->jwt;
  wanted.refused_generation = need.refused_generation;
  wanted.refused_version = need.refused_version;
  return wanted;
}

void UserConnectionSource::Get(const std::shared_ptr<const Need>& need, Done done) {
  Ask(need, /*not_shared=*/false, std::move(done));
}

bool UserConnectionSource::TryGet(const std::shared_ptr<const Need>& need, const Done& done) {
  const registry::v1::App* app = need->snapshot->AppByUid(need->piece->user_connection().app_uid());
  const Binding binding =
      app == nullptr ? nullptr : secrets_.KnownBinding("app_binding", app->uid(), app->binding().version());
  if (binding == nullptr || !IsAllowed(*need, *app, *binding)) {
    return false;
  }
  return connections_.TryCurrent(WantedOf(*need), [this, need, app, binding, done](const SharedConnection& view) {
    if (view != nullptr) {
      return done(Judge(*need, *app, binding, view));
    }
    if (!runner_.Post([this, need, done] { Ask(need, /*not_shared=*/true, done); })) {
      done(error::TooManyWait());
    }
  });
}

void UserConnectionSource::Ask(const std::shared_ptr<const Need>& need, bool not_shared, Done done) {
  const registry::v1::App* app = need->snapshot->AppByUid(need->piece->user_connection().app_uid());
  if (app == nullptr) {
    return done(error::CredentialMissing("the app of this server is gone"));
  }
  absl::StatusOr<Binding> binding = Admit(*need, *app);
  if (!binding.ok()) {
    return done(binding.status());
  }
  Connections::Need wanted = WantedOf(*need);
  wanted.not_shared = not_shared;
  connections_.Current(wanted, [this, need, app, binding = *std::move(binding),
                                done = std::move(done)](const absl::StatusOr<SharedConnection>& view) {
    done(view.ok() ? Judge(*need, *app, binding, *view) : NameProvider(view.status(), NameOf(*app)));
  });
}

}  // namespace sallyport::token_broker

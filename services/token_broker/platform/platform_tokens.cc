// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/platform_tokens.h"

#include <utility>

#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/token_broker/freshness.h"
#include "services/token_broker/names.h"
#include "services/token_broker/platform/platform_errors.h"
#include "services/token_broker/provider_trouble.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kLeast = absl::Seconds(60);
constexpr absl::Duration kMaxLeast = absl::Minutes(30);

absl::StatusOr<absl::Duration> LeastOf(const v1::GetTokenRequest& request) {
  if (!request.has_min_lifetime()) {
    return kLeast;
  }
  const absl::Duration least = FromProtoDuration(request.min_lifetime());
  if (least < absl::ZeroDuration() || least > kMaxLeast) {
    return InvalidField("min_lifetime", "must be 0 to 30 min");
  }
  return least;
}

// Of what the app names, only what is sealed as well.
std::vector<std::string> OriginsOf(const registry::v1::App& app, const SecretReader::Binding& binding) {
  std::vector<std::string> origins;
  for (const std::string& origin : app.allowed_upstream_origins()) {
    if (binding.Allows(origin)) {
      origins.push_back(origin);
    }
  }
  return origins;
}

}  // namespace

struct PlatformTokens::Ask {
  SharedAdmission admission;
  Good good;
  Lacking lacking;
  Done done;
  Gone gone;
  std::shared_ptr<const RegistrySnapshot> snapshot;  // Keeps the app alive.
  AccountWish wish;
  Connections::Need need;
  std::shared_ptr<const SecretReader::Binding> binding;
};

PlatformTokens::PlatformTokens(const ControlStream& control, SecretReader& secrets, Connections& connections,
                               PlatformAccounts& accounts, DeferredAudit& audit, TaskRunner& runner, const Clock& clock)
    : control_(control),
      secrets_(secrets),
      connections_(connections),
      accounts_(accounts),
      audit_(audit),
      runner_(runner),
      clock_(clock) {}

absl::Status PlatformTokens::Prepare(const std::string& app_slug, Ask& ask) const {
  RETURN_IF_ERROR(CheckAccountLabel("account", ask.wish.account));
  RETURN_IF_ERROR(CheckScopes(ask.wish.scopes));
  ask.snapshot = control_.snapshot();
  ASSIGN_OR_RETURN(ask.wish.app, GrantedApp(*ask.snapshot, app_slug, *ask.admission));
  ask.need.key = {ask.admission->passport.subject, ConnectionName(ask.wish.app->uid(), ask.wish.account)};
  ask.need.passport = ask.admission->passport.jwt;
  return absl::OkStatus();
}

void PlatformTokens::Get(const v1::GetTokenRequest& request, SharedAdmission admission, v1::GetTokenResponse* response,
                         Done done, Gone gone) {
  const auto ask = std::make_shared<Ask>();
  ask->admission = std::move(admission);
  ask->done = std::move(done);
  ask->gone = std::move(gone);
  ask->wish.account = request.account();
  ask->wish.scopes.assign(request.scopes().begin(), request.scopes().end());
  ask->need.refused_generation = request.refused_generation();
  ask->need.refused_version = request.refused_version();
  const absl::StatusOr<absl::Duration> least = LeastOf(request);
  if (const absl::Status status = least.ok() ? Prepare(request.app(), *ask) : least.status(); !status.ok()) {
    return ask->done(status);
  }
  ask->need.least = *least;
  ask->good = [this, response](const Ask& asked, const SharedConnection& view) { return Give(asked, *view, response); };
  ask->lacking = [this](const Ask& asked) { return AskForLink(asked); };
  const registry::v1::App& app = *ask->wish.app;
  ask->binding = secrets_.KnownBinding("app_binding", app.uid(), app.binding().version());
  if (ask->binding != nullptr) {
    if (SharedConnection view = connections_.InMemory(ask->need); view != nullptr) {
      return Judge(ask, view);
    }
  }
  Behind(ask, [this, ask] { Look(ask); });
}

void PlatformTokens::StartLink(const v1::StartUserLinkRequest& request, SharedAdmission admission,
                               v1::StartUserLinkResponse* response, Done done, Gone gone) {
  const auto ask = std::make_shared<Ask>();
  ask->admission = std::move(admission);
  ask->done = std::move(done);
  ask->gone = std::move(gone);
  ask->wish.account = request.account();
  ask->wish.scopes.assign(request.scopes().begin(), request.scopes().end());
  ask->wish.return_to = request.return_to();
  if (const absl::Status status = Prepare(request.app(), *ask); !status.ok()) {
    return ask->done(status);
  }
  ask->good = [response](const Ask& /*asked*/, const SharedConnection& /*view*/) {
    response->set_linked(true);
    return absl::OkStatus();
  };
  ask->lacking = [this, response](const Ask& asked) -> absl::Status {
    ASSIGN_OR_RETURN(*response, accounts_.Start(asked.wish, *asked.snapshot, *asked.admission));
    return absl::OkStatus();
  };
  Behind(ask, [this, ask] { Look(ask); });
}

void PlatformTokens::Behind(const AskPtr& ask, std::function<void()> task) {
  const bool taken = runner_.Post([ask, task = std::move(task)] {
    if (ask->gone()) {
      return ask->done(absl::CancelledError());
    }
    task();
  });
  if (!taken) {
    ask->done(GatewayUnavailable("too many requests wait here"));
  }
}

void PlatformTokens::Look(const AskPtr& ask) {
  const registry::v1::App& app = *ask->wish.app;
  if (ask->binding == nullptr) {
    absl::StatusOr<std::shared_ptr<const SecretReader::Binding>> binding =
        secrets_.ReadBinding("app_binding", app.uid(), app.binding().version());
    if (!binding.ok()) {
      return ask->done(binding.status());
    }
    ask->binding = *std::move(binding);
  }
  connections_.Current(ask->need, [this, ask](const absl::StatusOr<SharedConnection>& view) { Judge(ask, view); });
}

void PlatformTokens::Judge(const AskPtr& ask, const absl::StatusOr<SharedConnection>& view) {
  const registry::v1::App& app = *ask->wish.app;
  if (!view.ok()) {
    return ask->done(NameProvider(view.status(), NameOf(app)));
  }
  const absl::StatusOr<AccountCheck> check = CheckAccount(app, *ask->binding, **view, ask->wish.scopes, clock_.Now());
  if (!check.ok()) {
    return ask->done(check.status());
  }
  if (check->unsealed) {
    // Not while the caller waits; and if there is no room now, at the next call.
    (void)runner_.Post(
        [this, ask] { connections_.SealProvenance(ask->need.key, ask->need.passport, ask->binding->name); });
  }
  if (check->link.has_value()) {
    return Behind(ask, [this, ask] { ask->done(ask->lacking(*ask)); });
  }
  ask->done(ask->good(*ask, *view));
}

absl::Status PlatformTokens::AskForLink(const Ask& ask) const {
  const absl::Status status = accounts_.LinkRequired(ask.wish, *ask.snapshot, *ask.admission);
  if (ReasonOf(status) == "link_required") {
    RETURN_IF_ERROR(audit_.Record(OfferOf(ask.wish, *ask.admission), clock_.Now()));
  }
  return status;
}

absl::Status PlatformTokens::Give(const Ask& ask, const ConnectionView& view, v1::GetTokenResponse* response) const {
  const std::vector<std::string> origins = OriginsOf(*ask.wish.app, *ask.binding);
  if (origins.empty()) {
    return WithReason(absl::FailedPreconditionError("tokens of this app may not be sent to any of its allowed origins; "
                                                    "a credential-admin can allow them"),
                      kNoAllowedOrigin);
  }
  AuditLog::Entry entry{.type = "platform.token", .subject = ask.admission->passport.subject};
  entry.actor = ask.admission->platform;
  entry.credentials = {UseOf(ask.need.key.connection, view.generation, view.version)};
  RETURN_IF_ERROR(audit_.Record(entry, clock_.Now()));
  response->set_access_token(std::string(view.access_token.Expose()));
  response->set_token_type("Bearer");
  if (view.times.expires_at != absl::InfiniteFuture()) {
    // With room for clocks that differ: the receiver keeps none.
    *response->mutable_expires_at() = ToTimestamp(view.times.expires_at - ExpirySkew(view.times));
  }
  response->mutable_scopes()->Assign(view.scopes.begin(), view.scopes.end());
  response->mutable_allowed_origins()->Assign(origins.begin(), origins.end());
  response->set_version(view.version);
  response->set_generation(view.generation);
  response->set_account_name(view.account_name);
  return absl::OkStatus();
}

}  // namespace sallyport::token_broker

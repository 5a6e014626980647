// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/connections.h"

#include <utility>
#include <vector>

#include "common/error.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "services/token_broker/connection_name.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/jwt_expiry.h"
#include "services/token_broker/provider_binding.h"
#include "services/token_broker/provider_trouble.h"

namespace sallyport::token_broker {
namespace {

// While invalidations arrive, a cached connection is believed this long; without them, much less.
constexpr absl::Duration kMaxAge = absl::Seconds(60);
constexpr absl::Duration kMaxAgeUnwatched = absl::Seconds(5);
constexpr int kMaxAttempts = 2;

constexpr CounterInfo kLookups = {
    .name = "sallyport_broker_token_lookups_total",
    .help = "Lookups of users' tokens, by what answered",
    .unit = "lookups",
    .labels = {{"from", "memory, redis, vault"}},
    .rise =
        "Load; the edge keeps tokens itself, so these are its misses. vault rising without redis: Redis is away or was "
        "emptied, and the vault has its load",
    .action = "If vault has most of them, look at the Redis, and at the load of the vault",
};

// There from the start.
struct Lookups {
  prometheus::Counter& memory = MetricCounter(kLookups, {{"from", "memory"}});
  prometheus::Counter& redis = MetricCounter(kLookups, {{"from", "redis"}});
  prometheus::Counter& vault = MetricCounter(kLookups, {{"from", "vault"}});
};
const Lookups& CountLookups() {
  static const Lookups lookups;
  return lookups;
}

bool IsRefused(const Connections::Need& need, const ConnectionView& view) {
  return need.refused_version != 0 && view.version == need.refused_version &&
         view.generation == need.refused_generation;
}

// Of what is needed: an ID token has an end of its own.
TokenTimes TimesOf(const Connections::Need& need, const ConnectionView& view) {
  TokenTimes times = view.times;
  if (need.id_token) {
    times.expires_at = view.id_token.empty() ? absl::InfinitePast() : JwtExpiry(view.id_token.Expose());
  }
  return times;
}

std::shared_ptr<ConnectionView> NeedsUser(const ConnectionView& view) {
  auto ended = std::make_shared<ConnectionView>();
  ended->state = ConnectionView::State::kNeedsUser;
  ended->generation = view.generation;
  ended->version = view.version;
  return ended;
}

}  // namespace

Connections::Connections(VaultClient& vault, TokenCache& cache, Refresher& refresher, Providers& providers,
                         const ControlStream* control, const Clock& clock)
    : vault_(vault), cache_(cache), refresher_(refresher), providers_(providers), control_(control), clock_(clock) {
  CountLookups();
}

Refresher::ProviderSource Connections::SourceFor(const std::string& connection) const {
  return [this, connection]() -> absl::StatusOr<Provider> {
    if (KindOf(connection) == ConnectionKind::kSignIn) {
      return providers_.ForConnector(ConnectorIn(connection));
    }
    const std::shared_ptr<const RegistrySnapshot> snapshot = control_ == nullptr ? nullptr : control_->snapshot();
    const registry::v1::App* app = snapshot == nullptr ? nullptr : snapshot->AppByUid(AppUidOf(connection));
    if (app == nullptr) {
      return error::AppGone();
    }
    return providers_.ForApp(*app);
  };
}

bool Connections::HasMoved(const ConnectionKey& key, const ConnectionView& view) const {
  const std::shared_ptr<const RegistrySnapshot> snapshot = control_ == nullptr ? nullptr : control_->snapshot();
  // Null for sign-ins, which only the configuration file can move.
  const registry::v1::App* app = snapshot == nullptr ? nullptr : snapshot->AppByUid(AppUidOf(key.connection));
  return app != nullptr && providers_.HasMoved(*app, view.provenance.token_origin());
}

bool Connections::IsGood(const Need& need, const ConnectionView& view, absl::Time now) {
  return !IsRefused(need, view) && IsFresh(view.times, need.key.ToString(), now) &&
         Outlasts(view.times, need.least, now);
}

SharedConnection Connections::InMemory(const Need& need) const {
  const bool watched = control_ != nullptr && control_->connected();
  SharedConnection view = cache_.Get(need.key, watched ? kMaxAge : kMaxAgeUnwatched);
  const bool good = view != nullptr && IsGood(need, *view, clock_.Now()) && !HasMoved(need.key, *view);
  if (!good) {
    return nullptr;
  }
  CountLookups().memory.Increment();
  return view;
}

bool Connections::IsCacheable(const Need& need) {
  // Sign-in tokens are written by authn, and ID tokens are not in the shared cache: both are read where they are
  // written.
  return !need.id_token && KindOf(need.key.connection) != ConnectionKind::kSignIn;
}

bool Connections::TryCurrent(const Need& need, std::function<void(SharedConnection)> done) {
  if (!IsCacheable(need)) {
    return false;
  }
  if (SharedConnection view = InMemory(need); view != nullptr) {
    done(std::move(view));
    return true;
  }
  if (control_ == nullptr || !control_->connected()) {
    return false;
  }
  return cache_.TryGetShared(need.key, [this, need, done = std::move(done)](SharedConnection view) {
    const bool good = view != nullptr && IsGood(need, *view, clock_.Now()) && !HasMoved(need.key, *view);
    if (good) {
      CountLookups().redis.Increment();
    }
    done(good ? std::move(view) : nullptr);
  });
}

absl::StatusOr<SharedConnection> Connections::Look(const Need& need) {
  const absl::Time now = clock_.Now();
  const bool watched = control_ != nullptr && control_->connected();
  const auto good = [&](const SharedConnection& view) { return view != nullptr && IsGood(need, *view, now); };
  const bool cacheable = IsCacheable(need);
  if (cacheable) {
    if (SharedConnection view = cache_.Get(need.key, watched ? kMaxAge : kMaxAgeUnwatched); good(view)) {
      CountLookups().memory.Increment();
      return view;
    }
    if (SharedConnection view = watched && !need.not_shared ? cache_.GetShared(need.key, need.passport) : nullptr;
        good(view)) {
      CountLookups().redis.Increment();
      return view;
    }
  }
  CountLookups().vault.Increment();
  const uint64_t mark = cache_.Mark();
  vault::v1::GetRequest request;
  *request.mutable_record() = ConnectionRecord(need.key.subject, need.key.connection);
  absl::StatusOr<vault::v1::GetResponse> record = vault_.Get(request, need.passport);
  if (absl::IsNotFound(record.status())) {
    return std::make_shared<ConnectionView>();
  }
  if (!record.ok()) {
    // The store is away: a token that is still valid goes on serving.
    SharedConnection last = cacheable ? cache_.Get(need.key, absl::Hours(1)) : nullptr;
    const bool serves = last != nullptr && watched && !IsRefused(need, *last) && IsUsable(last->times, now);
    return serves ? absl::StatusOr<SharedConnection>(last) : record.status();
  }
  absl::StatusOr<std::shared_ptr<ConnectionView>> view = ViewOf(*record);
  if (!view.ok()) {
    return view.status();
  }
  if (cacheable) {
    cache_.PutRead(need.key, *view, mark);
  }
  return SharedConnection(*std::move(view));
}

bool Connections::Answer(const Need& need, const SharedConnection& view, int attempts, const Callback& done) {
  const absl::Time now = clock_.Now();
  const bool refused = IsRefused(need, *view);
  const TokenTimes times = TimesOf(need, *view);
  // One that is renewed first, for it ends too soon; once it has been, it is as long as they get.
  const bool too_short = need.least > absl::ZeroDuration() && attempts < kMaxAttempts && view->can_refresh &&
                         !refused && IsUsable(times, now) && !Outlasts(times, need.least, now);
  const bool usable = IsUsable(times, now) && !refused && !too_short;
  // That an upstream refused a version does not concern those who were not refused, though they waited for the same
  // refresh.
  const bool refused_again = view->refused_again && (refused || need.id_token);
  if (view->state != ConnectionView::State::kLinked || refused_again) {
    done(view);
    return true;
  }
  // A provider need not renew ID tokens (OpenID Connect Core section 12.2): then only signing in again helps.
  const bool id_token_not_renewed = need.id_token && attempts > 0;
  if (!usable && (!view->can_refresh || id_token_not_renewed)) {
    std::shared_ptr<ConnectionView> ended = NeedsUser(*view);
    ended->refused_again = refused && IsUsable(times, now);
    done(std::move(ended));
    return true;
  }
  if ((usable || too_short) && HasMoved(need.key, *view)) {
    // Nothing is marked: it is good again if the app is pointed back.
    done(NeedsUser(*view));
    return true;
  }
  if (usable) {
    done(view);
    if (attempts == 0 && view->can_refresh && view->backoff_until <= now && !IsFresh(times, need.key.ToString(), now)) {
      // Behind the caller, who has a token that is good for a while.
      refresher_.Refresh(need.key, {}, need.passport, SourceFor(need.key.connection), [](const auto& /*result*/) {});
    }
    return true;
  }
  if (view->backoff_until > now) {
    done(ProviderUnavailable(view->trouble, view->backoff_until - now));
    return true;
  }
  return false;
}

void Connections::Renew(const Need& need, const SharedConnection& head, int attempts, const Callback& done) {
  RefreshWish wish;
  if (need.refused_version != 0) {
    wish = {RefreshWish::Reason::kForced, need.refused_generation, need.refused_version};
  } else if (need.id_token) {
    // The access token beside it may be fresh.
    wish = {RefreshWish::Reason::kForced, head->generation, head->version};
  } else if (IsUsable(head->times, clock_.Now())) {
    // It is renewed because it ends too soon.
    wish.reason = RefreshWish::Reason::kOutlast;
    wish.least = need.least;
  }
  refresher_.Refresh(
      need.key, wish, need.passport, SourceFor(need.key.connection),
      [this, need, attempts, done](absl::StatusOr<SharedConnection> view) {
        if (!view.ok()) {
          return done(view.status());
        }
        if (Answer(need, *view, attempts + 1, done)) {
          return;
        }
        // The refresh that was joined had another aim. Twice is enough: then something else is wrong.
        if (attempts < kMaxAttempts) {
          return Renew(need, *view, attempts + 1, done);
        }
        done(WithRetryAfter(absl::UnavailableError("the connection could not be renewed"), absl::Seconds(5)));
      });
}

void Connections::AskFurther(const ConnectionKey& key, const std::string& passport,
                             std::shared_ptr<FurtherToken> further, Callback done) {
  RefreshWish wish;
  wish.reason = RefreshWish::Reason::kFurther;
  wish.further = std::move(further);
  refresher_.Refresh(key, wish, passport, SourceFor(key.connection), std::move(done));
}

void Connections::SealProvenance(const ConnectionKey& key, const std::string& passport, const std::string& binding) {
  vault::v1::GetRequest get;
  *get.mutable_record() = ConnectionRecord(key.subject, key.connection);
  const absl::StatusOr<vault::v1::GetResponse> record = vault_.Get(get, passport);
  v1::TokenSet tokens;
  if (!record.ok() || StateOf(record->metadata()) != ConnectionView::State::kLinked ||
      !tokens.ParseFromString(record->payload()) || !tokens.provenance().binding().empty()) {
    return;
  }
  *tokens.mutable_provenance() = ProvenanceOf(tokens, record->metadata().labels());
  tokens.mutable_provenance()->set_binding(binding);
  vault::v1::PutRequest put;
  *put.mutable_record() = get.record();
  put.set_payload(tokens.SerializeAsString());
  put.set_expected_version(record->version());
  put.set_keep_generation(true);
  put.set_state(record->metadata().state());
  *put.mutable_labels() = record->metadata().labels();
  if (record->metadata().has_next_at()) {
    *put.mutable_next_at() = record->metadata().next_at();
  }
  const absl::Status sealed = vault_.Put(put, passport).status();
  Log(LogLevel::kInfo, "connection_sealed_anew", {{"connection", key.connection}, {"status", sealed}});
}

void Connections::Current(const Need& need, Callback done) {
  absl::StatusOr<SharedConnection> view = Look(need);
  if (!view.ok()) {
    return done(view.status());
  }
  if (!Answer(need, *view, 0, done)) {
    Renew(need, *view, 0, std::move(done));
  }
}

}  // namespace sallyport::token_broker

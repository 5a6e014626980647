// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/revocations.h"

#include <algorithm>

#include "common/json_log.h"
#include "common/metrics.h"
#include "common/proto_time.h"
#include "services/token_broker/connection_name.h"
#include "services/token_broker/errors.h"

namespace sallyport::token_broker {
namespace {

// The provider's metadata, and two tokens of 10 s each.
constexpr absl::Duration kLease = absl::Seconds(45);
constexpr absl::Duration kGiveUp = absl::Hours(24 * 7);
// One that was tried in vain comes again after an eighth of the time it has been owed for.
constexpr absl::Duration kSoonest = absl::Seconds(30);
constexpr absl::Duration kLatest = absl::Minutes(30);

constexpr const char* kOutcomes[] = {"revoked", "unsupported", "failed", "abandoned"};

constexpr CounterInfo kRevocations = {
    .name = "sallyport_broker_revocations_total",
    .help = "Attempts to revoke users' tokens at their provider",
    .unit = "attempts",
    .labels = {{"app", "slug of a configured app"},
               {"outcome",
                "revoked, unsupported (no revocation endpoint), failed (is repeated), abandoned (after 7 "
                "days)"}},
    .rise = "failed: the provider does not answer, or refuses the app's client. abandoned: grants live on there",
    .action = "For abandoned end the grant at the provider: the audit event `link.revocation_abandoned` names the user",
};

prometheus::Counter& CounterOf(const std::string& app, const std::string& outcome) {
  return MetricCounter(kRevocations, {{"app", app}, {"outcome", outcome}});
}

}  // namespace

Revocations::Revocations(VaultClient& vault, const ControlStream& control, Providers& providers,
                         TokenEndpoint& endpoint, const AuditLog& audit, const Clock& clock)
    : vault_(vault),
      control_(control),
      providers_(providers),
      endpoint_(endpoint),
      audit_(audit),
      clock_(clock),
      pauses_(clock) {}

std::string Revocations::NameOf(Outcome outcome) {
  switch (outcome) {
    case Outcome::kRevoked:
      return "revoked";
    case Outcome::kUnsupported:
    case Outcome::kAbandoned:
      return "unsupported";
    case Outcome::kPending:
    case Outcome::kGone:
      break;
  }
  return "pending";
}

void Revocations::Expect(const RegistrySnapshot& snapshot) const {
  for (const auto* apps : {&snapshot.apps_by_uid, &snapshot.ending_apps_by_uid}) {
    for (const auto& [uid, app] : *apps) {
      for (const char* outcome : kOutcomes) {
        CounterOf(app->slug(), outcome);
      }
    }
  }
}

absl::StatusOr<Provider> Revocations::ProviderOf(const std::string& app_uid) {
  if (KindOf(app_uid) == ConnectionKind::kSignIn) {
    return providers_.ForConnector(ConnectorIn(app_uid));
  }
  const std::shared_ptr<const RegistrySnapshot> snapshot = control_.snapshot();
  const registry::v1::App* app = snapshot->AppByUid(app_uid);
  if (app == nullptr) {
    app = snapshot->EndingAppByUid(app_uid);
  }
  return app == nullptr ? error::AppGone() : providers_.ForApp(*app);
}

std::string Revocations::SlugOf(const std::string& app_uid) const {
  const std::shared_ptr<const RegistrySnapshot> snapshot = control_.snapshot();
  const registry::v1::App* app = snapshot->AppByUid(app_uid);
  if (app == nullptr) {
    app = snapshot->EndingAppByUid(app_uid);
  }
  return app == nullptr ? app_uid : app->slug();
}

RevocationResult Revocations::RevokeAt(const Provider& provider, const v1::TokenSet& tokens, const Labels& labels) {
  if (provider.revocation_url.empty() && provider.metadata_missing) {
    return RevocationResult::kRetry;  // Whether it has a revocation endpoint is not known now.
  }
  if (!MayRevokeAt(ProvenanceOf(tokens, labels), provider)) {
    return RevocationResult::kUnsupported;
  }
  // The refresh token first: it is what could make new ones. Ending it ends the grant at most providers; the access
  // token is asked for as well, and its outcome does not count then.
  if (!tokens.refresh_token().empty()) {
    const RevocationResult result = endpoint_.Revoke(provider, Secret::Copy(tokens.refresh_token()), "refresh_token");
    if (result == RevocationResult::kRevoked && !tokens.access_token().empty()) {
      endpoint_.Revoke(provider, Secret::Copy(tokens.access_token()), "access_token");
    }
    return result;
  }
  if (tokens.access_token().empty()) {
    return RevocationResult::kRevoked;  // Nothing was left that could be.
  }
  return endpoint_.Revoke(provider, Secret::Copy(tokens.access_token()), "access_token");
}

RevocationResult Revocations::Ask(const vault::v1::AcquireLeaseResponse::Lease& lease, const std::string& app_uid) {
  v1::TokenSet tokens;
  if (!tokens.ParseFromString(lease.payload())) {
    Log(LogLevel::kError, "revocation_does_not_parse", {{"connection", app_uid}});
    return RevocationResult::kRetry;  // Says nothing about the provider. A newer release may have written it.
  }
  const absl::StatusOr<Provider> provider = ProviderOf(app_uid);
  const RevocationResult result =
      provider.ok() ? RevokeAt(*provider, tokens, lease.metadata().labels()) : RevocationResult::kRetry;
  if (result == RevocationResult::kRetry) {
    pauses_.Away(app_uid);
  } else if (result != RevocationResult::kRefused) {  // Which says nothing about the tokens of others.
    pauses_.Back(app_uid);
  }
  return result;
}

Revocations::Outcome Revocations::Attempt(const vault::v1::RecordMetadata& owed, bool insist) {
  const std::string app_uid = AppUidOf(owed);
  const bool left_alone = !insist && pauses_.IsPaused(app_uid);
  const bool overdue = clock_.Now() - SinceOf(owed).value_or(clock_.Now()) > kGiveUp;
  if (left_alone && !overdue) {
    return Outcome::kPending;
  }
  vault::v1::AcquireLeaseRequest acquire;
  *acquire.mutable_record() = owed.record();
  *acquire.mutable_ttl() = ToProtoDuration(kLease);
  acquire.set_maintenance(true);
  const absl::StatusOr<vault::v1::AcquireLeaseResponse> response = vault_.AcquireLease(acquire, "");
  if (absl::IsNotFound(response.status())) {
    return Outcome::kGone;
  }
  if (absl::IsDataLoss(response.status()) && overdue) {
    return Abandon(owed, "", "damaged") ? Outcome::kAbandoned : Outcome::kPending;
  }
  if (!response.ok() || !response->has_lease()) {
    return Outcome::kPending;  // Another replica is at it, or was in vain.
  }
  const vault::v1::AcquireLeaseResponse::Lease& lease = response->lease();
  return Settle(lease.metadata(), lease.id(), left_alone ? RevocationResult::kRetry : Ask(lease, app_uid));
}

AuditLog::Entry Revocations::EntryOf(const vault::v1::RecordMetadata& owed, const std::string& type) const {
  const std::string app_uid = AppUidOf(owed);
  AuditLog::Entry entry{.type = type, .subject = ConnectionOf(owed).subject};
  entry.credentials = {UseOf(app_uid, GenerationOf(owed), 0)};
  entry.details = {{"app", SlugOf(app_uid)}};
  if (const std::string account = AccountLabelOf(ConnectionOf(owed).connection); !account.empty()) {
    entry.details.emplace_back("account", account);
  }
  return entry;
}

bool Revocations::Abandon(const vault::v1::RecordMetadata& owed, const std::string& lease, const std::string& rule) {
  AuditLog::Entry entry = EntryOf(owed, "link.revocation_abandoned");
  entry.decision = audit::v1::DECISION_FAILED;
  entry.rule = rule;
  if (!End(owed, lease, entry)) {
    return false;
  }
  CounterOf(SlugOf(AppUidOf(owed)), "abandoned").Increment();
  Log(LogLevel::kError, "revocation_abandoned", {{"connection", AppUidOf(owed)}, {"reason", rule}});
  return true;
}

Revocations::Outcome Revocations::Settle(const vault::v1::RecordMetadata& owed, const std::string& lease,
                                         RevocationResult result) {
  const std::string app = SlugOf(AppUidOf(owed));
  if (result == RevocationResult::kRevoked || result == RevocationResult::kUnsupported) {
    const Outcome outcome = result == RevocationResult::kRevoked ? Outcome::kRevoked : Outcome::kUnsupported;
    AuditLog::Entry entry = EntryOf(owed, "link.revoked");
    entry.rule = NameOf(outcome);
    CounterOf(app, entry.rule).Increment();
    return End(owed, lease, entry) ? outcome : Outcome::kPending;
  }
  const std::string reason = result == RevocationResult::kRefused ? "provider_refused" : "provider_unavailable";
  const absl::Duration age = clock_.Now() - SinceOf(owed).value_or(clock_.Now());
  if (age > kGiveUp) {
    return Abandon(owed, lease, reason) ? Outcome::kAbandoned : Outcome::kPending;
  }
  CounterOf(app, "failed").Increment();
  PutOff(owed, lease, reason, age);
  return Outcome::kPending;
}

bool Revocations::End(const vault::v1::RecordMetadata& owed, const std::string& lease, const AuditLog::Entry& entry) {
  if (!audit_.Record(entry).ok()) {
    return false;  // What cannot be recorded has not happened yet: it is tried again when the lease has lapsed.
  }
  vault::v1::DeleteRequest forget;
  *forget.mutable_record() = owed.record();
  if (lease.empty()) {
    forget.set_expected_version(owed.head());
  } else {
    forget.set_lease(lease);
  }
  // If this fails, a revocation that is done already is tried again, which providers answer with 200.
  vault_.Delete(forget, "").status().IgnoreError();
  return true;
}

void Revocations::PutOff(const vault::v1::RecordMetadata& owed, const std::string& lease, const std::string& reason,
                         absl::Duration age) {
  vault::v1::PutStatusRequest status;
  *status.mutable_record() = owed.record();
  status.set_lease(lease);
  status.set_state(owed.state());
  status.set_reason(reason);
  *status.mutable_next_at() = ToTimestamp(clock_.Now() + std::clamp(age / 8, kSoonest, kLatest));
  vault_.PutStatus(status).IgnoreError();  // The lease lapses by itself if this is lost.
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/revocations.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"

#include "common/json_log.h"
#include "common/metrics.h"
#include "common/proto_time.h"
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

prometheus::Counter& CounterOf(const std::string& app, const std::string& outcome) {
  return MetricCounter("sallyport_broker_revocations_total",
                       "Attempts to revoke users' tokens at providers, by app and outcome",
                       {{"app", app}, {"outcome", outcome}});
}

// Of the connection that it was; in the name behind the hash, which is of 64 digits, and the connection's own name.
int64_t GenerationOf(const vault::v1::RecordMetadata& owed) {
  const size_t begin = 64 + 1 + ConnectionOf(owed).connection.size() + 1;
  const std::string& name = owed.record().name();
  int64_t generation = 0;
  return begin < name.size() && absl::SimpleAtoi(name.substr(begin, name.find(':', begin) - begin), &generation)
             ? generation
             : 0;
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
  if (absl::StartsWith(app_uid, "sso:")) {
    return providers_.ForConnector(app_uid.substr(4));
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
  } else {
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
    return Outcome::kRevoked;  // By another replica, meanwhile.
  }
  if (!response.ok() || !response->has_lease()) {
    return Outcome::kPending;  // Another replica is at it, or was in vain.
  }
  const vault::v1::AcquireLeaseResponse::Lease& lease = response->lease();
  return Settle(lease.metadata(), lease.id(), left_alone ? RevocationResult::kRetry : Ask(lease, app_uid));
}

Revocations::Outcome Revocations::Settle(const vault::v1::RecordMetadata& owed, const std::string& lease,
                                         RevocationResult result) {
  const std::string app_uid = AppUidOf(owed);
  const std::string app = SlugOf(app_uid);
  const absl::Duration age = clock_.Now() - SinceOf(owed).value_or(clock_.Now());
  AuditLog::Entry entry{.type = "link.revoked", .subject = ConnectionOf(owed).subject};
  entry.credentials = {UseOf(app_uid, GenerationOf(owed), 0)};
  entry.details = {{"app", app}};
  if (const std::string account = AccountLabelOf(ConnectionOf(owed).connection); !account.empty()) {
    entry.details.emplace_back("account", account);
  }
  if (result != RevocationResult::kRetry) {
    const Outcome outcome = result == RevocationResult::kRevoked ? Outcome::kRevoked : Outcome::kUnsupported;
    entry.rule = NameOf(outcome);
    CounterOf(app, entry.rule).Increment();
    return End(owed, lease, entry) ? outcome : Outcome::kPending;
  }
  if (age > kGiveUp) {
    entry.type = "link.revocation_abandoned";
    entry.decision = audit::v1::DECISION_FAILED;
    entry.rule = "provider_unavailable";
    if (End(owed, lease, entry)) {
      CounterOf(app, "abandoned").Increment();
      Log(LogLevel::kError, "revocation_abandoned", {{"connection", app_uid}});
      return Outcome::kAbandoned;
    }
    return Outcome::kPending;
  }
  CounterOf(app, "failed").Increment();
  PutOff(owed, lease, age);
  return Outcome::kPending;
}

bool Revocations::End(const vault::v1::RecordMetadata& owed, const std::string& lease, const AuditLog::Entry& entry) {
  if (!audit_.Record(entry).ok()) {
    return false;  // What cannot be recorded has not happened yet: it is tried again when the lease has lapsed.
  }
  vault::v1::DeleteRequest forget;
  *forget.mutable_record() = owed.record();
  forget.set_lease(lease);
  // If this fails, a revocation that is done already is tried again, which providers answer with 200.
  vault_.Delete(forget, "").status().IgnoreError();
  return true;
}

void Revocations::PutOff(const vault::v1::RecordMetadata& owed, const std::string& lease, absl::Duration age) {
  vault::v1::PutStatusRequest status;
  *status.mutable_record() = owed.record();
  status.set_lease(lease);
  status.set_state(owed.state());
  status.set_reason("provider_unavailable");
  *status.mutable_next_at() = ToTimestamp(clock_.Now() + std::clamp(age / 8, kSoonest, kLatest));
  vault_.PutStatus(status).IgnoreError();  // The lease lapses by itself if this is lost.
}

}  // namespace sallyport::token_broker

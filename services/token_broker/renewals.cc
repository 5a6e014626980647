// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/renewals.h"

#include <algorithm>
#include <future>
#include <memory>
#include <utility>

#include "absl/strings/match.h"

#include "common/error.h"
#include "common/json_log.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/token_broker/connection_name.h"
#include "services/token_broker/owed.h"
#include "services/token_broker/provider_trouble.h"

namespace sallyport::token_broker {
namespace {

// When a connection whose provider cannot be asked is looked at again: an app that is gone may come back by a restored
// configuration, and metadata that cannot be had is had soon.
constexpr absl::Duration kAppGone = absl::Hours(24);
constexpr absl::Duration kProviderUnknown = absl::Minutes(10);
constexpr absl::Duration kNotOwed = absl::Minutes(10);
// The vault notes a use if the last one it knows of is older than this.
constexpr absl::Duration kUseNoted = absl::Hours(24);

// What a refresh that failed says of its app.
enum class Trouble {
  kNone,     // Of the app nothing: this connection, the store, somebody else who is at it.
  kAway,     // Its provider does not answer, or answers nobody.
  kUnknown,  // How to ask it is not known now: no lease was taken.
  kGone,     // A deleted one, or a connector that authn's configuration no longer has.
};

bool IsAway(const std::string& code) {
  return IsSilence(code) || RejectsClient(code) || absl::StartsWith(code, "http_5") || code == "http_429" ||
         code == "rate_limited" || code == "slow_down" || code == "server_error" || code == "temporarily_unavailable";
}

Trouble TroubleOf(const ConnectionKey& key, const absl::Status& status) {
  const ErrorDetail detail = DetailOf(status);
  if (KindOf(key.connection) == ConnectionKind::kSignIn && detail.reason.empty() &&
      (absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status))) {
    return Trouble::kUnknown;  // authn, which knows the connectors, does not answer.
  }
  if (absl::IsFailedPrecondition(status) || absl::IsNotFound(status)) {
    return detail.retry_after > absl::ZeroDuration() ? Trouble::kUnknown : Trouble::kGone;
  }
  if (detail.reason != kProviderUnavailable || detail.oauth_error == kRenewalUnderWay) {
    return Trouble::kNone;
  }
  const bool metadata =
      absl::StartsWith(detail.oauth_error, "metadata_") || detail.oauth_error == "network_not_allowed";
  return metadata ? Trouble::kUnknown : IsAway(detail.oauth_error) ? Trouble::kAway : Trouble::kNone;
}

// InfiniteFuture if nothing is known. A link of an earlier release says nothing of its use; then the day its tokens
// were stored last, which is never too early.
absl::Time LastUse(const vault::v1::RecordMetadata& metadata) {
  return metadata.has_used_at()      ? FromTimestamp(metadata.used_at())
         : metadata.has_updated_at() ? FromTimestamp(metadata.updated_at())
                                     : absl::InfiniteFuture();
}

}  // namespace

Renewals::Renewals(VaultClient& vault, Connections& connections, Refresher& refresher, Invalidations& invalidations,
                   const AuditLog& audit, const Clock& clock, absl::Duration idle_revoke_after)
    : vault_(vault),
      connections_(connections),
      refresher_(refresher),
      invalidations_(invalidations),
      audit_(audit),
      clock_(clock),
      idle_revoke_after_(idle_revoke_after),
      pauses_(clock) {}

bool Renewals::IsIdle(const vault::v1::RecordMetadata& metadata) const {
  // The tokens of a sign-in end with it; nobody has linked them.
  return KindOf(metadata.record().name()) != ConnectionKind::kSignIn &&
         clock_.Now() - LastUse(metadata) > idle_revoke_after_ + kUseNoted;
}

bool Renewals::Work(const vault::v1::RecordMetadata& due) {
  if (due.state() == "REVOKE_PENDING") {
    return Owe(due, /*audited=*/false);
  }
  if (IsIdle(due)) {
    return Owe(due, /*audited=*/true);
  }
  if (StateOf(due) != ConnectionView::State::kLinked) {
    PutOff(due.record(), kAppGone);
    return true;
  }
  return !pauses_.IsPaused(AppUidOf(due)) && Renew(due);
}

bool Renewals::Renew(const vault::v1::RecordMetadata& due) {
  const ConnectionKey key{due.record().owner_id(), due.record().name()};
  const std::string app_uid = AppUidOf(due);
  RefreshWish wish;
  wish.reason = RefreshWish::Reason::kDue;
  // Its refresher may outlast this wait, if the service stops.
  const auto ended = std::make_shared<std::promise<absl::StatusOr<SharedConnection>>>();
  refresher_.Refresh(key, wish, "", connections_.SourceFor(key.connection),
                     [ended](absl::StatusOr<SharedConnection> result) { ended->set_value(std::move(result)); });
  const absl::StatusOr<SharedConnection> result = ended->get_future().get();
  if (result.ok()) {
    pauses_.Back(app_uid);
    if ((*result)->state == ConnectionView::State::kLinked && !(*result)->can_refresh) {
      // Due only so that somebody looks whether it is still used.
      PutOff(due.record(),
             std::clamp(LastUse(due) + idle_revoke_after_ + kUseNoted - clock_.Now(), absl::Hours(1), kAppGone));
    }
    return true;
  }
  const Trouble trouble = TroubleOf(key, result.status());
  if (trouble != Trouble::kNone) {
    pauses_.Away(app_uid);
  }
  if (trouble == Trouble::kGone || trouble == Trouble::kUnknown) {
    PutOff(due.record(), trouble == Trouble::kGone ? kAppGone : kProviderUnknown);
  }
  return true;
}

absl::StatusOr<Renewals::Lease> Renewals::Acquire(const vault::v1::RecordName& record) {
  vault::v1::AcquireLeaseRequest acquire;
  *acquire.mutable_record() = record;
  acquire.mutable_ttl()->set_seconds(30);
  acquire.set_maintenance(true);
  ASSIGN_OR_RETURN(vault::v1::AcquireLeaseResponse response, vault_.AcquireLease(acquire, ""));
  if (!response.has_lease()) {
    return absl::AbortedError("somebody is at it");
  }
  return std::move(*response.mutable_lease());
}

bool Renewals::Owe(const vault::v1::RecordMetadata& due, bool audited) {
  const absl::StatusOr<Lease> lease = Acquire(due.record());
  if (!lease.ok()) {
    return false;
  }
  // As it is under the lease: its user may have used it, or linked it anew.
  const bool idle = IsIdle(lease->metadata());
  if (lease->metadata().state() != "REVOKE_PENDING" && !(audited && idle)) {
    vault::v1::ReleaseRequest release;
    *release.mutable_record() = due.record();
    release.set_lease(lease->id());
    vault_.Release(release).IgnoreError();  // The lease lapses by itself if this is lost.
    return false;
  }
  const ConnectionKey key{due.record().owner_id(), due.record().name()};
  vault::v1::OweRevocationRequest owe;
  *owe.mutable_record() = due.record();
  owe.set_lease(lease->id());
  const absl::StatusOr<vault::v1::OweRevocationResponse> owed = vault_.OweRevocation(owe, "");
  if (!owed.ok()) {
    Log(LogLevel::kWarning, "revocation_not_owed", {{"connection", key.connection}, {"status", owed.status()}});
    PutOff(*lease, kNotOwed);
    return false;
  }
  for (const auto& one : owed->owed()) {
    invalidations_.Connection(key, one.generation(), clock_.Now());
  }
  if (audited) {
    AuditLog::Entry entry{.type = "link.idle_revoked", .subject = key.subject};
    entry.credentials = {UseOf(AppUidOf(due), lease->generation(), 0)};
    entry.details = {{"connection", key.connection},
                     {"last_used", absl::FormatTime("%Y-%m-%d", LastUse(lease->metadata()), absl::UTCTimeZone())}};
    audit_.Record(entry).IgnoreError();  // It has ended; that the record is missing is logged where it is written.
  }
  return true;
}

void Renewals::PutOff(const vault::v1::RecordName& record, absl::Duration delay) {
  if (const absl::StatusOr<Lease> lease = Acquire(record); lease.ok()) {
    PutOff(*lease, delay);
  }
}

void Renewals::PutOff(const Lease& lease, absl::Duration delay) {
  const vault::v1::RecordMetadata& current = lease.metadata();
  vault::v1::PutStatusRequest status;
  *status.mutable_record() = current.record();
  status.set_lease(lease.id());
  status.set_state(current.state());
  status.set_reason(current.reason());
  if (current.has_backoff_until()) {
    *status.mutable_backoff_until() = current.backoff_until();
  }
  *status.mutable_next_at() = ToTimestamp(clock_.Now() + delay);
  vault_.PutStatus(status).IgnoreError();
}

}  // namespace sallyport::token_broker

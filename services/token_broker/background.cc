// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/background.h"

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/proto_time.h"

namespace sallyport::token_broker {
namespace {

constexpr int kBatch = 50;
// When a connection whose provider cannot be asked is looked at again: an app that is gone may come back by a restored
// configuration, and metadata that cannot be had is had soon.
constexpr absl::Duration kAppGone = absl::Hours(24);
constexpr absl::Duration kProviderUnknown = absl::Minutes(10);

}  // namespace

Background::Background(VaultClient& vault, Connections& connections, Refresher& refresher, Revoker& revoker,
                       TaskRunner& runner, const Clock& clock, absl::Duration interval)
    : vault_(vault),
      connections_(connections),
      refresher_(refresher),
      revoker_(revoker),
      runner_(runner),
      clock_(clock),
      interval_(interval) {}

void Background::Start() { Schedule(); }

void Background::Schedule() {
  // Spread, so that replicas that started together do not all ask at once.
  runner_.PostAfter(interval_ * (0.75 + RandomUnit() / 2), [this] {
    if (!stopping_) {
      RunOnce();
      Schedule();
    }
  });
}

int Background::RunOnce() {
  // By kind: many of one must not keep those of the other waiting.
  return RunKind("connection") + RunKind("link_flow");
}

int Background::RunKind(const std::string& kind) {
  vault::v1::ListDueRequest request;
  request.add_kinds(kind);
  request.set_limit(kBatch);
  const absl::StatusOr<vault::v1::ListDueResponse> due = vault_.ListDue(request);
  if (!due.ok()) {
    Log(LogLevel::kDebug, "list_due_failed", {{"status", due.status()}});
    return 0;
  }
  for (const vault::v1::RecordMetadata& metadata : due->records()) {
    if (stopping_) {
      break;
    }
    Take(metadata);
  }
  return due->records_size();
}

void Background::Take(const vault::v1::RecordMetadata& metadata) {
  if (metadata.record().kind() == "link_flow") {
    vault::v1::DeleteRequest request;
    *request.mutable_record() = metadata.record();
    request.set_expected_version(metadata.head());
    vault_.Delete(request, "").status().IgnoreError();  // Consumed meanwhile: as good.
    return;
  }
  const bool revoke = metadata.state() == "REVOKE_PENDING";
  if (!revoke && StateOf(metadata) != ConnectionView::State::kLinked) {
    return;
  }
  const ConnectionKey key{metadata.record().owner_id(), metadata.record().name()};
  absl::StatusOr<Provider> provider = connections_.SourceFor(key.connection)();
  if (revoke) {
    revoker_.Retry(key, provider.ok() ? &*provider : nullptr);
    return;
  }
  if (!provider.ok()) {
    const bool passing = DetailOf(provider.status()).retry_after > absl::ZeroDuration();
    // An app that was deleted, or a connector that authn's configuration no longer has.
    const bool gone =
        (absl::IsFailedPrecondition(provider.status()) || absl::IsNotFound(provider.status())) && !passing;
    PutOff(metadata, gone ? kAppGone : kProviderUnknown);
    return;
  }
  RefreshWish wish;
  wish.reason = RefreshWish::Reason::kDue;
  refresher_.Refresh(key, wish, "", connections_.SourceFor(key.connection), [](const auto& /*result*/) {});
}

void Background::PutOff(const vault::v1::RecordMetadata& metadata, absl::Duration delay) {
  vault::v1::AcquireLeaseRequest acquire;
  *acquire.mutable_record() = metadata.record();
  acquire.mutable_ttl()->set_seconds(30);
  acquire.set_maintenance(true);
  const absl::StatusOr<vault::v1::AcquireLeaseResponse> response = vault_.AcquireLease(acquire, "");
  if (!response.ok() || !response->has_lease()) {
    return;  // Somebody is at it.
  }
  const vault::v1::RecordMetadata& current = response->lease().metadata();
  vault::v1::PutStatusRequest status;
  *status.mutable_record() = metadata.record();
  status.set_lease(response->lease().id());
  status.set_state(current.state());
  status.set_reason(current.reason());
  if (current.has_backoff_until()) {
    *status.mutable_backoff_until() = current.backoff_until();
  }
  *status.mutable_next_at() = ToTimestamp(clock_.Now() + delay);
  vault_.PutStatus(status).IgnoreError();
}

}  // namespace sallyport::token_broker

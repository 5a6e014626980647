// SPDX-License-Identifier: Apache-2.0
// The steps around the lease: taking it, waiting for another holder, giving it back.
#include "services/token_broker/refresh_flight.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/proto_time.h"
#include "services/token_broker/provider_trouble.h"
#include "services/token_broker/refresh_flight_parts.h"

namespace sallyport::token_broker {

RefreshFlight::RefreshFlight(ConnectionKey key, Provider provider, RefreshWish wish, std::string passport,
                             VaultClient& vault, TokenEndpoint& endpoint, const Clock& clock, Options options)
    : key_(std::move(key)),
      provider_(std::move(provider)),
      wish_(wish),
      passport_(std::move(passport)),
      vault_(vault),
      endpoint_(endpoint),
      clock_(clock),
      options_(std::move(options)) {}

RefreshFlight::Next RefreshFlight::Step() {
  switch (phase_) {
    case Phase::kAcquire:
      return Acquire();
    case Phase::kPoll:
      return Poll();
    case Phase::kAdopt:
      return Adopt();
    case Phase::kSend:
      return Send();
    case Phase::kCommit:
      return Commit();
    case Phase::kMark:
      return Mark();
    case Phase::kRelease:
      return Release();
    case Phase::kRecheck:
      return Recheck();
    case Phase::kReread:
      return Reread();
    case Phase::kRevokeStray:
      return RevokeStray();
    case Phase::kOweStray:
      return OweStray();
    case Phase::kDone:
      break;
  }
  return {.kind = Next::Kind::kDone};
}

RefreshFlight::Next RefreshFlight::Then(Phase phase, absl::Duration wait) {
  phase_ = phase;
  return {.kind = wait > absl::ZeroDuration() ? Next::Kind::kWait : Next::Kind::kAgain, .wait = wait};
}

RefreshFlight::Next RefreshFlight::Finish(absl::StatusOr<SharedConnection> result) {
  result_ = std::move(result);
  phase_ = Phase::kDone;
  return {.kind = Next::Kind::kDone};
}

RefreshFlight::Next RefreshFlight::ReleaseWith(absl::StatusOr<SharedConnection> result) {
  pending_ = std::move(result);
  return Then(Phase::kRelease);
}

RefreshFlight::Next RefreshFlight::Acquire() {
  // Before the call, so that our view of the lease ends earlier than the vault's.
  leased_ = clock_.Elapsed();
  vault::v1::AcquireLeaseRequest request;
  *request.mutable_record() = ConnectionRecord(key_.subject, key_.connection);
  request.mutable_ttl()->set_seconds(absl::ToInt64Seconds(options_.lease));
  request.set_maintenance(passport_.empty());
  absl::StatusOr<vault::v1::AcquireLeaseResponse> response = vault_.AcquireLease(request, passport_);
  if (absl::IsNotFound(response.status())) {
    pending_ = SharedConnection(std::make_shared<ConnectionView>());
    return std::exchange(resubmit_, false) ? EndStray("") : Finish(std::move(pending_));
  }
  if (!response.ok() && resubmit_) {
    // The token exists nowhere but here. If it is our passport that has ended, whoever asks next lends another.
    return Then(Phase::kAcquire, Doubling(absl::Milliseconds(50), ++store_attempts_, kMaxStoreWait));
  }
  if (!response.ok()) {
    return Finish(answer_lacks_access_ ? ProviderUnavailable("no_access_token", absl::Seconds(1)) : response.status());
  }
  if (response->has_held()) {
    return Held(absl::Seconds(response->held().retry_after().seconds()) +
                absl::Nanoseconds(response->held().retry_after().nanos()));
  }
  took_over_ = (took_over_ && response->lease().generation() == lease_.generation()) || response->lease().took_over() ||
               response->lease().metadata().reason() == kHolderVanished;
  lease_ = std::move(*response->mutable_lease());
  return Examine(clock_.Now());
}

RefreshFlight::Next RefreshFlight::Held(absl::Duration retry_after) {
  if (!wait_since_.has_value()) {
    wait_since_ = leased_;
  }
  if (leased_ - *wait_since_ >= options_.held_limit && !resubmit_) {
    return Finish(ProviderUnavailable(kRenewalUnderWay, retry_after));
  }
  const absl::Duration base = Doubling(absl::Milliseconds(50), polls_++, absl::Milliseconds(800));
  return Then(Phase::kPoll, base * (0.5 + options_.random()));
}

RefreshFlight::Next RefreshFlight::Poll() {
  if (resubmit_ || passport_.empty()) {
    return Then(Phase::kAcquire);
  }
  vault::v1::GetRequest request;
  *request.mutable_record() = ConnectionRecord(key_.subject, key_.connection);
  absl::StatusOr<vault::v1::GetResponse> record = vault_.Get(request, passport_);
  if (absl::IsNotFound(record.status())) {
    return Finish(std::make_shared<ConnectionView>());
  }
  if (!record.ok()) {
    return Finish(record.status());
  }
  absl::StatusOr<std::shared_ptr<ConnectionView>> view = ViewOf(*record);
  if (!view.ok()) {
    return Finish(view.status());
  }
  const absl::Time now = clock_.Now();
  const bool settled = (*view)->state != ConnectionView::State::kLinked || IsSatisfied(**view, record->metadata(), now);
  // Somebody is at it, and until then this one serves.
  const bool serves = wish_.reason == RefreshWish::Reason::kStale && IsUsable((*view)->times, now);
  if (settled || serves) {
    return Finish(*std::move(view));
  }
  return Then(Phase::kAcquire);
}

bool RefreshFlight::IsSatisfied(const ConnectionView& head, const vault::v1::RecordMetadata& metadata,
                                absl::Time now) const {
  switch (wish_.reason) {
    case RefreshWish::Reason::kStale:
      return IsFresh(head.times, key_.ToString(), now);
    case RefreshWish::Reason::kForced:
      return (head.generation != wish_.refused_generation || head.version != wish_.refused_version) &&
             IsUsable(head.times, now);
    case RefreshWish::Reason::kDue:
      return !metadata.has_next_at() || FromTimestamp(metadata.next_at()) > now;
    case RefreshWish::Reason::kFurther:
      return wish_.further->outcome.has_value();
    case RefreshWish::Reason::kOutlast:
      return Outlasts(head.times, wish_.least, now);
  }
  return false;
}

RefreshFlight::Next RefreshFlight::Recheck() {
  if (!GiveBack().ok()) {
    return Finish(Unavailable("the outcome of a refresh could not be checked", absl::Seconds(1)));
  }
  return Then(Phase::kAcquire);
}

RefreshFlight::Next RefreshFlight::Release() {
  // One that could not be given back lapses by itself.
  GiveBack().IgnoreError();
  return Finish(std::move(pending_));
}

absl::Status RefreshFlight::GiveBack() {
  if (!took_over_ || StateOf(lease_.metadata()) != ConnectionView::State::kLinked) {
    vault::v1::ReleaseRequest request;
    *request.mutable_record() = ConnectionRecord(key_.subject, key_.connection);
    request.set_lease(lease_.id());
    return vault_.Release(request);
  }
  vault::v1::PutStatusRequest request;
  *request.mutable_record() = ConnectionRecord(key_.subject, key_.connection);
  request.set_lease(lease_.id());
  request.set_reason(kHolderVanished);
  if (lease_.metadata().has_backoff_until()) {
    *request.mutable_backoff_until() = lease_.metadata().backoff_until();
  }
  if (lease_.metadata().has_next_at()) {
    *request.mutable_next_at() = lease_.metadata().next_at();
  }
  const absl::Status status = vault_.PutStatus(request);
  return absl::IsAborted(status) ? absl::OkStatus() : status;  // Not ours any more.
}

RefreshFlight::Next RefreshFlight::Mark() {
  *status_.mutable_record() = ConnectionRecord(key_.subject, key_.connection);
  status_.set_lease(lease_.id());
  const absl::Status status = vault_.PutStatus(status_);
  const bool needs_user = pending_.ok() && (*pending_)->state == ConnectionView::State::kNeedsUser;
  if (needs_user && absl::IsAborted(status)) {
    // Linked anew, taken over, or a late answer came in meanwhile: nobody is disconnected on stale knowledge.
    return Then(Phase::kRecheck);
  }
  if (needs_user && !status.ok()) {
    return Finish(Unavailable("the outcome of a refresh could not be recorded", absl::Seconds(1)));
  }
  report_.marked = needs_user;
  return Finish(std::move(pending_));
}

RefreshFlight::Next RefreshFlight::MarkNeedsUser(const std::string& state, const std::string& reason) {
  status_.Clear();
  status_.set_state(state);
  status_.set_reason(reason);
  if (options_.stays_due) {
    *status_.mutable_next_at() = ToTimestamp(clock_.Now() + options_.idle_refresh);
  }
  report_.failure = reason;
  auto view = std::make_shared<ConnectionView>();
  view->state = ConnectionView::State::kNeedsUser;
  view->generation = lease_.generation();
  view->version = lease_.head();
  pending_ = SharedConnection(std::move(view));
  return Then(Phase::kMark);
}

std::string RefreshFlight::Fingerprint() const {
  return absl::StrCat(static_cast<int>(phase_), "/", lease_.id(), "/", lease_.generation(), "/", lease_.head(), "/",
                      head_.refresh_token(), "/", side_.refresh_token(), "/", answer_.refresh_token(), "/", resubmit_,
                      "/", took_over_, answer_lacks_access_, former_link_, refusals_, revocations_,
                      wish_.further != nullptr && wish_.further->outcome.has_value(), "/", status_.state(), "/",
                      absl::StrJoin(refused_tokens_, ","), "/", refusal_);
}

}  // namespace sallyport::token_broker

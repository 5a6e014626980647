// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/refresh_flight.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/error.h"
#include "common/proto_time.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kForcedInterval = absl::Seconds(30);
constexpr absl::Duration kClientRejectedBackoff = absl::Seconds(60);
constexpr absl::Duration kMaxRetryAfter = absl::Minutes(15);
constexpr absl::Duration kMaxStoreWait = absl::Seconds(5);
// How often a passport that counts is waited for, half a minute in all, before a token of a former link is let go
// unrevoked.
constexpr int kMaxRefusals = 12;
// Reason of a record whose former holder vanished, perhaps with an answer: remembered until a token is stored, so that
// whoever finds the token refused can say why.
constexpr char kHolderVanished[] = "holder_vanished";

absl::Status Unavailable(absl::string_view message, absl::Duration retry_after) {
  return WithRetryAfter(absl::UnavailableError(message), std::max(retry_after, absl::Seconds(1)));
}

absl::Duration Doubling(absl::Duration first, int attempt, absl::Duration limit) {
  return std::min(limit, first * std::pow(2.0, std::min(attempt, 20)));
}

}  // namespace

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
    return Finish(answer_lacks_access_ ? Unavailable("the provider gave no access token", absl::Seconds(1))
                                       : response.status());
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
    return Finish(Unavailable("another replica is renewing this connection", retry_after));
  }
  const absl::Duration base = Doubling(absl::Milliseconds(50), polls_++, absl::Milliseconds(800));
  return Then(Phase::kPoll, base * (0.5 + options_.random()));
}

RefreshFlight::Next RefreshFlight::Poll() {
  if (resubmit_) {
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
  }
  return false;
}

bool RefreshFlight::WasForcedRecently(absl::Time now) const {
  // The label is the head's own: a version that came about otherwise has none.
  const auto forced = lease_.metadata().labels().find("forced_at");
  absl::Time at;
  return wish_.refused_generation == lease_.generation() && wish_.refused_version == lease_.head() &&
         forced != lease_.metadata().labels().end() &&
         absl::ParseTime(absl::RFC3339_full, forced->second, &at, nullptr) && now - at < kForcedInterval;
}

bool RefreshFlight::BestSide(v1::TokenSet* tokens) const {
  const bool head_is_dead = StateOf(lease_.metadata()) == ConnectionView::State::kNeedsUser ||
                            refused_tokens_.count(head_.refresh_token()) > 0;
  for (const auto& side : lease_.side()) {
    // Newest first. One older than the head lost to a later lease: only worth a try when the head is dead.
    if (side.version() < lease_.head() && !head_is_dead) {
      return false;
    }
    if (tokens->ParseFromString(side.payload()) && refused_tokens_.count(tokens->refresh_token()) == 0 &&
        tokens->refresh_token() != head_.refresh_token()) {
      return true;
    }
  }
  return false;
}

RefreshFlight::Next RefreshFlight::Examine(absl::Time now) {
  if (refused_tokens_generation_ != lease_.generation()) {
    refused_tokens_.clear();
    refused_tokens_generation_ = lease_.generation();
    if (resubmit_) {
      pending_ = Unavailable("the connection was linked anew", absl::Seconds(1));
      return EndStray(StateOf(lease_.metadata()) == ConnectionView::State::kLinked ? lease_.payload() : "");
    }
  }
  if (resubmit_) {
    return Then(Phase::kCommit);
  }
  if (StateOf(lease_.metadata()) == ConnectionView::State::kAbsent) {
    return ReleaseWith(std::make_shared<ConnectionView>());
  }
  if (!head_.ParseFromString(lease_.payload())) {
    return ReleaseWith(absl::DataLossError("the stored connection does not parse"));
  }
  if (BestSide(&side_)) {
    return Then(Phase::kAdopt);
  }
  return ExamineHead(now);
}

RefreshFlight::Next RefreshFlight::ExamineHead(absl::Time now) {
  absl::StatusOr<std::shared_ptr<ConnectionView>> view = ViewOf(lease_.metadata(), lease_.head(), lease_.payload());
  if (!view.ok() || (*view)->state == ConnectionView::State::kNeedsUser) {
    return ReleaseWith(std::move(view));
  }
  if (refused_tokens_.count(head_.refresh_token()) > 0) {
    // Re-checked under a new lease: still the token the provider refused, and no late answer in sight.
    return MarkNeedsUser("NEEDS_REAUTH", took_over_ ? "rotation_response_lost" : "revoked");
  }
  if (IsSatisfied(**view, lease_.metadata(), now) || !(*view)->can_refresh) {
    return ReleaseWith(std::move(view));
  }
  if (answer_lacks_access_ && head_.refresh_token() == answer_.refresh_token()) {
    return Fail({.failure = ProviderFailure::kUnavailable, .code = "no_access_token"});
  }
  if (!MayRefreshAt(lease_.metadata().labels(), provider_)) {
    return MarkNeedsUser("NEEDS_REAUTH", "provider_moved");
  }
  if (wish_.reason == RefreshWish::Reason::kForced && WasForcedRecently(now)) {
    (*view)->refused_again = true;
    return ReleaseWith(std::move(view));
  }
  if ((*view)->backoff_until > now) {
    return ReleaseWith(
        HeadOrUnavailable("the provider could not renew this connection", (*view)->backoff_until - now, now));
  }
  return Then(Phase::kSend);
}

absl::StatusOr<SharedConnection> RefreshFlight::HeadOrUnavailable(absl::string_view why, absl::Duration retry_after,
                                                                  absl::Time now) const {
  absl::StatusOr<std::shared_ptr<ConnectionView>> view = ViewOf(lease_.metadata(), lease_.head(), lease_.payload());
  if (view.ok() && wish_.reason != RefreshWish::Reason::kForced && IsUsable((*view)->times, now)) {
    return SharedConnection(*std::move(view));
  }
  return Unavailable(why, retry_after);
}

absl::StatusOr<vault::v1::PutResponse> RefreshFlight::Store(const v1::TokenSet& tokens, bool forced, absl::Time now) {
  vault::v1::PutRequest request;
  *request.mutable_record() = ConnectionRecord(key_.subject, key_.connection);
  request.set_lease(lease_.id());
  request.set_payload(tokens.SerializeAsString());
  for (const auto& [name, value] : lease_.metadata().labels()) {
    (*request.mutable_labels())[name] = value;
  }
  request.mutable_labels()->erase("expires_at");
  request.mutable_labels()->erase("forced_at");
  for (const auto& [name, value] : LabelsOf(tokens, key_.connection)) {
    (*request.mutable_labels())[name] = value;
  }
  if (forced) {
    (*request.mutable_labels())["forced_at"] = absl::FormatTime(absl::RFC3339_full, now, absl::UTCTimeZone());
  }
  if (!tokens.refresh_token().empty()) {
    *request.mutable_next_at() = ToTimestamp(now + options_.idle_refresh);
  }
  return vault_.Put(request, "");
}

SharedConnection RefreshFlight::ViewOfStored(const v1::TokenSet& tokens, const vault::v1::PutResponse& stored) const {
  vault::v1::RecordMetadata metadata;
  metadata.set_head(stored.version());
  metadata.set_generation(stored.generation() != 0 ? stored.generation() : lease_.generation());
  absl::StatusOr<std::shared_ptr<ConnectionView>> view = ViewOf(metadata, stored.version(), tokens.SerializeAsString());
  return view.ok() ? *std::move(view) : std::make_shared<ConnectionView>();
}

RefreshFlight::Next RefreshFlight::Adopt() {
  const absl::Time now = clock_.Now();
  absl::StatusOr<vault::v1::PutResponse> stored = Store(side_, /*forced=*/false, now);
  if (absl::IsAborted(stored.status()) || (stored.ok() && stored->side())) {
    return Then(Phase::kAcquire, absl::Milliseconds(50));
  }
  if (!stored.ok()) {
    return ReleaseWith(Unavailable("a late answer could not be adopted", absl::Seconds(1)));
  }
  report_.adopted = true;
  SharedConnection view = ViewOfStored(side_, *stored);
  vault::v1::RecordMetadata metadata;
  if (IsSatisfied(*view, metadata, now)) {
    return Finish(std::move(view));
  }
  return Then(Phase::kAcquire);
}

RefreshFlight::Next RefreshFlight::Send() {
  // The provider does not know our leases: the only guard against a second holder sending the same token is to send
  // early enough.
  const absl::Duration latest = options_.lease - options_.provider_deadline - options_.commit_budget;
  if (clock_.Elapsed() - leased_ > latest) {
    return ReleaseWith(HeadOrUnavailable("the lease had too little time left", absl::Seconds(1), clock_.Now()));
  }
  report_.asked_provider = true;
  // Lifetimes count from the answer, which was made at this moment at the earliest.
  const absl::Time asked_at = clock_.Now();
  TokenResult result = endpoint_.Refresh(provider_, Secret::Copy(head_.refresh_token()));
  if (const auto* error = std::get_if<ProviderError>(&result)) {
    return Fail(*error);
  }
  const auto& answer = std::get<TokenAnswer>(result);
  answer_ = Renewed(head_, answer, asked_at);
  answer_labels_ = lease_.metadata().labels();
  answer_lacks_access_ = answer.access_token.empty();
  store_attempts_ = refusals_ = 0;
  return Then(Phase::kCommit);
}

absl::Duration RefreshFlight::Backoff(const ProviderError& error) const {
  switch (error.failure) {
    case ProviderFailure::kRateLimited:
      return std::clamp(error.retry_after, absl::Seconds(1), kMaxRetryAfter);
    case ProviderFailure::kClientRejected:
      return kClientRejectedBackoff;
    default:
      // Full jitter, but never nothing: 200 callers come at once. No sooner than the provider, or what stands before
      // it, said.
      return std::max(std::min(error.retry_after, kMaxRetryAfter),
                      absl::Milliseconds(200) +
                          Doubling(absl::Seconds(1), options_.former_failures, absl::Seconds(60)) * options_.random());
  }
}

RefreshFlight::Next RefreshFlight::Fail(const ProviderError& error) {
  const absl::Time now = clock_.Now();
  report_.failure = error.code;
  if (error.failure == ProviderFailure::kInvalidGrant) {
    refused_tokens_.insert(head_.refresh_token());
    return Then(Phase::kRecheck);
  }
  if (error.failure == ProviderFailure::kInteractionRequired) {
    return MarkNeedsUser("NEEDS_INTERACTION", error.code);
  }
  if (error.failure == ProviderFailure::kAmbiguous) {
    // It may be on its way still. The lease runs out on its own; whoever comes next tries the same token once more.
    return Finish(HeadOrUnavailable("the provider did not answer", options_.lease - (clock_.Elapsed() - leased_), now));
  }
  const absl::Duration backoff = Backoff(error);
  pending_ = HeadOrUnavailable("the provider could not renew this connection", backoff, now);
  status_.Clear();
  status_.set_reason(took_over_ ? kHolderVanished : error.code);
  *status_.mutable_backoff_until() = ToTimestamp(now + backoff);
  if (lease_.metadata().has_next_at()) {
    // Idle work that failed comes again, no sooner than backoff and no more than hourly.
    const absl::Time next = FromTimestamp(lease_.metadata().next_at());
    *status_.mutable_next_at() = ToTimestamp(std::max(next, now + std::max(backoff, absl::Hours(1))));
  }
  return Then(Phase::kMark);
}

RefreshFlight::Next RefreshFlight::MarkNeedsUser(const std::string& state, const std::string& reason) {
  status_.Clear();
  status_.set_state(state);
  status_.set_reason(reason);
  report_.failure = reason;
  auto view = std::make_shared<ConnectionView>();
  view->state = ConnectionView::State::kNeedsUser;
  view->generation = lease_.generation();
  view->version = lease_.head();
  pending_ = SharedConnection(std::move(view));
  return Then(Phase::kMark);
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

RefreshFlight::Next RefreshFlight::Release() {
  // One that could not be given back lapses by itself.
  GiveBack().IgnoreError();
  return Finish(std::move(pending_));
}

RefreshFlight::Next RefreshFlight::Recheck() {
  if (!GiveBack().ok()) {
    return Finish(Unavailable("the outcome of a refresh could not be checked", absl::Seconds(1)));
  }
  return Then(Phase::kAcquire);
}

RefreshFlight::Next RefreshFlight::Commit() {
  absl::StatusOr<vault::v1::PutResponse> stored =
      Store(answer_, wish_.reason == RefreshWish::Reason::kForced, clock_.Now());
  if (stored.ok() && stored->side()) {
    // Kept beside the head: another holder was at work. Adopt it, or see what that one got.
    resubmit_ = false;
    wait_since_.reset();
    return Then(Phase::kAcquire);
  }
  if (stored.ok() && answer_lacks_access_) {
    resubmit_ = took_over_ = false;
    return Then(Phase::kAcquire);
  }
  if (stored.ok()) {
    report_.renewed = true;
    return Finish(ViewOfStored(answer_, *stored));
  }
  // By reason: ABORTED alone may be a busy store.
  const std::string reason = ReasonOf(stored.status());
  former_link_ = reason == "wrong_generation";
  if (former_link_ || reason == "lease_unknown" || absl::IsNotFound(stored.status()) ||
      absl::IsFailedPrecondition(stored.status())) {
    return Then(Phase::kReread);
  }
  if (absl::IsInvalidArgument(stored.status())) {
    return Finish(Unavailable("the provider's answer cannot be stored", absl::Seconds(60)));
  }
  // The token exists nowhere but here: as long as the process lives it is tried again.
  return Then(Phase::kCommit, Doubling(absl::Milliseconds(50), store_attempts_++, kMaxStoreWait));
}

RefreshFlight::Next RefreshFlight::Reread() {
  resubmit_ = false;
  vault::v1::GetRequest request;
  *request.mutable_record() = ConnectionRecord(key_.subject, key_.connection);
  absl::StatusOr<vault::v1::GetResponse> record = vault_.Get(request, passport_);
  pending_ = SharedConnection(std::make_shared<ConnectionView>());
  if (absl::IsNotFound(record.status())) {
    return EndStray("");
  }
  if (!record.ok()) {
    const bool away = absl::IsUnavailable(record.status()) || absl::IsDeadlineExceeded(record.status());
    if (former_link_ && !away && ++refusals_ >= kMaxRefusals) {
      // What is linked now is not known, and may be what would be revoked.
      report_.failure = "stray_not_revoked";
      return Finish(Unavailable("the connection was linked anew", absl::Seconds(1)));
    }
    return Then(Phase::kReread, Doubling(absl::Milliseconds(50), store_attempts_++, kMaxStoreWait));
  }
  if (absl::StatusOr<std::shared_ptr<ConnectionView>> view = ViewOf(*record); view.ok()) {
    pending_ = SharedConnection(*std::move(view));
  }
  if (record->metadata().generation() != lease_.generation()) {
    return EndStray((*pending_)->state == ConnectionView::State::kLinked ? record->payload() : "");
  }
  // Stored by a call whose answer was lost, unless the head is still what we started from.
  v1::TokenSet current;
  resubmit_ = current.ParseFromString(record->payload()) && current.refresh_token() == head_.refresh_token() &&
              current.access_token() == head_.access_token();
  return resubmit_ ? Then(Phase::kAcquire) : Finish(std::move(pending_));
}

RefreshFlight::Next RefreshFlight::EndStray(const std::string& payload) {
  v1::TokenSet current;
  const bool shared =
      !payload.empty() && current.ParseFromString(payload) && current.refresh_token() == answer_.refresh_token();
  return shared ? LeaveStray() : Then(Phase::kRevokeStray);
}

RefreshFlight::Next RefreshFlight::LeaveStray() {
  // Found out under the new link's lease.
  const bool leased = resubmit_;
  resubmit_ = false;
  return leased ? Then(Phase::kRelease) : Finish(std::move(pending_));
}

RefreshFlight::Next RefreshFlight::RevokeStray() {
  const bool refreshes = !answer_.refresh_token().empty();
  if (MayRevokeAt(answer_labels_, provider_)) {
    const RevocationResult result =
        endpoint_.Revoke(provider_, Secret::Copy(refreshes ? answer_.refresh_token() : answer_.access_token()),
                         refreshes ? "refresh_token" : "access_token");
    report_.stray_revoked = result == RevocationResult::kRevoked;
  }
  return LeaveStray();
}

std::string RefreshFlight::held_refresh_token() const {
  const bool holds = phase_ == Phase::kCommit || phase_ == Phase::kReread || phase_ == Phase::kRevokeStray || resubmit_;
  return holds ? answer_.refresh_token() : "";
}

std::string RefreshFlight::Fingerprint() const {
  return absl::StrCat(static_cast<int>(phase_), "/", lease_.id(), "/", lease_.generation(), "/", lease_.head(), "/",
                      head_.refresh_token(), "/", side_.refresh_token(), "/", answer_.refresh_token(), "/", resubmit_,
                      "/", took_over_, answer_lacks_access_, former_link_, refusals_, "/", status_.state(), "/",
                      absl::StrJoin(refused_tokens_, ","));
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
// What a holder makes of the head and the late answers beside it.
#include <utility>

#include "absl/strings/numbers.h"

#include "common/proto_time.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/provider_trouble.h"
#include "services/token_broker/refresh_flight.h"
#include "services/token_broker/refresh_flight_parts.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kForcedInterval = absl::Seconds(30);
// A version that is refused later than this has served in between.
constexpr absl::Duration kForcedRow = absl::Minutes(10);

}  // namespace

std::optional<absl::Time> RefreshFlight::ForcedAt() const {
  // The label is the head's own: a version that came about otherwise has none.
  const auto forced = lease_.metadata().labels().find("forced_at");
  absl::Time at;
  const int64_t version = head_.access_version() != 0 ? head_.access_version() : lease_.head();
  const bool is_head = wish_.refused_generation == lease_.generation() && wish_.refused_version == version;
  if (!is_head || forced == lease_.metadata().labels().end() ||
      !absl::ParseTime(absl::RFC3339_full, forced->second, &at, nullptr)) {
    return std::nullopt;
  }
  return at;
}

int RefreshFlight::ForcedInARow(absl::Time now) const {
  const std::optional<absl::Time> at = ForcedAt();
  if (!at.has_value() || now - *at > kForcedRow) {
    return 0;
  }
  const auto label = lease_.metadata().labels().find("forced_in_a_row");
  int count = 0;
  return label != lease_.metadata().labels().end() && absl::SimpleAtoi(label->second, &count) && count > 1 ? count : 1;
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
  if (resubmit_ && passport_.empty() && !IsHead(lease_.payload())) {
    // Stored, by a call whose answer was lost, or by somebody else.
    resubmit_ = false;
    return ReleaseWith(ViewOf(lease_.metadata(), lease_.head(), lease_.payload()));
  }
  if (resubmit_) {
    return Then(Phase::kCommit);
  }
  if (StateOf(lease_.metadata()) == ConnectionView::State::kAbsent) {
    return ReleaseWith(std::make_shared<ConnectionView>());
  }
  if (!head_.ParseFromString(lease_.payload())) {
    return ReleaseWith(error::DamagedConnection());
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
    return MarkNeedsUser("NEEDS_REAUTH", took_over_ ? "rotation_response_lost" : refusal_);
  }
  if (IsSatisfied(**view, lease_.metadata(), now) || !(*view)->can_refresh) {
    return ReleaseWith(std::move(view));
  }
  if (answer_lacks_access_ && head_.refresh_token() == answer_.refresh_token()) {
    return Fail({.failure = ProviderFailure::kNoAccessToken, .code = "no_access_token"});
  }
  if (!MayRefreshAt(ProvenanceOf(head_, lease_.metadata().labels()), provider_)) {
    return MarkNeedsUser("NEEDS_REAUTH", "provider_moved");
  }
  if (const std::optional<absl::Time> forced_at = ForcedAt();
      wish_.reason == RefreshWish::Reason::kForced && forced_at.has_value() && now - *forced_at < kForcedInterval) {
    (*view)->refused_again = true;
    (*view)->forced_in_a_row = ForcedInARow(now);
    (*view)->forced_next = *forced_at + kForcedInterval;
    return ReleaseWith(std::move(view));
  }
  if ((*view)->backoff_until > now) {
    return ReleaseWith(HeadOrUnavailable((*view)->trouble, (*view)->backoff_until - now, now));
  }
  return Then(Phase::kSend);
}

absl::StatusOr<SharedConnection> RefreshFlight::HeadOrUnavailable(absl::string_view code, absl::Duration retry_after,
                                                                  absl::Time now) const {
  absl::StatusOr<std::shared_ptr<ConnectionView>> view = ViewOf(lease_.metadata(), lease_.head(), lease_.payload());
  // Who works in the background has no use for the head, and must know that the provider is away.
  const bool other_wanted = wish_.reason != RefreshWish::Reason::kStale;
  if (view.ok() && !other_wanted && IsUsable((*view)->times, now)) {
    return SharedConnection(*std::move(view));
  }
  return ProviderUnavailable(code, retry_after);
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
  if (stored->has_owed()) {
    return EndOwed();
  }
  report_.adopted = true;
  SharedConnection view = ViewOfStored(side_, *stored);
  vault::v1::RecordMetadata metadata;
  if (IsSatisfied(*view, metadata, now)) {
    return Finish(std::move(view));
  }
  return Then(Phase::kAcquire);
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
// Asking the provider, and what its refusals mean.
#include <algorithm>
#include <utility>
#include <variant>

#include "common/proto_time.h"
#include "services/token_broker/provider_trouble.h"
#include "services/token_broker/refresh_flight.h"
#include "services/token_broker/refresh_flight_parts.h"

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kClientRejectedBackoff = absl::Seconds(60);
constexpr absl::Duration kMaxRetryAfter = absl::Minutes(15);

}  // namespace

RefreshFlight::Next RefreshFlight::Send() {
  // The provider does not know our leases: the only guard against a second holder sending the same token is to send
  // early enough.
  const absl::Duration latest = options_.lease - options_.provider_deadline - options_.commit_budget;
  if (clock_.Elapsed() - leased_ > latest) {
    return ReleaseWith(HeadOrUnavailable(kRenewalUnderWay, absl::Seconds(1), clock_.Now()));
  }
  report_.asked_provider = true;
  // Lifetimes count from the answer, which was made at this moment at the earliest.
  const absl::Time asked_at = clock_.Now();
  TokenResult result = AskProvider();
  if (wish_.reason == RefreshWish::Reason::kFurther) {
    return EndFurther(std::move(result));
  }
  if (const auto* error = std::get_if<ProviderError>(&result)) {
    return Fail(*error);
  }
  const auto& answer = std::get<TokenAnswer>(result);
  answer_ = Renewed(head_, answer, asked_at);
  if (!answer_.has_provenance()) {
    *answer_.mutable_provenance() = ProvenanceOf(lease_.metadata().labels());
  }
  answer_lacks_access_ = answer.access_token.empty();
  store_attempts_ = refusals_ = revocations_ = 0;
  return Then(Phase::kCommit);
}

TokenResult RefreshFlight::AskProvider() {
  const Secret refresh_token = Secret::Copy(head_.refresh_token());
  if (wish_.reason != RefreshWish::Reason::kFurther) {
    return endpoint_.Refresh(provider_, refresh_token);
  }
  Provider asked = provider_;
  if (!wish_.further->scope.empty()) {
    asked.token_params["scope"] = wish_.further->scope;
  }
  if (!wish_.further->resource.empty()) {
    asked.token_params["resource"] = wish_.further->resource;
  }
  return endpoint_.Refresh(asked, refresh_token);
}

RefreshFlight::Next RefreshFlight::EndFurther(TokenResult result) {
  const auto* error = std::get_if<ProviderError>(&result);
  if (error != nullptr) {
    report_.failure = report_.provider_error = error->code;
    const bool ambiguous = error->failure == ProviderFailure::kAmbiguous;
    wish_.further->outcome = *error;
    absl::StatusOr<std::shared_ptr<ConnectionView>> head = ViewOf(lease_.metadata(), lease_.head(), lease_.payload());
    // As with any refresh: it may be on its way still, and the lease runs out on its own.
    return ambiguous ? Finish(std::move(head)) : ReleaseWith(std::move(head));
  }
  auto& answer = std::get<TokenAnswer>(result);
  const Secret rotated = std::move(answer.refresh_token);
  report_.further = !answer.access_token.empty();
  if (report_.further) {
    wish_.further->outcome = std::move(result);
  } else {
    wish_.further->outcome = ProviderError{.failure = ProviderFailure::kNoAccessToken, .code = "no_access_token"};
  }
  if (rotated.empty() || rotated.Expose() == head_.refresh_token()) {
    return ReleaseWith(ViewOf(lease_.metadata(), lease_.head(), lease_.payload()));
  }
  answer_ = Rotated(head_, lease_.head(), rotated, clock_.Now());
  if (!answer_.has_provenance()) {
    *answer_.mutable_provenance() = ProvenanceOf(lease_.metadata().labels());
  }
  store_attempts_ = refusals_ = revocations_ = 0;
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

bool RefreshFlight::EndsGrant(const ProviderError& error) {
  switch (error.failure) {
    case ProviderFailure::kInvalidGrant:
      return true;
    case ProviderFailure::kGrantDoubted:
      return error.blames_refresh_token ||
             (options_.doubts != nullptr && options_.doubts->Refused(key_, lease_.generation()));
    case ProviderFailure::kNoAccessToken:
      return options_.doubts != nullptr && options_.doubts->AnsweredEmpty(key_, lease_.generation());
    default:
      return false;
  }
}

RefreshFlight::Next RefreshFlight::Fail(const ProviderError& error) {
  const absl::Time now = clock_.Now();
  report_.failure = report_.provider_error = error.code;
  if (EndsGrant(error)) {
    refused_tokens_.insert(head_.refresh_token());
    refusal_ = error.failure == ProviderFailure::kNoAccessToken ? "no_access_token" : "revoked";
    return Then(Phase::kRecheck);
  }
  if (error.failure == ProviderFailure::kInteractionRequired) {
    return MarkNeedsUser("NEEDS_INTERACTION", error.code);
  }
  if (error.failure == ProviderFailure::kAmbiguous) {
    // It may be on its way still. The lease runs out on its own; whoever comes next tries the same token once more.
    return Finish(HeadOrUnavailable(error.code, options_.lease - (clock_.Elapsed() - leased_), now));
  }
  const absl::Duration backoff = Backoff(error);
  pending_ = HeadOrUnavailable(error.code, backoff, now);
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

}  // namespace sallyport::token_broker

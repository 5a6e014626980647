// SPDX-License-Identifier: Apache-2.0
// Bringing the provider's answer to a safe place.
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/proto_time.h"
#include "services/token_broker/refresh_flight.h"
#include "services/token_broker/refresh_flight_parts.h"

namespace sallyport::token_broker {
namespace {

// How often a passport that counts is waited for, half a minute in all, before a token of a former link is left to the
// vault.
constexpr int kMaxRefusals = 12;
// How often a provider is asked to revoke it, over about a minute.
constexpr int kMaxRevocations = 6;

}  // namespace

vault::v1::PutRequest RefreshFlight::RequestToStore(const v1::TokenSet& tokens, bool forced, absl::Time now) const {
  vault::v1::PutRequest request;
  *request.mutable_record() = ConnectionRecord(key_.subject, key_.connection);
  request.set_lease(lease_.id());
  request.set_payload(tokens.SerializeAsString());
  for (const auto& [name, value] : lease_.metadata().labels()) {
    (*request.mutable_labels())[name] = value;
  }
  request.mutable_labels()->erase("expires_at");
  if (tokens.access_version() == 0) {  // Else they are about the access token that is still there.
    request.mutable_labels()->erase("forced_at");
    request.mutable_labels()->erase("forced_in_a_row");
  }
  for (const auto& [name, value] : LabelsOf(tokens, key_.connection)) {
    (*request.mutable_labels())[name] = value;
  }
  if (forced) {
    (*request.mutable_labels())["forced_at"] = absl::FormatTime(absl::RFC3339_full, now, absl::UTCTimeZone());
    (*request.mutable_labels())["forced_in_a_row"] = absl::StrCat(ForcedInARow(now) + 1);
  }
  if (!tokens.refresh_token().empty()) {
    *request.mutable_next_at() = ToTimestamp(now + options_.idle_refresh);
  }
  return request;
}

absl::StatusOr<vault::v1::PutResponse> RefreshFlight::Store(const v1::TokenSet& tokens, bool forced, absl::Time now) {
  return vault_.Put(RequestToStore(tokens, forced, now), "");
}

SharedConnection RefreshFlight::ViewOfStored(const v1::TokenSet& tokens, const vault::v1::PutResponse& stored) const {
  vault::v1::RecordMetadata metadata;
  *metadata.mutable_labels() = lease_.metadata().labels();
  metadata.set_head(stored.version());
  metadata.set_generation(stored.generation() != 0 ? stored.generation() : lease_.generation());
  absl::StatusOr<std::shared_ptr<ConnectionView>> view = ViewOf(metadata, stored.version(), tokens.SerializeAsString());
  return view.ok() ? *std::move(view) : std::make_shared<ConnectionView>();
}

RefreshFlight::Next RefreshFlight::Commit() {
  absl::StatusOr<vault::v1::PutResponse> stored =
      Store(answer_, wish_.reason == RefreshWish::Reason::kForced, clock_.Now());
  if (stored.ok() && stored->has_owed()) {
    return EndOwed();
  }
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
  if (passport_.empty() && !former_link_) {
    // Nobody's passport is here to read with: another lease shows what there is.
    resubmit_ = true;
    return Then(Phase::kAcquire, Doubling(absl::Milliseconds(50), store_attempts_++, kMaxStoreWait));
  }
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
      // What is linked now is not known. With a provider that does not rotate it may work with the refresh token that
      // this flight began with; one that came with the answer is this grant's alone.
      return answer_.refresh_token() == head_.refresh_token() ? GiveUpStray() : Then(Phase::kOweStray);
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
  resubmit_ = IsHead(record->payload());
  return resubmit_ ? Then(Phase::kAcquire) : Finish(std::move(pending_));
}

bool RefreshFlight::IsHead(const std::string& payload) const {
  v1::TokenSet current;
  return current.ParseFromString(payload) && current.refresh_token() == head_.refresh_token() &&
         current.access_token() == head_.access_token();
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

RefreshFlight::Next RefreshFlight::EndOwed() {
  // The connection has ended, and the lease with it: the vault has made a revocation of what was to be stored.
  report_.stray_owed = true;
  resubmit_ = answer_lacks_access_ = false;
  return Finish(SharedConnection(std::make_shared<ConnectionView>()));
}

RefreshFlight::Next RefreshFlight::RevokeStray() {
  const bool refreshes = !answer_.refresh_token().empty();
  if (MayRevokeAt(answer_.provenance(), provider_)) {
    const RevocationResult result =
        endpoint_.Revoke(provider_, Secret::Copy(refreshes ? answer_.refresh_token() : answer_.access_token()),
                         refreshes ? "refresh_token" : "access_token");
    report_.stray_revoked = result == RevocationResult::kRevoked;
    if (result == RevocationResult::kRetry && ++revocations_ < kMaxRevocations) {
      return Then(Phase::kRevokeStray, Doubling(absl::Seconds(1), revocations_, absl::Seconds(15)));
    }
  }
  return LeaveStray();
}

RefreshFlight::Next RefreshFlight::OweStray() {
  vault::v1::PutRequest request = RequestToStore(answer_, /*forced=*/false, clock_.Now());
  request.set_owe_if_linked_again(true);
  const absl::StatusOr<vault::v1::PutResponse> owed = vault_.Put(request, "");
  const bool refused = absl::IsNotFound(owed.status()) || absl::IsInvalidArgument(owed.status()) ||
                       absl::IsPermissionDenied(owed.status()) || ReasonOf(owed.status()) == "lease_unknown";
  if (refused) {
    return GiveUpStray();
  }
  if (!owed.ok()) {
    return Then(Phase::kOweStray, Doubling(absl::Milliseconds(50), store_attempts_++, kMaxStoreWait));
  }
  report_.stray_owed = true;
  return Finish(Unavailable("the connection was linked again", absl::Seconds(1)));
}

RefreshFlight::Next RefreshFlight::GiveUpStray() {
  report_.failure = "stray_not_revoked";
  return Finish(Unavailable("the connection was linked again", absl::Seconds(1)));
}

bool RefreshFlight::holds_answer() const {
  return phase_ == Phase::kCommit || phase_ == Phase::kReread || phase_ == Phase::kRevokeStray ||
         phase_ == Phase::kOweStray || resubmit_;
}

std::string RefreshFlight::held_refresh_token() const { return holds_answer() ? answer_.refresh_token() : ""; }

}  // namespace sallyport::token_broker

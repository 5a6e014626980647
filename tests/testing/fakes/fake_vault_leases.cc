// SPDX-License-Identifier: Apache-2.0
// The leases of FakeVault.
#include <algorithm>

#include "common/proto_time.h"
#include "tests/testing/fakes/fake_vault.h"
#include "tests/testing/fakes/fake_vault_rules.h"

namespace sallyport::testing {

using vault::v1::RecordName;
using namespace vault_rules;  // NOLINT(google-build-using-namespace): they are this file's, shared with its parts.

absl::StatusOr<vault::v1::AcquireLeaseResponse> FakeVault::AcquireLease(const Caller& caller,
                                                                        const vault::v1::AcquireLeaseRequest& request) {
  MutexLock lock(mu_);
  RETURN_IF_ERROR(Admit(caller, "AcquireLease"));
  const RecordName& name = request.record();
  RETURN_IF_ERROR(CheckName(name));
  const absl::Duration ttl = request.has_ttl()
                                 ? absl::Seconds(request.ttl().seconds()) + absl::Nanoseconds(request.ttl().nanos())
                                 : kDefaultTtl;
  if (ttl < absl::Seconds(1) || ttl > absl::Seconds(60)) return InvalidField("ttl", "must be 1 s to 60 s");
  RETURN_IF_ERROR(request.maintenance() ? CheckKind(caller, Operation::kLease, name)
                                        : CheckAccess(caller, Operation::kLease, name));
  Row* row = FindLive(name);
  if (row == nullptr) return NotFound();
  const absl::Time now = clock_.Now();
  if (request.maintenance() && (row->next_at == absl::InfinitePast() || row->next_at > now)) {
    return Denied("the record is not due", "not_due");
  }
  vault::v1::AcquireLeaseResponse response;
  if (row->claim_until > now) {
    *response.mutable_held()->mutable_retry_after() = ToProtoDuration(std::min(row->claim_until - now, kAskAgain));
    *response.mutable_held()->mutable_metadata() = Metadata(*row);
    return response;
  }
  std::erase_if(leases_, [&](const auto& entry) {
    const Lease& lease = entry.second;
    const absl::Duration kept = lease.state == LeaseState::kOpen ? kOpenLeaseKept : kEndedLeaseKept;
    return lease.record == KeyOf(name) && lease.acquired_at < now - kept;
  });
  if (row->damaged) {
    if (request.maintenance()) {
      row->next_at = now + kDamagedPutOff;
      row->listed_until = absl::InfinitePast();
      row->reason = "damaged";
    }
    return TagMismatch();
  }
  if (!request.maintenance()) NoteUse(caller, *row);
  auto& out = *response.mutable_lease();
  out.set_took_over(row->claim_until != absl::InfinitePast());
  out.set_id(absl::StrCat("lease-", name.owner_id(), "-", name.name(), "-", ++row->epoch));
  Lease& lease = leases_[out.id()] = {KeyOf(name), caller.service};
  lease.generation = row->generation;
  lease.epoch = row->epoch;
  lease.version = ++row->last_version;
  lease.acquired_at = now;
  row->claim_until = now + ttl;
  for (auto side = row->sides.rbegin(); side != row->sides.rend(); ++side) {
    side->shown_epoch = row->epoch;
    auto* shown = out.add_side();
    shown->set_version(side->version);
    shown->set_payload(side->payload);
    shown->mutable_labels()->insert(side->labels.begin(), side->labels.end());
  }
  out.set_epoch(row->epoch);
  out.set_generation(row->generation);
  out.set_head(row->head);
  out.set_payload(row->versions[row->head].payload);
  *out.mutable_metadata() = Metadata(*row);
  *out.mutable_remaining() = ToProtoDuration(ttl);
  return response;
}

absl::StatusOr<std::pair<FakeVault::Row*, FakeVault::Lease*>> FakeVault::FindHeld(const Caller& caller,
                                                                                  const RecordName& name,
                                                                                  const std::string& lease) {
  const auto found = leases_.find(lease);
  const auto row = rows_.find(KeyOf(name));
  if (found == leases_.end() || row == rows_.end() || found->second.record != row->first) return LeaseUnknown();
  if (found->second.caller != caller.service) return Denied("the lease is another service's", "lease_not_yours");
  return std::make_pair(&row->second, &found->second);
}

absl::Status FakeVault::CheckCurrent(const Row& row, const Lease& lease) {
  if (lease.generation != row.generation) return Aborted("the record has a new generation", "wrong_generation");
  const bool current = lease.epoch == row.epoch && lease.state != LeaseState::kAnswered;
  return current ? absl::OkStatus() : Aborted("the lease is no longer the current one", "lease_lost");
}

absl::StatusOr<vault::v1::PutResponse> FakeVault::PutLeased(const Caller& caller,
                                                            const vault::v1::PutRequest& request) {
  ASSIGN_OR_RETURN(const auto held, FindHeld(caller, request.record(), request.lease()));
  Row& row = *held.first;
  Lease& lease = *held.second;
  if (lease.generation != row.generation) {
    if (row.name.kind() != "connection" || (row.head != 0 && !request.owe_if_linked_again())) {
      return Aborted("the record has a new generation", "wrong_generation");
    }
    return OweLate(row, lease, request);
  }
  vault::v1::PutResponse response;
  response.set_generation(row.generation);
  const bool answered = lease.state == LeaseState::kAnswered;
  const bool stored = row.versions.contains(lease.answer_version) ||
                      std::any_of(row.sides.begin(), row.sides.end(),
                                  [&](const Side& side) { return side.version == lease.answer_version; });
  if (answered && (!stored || lease.answer == request.payload())) {
    response.set_version(lease.answer_version);
    response.set_side(lease.answer_side);
    return response;
  }
  const bool current = !answered && row.epoch == lease.epoch;
  const bool heals = !answered && !current && NeedsUser(row.state);
  const bool as_head = current || heals;
  const bool reserved = !answered && (!as_head || lease.version > row.head);
  const int64_t version = reserved ? lease.version : ++row.last_version;
  if (as_head) {
    if (current) {
      row.claim_until = absl::InfinitePast();
      std::erase_if(row.sides, [&](const Side& side) { return side.shown_epoch == lease.epoch; });
    }
    WriteHead(row, version, ValueOf(request));
  } else {
    row.sides.push_back({version, request.payload(), {request.labels().begin(), request.labels().end()}});
    std::sort(row.sides.begin(), row.sides.end(), [](const Side& a, const Side& b) { return a.version < b.version; });
    if (row.sides.size() > kSidesKept) row.sides.erase(row.sides.begin());
    ++writes_;
  }
  lease.state = LeaseState::kAnswered;
  lease.answer_version = version;
  lease.answer_side = !as_head;
  lease.answer = request.payload();
  response.set_version(version);
  response.set_side(!as_head);
  return response;
}

absl::StatusOr<vault::v1::ReleaseResponse> FakeVault::Release(const Caller& caller,
                                                              const vault::v1::ReleaseRequest& request) {
  MutexLock lock(mu_);
  RETURN_IF_ERROR(Admit(caller, "Release"));
  RETURN_IF_ERROR(CheckName(request.record()));
  RETURN_IF_ERROR(CheckKind(caller, Operation::kLease, request.record()));
  const auto held = FindHeld(caller, request.record(), request.lease());
  if (absl::IsAborted(held.status())) return vault::v1::ReleaseResponse();  // Over so long ago that it is forgotten.
  RETURN_IF_ERROR(held.status());
  auto& [row, lease] = *held;
  if (lease->state == LeaseState::kOpen) {
    lease->state = LeaseState::kEnded;
    if (lease->generation == row->generation && lease->epoch == row->epoch) row->claim_until = absl::InfinitePast();
  }
  return vault::v1::ReleaseResponse();
}

absl::StatusOr<vault::v1::PutStatusResponse> FakeVault::PutStatus(const Caller& caller,
                                                                  const vault::v1::PutStatusRequest& request) {
  MutexLock lock(mu_);
  RETURN_IF_ERROR(Admit(caller, "PutStatus"));
  RETURN_IF_ERROR(CheckName(request.record()));
  RETURN_IF_ERROR(CheckState(request.state()));
  RETURN_IF_ERROR(CheckKind(caller, Operation::kLease, request.record()));
  ASSIGN_OR_RETURN(const auto held, FindHeld(caller, request.record(), request.lease()));
  Row& row = *held.first;
  RETURN_IF_ERROR(CheckCurrent(row, *held.second));
  if (NeedsUser(request.state()) && std::any_of(row.sides.begin(), row.sides.end(),
                                                [&](const Side& side) { return side.shown_epoch != row.epoch; })) {
    return Aborted("a late result exists that was not seen", "side_exists");
  }
  if (!request.state().empty()) row.state = request.state();
  row.reason = request.reason();
  row.backoff_until = request.has_backoff_until() ? FromTimestamp(request.backoff_until()) : absl::InfinitePast();
  row.next_at = request.has_next_at() ? FromTimestamp(request.next_at()) : absl::InfinitePast();
  row.claim_until = row.listed_until = absl::InfinitePast();
  row.updated_at = clock_.Now();
  held.second->state = LeaseState::kEnded;
  return vault::v1::PutStatusResponse();
}

}  // namespace sallyport::testing

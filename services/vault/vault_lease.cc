// SPDX-License-Identifier: Apache-2.0
// The lease part of Vault: AcquireLease, the leased Put, Release, PutStatus.
#include <algorithm>
#include <optional>
#include <utility>

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "common/text/hex.h"
#include "services/vault/envelope.h"
#include "services/vault/errors.h"
#include "services/vault/vault.h"
#include "services/vault/vault_notes.h"

namespace sallyport::vault {
namespace {

constexpr absl::Duration kDefaultTtl = absl::Seconds(30);
constexpr absl::Duration kMinTtl = absl::Seconds(1);
constexpr absl::Duration kMaxTtl = absl::Seconds(60);
// Most holders are done long before their lease lapses.
constexpr absl::Duration kAskAgain = absl::Milliseconds(200);
// What a new token may be longer than the old one.
constexpr size_t kReservedSlack = 1024;
// An answered lease stays as long as the answer may be repeated, an open one as long as a process may hold on to a late
// result.
constexpr absl::Duration kEndedLeaseKept = absl::Hours(1);
constexpr absl::Duration kOpenLeaseKept = absl::Hours(24 * 30);
constexpr size_t kMaxReasonBytes = 256;

// A lease is given only while its event can be recorded. What then ends it is recorded beyond the limit too: a token
// that the provider has already changed must not be lost to a full outbox.
constexpr AuditOutbox::Admit kEnding = AuditOutbox::Admit::kAlways;

// The user must do something, or so it seemed to whoever marked it: an answer that comes in all the same knows better.
bool NeedsUser(absl::string_view state) { return state == "NEEDS_REAUTH" || state == "NEEDS_INTERACTION"; }

std::string DigestOf(const std::string& lease) { return HexEncode(Sha256(lease)); }

absl::StatusOr<absl::Duration> TtlOf(const v1::AcquireLeaseRequest& request) {
  if (!request.has_ttl()) {
    return kDefaultTtl;
  }
  const absl::Duration ttl = absl::Seconds(request.ttl().seconds()) + absl::Nanoseconds(request.ttl().nanos());
  if (ttl < kMinTtl || ttl > kMaxTtl) {
    return InvalidField("ttl", "must be 1 s to 60 s");
  }
  return ttl;
}

constexpr CounterInfo kLeases = {
    .name = "sallyport_vault_leases_total",
    .help = "Answers to AcquireLease, and what became of the writes of lease holders",
    .unit = "leases",
    .labels = {{"outcome", "granted, took_over, held, answered, side, healed, owed"}},
    .rise =
        "took_over and side: holders die or stall between the provider's answer and the write. owed: the connection "
        "had ended, and what came is revoked",
    .action =
        "For took_over and side look for brokers that restart or are short of CPU, and at the latency of the "
        "vault's store",
};

void CountLease(const char* outcome) { MetricCounter(kLeases, {{"outcome", outcome}}).Increment(); }

}  // namespace

absl::StatusOr<v1::AcquireLeaseResponse> Vault::AcquireLease(const Caller& caller,
                                                             const v1::AcquireLeaseRequest& request) {
  ASSIGN_OR_RETURN(const RecordId id, ParseRecordName(request.record()));
  RETURN_IF_ERROR(TtlOf(request).status());
  // For maintenance it is the record's own time that authorises.
  RETURN_IF_ERROR(Recorded(
      request.maintenance() ? CheckKind(caller, Operation::kLease, id) : CheckAccess(caller, Operation::kLease, id),
      caller, Operation::kLease, id));
  v1::AcquireLeaseResponse response;
  const absl::Status granted = Settled(Write([&](Transaction& tx) {
                                         response.Clear();
                                         return Grant(tx, caller, id, request, response);
                                       }),
                                       caller, Operation::kLease, id);
  if (request.maintenance() && absl::IsDataLoss(granted)) {
    PutOffDamaged(caller, id);
  }
  RETURN_IF_ERROR(granted);
  CountLease(response.has_held() ? "held" : response.lease().took_over() ? "took_over" : "granted");
  return response;
}

absl::Status Vault::Grant(Transaction& tx, const Caller& caller, const RecordId& id,
                          const v1::AcquireLeaseRequest& request, v1::AcquireLeaseResponse& response) {
  ASSIGN_OR_RETURN(const absl::Duration ttl, TtlOf(request));
  ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
  ASSIGN_OR_RETURN(RecordRow row, Ledger::Find(tx, id));
  if (request.maintenance() && (row.next_at == absl::InfinitePast() || row.next_at > now)) {
    return error::Denied("the record is not due", "not_due");
  }
  if (row.claim_until > now) {
    *response.mutable_held()->mutable_retry_after() = ToProtoDuration(std::min(row.claim_until - now, kAskAgain));
    *response.mutable_held()->mutable_metadata() = ToMetadata(row);
    return absl::OkStatus();
  }
  auto& out = *response.mutable_lease();
  out.set_took_over(row.claim_until != absl::InfinitePast());
  ASSIGN_OR_RETURN(const OpenedRecord opened, ledger_.OpenHead(tx, row));
  const Secret& payload = opened.payload;
  RETURN_IF_ERROR(EraseOldLeases(tx, row.rid, now - kEndedLeaseKept, now - kOpenLeaseKept));

  out.set_id(RandomToken("lse_"));
  LeaseRow lease;
  lease.digest = DigestOf(out.id());
  lease.rid = row.rid;
  lease.caller = caller.service;
  lease.generation = row.generation;
  lease.epoch = ++row.epoch;
  lease.version = ++row.last_version;
  lease.acquired_at = now;
  row.claim_until = now + ttl;
  if (!request.maintenance() && IsUse(caller, id) && IsUseToNote(row, now)) {
    row.used_at = now;
  }
  RETURN_IF_ERROR(SaveLease(tx, lease));
  RETURN_IF_ERROR(SaveRecord(tx, row));

  VersionRow pending;
  pending.rid = row.rid;
  pending.version = lease.version;
  pending.generation = row.generation;
  pending.role = VersionRole::kPending;
  pending.sealed.assign(SealedSize(payload.Expose().size() + kReservedSlack), '\0');
  pending.created_at = now;
  RETURN_IF_ERROR(SaveVersion(tx, pending));

  RETURN_IF_ERROR(ShowSides(tx, row, out));
  out.set_epoch(row.epoch);
  out.set_generation(row.generation);
  out.set_head(row.head);
  out.set_payload(std::string(payload.Expose()));
  *out.mutable_metadata() = ToMetadata(row);
  *out.mutable_remaining() = ToProtoDuration(ttl);
  audit::v1::Event event = MakeEvent("secret.read", audit::v1::DECISION_ALLOWED,
                                     request.maintenance() ? "lease.maintenance" : "lease", caller);
  SetRecord(id, row.head, row.generation, event);
  return trail_.Append(tx, std::move(event));
}

absl::Status Vault::ShowSides(Transaction& tx, const RecordRow& row, v1::AcquireLeaseResponse::Lease& out) {
  ASSIGN_OR_RETURN(const std::vector<VersionRow> versions, ListVersions(tx, row.rid));
  for (const VersionRow& listed : versions) {
    const bool abandoned = listed.role == VersionRole::kPending && listed.version < row.last_version;
    if (abandoned) {
      // Its number stays with the lease, should the answer still come.
      RETURN_IF_ERROR(EraseVersion(tx, row.rid, listed.version));
    }
    if (listed.role != VersionRole::kSide || listed.generation != row.generation) {
      continue;
    }
    ASSIGN_OR_RETURN(auto side, FindVersion(tx, row.rid, listed.version));
    const absl::StatusOr<OpenedRecord> opened = ledger_.Open(tx, row, *side);
    if (!opened.ok()) {
      Log(LogLevel::kError, "side_version_damaged", {{"rid", row.rid}, {"version", listed.version}});
      continue;
    }
    side->shown_epoch = row.epoch;
    RETURN_IF_ERROR(SaveVersion(tx, *side));
    auto* shown = out.add_side();
    shown->set_version(side->version);
    shown->set_payload(std::string(opened->payload.Expose()));
    shown->mutable_labels()->insert(side->labels.begin(), side->labels.end());
  }
  return absl::OkStatus();
}

absl::StatusOr<Vault::Held> Vault::FindHeld(Transaction& tx, const Caller& caller, const RecordId& id,
                                            const std::string& lease) {
  ASSIGN_OR_RETURN(const auto found, FindLease(tx, DigestOf(lease)));
  ASSIGN_OR_RETURN(const auto row, FindRecord(tx, id));
  if (!found.has_value() || !row.has_value() || found->rid != row->rid) {
    return error::LeaseUnknown();
  }
  if (found->caller != caller.service) {
    return error::Denied("the lease is another service's", "lease_not_yours");
  }
  return Held{*row, *found};
}

absl::Status Vault::CheckCurrent(const Held& held) {
  if (held.lease.generation != held.row.generation) {
    return error::WrongGeneration();
  }
  const bool current = held.lease.epoch == held.row.epoch && held.lease.state != LeaseState::kAnswered;
  return current ? absl::OkStatus() : error::LeaseLost();
}

absl::StatusOr<bool> Vault::IsRepeat(Transaction& tx, const RecordRow& row, const LeaseRow& lease,
                                     const v1::PutRequest& request) {
  if (lease.state != LeaseState::kAnswered) {
    return false;
  }
  ASSIGN_OR_RETURN(const auto version, FindVersion(tx, row.rid, lease.answer_version));
  if (!version.has_value()) {
    return true;  // Stored, and replaced since.
  }
  const absl::StatusOr<OpenedRecord> stored = ledger_.Open(tx, row, *version);
  return stored.ok() && stored->payload == Secret::Copy(request.payload());
}

absl::Status Vault::PutLeased(Transaction& tx, const Caller& caller, const RecordId& id, const v1::PutRequest& request,
                              v1::PutResponse& response) {
  ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
  ASSIGN_OR_RETURN(Held held, FindHeld(tx, caller, id, request.lease()));
  RecordRow& row = held.row;
  LeaseRow& lease = held.lease;
  if (lease.generation != row.generation) {
    if (id.kind != "connection" || (row.head != 0 && !request.owe_if_linked_again())) {
      return error::WrongGeneration();
    }
    // Its owner has ended it or linked it again, and nobody else knows of this token.
    RETURN_IF_ERROR(OweLate(tx, caller, held, request, response));
    CountLease("owed");
    return absl::OkStatus();
  }
  response.set_generation(row.generation);
  ASSIGN_OR_RETURN(const bool repeat, IsRepeat(tx, row, lease, request));
  if (repeat) {
    response.set_version(lease.answer_version);
    response.set_side(lease.answer_side);
    return absl::OkStatus();
  }

  const bool answered = lease.state == LeaseState::kAnswered;
  const bool current = !answered && row.epoch == lease.epoch;
  const bool heals = !answered && !current && NeedsUser(row.state);
  const bool as_head = current || heals;
  // The reserved number, unless it is used or a newer head would seem older.
  const bool reserved = !answered && (!as_head || lease.version > row.head);
  const int64_t version = reserved ? lease.version : ++row.last_version;
  if (!answered && !reserved) {
    RETURN_IF_ERROR(EraseVersion(tx, row.rid, lease.version));
  }

  Ledger::Value value = {request.payload(),
                         {request.origins().begin(), request.origins().end()},
                         {request.labels().begin(), request.labels().end()}};
  value.next_at = request.has_next_at() ? FromTimestamp(request.next_at()) : absl::InfinitePast();
  value.state = request.state();
  if (as_head) {
    if (current) {
      row.claim_until = absl::InfinitePast();
      // What this holder was shown it has adopted, or has gone past with a token that worked.
      ASSIGN_OR_RETURN(const std::vector<VersionRow> versions, ListVersions(tx, row.rid));
      for (const VersionRow& other : versions) {
        if (other.role == VersionRole::kSide && other.shown_epoch == lease.epoch) {
          RETURN_IF_ERROR(EraseVersion(tx, row.rid, other.version));
        }
      }
    }
    RETURN_IF_ERROR(ledger_.WriteHead(tx, row, version, value, now));
  } else {
    RETURN_IF_ERROR(ledger_.WriteSide(tx, row, version, value, now));
    RETURN_IF_ERROR(SaveRecord(tx, row));
  }
  lease.state = LeaseState::kAnswered;
  lease.answer_version = version;
  lease.answer_side = !as_head;
  RETURN_IF_ERROR(SaveLease(tx, lease));
  response.set_version(version);
  response.set_side(!as_head);
  CountLease(current ? "answered" : heals ? "healed" : "side");
  return AppendWrite(tx, caller,
                     current ? "put.lease"
                     : heals ? "put.healed"
                             : "put.side",
                     id, version, row.generation, kEnding);
}

absl::StatusOr<v1::ReleaseResponse> Vault::Release(const Caller& caller, const v1::ReleaseRequest& request) {
  ASSIGN_OR_RETURN(const RecordId id, ParseRecordName(request.record()));
  RETURN_IF_ERROR(Recorded(CheckKind(caller, Operation::kLease, id), caller, Operation::kLease, id));
  RETURN_IF_ERROR(Write([&](Transaction& tx) -> absl::Status {
    absl::StatusOr<Held> held = FindHeld(tx, caller, id, request.lease());
    if (absl::IsAborted(held.status()) && ReasonOf(held.status()) == "lease_unknown") {
      return absl::OkStatus();  // Over so long ago that it is forgotten.
    }
    RETURN_IF_ERROR(held.status());
    if (held->lease.state != LeaseState::kOpen) {
      return absl::OkStatus();
    }
    held->lease.state = LeaseState::kEnded;
    RETURN_IF_ERROR(SaveLease(tx, held->lease));
    if (held->lease.generation != held->row.generation) {
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(EraseVersion(tx, held->row.rid, held->lease.version));
    if (held->lease.epoch == held->row.epoch) {
      held->row.claim_until = absl::InfinitePast();
      RETURN_IF_ERROR(SaveRecord(tx, held->row));
    }
    return AppendWrite(tx, caller, "release", id, 0, held->row.generation, kEnding);
  }));
  return v1::ReleaseResponse();
}

absl::StatusOr<v1::PutStatusResponse> Vault::PutStatus(const Caller& caller, const v1::PutStatusRequest& request) {
  ASSIGN_OR_RETURN(const RecordId id, ParseRecordName(request.record()));
  RETURN_IF_ERROR(CheckState(request.state()));
  if (request.reason().size() > kMaxReasonBytes) {
    return InvalidField("reason", "is over 256 bytes");
  }
  RETURN_IF_ERROR(Recorded(CheckKind(caller, Operation::kLease, id), caller, Operation::kLease, id));
  RETURN_IF_ERROR(Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
    ASSIGN_OR_RETURN(Held held, FindHeld(tx, caller, id, request.lease()));
    RecordRow& row = held.row;
    RETURN_IF_ERROR(CheckCurrent(held));
    if (NeedsUser(request.state())) {
      ASSIGN_OR_RETURN(const std::vector<VersionRow> versions, ListVersions(tx, row.rid));
      for (const VersionRow& version : versions) {
        if (version.role == VersionRole::kSide && version.shown_epoch != row.epoch) {
          return error::SideExists();
        }
      }
    }
    if (!request.state().empty()) {
      row.state = request.state();
    }
    row.reason = request.reason();
    row.backoff_until = request.has_backoff_until() ? FromTimestamp(request.backoff_until()) : absl::InfinitePast();
    row.next_at = request.has_next_at() ? FromTimestamp(request.next_at()) : absl::InfinitePast();
    row.claim_until = row.listed_until = absl::InfinitePast();
    row.updated_at = now;
    held.lease.state = LeaseState::kEnded;
    RETURN_IF_ERROR(SaveLease(tx, held.lease));
    RETURN_IF_ERROR(EraseVersion(tx, row.rid, held.lease.version));
    RETURN_IF_ERROR(SaveRecord(tx, row));
    return AppendWrite(tx, caller, "put_status", id, 0, row.generation, kEnding);
  }));
  return v1::PutStatusResponse();
}

}  // namespace sallyport::vault

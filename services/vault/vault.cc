// SPDX-License-Identifier: Apache-2.0
#include "services/vault/vault.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/vault/due.h"
#include "services/vault/ended_owners.h"
#include "services/vault/envelope.h"
#include "services/vault/errors.h"
#include "services/vault/origins.h"
#include "services/vault/vault_notes.h"

namespace sallyport::vault {
namespace {

using audit::v1::DECISION_ALLOWED;
using audit::v1::DECISION_DENIED;
using audit::v1::DECISION_FAILED;

// An abandoned link flow is of no use to anybody; what its sweeper left is dropped with the next one.
constexpr absl::Duration kFlowGrace = absl::Hours(1);
constexpr int kFlowsDropped = 20;

absl::Status CheckPut(const v1::PutRequest& request) {
  if (request.payload().size() > kMaxPayloadBytes) {
    return InvalidField("payload", "is over 64 KiB");
  }
  RETURN_IF_ERROR(CheckLabels(request.labels()));
  if (request.has_compare_version() && !request.only_if_changed()) {
    return InvalidField("compare_version", "needs only_if_changed");
  }
  if (!request.lease().empty() &&
      (request.has_expected_version() || request.keep_generation() || request.only_if_changed() || request.pin())) {
    return InvalidField("lease", "cannot be combined with expected_version, keep_generation, only_if_changed or pin");
  }
  if (request.owe_if_linked_again() && request.lease().empty()) {
    return InvalidField("owe_if_linked_again", "needs a lease");
  }
  RETURN_IF_ERROR(CheckOrigins(request.origins()));
  return CheckState(request.state());
}

bool IsPartial(const v1::DeleteRequest& request) { return request.has_through_version() || !request.labels().empty(); }

absl::Status CheckDelete(const v1::DeleteRequest& request) {
  if (IsPartial(request) && request.has_expected_version()) {
    return InvalidField("expected_version", "cannot be combined with through_version or labels");
  }
  if (IsPartial(request) && !request.lease().empty()) {
    return InvalidField("lease", "cannot be combined with through_version or labels");
  }
  return absl::OkStatus();
}

bool IsNamed(const v1::DeleteRequest& request, const VersionRow& version) {
  if (request.has_through_version() && version.version > request.through_version()) {
    return false;
  }
  return std::all_of(request.labels().begin(), request.labels().end(), [&](const auto& label) {
    const auto found = version.labels.find(label.first);
    return found != version.labels.end() && found->second == label.second;
  });
}

}  // namespace

Vault::Vault(Dependencies dependencies)
    : database_(dependencies.database),
      keyring_(dependencies.keyring),
      trail_(dependencies.trail),
      clock_(dependencies.clock),
      after_shred_(std::move(dependencies.after_shred)),
      ledger_(dependencies.keyring) {
  // Exposed before there is anything to count, so that an alert sees the first one as a rise.
  CountDamaged(0);
  CountOwed(0);
}

absl::Status Vault::Run(absl::Status (Database::*method)(const Work&), const Work& work) {
  RETURN_IF_ERROR(keyring_.EnsureActive(clock_.Now()));
  absl::Status result = (database_.*method)(work);
  if (!Keyring::IsUnknownTerm(result)) {
    return result;
  }
  RETURN_IF_ERROR(keyring_.Reload());  // Another replica has begun a term.
  return (database_.*method)(work);
}

absl::Status Vault::Write(const Work& work) {
  absl::Status result = Run(&Database::Write, work);
  if (result.ok()) {
    trail_.Kick();
  }
  return result;
}

absl::Status Vault::Recorded(absl::Status check, const Caller& caller, Operation operation, const RecordId& id) {
  if (!check.ok()) {
    audit::v1::Event event = MakeEvent("secret.denied", DECISION_DENIED, ReasonOf(check), caller);
    SetRecord(id, 0, 0, event);
    (*event.mutable_details())["operation"] = OperationName(operation);
    // The refusal stands whether or not it could be recorded.
    trail_.Record(std::move(event)).IgnoreError();
  }
  return check;
}

absl::Status Vault::Settled(absl::Status result, const Caller& caller, Operation operation, const RecordId& id) {
  if (absl::IsDataLoss(result)) {
    CountDamaged(1);
    audit::v1::Event event = MakeEvent("secret.damaged", DECISION_FAILED, ReasonOf(result), caller);
    SetRecord(id, 0, 0, event);
    (*event.mutable_details())["operation"] = OperationName(operation);
    trail_.Record(std::move(event)).IgnoreError();
  }
  return result;
}

absl::Status Vault::AppendWrite(Transaction& tx, const Caller& caller, absl::string_view rule, const RecordId& id,
                                int64_t version, int64_t generation, AuditOutbox::Admit admit) {
  audit::v1::Event event = MakeEvent("secret.write", DECISION_ALLOWED, rule, caller);
  SetRecord(id, version, generation, event);
  return trail_.Append(tx, std::move(event), admit);
}

absl::StatusOr<v1::PutResponse> Vault::Put(const Caller& caller, const v1::PutRequest& request) {
  ASSIGN_OR_RETURN(const RecordId id, ParseRecordName(request.record()));
  RETURN_IF_ERROR(CheckPut(request));
  const bool leased = !request.lease().empty();
  // A lease alone authorises: a passport with one second left must not lose a token.
  const Operation operation = leased ? Operation::kLease : Operation::kPut;
  RETURN_IF_ERROR(
      Recorded(leased ? CheckKind(caller, operation, id) : CheckAccess(caller, operation, id), caller, operation, id));
  // What is leased to be ended is not written.
  RETURN_IF_ERROR(Recorded(CheckKind(caller, Operation::kPut, id), caller, Operation::kPut, id));
  v1::PutResponse response;
  const absl::Status put = Settled(Write([&](Transaction& tx) {
                                     response.Clear();
                                     return leased ? PutLeased(tx, caller, id, request, response)
                                                   : PutUnleased(tx, caller, id, request, response);
                                   }),
                                   caller, operation, id);
  // What only the record itself can tell: that this is another's lease, or a binding which exists.
  RETURN_IF_ERROR(absl::IsPermissionDenied(put) ? Recorded(put, caller, operation, id) : put);
  CountOwed(response.owed().has_revocation() ? 1 : 0);
  return response;
}

absl::StatusOr<std::optional<VersionRow>> Vault::FindEqual(Transaction& tx, const RecordRow& row,
                                                           const v1::PutRequest& request) {
  if (!request.only_if_changed() || row.head == 0) {
    return std::nullopt;
  }
  ASSIGN_OR_RETURN(auto version,
                   FindVersion(tx, row.rid, request.has_compare_version() ? request.compare_version() : row.head));
  if (!version.has_value() || version->role != VersionRole::kValue) {
    return std::nullopt;
  }
  const absl::StatusOr<OpenedRecord> stored = ledger_.Open(tx, row, *version);
  if (absl::IsDataLoss(stored.status()) && !Keyring::IsUnknownTerm(stored.status())) {
    return std::nullopt;  // Damaged: entering the secret again is the remedy, and must work.
  }
  RETURN_IF_ERROR(stored.status());
  const bool equal = stored->payload == Secret::Copy(request.payload()) && stored->bound &&
                     stored->origins == ToOrigins(request.origins());
  return equal ? version : std::nullopt;
}

absl::Status Vault::PutUnleased(Transaction& tx, const Caller& caller, const RecordId& id,
                                const v1::PutRequest& request, v1::PutResponse& response) {
  ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
  ASSIGN_OR_RETURN(const auto found, FindRecord(tx, id));
  RecordRow row = found.value_or(RecordRow());
  if (!found.has_value()) {
    row.rid = MakeUid("rec_");
    row.id = id;
  }
  ASSIGN_OR_RETURN(const bool of_before, IsOfBeforeEnd(tx, id.owner, caller.passport));
  if (of_before) {
    const bool is_link = id.kind == "connection" && !request.keep_generation();
    return is_link ? OweUnstored(tx, caller, row, request, response) : error::UserEnded();
  }
  if (request.has_expected_version() && request.expected_version() != row.head) {
    return error::VersionConflict();
  }
  if (id.kind == "app_binding" && row.head != 0) {
    // What users have linked goes where it says: Rebind, and whoever may do that, changes it.
    RETURN_IF_ERROR(CheckAccess(caller, Operation::kRebind, id));
  }
  ASSIGN_OR_RETURN(auto equal, FindEqual(tx, row, request));
  if (equal.has_value()) {
    if (request.pin() && !equal->pinned) {
      equal->pinned = true;
      RETURN_IF_ERROR(SaveVersion(tx, *equal));
    }
    response.set_version(equal->version);
    response.set_generation(row.generation);
    response.set_unchanged(true);
    return AppendWrite(tx, caller, "put.unchanged", id, equal->version, row.generation);
  }
  if (id.kind == "link_flow") {
    RETURN_IF_ERROR(DropExpiredFlows(tx, now));
  }
  if (!request.keep_generation() || row.generation == 0) {
    RETURN_IF_ERROR(Ledger::BeginGeneration(tx, row));
  }
  Ledger::Value value = {
      request.payload(), ToOrigins(request.origins()), {request.labels().begin(), request.labels().end()}};
  value.next_at = request.has_next_at() ? FromTimestamp(request.next_at()) : absl::InfinitePast();
  value.state = request.state();
  value.pin = request.pin();
  if (request.origins().empty() && IsSent(id)) {
    // By a service of an earlier release, while others are new already: to be adopted with what it stored before.
    ASSIGN_OR_RETURN(const bool adopted, keyring_.Adopted(tx));
    value.unbound = !adopted;
  }
  if (id.kind == "connection" && (!request.keep_generation() || row.used_at == absl::InfinitePast())) {
    row.used_at = now;  // From the link on; another label or state of the same connection is no use.
  }
  RETURN_IF_ERROR(ledger_.WriteHead(tx, row, row.last_version + 1, value, now));
  response.set_version(row.head);
  response.set_generation(row.generation);
  return AppendWrite(tx, caller, "put", id, row.head, row.generation);
}

absl::Status Vault::DropExpiredFlows(Transaction& tx, absl::Time now) {
  DueQuery query;
  query.kinds = {"link_flow"};
  query.now = now - kFlowGrace;
  query.limit = kFlowsDropped;
  ASSIGN_OR_RETURN(const auto flows, ListDueRecords(tx, query));
  for (const RecordRow& flow : flows) {
    RETURN_IF_ERROR(EraseRecord(tx, flow.rid));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::GetResponse> Vault::Get(const Caller& caller, const v1::GetRequest& request) {
  ASSIGN_OR_RETURN(const RecordId id, ParseRecordName(request.record()));
  RETURN_IF_ERROR(Recorded(CheckAccess(caller, Operation::kGet, id), caller, Operation::kGet, id));
  v1::GetResponse response;
  OpenedRecord opened;
  RecordRow read;
  RETURN_IF_ERROR(
      Settled(Read([&](Transaction& tx) -> absl::Status {
                const absl::StatusOr<RecordRow> found = Ledger::Find(tx, id);
                if (absl::IsNotFound(found.status()) && IsBinding(id)) {
                  ASSIGN_OR_RETURN(const bool adopted, keyring_.Adopted(tx));
                  return adopted ? found.status() : error::AdoptionPending();
                }
                RETURN_IF_ERROR(found.status());
                const RecordRow& row = *found;
                ASSIGN_OR_RETURN(const auto version,
                                 FindVersion(tx, row.rid, request.version() == 0 ? row.head : request.version()));
                if (!version.has_value() || version->role != VersionRole::kValue) {
                  return request.version() == 0 ? error::TagMismatch() : error::RecordNotFound();
                }
                ASSIGN_OR_RETURN(opened, ledger_.Open(tx, row, *version));
                response.set_bound(v1::BOUND);
                if (!opened.bound) {
                  // Of connectors' secrets authn's configuration file decides, and authn stores them
                  // again whenever it starts.
                  ASSIGN_OR_RETURN(const bool adopted, keyring_.Adopted(tx));
                  response.set_bound(adopted && id.kind != "connector_secret" ? v1::UNBOUND : v1::ADOPTION_PENDING);
                }
                response.set_version(version->version);
                *response.mutable_metadata() = ToMetadata(row);
                read = row;
                return absl::OkStatus();
              }),
              caller, Operation::kGet, id));
  audit::v1::Event event = MakeEvent("secret.read", DECISION_ALLOWED, "get", caller);
  SetRecord(id, response.version(), response.metadata().generation(), event);
  RETURN_IF_ERROR(trail_.Record(std::move(event)));
  response.set_payload(std::string(opened.payload.Expose()));
  response.mutable_origins()->Assign(opened.origins.begin(), opened.origins.end());
  NoteUse(caller, id, read);
  return response;
}

absl::StatusOr<v1::DeleteResponse> Vault::Delete(const Caller& caller, const v1::DeleteRequest& request) {
  ASSIGN_OR_RETURN(const RecordId id, ParseRecordName(request.record()));
  RETURN_IF_ERROR(CheckDelete(request));
  const bool leased = !request.lease().empty();
  RETURN_IF_ERROR(
      Recorded(leased ? CheckKind(caller, Operation::kLease, id) : CheckAccess(caller, Operation::kDelete, id), caller,
               Operation::kDelete, id));
  if (IsPartial(request)) {
    // Versions that others refer to are kept from pruning by their pins; whoever may drop them must be who sets pins.
    RETURN_IF_ERROR(Recorded(CheckAccess(caller, Operation::kPin, id), caller, Operation::kPin, id));
  }
  v1::DeleteResponse response;
  RETURN_IF_ERROR(Write([&](Transaction& tx) -> absl::Status {
    if (leased) {
      ASSIGN_OR_RETURN(const Held held, FindHeld(tx, caller, id, request.lease()));
      RETURN_IF_ERROR(CheckCurrent(held));
    }
    ASSIGN_OR_RETURN(auto row, FindRecord(tx, id));
    if (IsPartial(request) && row.has_value() && row->head != 0) {
      return DeleteVersions(tx, caller, *row, request, response);
    }
    if (request.has_expected_version() && request.expected_version() != (row.has_value() ? row->head : 0)) {
      return error::VersionConflict();
    }
    if (!row.has_value()) {
      return error::RecordNotFound();
    }
    response.set_generation(row->generation);
    if (row->head == 0) {
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
    if (id.kind == "link_flow" || IsRevocation(id)) {
      // Its name is used once, and nothing is written to it late.
      RETURN_IF_ERROR(EraseRecord(tx, row->rid));
    } else {
      RETURN_IF_ERROR(Ledger::Tombstone(tx, *row, now));
    }
    response.set_generation(row->generation);
    return AppendWrite(tx, caller, "delete", id, 0, row->generation);
  }));
  return response;
}

absl::Status Vault::DeleteVersions(Transaction& tx, const Caller& caller, RecordRow& row,
                                   const v1::DeleteRequest& request, v1::DeleteResponse& response) {
  ASSIGN_OR_RETURN(const std::vector<VersionRow> versions, ListVersions(tx, row.rid));  // Highest first.
  std::vector<int64_t> named;
  const VersionRow* newest_left = nullptr;
  for (const VersionRow& version : versions) {
    if (version.role != VersionRole::kValue) {
      continue;
    }
    if (IsNamed(request, version)) {
      named.push_back(version.version);
    } else if (newest_left == nullptr) {
      newest_left = &version;
    }
  }
  response.set_generation(row.generation);
  if (named.empty()) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
  if (newest_left == nullptr) {
    RETURN_IF_ERROR(Ledger::Tombstone(tx, row, now));
    response.set_generation(row.generation);
    return AppendWrite(tx, caller, "delete", row.id, 0, row.generation);
  }
  for (const int64_t version : named) {
    RETURN_IF_ERROR(EraseVersion(tx, row.rid, version));
    RETURN_IF_ERROR(AppendWrite(tx, caller, "delete.version", row.id, version, row.generation));
  }
  row.head = newest_left->version;
  row.labels = newest_left->labels;
  row.updated_at = now;
  return SaveRecord(tx, row);
}

absl::StatusOr<v1::PinResponse> Vault::Pin(const Caller& caller, const v1::PinRequest& request) {
  ASSIGN_OR_RETURN(const RecordId id, ParseRecordName(request.record()));
  RETURN_IF_ERROR(Recorded(CheckAccess(caller, Operation::kPin, id), caller, Operation::kPin, id));
  RETURN_IF_ERROR(Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const RecordRow row, Ledger::Find(tx, id));
    ASSIGN_OR_RETURN(auto version, FindVersion(tx, row.rid, request.version()));
    if (!version.has_value() || version->role != VersionRole::kValue) {
      return error::RecordNotFound();
    }
    if (version->pinned == request.pinned()) {
      return absl::OkStatus();
    }
    version->pinned = request.pinned();
    RETURN_IF_ERROR(SaveVersion(tx, *version));
    RETURN_IF_ERROR(Ledger::Prune(tx, row));
    return AppendWrite(tx, caller, request.pinned() ? "pin" : "unpin", id, request.version(), row.generation);
  }));
  return v1::PinResponse();
}

absl::StatusOr<v1::GetCacheRootsResponse> Vault::GetCacheRoots(const Caller& caller,
                                                               const v1::GetCacheRootsRequest& request) {
  ASSIGN_OR_RETURN(const Owner owner, ParseOwner(request.owner_type(), request.owner_id()));
  const RecordId id = {owner, "cache_root", "*"};
  RETURN_IF_ERROR(Recorded(CheckCacheRoots(owner, caller), caller, Operation::kGet, id));
  v1::GetCacheRootsResponse response;
  const auto derive = [&](Transaction& tx, const OwnerKey& key) -> absl::Status {
    response.Clear();
    ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
    const int64_t today = absl::ToUnixSeconds(now) / 86400;
    for (const int64_t day : {today, today - 1}) {
      ASSIGN_OR_RETURN(const Secret root, CacheRoot(key.key, day));
      auto* out = response.add_roots();
      out->set_day(day);
      out->set_root(std::string(root.Expose()));
      out->set_key_version(static_cast<int32_t>(key.key_version));
    }
    return absl::OkStatus();
  };
  absl::Status read = Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const OwnerKey key, keyring_.NewestKey(tx, owner));
    return derive(tx, key);
  });
  if (absl::IsNotFound(read) && owner.type == "org") {
    // Before the organization has a first secret. A user without one has nothing that could be cached.
    read = Write([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(const OwnerKey key, keyring_.KeyForWrite(tx, owner));
      return derive(tx, key);
    });
  }
  RETURN_IF_ERROR(read);
  audit::v1::Event event = MakeEvent("secret.read", DECISION_ALLOWED, "get_cache_roots", caller);
  SetRecord({owner, "cache_root", absl::StrCat(response.roots(0).day())}, 0, 0, event);
  RETURN_IF_ERROR(trail_.Record(std::move(event)));
  return response;
}

}  // namespace sallyport::vault

// SPDX-License-Identifier: Apache-2.0
#include "services/vault/ledger.h"

#include <algorithm>

#include "common/error.h"
#include "common/proto_time.h"
#include "common/status_macros.h"
#include "services/vault/envelope.h"
#include "services/vault/errors.h"

namespace sallyport::vault {
namespace {

// More late results than this nobody adopts; the newest are the ones that may still be good.
constexpr int kSidesKept = 8;

RecordIdentity IdentityOf(const Keyring& keyring, const RecordRow& row, int64_t version, int64_t generation) {
  return {keyring.state().deployment_id, row.id, version, generation};
}

}  // namespace

absl::StatusOr<RecordRow> Ledger::Find(Transaction& tx, const RecordId& id) {
  ASSIGN_OR_RETURN(auto row, FindRecord(tx, id));
  if (!row.has_value() || row->head == 0) {
    return error::RecordNotFound();
  }
  return *std::move(row);
}

absl::StatusOr<OpenedRecord> Ledger::Open(Transaction& tx, const RecordRow& row, const VersionRow& version) const {
  const RecordIdentity identity = IdentityOf(keyring_, row, version.version, version.generation);
  std::string sealed = version.sealed;
  ASSIGN_OR_RETURN(uint32_t key_version, KeyVersionOf(sealed));
  absl::StatusOr<OwnerKey> key = keyring_.KeyForRead(tx, row.id.owner, key_version);
  if (absl::IsNotFound(key.status())) {
    // Either the rows do not belong together, or the record was brought under a newer key since it was read, and the
    // old key has gone.
    ASSIGN_OR_RETURN(const auto again, FindVersion(tx, row.rid, version.version));
    if (!again.has_value() || again->sealed == sealed) {
      return error::TagMismatch();
    }
    sealed = again->sealed;
    ASSIGN_OR_RETURN(key_version, KeyVersionOf(sealed));
    key = keyring_.KeyForRead(tx, row.id.owner, key_version);
    if (absl::IsNotFound(key.status())) {
      return error::TagMismatch();
    }
  }
  RETURN_IF_ERROR(key.status());
  return OpenRecord(key->key, identity, sealed);
}

absl::StatusOr<OpenedRecord> Ledger::OpenHead(Transaction& tx, const RecordRow& row) const {
  ASSIGN_OR_RETURN(const auto version, FindVersion(tx, row.rid, row.head));
  if (!version.has_value()) {
    return error::TagMismatch();
  }
  return Open(tx, row, *version);
}

absl::Status Ledger::Bind(Transaction& tx, const RecordRow& row, VersionRow& version, const Secret& payload,
                          const Origins& origins) const {
  ASSIGN_OR_RETURN(const OwnerKey key, keyring_.KeyForWrite(tx, row.id.owner));
  ASSIGN_OR_RETURN(version.sealed,
                   SealRecord(key.key, key.key_version, IdentityOf(keyring_, row, version.version, version.generation),
                              payload.Expose(), origins));
  return SaveVersion(tx, version);
}

absl::Status Ledger::Reseal(Transaction& tx, const RecordRow& row, VersionRow version,
                            const OpenedRecord& opened) const {
  ASSIGN_OR_RETURN(const OwnerKey key, keyring_.KeyForWrite(tx, row.id.owner));
  const RecordIdentity identity = IdentityOf(keyring_, row, version.version, version.generation);
  const absl::string_view payload = opened.payload.Expose();
  ASSIGN_OR_RETURN(version.sealed, opened.bound
                                       ? SealRecord(key.key, key.key_version, identity, payload, opened.origins)
                                       : SealUnbound(key.key, key.key_version, identity, payload));
  return SaveVersion(tx, version);
}

absl::StatusOr<VersionRow> Ledger::SealVersion(Transaction& tx, const RecordRow& row, int64_t version,
                                               const Value& value, absl::Time now) const {
  ASSIGN_OR_RETURN(const OwnerKey key, keyring_.KeyForWrite(tx, row.id.owner));
  VersionRow out;
  out.rid = row.rid;
  out.version = version;
  out.generation = row.generation;
  out.labels = value.labels;
  out.pinned = value.pin;
  out.created_at = now;
  const RecordIdentity identity = IdentityOf(keyring_, row, version, row.generation);
  ASSIGN_OR_RETURN(out.sealed, value.unbound
                                   ? SealUnbound(key.key, key.key_version, identity, value.payload)
                                   : SealRecord(key.key, key.key_version, identity, value.payload, value.origins));
  return out;
}

absl::Status Ledger::WriteHead(Transaction& tx, RecordRow& row, int64_t version, const Value& value,
                               absl::Time now) const {
  ASSIGN_OR_RETURN(const VersionRow sealed, SealVersion(tx, row, version, value, now));
  RETURN_IF_ERROR(SaveVersion(tx, sealed));
  row.head = version;
  row.last_version = std::max(row.last_version, version);
  row.state = value.state.empty() ? "OK" : value.state;
  row.reason.clear();
  row.backoff_until = absl::InfinitePast();
  row.next_at = value.next_at;
  row.listed_until = absl::InfinitePast();
  row.labels = value.labels;
  row.updated_at = now;
  RETURN_IF_ERROR(SaveRecord(tx, row));
  return Prune(tx, row);
}

absl::Status Ledger::WriteSide(Transaction& tx, const RecordRow& row, int64_t version, const Value& value,
                               absl::Time now) const {
  ASSIGN_OR_RETURN(VersionRow side, SealVersion(tx, row, version, value, now));
  side.role = VersionRole::kSide;
  RETURN_IF_ERROR(SaveVersion(tx, side));
  ASSIGN_OR_RETURN(const std::vector<VersionRow> versions, ListVersions(tx, row.rid));
  int sides = 0;
  for (const VersionRow& other : versions) {
    if (other.role == VersionRole::kSide && ++sides > kSidesKept) {
      RETURN_IF_ERROR(EraseVersion(tx, row.rid, other.version));
    }
  }
  return absl::OkStatus();
}

absl::Status Ledger::BeginGeneration(Transaction& tx, RecordRow& row) {
  ++row.generation;
  row.claim_until = absl::InfinitePast();
  ASSIGN_OR_RETURN(const std::vector<VersionRow> versions, ListVersions(tx, row.rid));
  for (const VersionRow& version : versions) {
    if (version.role != VersionRole::kValue) {
      RETURN_IF_ERROR(EraseVersion(tx, row.rid, version.version));
    }
  }
  return absl::OkStatus();
}

absl::Status Ledger::Tombstone(Transaction& tx, RecordRow& row, absl::Time now) {
  RETURN_IF_ERROR(EraseVersions(tx, row.rid));
  ++row.generation;
  row.head = 0;
  row.state = "DELETED";
  row.reason.clear();
  row.labels.clear();
  row.backoff_until = row.next_at = row.claim_until = row.listed_until = row.used_at = absl::InfinitePast();
  row.updated_at = now;
  return SaveRecord(tx, row);
}

absl::Status Ledger::Prune(Transaction& tx, const RecordRow& row) {
  ASSIGN_OR_RETURN(const std::vector<VersionRow> versions, ListVersions(tx, row.rid));
  int kept = 0;
  for (const VersionRow& version : versions) {
    if (version.role != VersionRole::kValue || version.pinned) {
      continue;
    }
    if (++kept > VersionsKept(row.id) && version.version != row.head) {
      RETURN_IF_ERROR(EraseVersion(tx, row.rid, version.version));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLabels(const google::protobuf::Map<std::string, std::string>& labels) {
  size_t bytes = 0;
  for (const auto& [name, value] : labels) {
    bytes += name.size() + value.size();
  }
  return bytes > kMaxLabelBytes ? InvalidField("labels", "are over 4 KiB") : absl::OkStatus();
}

absl::Status CheckState(const std::string& state) {
  const bool fits = state.size() <= 64 &&
                    std::all_of(state.begin(), state.end(), [](char c) { return (c >= 'A' && c <= 'Z') || c == '_'; });
  return fits ? absl::OkStatus() : InvalidField("state", "must be upper case letters and '_', 64 at most");
}

v1::RecordMetadata ToMetadata(const RecordRow& row) {
  v1::RecordMetadata out;
  *out.mutable_record() = ToProto(row.id);
  out.set_head(row.head);
  out.set_generation(row.generation);
  out.set_epoch(row.epoch);
  out.set_state(row.state);
  out.set_reason(row.reason);
  if (row.backoff_until != absl::InfinitePast()) {
    *out.mutable_backoff_until() = ToTimestamp(row.backoff_until);
  }
  if (row.next_at != absl::InfinitePast()) {
    *out.mutable_next_at() = ToTimestamp(row.next_at);
  }
  out.mutable_labels()->insert(row.labels.begin(), row.labels.end());
  *out.mutable_updated_at() = ToTimestamp(row.updated_at);
  if (row.used_at != absl::InfinitePast()) {
    *out.mutable_used_at() = ToTimestamp(row.used_at);
  }
  return out;
}

}  // namespace sallyport::vault

// SPDX-License-Identifier: Apache-2.0
// The part of Vault that writes revocations: what becomes of a token that is owed to be revoked, and answers that come
// late.
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/error.h"
#include "common/status_macros.h"
#include "common/text/hex.h"
#include "services/vault/envelope.h"
#include "services/vault/errors.h"
#include "services/vault/origins.h"
#include "services/vault/vault.h"
#include "services/vault/vault_notes.h"

namespace sallyport::vault {
namespace {

using audit::v1::DECISION_ALLOWED;

constexpr size_t kMaxNamePart = 256;
constexpr char kOwed[] = "OWED";
// In which whoever owes a revocation asks the provider first: another that took it would answer for it elsewhere.
constexpr absl::Duration kAwaited = absl::Seconds(10);
// Of a connection whose revocation is owed since an earlier release.
constexpr char kLegacyState[] = "REVOKE_PENDING";
constexpr char kLegacySince[] = "revoke_since";

std::string RevocationName(const RecordRow& row, const VersionRow& token) {
  // A name of a connection may be as long as one of a revocation.
  const std::string part = row.id.name.size() <= kMaxNamePart ? row.id.name : HexEncode(Sha256(row.id.name));
  const std::string name = absl::StrCat(HexEncode(Sha256(row.id.owner.id)), ":", part, ":", row.generation);
  return token.version == row.head ? name : absl::StrCat(name, ":", token.version);
}

std::string SinceOf(const RecordRow& row, absl::Time now) {
  const auto label = row.labels.find(kLegacySince);
  absl::Time since;
  const bool known = row.state == kLegacyState && label != row.labels.end() &&
                     absl::ParseTime(absl::RFC3339_full, label->second, &since, nullptr);
  return known ? label->second : absl::FormatTime(absl::RFC3339_full, now, absl::UTCTimeZone());
}

Labels RevocationLabels(const RecordRow& row, const VersionRow& token, absl::Time now) {
  Labels labels = token.version == row.head ? row.labels : token.labels;
  labels.erase(kLegacySince);
  labels["app_uid"] = AppOf(row.id);
  labels["subject"] = row.id.owner.id;
  labels["connection"] = row.id.name;
  labels["since"] = SinceOf(row, now);
  return labels;
}

}  // namespace

absl::Status Vault::OweLate(Transaction& tx, const Caller& caller, Held& held, const v1::PutRequest& request,
                            v1::PutResponse& response) {
  RecordRow& row = held.row;
  LeaseRow& lease = held.lease;
  response.set_generation(row.generation);
  auto& owed = *response.mutable_owed();
  *owed.mutable_connection() = ToProto(row.id);
  owed.set_generation(row.generation);
  if (request.payload().empty()) {
    return absl::OkStatus();
  }
  RecordRow ended = row;
  ended.generation = lease.generation;  // What it is a token of.
  const OpenedRecord answer = {Secret::Copy(request.payload()), ToOrigins(request.origins()), /*bound=*/true};
  VersionRow token;
  token.version = lease.version;
  token.labels = {request.labels().begin(), request.labels().end()};
  if (lease.state == LeaseState::kAnswered) {
    token.version = lease.answer_version;
    ASSIGN_OR_RETURN(const auto repeated, FindRevocation(tx, RevocationName(ended, token), answer.payload));
    if (repeated.has_value()) {
      *owed.mutable_revocation() = ToMetadata(*repeated);
      return absl::OkStatus();
    }
    token.version = ++row.last_version;
    RETURN_IF_ERROR(SaveRecord(tx, row));
  }
  const Right right = {"late", AuditOutbox::Admit::kAlways, /*awaited=*/false};
  ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
  ASSIGN_OR_RETURN(const RecordRow revocation, MakeRevocation(tx, ended, token, answer, right, now));
  *owed.mutable_revocation() = ToMetadata(revocation);
  lease.state = LeaseState::kAnswered;
  lease.answer_version = token.version;
  lease.answer_side = true;
  RETURN_IF_ERROR(SaveLease(tx, lease));
  audit::v1::Event event = MakeEvent("vault.revocation_owed", DECISION_ALLOWED, right.rule, caller);
  SetRecord(row.id, token.version, row.generation, event);
  (*event.mutable_details())["revocations"] = "1";
  return trail_.Append(tx, std::move(event), right.admit);
}

absl::Status Vault::OweUnstored(Transaction& tx, const Caller& caller, RecordRow& row, const v1::PutRequest& request,
                                v1::PutResponse& response) {
  auto& owed = *response.mutable_owed();
  *owed.mutable_connection() = ToProto(row.id);
  if (request.payload().empty()) {
    owed.set_generation(row.generation);
    response.set_generation(row.generation);
    return absl::OkStatus();
  }
  // As if it had been stored and had ended at once; a link that was made since with another passport stays.
  const bool live = row.head != 0;
  row.generation += live ? 0 : 1;
  VersionRow token;
  token.version = ++row.last_version;
  token.labels = {request.labels().begin(), request.labels().end()};
  RecordRow ended = row;
  ended.generation -= live ? 1 : 0;
  const OpenedRecord opened = {Secret::Copy(request.payload()), ToOrigins(request.origins()), /*bound=*/true};
  const Right right = {"user_ended", AuditOutbox::Admit::kIfRoom, /*awaited=*/false};
  ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
  ASSIGN_OR_RETURN(const RecordRow revocation, MakeRevocation(tx, ended, token, opened, right, now));
  *owed.mutable_revocation() = ToMetadata(revocation);
  RETURN_IF_ERROR(live ? SaveRecord(tx, row) : Ledger::Tombstone(tx, row, now));
  owed.set_generation(row.generation);
  response.set_generation(row.generation);
  audit::v1::Event event = MakeEvent("vault.revocation_owed", DECISION_ALLOWED, right.rule, caller);
  SetRecord(row.id, token.version, row.generation, event);
  (*event.mutable_details())["revocations"] = "1";
  return trail_.Append(tx, std::move(event), right.admit);
}

absl::StatusOr<RecordRow> Vault::MakeRevocation(Transaction& tx, const RecordRow& row, const VersionRow& token,
                                                const OpenedRecord& opened, const Right& right, absl::Time now) {
  RecordRow revocation;
  revocation.rid = MakeUid("rec_");
  revocation.id = {RevocationOwner(), kRevocationKind, RevocationName(row, token)};
  ASSIGN_OR_RETURN(const auto taken, FindRecord(tx, revocation.id));
  if (taken.has_value()) {
    absl::StrAppend(&revocation.id.name, ":", revocation.rid);  // In an edited store: nothing that is owed is lost.
  }
  revocation.generation = 1;
  Ledger::Value value = {opened.payload.Expose(), opened.origins, RevocationLabels(row, token, now)};
  value.next_at = now;
  value.state = kOwed;
  value.unbound = !opened.bound;
  RETURN_IF_ERROR(ledger_.WriteHead(tx, revocation, 1, value, now));
  if (right.awaited) {
    revocation.listed_until = now + kAwaited;
    RETURN_IF_ERROR(SaveRecord(tx, revocation));
  }
  return revocation;
}

absl::StatusOr<std::optional<RecordRow>> Vault::FindRevocation(Transaction& tx, const std::string& name,
                                                               const Secret& payload) {
  ASSIGN_OR_RETURN(auto row, FindRecord(tx, {RevocationOwner(), kRevocationKind, name}));
  if (!row.has_value() || row->head == 0) {
    return std::nullopt;
  }
  const absl::StatusOr<OpenedRecord> opened = ledger_.OpenHead(tx, *row);
  if (Keyring::IsUnknownTerm(opened.status())) {
    return opened.status();
  }
  return opened.ok() && opened->payload == payload ? std::move(row) : std::nullopt;
}

}  // namespace sallyport::vault

// SPDX-License-Identifier: Apache-2.0
// The part of Vault that makes revocations of connections: OweRevocation.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/crypto/crypto.h"
#include "common/crypto/random.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/status_macros.h"
#include "common/text/hex.h"
#include "services/vault/errors.h"
#include "services/vault/vault.h"
#include "services/vault/vault_notes.h"

namespace sallyport::vault {
namespace {

using audit::v1::DECISION_ALLOWED;
using audit::v1::DECISION_FAILED;

constexpr size_t kMaxOwed = 200;
// Connections in one transaction, for which every other writer of the store waits.
constexpr int kPart = 50;
constexpr size_t kMaxNamePart = 256;
constexpr char kOwed[] = "OWED";
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

// The head first, then late results, newest first. Former heads have been replaced by what is newer.
std::vector<VersionRow> TokensOf(const RecordRow& row, std::vector<VersionRow> versions) {
  std::erase_if(versions, [&](const VersionRow& version) {
    return version.version != row.head && version.role != VersionRole::kSide;
  });
  std::stable_partition(versions.begin(), versions.end(),
                        [&](const VersionRow& version) { return version.version == row.head; });
  return versions;
}

}  // namespace

absl::StatusOr<Vault::Owing> Vault::ParseOwing(const Caller& caller, const v1::OweRevocationRequest& request) {
  const int named =
      (request.has_record() ? 1 : 0) + (request.owner_id().empty() ? 0 : 1) + (request.app_uid().empty() ? 0 : 1);
  if (named != 1) {
    return InvalidField("record", "must be given, or else owner_id or app_uid");
  }
  if (!request.has_record() && (!request.lease().empty() || request.has_expected_version())) {
    return InvalidField(request.lease().empty() ? "expected_version" : "lease", "needs a record");
  }
  Owing owing = {request, std::nullopt, request.app_uid(), absl::OkStatus(), ""};
  if (request.has_record()) {
    ASSIGN_OR_RETURN(owing.record, ParseRecordName(request.record()));
    if (owing.record->kind != "connection") {
      return InvalidField("record.kind", "must be connection");
    }
    owing.app_uid = AppOf(*owing.record);
    owing.allowed = request.lease().empty() ? CheckAccess(caller, Operation::kOwe, *owing.record)
                                            : CheckKind(caller, Operation::kLease, *owing.record);
  } else if (!request.owner_id().empty()) {
    ASSIGN_OR_RETURN(const Owner owner, ParseOwner(v1::USER, request.owner_id()));
    owing.allowed = CheckOweOwner(caller, owner);
  } else {
    RETURN_IF_ERROR(ParseOwner(v1::USER, request.app_uid()).status());  // Text as any other.
    owing.allowed = CheckOweApp(caller, request.app_uid());
  }
  const bool ends = caller.passport.has_value() && caller.passport->purpose == Passport::Purpose::kEnd;
  owing.rule = !request.lease().empty() ? "lease" : ends ? "end" : "owner";
  return owing;
}

absl::StatusOr<v1::OweRevocationResponse> Vault::OweRevocation(const Caller& caller,
                                                               const v1::OweRevocationRequest& request) {
  ASSIGN_OR_RETURN(const Owing owing, ParseOwing(caller, request));
  const RecordId id = owing.record.value_or(RecordId{{"user", request.owner_id().empty() ? "*" : request.owner_id()},
                                                     "connection",
                                                     request.app_uid().empty() ? "*" : request.app_uid()});
  RETURN_IF_ERROR(Recorded(CheckKind(caller, Operation::kOwe, id), caller, Operation::kOwe, id));
  v1::OweRevocationResponse response;
  const absl::Status owed = Write([&](Transaction& tx) -> absl::Status {
    response.Clear();
    Owing allowed = owing;
    if (!allowed.allowed.ok()) {
      ASSIGN_OR_RETURN(const bool gone, IsAppGone(tx, allowed.app_uid));
      if (!gone) {
        return allowed.allowed;
      }
      allowed.rule = "app_gone";
    }
    return OweWhatIsNamed(tx, caller, allowed, response);
  });
  RETURN_IF_ERROR(absl::IsPermissionDenied(owed) ? Recorded(owed, caller, Operation::kOwe, id) : owed);
  CountOwed(static_cast<int>(std::count_if(response.owed().begin(), response.owed().end(),
                                           [](const auto& one) { return one.has_revocation(); })));
  return response;
}

absl::StatusOr<bool> Vault::IsAppGone(Transaction& tx, const std::string& app_uid) {
  if (app_uid.empty() || absl::StartsWith(app_uid, "sso:")) {
    return false;  // Sign-ins have no app.
  }
  ASSIGN_OR_RETURN(const bool adopted, keyring_.Adopted(tx));
  if (!adopted) {
    return false;  // Bindings are not there yet.
  }
  ASSIGN_OR_RETURN(const auto binding,
                   FindRecord(tx, {{"org", "default"}, "app_binding", absl::StrCat(app_uid, "/binding")}));
  return !binding.has_value() || binding->head == 0;
}

absl::Status Vault::OweWhatIsNamed(Transaction& tx, const Caller& caller, const Owing& owing,
                                   v1::OweRevocationResponse& response) {
  ASSIGN_OR_RETURN(std::vector<RecordRow> rows, FindToOwe(tx, caller, owing));
  response.set_more(rows.size() > static_cast<size_t>(kPart));
  rows.resize(std::min(rows.size(), static_cast<size_t>(kPart)));
  for (RecordRow& row : rows) {
    ASSIGN_OR_RETURN(std::vector<VersionRow> versions, ListVersions(tx, row.rid));
    const std::vector<VersionRow> tokens = TokensOf(row, std::move(versions));
    if (static_cast<size_t>(response.owed_size()) + tokens.size() > kMaxOwed) {
      response.set_more(true);
      break;
    }
    RETURN_IF_ERROR(Owe(tx, caller, owing, row, tokens, response));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<RecordRow>> Vault::FindToOwe(Transaction& tx, const Caller& caller, const Owing& owing) {
  const v1::OweRevocationRequest& request = owing.request;
  if (!request.owner_id().empty()) {
    return QueryRecords(tx,
                        "WHERE owner_type = 'user' AND owner_id = :owner AND kind = 'connection' AND head <> 0 "
                        "ORDER BY name LIMIT :limit",
                        {{"owner", request.owner_id()}, {"limit", kPart + 1}});
  }
  if (!request.app_uid().empty()) {
    ASSIGN_OR_RETURN(std::vector<RecordRow> rows,
                     QueryRecords(tx,
                                  "WHERE kind = 'connection' AND app_uid = :app AND head <> 0 ORDER BY rid "
                                  "LIMIT :limit",
                                  {{"app", request.app_uid()}, {"limit", kPart + 1}}));
    bool edited = false;
    for (const RecordRow& row : rows) {
      if (AppOf(row.id) != request.app_uid()) {
        edited = true;
        RETURN_IF_ERROR(SaveRecord(tx, row));  // Sets the column by the name, which is what is sealed.
      }
    }
    return edited ? FindToOwe(tx, caller, owing) : std::move(rows);
  }
  std::optional<Held> held;
  if (!request.lease().empty()) {
    ASSIGN_OR_RETURN(held, FindHeld(tx, caller, *owing.record, request.lease()));
  }
  ASSIGN_OR_RETURN(auto row, FindRecord(tx, *owing.record));
  const int64_t head = row.has_value() ? row->head : 0;
  if (request.has_expected_version() && request.expected_version() != head) {
    return error::VersionConflict();
  }
  if (head == 0) {
    return std::vector<RecordRow>();  // Said again.
  }
  if (held.has_value()) {
    RETURN_IF_ERROR(CheckCurrent(*held));
  }
  return std::vector<RecordRow>{*std::move(row)};
}

absl::Status Vault::Owe(Transaction& tx, const Caller& caller, const Owing& owing, RecordRow& row,
                        const std::vector<VersionRow>& tokens, v1::OweRevocationResponse& response) {
  ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
  std::vector<RecordRow> revocations;
  for (const VersionRow& token : tokens) {
    ASSIGN_OR_RETURN(auto revocation, MakeRevocation(tx, caller, row, token, now));
    if (revocation.has_value()) {
      revocations.push_back(*std::move(revocation));
    }
  }
  const int64_t head = row.head;
  RETURN_IF_ERROR(Ledger::Tombstone(tx, row, now));
  const auto add = [&] {
    auto* out = response.add_owed();
    *out->mutable_connection() = ToProto(row.id);
    out->set_generation(row.generation);
    return out;
  };
  if (revocations.empty()) {
    add();
  }
  for (const RecordRow& revocation : revocations) {
    *add()->mutable_revocation() = ToMetadata(revocation);
  }
  audit::v1::Event event = MakeEvent("vault.revocation_owed", DECISION_ALLOWED, owing.rule, caller);
  SetRecord(row.id, head, row.generation, event);
  (*event.mutable_details())["revocations"] = absl::StrCat(revocations.size());
  // As all that ends a lease.
  const auto admit = owing.request.lease().empty() ? AuditOutbox::Admit::kIfRoom : AuditOutbox::Admit::kAlways;
  return trail_.Append(tx, std::move(event), admit);
}

absl::StatusOr<std::optional<RecordRow>> Vault::MakeRevocation(Transaction& tx, const Caller& caller,
                                                               const RecordRow& row, const VersionRow& token,
                                                               absl::Time now) {
  ASSIGN_OR_RETURN(const auto version, FindVersion(tx, row.rid, token.version));
  const absl::StatusOr<OpenedRecord> opened =
      version.has_value() ? ledger_.Open(tx, row, *version) : absl::StatusOr<OpenedRecord>(error::TagMismatch());
  if (absl::IsDataLoss(opened.status()) && !Keyring::IsUnknownTerm(opened.status())) {
    // It can be revoked no more, and must not keep the others from it.
    CountDamaged(1);
    Log(LogLevel::kError, "connection_damaged", {{"rid", row.rid}, {"version", token.version}});
    audit::v1::Event event = MakeEvent("secret.damaged", DECISION_FAILED, ReasonOf(opened.status()), caller);
    SetRecord(row.id, token.version, row.generation, event);
    (*event.mutable_details())["operation"] = OperationName(Operation::kOwe);
    RETURN_IF_ERROR(trail_.Append(tx, std::move(event), AuditOutbox::Admit::kAlways));
    return std::nullopt;
  }
  RETURN_IF_ERROR(opened.status());
  if (opened->payload.Expose().empty()) {
    return std::nullopt;
  }
  RecordRow revocation;
  revocation.rid = MakeUid("rec_");
  revocation.id = {RevocationOwner(), kRevocationKind, RevocationName(row, token)};
  ASSIGN_OR_RETURN(const auto taken, FindRecord(tx, revocation.id));
  if (taken.has_value()) {
    absl::StrAppend(&revocation.id.name, ":", revocation.rid);  // In an edited store: nothing that is owed is lost.
  }
  revocation.generation = 1;
  Ledger::Value value = {opened->payload.Expose(), opened->origins, RevocationLabels(row, token, now)};
  value.next_at = now;
  value.state = kOwed;
  value.unbound = !opened->bound;
  RETURN_IF_ERROR(ledger_.WriteHead(tx, revocation, 1, value, now));
  return revocation;
}

}  // namespace sallyport::vault

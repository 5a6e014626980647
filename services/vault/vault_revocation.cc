// SPDX-License-Identifier: Apache-2.0
// The part of Vault that ends connections: OweRevocation and DeleteOwner.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

#include "common/error.h"
#include "common/json_log.h"
#include "common/status_macros.h"
#include "services/vault/ended_owners.h"
#include "services/vault/envelope.h"
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

// The head first, in the store or not, then late results, newest first. Former heads have been replaced by what is
// newer.
std::vector<VersionRow> TokensOf(const RecordRow& row, std::vector<VersionRow> versions) {
  std::erase_if(versions, [&](const VersionRow& version) {
    return version.version != row.head && version.role != VersionRole::kSide;
  });
  std::stable_partition(versions.begin(), versions.end(),
                        [&](const VersionRow& version) { return version.version == row.head; });
  if (versions.empty() || versions.front().version != row.head) {
    VersionRow missing;
    missing.rid = row.rid;
    missing.version = row.head;
    versions.insert(versions.begin(), missing);
  }
  return versions;
}

// Its data key is under a term that was destroyed, or never was of this store. One that another replica has begun is in
// the store, and only has to be loaded.
absl::StatusOr<bool> IsTermGone(Transaction& tx, const Owner& owner, const VersionRow& version) {
  ASSIGN_OR_RETURN(const uint32_t key_version, KeyVersionOf(version.sealed));
  ASSIGN_OR_RETURN(const auto key, FindOwnerKey(tx, owner, key_version));
  if (!key.has_value()) {
    return false;
  }
  ASSIGN_OR_RETURN(const std::vector<TermRow> terms, ListTerms(tx));
  return std::none_of(terms.begin(), terms.end(),
                      [&](const TermRow& term) { return term.term == key->term && term.state != "destroyed"; });
}

bool IsEnd(const Caller& caller) {
  return caller.passport.has_value() && caller.passport->purpose == Passport::Purpose::kEnd;
}

template <typename Owed>
int CountRevocations(const Owed& owed) {
  return static_cast<int>(
      std::count_if(owed.begin(), owed.end(), [](const auto& one) { return one.has_revocation(); }));
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
  Owing owing = {request, std::nullopt, request.app_uid(), absl::OkStatus(), {}};
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
  const bool ends = IsEnd(caller);
  const bool leased = !request.lease().empty();
  owing.right.rule = leased ? "lease" : ends ? "end" : "owner";
  // As all that ends a lease.
  owing.right.admit = leased ? AuditOutbox::Admit::kAlways : AuditOutbox::Admit::kIfRoom;
  owing.right.awaited = !leased;
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
      allowed.right.rule = "app_gone";
      allowed.right.awaited = false;
    }
    return OweWhatIsNamed(tx, caller, allowed, response);
  });
  RETURN_IF_ERROR(absl::IsPermissionDenied(owed) ? Recorded(owed, caller, Operation::kOwe, id) : owed);
  CountOwed(CountRevocations(response.owed()));
  return response;
}

absl::StatusOr<v1::DeleteOwnerResponse> Vault::DeleteOwner(const Caller& caller,
                                                           const v1::DeleteOwnerRequest& request) {
  ASSIGN_OR_RETURN(const Owner owner, ParseOwner(request.owner_type(), request.owner_id()));
  const RecordId all = {owner, "*", "*"};
  RETURN_IF_ERROR(Recorded(CheckDeleteOwner(caller, owner), caller, Operation::kDelete, all));
  const Right right = {"delete_owner", AuditOutbox::Admit::kIfRoom, /*awaited=*/true};
  v1::DeleteOwnerResponse response;
  RETURN_IF_ERROR(Write([&](Transaction& tx) -> absl::Status {
    response.Clear();
    ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
    ASSIGN_OR_RETURN(std::vector<RecordRow> rows, ListRecords(tx, owner));
    for (RecordRow& row : rows) {
      if (row.id.kind != "connection" || row.head == 0) {
        RETURN_IF_ERROR(Ledger::Tombstone(tx, row, now));
        continue;
      }
      // Linked since its revocation was owed, or never owed: the provider knows of its tokens.
      ASSIGN_OR_RETURN(std::vector<VersionRow> versions, ListVersions(tx, row.rid));
      RETURN_IF_ERROR(Owe(tx, caller, right, row, TokensOf(row, std::move(versions)), *response.mutable_owed()));
    }
    RETURN_IF_ERROR(DestroyOwnerKeys(tx, owner));
    if (IsEnd(caller)) {
      RETURN_IF_ERROR(NoteEnded(tx, owner, caller.passport->issued_at, now));
    }
    return AppendWrite(tx, caller, "delete_owner", all, 0, 0);
  }));
  CountOwed(CountRevocations(response.owed()));
  if (after_shred_) {
    after_shred_();
  }
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
    RETURN_IF_ERROR(Owe(tx, caller, owing.right, row, tokens, *response.mutable_owed()));
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

absl::Status Vault::Owe(Transaction& tx, const Caller& caller, const Right& right, RecordRow& row,
                        const std::vector<VersionRow>& tokens, OwedList& owed) {
  ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
  std::vector<RecordRow> revocations;
  bool damaged = false;
  for (const VersionRow& token : tokens) {
    ASSIGN_OR_RETURN(const std::optional<OpenedRecord> opened, OpenToken(tx, caller, row, token));
    damaged = damaged || !opened.has_value();
    if (opened.has_value() && !opened->payload.Expose().empty()) {
      ASSIGN_OR_RETURN(RecordRow revocation, MakeRevocation(tx, row, token, *opened, right, now));
      revocations.push_back(std::move(revocation));
    }
  }
  const int64_t head = row.head;
  RETURN_IF_ERROR(Ledger::Tombstone(tx, row, now));
  const auto add = [&] {
    auto* out = owed.Add();
    *out->mutable_connection() = ToProto(row.id);
    out->set_generation(row.generation);
    return out;
  };
  for (const RecordRow& revocation : revocations) {
    *add()->mutable_revocation() = ToMetadata(revocation);
  }
  if (damaged || revocations.empty()) {
    add()->set_damaged(damaged);
  }
  audit::v1::Event event = MakeEvent("vault.revocation_owed", DECISION_ALLOWED, right.rule, caller);
  SetRecord(row.id, head, row.generation, event);
  (*event.mutable_details())["revocations"] = absl::StrCat(revocations.size());
  return trail_.Append(tx, std::move(event), right.admit);
}

absl::StatusOr<std::optional<OpenedRecord>> Vault::OpenToken(Transaction& tx, const Caller& caller,
                                                             const RecordRow& row, const VersionRow& token) {
  ASSIGN_OR_RETURN(const auto version, FindVersion(tx, row.rid, token.version));
  absl::StatusOr<OpenedRecord> opened =
      version.has_value() ? ledger_.Open(tx, row, *version) : absl::StatusOr<OpenedRecord>(error::TagMismatch());
  if (Keyring::IsUnknownTerm(opened.status())) {
    ASSIGN_OR_RETURN(const bool gone, IsTermGone(tx, row.id.owner, *version));
    if (!gone) {
      return opened.status();
    }
  }
  if (absl::IsDataLoss(opened.status())) {
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
  return std::optional<OpenedRecord>(*std::move(opened));
}

}  // namespace sallyport::vault

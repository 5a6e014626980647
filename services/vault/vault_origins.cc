// SPDX-License-Identifier: Apache-2.0
// The part of Vault that says where payloads may be sent: Rebind and Adopt.
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/http/url.h"
#include "common/status_macros.h"
#include "services/vault/errors.h"
#include "services/vault/origins.h"
#include "services/vault/vault.h"

namespace sallyport::vault {
namespace {

constexpr int kMaxOrigins = 64;
constexpr int kMaxAdopted = 200;
constexpr size_t kBindingBytes = 16;

}  // namespace

absl::Status CheckOrigins(const OriginField& origins) {
  if (origins.size() > kMaxOrigins) {
    return InvalidField("origins", absl::StrCat("are more than ", kMaxOrigins));
  }
  for (int i = 0; i < origins.size(); ++i) {
    const absl::StatusOr<Url> url = Url::Parse(origins[i]);
    if (!url.ok() || url->origin() != origins[i]) {
      return InvalidField(absl::StrCat("origins[", i, "]"), "must be an origin, such as https://api.example.com");
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::RebindResponse> Vault::Rebind(const Caller& caller, const v1::RebindRequest& request) {
  ASSIGN_OR_RETURN(const RecordId id, ParseRecordName(request.record()));
  RETURN_IF_ERROR(CheckOrigins(request.origins()));
  RETURN_IF_ERROR(Recorded(CheckAccess(caller, Operation::kRebind, id), caller, Operation::kRebind, id));
  v1::RebindResponse response;
  RETURN_IF_ERROR(Settled(
      Write([&](Transaction& tx) -> absl::Status {
        ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
        ASSIGN_OR_RETURN(RecordRow row, Ledger::Find(tx, id));
        ASSIGN_OR_RETURN(const auto from, FindVersion(tx, row.rid, request.version()));
        if (!from.has_value() || from->role != VersionRole::kValue) {
          return error::RecordNotFound();
        }
        ASSIGN_OR_RETURN(const OpenedRecord opened, ledger_.Open(tx, row, *from));
        Ledger::Value value = {
            opened.payload.Expose(), ToOrigins(request.origins()), {request.labels().begin(), request.labels().end()}};
        value.next_at = row.next_at;
        value.state = row.state;
        value.pin = true;
        RETURN_IF_ERROR(ledger_.WriteHead(tx, row, row.last_version + 1, value, now));
        response.set_version(row.head);
        audit::v1::Event event = MakeEvent("secret.write", audit::v1::DECISION_ALLOWED, "rebind", caller);
        SetRecord(id, row.head, row.generation, event);
        (*event.mutable_details())["origins"] = absl::StrJoin(request.origins(), " ");
        return trail_.Append(tx, std::move(event));
      }),
      caller, Operation::kRebind, id));
  return response;
}

absl::StatusOr<v1::AdoptResponse> Vault::Adopt(const Caller& caller, const v1::AdoptRequest& request) {
  if (request.entries_size() > kMaxAdopted) {
    return InvalidField("entries", absl::StrCat("are more than ", kMaxAdopted));
  }
  std::vector<RecordId> ids;
  for (const auto& entry : request.entries()) {
    ASSIGN_OR_RETURN(RecordId id, ParseRecordName(entry.record()));
    RETURN_IF_ERROR(CheckOrigins(entry.origins()));
    RETURN_IF_ERROR(Recorded(CheckKind(caller, Operation::kRebind, id), caller, Operation::kRebind, id));
    if (entry.version() == 0 && !IsBinding(id)) {
      return InvalidField("entries.version", "must name a version of what is no binding");
    }
    ids.push_back(std::move(id));
  }
  v1::AdoptResponse response;
  RETURN_IF_ERROR(Write([&](Transaction& tx) -> absl::Status {
    response.Clear();
    ASSIGN_OR_RETURN(const bool adopted, keyring_.Adopted(tx));
    if (adopted) {
      return error::Adopted();
    }
    for (int i = 0; i < request.entries_size(); ++i) {
      ASSIGN_OR_RETURN(const int64_t version, AdoptOne(tx, caller, ids[static_cast<size_t>(i)], request.entries(i)));
      response.add_versions(version);
    }
    return request.complete() ? keyring_.CompleteAdoption(tx) : absl::OkStatus();
  }));
  return response;
}

absl::StatusOr<int64_t> Vault::AdoptOne(Transaction& tx, const Caller& caller, const RecordId& id,
                                        const v1::AdoptRequest::Entry& entry) {
  ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
  ASSIGN_OR_RETURN(auto row, FindRecord(tx, id));
  if (IsBinding(id) && entry.version() == 0) {
    if (row.has_value() && row->head != 0) {
      return row->head;
    }
    if (!row.has_value()) {
      row = RecordRow();
      row->rid = MakeUid("rec_");
      row->id = id;
    }
    RETURN_IF_ERROR(Ledger::BeginGeneration(tx, *row));
    const std::string payload = RandomBytes(kBindingBytes);
    Ledger::Value value = {payload, ToOrigins(entry.origins()), {}};
    value.pin = true;
    RETURN_IF_ERROR(ledger_.WriteHead(tx, *row, row->last_version + 1, value, now));
    RETURN_IF_ERROR(AppendWrite(tx, caller, "adopt", id, row->head, row->generation));
    return row->head;
  }
  if (!row.has_value() || row->head == 0) {
    return 0;
  }
  ASSIGN_OR_RETURN(auto version, FindVersion(tx, row->rid, entry.version()));
  if (!version.has_value() || version->role != VersionRole::kValue) {
    return 0;
  }
  const absl::StatusOr<OpenedRecord> opened = ledger_.Open(tx, *row, *version);
  if (absl::IsDataLoss(opened.status()) && !Keyring::IsUnknownTerm(opened.status())) {
    return 0;  // Damaged: it can only be entered again.
  }
  RETURN_IF_ERROR(opened.status());
  if (!opened->bound) {
    RETURN_IF_ERROR(ledger_.Bind(tx, *row, *version, opened->payload, ToOrigins(entry.origins())));
    RETURN_IF_ERROR(AppendWrite(tx, caller, "adopt", id, version->version, row->generation));
  }
  return version->version;
}

}  // namespace sallyport::vault

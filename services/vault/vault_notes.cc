// SPDX-License-Identifier: Apache-2.0
#include "services/vault/vault_notes.h"

#include "common/json_log.h"
#include "common/metrics.h"
#include "common/status_macros.h"
#include "services/vault/vault.h"

namespace sallyport::vault {
namespace {

// An account is ended when nobody has used it for long: a day more or less makes no difference.
constexpr absl::Duration kUseNoted = absl::Hours(24);
constexpr absl::Duration kDamagedPutOff = absl::Hours(24);

constexpr CounterInfo kDamaged = {
    .name = "sallyport_vault_records_damaged_total",
    .help = "Records that did not open under their own identity",
    .unit = "records",
    .rise = "The store was damaged or edited. What background work meets is tried again a day later",
    .action =
        "The log event `record_damaged` or the audit event `secret.damaged` names the record; restore it from a "
        "backup, or enter the secret or link the account again",
};
constexpr CounterInfo kOwed = {
    .name = "sallyport_vault_revocations_owed_total",
    .help = "Tokens that were set aside to be revoked at their provider",
    .unit = "tokens",
    .rise = "Users unlink, leave, or link again; or an app was deleted",
    .action = "Nothing, while `sallyport_broker_revocations_total` follows",
};

}  // namespace

void CountDamaged(int count) { MetricCounter(kDamaged).Increment(count); }

void CountOwed(int count) { MetricCounter(kOwed).Increment(count); }

bool IsUse(const Caller& caller, const RecordId& id) {
  return id.kind == "connection" && caller.passport.has_value() && caller.passport->subject == id.owner.id &&
         (caller.passport->purpose == Passport::Purpose::kCall ||
          caller.passport->purpose == Passport::Purpose::kPlatform);
}

bool IsUseToNote(const RecordRow& row, absl::Time now) { return row.used_at <= now - kUseNoted; }

void Vault::NoteUse(const Caller& caller, const RecordId& id, const RecordRow& row) {
  // By this process's clock whether to ask, by the store's what to write.
  if (!IsUse(caller, id) || !IsUseToNote(row, clock_.Now())) {
    return;
  }
  const absl::Status noted = Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
    return StampUse(tx, row.rid, now, now - kUseNoted);
  });
  if (!noted.ok()) {
    Log(LogLevel::kWarning, "use_not_noted", {{"rid", row.rid}, {"status", noted}});
  }
}

void Vault::PutOffDamaged(const Caller& caller, const RecordId& id) {
  const absl::Status put_off = Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const absl::Time now, tx.Now());
    ASSIGN_OR_RETURN(RecordRow row, Ledger::Find(tx, id));
    if (row.next_at == absl::InfinitePast() || row.next_at > now) {
      return absl::OkStatus();
    }
    row.next_at = now + kDamagedPutOff;
    row.listed_until = absl::InfinitePast();
    row.reason = "damaged";
    RETURN_IF_ERROR(SaveRecord(tx, row));
    return AppendWrite(tx, caller, "put_off.damaged", id, row.head, row.generation);
  });
  Log(LogLevel::kError, "record_damaged",
      {{"owner_type", id.owner.type}, {"owner", id.owner.id}, {"kind", id.kind}, {"put_off", put_off}});
}

}  // namespace sallyport::vault

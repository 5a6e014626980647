// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include "absl/status/status.h"
#include <prometheus/counter.h>

#include "common/audit/outbox.h"
#include "common/caller/caller.h"
#include "common/sql/sql.h"
#include "services/vault/record_id.h"

namespace sallyport::vault {

// One decision about a record. `rule` is the operation for what was allowed, the reason for what was not.
audit::v1::Event MakeEvent(absl::string_view type, audit::v1::Decision decision, absl::string_view rule,
                           const Caller& caller);
void SetRecord(const RecordId& id, int64_t version, int64_t generation, audit::v1::Event& event);

// The vault's events, in the audit outbox before the answer goes out. Thread-safe.
class AuditTrail {
 public:
  // Must outlive it.
  explicit AuditTrail(AuditOutbox& outbox);

  // For decisions that change nothing else (reads, refusals). UNAVAILABLE audit_unavailable if it is not durable within
  // AuditOutbox::kRecordLimit; it may become so later.
  absl::Status Record(audit::v1::Event event);
  // For decisions about data that is written: in that transaction.
  absl::Status Append(Transaction& tx, audit::v1::Event event, AuditOutbox::Admit admit = AuditOutbox::Admit::kIfRoom) {
    return outbox_.Append(tx, std::move(event), admit);
  }
  void Kick() { outbox_.Kick(); }

 private:
  AuditOutbox& outbox_;
  prometheus::Counter& failures_;
};

}  // namespace sallyport::vault

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <future>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/audit_outbox.h"
#include "common/caller/caller.h"
#include "common/mutex.h"
#include "common/sql.h"
#include "services/vault/record_id.h"

namespace sallyport::vault {

// One decision about a record. `rule` is the operation for what was allowed, the reason for what was not.
audit::v1::Event MakeEvent(absl::string_view type, audit::v1::Decision decision, absl::string_view rule,
                           const Caller& caller);
void SetRecord(const RecordId& id, int64_t version, int64_t generation, audit::v1::Event& event);

// Writes decisions that change nothing else (reads, refusals) into the audit outbox before the answer goes out. Events
// that wait at the same time share one transaction, so that a read costs no synced write of its own. Thread-safe.
class AuditTrail {
 public:
  static constexpr absl::Duration kBudget = absl::Milliseconds(250);

  // Both must outlive it.
  AuditTrail(Database& database, AuditOutbox& outbox);
  ~AuditTrail();
  AuditTrail(const AuditTrail&) = delete;
  AuditTrail& operator=(const AuditTrail&) = delete;

  // UNAVAILABLE audit_unavailable if it is not durable within kBudget; it may become so later.
  absl::Status Record(audit::v1::Event event);
  // For decisions about data that is written: in that transaction.
  absl::Status Append(Transaction& tx, audit::v1::Event event) { return outbox_.Append(tx, std::move(event)); }
  void Kick() { outbox_.Kick(); }

 private:
  struct Waiting {
    audit::v1::Event event;
    std::promise<absl::Status> done;
  };
  void Run();
  void Write(std::deque<Waiting>& batch);

  static constexpr size_t kMaxWaiting = 4096;
  Database& database_;
  AuditOutbox& outbox_;
  Mutex mu_;
  std::condition_variable_any changed_;
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace sallyport::vault

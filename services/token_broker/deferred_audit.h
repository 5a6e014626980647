// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

#include "common/audit/segment.h"
#include "common/mutex.h"
#include "services/token_broker/audit_log.h"

namespace sallyport::token_broker {

// For decisions that are too frequent to wait for the disk one by one, as the edge records its calls: events are
// numbered in a shared page at once and written every 100 ms; what a crash takes is recorded as lost. Thread-safe.
class DeferredAudit {
 public:
  // Events that wait; about 400 bytes each.
  static constexpr size_t kMaxPending = 50'000;

  // Outlives this; null: nothing is recorded (tests).
  explicit DeferredAudit(AuditSegments* segments);
  // Writes what waits.
  ~DeferredAudit();

  // A few microseconds. UNAVAILABLE as AuditLog::Record while former events cannot be written or too many wait: then
  // what it records must not happen.
  absl::Status Record(const AuditLog::Entry& entry, absl::Time at);
  // Writes what waits now.
  void Flush();

 private:
  void Run();

  AuditSegments* const segments_;
  Mutex flush_mu_;
  std::vector<audit::v1::Event> writing_ ABSL_GUARDED_BY(flush_mu_);
  Mutex mu_;
  std::condition_variable_any wake_;
  std::vector<audit::v1::Event> pending_ ABSL_GUARDED_BY(mu_);
  bool writable_ ABSL_GUARDED_BY(mu_) = true;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace sallyport::token_broker

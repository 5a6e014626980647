// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "common/audit/segment.h"
#include "common/audit/shipper.h"
#include "common/mutex.h"
#include "sallyport/audit/v1/audit.pb.h"

namespace sallyport::edge {

// What is recorded of one call; views need to live during Record only.
struct CallRecord {
  absl::Time at;
  std::string_view type;  // "mcp.call" or "mcp.denied"
  audit::v1::Decision decision = audit::v1::DECISION_UNSPECIFIED;
  std::string_view rule;
  std::string_view principal_fields;  // Principal::audit_fields
  std::string_view server_fields;     // Serialized server_uid and server_slug.
  std::string_view credential_fields;
  std::string_view client_address;
  std::string_view mcp_method;
  std::string_view mcp_name;
  bool batch = false;  // Both are lists.
  std::string_view trace_id;
  int status = 0;
  int64_t latency_us = 0;
};

// Call audit: each worker serializes its calls into a buffer of its own; a thread writes all buffers to the segments
// every 100 ms and the shipper moves them on. What does not fit, or is lost in a crash, is counted and recorded as
// lost.
class CallAudit {
 public:
  static constexpr size_t kMaxWorkers = AuditSegments::kSlots;
  static constexpr size_t kBufferBytes = 16 << 20;  // Per worker and 100 ms; beyond, calls are counted as lost.

  CallAudit(std::unique_ptr<AuditSegments> segments, std::string source, std::unique_ptr<AuditShipper> shipper);
  ~CallAudit();

  // A call is admitted: from here on a crash leaves a trace of it. Exactly one Record follows.
  void Begin(size_t worker);
  // On the worker's own thread. A few hundred nanoseconds; allocates nothing once warm.
  void Record(size_t worker, const CallRecord& record);
  // The last record that was to be written, was: servers that demand audit may be served. Silence proves nothing; after
  // a failure the records of the calls that are refused show when it is over.
  bool writable() const { return writable_.load(std::memory_order_relaxed); }
  // Writes what is pending now.
  void Flush();

 private:
  struct Slot {
    Mutex mu;
    std::string buffer ABSL_GUARDED_BY(mu);  // u32 size, then the event's fields but source, boot and sequence.
    uint64_t dropped ABSL_GUARDED_BY(mu) = 0;
  };
  void Run();

  const std::unique_ptr<AuditSegments> segments_;
  std::string prefix_;  // Serialized source and boot.
  const std::unique_ptr<AuditShipper> shipper_;
  std::array<Slot, kMaxWorkers> slots_;
  std::atomic<bool> writable_{true};
  Mutex flush_mu_;
  std::string drained_ ABSL_GUARDED_BY(flush_mu_);
  std::string batch_ ABSL_GUARDED_BY(flush_mu_);
  uint64_t next_ ABSL_GUARDED_BY(flush_mu_) = 1;
  Mutex mu_;
  std::condition_variable_any wake_;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

// Serialized audit.v1.Event fields server_uid and server_slug.
std::string ServerAuditFields(const std::string& uid, const std::string& slug);

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/deferred_audit.h"

#include <chrono>
#include <iterator>
#include <utility>

#include "common/json_log.h"
#include "common/proto_time.h"

namespace sallyport::token_broker {
namespace {

constexpr auto kFlushInterval = std::chrono::milliseconds(100);

}  // namespace

DeferredAudit::DeferredAudit(AuditSegments* segments) : segments_(segments) {
  if (segments_ != nullptr) {
    thread_ = std::thread([this] { Run(); });
  }
}

DeferredAudit::~DeferredAudit() {
  if (segments_ == nullptr) {
    return;
  }
  {
    MutexLock lock(mu_);
    stopped_ = true;
    wake_.notify_all();
  }
  thread_.join();
  Flush();
}

absl::Status DeferredAudit::Record(const AuditLog::Entry& entry, absl::Time at) {
  if (segments_ == nullptr) {
    return absl::OkStatus();
  }
  audit::v1::Event event = EventOf(entry);
  *event.mutable_at() = ToTimestamp(at);
  MutexLock lock(mu_);
  if (!writable_ || pending_.size() >= kMaxPending) {
    return NotRecorded();
  }
  segments_->TakeOn();
  pending_.push_back(std::move(event));
  return absl::OkStatus();
}

void DeferredAudit::Flush() {
  MutexLock flush_lock(flush_mu_);
  {
    MutexLock lock(mu_);
    if (writing_.empty()) {
      writing_.swap(pending_);
    } else {
      std::move(pending_.begin(), pending_.end(), std::back_inserter(writing_));
      pending_.clear();
    }
  }
  if (writing_.empty()) {
    return;
  }
  const absl::Status written = segments_->WriteTaken(writing_);
  if (written.ok()) {
    writing_.clear();
  } else {
    // They stay, and are tried again with the next.
    Log(LogLevel::kError, "audit_write_failed", {{"status", written}, {"events", writing_.size()}});
  }
  MutexLock lock(mu_);
  writable_ = written.ok();
}

void DeferredAudit::Run() {
  while (true) {
    {
      std::unique_lock lock(mu_);
      wake_.wait_for(lock, kFlushInterval, [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stopped_; });
      if (stopped_) return;
    }
    Flush();
  }
}

}  // namespace sallyport::token_broker

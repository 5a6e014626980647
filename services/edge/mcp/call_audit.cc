// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/call_audit.h"

#include <cstring>

#include "common/json_log.h"
#include "common/text/string_view.h"
#include "common/text/utf8.h"
#include "services/edge/mcp/jsonrpc_scan.h"

namespace sallyport::edge {
namespace {

constexpr auto kFlushInterval = std::chrono::milliseconds(100);
constexpr size_t kMaxName = 256;

// Field numbers of sallyport.audit.v1.Event; a test parses what is written here with the generated code.
enum EventField : uint32_t {
  kSequence = 3,
  kAt = 4,
  kType = 5,
  kDecision = 6,
  kRule = 7,
  kClientAddress = 10,
  kMcpMethod = 13,
  kMcpName = 14,
  kStatus = 16,
  kLatency = 17,
  kTraceId = 18,
};

// At most ten bytes.
char* PutVarint(uint64_t value, char* at) {
  for (; value >= 0x80; value >>= 7) *at++ = static_cast<char>(value | 0x80);
  *at++ = static_cast<char>(value);
  return at;
}
void AppendVarint(uint64_t value, std::string& out) {
  char bytes[10];
  out.append(bytes, static_cast<size_t>(PutVarint(value, bytes) - bytes));
}
// A field's key and its value, or its length.
void AppendPair(uint64_t key, uint64_t value, std::string& out) {
  char bytes[20];
  out.append(bytes, static_cast<size_t>(PutVarint(value, PutVarint(key, bytes)) - bytes));
}
void AppendNumber(uint32_t field, uint64_t value, std::string& out) {
  if (value != 0) AppendPair(field << 3, value, out);
}
void AppendText(uint32_t field, std::string_view text, std::string& out) {
  if (text.empty()) return;
  AppendPair((field << 3) | 2, text.size(), out);
  out.append(text);
}

void AppendTime(absl::Time at, std::string& out) {
  const int64_t micros = absl::ToUnixMicros(at);
  std::string timestamp;  // Fits a std::string without allocation: 6 + 6 bytes at most.
  AppendNumber(1, static_cast<uint64_t>(micros / 1'000'000), timestamp);
  AppendNumber(2, static_cast<uint64_t>(micros % 1'000'000) * 1000, timestamp);
  AppendText(kAt, timestamp, out);
}

}  // namespace

std::string ServerAuditFields(const std::string& uid, const std::string& slug) {
  audit::v1::Event event;
  event.set_server_uid(uid);
  event.set_server_slug(slug);
  return event.SerializeAsString();
}

CallAudit::CallAudit(std::unique_ptr<AuditSegments> segments, std::string source, std::unique_ptr<AuditShipper> shipper)
    : segments_(std::move(segments)), shipper_(std::move(shipper)) {
  audit::v1::Event event;
  event.set_source(std::move(source));
  event.set_boot(segments_->boot());
  prefix_ = event.SerializeAsString();
  thread_ = std::thread([this] { Run(); });
}

CallAudit::~CallAudit() {
  {
    MutexLock lock(mu_);
    stopped_ = true;
    wake_.notify_all();
  }
  thread_.join();
  Flush();
  if (const absl::Status closed = segments_->Close(); !closed.ok()) {
    Log(LogLevel::kError, "audit_close_failed", {{"status", closed}});
  }
}

void CallAudit::Begin(size_t worker) {
  segments_->given_out(static_cast<int>(worker % kMaxWorkers)).fetch_add(1, std::memory_order_relaxed);
}

void CallAudit::Record(size_t worker, const CallRecord& record) {
  Slot& slot = slots_[worker % kMaxWorkers];
  MutexLock lock(slot.mu);
  std::string& out = slot.buffer;
  if (out.size() >= kBufferBytes) {
    ++slot.dropped;
    writable_.store(false, std::memory_order_relaxed);
    return;
  }
  const size_t begin = out.size();
  out.append(sizeof(uint32_t), '\0');
  AppendTime(record.at, out);
  AppendText(kType, record.type, out);
  AppendNumber(kDecision, static_cast<uint64_t>(record.decision), out);
  AppendText(kRule, record.rule, out);
  out.append(record.principal_fields);
  out.append(record.server_fields);
  out.append(record.credential_fields);
  AppendText(kClientAddress, record.client_address, out);
  const size_t most = record.batch ? RpcMessage::kMaxBatchList : kMaxName;
  AppendText(kMcpMethod, ToStd(Utf8Prefix(ToAbsl(record.mcp_method), most)), out);
  AppendText(kMcpName, ToStd(Utf8Prefix(ToAbsl(record.mcp_name), most)), out);
  AppendNumber(kStatus, static_cast<uint64_t>(record.status), out);
  AppendNumber(kLatency, static_cast<uint64_t>(record.latency_us), out);
  AppendText(kTraceId, record.trace_id, out);
  const auto size = static_cast<uint32_t>(out.size() - begin - sizeof(uint32_t));
  std::memcpy(out.data() + begin, &size, sizeof(size));
}

void CallAudit::Flush() {
  MutexLock flush_lock(flush_mu_);
  batch_.clear();
  const uint64_t first = next_;
  uint64_t dropped = 0;
  std::string sequence;
  for (Slot& slot : slots_) {
    {
      MutexLock lock(slot.mu);
      dropped += slot.dropped;
      slot.dropped = 0;
      if (slot.buffer.empty()) continue;
      // Swapping keeps both buffers' memory.
      drained_.clear();
      drained_.swap(slot.buffer);
    }
    for (size_t at = 0; at < drained_.size();) {
      uint32_t size = 0;
      std::memcpy(&size, drained_.data() + at, sizeof(size));
      at += sizeof(size);
      sequence.clear();
      AppendNumber(kSequence, next_++, sequence);
      AppendVarint(prefix_.size() + sequence.size() + size, batch_);
      batch_.append(prefix_).append(sequence).append(drained_, at, size);
      at += size;
    }
  }
  bool written = true;
  if (next_ > first) {
    const absl::Status appended = segments_->AppendSerialized(batch_, first, next_ - 1);
    written = appended.ok();
    if (!written) Log(LogLevel::kError, "audit_write_failed", {{"status", appended}, {"events", next_ - first}});
  }
  if (next_ > first || dropped > 0) writable_.store(written && dropped == 0, std::memory_order_relaxed);
  next_ += dropped;  // The gap is recorded as lost by the next write.
}

void CallAudit::Run() {
  while (true) {
    {
      std::unique_lock lock(mu_);
      wake_.wait_for(lock, kFlushInterval, [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stopped_; });
      if (stopped_) return;
    }
    Flush();
  }
}

}  // namespace sallyport::edge

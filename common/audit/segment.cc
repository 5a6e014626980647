// SPDX-License-Identifier: Apache-2.0
#include "common/audit/segment.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <unistd.h>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include <openssl/evp.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/audit/segment_format.h"
#include "common/crypto/random.h"
#include "common/error.h"
#include "common/files.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/mutex.h"
#include "common/proto_time.h"
#include "common/status_macros.h"

namespace sallyport {
namespace {

using audit_format::kHashSize;

constexpr uint64_t kPageMagic = 0x5350415544534551;  // "SPAUDSEQ"
constexpr size_t kPageSize = 4096;
constexpr size_t kBootSize = 22;
constexpr int64_t kMinMaxBytes = 64 << 20;  // Eight segments.

// The shared page. Slots are a cache line apart, so that threads do not meet.
struct alignas(64) Slot {
  std::atomic<uint64_t> count;
};
struct alignas(64) PageHead {
  uint64_t magic;
  char boot[kBootSize + 2];
  std::atomic<uint64_t> written;  // Highest number written or recorded as lost.
};
struct Page {
  PageHead head;
  Slot slots[AuditSegments::kSlots];
};
static_assert(sizeof(Page) <= kPageSize);
static_assert(std::atomic<uint64_t>::is_always_lock_free, "a page shared with the next process needs it");

absl::Status IoError(absl::string_view what, const std::string& path) {
  const int error = errno;
  const std::string text = absl::StrCat(what, " ", path, ": ", strerror(error));
  return error == ENOSPC || error == EDQUOT ? absl::ResourceExhaustedError(text) : absl::UnavailableError(text);
}

absl::Status WriteAll(int fd, absl::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) {
      continue;
    }
    if (n < 0) {
      return IoError("cannot write", path);
    }
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

void SyncDirectory(const std::string& directory) {
  const int fd = open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd >= 0) {
    fsync(fd);
    close(fd);
  }
}

// Reads a base-128 varint (the protobuf encoding); false if it is not whole.
bool ConsumeVarint(absl::string_view* bytes, uint64_t* value) {
  *value = 0;
  for (int shift = 0; shift < 64 && !bytes->empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(bytes->front());
    bytes->remove_prefix(1);
    *value |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if ((byte & 0x80) == 0) {
      return true;
    }
  }
  return false;
}

constexpr CounterInfo kWritten = {
    .name = "sallyport_audit_written_total",
    .help = "Audit events written to segment files",
    .unit = "events",
    .rise = "Load",
    .action =
        "Nothing. Standing still under load: look at `sallyport_audit_lost_total` and the disk of `dataDirectory`",
};
constexpr CounterInfo kLost = {
    .name = "sallyport_audit_lost_total",
    .help = "Audit events lost; each loss is recorded as an event of type lost",
    .unit = "events",
    .rise = "Events did not fit in the ring or in `auditBacklogLimit`, or died with the process",
    .action =
        "Free disk space for the segments and let the backlog ship; the event `lost` says how many are missing "
        "and of which source",
};

}  // namespace

struct AuditSegments::State {
  Options options;
  const Clock* clock = nullptr;
  std::string boot;
  int lock_fd = -1;
  Page* page = nullptr;

  prometheus::Counter& written = MetricCounter(kWritten);
  prometheus::Counter& lost = MetricCounter(kLost);

  Mutex mu;
  std::condition_variable_any synced;
  int fd ABSL_GUARDED_BY(mu) = -1;
  std::string path ABSL_GUARDED_BY(mu);
  int64_t size ABSL_GUARDED_BY(mu) = 0;
  uint64_t number ABSL_GUARDED_BY(mu) = 0;  // Of the segment.
  uint64_t last ABSL_GUARDED_BY(mu) = 0;    // Sequence.
  std::string chain ABSL_GUARDED_BY(mu) = std::string(kHashSize, '\0');
  std::string buffer ABSL_GUARDED_BY(mu);        // Reused.
  std::string lost_event ABSL_GUARDED_BY(mu);    // Reused.
  uint64_t framed_lost ABSL_GUARDED_BY(mu) = 0;  // In `buffer`.
  bool closed ABSL_GUARDED_BY(mu) = false;
  std::atomic<bool> deferring{false};
  // Group commit: writes up to `write_ticket` are in the file, up to `sync_ticket` on disk.
  uint64_t write_ticket ABSL_GUARDED_BY(mu) = 0;
  uint64_t sync_ticket ABSL_GUARDED_BY(mu) = 0;
  bool syncing ABSL_GUARDED_BY(mu) = false;
  bool abandon ABSL_GUARDED_BY(mu) = false;  // The current file.
  // Tickets in (failed_from, failed_through] may not be on disk, and never will be for certain.
  uint64_t failed_from ABSL_GUARDED_BY(mu) = 0;
  uint64_t failed_through ABSL_GUARDED_BY(mu) = 0;
  // Bytes in former segments when last looked; refreshed when a segment is begun and while over the limit.
  int64_t backlog_bytes ABSL_GUARDED_BY(mu) = 0;
  absl::Time measured_at ABSL_GUARDED_BY(mu) = absl::InfinitePast();

  ~State() {
    if (fd >= 0) {
      close(fd);
    }
    if (page != nullptr) {
      munmap(page, kPageSize);
    }
    if (lock_fd >= 0) {
      close(lock_fd);
    }
  }

  std::string SegmentPath(const std::string& of_boot, uint64_t of_number) const {
    return absl::StrCat(options.directory, "/", of_boot, "-", absl::StrFormat("%08d", of_number), ".seg");
  }
  std::string PagePath() const { return options.directory + "/sequence"; }

  absl::Status Lock();
  absl::Status Recover();
  absl::Status RecoverBoot(const std::string& old_boot, uint64_t old_written, uint64_t in_slots);
  absl::Status MapPage();
  absl::Status BeginSegment() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  absl::Status Admit() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Adds one record to `buffer`, moving `next_chain` on.
  void Frame(absl::string_view event, std::string* next_chain) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void FrameLost(uint64_t from, uint64_t to, std::string* next_chain) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Writes `buffer` whole or not at all.
  absl::Status WriteBuffer(std::string next_chain, uint64_t next_last) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  absl::Status AwaitSync(uint64_t ticket) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  // Of the deferred mode: the highest number that what was written and taken on needs, in the shared page.
  std::atomic<uint64_t>& needed() { return page->slots[kSlots - 1].count; }
  // In `buffer`, which is begun anew; the numbers follow `last`.
  absl::Status FrameNumbered(const std::vector<audit::v1::Event>& events, std::string* next_chain)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void NoteSynced(uint64_t through) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) { sync_ticket = std::max(sync_ticket, through); }
  // After a failed fsync the kernel may have dropped the pages, and the next fsync says OK: what was not yet known to
  // be safe stays failed, and another file is begun.
  void NoteSyncFailed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    failed_from = failed_through == 0 ? sync_ticket : failed_from;
    failed_through = write_ticket;
    abandon = true;
  }
};

absl::Status AuditSegments::State::Lock() {
  const std::string lock_path = options.directory + "/lock";
  lock_fd = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_fd < 0) {
    return IoError("cannot open", lock_path);
  }
  if (flock(lock_fd, LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("another process uses ", options.directory, ": every replica needs a directory of its own"));
  }
  return absl::OkStatus();
}

// The page of the former process tells how many events it had taken on; its segments, how many it wrote.
absl::Status AuditSegments::State::Recover() {
  const absl::StatusOr<std::string> old = ReadFile(PagePath(), kPageSize);
  if (absl::IsNotFound(old.status())) {
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(old.status());
  alignas(Page) char bytes[kPageSize] = {};
  std::memcpy(bytes, old->data(), old->size());  // NOLINT(bugprone-not-null-terminated-result): a page, no string.
  const auto* former = reinterpret_cast<const Page*>(bytes);
  if (former->head.magic != kPageMagic) {
    return absl::OkStatus();  // Closed cleanly.
  }
  uint64_t in_slots = 0;
  for (const Slot& slot : former->slots) {
    in_slots += slot.count.load();
  }
  return RecoverBoot(std::string(former->head.boot, kBootSize), former->head.written.load(), in_slots);
}

absl::Status AuditSegments::State::RecoverBoot(const std::string& old_boot, uint64_t old_written, uint64_t in_slots) {
  MutexLock guard(mu);
  boot = old_boot;
  bool found = false;
  for (const audit_format::SegmentFile& file : audit_format::ListSegments(options.directory)) {
    if (file.boot != old_boot) {
      continue;
    }
    const absl::StatusOr<audit_format::Tail> tail = audit_format::CutTail(file.path);
    if (tail.ok()) {
      last = tail->last_sequence;
      chain = tail->chain;
      number = file.number;
      found = true;
    } else {
      unlink(file.path.c_str());  // Not even a header: it was being begun.
    }
  }
  if (!found) {
    last = old_written;  // All its files have been shipped.
  }
  const uint64_t given_out = std::max(old_written, in_slots);
  if (last >= given_out) {
    return absl::OkStatus();
  }
  Log(LogLevel::kError, "audit_events_lost", {{"boot", old_boot}, {"from", last + 1}, {"to", given_out}});
  RETURN_IF_ERROR(BeginSegment());
  buffer.clear();
  std::string next_chain = chain;
  FrameLost(last + 1, given_out, &next_chain);
  RETURN_IF_ERROR(WriteBuffer(std::move(next_chain), given_out));
  return fdatasync(fd) == 0 ? absl::OkStatus() : IoError("cannot sync", path);
}

absl::Status AuditSegments::State::MapPage() {
  // A new file, renamed over the old one: the former boot's page stays whole until ours is.
  const std::string fresh = PagePath() + ".new";
  const int page_fd = open(fresh.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (page_fd < 0) {
    return IoError("cannot open", fresh);
  }
  const absl::Cleanup close_fd = [page_fd] { close(page_fd); };
  if (ftruncate(page_fd, kPageSize) != 0) {
    return IoError("cannot size", fresh);
  }
  void* mapped = mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, page_fd, 0);
  if (mapped == MAP_FAILED) {
    return IoError("cannot map", fresh);
  }
  page = static_cast<Page*>(mapped);  // Zeroes, which are valid counters.
  std::memcpy(page->head.boot, boot.data(), kBootSize);
  page->head.magic = kPageMagic;
  if (fsync(page_fd) != 0 || rename(fresh.c_str(), PagePath().c_str()) != 0) {
    return IoError("cannot put in place", PagePath());
  }
  SyncDirectory(options.directory);
  return absl::OkStatus();
}

absl::Status AuditSegments::State::BeginSegment() {
  if (fd >= 0) {
    const bool good = fdatasync(fd) == 0;
    close(std::exchange(fd, -1));
    good && !abandon ? NoteSynced(write_ticket) : NoteSyncFailed();
    abandon = false;
  }
  path = SegmentPath(boot, ++number);
  fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) {
    return IoError("cannot create", path);
  }
  const std::string header = audit_format::Header(options.source, boot, last, chain);
  size = static_cast<int64_t>(header.size());
  absl::Status status = WriteAll(fd, header, path);
  if (!status.ok()) {
    close(std::exchange(fd, -1));
    unlink(path.c_str());
    return status;
  }
  SyncDirectory(options.directory);
  return absl::OkStatus();
}

absl::Status AuditSegments::State::Admit() {
  if (closed) {
    return absl::FailedPreconditionError("the audit segments are closed");
  }
  const absl::Time now = clock->Now();
  if (now - measured_at > absl::Seconds(1) || now < measured_at) {
    measured_at = now;
    backlog_bytes = audit_format::TotalBytes(options.directory);
  }
  if (backlog_bytes >= options.max_bytes) {
    return WithReason(
        absl::ResourceExhaustedError("too many audit events wait to be shipped: is the registry reachable?"),
        "audit_backlog");
  }
  return fd < 0 || abandon || size >= options.segment_bytes ? BeginSegment() : absl::OkStatus();
}

void AuditSegments::State::Frame(absl::string_view event, std::string* next_chain) {
  audit_format::AppendRecord(event, next_chain, &buffer);
}

absl::Status AuditSegments::State::FrameNumbered(const std::vector<audit::v1::Event>& events, std::string* next_chain) {
  buffer.clear();
  uint64_t sequence = last;
  audit::v1::Event numbered;
  std::string bytes;
  for (const audit::v1::Event& event : events) {
    numbered = event;
    numbered.set_source(options.source);
    numbered.set_boot(boot);
    numbered.set_sequence(++sequence);
    if (!numbered.has_at()) {
      *numbered.mutable_at() = ToTimestamp(clock->Now());
    }
    numbered.SerializeToString(&bytes);
    if (bytes.size() > audit_format::kMaxEventBytes) {
      return absl::InvalidArgumentError("the audit event is larger than 64 KiB");
    }
    Frame(bytes, next_chain);
  }
  return absl::OkStatus();
}

void AuditSegments::State::FrameLost(uint64_t from, uint64_t to, std::string* next_chain) {
  audit::v1::Event event;
  event.set_source(options.source);
  event.set_boot(boot);
  event.set_sequence(to);
  *event.mutable_at() = ToTimestamp(clock->Now());
  event.set_type("lost");
  event.set_lost_from(from);
  event.set_lost_to(to);
  event.SerializeToString(&lost_event);
  Frame(lost_event, next_chain);
  framed_lost += to - from + 1;
}

absl::Status AuditSegments::State::WriteBuffer(std::string next_chain, uint64_t next_last) {
  absl::Status status = WriteAll(fd, buffer, path);
  const uint64_t lost_now = std::exchange(framed_lost, 0);
  if (!status.ok()) {
    // Half a record must not stand in front of the next one.
    if (ftruncate(fd, size) != 0) {
      close(std::exchange(fd, -1));  // A new segment; recovery and the shipper stop at the torn record.
    }
    return status;
  }
  lost.Increment(static_cast<double>(lost_now));
  size += static_cast<int64_t>(buffer.size());
  chain = std::move(next_chain);
  last = next_last;
  if (page != nullptr) {
    page->head.written.store(last, std::memory_order_relaxed);
  }
  ++write_ticket;
  return absl::OkStatus();
}

// One caller syncs for all that wrote before it began.
absl::Status AuditSegments::State::AwaitSync(uint64_t ticket) {
  std::unique_lock<Mutex> lock(mu);
  for (;;) {
    if (ticket > failed_from && ticket <= failed_through) {
      return absl::UnavailableError("the audit event may not have reached the disk");
    }
    if (sync_ticket >= ticket) {
      return absl::OkStatus();
    }
    if (syncing) {
      synced.wait(lock);
      continue;
    }
    syncing = true;
    const uint64_t covered = write_ticket;
    const int sync_fd = dup(fd);  // Another file may be begun meanwhile (which syncs this one first).
    lock.unlock();
    const bool good = sync_fd >= 0 && fdatasync(sync_fd) == 0;
    if (sync_fd >= 0) {
      close(sync_fd);
    }
    lock.lock();
    syncing = false;
    good ? NoteSynced(covered) : NoteSyncFailed();
    synced.notify_all();
  }
}

absl::StatusOr<int64_t> AuditSegments::MaxBytesFrom(int64_t configured, absl::string_view field) {
  if (configured == 0) {
    return kDefaultMaxBytes;
  }
  if (configured < kMinMaxBytes) {
    return InvalidField(field, absl::StrCat("must be at least ", kMinMaxBytes, " (64 MiB)"));
  }
  return configured;
}

absl::StatusOr<std::unique_ptr<AuditSegments>> AuditSegments::Open(const Options& options, const Clock& clock) {
  auto segments = std::unique_ptr<AuditSegments>(new AuditSegments);
  segments->state_ = std::make_unique<State>();
  State& state = *segments->state_;
  state.options = options;
  state.clock = &clock;
  RETURN_IF_ERROR(MakeDirectories(options.directory));
  RETURN_IF_ERROR(state.Lock());
  RETURN_IF_ERROR(state.Recover());
  MutexLock lock(state.mu);
  if (state.fd >= 0) {
    close(std::exchange(state.fd, -1));
  }
  state.boot = RandomToken("", 16);
  state.number = 0;
  state.last = 0;
  state.chain = std::string(kHashSize, '\0');
  RETURN_IF_ERROR(state.MapPage());
  return segments;
}

AuditSegments::~AuditSegments() {
  if (state_ != nullptr) {
    Close().IgnoreError();
  }
}

const std::string& AuditSegments::boot() const { return state_->boot; }
const std::string& AuditSegments::directory() const { return state_->options.directory; }
std::atomic<uint64_t>& AuditSegments::given_out(int slot) { return state_->page->slots[slot % kSlots].count; }

uint64_t AuditSegments::last_sequence() const {
  MutexLock lock(state_->mu);
  return state_->last;
}

absl::Status AuditSegments::Append(audit::v1::Event event) {
  State& state = *state_;
  event.set_source(state.options.source);
  event.set_boot(state.boot);
  if (!event.has_at()) {
    *event.mutable_at() = ToTimestamp(state.clock->Now());
  }
  uint64_t ticket = 0;
  {
    MutexLock lock(state.mu);
    RETURN_IF_ERROR(state.Admit());
    event.set_sequence(state.last + 1);
    state.buffer.clear();
    std::string next_chain = state.chain;
    const std::string bytes = event.SerializeAsString();
    if (bytes.size() > audit_format::kMaxEventBytes) {
      return absl::InvalidArgumentError("the audit event is larger than 64 KiB");
    }
    state.Frame(bytes, &next_chain);
    RETURN_IF_ERROR(state.WriteBuffer(std::move(next_chain), event.sequence()));
    ticket = state.write_ticket;
    if (state.deferring.load(std::memory_order_relaxed)) {
      state.needed().fetch_add(1, std::memory_order_relaxed);
    }
  }
  RETURN_IF_ERROR(state.AwaitSync(ticket));
  state.written.Increment();
  return absl::OkStatus();
}

void AuditSegments::TakeOn() {
  State& state = *state_;
  if (!state.deferring.load(std::memory_order_acquire)) {
    MutexLock lock(state.mu);
    if (!state.deferring.load(std::memory_order_relaxed)) {
      state.needed().store(state.last, std::memory_order_relaxed);
      state.deferring.store(true, std::memory_order_release);
    }
  }
  state.needed().fetch_add(1, std::memory_order_relaxed);
}

absl::Status AuditSegments::WriteTaken(const std::vector<audit::v1::Event>& events) {
  State& state = *state_;
  MutexLock lock(state.mu);
  RETURN_IF_ERROR(state.Admit());
  std::string next_chain = state.chain;
  RETURN_IF_ERROR(state.FrameNumbered(events, &next_chain));
  RETURN_IF_ERROR(state.WriteBuffer(std::move(next_chain), state.last + events.size()));
  state.written.Increment(static_cast<double>(events.size()));
  return absl::OkStatus();
}

absl::Status AuditSegments::AppendSerialized(absl::string_view batch, uint64_t first, uint64_t last) {
  State& state = *state_;
  MutexLock lock(state.mu);
  if (first <= state.last || last < first) {
    return absl::InvalidArgumentError(absl::StrCat("sequences ", first, "..", last, " do not follow ", state.last));
  }
  RETURN_IF_ERROR(state.Admit());
  state.buffer.clear();
  std::string next_chain = state.chain;
  if (first != state.last + 1) {
    state.FrameLost(state.last + 1, first - 1, &next_chain);
  }
  uint64_t events = 0;
  while (!batch.empty()) {
    uint64_t length = 0;
    if (!ConsumeVarint(&batch, &length) || length > batch.size() || length > audit_format::kMaxEventBytes) {
      state.framed_lost = 0;
      return absl::InvalidArgumentError("the batch is cut short or holds an event larger than 64 KiB");
    }
    state.Frame(batch.substr(0, length), &next_chain);
    batch.remove_prefix(length);
    ++events;
  }
  if (events != last - first + 1) {
    state.framed_lost = 0;
    return absl::InvalidArgumentError(absl::StrCat("the batch holds ", events, " events, not ", last - first + 1));
  }
  RETURN_IF_ERROR(state.WriteBuffer(std::move(next_chain), last));
  state.written.Increment(static_cast<double>(events));
  return absl::OkStatus();
}

absl::Status AuditSegments::Close() {
  State& state = *state_;
  MutexLock lock(state.mu);
  if (std::exchange(state.closed, true)) {
    return absl::OkStatus();
  }
  if (state.fd >= 0 && fdatasync(state.fd) != 0) {
    return IoError("cannot sync", state.path);
  }
  // Numbers given out and never written stay behind for the next start to see.
  uint64_t given_out = 0;
  for (int slot = 0; state.page != nullptr && slot < kSlots; ++slot) {
    given_out += state.page->slots[slot].count.load();
  }
  if (state.page != nullptr && given_out <= state.last) {
    state.page->head.magic = 0;
  }
  return absl::OkStatus();
}

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "common/audit/shipper.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <ctime>
#include <filesystem>
#include <map>
#include <set>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include <google/protobuf/util/time_util.h>

#include "common/audit/segment.h"
#include "common/audit/segment_format.h"
#include "common/backoff.h"
#include "common/crypto/random.h"
#include "common/files.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/mutex.h"
#include "common/status_macros.h"
#include "common/text/hex.h"

namespace sallyport {
namespace {

constexpr absl::Duration kCursorEvery = absl::Seconds(2);
constexpr size_t kMaxBatchBytes = 2 << 20;  // Of the 4 MiB a message may have.

// The longest pause between batches, however long the last one took: a slow store must not stop shipping for minutes.
constexpr absl::Duration kMaxPause = absl::Seconds(1);
// What AuditSegments counts is whole files, of which one may be shipped in part.
constexpr int64_t kSegment = 8 << 20;
// A pass over many segments takes minutes; how much waits is looked at this often meanwhile.
constexpr absl::Duration kMeasureEvery = absl::Seconds(1);

constexpr CounterInfo kShipped = {
    .name = "sallyport_audit_shipped_total",
    .help = "Audit events of segment files that the registry has stored",
    .unit = "events",
    .rise = "Load",
    .action = "Nothing. Standing still while events are written: look at `sallyport_audit_backlog_bytes`",
};
constexpr CounterInfo kBroken = {
    .name = "sallyport_audit_chain_broken_total",
    .help = "Audit segments that were altered or damaged; each is kept as *.broken",
    .unit = "segments",
    .rise = "Somebody edited a segment file, or the disk damaged it",
    .action = "Keep the `*.broken` file as evidence, find out who can write to `dataDirectory`, and check the disk",
};
constexpr GaugeInfo kBacklog = {
    .name = "sallyport_audit_backlog_bytes",
    .help = "Bytes of audit segments that are not yet shipped, measured when the metric is read",
    .unit = "bytes",
    .labels = {{"service", "edge, token_broker"}},
    .rise = "The registry does not take events as fast as they come, or is down",
    .action =
        "Bring the registry and its store back. At `auditBacklogLimit` events are lost, and what must be "
        "recorded first is refused",
};

}  // namespace

struct AuditShipper::State {
  Options options;
  AuditSink sink;

  prometheus::Counter& shipped = MetricCounter(kShipped);
  prometheus::Counter& broken = MetricCounter(kBroken);
  prometheus::Gauge* backlog = nullptr;

  Mutex mu;
  std::condition_variable_any changed;
  bool stopping ABSL_GUARDED_BY(mu) = false;
  uint64_t passes_wanted ABSL_GUARDED_BY(mu) = 0;  // By Flush: a clean pass begun after this one was asked for.
  uint64_t passes_begun ABSL_GUARDED_BY(mu) = 0;
  uint64_t clean_pass ABSL_GUARDED_BY(mu) = 0;  // The newest pass that left nothing behind.
  std::thread thread;

  // Only the thread uses what follows.
  std::string path;  // Of the segment being read.
  std::unique_ptr<AuditSegmentReader> reader;
  std::map<std::string, uint64_t> last_shipped;  // By boot.
  int64_t saved_offset = -1;
  absl::Time saved_at = absl::InfinitePast();
  int64_t waiting = 0;  // Bytes.
  std::chrono::steady_clock::time_point measured_at;

  // How much of the file being read is shipped.
  std::atomic<int64_t> shipped_of_file{0};
  std::unique_ptr<MetricProbe> probe;  // The last member: it uses the others.

  void Run();
  void Measure(const std::vector<audit_format::SegmentFile>& files);
  double Share() const;
  // OK if everything there is was shipped.
  absl::Status Pass();
  absl::Status ShipSegment(const audit_format::SegmentFile& file, bool complete);
  absl::Status OpenSegment(const audit_format::SegmentFile& file);
  // Fills a batch; OK, or why the file yields no more now.
  absl::Status ReadBatch(audit::v1::AppendRequest* request);
  absl::Status Send(const audit::v1::AppendRequest& request);
  void Finish(const audit_format::SegmentFile& file, bool is_broken);
  void SaveCursor(bool now);
  void RestoreCursor();
  std::string CursorPath() const { return options.directory + "/cursor"; }
  // False if stopping.
  bool Sleep(absl::Duration duration, bool until_kicked);
};

bool AuditShipper::State::Sleep(absl::Duration duration, bool until_kicked) {
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(duration);
  MutexLock lock(mu);
  while (!stopping && !(until_kicked && passes_wanted > passes_begun) &&
         changed.wait_until(mu, deadline) != std::cv_status::timeout) {
  }
  return !stopping;
}

// "<segment file> <offset> <chain, hex> <last sequence shipped>"
void AuditShipper::State::RestoreCursor() {
  const absl::StatusOr<std::string> text = ReadFile(CursorPath(), 4096);
  if (!text.ok()) {
    return;
  }
  const std::vector<std::string> parts = absl::StrSplit(*text, ' ');
  int64_t offset = 0;
  uint64_t last = 0;
  if (parts.size() != 4 || !absl::SimpleAtoi(parts[1], &offset) || !absl::SimpleAtoi(parts[3], &last)) {
    return;
  }
  const absl::StatusOr<std::string> chain = HexDecode(parts[2]);
  absl::StatusOr<std::unique_ptr<AuditSegmentReader>> opened =
      AuditSegmentReader::Open(absl::StrCat(options.directory, "/", parts[0]));
  // Without a cursor the file is shipped again from its beginning, which the store does not mind.
  if (chain.ok() && opened.ok() && (*opened)->Seek(offset, *chain).ok()) {
    reader = *std::move(opened);
    path = absl::StrCat(options.directory, "/", parts[0]);
    last_shipped[reader->boot()] = last;
    shipped_of_file = offset;
  }
}

void AuditShipper::State::SaveCursor(bool now) {
  const absl::Time time = absl::FromChrono(std::chrono::system_clock::now());
  if (reader == nullptr || reader->offset() == saved_offset || (!now && time - saved_at < kCursorEvery)) {
    return;
  }
  saved_at = time;
  saved_offset = reader->offset();
  const std::string name = std::filesystem::path(path).filename().string();
  const absl::Status saved = WriteFileAtomic(
      CursorPath(),
      absl::StrCat(name, " ", reader->offset(), " ", HexEncode(reader->chain()), " ", last_shipped[reader->boot()]));
  if (!saved.ok()) {
    Log(LogLevel::kWarning, "audit_cursor_not_saved", {{"error", saved}});
  }
}

absl::Status AuditShipper::State::OpenSegment(const audit_format::SegmentFile& file) {
  if (reader != nullptr && path == file.path) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(reader, AuditSegmentReader::Open(file.path));
  path = file.path;
  saved_offset = -1;
  shipped_of_file = reader->offset();
  // Only the first file of a boot says where it begins: a later one may follow a damaged one.
  last_shipped.emplace(reader->boot(), reader->last_sequence_before());
  return absl::OkStatus();
}

absl::Status AuditShipper::State::ReadBatch(audit::v1::AppendRequest* request) {
  std::string bytes;
  size_t total = 0;
  uint64_t last = last_shipped[reader->boot()];
  while (request->events_size() < options.batch && total < kMaxBatchBytes) {
    absl::Status next = reader->Next(&bytes);
    if (!next.ok()) {
      return next;
    }
    audit::v1::Event event;
    if (!event.ParseFromString(bytes)) {
      return absl::DataLossError("an audit event does not parse");
    }
    const uint64_t first = event.type() == "lost" ? event.lost_from() : event.sequence();
    if (first > last + 1) {
      // Part of a damaged file: the store learns of the gap here.
      audit::v1::Event& gap = *request->add_events();
      gap.set_source(reader->source());
      gap.set_boot(reader->boot());
      gap.set_sequence(first - 1);
      *gap.mutable_at() = event.at();
      gap.set_type("lost");
      gap.set_lost_from(last + 1);
      gap.set_lost_to(first - 1);
    }
    last = std::max(last, event.sequence());
    total += bytes.size();
    *request->add_events() = std::move(event);
  }
  return absl::OkStatus();
}

absl::Status AuditShipper::State::Send(const audit::v1::AppendRequest& request) {
  ASSIGN_OR_RETURN(const uint64_t stored_through, sink(request));
  const audit::v1::Event& newest = request.events(request.events_size() - 1);
  if (stored_through < newest.sequence()) {
    const audit::v1::Event& oldest = request.events(0);
    const uint64_t first = oldest.type() == "lost" ? oldest.lost_from() : oldest.sequence();
    if (stored_through + 1 < first) {
      // The store lost what it once had (a restore): the next attempt says so, or it would never go on.
      last_shipped[reader->boot()] = stored_through;
    }
    return absl::UnavailableError(
        absl::StrCat("the audit store has events up to ", stored_through, " of ", newest.sequence()));
  }
  last_shipped[reader->boot()] = newest.sequence();
  shipped.Increment(request.events_size());
  return absl::OkStatus();
}

void AuditShipper::State::Finish(const audit_format::SegmentFile& file, bool is_broken) {
  reader.reset();
  path.clear();
  shipped_of_file = 0;
  std::error_code error;
  if (is_broken) {
    broken.Increment();
    std::filesystem::rename(file.path, file.path + ".broken", error);
  } else {
    unlink(file.path.c_str());
  }
}

absl::Status AuditShipper::State::ShipSegment(const audit_format::SegmentFile& file, bool complete) {
  if (const absl::Status opened = OpenSegment(file); !opened.ok()) {
    if (complete && absl::IsDataLoss(opened)) {
      Log(LogLevel::kError, "audit_segment_broken", {{"file", file.path}, {"error", opened}});
      Finish(file, true);
      return absl::OkStatus();
    }
    return complete ? opened : absl::OkStatus();  // The header of a file being begun.
  }
  for (;;) {
    const int64_t offset = reader->offset();
    const std::string chain = reader->chain();
    // Wall time, the store's work included: it may be done in this very process, and is slow just when the machine is
    // busy.
    const auto before = std::chrono::steady_clock::now();
    audit::v1::AppendRequest request;
    const absl::Status read = ReadBatch(&request);
    if (request.events_size() > 0) {
      if (absl::Status sent = Send(request); !sent.ok()) {
        // The batch is read again; a seek back to where it began cannot fail but for a bug, then the file is.
        reader.reset();
        RETURN_IF_ERROR(OpenSegment(file));
        RETURN_IF_ERROR(reader->Seek(offset, chain));
        return sent;
      }
      SaveCursor(false);
    }
    shipped_of_file = reader->offset();
    if (absl::IsOutOfRange(read)) {
      if (complete) {
        Finish(file, false);
      }
      return absl::OkStatus();
    }
    if (absl::IsDataLoss(read)) {
      Log(LogLevel::kError, "audit_segment_broken", {{"file", file.path}, {"error", read}});
      Finish(file, true);
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(read);
    const absl::Duration spent = absl::FromChrono(std::chrono::steady_clock::now() - before);
    if (absl::FromChrono(before - measured_at) >= kMeasureEvery) {
      Measure(audit_format::ListSegments(options.directory));
    }
    if (!Sleep(std::min(spent * (1 / Share() - 1), kMaxPause), false)) {
      return absl::CancelledError("stopping");
    }
  }
}

void AuditShipper::State::Measure(const std::vector<audit_format::SegmentFile>& files) {
  measured_at = std::chrono::steady_clock::now();
  waiting = 0;
  for (const audit_format::SegmentFile& file : files) {
    waiting += file.bytes - (reader != nullptr && file.path == path ? reader->offset() : 0);
  }
  waiting = std::max<int64_t>(waiting, 0);
}

double AuditShipper::State::Share() const {
  const double over_half = 2 * static_cast<double>(waiting + kSegment) / static_cast<double>(options.max_bytes) - 1;
  return std::clamp(over_half, options.share, 1.0);
}

absl::Status AuditShipper::State::Pass() {
  const std::vector<audit_format::SegmentFile> files = audit_format::ListSegments(options.directory);
  Measure(files);
  for (size_t i = 0; i < files.size(); ++i) {
    const bool newest = i + 1 == files.size() || files[i + 1].boot != files[i].boot;
    RETURN_IF_ERROR(ShipSegment(files[i], !newest || files[i].boot != options.live_boot));
  }
  return absl::OkStatus();
}

void AuditShipper::State::Run() {
  RestoreCursor();
  Backoff backoff(options.interval, options.max_backoff);
  bool failing = false;
  for (bool running = true; running;) {
    uint64_t pass = 0;
    {
      MutexLock lock(mu);
      pass = ++passes_begun;
    }
    const absl::Status status = Pass();
    if (status.ok()) {
      MutexLock lock(mu);
      clean_pass = pass;
      changed.notify_all();
      backoff.Reset();
    } else if (!absl::IsCancelled(status) && !failing) {
      Log(LogLevel::kWarning, "audit_not_shipped", {{"error", status}});  // Once an outage.
    }
    failing = !status.ok();
    running = Sleep(failing ? backoff.Next(RandomUnit()) : options.interval, !failing);
  }
  SaveCursor(true);
}

AuditShipper::AuditShipper(Options options, AuditSink sink) : state_(std::make_unique<State>()) {
  state_->options = std::move(options);
  state_->sink = std::move(sink);
  state_->backlog = &MetricGauge(kBacklog, {{"service", state_->options.service}});
  // Whatever the thread does: it may wait for a registry that does not answer.
  state_->probe = std::make_unique<MetricProbe>([state = state_.get()] {
    const int64_t bytes = audit_format::TotalBytes(state->options.directory) - state->shipped_of_file;
    state->backlog->Set(static_cast<double>(std::max<int64_t>(bytes, 0)));
  });
  state_->thread = std::thread([state = state_.get()] { state->Run(); });
}

AuditShipper::~AuditShipper() { Stop(); }

bool AuditShipper::Flush(absl::Duration timeout) {
  State& state = *state_;
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  MutexLock lock(state.mu);
  const uint64_t wanted = state.passes_begun + 1;
  state.passes_wanted = std::max(state.passes_wanted, wanted);
  state.changed.notify_all();
  while (state.clean_pass < wanted && !state.stopping) {
    if (state.changed.wait_until(state.mu, deadline) == std::cv_status::timeout) {
      break;
    }
  }
  return state.clean_pass >= wanted;
}

void AuditShipper::Stop() {
  {
    MutexLock lock(state_->mu);
    state_->stopping = true;
  }
  state_->changed.notify_all();
  if (state_->thread.joinable()) {
    state_->thread.join();
  }
}

}  // namespace sallyport

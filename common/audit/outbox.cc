// SPDX-License-Identifier: Apache-2.0
#include "common/audit/outbox.h"

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <future>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/backoff.h"
#include "common/crypto/random.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/mutex.h"
#include "common/proto_time.h"
#include "common/rpc/server.h"
#include "common/status_macros.h"
#include "sallyport/audit/v1/audit.grpc.pb.h"

namespace sallyport {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(10);
constexpr int kMaxBatchSize = 1000;
// More than can be written within the limit of a decision.
constexpr size_t kMaxWaiting = 10'000;
// How often a caller whose event is not written yet looks at the clock again, should that run slower than real time.
constexpr absl::Duration kClockLook = absl::Milliseconds(50);

absl::Status AuditUnavailable(absl::string_view why, absl::Duration retry_after) {
  return WithRetryAfter(WithReason(absl::UnavailableError(why), "audit_unavailable"), retry_after);
}

uint64_t FirstOf(const audit::v1::Event& event) {
  return event.type() == "lost" ? event.lost_from() : event.sequence();
}

// Tells the store that events up to the one before `first` are gone: it lost them (a restore), or it would wait for
// them for ever.
absl::StatusOr<uint64_t> SendGap(const AuditOutbox::Sink& sink, uint64_t from, const audit::v1::Event& first) {
  audit::v1::AppendRequest request;
  audit::v1::Event& gap = *request.add_events();
  gap.set_source(first.source());
  gap.set_boot(first.boot());
  gap.set_sequence(FirstOf(first) - 1);
  *gap.mutable_at() = first.at();
  gap.set_type("lost");
  gap.set_lost_from(from);
  gap.set_lost_to(gap.sequence());
  return sink(request);
}

// A damaged row becomes an event that says so: it must neither stop the rows behind it nor vanish.
audit::v1::Event ReadEvent(const Row& row, const std::string& source, absl::Time now) {
  const auto sequence = static_cast<uint64_t>(row.Int("sequence"));
  audit::v1::Event event;
  if (event.ParseFromString(row.BytesAt("event")) && event.sequence() == sequence) return event;
  event.Clear();
  event.set_source(source);
  event.set_boot(row.Text("boot"));
  event.set_sequence(sequence);
  event.set_type("lost");
  event.set_lost_from(sequence);
  event.set_lost_to(sequence);
  *event.mutable_at() = ToTimestamp(now);
  return event;
}

}  // namespace

// The thread that ships.
struct AuditOutbox::Shipper {
  Sink sink;
  Mutex mu;
  std::condition_variable_any changed;
  bool stopping ABSL_GUARDED_BY(mu) = false;
  bool kicked ABSL_GUARDED_BY(mu) = false;
  std::thread thread;

  // True when there is nothing more to do. Otherwise returns after `wait`, or at once when kicked and `kickable`.
  bool Wait(absl::Duration wait, bool kickable) {
    MutexLock lock(mu);
    const auto until = std::chrono::steady_clock::now() + absl::ToChronoMicroseconds(wait);
    while (!stopping && !(kickable && kicked)) {
      if (changed.wait_until(mu, until) == std::cv_status::timeout) break;
    }
    kicked = false;
    return stopping;
  }
};

// One thread writes what waits, all in one transaction.
class AuditOutbox::Recorder {
 public:
  explicit Recorder(AuditOutbox& outbox) : outbox_(outbox) {}

  ~Recorder() {
    {
      MutexLock lock(mu_);
      stopping_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  absl::Status Record(audit::v1::Event event) {
    std::future<absl::Status> done;
    {
      MutexLock lock(mu_);
      if (stopping_ || waiting_.size() >= kMaxWaiting) {
        return AuditUnavailable("too many decisions wait to be recorded", absl::Seconds(1));
      }
      if (!thread_.joinable()) thread_ = std::thread([this] { Run(); });
      waiting_.push_back({std::move(event), {}});
      // Each waits for its own: waking all callers with each event would take the time the writer needs.
      done = waiting_.back().done.get_future();
    }
    changed_.notify_one();
    if (!WaitFor(done)) return AuditUnavailable("the audit event was not written in time", absl::Seconds(1));
    absl::Status written = done.get();
    if (written.ok() || ReasonOf(written) == "audit_unavailable") return written;
    return AuditUnavailable("the audit event cannot be written", absl::Seconds(1));
  }

 private:
  struct Waiting {
    audit::v1::Event event;
    std::promise<absl::Status> done;
  };

  // Whether it is there within kRecordLimit, which passes on the outbox's clock.
  bool WaitFor(const std::future<absl::Status>& done) const {
    const absl::Duration end = outbox_.clock_.Elapsed() + kRecordLimit;
    absl::Duration wait = kRecordLimit;
    while (done.wait_for(absl::ToChronoMicroseconds(wait)) != std::future_status::ready) {
      const absl::Duration left = end - outbox_.clock_.Elapsed();
      if (left <= absl::ZeroDuration()) return false;
      wait = std::clamp(left, absl::Milliseconds(1), kClockLook);
    }
    return true;
  }

  void Run() {
    while (true) {
      std::deque<Waiting> batch;
      {
        MutexLock lock(mu_);
        while (waiting_.empty() && !stopping_) {
          changed_.wait(mu_);
        }
        if (waiting_.empty()) return;
        batch.swap(waiting_);
      }
      Write(batch);
    }
  }

  void Write(std::deque<Waiting>& batch) {
    const absl::Status written = outbox_.database_.Write([&](Transaction& tx) -> absl::Status {
      for (const Waiting& waiting : batch) RETURN_IF_ERROR(outbox_.Append(tx, waiting.event));
      return absl::OkStatus();
    });
    if (!written.ok()) Log(LogLevel::kError, "audit_write_failed", {{"error", written}, {"events", batch.size()}});
    for (Waiting& waiting : batch) waiting.done.set_value(written);
    if (written.ok()) outbox_.Kick();
  }

  AuditOutbox& outbox_;
  Mutex mu_;
  std::condition_variable_any changed_;
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;  // Started under mu_, by the first event.
};

namespace {

constexpr GaugeInfo kDepth = {
    .name = "sallyport_audit_outbox_depth",
    .help = "Audit events in the service's database that are not yet shipped",
    .unit = "events",
    .labels = {{"source", "authn, vault, registry"}},
    .rise = "The registry does not take events as fast as they come, or is down",
    .action = "Bring the registry and its store back. At `auditOutboxLimit` what must be recorded is refused",
};
constexpr CounterInfo kRefused = {
    .name = "sallyport_audit_outbox_refused_total",
    .help = "Audit events refused, with what they tell about, because the outbox was full",
    .unit = "events",
    .labels = {{"source", "authn, vault, registry"}},
    .rise = "Users are refused with 503 `audit_unavailable`: the outbox holds `auditOutboxLimit` events",
    .action = "Bring the registry and its store back; raise `auditOutboxLimit` only if the database has the space",
};

}  // namespace

std::vector<std::string> AuditOutbox::Schema() {
  return {
      "CREATE TABLE audit_outbox (sequence BIGINT PRIMARY KEY, event TEXT NOT NULL)",
      // One row. A counter instead of a database sequence: a number given out and rolled back would look like a lost
      // event.
      "CREATE TABLE audit_outbox_state (id BIGINT PRIMARY KEY, boot TEXT NOT NULL, last_sequence BIGINT NOT NULL)",
  };
}

AuditOutbox::AuditOutbox(Database& database, const Clock& clock, Options options)
    : database_(database),
      clock_(clock),
      options_(std::move(options)),
      depth_(MetricGauge(kDepth, {{"source", options_.source}})),
      refused_(MetricCounter(kRefused, {{"source", options_.source}})),
      recorder_(std::make_unique<Recorder>(*this)) {}

AuditOutbox::~AuditOutbox() {
  recorder_.reset();  // Writes what waits, and may still kick the shipper.
  if (shipper_ == nullptr) return;
  {
    MutexLock lock(shipper_->mu);
    shipper_->stopping = true;
  }
  shipper_->changed.notify_all();
  shipper_->thread.join();
}

absl::StatusOr<int64_t> AuditOutbox::LimitFrom(int64_t configured, absl::string_view field) {
  if (configured == 0) return kDefaultLimit;
  if (configured < kMinLimit) return InvalidField(field, absl::StrCat("must be at least ", kMinLimit));
  return configured;
}

void AuditOutbox::SetDepth(int64_t depth) { depth_.Set(static_cast<double>(depth)); }

absl::Status AuditOutbox::Append(Transaction& tx, audit::v1::Event event, Admit admit) {
  RETURN_IF_ERROR(tx.Exec("INSERT INTO audit_outbox_state (id, boot, last_sequence) VALUES (1, :boot, 0) "
                          "ON CONFLICT (id) DO NOTHING",
                          {{"boot", RandomToken("", 16)}})
                      .status());
  // Numbers have no gaps and are shipped in order, so first and last say how many there are, without counting.
  ASSIGN_OR_RETURN(const auto row, tx.QueryRow("UPDATE audit_outbox_state SET last_sequence = last_sequence + 1 "
                                               "WHERE id = 1 RETURNING boot, last_sequence, "
                                               "(SELECT MIN(sequence) FROM audit_outbox) AS oldest"));
  if (!row) return absl::InternalError("audit outbox: its counter is missing");
  const int64_t waiting = row->IsNull("oldest") ? 0 : row->Int("last_sequence") - row->Int("oldest");
  if (waiting >= options_.limit && admit == Admit::kIfRoom) {
    refused_.Increment();
    return AuditUnavailable("the audit outbox is full: the audit store has taken nothing for too long",
                            absl::Seconds(5));
  }
  event.set_source(options_.source);
  event.set_boot(row->Text("boot"));
  event.set_sequence(static_cast<uint64_t>(row->Int("last_sequence")));
  if (!event.has_at()) {
    *event.mutable_at() = ToTimestamp(clock_.Now());
  }
  RETURN_IF_ERROR(tx.Exec("INSERT INTO audit_outbox (sequence, event) VALUES (:sequence, :event)",
                          {{"sequence", event.sequence()}, {"event", Bytes{event.SerializeAsString()}}})
                      .status());
  SetDepth(waiting + 1);
  return absl::OkStatus();
}

absl::Status AuditOutbox::Record(audit::v1::Event event) { return recorder_->Record(std::move(event)); }

absl::StatusOr<int64_t> AuditOutbox::ShipOnce(const Sink& sink) {
  audit::v1::AppendRequest batch;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows rows, tx.Query("SELECT sequence, event, boot FROM audit_outbox, audit_outbox_state "
                                               "WHERE id = 1 ORDER BY sequence LIMIT :size",
                                               {{"size", std::min(options_.batch_size, kMaxBatchSize)}}));
    batch.Clear();
    for (const Row& row : rows) *batch.add_events() = ReadEvent(row, options_.source, clock_.Now());
    return absl::OkStatus();
  }));
  if (batch.events().empty()) return 0;
  absl::StatusOr<uint64_t> stored_through = sink(batch);
  if (ReasonOf(stored_through.status()) == "sequence_reused") {
    RETURN_IF_ERROR(BeginBoot(batch.events(0).boot()));
    return 0;
  }
  if (stored_through.ok() && *stored_through + 1 < FirstOf(batch.events(0))) {
    RETURN_IF_ERROR(SendGap(sink, *stored_through + 1, batch.events(0)).status());
    stored_through = sink(batch);
  }
  RETURN_IF_ERROR(stored_through.status());
  int64_t deleted = 0;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    // Never more than was sent, whatever the answer: a store that was reset to another state must not make us forget.
    // And none of another boot, which another replica may have begun meanwhile.
    const uint64_t last = std::min(*stored_through, batch.events(batch.events_size() - 1).sequence());
    ASSIGN_OR_RETURN(deleted, tx.Exec("DELETE FROM audit_outbox WHERE sequence <= :last AND EXISTS (SELECT 1 FROM "
                                      "audit_outbox_state WHERE id = 1 AND boot = :boot)",
                                      {{"last", last}, {"boot", batch.events(0).boot()}}));
    return absl::OkStatus();
  }));
  return deleted;
}

absl::Status AuditOutbox::BeginBoot(const std::string& reused) {
  Log(LogLevel::kWarning, "audit_boot_begun", {{"source", options_.source}});
  return database_.Write([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const auto state, tx.QueryRow("SELECT boot FROM audit_outbox_state WHERE id = 1"));
    if (!state || state->Text("boot") != reused) return absl::OkStatus();  // Another replica was faster.
    ASSIGN_OR_RETURN(const Rows rows, tx.Query("SELECT sequence, event, :boot AS boot FROM audit_outbox ORDER BY "
                                               "sequence",
                                               {{"boot", reused}}));
    const std::string boot = RandomToken("", 16);
    uint64_t sequence = 0;
    // In order, so that no number is given to two rows on the way: none grows.
    for (const Row& row : rows) {
      audit::v1::Event event = ReadEvent(row, options_.source, clock_.Now());
      event.set_boot(boot);
      event.set_sequence(++sequence);
      if (event.type() == "lost") {
        event.set_lost_from(sequence);
        event.set_lost_to(sequence);
      }
      RETURN_IF_ERROR(
          tx.Exec("UPDATE audit_outbox SET sequence = :new, event = :event WHERE sequence = :old",
                  {{"new", sequence}, {"event", Bytes{event.SerializeAsString()}}, {"old", row.Int("sequence")}})
              .status());
    }
    return tx
        .Exec("UPDATE audit_outbox_state SET boot = :boot, last_sequence = :last WHERE id = 1",
              {{"boot", boot}, {"last", sequence}})
        .status();
  });
}

absl::StatusOr<int64_t> AuditOutbox::Pending() {
  int64_t pending = 0;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const auto row, tx.QueryRow("SELECT last_sequence, (SELECT MIN(sequence) FROM audit_outbox) AS "
                                                 "oldest FROM audit_outbox_state WHERE id = 1"));
    pending = !row || row->IsNull("oldest") ? 0 : row->Int("last_sequence") - row->Int("oldest") + 1;
    return absl::OkStatus();
  }));
  SetDepth(pending);
  return pending;
}

void AuditOutbox::StartShipping(Sink sink) {
  if (shipper_ != nullptr) return;
  shipper_ = std::make_unique<Shipper>();
  shipper_->sink = std::move(sink);
  shipper_->thread = std::thread([this] {
    Backoff backoff(absl::Milliseconds(200), options_.max_backoff);
    bool failing = false;
    absl::Duration wait = absl::ZeroDuration();
    while (!shipper_->Wait(wait, !failing)) {
      auto shipped = ShipOnce(shipper_->sink);
      Pending().status().IgnoreError();  // For the metric; other replicas write too.
      if (!shipped.ok()) {
        // Once per outage: it is retried for as long as it takes.
        if (!failing) {
          Log(LogLevel::kWarning, "audit_not_shipped", {{"error", shipped.status()}});
        }
        failing = true;
        wait = backoff.Next(RandomUnit());
        continue;
      }
      failing = false;
      backoff.Reset();
      if (*shipped >= options_.batch_size) {
        wait = absl::ZeroDuration();
        continue;
      }
      if (*shipped > 0 && shipper_->Wait(options_.pause, false)) return;
      wait = options_.poll;
    }
  });
}

void AuditOutbox::Kick() {
  if (shipper_ == nullptr) return;
  {
    MutexLock lock(shipper_->mu);
    shipper_->kicked = true;
  }
  shipper_->changed.notify_one();
}

AuditOutbox::Sink MakeAuditSink(std::shared_ptr<grpc::Channel> channel) {
  std::shared_ptr<audit::v1::Audit::Stub> stub = audit::v1::Audit::NewStub(std::move(channel));
  return [stub](const audit::v1::AppendRequest& request) -> absl::StatusOr<uint64_t> {
    audit::v1::AppendResponse response;
    const auto context = MakeClientContext(kCallTimeout);
    RETURN_IF_ERROR(FromGrpcStatus(stub->Append(context.get(), request, &response)));
    return response.stored_through();
  };
}

}  // namespace sallyport

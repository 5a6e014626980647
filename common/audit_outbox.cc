// SPDX-License-Identifier: Apache-2.0
#include "common/audit_outbox.h"

#include <algorithm>
#include <condition_variable>
#include <thread>
#include <utility>

#include "common/backoff.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/mutex.h"
#include "common/proto_time.h"
#include "common/random.h"
#include "common/rpc_server.h"
#include "common/status_macros.h"
#include "sallyport/audit/v1/audit.grpc.pb.h"

namespace sallyport {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(10);
constexpr int kMaxBatchSize = 1000;

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

std::vector<std::string> AuditOutbox::Schema() {
  return {
      "CREATE TABLE audit_outbox (sequence BIGINT PRIMARY KEY, event TEXT NOT NULL)",
      // One row. A counter instead of a database sequence: a number given out and rolled back would look like a lost
      // event.
      "CREATE TABLE audit_outbox_state (id BIGINT PRIMARY KEY, boot TEXT NOT NULL, last_sequence BIGINT NOT NULL)",
  };
}

AuditOutbox::AuditOutbox(Database& database, const Clock& clock, Options options)
    : database_(database), clock_(clock), options_(std::move(options)) {}

AuditOutbox::~AuditOutbox() {
  if (shipper_ == nullptr) return;
  {
    MutexLock lock(shipper_->mu);
    shipper_->stopping = true;
  }
  shipper_->changed.notify_all();
  shipper_->thread.join();
}

absl::Status AuditOutbox::Append(Transaction& tx, audit::v1::Event event) {
  RETURN_IF_ERROR(tx.Exec("INSERT INTO audit_outbox_state (id, boot, last_sequence) VALUES (1, :boot, 0) "
                          "ON CONFLICT (id) DO NOTHING",
                          {{"boot", RandomToken("", 16)}})
                      .status());
  ASSIGN_OR_RETURN(const auto row, tx.QueryRow("UPDATE audit_outbox_state SET last_sequence = last_sequence + 1 "
                                               "WHERE id = 1 RETURNING boot, last_sequence"));
  if (!row) return absl::InternalError("audit outbox: its counter is missing");
  event.set_source(options_.source);
  event.set_boot(row->Text("boot"));
  event.set_sequence(static_cast<uint64_t>(row->Int("last_sequence")));
  if (!event.has_at()) {
    *event.mutable_at() = ToTimestamp(clock_.Now());
  }
  return tx
      .Exec("INSERT INTO audit_outbox (sequence, event) VALUES (:sequence, :event)",
            {{"sequence", event.sequence()}, {"event", Bytes{event.SerializeAsString()}}})
      .status();
}

absl::Status AuditOutbox::Record(audit::v1::Event event) {
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) { return Append(tx, event); }));
  Kick();
  return absl::OkStatus();
}

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
  ASSIGN_OR_RETURN(const uint64_t stored_through, sink(batch));
  int64_t deleted = 0;
  RETURN_IF_ERROR(database_.Write([&](Transaction& tx) -> absl::Status {
    // Never more than was sent, whatever the answer: a store that was reset to another state must not make us forget.
    const uint64_t last = std::min(stored_through, batch.events(batch.events_size() - 1).sequence());
    ASSIGN_OR_RETURN(deleted, tx.Exec("DELETE FROM audit_outbox WHERE sequence <= :last", {{"last", last}}));
    return absl::OkStatus();
  }));
  return deleted;
}

absl::StatusOr<int64_t> AuditOutbox::Pending() {
  int64_t count = 0;
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const auto row, tx.QueryRow("SELECT COUNT(*) AS pending FROM audit_outbox"));
    count = row ? row->Int("pending") : 0;
    return absl::OkStatus();
  }));
  return count;
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
      wait = *shipped > 0 ? absl::ZeroDuration() : options_.poll;
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

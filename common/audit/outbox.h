// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include <grpcpp/channel.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "common/sql/sql.h"
#include "sallyport/audit/v1/audit.pb.h"

namespace sallyport {

// Events of a service that has a database: written in the transaction of what they tell about, shipped to the audit
// store afterwards. The store being down stops nobody. Thread-safe; several replicas may share the database and all
// ship.
class AuditOutbox {
 public:
  // Stores a batch for good and returns Audit.AppendResponse.stored_through.
  using Sink = std::function<absl::StatusOr<uint64_t>(const audit::v1::AppendRequest&)>;

  struct Options {
    // The service ("vault"): the same in all replicas, because they share one sequence.
    std::string source;
    int batch_size = 500;
    // How often to look for what other replicas wrote; Kick() is faster for one's own.
    absl::Duration poll = absl::Milliseconds(500);
    // Rest after a batch that was not full: each batch costs a synced write here and in the store, which would
    // otherwise compete with what is being recorded, event by event.
    absl::Duration pause = absl::Milliseconds(100);
    absl::Duration max_backoff = absl::Seconds(30);
    // How many events may wait to be shipped. From then on events are refused, and with them what they tell about.
    int64_t limit = kDefaultLimit;
  };
  static constexpr int64_t kDefaultLimit = 1'000'000;
  static constexpr int64_t kMinLimit = 1'000;
  // What a service's configuration says; INVALID_ARGUMENT naming `field`.
  static absl::StatusOr<int64_t> LimitFrom(int64_t configured, absl::string_view field);

  enum class Admit {
    kIfRoom,
    // Also beyond the limit: for the end of what was admitted when it began.
    kAlways,
  };

  // A decision fails when its event is not written within this time of the clock.
  static constexpr absl::Duration kRecordLimit = absl::Milliseconds(250);

  // Statements that create its tables, for one of the service's migrations.
  static std::vector<std::string> Schema();

  // `database` and `clock` must outlive it.
  AuditOutbox(Database& database, const Clock& clock, Options options);
  ~AuditOutbox();

  // Sets source, boot, sequence and, if absent, the time. Durable with the transaction. UNAVAILABLE (reason
  // "audit_unavailable") at the limit; the transaction must fail then.
  absl::Status Append(Transaction& tx, audit::v1::Event event, Admit admit = Admit::kIfRoom);
  // For decisions that write nothing else: returns when the event is durable. Events that wait at the same time share
  // one transaction, so that a burst of decisions costs one sync to disk and not one each. UNAVAILABLE (reason
  // "audit_unavailable") if it is not durable within kRecordLimit (it may become so later) or at the limit.
  absl::Status Record(audit::v1::Event event);

  // Starts the shipper thread; once.
  void StartShipping(Sink sink);
  // Makes the shipper look at once; call it after a commit.
  void Kick();
  // Ships one batch: how many events were deleted because they are stored. Also used by the shipper. A store that lacks
  // earlier events (it was restored) is told that they are lost; one that has others under our numbers (we were
  // restored) makes us begin a new boot.
  absl::StatusOr<int64_t> ShipOnce(const Sink& sink);
  // Events not yet stored.
  absl::StatusOr<int64_t> Pending();

 private:
  struct Shipper;
  class Recorder;
  void SetDepth(int64_t depth);
  // Numbers what waits from 1, under a new boot, unless `reused` is the boot no more.
  absl::Status BeginBoot(const std::string& reused);
  Database& database_;
  const Clock& clock_;
  const Options options_;
  prometheus::Gauge& depth_;
  prometheus::Counter& refused_;
  std::unique_ptr<Shipper> shipper_;
  std::unique_ptr<Recorder> recorder_;
};

// Audit.Append over a channel, 10 s a call.
AuditOutbox::Sink MakeAuditSink(std::shared_ptr<grpc::Channel> channel);

}  // namespace sallyport

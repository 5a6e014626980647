// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <grpcpp/channel.h>

#include "common/clock.h"
#include "common/sql.h"
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
    absl::Duration max_backoff = absl::Seconds(30);
  };

  // Statements that create its tables, for one of the service's migrations.
  static std::vector<std::string> Schema();

  // `database` and `clock` must outlive it.
  AuditOutbox(Database& database, const Clock& clock, Options options);
  ~AuditOutbox();

  // Sets source, boot, sequence and, if absent, the time. Durable with the transaction.
  absl::Status Append(Transaction& tx, audit::v1::Event event);
  // Append in a transaction of its own, for decisions that write nothing else.
  absl::Status Record(audit::v1::Event event);

  // Starts the shipper thread; once.
  void StartShipping(Sink sink);
  // Makes the shipper look at once; call it after a commit.
  void Kick();
  // Ships one batch: how many events were deleted because they are stored. Also used by the shipper.
  absl::StatusOr<int64_t> ShipOnce(const Sink& sink);
  // Events not yet stored.
  absl::StatusOr<int64_t> Pending();

 private:
  struct Shipper;
  Database& database_;
  const Clock& clock_;
  const Options options_;
  std::unique_ptr<Shipper> shipper_;
};

// Audit.Append over a channel, 10 s a call.
AuditOutbox::Sink MakeAuditSink(std::shared_ptr<grpc::Channel> channel);

}  // namespace sallyport

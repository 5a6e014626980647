// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include <grpcpp/channel.h>

#include "common/audit_outbox.h"
#include "common/clock.h"
#include "common/mutex.h"
#include "common/sql.h"
#include "sallyport/audit/v1/audit.pb.h"

namespace sallyport::authn {

// Authn's audit trail: events are in the database before the answer leaves, and shipped afterwards. Events of
// concurrent callers share one commit, so that a burst of sign-ins costs one sync to disk and not one each.
// Thread-safe.
class Audit {
 public:
  // Decisions fail closed when their event cannot be written within this time.
  static constexpr absl::Duration kLimit = absl::Milliseconds(250);

  // `database` and `clock` outlive this.
  Audit(Database& database, const Clock& clock);
  ~Audit();

  // Returns when the event is stored. UNAVAILABLE (reason "audit_unavailable") if it is not within kLimit.
  absl::Status Record(audit::v1::Event event);
  // In the transaction of what the event tells about; call Kick() after the commit.
  absl::Status Append(Transaction& tx, audit::v1::Event event) { return outbox_.Append(tx, std::move(event)); }
  void Kick() { outbox_.Kick(); }

  // Ships to the registry in the background.
  void StartShipping(std::shared_ptr<grpc::Channel> registry);

 private:
  struct Waiting;
  void Run();
  void WriteBatch(const std::vector<std::shared_ptr<Waiting>>& batch);

  Database& database_;
  AuditOutbox outbox_;
  Mutex mu_;
  std::condition_variable_any changed_;
  std::vector<std::shared_ptr<Waiting>> queue_ ABSL_GUARDED_BY(mu_);
  bool stop_ ABSL_GUARDED_BY(mu_) = false;
  std::thread writer_;
};

// An event of a decision, ready for its details.
audit::v1::Event MakeEvent(const std::string& type, audit::v1::Decision decision, const std::string& subject);

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include <prometheus/gauge.h>

#include "common/clock.h"
#include "common/mutex.h"
#include "services/token_broker/app_pauses.h"
#include "services/token_broker/sources/fetch_lanes.h"
#include "services/token_broker/task_runner.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Background work on due records of one kind. A lane has its own loop and its own threads, so that no kind of work
// delays another; within a lane, one app uses some of the threads only, and takes turns with the others: a page of its
// own, then one without it. A round reads pages of ListDue until nothing is left. Replicas share the records by claims,
// and work on each with a lease. Thread-safe.
class DueLane {
 public:
  // Works on a record, and may block. False if it was left as it is.
  using Work = std::function<bool(const vault::v1::RecordMetadata&)>;
  struct Options {
    std::string name;  // Label `lane` of the metrics.
    std::string kind;  // Of the records.
    int threads = 8;
    size_t per_app = 4;
    // Between rounds, with jitter.
    absl::Duration interval = absl::Seconds(30);
    // How often a round includes the apps that are paused; never when infinite.
    absl::Duration sweep = absl::InfiniteDuration();
  };

  // All outlive this. Apps that are paused are left out.
  DueLane(VaultClient& vault, const AppPauses& pauses, const Clock& clock, Options options, Work work);
  ~DueLane();
  DueLane(const DueLane&) = delete;
  DueLane& operator=(const DueLane&) = delete;

  // Rounds begin.
  void Start();
  // The next round begins now, or when this one has ended.
  void Wake();
  // Takes nothing up from now on; what was taken up goes on.
  void StopTaking();
  // StopTaking, and waits for what goes on.
  void Stop();

  // One round, now: everything that is due. Number of records that were worked on.
  int Drain();
  // Runs `task` on a thread of the lane's, as work for this app. False, without running it, if too much waits.
  [[nodiscard]] bool Post(const std::string& app_uid, std::function<void()> task);

 private:
  struct Page;
  void Loop();
  // False: the lane stops.
  bool Sleep();
  // Pages until nothing is left; with a sweep until one holds nothing that could be worked on.
  int DrainPages(bool sweep);
  // All of them, each on a thread; returns when the last has ended, or the lane stops.
  int WorkOn(const vault::v1::ListDueResponse& due);
  // Without paused apps, unless it is a sweep, and without these.
  absl::StatusOr<vault::v1::ListDueResponse> List(int limit, bool sweep, absl::Duration claim,
                                                  const std::set<std::string>& without);
  bool stopping() const;

  VaultClient& vault_;
  const AppPauses& pauses_;
  const Clock& clock_;
  const Options options_;
  const Work work_;
  prometheus::Gauge& due_;
  prometheus::Gauge& oldest_due_;
  TaskRunner runner_;
  FetchLanes per_app_;

  mutable Mutex mu_;
  std::condition_variable_any changed_;
  bool woken_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  absl::Duration swept_ ABSL_GUARDED_BY(mu_);
  std::thread loop_;
};

}  // namespace sallyport::token_broker

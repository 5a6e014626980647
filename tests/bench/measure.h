// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>
#include <time.h>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <sys/types.h>

#include "common/mutex.h"

// What benches of services have in common.
namespace sallyport::bench {

// What is measured has the first processor of this machine, and all else the second. On a machine with one they share
// it.
enum class Side { kMeasured, kLoad };
// This thread, and the threads and programs that it starts.
void PinThread(Side side);

// A port on loopback that nothing listens on now.
absl::StatusOr<int> FreePort();

// CPU time, user and system, of a clock that counts it, and of a process; in seconds.
double Read(clockid_t clock);
double CpuOf(pid_t pid);

// What a load has cost so far.
struct Cost {
  double seconds = 0;
  double calls = 0;
  double per_call() const { return seconds * 1e6 / calls; }
};

// The first error of several threads.
class FirstError {
 public:
  void Note(const absl::Status& status) {
    MutexLock lock(mu_);
    status_.Update(status);
  }
  absl::Status status() const {
    MutexLock lock(mu_);
    return status_;
  }

 private:
  mutable Mutex mu_;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

// Passes until `seconds` are over; microseconds a call.
absl::StatusOr<double> Measure(int seconds, const std::function<absl::Status(Cost&)>& pass);

double Median(std::vector<double> values);

}  // namespace sallyport::bench

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"

#include "common/clock.h"
#include "common/mutex.h"

namespace sallyport::token_broker {

// Apps to leave alone for a while, because their provider does not answer or they are no longer configured: for 30 s,
// then twice as long each time, up to 30 minutes. A provider that is down then costs a few attempts, however many users
// have something due there. Thread-safe.
class AppPauses {
 public:
  // `clock` outlives this.
  explicit AppPauses(const Clock& clock) : clock_(clock) {}

  // Nothing could be done for this app now. Several who find so at once are one.
  void Away(const std::string& app_uid);
  // Something could.
  void Back(const std::string& app_uid);
  bool IsPaused(const std::string& app_uid) const;
  // Those which are left alone now, the longest first; at most 1,000, as many as the vault takes.
  std::vector<std::string> Paused() const;
  // Until the next of them ends; InfiniteDuration if there is none.
  absl::Duration UntilNext() const;

 private:
  struct Pause {
    absl::Duration length;
    // As the clock's Elapsed(): setting the clock back must not prolong it.
    absl::Duration until;
  };

  const Clock& clock_;
  mutable Mutex mu_;
  std::map<std::string, Pause> pauses_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "absl/time/time.h"

#include "common/caller/passport.h"
#include "common/clock.h"
#include "common/mutex.h"

namespace sallyport::token_broker {

// Users whose connections and keys were all ended within the last ten minutes. A link that was in flight at that moment
// comes back with a passport issued before, which still verifies: what it stores has to be ended too. Thread-safe.
class EndedSubjects {
 public:
  // `clock` outlives this.
  explicit EndedSubjects(const Clock& clock) : clock_(clock) {}

  // `at`: by authn's clock, as passports say when they were made.
  void Add(const std::string& subject, absl::Time at);
  // It was made before its subject was ended, or in that second.
  bool Include(const Passport& passport) const;

 private:
  struct Ended {
    absl::Time at;
    // As the clock's Elapsed().
    absl::Duration heard;
  };

  const Clock& clock_;
  mutable Mutex mu_;
  std::map<std::string, Ended> ended_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker

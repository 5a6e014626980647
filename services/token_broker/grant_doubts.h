// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "common/mutex.h"
#include "services/token_broker/connection.h"

namespace sallyport::token_broker {

// Refreshes that were refused without a word on what is wrong: the grant, the client, or the provider itself. Time
// tells: when another connection of the same app is renewed meanwhile, client and provider are sound, and it is this
// grant. Kept in memory; a process that forgets only waits longer. Thread-safe.
class GrantDoubts {
 public:
  // Refreshes in a row that are answered without an access token until the user is asked to link again, whatever
  // happens to others.
  static constexpr int kMaxEmptyAnswers = 5;

  // The refresh token of `key` in `generation` was refused. True if another connection of the same app was renewed
  // since it was refused first.
  bool Refused(const ConnectionKey& key, int64_t generation);
  // The refresh was answered with success and no access token. True also after so many of these in a row.
  bool AnsweredEmpty(const ConnectionKey& key, int64_t generation);
  void Renewed(const ConnectionKey& key);
  // Its user is asked, or a late answer came in.
  void Forget(const ConnectionKey& key);

 private:
  struct Doubt {
    int64_t generation = 0;
    // Value of renewals_ when it was refused first.
    uint64_t since = 0;
    int empty_answers = 0;
  };
  static constexpr size_t kMaxDoubts = 10'000;

  Doubt& DoubtOf(const ConnectionKey& key, int64_t generation) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool OthersRenewed(const ConnectionKey& key, const Doubt& doubt) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_;
  std::map<std::string, Doubt> doubts_ ABSL_GUARDED_BY(mu_);
  // Counts renewals; the last one of each app or connector.
  uint64_t renewals_ ABSL_GUARDED_BY(mu_) = 0;
  std::map<std::string, uint64_t> last_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::token_broker

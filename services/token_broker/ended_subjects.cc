// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/ended_subjects.h"

#include <algorithm>

namespace sallyport::token_broker {
namespace {

// Twice the life of a passport.
constexpr absl::Duration kRemembered = absl::Minutes(10);
constexpr size_t kMost = 100'000;

}  // namespace

void EndedSubjects::Add(const std::string& subject, absl::Time at) {
  const absl::Duration now = clock_.Elapsed();
  MutexLock lock(mu_);
  if (ended_.size() >= kMost) {
    std::erase_if(ended_, [&](const auto& entry) { return entry.second.heard + kRemembered < now; });
  }
  if (ended_.size() >= kMost) {
    ended_.erase(std::min_element(ended_.begin(), ended_.end(),
                                  [](const auto& a, const auto& b) { return a.second.heard < b.second.heard; }));
  }
  Ended& ended = ended_.try_emplace(subject, Ended{at, now}).first->second;
  ended.at = std::max(ended.at, at);
  ended.heard = now;
}

bool EndedSubjects::Include(const Passport& passport) const {
  const absl::Duration now = clock_.Elapsed();
  MutexLock lock(mu_);
  const auto found = ended_.find(passport.subject);
  return found != ended_.end() && found->second.heard + kRemembered >= now && passport.issued_at <= found->second.at;
}

}  // namespace sallyport::token_broker

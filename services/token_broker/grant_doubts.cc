// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/grant_doubts.h"

namespace sallyport::token_broker {

GrantDoubts::Doubt& GrantDoubts::DoubtOf(const ConnectionKey& key, int64_t generation) {
  const std::string text = key.ToString();
  auto entry = doubts_.find(text);
  if (entry == doubts_.end() && doubts_.size() >= kMaxDoubts) {
    doubts_.erase(doubts_.begin());
  }
  if (entry == doubts_.end() || entry->second.generation != generation) {
    entry = doubts_.insert_or_assign(text, Doubt{.generation = generation, .since = renewals_}).first;
  }
  return entry->second;
}

bool GrantDoubts::OthersRenewed(const ConnectionKey& key, const Doubt& doubt) const {
  // A renewal of this connection ends the doubt, so that it was another's.
  const auto last = last_.find(AppUidOf(key.connection));
  return last != last_.end() && last->second > doubt.since;
}

bool GrantDoubts::Refused(const ConnectionKey& key, int64_t generation) {
  MutexLock lock(mu_);
  Doubt& doubt = DoubtOf(key, generation);
  doubt.empty_answers = 0;
  return OthersRenewed(key, doubt);
}

bool GrantDoubts::AnsweredEmpty(const ConnectionKey& key, int64_t generation) {
  MutexLock lock(mu_);
  Doubt& doubt = DoubtOf(key, generation);
  return ++doubt.empty_answers >= kMaxEmptyAnswers || OthersRenewed(key, doubt);
}

void GrantDoubts::Renewed(const ConnectionKey& key) {
  MutexLock lock(mu_);
  doubts_.erase(key.ToString());
  last_[AppUidOf(key.connection)] = ++renewals_;
}

void GrantDoubts::Forget(const ConnectionKey& key) {
  MutexLock lock(mu_);
  doubts_.erase(key.ToString());
}

}  // namespace sallyport::token_broker

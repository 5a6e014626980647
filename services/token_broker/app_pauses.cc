// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/app_pauses.h"

#include <algorithm>
#include <utility>

namespace sallyport::token_broker {
namespace {

constexpr absl::Duration kFirst = absl::Seconds(30);
constexpr absl::Duration kLongest = absl::Minutes(30);
// How long a pause is remembered after its end; the next one is as long as the first then.
constexpr absl::Duration kRemembered = absl::Hours(1);
constexpr size_t kMost = 1'000;

}  // namespace

void AppPauses::Away(const std::string& app_uid) {
  if (app_uid.empty()) {
    return;
  }
  const absl::Duration now = clock_.Elapsed();
  MutexLock lock(mu_);
  std::erase_if(pauses_, [&](const auto& entry) { return entry.second.until + kRemembered < now; });
  const auto [found, is_new] = pauses_.try_emplace(app_uid, Pause{kFirst, now + kFirst});
  Pause& pause = found->second;
  if (!is_new && pause.until <= now) {
    pause.length = std::min(2 * pause.length, kLongest);
    pause.until = now + pause.length;
  }
}

void AppPauses::Back(const std::string& app_uid) {
  MutexLock lock(mu_);
  pauses_.erase(app_uid);
}

bool AppPauses::IsPaused(const std::string& app_uid) const {
  const absl::Duration now = clock_.Elapsed();
  MutexLock lock(mu_);
  const auto found = pauses_.find(app_uid);
  return found != pauses_.end() && found->second.until > now;
}

std::vector<std::string> AppPauses::Paused() const {
  const absl::Duration now = clock_.Elapsed();
  std::vector<std::pair<absl::Duration, std::string>> paused;
  {
    MutexLock lock(mu_);
    for (const auto& [app_uid, pause] : pauses_) {
      if (pause.until > now) {
        paused.emplace_back(pause.until, app_uid);
      }
    }
  }
  std::sort(paused.rbegin(), paused.rend());
  paused.resize(std::min(paused.size(), kMost));
  std::vector<std::string> app_uids;
  for (auto& [until, app_uid] : paused) {
    app_uids.push_back(std::move(app_uid));
  }
  return app_uids;
}

absl::Duration AppPauses::UntilNext() const {
  const absl::Duration now = clock_.Elapsed();
  absl::Duration next = absl::InfiniteDuration();
  MutexLock lock(mu_);
  for (const auto& [app_uid, pause] : pauses_) {
    if (pause.until > now) {
      next = std::min(next, pause.until - now);
    }
  }
  return next;
}

}  // namespace sallyport::token_broker

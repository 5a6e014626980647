// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/due_lane.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "common/crypto/random.h"
#include "common/json_log.h"
#include "common/metrics.h"
#include "common/proto_time.h"
#include "services/token_broker/owed.h"

namespace sallyport::token_broker {
namespace {

constexpr int kPage = 50;
// Longer than most pages take; whoever is told of a record twice finds it leased.
constexpr absl::Duration kClaim = absl::Seconds(60);
constexpr size_t kMaxQueue = 20'000;
// What the vault takes in one question, and how much of it is for apps that have had their turn.
constexpr int kMostWithout = 1'000;
constexpr size_t kMostServed = 500;

std::string MostFrequentApp(const vault::v1::ListDueResponse& due) {
  std::map<std::string, int> counts;
  for (const vault::v1::RecordMetadata& metadata : due.records()) {
    ++counts[AppUidOf(metadata)];
  }
  return std::max_element(counts.begin(), counts.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

constexpr GaugeInfo kDue = {
    .name = "sallyport_broker_due",
    .help = "Records that are due for work in the background, counted to 100,000",
    .unit = "records",
    .labels = {{"lane", "renewals, revocations, pending_links"}},
    .rise = "A provider is down (its records wait until it answers), or the broker or the vault is too slow",
    .action = "Look at `sallyport_broker_oldest_due_seconds`, and at the refreshes and revocations by app",
};
constexpr GaugeInfo kOldestDue = {
    .name = "sallyport_broker_oldest_due_seconds",
    .help = "For how long the oldest record that is due for work in the background has been due",
    .unit = "seconds",
    .labels = {{"lane", "renewals, revocations, pending_links"}},
    .rise = "A provider has been down for that long, or background work stands still",
    .action = "Look at the refreshes and revocations by app, and at the log of the broker",
};

prometheus::Gauge& DueGauge(const std::string& lane) { return MetricGauge(kDue, {{"lane", lane}}); }
prometheus::Gauge& OldestDueGauge(const std::string& lane) { return MetricGauge(kOldestDue, {{"lane", lane}}); }

}  // namespace

// Shared with its tasks, which may outlast the wait for them.
struct DueLane::Page {
  Mutex mu;
  std::condition_variable_any changed;
  int left ABSL_GUARDED_BY(mu) = 0;
  int worked_on ABSL_GUARDED_BY(mu) = 0;

  void End(bool worked) {
    MutexLock lock(mu);
    --left;
    worked_on += worked ? 1 : 0;
    changed.notify_all();
  }
};

DueLane::DueLane(VaultClient& vault, const AppPauses& pauses, const Clock& clock, Options options, Work work)
    : vault_(vault),
      pauses_(pauses),
      clock_(clock),
      options_(std::move(options)),
      work_(std::move(work)),
      due_(DueGauge(options_.name)),
      oldest_due_(OldestDueGauge(options_.name)),
      runner_(options_.threads, kMaxQueue),
      per_app_(runner_, {.width = options_.per_app, .max_waiting = kMaxQueue}),
      swept_(clock.Elapsed()) {}

DueLane::~DueLane() { Stop(); }

void DueLane::Start() {
  loop_ = std::thread([this] { Loop(); });
}

void DueLane::Loop() {
  while (Sleep()) {
    Drain();
  }
}

bool DueLane::Sleep() {
  // Spread, so that replicas that started together do not all ask at once; and no longer than an app is left alone.
  const absl::Duration wait =
      std::min(options_.interval * (0.75 + RandomUnit() / 2), pauses_.UntilNext() + absl::Milliseconds(100));
  const auto until = std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(wait);
  MutexLock lock(mu_);
  while (!woken_ && !stopping_) {
    if (changed_.wait_until(mu_, until) == std::cv_status::timeout) {
      break;
    }
  }
  woken_ = false;
  return !stopping_;
}

void DueLane::Wake() {
  MutexLock lock(mu_);
  woken_ = true;
  changed_.notify_all();
}

void DueLane::StopTaking() {
  MutexLock lock(mu_);
  stopping_ = true;
  changed_.notify_all();
}

void DueLane::Stop() {
  StopTaking();
  if (loop_.joinable()) {
    loop_.join();
  }
  runner_.Stop();
}

bool DueLane::stopping() const {
  MutexLock lock(mu_);
  return stopping_;
}

bool DueLane::Post(const std::string& app_uid, std::function<void()> task) {
  return !stopping() && per_app_.Post(app_uid, std::move(task));
}

int DueLane::Drain() {
  bool sweep = false;
  {
    const absl::Duration now = clock_.Elapsed();
    MutexLock lock(mu_);
    if (now - swept_ >= options_.sweep) {
      sweep = true;
      swept_ = now;
    }
  }
  const int worked_on = (sweep ? DrainPages(true) : 0) + DrainPages(false);
  if (worked_on > 0 && !stopping()) {
    List(1, /*sweep=*/true, absl::ZeroDuration(), {}).status().IgnoreError();  // For the gauges.
  }
  return worked_on;
}

int DueLane::DrainPages(bool sweep) {
  int worked_on = 0;
  std::set<std::string> told;
  std::set<std::string> served;
  while (!stopping()) {
    const absl::StatusOr<vault::v1::ListDueResponse> due = List(kPage, sweep, kClaim, served);
    if (!due.ok()) {
      Log(LogLevel::kDebug, "list_due_failed", {{"lane", options_.name}, {"status", due.status()}});
      break;
    }
    bool any_new = false;
    for (const vault::v1::RecordMetadata& metadata : due->records()) {
      any_new |= told.insert(metadata.record().owner_id() + "\n" + metadata.record().name()).second;
    }
    if (due->records().empty() && !served.empty()) {
      served.clear();  // The next turn.
      continue;
    }
    // Told of the same again, though it was claimed: nothing would end this.
    if (!any_new) {
      break;
    }
    const int worked = WorkOn(*due);
    worked_on += worked;
    if (sweep && worked == 0) {
      break;
    }
    if (due->records_size() == kPage) {
      // However many it has, the others come before its next page.
      if (std::string app_uid = MostFrequentApp(*due); !app_uid.empty() && served.size() < kMostServed) {
        served.insert(std::move(app_uid));
      }
    } else if (served.empty()) {
      break;
    } else {
      served.clear();
    }
  }
  return worked_on;
}

absl::StatusOr<vault::v1::ListDueResponse> DueLane::List(int limit, bool sweep, absl::Duration claim,
                                                         const std::set<std::string>& without) {
  vault::v1::ListDueRequest request;
  request.add_kinds(options_.kind);
  request.set_limit(limit);
  if (claim > absl::ZeroDuration()) {
    *request.mutable_claim() = ToProtoDuration(claim);
  }
  for (const std::string& app_uid : without) {
    request.add_without_apps(app_uid);
  }
  if (!sweep) {
    for (std::string& app_uid : pauses_.Paused()) {
      if (request.without_apps_size() == kMostWithout) {
        break;
      }
      request.add_without_apps(std::move(app_uid));
    }
  }
  absl::StatusOr<vault::v1::ListDueResponse> due = vault_.ListDue(request);
  if (due.ok()) {
    due_.Set(static_cast<double>(due->due()));
    const absl::Duration oldest =
        due->has_oldest_due() ? clock_.Now() - FromTimestamp(due->oldest_due()) : absl::ZeroDuration();
    oldest_due_.Set(std::max(0.0, absl::ToDoubleSeconds(oldest)));
  }
  return due;
}

int DueLane::WorkOn(const vault::v1::ListDueResponse& due) {
  const auto page = std::make_shared<Page>();
  {
    MutexLock lock(page->mu);
    page->left = due.records_size();
  }
  for (const vault::v1::RecordMetadata& metadata : due.records()) {
    const bool posted = Post(AppUidOf(metadata), [this, page, metadata] { page->End(!stopping() && work_(metadata)); });
    if (!posted) {
      page->End(false);
    }
  }
  MutexLock lock(page->mu);
  while (page->left > 0 && !stopping()) {
    // Looks up now and then: tasks that are dropped when the lane stops end nothing.
    page->changed.wait_for(page->mu, std::chrono::milliseconds(100));
  }
  return page->worked_on;
}

}  // namespace sallyport::token_broker

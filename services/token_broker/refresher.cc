// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/refresher.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <utility>

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/json_log.h"
#include "services/token_broker/errors.h"
#include "services/token_broker/provider_trouble.h"
#include "services/token_broker/refresh_metrics.h"

namespace sallyport::token_broker {
namespace {

constexpr size_t kMaxFailures = 10'000;
constexpr size_t kMaxQueue = 100'000;

}  // namespace

Refresher::Refresher(VaultClient& vault, TokenEndpoint& endpoint, TokenCache* cache, const Clock& clock,
                     Options options, Observer observer)
    : vault_(vault),
      endpoint_(endpoint),
      cache_(cache),
      clock_(clock),
      options_(std::move(options)),
      observer_(std::move(observer)),
      runner_(options_.max_threads, kMaxQueue) {}

Refresher::~Refresher() { runner_.Stop(); }

void Refresher::Refresh(const ConnectionKey& key, const RefreshWish& wish, const std::string& passport,
                        ProviderSource provider, Callback done) {
  const std::string text = key.ToString();
  {
    MutexLock lock(mu_);
    if (!stopping_) {
      const uint64_t waiter = next_waiter_++;
      FlightPtr& flight = flights_[text];
      const bool is_new = flight == nullptr;
      if (is_new) {
        flight = std::make_shared<Flight>();
        flight->key = key;
        flight->wish = wish;
        flight->provider_source = std::move(provider);
      } else if (!MayJoin(*flight, wish)) {
        flight->followers.push_back({wish, passport, std::move(provider), {waiter, std::move(done)}});
        runner_.PostAfter(options_.patience, [this, text, waiter] { Expire(text, waiter); });
        return;
      }
      if (!passport.empty()) {
        flight->passport = passport;  // The newest: it lives longest.
      }
      flight->waiters.push_back({waiter, std::move(done)});
      runner_.PostAfter(options_.patience, [this, text, waiter] { Expire(text, waiter); });
      if (is_new) {
        Admit(flight);
      }
      return;
    }
  }
  done(error::ShuttingDown());
}

bool Refresher::MayJoin(const Flight& flight, const RefreshWish& wish) {
  return flight.wish.reason != RefreshWish::Reason::kFurther && wish.reason != RefreshWish::Reason::kFurther;
}

Refresher::FlightPtr Refresher::Next(Flight& ended) {
  if (ended.followers.empty()) {
    return nullptr;
  }
  auto next = std::make_shared<Flight>();
  next->key = ended.key;
  for (Follower& follower : ended.followers) {
    if (!next->waiters.empty() && !MayJoin(*next, follower.wish)) {
      next->followers.push_back(std::move(follower));
      continue;
    }
    if (next->waiters.empty()) {
      next->wish = follower.wish;
      next->provider_source = std::move(follower.provider_source);
    }
    next->passport = follower.passport.empty() ? std::move(next->passport) : std::move(follower.passport);
    next->waiters.push_back(std::move(follower.waiter));
  }
  ended.followers.clear();
  return next;
}

void Refresher::Admit(const FlightPtr& flight) {
  if (running_[AppUidOf(flight->key.connection)] >= options_.per_provider) {
    queued_[AppUidOf(flight->key.connection)].push_back(flight);
  } else {
    Launch(flight);
  }
}

void Refresher::FreeSlot(const std::string& app) {
  if (--running_[app] == 0) {
    running_.erase(app);
  }
  const auto queue = queued_.find(app);
  if (queue == queued_.end()) {
    return;
  }
  const FlightPtr next = queue->second.front();
  queue->second.pop_front();
  if (queue->second.empty()) {
    queued_.erase(queue);
  }
  Launch(next);
}

void Refresher::Launch(const FlightPtr& flight) {
  ++running_[AppUidOf(flight->key.connection)];
  runner_.PostAfter(absl::ZeroDuration(), [this, flight] { Run(flight); });
}

void Refresher::Expire(const std::string& key, uint64_t waiter) {
  Callback done;
  {
    MutexLock lock(mu_);
    const auto found = flights_.find(key);
    if (found == flights_.end()) {
      return;
    }
    std::vector<Waiter>& waiters = found->second->waiters;
    std::deque<Follower>& followers = found->second->followers;
    const auto it = std::find_if(waiters.begin(), waiters.end(), [&](const Waiter& w) { return w.id == waiter; });
    const auto follower =
        std::find_if(followers.begin(), followers.end(), [&](const Follower& f) { return f.waiter.id == waiter; });
    if (it != waiters.end()) {
      done = std::move(it->done);
      waiters.erase(it);
    } else if (follower != followers.end()) {
      done = std::move(follower->waiter.done);
      followers.erase(follower);
    } else {
      return;
    }
  }
  done(ProviderUnavailable(kRenewalUnderWay, absl::Seconds(2)));
}

void Refresher::Run(const FlightPtr& flight) {
  std::string passport;
  bool stopping = false;
  {
    MutexLock lock(mu_);
    passport = flight->passport;
    stopping = stopping_;
  }
  if (flight->machine == nullptr) {
    if (stopping) {
      return End(flight, error::ShuttingDown(), {});
    }
    absl::StatusOr<Provider> provider = flight->provider_source();
    if (!provider.ok()) {
      return End(flight, provider.status(), {});
    }
    RefreshFlight::Options options = options_.flight;
    if (options.random == nullptr) {
      options.random = RandomUnit;
    }
    options.doubts = &doubts_;
    {
      MutexLock lock(mu_);
      const auto failed = failures_.find(flight->key.ToString());
      options.former_failures = failed == failures_.end() ? 0 : failed->second;
    }
    flight->machine = std::make_unique<RefreshFlight>(flight->key, *std::move(provider), flight->wish, passport, vault_,
                                                      endpoint_, clock_, std::move(options));
  }
  flight->machine->Lend(std::move(passport));
  while (true) {
    const RefreshFlight::Next next = flight->machine->Step();
    if (next.kind == RefreshFlight::Next::Kind::kWait) {
      return Sleep(flight, next.wait);
    }
    if (next.kind == RefreshFlight::Next::Kind::kDone) {
      return End(flight, flight->machine->result(), flight->machine->report());
    }
  }
}

void Refresher::Sleep(const FlightPtr& flight, absl::Duration wait) {
  std::string doorbell_key;
  if (flight->doorbell_key.empty() && cache_ != nullptr) {
    doorbell_key = cache_->DoorbellKey(flight->key);
  }
  MutexLock lock(mu_);
  if (!doorbell_key.empty()) {
    flight->doorbell_key = std::move(doorbell_key);
  }
  flight->sleeping = true;
  const uint64_t sleep = ++flight->sleep;
  runner_.PostAfter(wait, [this, flight, sleep] { Wake(flight, sleep); });
  FreeSlot(AppUidOf(flight->key.connection));
}

void Refresher::Wake(const FlightPtr& flight, uint64_t sleep) {
  MutexLock lock(mu_);
  if (!flight->sleeping || flight->sleep != sleep) {
    return;
  }
  flight->sleeping = false;
  if (flight->machine->holds_answer()) {
    // Not behind others: the answer exists nowhere else.
    Launch(flight);
  } else {
    Admit(flight);
  }
}

void Refresher::Ring(const std::string& doorbell_key) {
  MutexLock lock(mu_);
  for (const auto& [key, flight] : flights_) {
    if (flight->sleeping && flight->doorbell_key == doorbell_key) {
      runner_.PostAfter(absl::ZeroDuration(), [this, flight = flight, sleep = flight->sleep] { Wake(flight, sleep); });
    }
  }
}

void Refresher::End(const FlightPtr& flight, const absl::StatusOr<SharedConnection>& result,
                    const RefreshFlight::Report& report) {
  if (!report.failure.empty() || (!result.ok() && !WasNotDue(result))) {
    Log(LogLevel::kWarning, "refresh_failed",
        {{"connection", flight->key.connection},
         {"failure", report.failure},
         {"provider_error", report.provider_error},
         {"status", result.status()}});
  }
  if (report.renewed) {
    doubts_.Renewed(flight->key);
  } else if (report.adopted || report.marked) {
    doubts_.Forget(flight->key);
  }
  // Before the callers are told: who asks next must find it. That a version was refused again concerns the one who
  // says so; the connection is as it was.
  if (cache_ != nullptr && result.ok() && !(*result)->refused_again) {
    std::string passport;
    {
      MutexLock lock(mu_);
      passport = flight->passport;
    }
    cache_->Put(flight->key, *result, /*share=*/report.renewed || report.adopted, passport);
  }
  if (observer_ != nullptr) {
    observer_(flight->key, result, report);
  }
  std::vector<Waiter> waiters;
  {
    MutexLock lock(mu_);
    const std::string text = flight->key.ToString();
    flights_.erase(text);
    waiters.swap(flight->waiters);
    if (const FlightPtr next = Next(*flight); next != nullptr) {
      flights_[text] = next;
      Admit(next);
    }
    if (report.renewed || report.adopted || failures_.size() > kMaxFailures) {
      failures_.erase(text);
    } else if (report.asked_provider && flight->wish.reason != RefreshWish::Reason::kFurther) {
      ++failures_[text];
    }
    FreeSlot(AppUidOf(flight->key.connection));
    ended_.notify_all();
  }
  for (Waiter& waiter : waiters) {
    waiter.done(result);
  }
}

void Refresher::StopTaking() {
  MutexLock lock(mu_);
  stopping_ = true;
}

void Refresher::Shutdown(absl::Duration grace) {
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(grace);
  {
    mu_.Lock();
    stopping_ = true;
    while (!flights_.empty()) {
      if (ended_.wait_until(mu_, deadline) == std::cv_status::timeout) {
        break;
      }
    }
    mu_.Unlock();
  }
  runner_.Stop();
  // Who waits still hears so: what it does for others must not wait for ever.
  std::vector<Waiter> left;
  {
    MutexLock lock(mu_);
    for (const auto& [key, flight] : flights_) {
      std::move(flight->waiters.begin(), flight->waiters.end(), std::back_inserter(left));
      for (Follower& follower : flight->followers) {
        left.push_back(std::move(follower.waiter));
      }
    }
    flights_.clear();
  }
  for (const Waiter& waiter : left) {
    waiter.done(error::ShuttingDown());
  }
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/grant_doubts.h"
#include "services/token_broker/refresh_flight.h"
#include "services/token_broker/task_runner.h"
#include "services/token_broker/token_cache.h"
#include "services/token_broker/token_endpoint.h"
#include "services/token_broker/vault_client.h"

namespace sallyport::token_broker {

// Runs refreshes: one at a time for each connection in this process, as tasks of the service that no caller's deadline
// ends; a few at a time for each provider. Who waits holds no thread. Thread-safe.
class Refresher {
 public:
  // Runs exactly once, on a thread of the refresher's.
  using Callback = std::function<void(absl::StatusOr<SharedConnection>)>;
  // Called at the start of a refresh, may block.
  using ProviderSource = std::function<absl::StatusOr<Provider>()>;
  // After a refresh ended: for caches, invalidations and audit.
  using Observer =
      std::function<void(const ConnectionKey&, const absl::StatusOr<SharedConnection>&, const RefreshFlight::Report&)>;
  struct Options {
    RefreshFlight::Options flight;
    int max_threads = 64;
    int per_provider = 24;
    // How long a caller waits; the refresh goes on without it.
    absl::Duration patience = absl::Seconds(15);
  };

  // All outlive this; `cache` may be null.
  Refresher(VaultClient& vault, TokenEndpoint& endpoint, TokenCache* cache, const Clock& clock, Options options,
            Observer observer);
  ~Refresher();

  // Without a passport it is for maintenance: of a record that is due. Joins the refresh that is under way for `key`,
  // whatever it was wished for, or starts one. Only a wish for a further token is nobody else's: it has a refresh of
  // its own, and while there is one others wait for theirs. `done` gets the connection as it is afterwards; callers
  // check whether that is what they need. UNAVAILABLE with retry_after when it takes longer than patience, or the
  // service stops.
  void Refresh(const ConnectionKey& key, const RefreshWish& wish, const std::string& passport, ProviderSource provider,
               Callback done);
  // Another replica has renewed the connection behind this doorbell key.
  void Ring(const std::string& doorbell_key);
  // Takes no new ones from now on; those under way go on. First of all when the service stops: a refresh begun in its
  // last second could lose the token it brings home.
  void StopTaking();
  // StopTaking, and waits until those which asked a provider have stored the answer, at most `grace`.
  void Shutdown(absl::Duration grace);
  const TaskRunner& runner() const { return runner_; }

 private:
  struct Waiter {
    uint64_t id;
    Callback done;
  };
  struct Follower {
    RefreshWish wish;
    std::string passport;
    ProviderSource provider_source;
    Waiter waiter;
  };
  struct Flight {
    ConnectionKey key;
    RefreshWish wish;
    std::string passport;
    ProviderSource provider_source;
    std::deque<Follower> followers;          // For whom another one begins when this has ended.
    std::unique_ptr<RefreshFlight> machine;  // Made by the first step; touched by one task at a time.
    std::vector<Waiter> waiters;
    std::string doorbell_key;
    uint64_t sleep = 0;  // Grows with every wait and every wake; a timer of an older one does nothing.
    bool sleeping = false;
  };
  using FlightPtr = std::shared_ptr<Flight>;

  void Run(const FlightPtr& flight);
  void Sleep(const FlightPtr& flight, absl::Duration wait);
  void Wake(const FlightPtr& flight, uint64_t sleep);
  // Gives it a slot of its provider, or a place in the queue for one.
  void Admit(const FlightPtr& flight) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Launch(const FlightPtr& flight) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Its slot goes to who has waited longest.
  void FreeSlot(const std::string& app) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void End(const FlightPtr& flight, const absl::StatusOr<SharedConnection>& result,
           const RefreshFlight::Report& report);
  void Expire(const std::string& key, uint64_t waiter);
  static bool MayJoin(const Flight& flight, const RefreshWish& wish);
  // The flight of those who waited for `ended`; null if nobody did.
  FlightPtr Next(Flight& ended) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  VaultClient& vault_;
  TokenEndpoint& endpoint_;
  TokenCache* const cache_;
  const Clock& clock_;
  const Options options_;
  const Observer observer_;
  GrantDoubts doubts_;

  Mutex mu_;
  std::condition_variable_any ended_;
  std::map<std::string, FlightPtr> flights_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, int> failures_ ABSL_GUARDED_BY(mu_);
  // By app or connector: flights with a slot, and those which wait for one. Who sleeps (because
  // another replica holds the lease, or the store is down) holds none: the orphaned leases of a dead replica must not
  // keep everybody else of that provider waiting.
  std::map<std::string, int> running_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, std::deque<FlightPtr>> queued_ ABSL_GUARDED_BY(mu_);
  uint64_t next_waiter_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  TaskRunner runner_;
};

}  // namespace sallyport::token_broker

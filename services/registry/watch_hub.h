// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <set>
#include <string>
#include <thread>

#include <grpcpp/grpcpp.h>

#include "common/mutex.h"
#include "common/sql/sql.h"
#include "sallyport/registry/v1/registry.pb.h"

namespace sallyport::registry {

// Fans the change table out to every watcher of this replica. One thread asks the store every 200 ms for what was
// committed by any replica since the last time; watchers share the events.
class WatchHub {
 public:
  using Event = std::shared_ptr<const v1::WatchEvent>;
  // Told of each event, in order, on the hub's thread; must not block.
  class Watcher {
   public:
    virtual ~Watcher() = default;
    virtual void OnEvent(Event event) = 0;
    virtual void OnClosed() = 0;  // The hub ends.
  };

  explicit WatchHub(Database& database);
  ~WatchHub();

  // Hands the watcher what it lacks since (store_id, revision) - a snapshot if that is unknown - and every event from
  // then on. UNAVAILABLE once stopped.
  absl::Status Subscribe(Watcher* watcher, const std::string& store_id, int64_t revision);
  void Unsubscribe(Watcher* watcher);
  // Looks at the store at once: for what this replica has just committed.
  void Kick();
  void Stop();

 private:
  void Run();
  void Poll();

  Database& database_;
  Mutex mu_;
  std::condition_variable_any wake_;
  bool kicked_ ABSL_GUARDED_BY(mu_) = false;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  // Serializes subscribing with polling, so that no event falls between a watcher's first answer and the next delta.
  Mutex order_;
  bool closed_ ABSL_GUARDED_BY(order_) = false;
  std::set<Watcher*> watchers_ ABSL_GUARDED_BY(order_);
  int64_t revision_ ABSL_GUARDED_BY(order_) = -1;  // -1: not known yet.
  absl::Time last_heartbeat_ ABSL_GUARDED_BY(order_) = absl::InfinitePast();
  std::thread thread_;
};

// The stream of one watcher.
grpc::ServerWriteReactor<v1::WatchEvent>* MakeWatchReactor(WatchHub& hub, const v1::WatchRequest& request,
                                                           std::function<void(const absl::Status&)> on_done);

}  // namespace sallyport::registry

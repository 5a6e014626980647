// SPDX-License-Identifier: Apache-2.0
#include "services/registry/watch_hub.h"

#include <condition_variable>
#include <deque>
#include <thread>

#include <gmock/gmock.h>

#include "common/status_macros.h"
#include "services/registry/registry_testing.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::SizeIs;
using Code = absl::StatusCode;

// Keeps all events and lets a test wait for one.
class Recorder final : public WatchHub::Watcher {
 public:
  void OnEvent(WatchHub::Event event) override {
    MutexLock lock(mu_);
    events_.push_back(std::move(event));
    changed_.notify_all();
  }
  void OnClosed() override {
    MutexLock lock(mu_);
    closed_ = true;
    changed_.notify_all();
  }
  // Within `limit`.
  bool Await(const std::function<bool(const std::vector<WatchHub::Event>&)>& condition,
             absl::Duration limit = absl::Seconds(10)) {
    const auto until = std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(limit);
    MutexLock lock(mu_);
    while (!condition(events_)) {
      if (changed_.wait_until(mu_, until) == std::cv_status::timeout) return condition(events_);
    }
    return true;
  }
  bool AwaitServer(const std::string& uid, absl::Duration limit = absl::Seconds(10)) {
    return Await(
        [&](const auto& events) {
          for (const auto& event : events) {
            for (const auto& server : event->snapshot().mcp_servers()) {
              if (server.uid() == uid) return true;
            }
            for (const auto& server : event->delta().mcp_servers()) {
              if (server.uid() == uid) return true;
            }
          }
          return false;
        },
        limit);
  }
  std::vector<WatchHub::Event> events() {
    MutexLock lock(mu_);
    return events_;
  }
  // Keys of all invalidations, in order of arrival.
  std::vector<std::string> Keys() {
    std::vector<std::string> keys;
    for (const auto& event : events()) {
      const auto& list = event->has_snapshot() ? event->snapshot().invalidations() : event->delta().invalidations();
      for (const auto& invalidation : list) keys.push_back(invalidation.key());
    }
    return keys;
  }
  bool closed() {
    MutexLock lock(mu_);
    return closed_;
  }

 private:
  Mutex mu_;
  std::condition_variable_any changed_;
  std::vector<WatchHub::Event> events_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
};

class WatchHubTest : public EngineTest {
 protected:
  void Save(Database& database, const std::string& uid) {
    v1::McpServer server;
    server.set_uid(uid);
    server.set_slug(uid.substr(4));
    ASSERT_THAT(database.Write([&](Transaction& tx) {
      return Store::Save(tx, "McpServer", {uid, server.slug(), 1, server.SerializeAsString()}, 0);
    }),
                IsOk());
  }
  static absl::Status Invalidate(Database& database, const std::string& key) {
    google::protobuf::RepeatedPtrField<v1::Invalidation> one;
    one.Add()->set_key(key);
    return database.Write([&](Transaction& tx) { return Store::AppendInvalidations(tx, one); });
  }
  // Outlives the hubs of its test.
  Recorder& NewRecorder() { return recorders_.emplace_back(); }

  std::deque<Recorder> recorders_;
};
INSTANTIATE_ENGINES(WatchHubTest);

TEST_P(WatchHubTest, AFirstCallGetsASnapshotAndThenEveryChange) {
  Save(*database_, "srv_a");
  WatchHub hub(*database_);
  Recorder& watcher = NewRecorder();
  ASSERT_THAT(hub.Subscribe(&watcher, "", 0), IsOk());
  ASSERT_THAT(watcher.events(), SizeIs(1));
  EXPECT_TRUE(watcher.events()[0]->has_snapshot());
  EXPECT_EQ(watcher.events()[0]->revision(), 1);
  Save(*database_, "srv_b");
  hub.Kick();
  ASSERT_TRUE(watcher.AwaitServer("srv_b"));
  EXPECT_TRUE(watcher.events()[1]->has_delta());
  EXPECT_EQ(watcher.events()[1]->revision(), 2);
  EXPECT_EQ(watcher.events()[1]->store_id(), watcher.events()[0]->store_id());
}

TEST_P(WatchHubTest, AChangeOnOneReplicaReachesTheWatchersOfAnotherWithinASecond) {
  const auto other = Open();
  WatchHub hub(*database_);
  WatchHub other_hub(*other);
  Recorder& here = NewRecorder();
  Recorder& there = NewRecorder();
  Recorder& there_too = NewRecorder();
  ASSERT_THAT(hub.Subscribe(&here, "", 0), IsOk());
  ASSERT_THAT(other_hub.Subscribe(&there, "", 0), IsOk());
  ASSERT_THAT(other_hub.Subscribe(&there_too, "", 0), IsOk());
  Save(*database_, "srv_a");
  EXPECT_TRUE(there.AwaitServer("srv_a", absl::Seconds(1)));
  EXPECT_TRUE(there_too.AwaitServer("srv_a", absl::Seconds(1)));
  EXPECT_TRUE(here.AwaitServer("srv_a", absl::Seconds(1)));
}

TEST_P(WatchHubTest, ResumesByRevisionAndStoreId) {
  Save(*database_, "srv_a");
  WatchHub hub(*database_);
  Recorder& first = NewRecorder();
  ASSERT_THAT(hub.Subscribe(&first, "", 0), IsOk());
  const std::string store_id = first.events()[0]->store_id();
  Save(*database_, "srv_b");

  Recorder& resumed = NewRecorder();
  ASSERT_THAT(hub.Subscribe(&resumed, store_id, 1), IsOk());
  ASSERT_TRUE(resumed.events()[0]->has_delta());
  ASSERT_THAT(resumed.events()[0]->delta().mcp_servers(), SizeIs(1));
  EXPECT_EQ(resumed.events()[0]->delta().mcp_servers(0).uid(), "srv_b");
  EXPECT_TRUE(first.AwaitServer("srv_b")) << "who was there before misses nothing";

  Recorder& stranger = NewRecorder();
  ASSERT_THAT(hub.Subscribe(&stranger, "another-store", 1), IsOk());
  EXPECT_TRUE(stranger.events()[0]->has_snapshot());
  Recorder& from_the_future = NewRecorder();
  ASSERT_THAT(hub.Subscribe(&from_the_future, store_id, 99), IsOk());
  EXPECT_TRUE(from_the_future.events()[0]->has_snapshot());
  ASSERT_THAT(Write([](Transaction& tx) { return Store::PruneChanges(tx, absl::Now() + absl::Hours(1)); }), IsOk());
  Recorder& too_late = NewRecorder();
  ASSERT_THAT(hub.Subscribe(&too_late, store_id, 1), IsOk());
  EXPECT_TRUE(too_late.events()[0]->has_snapshot());
}

// Watchers that come at any moment between writes see every invalidation that followed, once and in order.
TEST_P(WatchHubTest, NoEventFallsBetweenSubscribingAndPolling) {
  WatchHub hub(*database_);
  constexpr int kEvents = 60;
  std::thread writer([&] {
    for (int i = 0; i < kEvents; ++i) {
      EXPECT_THAT(Invalidate(*database_, std::to_string(i)), IsOk());
      hub.Kick();
    }
  });
  std::vector<Recorder*> watchers;
  for (int i = 0; i < 10; ++i) {
    watchers.push_back(&NewRecorder());
    EXPECT_THAT(hub.Subscribe(watchers.back(), "", 0), IsOk());
    std::this_thread::yield();
  }
  writer.join();
  hub.Kick();
  std::vector<std::string> all;
  for (int i = 0; i < kEvents; ++i) all.push_back(std::to_string(i));
  for (Recorder* watcher : watchers) {
    ASSERT_TRUE(watcher->Await([](const auto& events) { return events.back()->revision() == kEvents; }));
    EXPECT_EQ(watcher->Keys(), all) << "the snapshot holds those of the last hour";
    int64_t last = -1;
    for (const auto& event : watcher->events()) {
      EXPECT_GE(event->revision(), last);
      last = event->revision();
    }
  }
}

TEST_P(WatchHubTest, AWatcherThatLeftHearsNothingMore) {
  WatchHub hub(*database_);
  Recorder& leaving = NewRecorder();
  Recorder& staying = NewRecorder();
  ASSERT_THAT(hub.Subscribe(&leaving, "", 0), IsOk());
  ASSERT_THAT(hub.Subscribe(&staying, "", 0), IsOk());
  hub.Unsubscribe(&leaving);
  Save(*database_, "srv_a");
  ASSERT_TRUE(staying.AwaitServer("srv_a"));
  EXPECT_THAT(leaving.events(), SizeIs(1));
}

TEST_P(WatchHubTest, StoppingClosesEveryWatcherAndAcceptsNoMore) {
  WatchHub hub(*database_);
  Recorder& watcher = NewRecorder();
  ASSERT_THAT(hub.Subscribe(&watcher, "", 0), IsOk());
  hub.Stop();
  EXPECT_TRUE(watcher.closed());
  Recorder& late = NewRecorder();
  EXPECT_THAT(hub.Subscribe(&late, "", 0), StatusIs(Code::kUnavailable));
}

TEST_P(WatchHubTest, HeartbeatsNameStoreAndRevision) {
  Save(*database_, "srv_a");
  WatchHub hub(*database_);
  Recorder& watcher = NewRecorder();
  ASSERT_THAT(hub.Subscribe(&watcher, "", 0), IsOk());
  ASSERT_TRUE(watcher.Await([](const auto& events) { return events.size() >= 2; })) << "the first one comes at once";
  EXPECT_TRUE(watcher.events()[1]->has_heartbeat());
  EXPECT_EQ(watcher.events()[1]->revision(), 1);
  EXPECT_EQ(watcher.events()[1]->store_id(), watcher.events()[0]->store_id());
}

}  // namespace
}  // namespace sallyport::registry

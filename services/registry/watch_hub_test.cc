// SPDX-License-Identifier: Apache-2.0
#include "services/registry/watch_hub.h"

#include <condition_variable>
#include <deque>
#include <thread>

#include <gmock/gmock.h>

#include "common/rpc/control_stream.h"
#include "common/status_macros.h"
#include "sallyport/registry/v1/registry.grpc.pb.h"
#include "services/registry/event_parts.h"
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

TEST(SplitEventTest, SmallEventsGoWhole) {
  auto event = std::make_shared<v1::WatchEvent>();
  event->mutable_snapshot()->add_mcp_servers()->set_uid("srv_a");
  EXPECT_THAT(SplitEvent(event), ElementsAre(event));
  auto heartbeat = std::make_shared<v1::WatchEvent>();
  heartbeat->mutable_heartbeat();
  EXPECT_THAT(SplitEvent(heartbeat, 0), ElementsAre(heartbeat));
}

TEST(SplitEventTest, PartsTogetherAreTheEventInOrder) {
  auto event = std::make_shared<v1::WatchEvent>();
  event->set_store_id("store");
  event->set_revision(7);
  v1::WatchEvent::Delta& delta = *event->mutable_delta();
  for (int i = 0; i < 20; ++i) {
    delta.add_mcp_servers()->set_uid("srv_" + std::to_string(i));
    delta.add_deleted_mcp_server_uids("srv_old_" + std::to_string(i));
    delta.add_invalidations()->set_key(std::to_string(i));
  }
  delta.mutable_mcp_servers(3)->set_description(std::string(500, 'x'));  // Above the size of a part, all by itself.
  const auto parts = SplitEvent(event, 100);
  ASSERT_GT(parts.size(), 5U);
  v1::WatchEvent together;
  for (const auto& part : parts) {
    EXPECT_EQ(part->more(), part != parts.back());
    EXPECT_EQ(part->store_id(), "store");
    EXPECT_EQ(part->revision(), 7);
    EXPECT_TRUE(part->ByteSizeLong() < 200 || part->delta().mcp_servers_size() == 1);
    together.MergeFrom(*part);
  }
  together.clear_more();
  EXPECT_EQ(together.SerializeAsString(), event->SerializeAsString());
}

class WatchService final : public v1::Registry::WithCallbackMethod_Watch<v1::Registry::Service> {
 public:
  explicit WatchService(WatchHub& hub) : hub_(hub) {}
  grpc::ServerWriteReactor<v1::WatchEvent>* Watch(grpc::CallbackServerContext* /*context*/,
                                                  const v1::WatchRequest* request) override {
    return MakeWatchReactor(hub_, *request, [](const absl::Status&) {});
  }

 private:
  WatchHub& hub_;
};

// Over the network and a channel with gRPC's own limit of 4 MiB a message.
TEST_P(WatchHubTest, ARegistryOfThousandsOfServersCanBeFollowed) {
  constexpr int kServers = 5000;
  ASSERT_THAT(Write([](Transaction& tx) -> absl::Status {
                for (int i = 0; i < kServers; ++i) {
                  v1::McpServer server;
                  server.set_uid("srv_" + std::to_string(i));
                  server.set_slug("s" + std::to_string(i));
                  server.set_version(1);
                  server.set_description(std::string(1000, 'x'));
                  RETURN_IF_ERROR(
                      Store::Save(tx, "McpServer", {server.uid(), server.slug(), 1, server.SerializeAsString()}, 0));
                }
                return absl::OkStatus();
              }),
              IsOk());
  WatchHub hub(*database_);
  WatchService service(hub);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(&service);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  const auto channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(port), grpc::InsecureChannelCredentials());

  {
    const auto stub = v1::Registry::NewStub(channel);
    grpc::ClientContext context;
    const auto reader = stub->Watch(&context, {});
    v1::WatchEvent event;
    EXPECT_FALSE(reader->Read(&event)) << "too large for a watcher that takes no parts and has this limit";
    EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  }
  ControlStream stream(channel, clock_);
  stream.Start();
  EXPECT_TRUE(stream.WaitForSnapshot(absl::Seconds(30)));
  EXPECT_EQ(stream.snapshot()->servers_by_uid.size(), static_cast<size_t>(kServers));
  stream.Stop();

  // What a follower missed may be as large.
  ControlStream resumed(channel, clock_);
  v1::WatchEvent first;
  first.set_store_id(stream.snapshot()->store_id);
  first.set_revision(1);
  first.mutable_snapshot();
  ASSERT_THAT(resumed.Seed(first.SerializeAsString()), IsOk());
  resumed.Start();
  EXPECT_THAT(resumed.WaitForServerVersion("srv_4999", 1, absl::Seconds(30)), IsOk());
  EXPECT_EQ(resumed.snapshot()->servers_by_uid.size(), static_cast<size_t>(kServers) - 1) << "all but the first";
  resumed.Stop();
  hub.Stop();
  server->Shutdown(std::chrono::system_clock::now());
}

}  // namespace
}  // namespace sallyport::registry

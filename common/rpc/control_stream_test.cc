// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/control_stream.h"

#include <condition_variable>
#include <deque>
#include <mutex>

#include <gtest/gtest.h>

#include "common/error.h"
#include "common/rpc/server.h"
#include "sallyport/registry/v1/registry.grpc.pb.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using registry::v1::WatchEvent;
using registry::v1::WatchRequest;
using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;

// What the registry sends and has been asked, shared by its service objects.
class Script {
 public:
  void Send(const WatchEvent& event) {
    std::lock_guard<std::mutex> lock(mu_);
    events_.push_back(event);
    changed_.notify_all();
  }
  void EndStream() {
    std::lock_guard<std::mutex> lock(mu_);
    ++ends_;
    changed_.notify_all();
  }
  // The n-th request, counted from 1.
  WatchRequest AwaitRequest(size_t n) {
    std::unique_lock<std::mutex> lock(mu_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return requests_.size() >= n; }));
    return requests_.size() >= n ? requests_[n - 1] : WatchRequest();
  }
  void Serve(const WatchRequest& request, grpc::ServerContext& context, grpc::ServerWriter<WatchEvent>& writer) {
    std::unique_lock<std::mutex> lock(mu_);
    requests_.push_back(request);
    changed_.notify_all();
    // Only the newest stream is served: one whose end has not been noticed here yet would swallow what is sent next.
    const size_t mine = requests_.size();
    while (!context.IsCancelled() && requests_.size() == mine) {
      changed_.wait_for(lock, std::chrono::milliseconds(20));
      while (!events_.empty() && requests_.size() == mine) {
        writer.Write(events_.front());
        events_.pop_front();
      }
      if (ends_ > 0) {
        --ends_;
        return;
      }
    }
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::deque<WatchEvent> events_;
  std::vector<WatchRequest> requests_;
  int ends_ = 0;
};

class FakeRegistry final : public registry::v1::Registry::Service {
 public:
  explicit FakeRegistry(Script& script) : script_(script) {}
  grpc::Status Watch(grpc::ServerContext* context, const WatchRequest* request,
                     grpc::ServerWriter<WatchEvent>* writer) override {
    script_.Serve(*request, *context, *writer);
    return grpc::Status::OK;
  }

 private:
  Script& script_;
};

WatchEvent Snapshot(int64_t revision, const std::string& store = "store-1") {
  WatchEvent event;
  event.set_store_id(store);
  event.set_revision(revision);
  event.mutable_snapshot();
  return event;
}
WatchEvent Delta(int64_t revision, const std::string& store = "store-1") {
  WatchEvent event;
  event.set_store_id(store);
  event.set_revision(revision);
  event.mutable_delta();
  return event;
}
template <typename List>
void AddServer(List* into, const std::string& uid, const std::string& slug, int64_t version) {
  registry::v1::McpServer& server = *into->add_mcp_servers();
  server.set_uid(uid);
  server.set_slug(slug);
  server.set_version(version);
}

class ControlStreamTest : public ::testing::Test {
 protected:
  ControlStreamTest() {
    server_ = *RpcServer::Start({}, [this](std::shared_ptr<const PeerIdentity>) {
      std::vector<std::unique_ptr<grpc::Service>> services;
      services.push_back(std::make_unique<FakeRegistry>(script_));
      return services;
    });
    MakeStream();
  }
  // Patient with a busy machine: a pause between two events is no silence.
  void MakeStream(absl::Duration silence_limit = absl::Minutes(5)) {
    ControlStream::Options options;
    options.min_backoff = absl::Milliseconds(5);
    options.max_backoff = absl::Milliseconds(20);
    options.silence_limit = silence_limit;
    stream_ = std::make_unique<ControlStream>(server_->InProcessChannel("edge"), clock_, options);
    stream_->AddListener([this](const ControlUpdate& update) {
      std::lock_guard<std::mutex> lock(mu_);
      updates_.push_back(update);
      changed_.notify_all();
    });
  }
  ~ControlStreamTest() override {
    stream_.reset();
    server_->Shutdown(absl::ZeroDuration());
  }

  ControlUpdate AwaitUpdate(size_t n) {
    std::unique_lock<std::mutex> lock(mu_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return updates_.size() >= n; }));
    return updates_.size() >= n ? updates_[n - 1] : ControlUpdate();
  }
  // With server "srv_a" of version 3.
  void StartWithServer() {
    WatchEvent first = Snapshot(7);
    AddServer(first.mutable_snapshot(), "srv_a", "github", 3);
    script_.Send(first);
    stream_->Start();
    ASSERT_TRUE(stream_->WaitForSnapshot(absl::Seconds(60)));
    AwaitUpdate(1);
  }

  Script script_;
  FakeClock clock_;
  std::unique_ptr<RpcServer> server_;
  std::unique_ptr<ControlStream> stream_;
  std::mutex mu_;
  std::condition_variable changed_;
  std::vector<ControlUpdate> updates_;
};

TEST_F(ControlStreamTest, StartsEmptyAndTakesTheSnapshot) {
  EXPECT_FALSE(stream_->has_snapshot());
  EXPECT_EQ(stream_->last_contact(), absl::InfinitePast());
  StartWithServer();

  const auto snapshot = stream_->snapshot();
  EXPECT_EQ(snapshot->revision, 7);
  ASSERT_NE(snapshot->ServerBySlug("github"), nullptr);
  EXPECT_EQ(snapshot->ServerByUid("srv_a")->version(), 3);
  EXPECT_EQ(snapshot->ServerBySlug("gitlab"), nullptr);
  EXPECT_TRUE(stream_->connected());
  EXPECT_EQ(stream_->last_contact(), clock_.Now());
  EXPECT_TRUE(AwaitUpdate(1).full);
}

TEST_F(ControlStreamTest, DeltasChangeWhatTheyNameAndLeaveOldSnapshotsAlone) {
  StartWithServer();
  const auto before = stream_->snapshot();
  WatchEvent delta = Delta(8);
  AddServer(delta.mutable_delta(), "srv_b", "gitlab", 1);
  registry::v1::Invalidation& invalidation = *delta.mutable_delta()->add_invalidations();
  invalidation.set_kind(registry::v1::Invalidation::SUBJECT);
  invalidation.set_key("corp:ada");
  script_.Send(delta);

  const ControlUpdate update = AwaitUpdate(2);

  EXPECT_FALSE(update.full);
  EXPECT_TRUE(update.config_changed);
  ASSERT_EQ(update.invalidations.size(), 1U);
  EXPECT_EQ(update.invalidations[0].key(), "corp:ada");
  EXPECT_NE(stream_->snapshot()->ServerBySlug("gitlab"), nullptr);
  EXPECT_EQ(stream_->snapshot()->servers_by_uid.at("srv_a"), before->servers_by_uid.at("srv_a"));
  EXPECT_EQ(before->ServerBySlug("gitlab"), nullptr);
}

TEST_F(ControlStreamTest, ASlugTakenByANewServerInheritsNothing) {
  StartWithServer();
  WatchEvent delta = Delta(8);
  delta.mutable_delta()->add_deleted_mcp_server_uids("srv_a");
  AddServer(delta.mutable_delta(), "srv_new", "github", 1);
  script_.Send(delta);
  AwaitUpdate(2);

  EXPECT_EQ(stream_->snapshot()->ServerBySlug("github")->uid(), "srv_new");
  EXPECT_EQ(stream_->snapshot()->ServerByUid("srv_a"), nullptr);
}

// Its client and secret are still there for what its users' tokens need, and for nothing that looks for an app.
TEST_F(ControlStreamTest, AnAppThatIsEndingIsNoAppAndGoesWhenItIsFinished) {
  WatchEvent snapshot = Snapshot(7);
  for (const char* uid : {"app_a", "app_b"}) {
    registry::v1::App& app = *snapshot.mutable_snapshot()->add_apps();
    app.set_uid(uid);
    app.set_slug(uid + 4);
  }
  snapshot.mutable_snapshot()->add_ending_apps()->set_uid("app_old");
  script_.Send(snapshot);
  stream_->Start();
  AwaitUpdate(1);
  ASSERT_NE(stream_->snapshot()->EndingAppByUid("app_old"), nullptr);
  EXPECT_EQ(stream_->snapshot()->AppByUid("app_old"), nullptr);

  WatchEvent deleted = Delta(8);
  deleted.mutable_delta()->add_deleted_app_uids("app_a");
  registry::v1::App& ending = *deleted.mutable_delta()->add_ending_apps();
  ending.set_uid("app_a");
  ending.set_slug("a");
  ending.set_client_id("client");
  script_.Send(deleted);
  EXPECT_TRUE(AwaitUpdate(2).config_changed);
  const auto between = stream_->snapshot();
  WatchEvent finished = Delta(9);
  finished.mutable_delta()->add_finished_app_uids("app_a");
  script_.Send(finished);
  EXPECT_TRUE(AwaitUpdate(3).config_changed);

  EXPECT_EQ(between->AppByUid("app_a"), nullptr);
  EXPECT_EQ(between->AppBySlug("a"), nullptr);
  ASSERT_NE(between->EndingAppByUid("app_a"), nullptr);
  EXPECT_EQ(between->EndingAppByUid("app_a")->client_id(), "client");
  EXPECT_EQ(between->EndingAppByUid("app_b"), nullptr);
  EXPECT_EQ(stream_->snapshot()->EndingAppByUid("app_a"), nullptr);
  EXPECT_NE(stream_->snapshot()->EndingAppByUid("app_old"), nullptr);
  EXPECT_NE(stream_->snapshot()->AppByUid("app_b"), nullptr);
  ControlStream seeded(server_->InProcessChannel("edge"), clock_);
  ASSERT_THAT(seeded.Seed(ExportSnapshot(*stream_->snapshot())), IsOk());
  EXPECT_NE(seeded.snapshot()->EndingAppByUid("app_old"), nullptr);
}

TEST_F(ControlStreamTest, ResumesWhereItEnded) {
  StartWithServer();
  EXPECT_EQ(script_.AwaitRequest(1).store_id(), "");
  script_.Send(Delta(9));
  AwaitUpdate(2);
  script_.EndStream();

  const WatchRequest second = script_.AwaitRequest(2);
  EXPECT_EQ(second.store_id(), "store-1");
  EXPECT_EQ(second.revision(), 9);
}

TEST_F(ControlStreamTest, ASnapshotOfAnotherHistoryReplacesEverything) {
  StartWithServer();
  script_.Send(Snapshot(1, "store-2"));
  EXPECT_TRUE(AwaitUpdate(2).full);
  EXPECT_EQ(stream_->snapshot()->ServerBySlug("github"), nullptr);
  EXPECT_EQ(stream_->snapshot()->store_id, "store-2");
}

TEST_F(ControlStreamTest, ADeltaOfAnotherHistoryIsNotApplied) {
  StartWithServer();
  WatchEvent delta = Delta(8, "store-2");
  delta.mutable_delta()->add_deleted_mcp_server_uids("srv_a");
  script_.Send(delta);
  script_.AwaitRequest(2);
  EXPECT_NE(stream_->snapshot()->ServerBySlug("github"), nullptr);
}

TEST_F(ControlStreamTest, ASilentStreamIsGivenUp) {
  MakeStream(absl::Milliseconds(400));
  StartWithServer();
  script_.AwaitRequest(2);  // Nothing was sent and nothing ended.
  EXPECT_FALSE(stream_->connected());
  EXPECT_TRUE(stream_->has_snapshot());
}

TEST_F(ControlStreamTest, HeartbeatsAreNoUpdates) {
  StartWithServer();
  WatchEvent heartbeat;
  heartbeat.set_store_id("store-1");
  heartbeat.set_revision(7);
  heartbeat.mutable_heartbeat();
  script_.Send(heartbeat);
  script_.Send(Delta(8));
  EXPECT_EQ(AwaitUpdate(2).snapshot->revision, 8);
}

TEST_F(ControlStreamTest, WaitingForAVersion) {
  StartWithServer();
  EXPECT_THAT(stream_->WaitForServerVersion("srv_a", 3, absl::ZeroDuration()), IsOk());
  const auto ahead = stream_->WaitForServerVersion("srv_a", 2, absl::Seconds(60));
  EXPECT_THAT(ahead, StatusIs(Code::kAborted));
  EXPECT_EQ(ReasonOf(ahead.status()), "config_ahead");
  const auto behind = stream_->WaitForServerVersion("srv_a", 4, absl::Milliseconds(30));
  EXPECT_THAT(behind, StatusIs(Code::kUnavailable));
  EXPECT_EQ(ReasonOf(behind.status()), "config_behind");
  EXPECT_THAT(stream_->WaitForServerVersion("srv_x", 1, absl::Milliseconds(30)), StatusIs(Code::kUnavailable));
}

TEST_F(ControlStreamTest, AWaitEndsWhenTheVersionArrives) {
  StartWithServer();
  absl::Status result = absl::UnknownError("not run");
  std::thread waiter([&] { result = stream_->WaitForServerVersion("srv_a", 4, absl::Seconds(60)).status(); });
  WatchEvent delta = Delta(8);
  AddServer(delta.mutable_delta(), "srv_a", "github", 4);
  script_.Send(delta);
  waiter.join();
  EXPECT_THAT(result, IsOk());
}

TEST_F(ControlStreamTest, ADeletedServerIsAheadAtOnce) {
  StartWithServer();
  WatchEvent delta = Delta(8);
  delta.mutable_delta()->add_deleted_mcp_server_uids("srv_a");
  script_.Send(delta);
  AwaitUpdate(2);
  EXPECT_THAT(stream_->WaitForServerVersion("srv_a", 3, absl::Seconds(60)), StatusIs(Code::kAborted));
}

TEST_F(ControlStreamTest, AnExportedSnapshotSeedsAnotherStream) {
  StartWithServer();
  ControlStream other(server_->InProcessChannel("authn"), clock_);
  ASSERT_THAT(other.Seed(ExportSnapshot(*stream_->snapshot())), IsOk());
  EXPECT_TRUE(other.has_snapshot());
  EXPECT_FALSE(other.connected());
  EXPECT_EQ(other.snapshot()->revision, 7);
  EXPECT_NE(other.snapshot()->ServerBySlug("github"), nullptr);
}

TEST_F(ControlStreamTest, GarbageIsNoSeed) {
  EXPECT_THAT(stream_->Seed("\xff\xff"), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(stream_->Seed(""), StatusIs(Code::kInvalidArgument));
  EXPECT_THAT(stream_->Seed(Delta(3).SerializeAsString()), StatusIs(Code::kInvalidArgument));
}

// Part `index` of `count`, with servers "srv_<index>".
WatchEvent Part(WatchEvent event, int index, int count) {
  if (event.has_snapshot()) {
    AddServer(event.mutable_snapshot(), "srv_" + std::to_string(index), "s" + std::to_string(index), 1);
  } else {
    AddServer(event.mutable_delta(), "srv_" + std::to_string(index), "s" + std::to_string(index), 1);
  }
  event.set_more(index + 1 < count);
  return event;
}

TEST_F(ControlStreamTest, ASnapshotInPartsIsAppliedAtOnce) {
  StartWithServer();
  EXPECT_TRUE(script_.AwaitRequest(1).accepts_parts());
  for (int i = 0; i < 3; ++i) script_.Send(Part(Snapshot(9), i, 3));
  const ControlUpdate update = AwaitUpdate(2);
  EXPECT_TRUE(update.full);
  EXPECT_EQ(update.snapshot->revision, 9);
  EXPECT_EQ(update.snapshot->servers_by_uid.size(), 3U) << "one update with all, and the old server is gone";
  script_.Send(Delta(10));
  EXPECT_EQ(AwaitUpdate(3).snapshot->servers_by_uid.size(), 3U);
}

TEST_F(ControlStreamTest, ADeltaInPartsIsAppliedAtOnce) {
  StartWithServer();
  for (int i = 0; i < 2; ++i) script_.Send(Part(Delta(8), i, 2));
  const ControlUpdate update = AwaitUpdate(2);
  EXPECT_FALSE(update.full);
  EXPECT_EQ(update.snapshot->servers_by_uid.size(), 3U);
}

TEST_F(ControlStreamTest, OfAnEventThatIsCutOffNothingIsApplied) {
  StartWithServer();
  script_.Send(Part(Snapshot(9), 0, 3));
  script_.Send(Part(Snapshot(9), 1, 3));
  script_.EndStream();
  EXPECT_EQ(script_.AwaitRequest(2).revision(), 7) << "asks again from what it has";
  EXPECT_NE(stream_->snapshot()->ServerByUid("srv_a"), nullptr);
  script_.Send(Part(Snapshot(9), 2, 3));
  EXPECT_EQ(AwaitUpdate(2).snapshot->servers_by_uid.size(), 1U) << "what came before the cut is forgotten";
}

TEST_F(ControlStreamTest, AnythingBetweenPartsEndsTheStreamAndAppliesNothing) {
  StartWithServer();
  WatchEvent heartbeat;
  heartbeat.set_store_id("store-1");
  heartbeat.set_revision(9);
  heartbeat.mutable_heartbeat();
  const std::vector<WatchEvent> intruders = {heartbeat, Delta(9), Part(Snapshot(10), 1, 2),
                                             Part(Snapshot(9, "store-2"), 1, 2)};
  for (size_t i = 0; i < intruders.size(); ++i) {
    script_.Send(Part(Snapshot(9), 0, 2));
    script_.Send(intruders[i]);
    EXPECT_EQ(script_.AwaitRequest(i + 2).revision(), 7);
    EXPECT_EQ(stream_->snapshot()->revision, 7);
  }
}

TEST_F(ControlStreamTest, AnExportAboveTheMessageLimitSeedsAnotherStream) {
  RegistrySnapshot large;
  large.store_id = "store-1";
  large.revision = 1;
  for (int i = 0; i < 5000; ++i) {
    auto server = std::make_shared<registry::v1::McpServer>();
    server->set_uid("srv_" + std::to_string(i));
    server->set_slug("s" + std::to_string(i));
    server->set_description(std::string(1000, 'x'));
    large.servers_by_uid[server->uid()] = server;
    large.servers_by_slug[server->slug()] = server;
  }
  const std::string exported = ExportSnapshot(large);
  ASSERT_GT(exported.size(), 4U << 20);
  ASSERT_THAT(stream_->Seed(exported), IsOk());
  EXPECT_EQ(stream_->snapshot()->servers_by_uid.size(), 5000U);
}

TEST_F(ControlStreamTest, StopsWhileTheRegistryIsAway) {
  server_->Shutdown(absl::ZeroDuration());
  stream_->Start();
  EXPECT_FALSE(stream_->WaitForSnapshot(absl::Milliseconds(50)));
  stream_->Stop();
}

}  // namespace
}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
// The registry's store was restored from a backup: it counts on from there, and a version says nothing any more.
#include <future>

#include <gmock/gmock.h>

#include "services/edge/edge_testing.h"
#include "services/edge/mcp/doors.h"
#include "services/edge/mcp/server_entry.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::edge {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;
using registry::v1::Invalidation;

registry::v1::McpServer Server(int version, const std::string& host = "api.example.com") {
  return sallyport::testing::Lowered(FromJson<registry::v1::McpServer>(
      absl::StrCat(R"({"uid":"srv_org","slug":"a","version":")", version, R"(","upstreamUrl":"https://)", host,
                   R"(/mcp","agentAuth":{"interactive":{}},"appAuth":{"apiKey":{"name":"X-Api-Key"}}})")));
}

std::shared_ptr<const RegistrySnapshot> Snapshot(const std::string& store_id, int64_t revision,
                                                 const registry::v1::McpServer& server) {
  auto snapshot = std::make_shared<RegistrySnapshot>();
  snapshot->store_id = store_id;
  snapshot->revision = revision;
  auto shared = std::make_shared<const registry::v1::McpServer>(server);
  snapshot->servers_by_uid[server.uid()] = shared;
  snapshot->servers_by_slug[server.slug()] = shared;
  return snapshot;
}

class RestoredRoutesTest : public ::testing::Test {
 protected:
  std::shared_ptr<const ServerEntry> Update(const std::string& store_id, int64_t revision,
                                            const registry::v1::McpServer& server) {
    routes_.Update(*Snapshot(store_id, revision, server));
    return routes_.table()->by_slug.at("a");
  }
  Routes routes_{"https://gw.example.com"};
};

TEST_F(RestoredRoutesTest, AReconnectKeepsWhatIsTheSame) {
  const auto before = Update("store", 10, Server(3));
  EXPECT_EQ(Update("store", 10, Server(3)), before) << "another object, the same content";
  EXPECT_EQ(Update("store", 12, Server(3)), before) << "something else changed";
}

TEST_F(RestoredRoutesTest, TheSameVersionWithOtherContentIsAnotherEntry) {
  const auto before = Update("store", 10, Server(3));
  const auto after = Update("store", 12, Server(3, "other.example.com"));
  EXPECT_NE(after->serial, before->serial);
  EXPECT_EQ(after->target.origin, "https://other.example.com");
  EXPECT_NE(after->target.pool_key, before->target.pool_key) << "nor may its connections be used";
}

TEST_F(RestoredRoutesTest, AnotherStoreOrOneThatWentBackKeepsNothing) {
  const auto first = Update("store", 10, Server(3));
  const auto other = Update("restored", 20, Server(3));
  EXPECT_NE(other->serial, first->serial) << "its credentials may be others";
  const auto back = Update("restored", 19, Server(3));
  EXPECT_NE(back->serial, other->serial);
  EXPECT_EQ(Update("restored", 20, Server(3)), back) << "from there it goes on";
}

TEST_F(RestoredRoutesTest, AnOlderVersionOfTheBackupIsTaken) {
  Update("store", 10, Server(3, "new.example.com"));
  EXPECT_EQ(Update("store", 8, Server(2, "old.example.com"))->target.origin, "https://old.example.com");
}

class RestoredDoorsTest : public ::testing::Test {
 protected:
  RestoredDoorsTest() { Update("store", 10, Server(3)); }
  ~RestoredDoorsTest() override {
    authn_.gate.Open();
    broker_.gate.Open();
  }

  // As the edge does it: the routes first.
  void Update(const std::string& store_id, int64_t revision, const registry::v1::McpServer& server,
              const std::vector<Invalidation>& invalidations = {}) {
    ControlUpdate update;
    update.snapshot = Snapshot(store_id, revision, server);
    update.full = update.config_changed = true;
    update.invalidations = invalidations;
    routes_.Update(*update.snapshot);
    doors_.OnUpdate(update);
  }
  std::shared_ptr<const ServerEntry> Entry() const { return routes_.table()->by_slug.at("a"); }
  static PrincipalKey Key(const ServerEntry& entry) {
    PrincipalKey key;
    key.digest[0] = 1;
    key.server_serial = entry.serial;
    return key;
  }
  std::future<absl::StatusOr<PrincipalPtr>> StartAuthenticate(const ServerEntry& entry) {
    auto promise = std::make_shared<std::promise<absl::StatusOr<PrincipalPtr>>>();
    doors_.Authenticate(Key(entry), entry, "ours-ada",
                        [promise](const absl::StatusOr<PrincipalPtr>& result) { promise->set_value(result); });
    return promise->get_future();
  }
  std::future<absl::StatusOr<Resolution>> StartResolve(const ServerEntry& entry, const PrincipalPtr& principal) {
    auto promise = std::make_shared<std::promise<absl::StatusOr<Resolution>>>();
    doors_.Resolve(entry, principal,
                   [promise](const absl::StatusOr<Resolution>& result) { promise->set_value(result); });
    return promise->get_future();
  }

  FakeClock clock_;
  FakeAuthn authn_{clock_};
  FakeBroker broker_;
  FakeRegistry registry_;
  FakeServer authn_server_{{&authn_}};
  FakeServer broker_server_{{&broker_}};
  FakeServer registry_server_{{&registry_}};
  ControlStream control_{registry_server_.channel(), clock_};  // Updates are the test's own.
  Routes routes_{"https://gw.example.com"};
  Doors doors_{authn_server_.channel(), broker_server_.channel(), control_, clock_, Doors::Options()};
};

TEST_F(RestoredDoorsTest, CallersAndCredentialsOfBeforeAreGone) {
  for (const auto& [store_id, revision] : {std::pair("restored", 10), std::pair("restored", 9)}) {
    const auto entry = Entry();
    const auto ada = StartAuthenticate(*entry).get();
    ASSERT_THAT(ada, IsOk());
    ASSERT_THAT(StartResolve(*entry, *ada).get(), IsOk());
    ASSERT_TRUE(doors_.Usable(*ada, *entry, "ours-ada", clock_.Now()));
    ASSERT_NE(doors_.Credentials(*entry, *ada, clock_.Now()), nullptr);

    Update(store_id, revision, Server(3));
    EXPECT_EQ(doors_.Find(Key(*Entry())), nullptr) << store_id << revision;
    EXPECT_EQ(doors_.Credentials(*Entry(), *ada, clock_.Now()), nullptr) << store_id << revision;
    // Nor for a request that still holds the old entry.
    EXPECT_FALSE(doors_.Usable(*ada, *entry, "ours-ada", clock_.Now())) << store_id << revision;
    EXPECT_EQ(doors_.Credentials(*entry, *ada, clock_.Now()), nullptr) << store_id << revision;
  }
}

TEST_F(RestoredDoorsTest, CallersStayWhileTheHistoryGoesOn) {
  const auto ada = StartAuthenticate(*Entry()).get();
  ASSERT_THAT(ada, IsOk());
  Update("store", 10, Server(3));
  Update("store", 11, Server(3));
  EXPECT_TRUE(doors_.Usable(doors_.Find(Key(*Entry())), *Entry(), "ours-ada", clock_.Now()));
}

TEST_F(RestoredDoorsTest, AnswersThatWereUnderWayAreNotKept) {
  const auto entry = Entry();
  const auto ada = StartAuthenticate(*entry).get();
  ASSERT_THAT(ada, IsOk());
  authn_.gate.Close();
  broker_.gate.Close();
  const int before = authn_.calls();
  auto authenticating = StartAuthenticate(*entry);
  auto resolving = StartResolve(*entry, *ada);
  ASSERT_TRUE(authn_.gate.AwaitArrivals(before + 1));
  ASSERT_TRUE(broker_.gate.AwaitArrivals(1));
  Update("restored", 10, Server(3));
  authn_.gate.Open();
  broker_.gate.Open();
  EXPECT_THAT(authenticating.get(), StatusIs(Code::kUnavailable)) << "asked again, authn knows";
  ASSERT_THAT(resolving.get(), IsOk());
  EXPECT_EQ(doors_.Credentials(*entry, *ada, clock_.Now()), nullptr);
}

TEST_F(RestoredDoorsTest, AnAnswerOlderThanWhatIsRememberedIsNotTrusted) {
  const auto entry = Entry();
  authn_.gate.Close();
  auto authenticating = StartAuthenticate(*entry);
  ASSERT_TRUE(authn_.gate.AwaitArrivals(1));
  std::vector<Invalidation> flood(600);
  for (Invalidation& invalidation : flood) invalidation.set_kind(Invalidation::SUBJECT);
  flood.front().set_key("okta:ada");
  Update("store", 11, Server(3), flood);
  authn_.gate.Open();
  EXPECT_THAT(authenticating.get(), StatusIs(Code::kUnavailable)) << "ours was the first of many";
  EXPECT_EQ(doors_.Find(Key(*entry)), nullptr);
}

}  // namespace
}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/registry/store.h"

#include <gmock/gmock.h>

#include "common/status_macros.h"
#include "services/registry/registry_testing.h"

namespace sallyport::registry {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Code = absl::StatusCode;

class StoreTest : public EngineTest {
 protected:
  static std::string Body(const std::string& uid, const std::string& slug, const std::string& text = "") {
    v1::McpServer server;
    server.set_uid(uid);
    server.set_slug(slug);
    server.set_description(text);
    return server.SerializeAsString();
  }
  absl::Status Save(const std::string& uid, const std::string& slug, int64_t expected = 0,
                    const std::string& text = "") {
    return Write([&](Transaction& tx) {
      return Store::Save(tx, "McpServer", {uid, slug, expected + 1, Body(uid, slug, text)}, expected);
    });
  }
  absl::Status Remove(const std::string& uid, int64_t version) {
    return Write([&](Transaction& tx) { return Store::Remove(tx, "McpServer", {uid, "", version, ""}); });
  }
  absl::Status Invalidate(const std::string& key) {
    google::protobuf::RepeatedPtrField<v1::Invalidation> invalidations;
    v1::Invalidation& invalidation = *invalidations.Add();
    invalidation.set_kind(v1::Invalidation::TOKEN);
    invalidation.set_key(key);
    return Write([&](Transaction& tx) { return Store::AppendInvalidations(tx, invalidations); });
  }
  std::optional<v1::WatchEvent> Delta(int64_t after) {
    std::optional<v1::WatchEvent> event;
    EXPECT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(event, Store::DeltaSince(tx, after));
      return absl::OkStatus();
    }),
                IsOk());
    return event;
  }
  v1::WatchEvent Snapshot() {
    v1::WatchEvent event;
    EXPECT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(event, Store::Snapshot(tx));
      return absl::OkStatus();
    }),
                IsOk());
    return event;
  }
};
INSTANTIATE_ENGINES(StoreTest);

TEST_P(StoreTest, IdentityIsMadeOnceAndRandom) {
  const std::string id = Snapshot().store_id();
  EXPECT_GE(id.size(), 16U);
  EXPECT_EQ(Snapshot().store_id(), id);
}

TEST_P(StoreTest, DeltasHoldWhatChangedSince) {
  ASSERT_THAT(Save("srv_a", "a"), IsOk());
  ASSERT_THAT(Save("srv_b", "b"), IsOk());
  EXPECT_EQ(Snapshot().revision(), 2);
  const auto delta = Delta(1);
  ASSERT_TRUE(delta);
  EXPECT_EQ(delta->revision(), 2);
  EXPECT_EQ(delta->store_id(), Snapshot().store_id());
  ASSERT_THAT(delta->delta().mcp_servers(), SizeIs(1));
  EXPECT_EQ(delta->delta().mcp_servers(0).uid(), "srv_b");
  const auto none = Delta(2);
  ASSERT_TRUE(none);
  EXPECT_TRUE(none->has_delta());
  EXPECT_THAT(none->delta().mcp_servers(), IsEmpty());
}

TEST_P(StoreTest, SeveralChangesOfOneResourceShowItsPresentStateOnce) {
  ASSERT_THAT(Save("srv_a", "a"), IsOk());
  ASSERT_THAT(Save("srv_a", "a", 1, "second"), IsOk());
  ASSERT_THAT(Save("srv_a", "a", 2, "third"), IsOk());
  const auto delta = Delta(0);
  ASSERT_TRUE(delta);
  ASSERT_THAT(delta->delta().mcp_servers(), SizeIs(1));
  EXPECT_EQ(delta->delta().mcp_servers(0).description(), "third");
}

TEST_P(StoreTest, ADeletedSlugCreatedAnewIsTwoResources) {
  ASSERT_THAT(Save("srv_old", "a"), IsOk());
  ASSERT_THAT(Remove("srv_old", 1), IsOk());
  ASSERT_THAT(Save("srv_new", "a"), IsOk());
  const auto delta = Delta(1);
  ASSERT_TRUE(delta);
  EXPECT_THAT(delta->delta().deleted_mcp_server_uids(), ElementsAre("srv_old"));
  ASSERT_THAT(delta->delta().mcp_servers(), SizeIs(1));
  EXPECT_EQ(delta->delta().mcp_servers(0).uid(), "srv_new");
}

TEST_P(StoreTest, InvalidationsOfOneCallShareARevisionInOrder) {
  google::protobuf::RepeatedPtrField<v1::Invalidation> three;
  for (const char* key : {"x", "y", "z"}) {
    v1::Invalidation& one = *three.Add();
    one.set_kind(v1::Invalidation::CONNECTION);
    one.set_key(std::string(key) + "\napp_a\n");
    one.set_generation(7);
  }
  ASSERT_THAT(Write([&](Transaction& tx) { return Store::AppendInvalidations(tx, three); }), IsOk());
  const auto delta = Delta(0);
  ASSERT_TRUE(delta);
  EXPECT_EQ(delta->revision(), 1);
  ASSERT_THAT(delta->delta().invalidations(), SizeIs(3));
  EXPECT_EQ(delta->delta().invalidations(1).key(), "y\napp_a\n");
  EXPECT_EQ(delta->delta().invalidations(1).generation(), 7);
  EXPECT_TRUE(delta->delta().invalidations(1).has_at());
  ASSERT_THAT(Write([](Transaction& tx) { return Store::AppendInvalidations(tx, {}); }), IsOk());
  EXPECT_EQ(Snapshot().revision(), 1) << "nothing is no change";
}

TEST_P(StoreTest, ARevisionTheStoreNeverHadOrNoLongerHasIsUnknown) {
  ASSERT_THAT(Save("srv_a", "a"), IsOk());
  ASSERT_THAT(Save("srv_b", "b"), IsOk());
  EXPECT_FALSE(Delta(3));
  ASSERT_THAT(Write([](Transaction& tx) { return Store::PruneChanges(tx, absl::Now() + absl::Hours(1)); }), IsOk());
  EXPECT_FALSE(Delta(0));
  EXPECT_FALSE(Delta(1));
  EXPECT_TRUE(Delta(2)) << "up to date needs no history";
  ASSERT_THAT(Save("srv_c", "c"), IsOk());
  EXPECT_FALSE(Delta(1));
  EXPECT_TRUE(Delta(2));
  EXPECT_THAT(Snapshot().snapshot().mcp_servers(), SizeIs(3));
}

TEST_P(StoreTest, PruningLeavesNoHoleAfterTheClockWasSetBack) {
  if (GetParam() == Engine::kPostgresql) GTEST_SKIP() << "the database's clock is not ours to set";
  clock_.Set(absl::FromUnixSeconds(2000));
  ASSERT_THAT(Save("srv_a", "a"), IsOk());
  clock_.Set(absl::FromUnixSeconds(1000));
  ASSERT_THAT(Save("srv_b", "b"), IsOk());
  clock_.Set(absl::FromUnixSeconds(2001));
  ASSERT_THAT(Save("srv_c", "c"), IsOk());
  ASSERT_THAT(Write([](Transaction& tx) { return Store::PruneChanges(tx, absl::FromUnixSeconds(1500)); }), IsOk());
  const auto delta = Delta(0);
  if (delta) {
    EXPECT_THAT(delta->delta().mcp_servers(), SizeIs(3));
  }
  const auto second = Delta(1);
  ASSERT_TRUE(second);
  EXPECT_THAT(second->delta().mcp_servers(), SizeIs(2));
}

TEST_P(StoreTest, ASnapshotHoldsTheInvalidationsOfTheLastHour) {
  if (GetParam() == Engine::kPostgresql) {
    ASSERT_THAT(Invalidate("old"), IsOk());
    const absl::Time long_ago = absl::Now() - absl::Minutes(61);
    ASSERT_THAT(Write([&](Transaction& tx) {
                  return tx.Exec("UPDATE change_log SET at = :at", {{"at", long_ago}}).status();
                }),
                IsOk());
  } else {
    ASSERT_THAT(Invalidate("old"), IsOk());
    clock_.Advance(absl::Minutes(61));
  }
  ASSERT_THAT(Invalidate("new"), IsOk());
  const v1::WatchEvent event = Snapshot();
  ASSERT_THAT(event.snapshot().invalidations(), SizeIs(1));
  EXPECT_EQ(event.snapshot().invalidations(0).key(), "new");
}

TEST_P(StoreTest, OneOfTwoWritersWins) {
  ASSERT_THAT(Save("srv_a", "a"), IsOk());
  EXPECT_THAT(Save("srv_x", "a"), StatusIs(Code::kAlreadyExists));
  ASSERT_THAT(Save("srv_a", "a", 1), IsOk());
  EXPECT_THAT(Save("srv_a", "a", 1), StatusIs(Code::kAborted));
  EXPECT_THAT(Remove("srv_a", 1), StatusIs(Code::kAborted));
  EXPECT_EQ(Snapshot().revision(), 2) << "refused writes leave no trace";
  EXPECT_THAT(Remove("srv_a", 2), IsOk());
}

TEST_P(StoreTest, AnAppMayHaveTheSlugOfAServer) {
  ASSERT_THAT(Save("srv_a", "a"), IsOk());
  v1::App app;
  app.set_uid("app_a");
  app.set_slug("a");
  ASSERT_THAT(Write([&](Transaction& tx) {
                return Store::Save(tx, "App", {"app_a", "a", 1, app.SerializeAsString()}, 0);
              }),
              IsOk());
  EXPECT_THAT(Snapshot().snapshot().apps(), SizeIs(1));
  EXPECT_THAT(Snapshot().snapshot().mcp_servers(), SizeIs(1));
}

TEST_P(StoreTest, ADeletedAppIsEndingUntilItIsFinishedForWatchersOfEveryRevision) {
  v1::App app;
  app.set_uid("app_a");
  app.set_slug("a");
  app.set_client_id("me");
  app.mutable_binding()->set_vault_record("app_a/binding");
  const Store::Resource stored = {"app_a", "a", 1, app.SerializeAsString()};
  ASSERT_THAT(Write([&](Transaction& tx) { return Store::Save(tx, "App", stored, 0); }), IsOk());
  const int64_t saved = Snapshot().revision();
  const auto end = [&] {
    return Write([&](Transaction& tx) { return Store::EndApp(tx, stored, absl::FromUnixSeconds(1000)); });
  };
  ASSERT_THAT(end(), IsOk());
  EXPECT_THAT(end(), StatusIs(Code::kAborted)) << "once";
  const int64_t ended = Snapshot().revision();
  EXPECT_THAT(Snapshot().snapshot().apps(), IsEmpty());
  ASSERT_THAT(Snapshot().snapshot().ending_apps(), SizeIs(1));
  for (const int64_t since : {int64_t{0}, saved}) {
    const auto delta = Delta(since);
    ASSERT_TRUE(delta);
    EXPECT_THAT(delta->delta().apps(), IsEmpty());
    EXPECT_THAT(delta->delta().deleted_app_uids(), ElementsAre("app_a"));
    EXPECT_THAT(delta->delta().finished_app_uids(), IsEmpty());
    ASSERT_THAT(delta->delta().ending_apps(), SizeIs(1));
    EXPECT_EQ(delta->delta().ending_apps(0).client_id(), "me");
    EXPECT_FALSE(delta->delta().ending_apps(0).has_binding());
  }

  const auto finish = [&] {
    bool found = false;
    EXPECT_THAT(Write([&](Transaction& tx) -> absl::Status {
                  ASSIGN_OR_RETURN(const auto ending, Store::FinishApp(tx, "app_a"));
                  found = ending.has_value();
                  EXPECT_TRUE(!found || ending->since == absl::FromUnixSeconds(1000));
                  return absl::OkStatus();
                }),
                IsOk());
    return found;
  };
  ASSERT_TRUE(finish());
  const int64_t finished = Snapshot().revision();
  EXPECT_FALSE(finish());
  EXPECT_EQ(Snapshot().revision(), finished) << "nothing was changed";
  EXPECT_THAT(Snapshot().snapshot().ending_apps(), IsEmpty());
  for (const int64_t since : {int64_t{0}, saved, ended}) {
    const auto delta = Delta(since);
    ASSERT_TRUE(delta);
    EXPECT_THAT(delta->delta().ending_apps(), IsEmpty());
    EXPECT_THAT(delta->delta().finished_app_uids(), ElementsAre("app_a"));
    EXPECT_EQ(delta->delta().deleted_app_uids_size(), since == ended ? 0 : 1);
  }
}

TEST_P(StoreTest, AmendingChangesTheBodyForWatchersAndMakesNoVersion) {
  ASSERT_THAT(Save("srv_a", "a"), IsOk());
  const auto amend = [&](int64_t version) {
    return Write([&](Transaction& tx) {
      return Store::Amend(tx, "McpServer", {"srv_a", "a", version, Body("srv_a", "a", "amended")});
    });
  };
  ASSERT_THAT(amend(1), IsOk());
  const auto delta = Delta(1);
  ASSERT_TRUE(delta);
  ASSERT_THAT(delta->delta().mcp_servers(), SizeIs(1));
  EXPECT_EQ(delta->delta().mcp_servers(0).description(), "amended");
  EXPECT_THAT(amend(2), StatusIs(Code::kAborted));
  EXPECT_THAT(Save("srv_a", "a", 1), IsOk()) << "the version stayed";
}

}  // namespace
}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
// Ten thousand sessions and grants: in transactions and deliveries of a bounded size, with nothing left out.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include "common/mutex.h"
#include "common/status_macros.h"
#include "sallyport/registry/v1/registry.grpc.pb.h"
#include "services/authn/authn_testing.h"
#include "services/authn/grants.h"
#include "services/authn/identities.h"
#include "services/authn/revocations.h"
#include "services/authn/sessions.h"
#include "tests/testing/fakes/in_process.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using registry::v1::Invalidation;
using ::sallyport::testing::IsOk;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Le;
using ::testing::SizeIs;

constexpr int kMany = 10'000;
constexpr int kBatches = kMany / kRevocationBatch + 1;  // The last one finds that nothing is left.

// Long enough for a machine under load; shorter than the 5 s after which what waits is delivered in any case.
constexpr absl::Duration kSoon = absl::Seconds(3);

// Takes deliveries, each of which is one transaction of the registry's.
class CountingRegistry final : public registry::v1::Registry::Service {
 public:
  grpc::Status PublishInvalidations(grpc::ServerContext* /*context*/,
                                    const registry::v1::PublishInvalidationsRequest* request,
                                    registry::v1::PublishInvalidationsResponse* /*response*/) override {
    MutexLock lock(mu_);
    sizes_.push_back(request->invalidations_size());
    for (const Invalidation& invalidation : request->invalidations()) {
      keys_.push_back(absl::StrCat(invalidation.kind(), " ", invalidation.key()));
    }
    delivered_.notify_all();
    return grpc::Status::OK;
  }
  // Until so many keys have come; false if they have not in `limit`.
  bool Await(size_t count, absl::Duration limit) {
    const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(limit);
    MutexLock lock(mu_);
    while (keys_.size() < count) {
      if (delivered_.wait_until(mu_, deadline) == std::cv_status::timeout) {
        return keys_.size() >= count;
      }
    }
    return true;
  }
  std::vector<int> sizes() {
    MutexLock lock(mu_);
    return sizes_;
  }
  // "<kind> <key>".
  std::vector<std::string> keys() {
    MutexLock lock(mu_);
    return keys_;
  }

 private:
  Mutex mu_;
  std::condition_variable_any delivered_;
  std::vector<int> sizes_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> keys_ ABSL_GUARDED_BY(mu_);
};

class GrantRevocationTest : public EnginesTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(EnginesTest::SetUp());
    grants_ = std::make_unique<Grants>(*database_);
    sessions_ = std::make_unique<Sessions>(*database_, absl::Hours(12));
    revocations_ = std::make_unique<Revocations>(*database_, peers_.channel());
  }

  static std::string Owner(const std::string& subject) {
    Identity user;
    user.subject = subject;
    user.connector = "corp";
    user.issuer = "https://idp.example";
    return EncodeOwner(user);
  }
  void AddGrants(int count, const std::string& subject, const std::string& client, const std::string& server_uid) {
    std::vector<std::vector<SqlValue>> rows;
    for (int i = 0; i < count; ++i) {
      rows.push_back({absl::StrCat("grn_", subject, client, server_uid, i), subject, Owner(subject), client,
                      "https://gw/mcp/x", server_uid, "mcp", clock_.Now(), clock_.Now() + kRefreshAbsolute});
    }
    Store("grants (id, subject, identity, client_id, resource, server_uid, scope, created_at, expires_at)", rows);
  }
  void AddSessions(int count, const std::string& subject) {
    std::vector<std::vector<SqlValue>> rows;
    for (int i = 0; i < count; ++i) {
      rows.push_back({absl::StrCat("hash ", subject, i), absl::StrCat("ses_", subject, i), subject, Owner(subject),
                      clock_.Now(), clock_.Now() + absl::Hours(12)});
    }
    Store("sessions (cookie_hash, id, subject, identity, created_at, expires_at)", rows);
  }
  void AddCode(const std::string& subject, const std::string& client, const std::string& server_uid) {
    Store(
        "codes (hash, subject, identity, client_id, redirect_uri, code_challenge, resource, server_uid, scope, "
        "expires_at, grant_id)",
        {{absl::StrCat("code ", subject, client, server_uid), subject, Owner(subject), client, "https://c/cb", "x",
          "https://gw/mcp/x", server_uid, "mcp", clock_.Now() + kCodeLifetime, ""}});
  }
  void Store(const std::string& into, const std::vector<std::vector<SqlValue>>& rows) {
    ASSERT_THAT(database_->Write([&](Transaction& tx) { return tx.Insert(into, rows).status(); }), IsOk());
  }
  int64_t Count(const std::string& of) {
    int64_t count = -1;
    EXPECT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(const std::optional<Row> row, tx.QueryRow(absl::StrCat("SELECT COUNT(*) AS n FROM ", of)));
      count = row->Int("n");
      return absl::OkStatus();
    }),
                IsOk());
    return count;
  }
  int64_t Live() { return Count("grants WHERE revoked_at IS NULL"); }

  CountingRegistry registry_;
  sallyport::testing::InProcessServer peers_{{&registry_}};
  std::unique_ptr<Grants> grants_;
  std::unique_ptr<Sessions> sessions_;
  std::unique_ptr<Revocations> revocations_;
};

INSTANTIATE_ENGINES(GrantRevocationTest);

TEST_P(GrantRevocationTest, TenThousandSessionsEndInBatchesAndEachIsTold) {
  AddSessions(kMany, "corp:ann");
  AddSessions(3, "corp:bob");
  ASSERT_OK_AND_ASSIGN(const Ended ended, sessions_->EndSubject("corp:ann", clock_.Now()));
  EXPECT_EQ(ended.count, kMany);
  EXPECT_EQ(ended.batches, kBatches);
  EXPECT_FALSE(ended.more);
  EXPECT_EQ(Count("sessions"), 3) << "another user's stay";
  EXPECT_EQ(Count("pending_invalidations"), kMany) << "each once";

  ASSERT_THAT(revocations_->Deliver(), IsOk());
  EXPECT_EQ(Count("pending_invalidations"), 0);
  EXPECT_THAT(registry_.sizes(), SizeIs(kMany / 500));
  EXPECT_THAT(registry_.sizes(), Each(Le(500)));
  std::vector<std::string> keys = registry_.keys();
  std::sort(keys.begin(), keys.end());
  EXPECT_EQ(std::unique(keys.begin(), keys.end()) - keys.begin(), kMany);
}

TEST_P(GrantRevocationTest, ASubjectsStreamsAreCutBeforeTheirSessionsAreCounted) {
  AddSessions(kMany, "corp:ann");
  ASSERT_THAT(sessions_->EndSubject("corp:ann", clock_.Now()), IsOk());
  ASSERT_THAT(revocations_->RevokeSubject("corp:ann", clock_.Now() + absl::Seconds(3)), IsOk());
  ASSERT_THAT(revocations_->Deliver(), IsOk());
  ASSERT_THAT(registry_.keys(), SizeIs(kMany + 1));
  EXPECT_EQ(registry_.keys()[0], "3 corp:ann") << "in the first delivery, though it was remembered last";
}

struct Filter {
  const char* name;
  GrantFilter which;
};
class GrantFilterTest : public GrantRevocationTest {};
INSTANTIATE_ENGINES(GrantFilterTest);

TEST_P(GrantFilterTest, TenThousandGrantsOfAUserAClientOrAServerEndInBatches) {
  for (const Filter& filter :
       {Filter{"user", {.subject = "corp:ann"}}, Filter{"client", {.client_id = "clt_a"}},
        Filter{"server", {.server_uid = "srv_x"}}, Filter{"all three", {"corp:ann", "clt_a", "srv_x"}}}) {
    SCOPED_TRACE(filter.name);
    ASSERT_THAT(database_->Write([](Transaction& tx) { return tx.Exec("DELETE FROM grants").status(); }), IsOk());
    AddGrants(kMany, "corp:ann", "clt_a", "srv_x");
    AddGrants(2, "corp:bob", "clt_b", "srv_y");
    ASSERT_OK_AND_ASSIGN(const Ended ended, grants_->RevokeAll(filter.which, clock_.Now()));
    EXPECT_EQ(ended.count, kMany);
    EXPECT_EQ(ended.batches, kBatches);
    EXPECT_EQ(Live(), 2);
    ASSERT_OK_AND_ASSIGN(const Ended again, grants_->RevokeAll(filter.which, clock_.Now()));
    EXPECT_EQ(again.count, 0);
    EXPECT_EQ(again.batches, 1);
  }
}

TEST_P(GrantRevocationTest, WhatHasEndedIsToldWhileTheNextBatchesRun) {
  revocations_->Start();
  AddGrants(3 * kRevocationBatch, "corp:ann", "clt_a", "srv_x");
  int batches = 0;
  const MayGoOn told = revocations_->Delivering([&] {
    const size_t ended = static_cast<size_t>(batches++ * kRevocationBatch);
    EXPECT_TRUE(registry_.Await(ended, kSoon)) << "of " << ended << " that had ended";
    return true;
  });
  ASSERT_THAT(grants_->RevokeAll({.server_uid = "srv_x"}, clock_.Now(), told), IsOk());
  EXPECT_EQ(batches, 4);
}

TEST_P(GrantRevocationTest, EveryFieldOfAFilterRestrictsAndNoFieldIsNobody) {
  AddGrants(1, "corp:ann", "clt_a", "srv_x");
  AddGrants(1, "corp:ann", "clt_a", "srv_y");
  AddGrants(1, "corp:ann", "clt_b", "srv_x");
  AddGrants(1, "corp:bob", "clt_a", "srv_x");
  ASSERT_OK_AND_ASSIGN(const Ended none, grants_->RevokeAll({}, clock_.Now()));
  EXPECT_EQ(none.count, 0);
  ASSERT_OK_AND_ASSIGN(const Ended empty, grants_->RevokeAll({.server_uid = ""}, clock_.Now()));
  EXPECT_EQ(empty.count, 0) << "the API's";
  ASSERT_OK_AND_ASSIGN(const Ended one, grants_->RevokeAll({"corp:ann", "clt_a", "srv_x"}, clock_.Now()));
  EXPECT_EQ(one.count, 1);
  ASSERT_OK_AND_ASSIGN(const Ended two, grants_->RevokeAll({.subject = "corp:ann"}, clock_.Now()));
  EXPECT_EQ(two.count, 2);
  ASSERT_OK_AND_ASSIGN(const bool bob, grants_->HasLive({.subject = "corp:bob"}, clock_.Now()));
  EXPECT_TRUE(bob);
  ASSERT_OK_AND_ASSIGN(const bool ann, grants_->HasLive({.subject = "corp:ann"}, clock_.Now()));
  EXPECT_FALSE(ann);
}

TEST_P(GrantRevocationTest, CodesOfTheSameDieBeforeTheyAreRedeemed) {
  AddCode("corp:ann", "clt_a", "srv_x");
  AddCode("corp:bob", "clt_a", "srv_x");
  AddCode("corp:bob", "clt_b", "srv_y");
  ASSERT_THAT(grants_->RevokeAll({.subject = "corp:bob", .client_id = "clt_a"}, clock_.Now()), IsOk());
  EXPECT_EQ(Count("codes"), 2);
  ASSERT_THAT(grants_->RevokeAll({.server_uid = "srv_y"}, clock_.Now()), IsOk());
  EXPECT_EQ(Count("codes WHERE subject = 'corp:ann'"), 1);
  EXPECT_EQ(Count("codes"), 1);
}

TEST_P(GrantRevocationTest, WhatTheTimeDoesNotSufficeForIsLeftAndSaid) {
  AddGrants(kMany, "corp:ann", "clt_a", "srv_x");
  int asked = 0;
  ASSERT_OK_AND_ASSIGN(const Ended some,
                       grants_->RevokeAll({.client_id = "clt_a"}, clock_.Now(), [&] { return ++asked <= 3; }));
  EXPECT_TRUE(some.more);
  EXPECT_EQ(some.count, 3 * kRevocationBatch);
  EXPECT_EQ(Live(), kMany - some.count);
  EXPECT_EQ(Count("pending_invalidations"), some.count) << "what has ended is told";
  ASSERT_OK_AND_ASSIGN(const Ended rest, grants_->RevokeAll({.client_id = "clt_a"}, clock_.Now()));
  EXPECT_EQ(rest.count, kMany - some.count);
  EXPECT_EQ(Live(), 0);
}

}  // namespace
}  // namespace sallyport::authn

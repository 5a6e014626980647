// SPDX-License-Identifier: Apache-2.0
#include "services/authn/sessions.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/status_macros.h"
#include "services/authn/authn_testing.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;

TEST(CookieTest, FindsOneByName) {
  EXPECT_EQ(CookieValue("a=1; __Host-sallyport-session=abc; b=2", kSessionCookie), "abc");
  EXPECT_EQ(CookieValue("__Host-sallyport-session=a=b", kSessionCookie), "a=b");
}

TEST(CookieTest, IsAbsentWhenMissingOrAmbiguous) {
  EXPECT_EQ(CookieValue("", kSessionCookie), "");
  EXPECT_EQ(CookieValue("x__Host-sallyport-session=abc", kSessionCookie), "");
  EXPECT_EQ(CookieValue("__host-sallyport-session=abc", kSessionCookie), "");
  EXPECT_EQ(CookieValue("__Host-sallyport-session=abc; __Host-sallyport-session=def", kSessionCookie), "");
}

class SessionsTest : public EnginesTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(EnginesTest::SetUp());
    sessions_ = std::make_unique<Sessions>(*database_, absl::Hours(12));
    ann_.subject = "local:ann";
    ann_.email = "ann@example.com";
    ann_.groups = {"a", "b"};
  }

  // Invalidations that wait to be delivered: "<kind> <key>".
  std::vector<std::string> Waiting() {
    std::vector<std::string> all;
    EXPECT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
      ASSIGN_OR_RETURN(const Rows rows, tx.Query("SELECT kind, name FROM pending_invalidations"));
      for (const Row& row : rows) all.push_back(absl::StrCat(row.Int("kind"), " ", row.BytesAt("name")));
      return absl::OkStatus();
    }),
                IsOk());
    return all;
  }

  std::unique_ptr<Sessions> sessions_;
  Identity ann_;
};

INSTANTIATE_ENGINES(SessionsTest);

TEST_P(SessionsTest, IsFoundByItsCookieWithWhoSignedIn) {
  ASSERT_OK_AND_ASSIGN(const Sessions::Created created, sessions_->Create(ann_, "", clock_.Now()));
  const std::string header = "x=1; __Host-sallyport-session=" + std::string(created.cookie.Expose());
  ASSERT_OK_AND_ASSIGN(const Session session, sessions_->FindByHeader(header, clock_.Now()));
  EXPECT_EQ(session.id, created.session.id);
  EXPECT_EQ(session.user.email, "ann@example.com");
  EXPECT_THAT(session.user.groups, ::testing::ElementsAre("a", "b"));
}

TEST_P(SessionsTest, ANewerSignInElsewhereDecidesWhoTheOlderOneIs) {
  ASSERT_OK_AND_ASSIGN(const Sessions::Created old, sessions_->Create(ann_, "", clock_.Now()));
  EXPECT_FALSE(old.identity_changed) << "nothing was known before";
  ASSERT_OK_AND_ASSIGN(const Sessions::Created same, sessions_->Create(ann_, "", clock_.Now()));
  EXPECT_FALSE(same.identity_changed);
  ann_.groups = {"b"};
  ann_.name = "Ann";
  ASSERT_OK_AND_ASSIGN(const Sessions::Created fewer, sessions_->Create(ann_, "", clock_.Now()));
  EXPECT_TRUE(fewer.identity_changed);
  ASSERT_OK_AND_ASSIGN(const Session session, sessions_->Find(old.cookie.Expose(), clock_.Now()));
  EXPECT_THAT(session.user.groups, ::testing::ElementsAre("b"));
  EXPECT_EQ(session.user.name, "Ann");
}

TEST_P(SessionsTest, AChangedIdentityLeavesAnInvalidationOfTheSubject) {
  ASSERT_THAT(sessions_->Create(ann_, "", clock_.Now()), IsOk());
  EXPECT_THAT(Waiting(), ::testing::IsEmpty());
  ann_.groups = {"b", "a"};
  ASSERT_THAT(sessions_->Create(ann_, "", clock_.Now()), IsOk());
  EXPECT_THAT(Waiting(), ::testing::IsEmpty()) << "another order is no change";
  ann_.groups = {"b"};
  ASSERT_THAT(sessions_->Create(ann_, "", clock_.Now()), IsOk());
  EXPECT_THAT(Waiting(), ::testing::ElementsAre("3 local:ann"));
}

TEST_P(SessionsTest, ASignInAtAnotherIssuerEndsTheFormerOnes) {
  ASSERT_OK_AND_ASSIGN(const Sessions::Created old, sessions_->Create(ann_, "", clock_.Now()));
  ann_.issuer = "https://other.example";
  ASSERT_THAT(sessions_->Create(ann_, "", clock_.Now()), IsOk());
  EXPECT_THAT(sessions_->Find(old.cookie.Expose(), clock_.Now()), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_P(SessionsTest, EndsAfterItsLifetimeHoweverUsed) {
  ASSERT_OK_AND_ASSIGN(const Sessions::Created created, sessions_->Create(ann_, "", clock_.Now()));
  clock_.Advance(absl::Hours(12) - absl::Seconds(1));
  EXPECT_THAT(sessions_->Find(created.cookie.Expose(), clock_.Now()), IsOk());
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(sessions_->Find(created.cookie.Expose(), clock_.Now()), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_P(SessionsTest, NobodyIsFoundByIdOrGuess) {
  ASSERT_OK_AND_ASSIGN(const Sessions::Created created, sessions_->Create(ann_, "", clock_.Now()));
  for (const std::string& guess : {std::string(), created.session.id, std::string(43, 'a'), std::string(5000, 'a')}) {
    EXPECT_THAT(sessions_->Find(guess, clock_.Now()), StatusIs(absl::StatusCode::kUnauthenticated));
  }
}

TEST_P(SessionsTest, SigningInAgainEndsTheCookieThatWasThere) {
  ASSERT_OK_AND_ASSIGN(const Sessions::Created planted, sessions_->Create(ann_, "", clock_.Now()));
  ASSERT_OK_AND_ASSIGN(const Sessions::Created fresh, sessions_->Create(ann_, planted.cookie.Expose(), clock_.Now()));
  EXPECT_FALSE(planted.cookie == fresh.cookie);
  EXPECT_NE(planted.session.id, fresh.session.id);
  EXPECT_THAT(sessions_->Find(planted.cookie.Expose(), clock_.Now()), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_P(SessionsTest, EndNamesTheSessionOnce) {
  ASSERT_OK_AND_ASSIGN(const Sessions::Created created, sessions_->Create(ann_, "", clock_.Now()));
  ASSERT_OK_AND_ASSIGN(const auto ended, sessions_->End(created.cookie.Expose(), clock_.Now()));
  ASSERT_TRUE(ended.has_value());
  EXPECT_EQ(ended->id, created.session.id);
  ASSERT_OK_AND_ASSIGN(const auto again, sessions_->End(created.cookie.Expose(), clock_.Now()));
  EXPECT_FALSE(again.has_value());
}

TEST_P(SessionsTest, EndSubjectLeavesOthersSignedIn) {
  Identity bob;
  bob.subject = "local:bob";
  ASSERT_OK_AND_ASSIGN(const Sessions::Created one, sessions_->Create(ann_, "", clock_.Now()));
  ASSERT_OK_AND_ASSIGN(const Sessions::Created two, sessions_->Create(ann_, "", clock_.Now()));
  ASSERT_OK_AND_ASSIGN(const Sessions::Created other, sessions_->Create(bob, "", clock_.Now()));
  ASSERT_OK_AND_ASSIGN(const Ended ended, sessions_->EndSubject("local:ann", clock_.Now()));
  EXPECT_EQ(ended.count, 2);
  EXPECT_FALSE(ended.more);
  EXPECT_THAT(Waiting(), ::testing::UnorderedElementsAre("2 " + one.session.id, "2 " + two.session.id));
  EXPECT_THAT(sessions_->Find(other.cookie.Expose(), clock_.Now()), IsOk());
}

TEST_P(SessionsTest, PruneDropsOnlyWhatExpired) {
  ASSERT_OK_AND_ASSIGN(const Sessions::Created old, sessions_->Create(ann_, "", clock_.Now()));
  clock_.Advance(absl::Hours(11));
  ASSERT_OK_AND_ASSIGN(const Sessions::Created young, sessions_->Create(ann_, "", clock_.Now()));
  clock_.Advance(absl::Hours(2));
  ASSERT_OK_AND_ASSIGN(const int pruned, sessions_->Prune(clock_.Now()));
  EXPECT_EQ(pruned, 1);
  EXPECT_THAT(sessions_->Find(young.cookie.Expose(), clock_.Now()), IsOk());
}

}  // namespace
}  // namespace sallyport::authn

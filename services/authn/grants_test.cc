// SPDX-License-Identifier: Apache-2.0
#include "services/authn/grants.h"

#include <atomic>
#include <map>
#include <string>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/status_macros.h"
#include "services/authn/audit.h"
#include "services/authn/authn_testing.h"
#include "services/authn/sessions.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::testing::Not;

constexpr char kVerifier[] = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
constexpr char kChallenge[] = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

MATCHER_P(OAuthError, code, "") {
  const absl::Status status = testing::StatusOf(arg);
  *result_listener << std::string(status.ToString());
  return DetailOf(status).oauth_error == code;
}

class GrantsTest : public EnginesTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(EnginesTest::SetUp());
    audit_ = std::make_unique<Audit>(*database_, clock_);
    grants_ = std::make_unique<Grants>(*database_, audit_.get());
    sessions_ = std::make_unique<Sessions>(*database_, absl::Hours(12));
    for (const char* subject : {"local:ann", "local:bob"}) SignIn(subject);
  }

  static Identity User(const std::string& subject = "local:ann") {
    Identity user;
    user.subject = subject;
    user.connector = "local";
    user.issuer = "local";
    user.groups = {"staff"};
    return user;
  }
  Identity SignIn(const std::string& subject, const std::vector<std::string>& groups = {"staff"},
                  const std::string& issuer = "local") {
    Identity user = User(subject);
    user.issuer = issuer;
    user.groups = groups;
    session_of_[subject] = SessionOf(user);
    return user;
  }
  std::string SessionOf(const Identity& user) {
    auto created = sessions_->Create(user, "", clock_.Now());
    EXPECT_THAT(created, IsOk());
    return created->session.id;
  }
  absl::StatusOr<Secret> Issue(const Identity& user, const std::string& session, const std::string& client = "clt_a") {
    return grants_->IssueCode(user,
                              {.client_id = client,
                               .redirect_uri = "https://c.example/cb",
                               .code_challenge = kChallenge,
                               .resource = "https://gw/mcp/x",
                               .server_uid = "srv_x",
                               .scope = "mcp",
                               .session_id = session},
                              "192.0.2.1", clock_.Now());
  }
  // Of the newest sign-in of `subject`.
  std::string Code(const std::string& client = "clt_a", const std::string& subject = "local:ann") {
    auto code = Issue(User(subject), session_of_.at(subject), client);
    EXPECT_THAT(code, IsOk());
    return std::string(code->Expose());
  }
  static Grants::Redemption Good(const std::string& client = "clt_a") {
    return {.client_id = client,
            .redirect_uri = "https://c.example/cb",
            .code_verifier = kVerifier,
            .resource = "https://gw/mcp/x",
            .client_address = "192.0.2.1"};
  }
  absl::StatusOr<Grants::Tokens> Redeem(const std::string& code, const Grants::Redemption& redemption = Good()) {
    return grants_->RedeemCode(code, redemption, true, clock_.Now(), &revoked_);
  }
  Grants::Tokens Begin(const std::string& client = "clt_a", const std::string& subject = "local:ann") {
    auto tokens = Redeem(Code(client, subject), Good(client));
    EXPECT_THAT(tokens, IsOk());
    return *std::move(tokens);
  }
  absl::StatusOr<Grants::Tokens> Refresh(absl::string_view token, const std::string& client = "clt_a") {
    return grants_->RedeemRefreshToken(token, {.client_id = client}, clock_.Now(), &revoked_);
  }
  absl::StatusOr<Grants::Tokens> Refresh(const Secret& token) { return Refresh(token.Expose()); }
  bool IsLive(const Grant& grant) {
    auto found = grants_->Find(grant.id);
    EXPECT_THAT(found, IsOk());
    return !found->revoked;
  }

  std::unique_ptr<Audit> audit_;
  std::unique_ptr<Grants> grants_;
  std::unique_ptr<Sessions> sessions_;
  std::map<std::string, std::string> session_of_;  // By subject.
  std::string revoked_;
};

INSTANTIATE_ENGINES(GrantsTest);

TEST_P(GrantsTest, CodeBecomesAGrantWithTheUserItWasIssuedTo) {
  ASSERT_OK_AND_ASSIGN(const Grants::Tokens tokens, Redeem(Code()));
  EXPECT_EQ(tokens.grant.user.subject, "local:ann");
  EXPECT_THAT(tokens.grant.user.groups, ::testing::ElementsAre("staff"));
  EXPECT_EQ(tokens.grant.resource, "https://gw/mcp/x");
  EXPECT_EQ(tokens.refresh_token.Expose().substr(0, 4), "spr_");
  ASSERT_OK_AND_ASSIGN(const Grant found, grants_->Find(tokens.grant.id));
  EXPECT_EQ(found.server_uid, "srv_x");
  EXPECT_FALSE(found.revoked);
}

TEST_P(GrantsTest, HoldsTheIdentityOfTheNewestSignInWhateverItWasMadeWith) {
  const Grants::Tokens old = Begin();
  const std::string code = Code();
  SignIn("local:ann", {"guests"});
  EXPECT_THAT(grants_->Find(old.grant.id)->user.groups, ::testing::ElementsAre("guests"));
  ASSERT_OK_AND_ASSIGN(const Grants::Tokens redeemed, Redeem(code));
  EXPECT_THAT(redeemed.grant.user.groups, ::testing::ElementsAre("guests"));
  ASSERT_OK_AND_ASSIGN(const Grants::Tokens refreshed, Refresh(old.refresh_token));
  EXPECT_THAT(refreshed.grant.user.groups, ::testing::ElementsAre("guests"));
  ASSERT_OK_AND_ASSIGN(const Grants::Tokens of_bob, Redeem(Code("clt_a", "local:bob")));
  EXPECT_THAT(of_bob.grant.user.groups, ::testing::ElementsAre("staff"));
}

// Behind the same subject there is somebody else then: they must not take over what the other one allowed.
TEST_P(GrantsTest, SignInAtAnotherIssuerEndsWhatTheFormerOneAllowed) {
  const Grants::Tokens old = Begin();
  const std::string code = Code();
  SignIn("local:ann", {"staff", "admins"}, "https://other.example");
  ASSERT_OK_AND_ASSIGN(const Grant found, grants_->Find(old.grant.id));
  EXPECT_TRUE(found.revoked);
  EXPECT_TRUE(found.user.groups.empty());
  EXPECT_THAT(Refresh(old.refresh_token), OAuthError("invalid_grant"));
  EXPECT_THAT(Redeem(code), OAuthError("invalid_grant"));
}

TEST_P(GrantsTest, PruneForgetsWhoNobodyHasAnythingOf) {
  Begin();
  clock_.Advance(absl::Hours(13));
  ASSERT_THAT(sessions_->Prune(clock_.Now()), IsOk());
  ASSERT_THAT(grants_->Prune(clock_.Now()), IsOk());
  std::vector<std::string> known;
  ASSERT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const Rows rows, tx.Query("SELECT subject FROM identities"));
    for (const Row& row : rows) known.push_back(row.Text("subject"));
    return absl::OkStatus();
  }),
              IsOk());
  EXPECT_THAT(known, ::testing::ElementsAre("local:ann")) << "whose grant lives on";
}

TEST_P(GrantsTest, ClientWithoutRefreshGrantGetsNoRefreshToken) {
  ASSERT_OK_AND_ASSIGN(const Grants::Tokens tokens,
                       grants_->RedeemCode(Code(), Good(), false, clock_.Now(), &revoked_));
  EXPECT_TRUE(tokens.refresh_token.empty());
}

TEST_P(GrantsTest, CodeIsGoodForSixtySeconds) {
  const std::string code = Code();
  clock_.Advance(absl::Seconds(60));
  EXPECT_THAT(Redeem(code), OAuthError("invalid_grant"));
}

TEST_P(GrantsTest, CodeOfAnotherClientIsRefusedAndStaysGood) {
  const std::string code = Code();
  EXPECT_THAT(Redeem(code, Good("clt_b")), OAuthError("invalid_grant"));
  EXPECT_THAT(Redeem(code), IsOk());
}

TEST_P(GrantsTest, WrongVerifierUsesTheCodeUp) {
  const std::string code = Code();
  Grants::Redemption wrong = Good();
  wrong.code_verifier = std::string(43, 'x');
  EXPECT_THAT(Redeem(code, wrong), OAuthError("invalid_grant"));
  EXPECT_THAT(Redeem(code), OAuthError("invalid_grant"));
}

TEST_P(GrantsTest, MissingVerifierIsRefused) {
  Grants::Redemption missing = Good();
  missing.code_verifier = "";
  EXPECT_THAT(Redeem(Code(), missing), OAuthError("invalid_grant"));
}

TEST_P(GrantsTest, OtherRedirectUriIsRefused) {
  Grants::Redemption other = Good();
  other.redirect_uri = "https://c.example/cb/";
  EXPECT_THAT(Redeem(Code(), other), OAuthError("invalid_grant"));
}

TEST_P(GrantsTest, OtherResourceIsRefused) {
  Grants::Redemption other = Good();
  other.resource = "https://gw/mcp/y";
  EXPECT_THAT(Redeem(Code(), other), OAuthError("invalid_target"));
}

TEST_P(GrantsTest, SecondRedemptionRevokesWhatTheFirstGave) {
  const std::string code = Code();
  ASSERT_OK_AND_ASSIGN(const Grants::Tokens tokens, Redeem(code));
  EXPECT_THAT(Redeem(code), OAuthError("invalid_grant"));
  EXPECT_EQ(revoked_, tokens.grant.id);
  EXPECT_FALSE(IsLive(tokens.grant));
  EXPECT_THAT(Refresh(tokens.refresh_token), OAuthError("invalid_grant"));
}

TEST_P(GrantsTest, AnotherClientsReplayOfACodeRevokesNothing) {
  const std::string code = Code();
  ASSERT_OK_AND_ASSIGN(const Grants::Tokens tokens, Redeem(code));
  EXPECT_THAT(Redeem(code, Good("clt_b")), OAuthError("invalid_grant"));
  EXPECT_TRUE(IsLive(tokens.grant));
}

TEST_P(GrantsTest, FiftyParallelRedemptionsGiveExactlyOneGrant) {
  const std::string code = Code();
  std::atomic<int> succeeded{0};
  std::atomic<int> refused{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 50; ++i) {
    threads.emplace_back([&] {
      std::string revoked;
      // A database that is busy says so; a client tries again.
      for (int attempt = 0; attempt < 20; ++attempt) {
        const auto tokens = grants_->RedeemCode(code, Good(), true, clock_.Now(), &revoked);
        if (tokens.ok()) {
          ++succeeded;
          return;
        }
        if (DetailOf(tokens.status()).oauth_error == "invalid_grant") {
          ++refused;
          return;
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(succeeded, 1);
  EXPECT_EQ(refused, 49);
}

TEST_P(GrantsTest, RefreshRotates) {
  const Grants::Tokens first = Begin();
  ASSERT_OK_AND_ASSIGN(const Grants::Tokens second, Refresh(first.refresh_token));
  EXPECT_FALSE(second.refresh_token == first.refresh_token);
  EXPECT_EQ(second.grant.id, first.grant.id);
  ASSERT_OK_AND_ASSIGN(const Grants::Tokens third, Refresh(second.refresh_token));
  EXPECT_FALSE(third.refresh_token == second.refresh_token);
}

// For each generation: the token just used gives the same successor again within the grace, and the family lives on.
TEST_P(GrantsTest, RepeatWithinGraceGivesTheSameSuccessorInEveryGeneration) {
  Grants::Tokens tokens = Begin();
  for (int generation = 0; generation < 6; ++generation) {
    ASSERT_OK_AND_ASSIGN(Grants::Tokens next, Refresh(tokens.refresh_token));
    for (int repeat = 0; repeat < 3; ++repeat) {
      clock_.Advance(absl::Seconds(10));
      ASSERT_OK_AND_ASSIGN(const Grants::Tokens again, Refresh(tokens.refresh_token));
      EXPECT_TRUE(again.reused_grace);
      EXPECT_TRUE(again.refresh_token == next.refresh_token) << generation;
    }
    tokens = std::move(next);
    clock_.Advance(absl::Hours(1));
  }
  EXPECT_TRUE(IsLive(tokens.grant));
}

TEST_P(GrantsTest, RepeatAfterGraceRevokesTheFamilyInEveryGeneration) {
  for (int generation = 1; generation <= 4; ++generation) {
    Grants::Tokens tokens = Begin();
    Secret replayed;
    for (int i = 0; i < generation; ++i) {
      replayed = tokens.refresh_token.Clone();
      ASSERT_OK_AND_ASSIGN(tokens, Refresh(tokens.refresh_token));
      clock_.Advance(absl::Minutes(1));
    }
    EXPECT_THAT(Refresh(replayed), OAuthError("invalid_grant"));
    EXPECT_EQ(revoked_, tokens.grant.id);
    EXPECT_THAT(Refresh(tokens.refresh_token), OAuthError("invalid_grant")) << generation;
  }
}

TEST_P(GrantsTest, RepeatOnceTheSuccessorWasUsedRevokesTheFamilyEvenWithinGrace) {
  const Grants::Tokens first = Begin();
  ASSERT_OK_AND_ASSIGN(const Grants::Tokens second, Refresh(first.refresh_token));
  ASSERT_OK_AND_ASSIGN(const Grants::Tokens third, Refresh(second.refresh_token));
  EXPECT_THAT(Refresh(first.refresh_token), OAuthError("invalid_grant"));
  EXPECT_EQ(revoked_, first.grant.id);
  EXPECT_THAT(Refresh(third.refresh_token), OAuthError("invalid_grant"));
}

TEST_P(GrantsTest, RevokingAFamilyLeavesOtherFamiliesOfTheUserAlive) {
  const Grants::Tokens laptop = Begin();
  const Grants::Tokens phone = Begin();
  ASSERT_OK_AND_ASSIGN(const Grants::Tokens next, Refresh(laptop.refresh_token));
  clock_.Advance(absl::Minutes(1));
  EXPECT_THAT(Refresh(laptop.refresh_token), OAuthError("invalid_grant"));
  EXPECT_FALSE(IsLive(next.grant));
  EXPECT_THAT(Refresh(phone.refresh_token), IsOk());
}

TEST_P(GrantsTest, AnotherClientCannotRefreshNorHarmTheFamily) {
  const Grants::Tokens first = Begin();
  ASSERT_OK_AND_ASSIGN(const Grants::Tokens second, Refresh(first.refresh_token));
  clock_.Advance(absl::Hours(1));
  // With a used token of the victim: reuse detection must not run for a stranger.
  EXPECT_THAT(Refresh(first.refresh_token.Expose(), "clt_evil"), OAuthError("invalid_grant"));
  EXPECT_THAT(Refresh(second.refresh_token.Expose(), "clt_evil"), OAuthError("invalid_grant"));
  EXPECT_EQ(revoked_, "");
  EXPECT_THAT(Refresh(second.refresh_token), IsOk());
}

TEST_P(GrantsTest, IdleTokenDiesAfterSevenDays) {
  const Grants::Tokens tokens = Begin();
  clock_.Advance(kRefreshIdle);
  EXPECT_THAT(Refresh(tokens.refresh_token), OAuthError("invalid_grant"));
  EXPECT_EQ(revoked_, "");
}

TEST_P(GrantsTest, FamilyDiesAfterThirtyDaysHoweverBusy) {
  Grants::Tokens tokens = Begin();
  for (int day = 0; day < 29; ++day) {
    clock_.Advance(absl::Hours(24));
    ASSERT_OK_AND_ASSIGN(tokens, Refresh(tokens.refresh_token));
  }
  clock_.Advance(absl::Hours(24));
  EXPECT_THAT(Refresh(tokens.refresh_token), OAuthError("invalid_grant"));
}

TEST_P(GrantsTest, RefreshDoesNotWiden) {
  const Grants::Tokens tokens = Begin();
  const auto with = [&](const Grants::Refresh& refresh) {
    return grants_->RedeemRefreshToken(tokens.refresh_token.Expose(), refresh, clock_.Now(), &revoked_);
  };
  EXPECT_THAT(with({.client_id = "clt_a", .resource = "https://gw/mcp/y"}), OAuthError("invalid_target"));
  // That did not use it up.
  EXPECT_THAT(with({.client_id = "clt_a", .scope = "mcp", .resource = "https://gw/mcp/x"}), IsOk());
}

TEST_P(GrantsTest, UnknownScopesAreIgnoredAtRefresh) {
  Grants::Tokens tokens = Begin();
  for (const char* scope : {"mcp admin", "openid email profile", "offline_access mcp", "api", "MCP", " ", "mcp mcp",
                            "\"mcp\"", "mcp:connect mcp"}) {
    ASSERT_OK_AND_ASSIGN(
        tokens, grants_->RedeemRefreshToken(tokens.refresh_token.Expose(), {.client_id = "clt_a", .scope = scope},
                                            clock_.Now(), &revoked_));
    EXPECT_EQ(tokens.grant.scope, "mcp") << scope;
  }
}

TEST_P(GrantsTest, CodeIsIssuedOnlyWhileItsSessionLives) {
  const Identity ann = User();
  const auto refused = [&](const std::string& session) { return ReasonOf(Issue(ann, session).status()); };
  EXPECT_EQ(refused(""), "session_ended");
  EXPECT_EQ(refused("ses_unknown"), "session_ended");
  EXPECT_EQ(refused(SessionOf(User("local:bob"))), "session_ended") << "another user's";
  const std::string session = SessionOf(ann);
  EXPECT_THAT(Issue(ann, session), IsOk());
  ASSERT_THAT(sessions_->EndSubject("local:ann", clock_.Now()), IsOk());
  EXPECT_EQ(refused(session), "session_ended");
  const std::string old = SessionOf(ann);
  clock_.Advance(absl::Hours(12));
  EXPECT_EQ(refused(old), "session_ended");
}

// The user was recognized before the revocation began, and the code is stored in the middle of it.
TEST_P(GrantsTest, NoCodeOutlivesTheRevocationOfItsUser) {
  const Identity ann = User();
  for (int round = 0; round < 10; ++round) {
    std::vector<std::string> sessions(4);
    for (std::string& session : sessions) {
      session = SessionOf(ann);
    }
    std::vector<absl::StatusOr<Secret>> codes(sessions.size());
    std::vector<std::thread> threads;
    for (size_t i = 0; i < sessions.size(); ++i) {
      threads.emplace_back([&, i] { codes[i] = Issue(ann, sessions[i]); });
    }
    EXPECT_THAT(sessions_->EndSubject("local:ann", clock_.Now()), IsOk());
    EXPECT_THAT(grants_->RevokeAll({.subject = "local:ann"}, clock_.Now()), IsOk());
    for (std::thread& thread : threads) {
      thread.join();
    }
    for (const auto& code : codes) {
      if (code.ok()) {
        EXPECT_THAT(Redeem(std::string(code->Expose())), OAuthError("invalid_grant"));
      }
    }
  }
}

TEST_P(GrantsTest, ThereIsNoCodeWithoutAResource) {
  const Identity ann = User();
  EXPECT_THAT(grants_->IssueCode(ann, {.client_id = "clt_a", .session_id = SessionOf(ann)}, "", clock_.Now()),
              Not(IsOk()));
}

TEST_P(GrantsTest, MalformedRefreshTokensAreRefused) {
  const Grants::Tokens tokens = Begin();
  std::string flipped(tokens.refresh_token.Expose());
  flipped[10] = flipped[10] == 'A' ? 'B' : 'A';
  for (const std::string& token :
       {std::string(), std::string("spr_"), std::string("spr_abc"), std::string(4000, 'a'), flipped,
        std::string(tokens.refresh_token.Expose()) + "A", std::string(tokens.refresh_token.Expose().substr(4))}) {
    EXPECT_THAT(Refresh(absl::string_view(token)), OAuthError("invalid_grant")) << token;
  }
}

TEST_P(GrantsTest, RevocationByItsClientEndsTheGrantAndByOthersDoesNothing) {
  const Grants::Tokens tokens = Begin();
  ASSERT_OK_AND_ASSIGN(const auto others,
                       grants_->RevokeByRefreshToken(tokens.refresh_token.Expose(), "clt_b", clock_.Now()));
  EXPECT_FALSE(others.has_value());
  EXPECT_TRUE(IsLive(tokens.grant));
  ASSERT_OK_AND_ASSIGN(const auto own,
                       grants_->RevokeByRefreshToken(tokens.refresh_token.Expose(), "clt_a", clock_.Now()));
  ASSERT_TRUE(own.has_value());
  EXPECT_FALSE(IsLive(tokens.grant));
}

TEST_P(GrantsTest, RevokingASubjectEndsTheirGrantsAndPendingCodesOnly) {
  const Grants::Tokens ann = Begin();
  const Grants::Tokens bob = Begin("clt_a", "local:bob");
  const std::string code = Code();
  ASSERT_OK_AND_ASSIGN(const Ended ended, grants_->RevokeAll({.subject = "local:ann"}, clock_.Now()));
  EXPECT_EQ(ended.count, 1);
  EXPECT_FALSE(IsLive(ann.grant));
  EXPECT_THAT(Refresh(ann.refresh_token), OAuthError("invalid_grant"));
  EXPECT_THAT(Redeem(code), OAuthError("invalid_grant"));
  EXPECT_THAT(Refresh(bob.refresh_token), IsOk());
}

TEST_P(GrantsTest, PruneKeepsWhatIsStillNeeded) {
  const Grants::Tokens tokens = Begin();
  clock_.Advance(absl::Hours(48));
  EXPECT_THAT(grants_->Prune(clock_.Now()), IsOk());
  EXPECT_THAT(Refresh(tokens.refresh_token), IsOk());
  clock_.Advance(absl::Hours(24 * 31));
  EXPECT_THAT(grants_->Prune(clock_.Now()), IsOk());
  EXPECT_THAT(grants_->Find(tokens.grant.id), Not(IsOk()));
}

// What lies in the tables must be useless to whoever reads them.
TEST_P(GrantsTest, NoTableHoldsACodeOrToken) {
  const std::string code = Code();
  const Grants::Tokens first = Begin();
  ASSERT_OK_AND_ASSIGN(const Grants::Tokens second, Refresh(first.refresh_token));
  std::string all;
  EXPECT_THAT(database_->Read([&](Transaction& tx) -> absl::Status {
    for (const char* sql : {"SELECT hash || grant_id || successor || successor_hash AS t FROM refresh_tokens",
                            "SELECT hash || identity || redirect_uri AS t FROM codes"}) {
      auto rows = tx.Query(sql);
      if (!rows.ok()) {
        return rows.status();
      }
      for (const Row& row : *rows) {
        all += row.Text("t");
      }
    }
    return absl::OkStatus();
  }),
              IsOk());
  EXPECT_THAT(all, Not(::testing::HasSubstr(code)));
  EXPECT_THAT(all, Not(::testing::HasSubstr(std::string(first.refresh_token.Expose().substr(4)))));
  EXPECT_THAT(all, Not(::testing::HasSubstr(std::string(second.refresh_token.Expose().substr(4)))));
}

}  // namespace
}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
// Work that nobody calls for: renewals, revocations that are owed, pending links.
#include "services/token_broker/background.h"

#include <atomic>
#include <set>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/proto_time.h"
#include "services/token_broker/testing/background_test_base.h"

namespace sallyport::token_broker {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::HttpProvider;
using ::testing::IsSupersetOf;

class BackgroundTest : public testing::BackgroundTestBase {};

// --- Revocations ---

TEST_F(BackgroundTest, WhatIsOwedIsMadeGoodOnceTheProviderAnswers) {
  Answer(503);
  PutLinked("corp:ada", kApp, "rt0");
  ASSERT_OK_AND_ASSIGN(const auto ended, revoker_->Disconnect({"corp:ada", kApp}, PassportOf("corp:ada")));
  ASSERT_EQ(ended.revocation, "pending");
  Answer(200);
  EXPECT_EQ(background_->RunOnce(), 0) << "not due yet";
  clock_for_all_.Advance(absl::Seconds(31));

  EXPECT_EQ(background_->RunOnce(), 1);

  EXPECT_TRUE(Owed().empty());
  EXPECT_THAT(asked(), ElementsAre("/revoke rt0", "/revoke rt0", "/revoke at0-of-corp:ada"));
  EXPECT_THAT(Audited(), ElementsAre("link.revoked revoked corp:ada"));
}

TEST_F(BackgroundTest, RevocationThatFailsForAWeekIsGivenUpAndAudited) {
  Answer(503);
  Owe("ada", 1);
  background_->RunOnce();
  clock_for_all_.Advance(absl::Hours(24 * 7 - 1));
  background_->RunOnce();
  EXPECT_EQ(Owed().size(), 1U);
  EXPECT_TRUE(Events().empty());

  clock_for_all_.Advance(absl::Hours(2));
  background_->RunOnce();

  EXPECT_TRUE(Owed().empty());
  const std::vector<audit::v1::Event> events = Events();
  ASSERT_EQ(events.size(), 1U);
  EXPECT_EQ(events[0].type(), "link.revocation_abandoned");
  EXPECT_EQ(events[0].decision(), audit::v1::DECISION_FAILED);
  EXPECT_EQ(events[0].subject(), "corp:ada0");
  EXPECT_EQ(events[0].details().at("app"), "github");
}

// Though a provider that does not answer is asked for a few of them only.
TEST_F(BackgroundTest, WhatIsOwedToAProviderThatNeverAnswersIsGivenUpToo) {
  Answer(503);
  Owe("user", 130);
  clock_for_all_.Advance(absl::Hours(24 * 8));

  background_->RunOnce();

  EXPECT_TRUE(Owed().empty());
  EXPECT_LE(CountAsked("/revoke"), 8);
  EXPECT_EQ(Events().size(), 130U);
}

TEST_F(BackgroundTest, WhatManyOweAProviderThatIsDownCostsFewAttemptsAndDelaysNobody) {
  Answer(503);
  Owe("many", 160);
  clock_for_all_.Advance(absl::Seconds(1));
  Owe("zoe", 1, kUp);
  PutDue("corp:bob", kUp);

  background_->RunOnce();

  EXPECT_THAT(asked(), IsSupersetOf({"/up/revoke rt-zoe0", "/up/token "}));
  EXPECT_GT(NextAt("corp:bob", kUp), clock_.Now()) << "renewed";
  EXPECT_EQ(Owed().size(), 160U);
  const int first = CountAsked("/revoke");
  EXPECT_LE(first, 8);
  background_->RunOnce();
  EXPECT_EQ(CountAsked("/revoke"), first) << "left alone";
  clock_for_all_.Advance(absl::Seconds(31));
  background_->RunOnce();
  const int second = CountAsked("/revoke");
  EXPECT_GT(second, first);
  EXPECT_LE(second, first + 8);
  clock_for_all_.Advance(absl::Seconds(31));
  background_->RunOnce();
  EXPECT_EQ(CountAsked("/revoke"), second) << "for twice as long";

  Answer(200);
  clock_for_all_.Advance(absl::Minutes(2));
  background_->RunOnce();

  EXPECT_TRUE(Owed().empty());
}

TEST_F(BackgroundTest, OneTokenThatAProviderNeverTakesKeepsNobodyElseWaiting) {
  Owe("poison", 1);
  clock_for_all_.Advance(absl::Seconds(1));
  Owe("user", 20);
  provider_.SetHandler([](const HttpProvider::Request& request) -> HttpProvider::Response {
    const auto token = request.form.find("token");
    return {token != request.form.end() && token->second == "rt-poison0" ? 400 : 200, "", "application/json", ""};
  });

  for (int i = 0; i < 4; ++i) {
    background_->RunOnce();
    clock_for_all_.Advance(absl::Seconds(61));
  }

  ASSERT_EQ(Owed().size(), 1U);
  EXPECT_EQ(ConnectionOf(Owed()[0]).subject, "corp:poison0");
  EXPECT_EQ(Owed()[0].reason(), "provider_refused");
}

TEST_F(BackgroundTest, ATokenThatIsRefusedPausesNobodyAndIsGivenUpInTheEnd) {
  Answer(400, R"({"error":"invalid_request"})");
  Owe("ada", 1);
  background_->RunOnce();
  EXPECT_TRUE(revocations_->pauses().Paused().empty());
  EXPECT_EQ(Owed().size(), 1U);

  clock_for_all_.Advance(absl::Hours(24 * 8));
  background_->RunOnce();

  EXPECT_TRUE(Owed().empty());
  EXPECT_THAT(Audited(), ElementsAre("link.revocation_abandoned provider_refused corp:ada0"));
}

TEST_F(BackgroundTest, ATokenThatTheProviderNoLongerKnowsIsRevoked) {
  Answer(400, R"({"error":"invalid_token"})");
  Owe("ada", 1);
  background_->RunOnce();
  EXPECT_TRUE(Owed().empty());
  EXPECT_THAT(Audited(), ElementsAre("link.revoked revoked corp:ada0"));
}

TEST_F(BackgroundTest, ReplicasShareWhatIsOwed) {
  Owe("user", 120);
  Renewals renewals(peers_.vault, *connections_, *refresher_, *invalidations_, *audit_, clock_,
                    absl::InfiniteDuration());
  Revocations revocations(peers_.vault, *control_, *providers_, *endpoint_, *audit_, clock_);
  Background other(peers_.vault, renewals, revocations, clock_, absl::Hours(1));

  std::atomic<int> theirs{0};
  std::thread replica([&] { theirs = other.RunOnce(); });
  const int ours = background_->RunOnce();
  replica.join();

  EXPECT_EQ(ours + theirs, 120);
  EXPECT_TRUE(Owed().empty());
  std::set<std::string> tokens;
  int refresh_tokens = 0;
  for (const std::string& one : asked()) {
    if (!absl::StartsWith(one, "/revoke rt-")) continue;
    ++refresh_tokens;
    tokens.insert(one);
  }
  EXPECT_EQ(tokens.size(), 120U);
  EXPECT_EQ(refresh_tokens, 120) << "each once";
  EXPECT_EQ(Events().size(), 120U);
}

TEST_F(BackgroundTest, ARevocationThatDoesNotOpenIsPutOffAndKeepsNobodyWaiting) {
  Owe("user", 3);
  const vault::v1::RecordName damaged = Owed()[0].record();
  peers_.vault.Damage(damaged);

  background_->RunOnce();

  ASSERT_EQ(Owed().size(), 1U);
  EXPECT_EQ(Owed()[0].record().name(), damaged.name());
  EXPECT_GT(FromTimestamp(Owed()[0].next_at()), clock_.Now() + absl::Hours(23));
}

TEST_F(BackgroundTest, ARevocationThatNeverOpensIsGivenUpAndAudited) {
  Owe("user", 2);
  const vault::v1::RecordMetadata damaged = Owed()[0];
  peers_.vault.Damage(damaged.record());
  background_->RunOnce();
  ASSERT_EQ(Owed().size(), 1U);

  clock_for_all_.Advance(absl::Hours(24 * 8));
  background_->RunOnce();

  EXPECT_TRUE(Owed().empty());
  EXPECT_THAT(Audited(), Contains(absl::StrCat("link.revocation_abandoned damaged ", ConnectionOf(damaged).subject)));
}

// Whoever asks who has ended what another replica was at is not told that it was revoked.
TEST_F(BackgroundTest, WhatAnotherReplicaHasEndedIsNotSaidToBeRevoked) {
  Owe("ada", 1);
  const vault::v1::RecordMetadata owed = Owed()[0];
  background_->RunOnce();
  ASSERT_TRUE(Owed().empty());
  const Revocations::Outcome outcome = revocations_->Attempt(owed, /*insist=*/true);
  EXPECT_EQ(outcome, Revocations::Outcome::kGone);
  EXPECT_EQ(Revocations::NameOf(outcome), "pending");
}

TEST_F(BackgroundTest, WhatHoldsNoTokenAsksNobody) {
  vault::v1::PutRequest put;
  *put.mutable_record() = ConnectionRecord("corp:ada", kUp);
  v1::TokenSet tokens;
  tokens.set_id_token("id");
  put.set_payload(tokens.SerializeAsString());
  (*put.mutable_labels())[kBoundTo] = absl::StrCat(OriginOf(provider_.Url("/")), " ", OriginOf(provider_.Url("/")));
  ASSERT_TRUE(peers_.vault.Put(put, PassportOf("corp:ada")).ok());
  ASSERT_OK_AND_ASSIGN(const auto ended, revoker_->Disconnect({"corp:ada", kUp}, PassportOf("corp:ada")));
  EXPECT_EQ(ended.revocation, "revoked");
  EXPECT_TRUE(asked().empty());
}

TEST_F(BackgroundTest, RevocationWaitsForMetadataThatCannotBeHad) {
  peers_.registry.Change([this](auto& /*snapshot*/) {
    app_->set_issuer(provider_.Url(""));
    app_->clear_revocation_url();
  });
  ASSERT_TRUE(Await([&] { return !control_->snapshot()->AppByUid(kApp)->issuer().empty(); }));
  Answer(503);
  PutLinked("corp:ada", kApp, "rt0");

  ASSERT_OK_AND_ASSIGN(const auto ended, revoker_->Disconnect({"corp:ada", kApp}, PassportOf("corp:ada")));

  EXPECT_EQ(ended.revocation, "pending");
  EXPECT_EQ(Owed().size(), 1U);

  Answer(200, absl::StrCat(R"({"issuer":")", provider_.Url(""), R"(","revocation_endpoint":")",
                           provider_.Url("/revoke"), R"("})"));
  clock_for_all_.Advance(absl::Minutes(2));
  background_->RunOnce();

  EXPECT_THAT(asked(), IsSupersetOf({"/revoke rt0", "/revoke at0-of-corp:ada"}));
  EXPECT_TRUE(Owed().empty());
}

// Whoever may point an app elsewhere gets no user's token by deleting or disconnecting.
TEST_F(BackgroundTest, TokensAreNotRevokedWhereTheAppWasMovedTo) {
  PutLinked("corp:ada", kApp, "rt0");
  peers_.registry.Change([this](auto& /*snapshot*/) { app_->set_revocation_url("https://elsewhere.example/revoke"); });
  ASSERT_TRUE(Await(
      [&] { return control_->snapshot()->AppByUid(kApp)->revocation_url() == "https://elsewhere.example/revoke"; }));

  ASSERT_OK_AND_ASSIGN(const auto ended, revoker_->Disconnect({"corp:ada", kApp}, PassportOf("corp:ada")));

  EXPECT_EQ(ended.revocation, "unsupported");
  EXPECT_TRUE(asked().empty());
  EXPECT_TRUE(Owed().empty());
}

TEST_F(BackgroundTest, NobodyEndsAnothersConnection) {
  PutLinked("corp:ada", kApp, "rt0");

  const auto ended = revoker_->Disconnect({"corp:ada", kApp}, PassportOf("corp:mallory"));

  EXPECT_EQ(ended.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_TRUE(IsThere({"corp:ada", kApp}));
  EXPECT_TRUE(asked().empty());
}

TEST_F(BackgroundTest, WhatAnEarlierReleaseLeftPendingBecomesOwed) {
  PutLinked("corp:ada", kApp, "rt0");
  MakeDue("corp:ada", kApp, "REVOKE_PENDING");
  Answer(503);

  background_->RunOnce();

  EXPECT_FALSE(IsThere({"corp:ada", kApp}));
  ASSERT_EQ(Owed().size(), 1U);
  EXPECT_EQ(ConnectionOf(Owed()[0]), (ConnectionKey{"corp:ada", kApp}));
  EXPECT_THAT(asked(), ElementsAre("/revoke rt0"));
  EXPECT_EQ(peers_.registry.invalidations().at(0).key(), "corp:ada\napp_gh\n");
  Answer(200);
  clock_for_all_.Advance(absl::Minutes(2));
  background_->RunOnce();
  EXPECT_TRUE(Owed().empty());
}

TEST_F(BackgroundTest, GaugesSayWhatIsDueAndForHowLong) {
  Answer(503);
  Owe("user", 60);
  clock_for_all_.Advance(absl::Seconds(40));

  background_->RunOnce();

  const std::string metrics = SerializeMetrics();
  EXPECT_THAT(metrics, HasSubstr("sallyport_broker_due{lane=\"renewals\"} 0"));
  EXPECT_THAT(metrics, HasSubstr("sallyport_broker_due{lane=\"pending_links\"} 0"));
  EXPECT_THAT(metrics, HasSubstr("sallyport_broker_due{lane=\"revocations\"} 5")) << "all but the few that were tried";
  EXPECT_THAT(metrics, HasSubstr("sallyport_broker_oldest_due_seconds{lane=\"revocations\"} 50"));
  EXPECT_THAT(metrics, HasSubstr("sallyport_broker_revocations_total{app=\"github\",outcome=\"failed\"}"));
}

// --- Renewals ---

TEST_F(BackgroundTest, RetryLeavesAConnectionThatWasLinkedAnewAlone) {
  PutLinked("corp:ada", kApp, "rt0");
  MakeDue("corp:ada", kApp, "REVOKE_PENDING");
  vault::v1::RecordMetadata stale = peers_.vault.MetadataOf(ConnectionRecord("corp:ada", kApp));
  PutDue("corp:ada", kApp);
  const vault::v1::RecordMetadata before = peers_.vault.MetadataOf(ConnectionRecord("corp:ada", kApp));

  EXPECT_FALSE(renewals_->Work(stale));

  const vault::v1::RecordMetadata after = peers_.vault.MetadataOf(ConnectionRecord("corp:ada", kApp));
  EXPECT_EQ(after.state(), before.state());
  EXPECT_EQ(after.generation(), before.generation());
  EXPECT_EQ(after.has_next_at(), before.has_next_at());
  EXPECT_EQ(peers_.vault.Holder(ConnectionRecord("corp:ada", kApp)), "");
  EXPECT_TRUE(asked().empty());
}

TEST_F(BackgroundTest, RefreshTokenIsNotSentToAProviderTheAppWasMovedTo) {
  Answer(200, R"({"access_token":"at1","refresh_token":"rt1","expires_in":3600})");
  ASSERT_OK_AND_ASSIGN(Provider provider, providers_->ForApp(*app_));
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1), "rt0", {{kBoundTo, BoundTo(provider)}});
  const auto refresh = [&] {
    absl::StatusOr<SharedConnection> view = absl::InternalError("");
    std::atomic<bool> done{false};
    refresher_->Refresh(
        {"corp:ada", kApp}, {RefreshWish::Reason::kForced, 1, 1}, "passport-of:corp:ada",
        [&] { return absl::StatusOr<Provider>(provider); },
        [&](const auto& result) {
          view = result;
          done = true;
        });
    while (!done) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    return view;
  };
  provider.token_url = "https://elsewhere.example/token";

  const absl::StatusOr<SharedConnection> moved = refresh();

  ASSERT_TRUE(moved.ok()) << moved.status();
  EXPECT_EQ((*moved)->state, ConnectionView::State::kNeedsUser);
  EXPECT_TRUE(asked().empty());
}

TEST_F(BackgroundTest, WhoJoinsARefreshLendsItTheirPassport) {
  PutConnection("corp:ada", kApp, absl::Hours(2), absl::Hours(1));
  ASSERT_OK_AND_ASSIGN(const Provider provider, providers_->ForApp(*app_));
  std::atomic<int> refreshed{0};
  std::atomic<int> revoked{0};
  provider_.SetHandler([&](const HttpProvider::Request& request) -> HttpProvider::Response {
    if (request.path == "/revoke") {
      ++revoked;
      return {200, "", "", ""};
    }
    // Linked anew meanwhile, with the same refresh token, and the passport ends.
    PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
    peers_.vault.RefusePassport("passport-of:corp:ada");
    ++refreshed;
    return {200, R"({"access_token":"at1","expires_in":3600})", "application/json", ""};
  });
  std::atomic<int> linked{0};
  std::atomic<int> done{0};
  const auto refresh = [&](const std::string& passport) {
    refresher_->Refresh(
        {"corp:ada", kApp}, {}, passport, [&] { return absl::StatusOr<Provider>(provider); },
        [&](const auto& result) {
          linked += result.ok() && (*result)->state == ConnectionView::State::kLinked ? 1 : 0;
          ++done;
        });
  };

  refresh("passport-of:corp:ada");
  while (refreshed == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  refresh("passport-of:corp:ada#later");
  while (done < 2) std::this_thread::sleep_for(std::chrono::milliseconds(2));

  EXPECT_EQ(linked, 2);
  EXPECT_EQ(refreshed, 1);
  EXPECT_EQ(revoked, 0);
}

TEST_F(BackgroundTest, IdleConnectionIsRenewedBeforeItsRefreshTokenDies) {
  Answer(200, R"({"access_token":"at1","refresh_token":"rt1","expires_in":3600})");
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  ASSERT_OK_AND_ASSIGN(const Provider provider, providers_->ForApp(*app_));
  // As a first refresh leaves it: due in a week.
  absl::StatusOr<SharedConnection> renewed = absl::InternalError("");
  std::atomic<bool> done{false};
  refresher_->Refresh(
      {"corp:ada", kApp}, {RefreshWish::Reason::kForced, 1, 1}, "passport-of:corp:ada",
      [&] { return absl::StatusOr<Provider>(provider); },
      [&](const auto& result) {
        renewed = result;
        done = true;
      });
  while (!done) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  ASSERT_TRUE(renewed.ok()) << renewed.status();
  EXPECT_EQ(background_->RunOnce(), 0);
  clock_for_all_.Advance(absl::Hours(24 * 8));

  EXPECT_EQ(background_->RunOnce(), 1);
  const auto due_again = [&] {
    return FromTimestamp(peers_.vault.MetadataOf(ConnectionRecord("corp:ada", kApp)).next_at());
  };
  for (int i = 0; i < 1000 && due_again() <= clock_.Now(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }

  EXPECT_EQ(asked().size(), 2U);
  EXPECT_GT(due_again(), clock_.Now());
}

// Fifty connections of a deleted app, always the oldest that are due, would keep everybody else's work waiting for
// ever.
TEST_F(BackgroundTest, ConnectionsOfAnAppThatIsGoneCrowdNobodyOut) {
  for (int i = 0; i < 60; ++i) PutDue(absl::StrCat("corp:user", i), "app_gone");
  clock_for_all_.Advance(absl::Seconds(1));
  PutDue("corp:ada", kUp);

  background_->RunOnce();

  EXPECT_THAT(asked(), ElementsAre("/up/token "));
  EXPECT_GT(NextAt("corp:ada", kUp), clock_.Now());
  int put_off = 0;
  for (int i = 0; i < 60; ++i) put_off += NextAt(absl::StrCat("corp:user", i), "app_gone") > clock_.Now() ? 1 : 0;
  EXPECT_LE(put_off, 8) << "the others were not even looked at";
  EXPECT_TRUE(IsThere({"corp:user0", "app_gone"})) << "nothing is lost: the app may come back";
}

TEST_F(BackgroundTest, AProviderThatIsDownIsLeftAloneByRenewalsToo) {
  Answer(503);
  for (int i = 0; i < 70; ++i) PutDue(absl::StrCat("corp:user", i), kApp);
  clock_for_all_.Advance(absl::Seconds(1));
  PutDue("corp:ada", kUp);

  background_->RunOnce();

  EXPECT_LE(CountAsked("/token"), 16);
  EXPECT_EQ(CountAsked("/up/token"), 1);
}

TEST_F(BackgroundTest, AbandonedLinksAreClearedAway) {
  vault::v1::PutRequest put;
  *put.mutable_record() = BrokerRecord("link_flow", "hash");
  put.set_payload("flow");
  *put.mutable_next_at() = ToTimestamp(clock_.Now());
  ASSERT_TRUE(peers_.vault.Put(put, "").ok());

  EXPECT_EQ(background_->RunOnce(), 1);

  EXPECT_EQ(peers_.vault.CountRecords("link_flow"), 0U);
}

}  // namespace
}  // namespace sallyport::token_broker

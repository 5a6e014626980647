// SPDX-License-Identifier: Apache-2.0
// One refresh at a time, step by step; refresh_interleaving_test.cc runs several against each other.
#include "services/token_broker/refresh_flight.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/proto_time.h"
#include "services/token_broker/provider_trouble.h"
#include "services/token_broker/testing/fake_vault_client.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::token_broker {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;
using Kind = RefreshFlight::Next::Kind;
using Reason = RefreshWish::Reason;

// Answers what it is told to.
class FakeEndpoint final : public TokenEndpoint {
 public:
  TokenResult ExchangeCode(const Provider&, const Secret&, const std::string&, const Secret&) override {
    return ProviderError{};
  }
  TokenResult Refresh(const Provider& provider, const Secret& refresh_token) override {
    params_ = provider.token_params;
    sent_.push_back(std::string(refresh_token.Expose()));
    return answer_();
  }
  RevocationResult Revoke(const Provider& /*provider*/, const Secret& token, absl::string_view /*hint*/) override {
    if (unrevoked_ > 0) {
      --unrevoked_;
      return RevocationResult::kRetry;
    }
    revoked_.push_back(std::string(token.Expose()));
    return RevocationResult::kRevoked;
  }

  std::function<TokenResult()> answer_ = [] { return Tokens("at1", "rt1"); };
  std::map<std::string, std::string> params_;  // Of the last refresh.
  std::vector<std::string> sent_;
  std::vector<std::string> revoked_;
  int unrevoked_ = 0;  // How many revocations it does not answer.

  static TokenResult Tokens(const std::string& access, const std::string& refresh) {
    TokenAnswer answer;
    answer.access_token = Secret(std::string(access));
    answer.refresh_token = Secret(std::string(refresh));
    answer.expires_in = absl::Hours(1);
    return answer;
  }
};

class RefreshFlightTest : public ::testing::Test {
 protected:
  static constexpr char kPassport[] = "passport-of:u:ada";
  static constexpr char kLater[] = "passport-of:u:ada#later";

  RefreshFlightTest() {
    provider_.connection = "app_1";
    provider_.token_url = "https://provider.example/token";
    provider_.revocation_url = "https://provider.example/revoke";
  }

  static vault::v1::RecordName Record(const std::string& connection = "app_1") {
    return ConnectionRecord("u:ada", connection);
  }
  vault::v1::RecordMetadata Metadata() { return vault_.MetadataOf(Record()); }
  v1::TokenSet Head() {
    v1::TokenSet head;
    head.ParseFromString(vault_.Head(Record()));
    return head;
  }
  void Link(const std::string& refresh_token, const std::string& connection = "app_1",
            const std::string& bound_to = "https://provider.example https://provider.example",
            const std::string& passport = kPassport) {
    v1::TokenSet tokens;
    tokens.set_access_token("at0");
    tokens.set_refresh_token(refresh_token);
    *tokens.mutable_obtained_at() = ToTimestamp(clock_.Now() - absl::Hours(1));
    *tokens.mutable_expires_at() = ToTimestamp(clock_.Now());
    vault::v1::PutRequest request;
    *request.mutable_record() = Record(connection);
    request.set_payload(tokens.SerializeAsString());
    if (!bound_to.empty()) (*request.mutable_labels())[kBoundTo] = bound_to;
    ASSERT_TRUE(vault_.Put(request, passport).ok());
  }
  void MakeDue() {
    vault::v1::AcquireLeaseRequest acquire;
    *acquire.mutable_record() = Record();
    acquire.mutable_ttl()->set_seconds(30);
    const auto held = vault_.AcquireLease(acquire, kPassport);
    ASSERT_TRUE(held.ok() && held->has_lease());
    vault::v1::PutStatusRequest status;
    *status.mutable_record() = Record();
    status.set_lease(held->lease().id());
    *status.mutable_next_at() = ToTimestamp(clock_.Now());
    ASSERT_TRUE(vault_.PutStatus(status).ok());
  }
  // Refresh tokens whose revocation is owed.
  std::vector<std::string> Owed() {
    std::vector<std::string> owed;
    for (const auto& revocation : vault_.Revocations()) {
      v1::TokenSet tokens;
      EXPECT_TRUE(tokens.ParseFromString(vault_.Head(revocation.record())));
      owed.push_back(tokens.refresh_token());
    }
    return owed;
  }
  std::unique_ptr<RefreshFlight> Flight(RefreshWish wish = {}, const std::string& connection = "app_1",
                                        const std::string& passport = kPassport) {
    RefreshFlight::Options options;
    options.random = [] { return 0.5; };
    options.doubts = &doubts_;
    return std::make_unique<RefreshFlight>(ConnectionKey{"u:ada", connection}, provider_, wish, passport, vault_,
                                           endpoint_, clock_, options);
  }
  // Until it ends, waits or has made so many steps.
  static Kind Run(RefreshFlight& flight, int steps = 50) {
    Kind kind = Kind::kAgain;
    for (int i = 0; i < steps && kind == Kind::kAgain; ++i) kind = flight.Step().kind;
    return kind;
  }
  static ConnectionView::State StateOfResult(const RefreshFlight& flight) {
    EXPECT_TRUE(flight.result().ok()) << flight.result().status();
    return flight.result().ok() ? (*flight.result())->state : ConnectionView::State::kAbsent;
  }

  FakeClock clock_;
  testing::FakeVaultClient vault_{clock_};
  // Answers each refresh with it until told otherwise, whatever backoff says.
  void AnswerWith(const ProviderError& error) {
    endpoint_.answer_ = [error] { return TokenResult(error); };
  }
  ConnectionView::State RunAfterBackoff() {
    clock_.Advance(absl::Minutes(2));
    auto flight = Flight();
    EXPECT_EQ(Run(*flight), Kind::kDone);
    return flight->result().ok() ? (*flight->result())->state : ConnectionView::State::kLinked;
  }

  FakeEndpoint endpoint_;
  GrantDoubts doubts_;
  Provider provider_;
};

TEST_F(RefreshFlightTest, LifetimeCountsFromBeforeTheRequest) {
  Link("rt0");
  const absl::Time asked = clock_.Now();
  endpoint_.answer_ = [&] {
    clock_.Advance(absl::Seconds(9));
    return FakeEndpoint::Tokens("at1", "rt1");
  };

  auto flight = Flight();
  ASSERT_EQ(Run(*flight), Kind::kDone);

  EXPECT_EQ(FromTimestamp(Head().expires_at()), asked + absl::Hours(1));
}

TEST_F(RefreshFlightTest, ClockThatIsSetBackLendsALeaseNoTime) {
  Link("rt0");
  auto flight = Flight();
  ASSERT_EQ(flight->Step().kind, Kind::kAgain);
  ASSERT_EQ(flight->sending_refresh_token(), "rt0");
  const absl::Time then = clock_.Now();
  clock_.Advance(absl::Seconds(15));
  clock_.Set(then);

  EXPECT_EQ(Run(*flight), Kind::kDone);

  EXPECT_THAT(endpoint_.sent_, IsEmpty());
  EXPECT_EQ(flight->result().status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(RefreshFlightTest, ClockThatIsSetForthTakesNone) {
  Link("rt0");
  auto flight = Flight();
  ASSERT_EQ(flight->Step().kind, Kind::kAgain);
  clock_.Set(clock_.Now() + absl::Hours(1));

  EXPECT_EQ(Run(*flight), Kind::kDone);

  EXPECT_THAT(endpoint_.sent_, ElementsAre("rt0"));
}

// --- Refusals that do not say what is wrong ---

TEST_F(RefreshFlightTest, DoubtfulRefusalBacksOffAndEndsTheGrantOnceAnotherUsersIsRenewed) {
  Link("rt0");
  AnswerWith({.failure = ProviderFailure::kGrantDoubted, .code = "unauthorized_client"});
  auto flight = Flight();
  ASSERT_EQ(Run(*flight), Kind::kDone);
  EXPECT_EQ(flight->result().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(TroubleCodeOf(flight->result().status()), "unauthorized_client");
  EXPECT_EQ(Metadata().state(), "OK");
  EXPECT_GT(FromTimestamp(Metadata().backoff_until()), clock_.Now());
  for (int i = 0; i < 20; ++i) EXPECT_EQ(RunAfterBackoff(), ConnectionView::State::kLinked) << "nobody else is known";

  doubts_.Renewed({"u:bob", "app_1"});
  EXPECT_EQ(RunAfterBackoff(), ConnectionView::State::kNeedsUser);

  EXPECT_EQ(Metadata().state(), "NEEDS_REAUTH");
  EXPECT_EQ(Metadata().reason(), "revoked");
  const size_t sent = endpoint_.sent_.size();
  EXPECT_EQ(RunAfterBackoff(), ConnectionView::State::kNeedsUser);
  EXPECT_EQ(endpoint_.sent_.size(), sent) << "the provider is asked no more";
}

TEST_F(RefreshFlightTest, DescriptionThatBlamesTheRefreshTokenEndsTheGrantAfterASecondLook) {
  Link("rt0");
  AnswerWith({.failure = ProviderFailure::kGrantDoubted, .code = "unauthorized_client", .blames_refresh_token = true});

  auto flight = Flight();
  ASSERT_EQ(Run(*flight), Kind::kDone);

  EXPECT_EQ(StateOfResult(*flight), ConnectionView::State::kNeedsUser);
  EXPECT_TRUE(flight->report().marked);
  EXPECT_EQ(flight->report().failure, "revoked");
  EXPECT_EQ(flight->report().provider_error, "unauthorized_client");
  EXPECT_THAT(endpoint_.sent_, ElementsAre("rt0"));
}

TEST_F(RefreshFlightTest, LateAnswerGoesBeforeWhatARefusalSeemsToSay) {
  Link("rt0");
  vault::v1::AcquireLeaseRequest acquire;
  *acquire.mutable_record() = Record();
  acquire.mutable_ttl()->set_seconds(30);
  ASSERT_OK_AND_ASSIGN(const auto lost, vault_.AcquireLease(acquire, kPassport));
  vault_.LapseLeases();
  endpoint_.answer_ = [&]() -> TokenResult {
    v1::TokenSet tokens = Head();
    tokens.set_access_token("late");
    tokens.set_refresh_token("rt1");
    *tokens.mutable_expires_at() = ToTimestamp(clock_.Now() + absl::Hours(1));
    vault::v1::PutRequest late;
    *late.mutable_record() = Record();
    late.set_lease(lost.lease().id());
    *late.mutable_labels() = lost.lease().metadata().labels();
    late.set_payload(tokens.SerializeAsString());
    EXPECT_TRUE(vault_.Put(late, "")->side());
    return ProviderError{
        .failure = ProviderFailure::kGrantDoubted, .code = "unauthorized_client", .blames_refresh_token = true};
  };

  auto flight = Flight();
  ASSERT_EQ(Run(*flight), Kind::kDone);

  EXPECT_EQ(StateOfResult(*flight), ConnectionView::State::kLinked);
  EXPECT_EQ(Head().access_token(), "late");
}

TEST_F(RefreshFlightTest, RejectedClientNeverEndsAGrant) {
  Link("rt0");
  AnswerWith({.failure = ProviderFailure::kClientRejected, .code = "invalid_client"});
  for (int i = 0; i < 10; ++i) {
    doubts_.Renewed({"u:bob", "app_1"});
    EXPECT_EQ(RunAfterBackoff(), ConnectionView::State::kLinked);
  }
  EXPECT_EQ(Metadata().state(), "OK");
}

TEST_F(RefreshFlightTest, AnswersWithoutAnAccessTokenAgainAndAgainEndInTheLink) {
  for (const char* refresh_token : {"", "rt1"}) {
    Link("rt0");
    if (*refresh_token == 0) {
      AnswerWith({.failure = ProviderFailure::kNoAccessToken, .code = "no_access_token"});
    } else {
      endpoint_.answer_ = [refresh_token] { return FakeEndpoint::Tokens("", refresh_token); };
    }
    for (int i = 1; i < GrantDoubts::kMaxEmptyAnswers; ++i) {
      EXPECT_EQ(RunAfterBackoff(), ConnectionView::State::kLinked) << i;
      EXPECT_EQ(Metadata().state(), "OK");
    }

    EXPECT_EQ(RunAfterBackoff(), ConnectionView::State::kNeedsUser) << refresh_token;

    EXPECT_EQ(Metadata().state(), "NEEDS_REAUTH");
    EXPECT_EQ(Metadata().reason(), "no_access_token");
    EXPECT_NE(Head().refresh_token(), "") << "what was received is kept";
  }
}

// --- Where tokens may go ---

TEST_F(RefreshFlightTest, WhatIsKnownOfRevocationNeverDisconnects) {
  provider_.revocation_url.clear();
  provider_.metadata_missing = true;
  Link("rt0");
  auto without_metadata = Flight();
  EXPECT_EQ(Run(*without_metadata), Kind::kDone);
  EXPECT_EQ(StateOfResult(*without_metadata), ConnectionView::State::kLinked);

  provider_.metadata_missing = false;
  provider_.revocation_url = "https://provider.example/revoke";
  Link("rt0", "app_1", "https://provider.example ");
  auto with_metadata = Flight();
  EXPECT_EQ(Run(*with_metadata), Kind::kDone);
  EXPECT_EQ(StateOfResult(*with_metadata), ConnectionView::State::kLinked);
  EXPECT_THAT(endpoint_.sent_, ElementsAre("rt0", "rt0"));
}

TEST_F(RefreshFlightTest, RefreshTokenIsNotSentToAnotherOrigin) {
  Link("rt0");
  provider_.token_url = "https://elsewhere.example/token";
  auto flight = Flight();

  EXPECT_EQ(Run(*flight), Kind::kDone);

  EXPECT_EQ(StateOfResult(*flight), ConnectionView::State::kNeedsUser);
  EXPECT_EQ(Metadata().reason(), "provider_moved");
  EXPECT_THAT(endpoint_.sent_, IsEmpty());
}

TEST_F(RefreshFlightTest, OnlySignInsAreRefreshedWithoutALabel) {
  Link("rt0", "app_1", "");
  auto app = Flight();
  EXPECT_EQ(Run(*app), Kind::kDone);
  EXPECT_EQ(StateOfResult(*app), ConnectionView::State::kNeedsUser);
  EXPECT_THAT(endpoint_.sent_, IsEmpty());

  provider_.connection = "sso:corp";
  Link("rt0", "sso:corp", "");
  auto sign_in = Flight({}, "sso:corp");
  EXPECT_EQ(Run(*sign_in), Kind::kDone);
  EXPECT_EQ(StateOfResult(*sign_in), ConnectionView::State::kLinked);
  EXPECT_THAT(endpoint_.sent_, ElementsAre("rt0"));
}

TEST_F(RefreshFlightTest, AnswerForAFormerLinkIsRevokedAtItsOriginOnly) {
  for (const char* url : {"https://provider.example/revoke", "https://elsewhere.example/revoke"}) {
    provider_.revocation_url = url;
    Link("rt0");
    endpoint_.answer_ = [&] {
      Link("another");
      return FakeEndpoint::Tokens("at1", "rt1");
    };
    auto flight = Flight();
    EXPECT_EQ(Run(*flight), Kind::kDone);
    EXPECT_EQ(flight->report().stray_revoked, provider_.revocation_url == "https://provider.example/revoke");
  }
  EXPECT_THAT(endpoint_.revoked_, ElementsAre("rt1"));
}

TEST_F(RefreshFlightTest, AProviderThatIsAwayIsAskedAgainToRevokeAnAnswerForAFormerLink) {
  Link("rt0");
  endpoint_.unrevoked_ = 3;
  endpoint_.answer_ = [&] {
    Link("another");
    return FakeEndpoint::Tokens("at1", "rt1");
  };
  auto flight = Flight();
  int waits = 0;
  while (Run(*flight) == Kind::kWait && ++waits < 20) EXPECT_TRUE(flight->holds_answer());
  EXPECT_TRUE(flight->report().stray_revoked);
  EXPECT_THAT(endpoint_.revoked_, ElementsAre("rt1"));
  EXPECT_EQ(waits, 3);
}

// The connection ends while its provider makes new tokens: they are revoked as those before.
TEST_F(RefreshFlightTest, AnAnswerForAConnectionThatHasEndedIsRevokedOrOwed) {
  Link("rt0");
  endpoint_.answer_ = [&] {
    vault::v1::OweRevocationRequest owe;
    *owe.mutable_record() = Record();
    EXPECT_TRUE(vault_.OweRevocation(owe, kPassport).ok());
    return FakeEndpoint::Tokens("at1", "rt1");
  };
  auto flight = Flight();
  EXPECT_EQ(Run(*flight), Kind::kDone);

  EXPECT_EQ(StateOfResult(*flight), ConnectionView::State::kAbsent);
  EXPECT_EQ(Metadata().head(), 0) << "nothing brings it back";
  std::vector<std::string> ended = endpoint_.revoked_;
  for (const auto& owed : vault_.Revocations()) {
    v1::TokenSet tokens;
    ASSERT_TRUE(tokens.ParseFromString(vault_.Head(owed.record())));
    ended.push_back(tokens.refresh_token());
  }
  EXPECT_THAT(ended, UnorderedElementsAre("rt0", "rt1"));
}

TEST_F(RefreshFlightTest, WhatNeedsItsUserStaysDueWhereIdleAccountsAreEnded) {
  for (const bool stays_due : {false, true}) {
    Link("rt0");
    AnswerWith({.failure = ProviderFailure::kInvalidGrant, .code = "invalid_grant"});
    RefreshFlight::Options options;
    options.random = [] { return 0.5; };
    options.stays_due = stays_due;
    RefreshFlight flight({"u:ada", "app_1"}, provider_, {}, kPassport, vault_, endpoint_, clock_, options);
    EXPECT_EQ(Run(flight), Kind::kDone);
    EXPECT_EQ(Metadata().state(), "NEEDS_REAUTH");
    EXPECT_EQ(Metadata().has_next_at(), stays_due);
  }
}

// --- Forced refreshes ---

TEST_F(RefreshFlightTest, VersionThatAForcedRefreshMadeIsRefusedAgain) {
  Link("rt0");
  auto first = Flight({Reason::kForced, Metadata().generation(), Metadata().head()});
  EXPECT_EQ(Run(*first), Kind::kDone);
  clock_.Advance(absl::Seconds(20));

  auto again = Flight({Reason::kForced, Metadata().generation(), Metadata().head()});
  EXPECT_EQ(Run(*again), Kind::kDone);

  ASSERT_TRUE(again->result().ok());
  EXPECT_TRUE((*again->result())->refused_again);
  EXPECT_EQ((*again->result())->forced_in_a_row, 1);
  EXPECT_EQ((*again->result())->forced_next, clock_.Now() + absl::Seconds(10));
  EXPECT_THAT(endpoint_.sent_, ElementsAre("rt0"));
}

TEST_F(RefreshFlightTest, RenewalsThatAreRefusedInARowAreCounted) {
  Link("rt0");
  const auto refuse = [&] {
    auto flight = Flight({Reason::kForced, Metadata().generation(), Metadata().head()});
    EXPECT_EQ(Run(*flight), Kind::kDone);
    EXPECT_TRUE(flight->result().ok());
    return flight->result().ok() ? *flight->result() : std::make_shared<ConnectionView>();
  };
  for (int i = 1; i <= 4; ++i) {
    EXPECT_FALSE(refuse()->refused_again) << "renewed";
    EXPECT_EQ(refuse()->forced_in_a_row, i);
    clock_.Advance(absl::Seconds(31));
  }
  clock_.Advance(absl::Minutes(11));
  EXPECT_FALSE(refuse()->refused_again);
  EXPECT_EQ(refuse()->forced_in_a_row, 1) << "that version has served in between";
}

TEST_F(RefreshFlightTest, VersionThatCameAfterAForcedOneCanBeForcedToo) {
  Link("rt0");
  auto forced = Flight({Reason::kForced, Metadata().generation(), Metadata().head()});
  EXPECT_EQ(Run(*forced), Kind::kDone);
  auto due = Flight({Reason::kDue, 0, 0});
  clock_.Advance(absl::Seconds(1));
  vault::v1::PutRequest now_due;  // As if its time had come.
  *now_due.mutable_record() = Record();
  now_due.set_payload(vault_.Head(Record()));
  now_due.set_keep_generation(true);
  *now_due.mutable_next_at() = ToTimestamp(clock_.Now());
  *now_due.mutable_labels() = Metadata().labels();
  ASSERT_TRUE(vault_.Put(now_due, kPassport).ok());
  EXPECT_EQ(Run(*due), Kind::kDone);

  auto again = Flight({Reason::kForced, Metadata().generation(), Metadata().head()});
  EXPECT_EQ(Run(*again), Kind::kDone);

  ASSERT_TRUE(again->result().ok());
  EXPECT_FALSE((*again->result())->refused_again);
  EXPECT_EQ(endpoint_.sent_.size(), 3U);
}

// --- Answers that are not what was asked for ---

TEST_F(RefreshFlightTest, RefreshTokenWithoutAnAccessTokenIsStoredAndTheProviderLeftAloneForAWhile) {
  Link("rt0");
  endpoint_.answer_ = [] { return FakeEndpoint::Tokens("", "rt1"); };

  auto flight = Flight();
  EXPECT_EQ(Run(*flight), Kind::kDone);
  EXPECT_EQ(flight->result().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(flight->report().renewed);
  EXPECT_EQ(flight->report().failure, "no_access_token");
  EXPECT_EQ(Head().refresh_token(), "rt1");
  EXPECT_EQ(Metadata().state(), "OK");
  EXPECT_GT(FromTimestamp(Metadata().backoff_until()), clock_.Now());
  auto soon = Flight();
  EXPECT_EQ(Run(*soon), Kind::kDone);
  EXPECT_THAT(endpoint_.sent_, ElementsAre("rt0"));

  clock_.Advance(absl::Seconds(5));
  endpoint_.answer_ = [] { return FakeEndpoint::Tokens("at2", "rt2"); };
  auto later = Flight();
  EXPECT_EQ(Run(*later), Kind::kDone);
  EXPECT_EQ(StateOfResult(*later), ConnectionView::State::kLinked);
  EXPECT_THAT(endpoint_.sent_, ElementsAre("rt0", "rt1"));
}

TEST_F(RefreshFlightTest, BackoffIsAsLongAsAskedFor) {
  for (const ProviderFailure failure : {ProviderFailure::kNotSent, ProviderFailure::kUnavailable}) {
    Link("rt0");
    endpoint_.answer_ = [&] {
      return ProviderError{.failure = failure, .code = "client_rejected", .retry_after = absl::Seconds(42)};
    };
    auto flight = Flight();
    EXPECT_EQ(Run(*flight), Kind::kDone);
    EXPECT_EQ(FromTimestamp(Metadata().backoff_until()), clock_.Now() + absl::Seconds(42));
  }
}

// --- Answers that the vault does not take at once ---

TEST_F(RefreshFlightTest, BusyStoreIsAskedAgain) {
  Link("rt0");
  vault_.FailPuts(3, absl::AbortedError("other writers take too long"));
  auto flight = Flight();
  while (Run(*flight) == Kind::kWait) EXPECT_THAT(endpoint_.revoked_, IsEmpty());

  EXPECT_TRUE(flight->report().renewed);
  EXPECT_EQ(Head().refresh_token(), "rt1");
  EXPECT_THAT(endpoint_.sent_, ElementsAre("rt0"));
}

TEST_F(RefreshFlightTest, NothingIsRevokedOnAPassportThatHasExpired) {
  Link("rt0");
  endpoint_.answer_ = [&] {
    // Linked anew, with the same refresh token: the provider does not rotate.
    Link("rt0");
    vault_.RefusePassport(kPassport);
    return FakeEndpoint::Tokens("at1", "");
  };
  auto flight = Flight();
  ASSERT_EQ(Run(*flight), Kind::kWait);
  EXPECT_EQ(flight->held_refresh_token(), "rt0");

  flight->Lend(kLater);
  EXPECT_EQ(Run(*flight), Kind::kDone);

  EXPECT_EQ(StateOfResult(*flight), ConnectionView::State::kLinked);
  EXPECT_THAT(endpoint_.revoked_, IsEmpty());
}

TEST_F(RefreshFlightTest, TokenOfAFormerLinkIsLeftToTheVaultWhenNobodyLendsAPassport) {
  Link("rt0");
  endpoint_.answer_ = [&] {
    Link("another");
    vault_.RefusePassport(kPassport);
    return FakeEndpoint::Tokens("at1", "rt1");
  };
  auto flight = Flight();
  int waits = 0;
  while (Run(*flight) == Kind::kWait) ASSERT_LT(++waits, 100);

  EXPECT_EQ(flight->result().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(flight->report().stray_owed);
  EXPECT_EQ(flight->report().failure, "");
  EXPECT_EQ(flight->held_refresh_token(), "");
  EXPECT_THAT(endpoint_.revoked_, IsEmpty());
  EXPECT_THAT(Owed(), ElementsAre("rt1"));
  EXPECT_EQ(Head().refresh_token(), "another") << "the new link is not touched";
}

// Nobody is calling: no passport ever comes.
TEST_F(RefreshFlightTest, AnswerToABackgroundRenewalOfAFormerLinkIsLeftToTheVault) {
  for (const bool ended : {false, true}) {
    Link("rt0");
    MakeDue();
    endpoint_.answer_ = [&] {
      Link("another");
      return FakeEndpoint::Tokens("at1", "rt1");
    };
    auto flight = Flight({.reason = Reason::kDue}, "app_1", "");
    ASSERT_EQ(Run(*flight), Kind::kWait);
    if (ended) {
      vault::v1::DeleteRequest request;
      *request.mutable_record() = Record();
      ASSERT_TRUE(vault_.Delete(request, kPassport).ok());
    }
    vault_.FailPuts(2, absl::UnavailableError("the store is busy"));
    int waits = 0;
    while (Run(*flight) == Kind::kWait) {
      ASSERT_LT(++waits, 100);
      EXPECT_EQ(flight->held_refresh_token(), "rt1") << "it is all there is of that token";
    }
    EXPECT_TRUE(flight->report().stray_owed);
    EXPECT_EQ(Owed(), std::vector<std::string>(ended ? 2 : 1, "rt1"));
    EXPECT_EQ(Head().refresh_token(), ended ? "" : "another");
  }
}

TEST_F(RefreshFlightTest, TokenThatTheNewLinkMayShareIsNotRevokedUnseen) {
  Link("rt0");
  endpoint_.answer_ = [&] {
    Link("rt0");
    vault_.RefusePassport(kPassport);
    return FakeEndpoint::Tokens("at1", "");
  };
  auto flight = Flight();
  int waits = 0;
  while (Run(*flight) == Kind::kWait) ASSERT_LT(++waits, 100);

  EXPECT_EQ(flight->report().failure, "stray_not_revoked");
  EXPECT_THAT(Owed(), IsEmpty());
  EXPECT_EQ(Head().refresh_token(), "rt0");
}

TEST_F(RefreshFlightTest, TokenWhoseLeaseIsForgottenIsStoredWithALentPassport) {
  Link("rt0");
  endpoint_.answer_ = [&] {
    vault_.ForgetLeases();
    return FakeEndpoint::Tokens("at1", "rt1");
  };
  auto flight = Flight();
  ASSERT_EQ(Run(*flight, 3), Kind::kAgain);
  ASSERT_EQ(Run(*flight, 1), Kind::kAgain) << "read again: nothing has changed";
  vault_.RefusePassport(kPassport);
  for (int i = 0; i < 50; ++i) ASSERT_EQ(Run(*flight), Kind::kWait) << "it is all there is of that token";
  EXPECT_EQ(flight->held_refresh_token(), "rt1");

  flight->Lend(kLater);
  EXPECT_EQ(Run(*flight), Kind::kDone);

  EXPECT_TRUE(flight->report().renewed);
  EXPECT_EQ(Head().refresh_token(), "rt1");
}

TEST_F(RefreshFlightTest, LinkThatSharesTheTokenIsSparedWhenFoundUnderItsLease) {
  Link("rt0");
  endpoint_.answer_ = [&] {
    vault_.ForgetLeases();
    return FakeEndpoint::Tokens("at1", "");
  };
  auto flight = Flight();
  ASSERT_EQ(Run(*flight, 4), Kind::kAgain);
  Link("rt0");

  EXPECT_EQ(Run(*flight), Kind::kDone);

  EXPECT_THAT(endpoint_.revoked_, IsEmpty());
  EXPECT_EQ(vault_.Holder(Record()), "") << "given back";
}

TEST_F(RefreshFlightTest, TokenOfAConnectionThatIsGoneIsRevoked) {
  Link("rt0");
  endpoint_.answer_ = [&] {
    vault_.ForgetLeases();
    return FakeEndpoint::Tokens("at1", "rt1");
  };
  auto flight = Flight();
  ASSERT_EQ(Run(*flight, 4), Kind::kAgain);
  vault::v1::DeleteRequest request;
  *request.mutable_record() = Record();
  ASSERT_TRUE(vault_.Delete(request, kPassport).ok());

  EXPECT_EQ(Run(*flight), Kind::kDone);

  EXPECT_EQ(StateOfResult(*flight), ConnectionView::State::kAbsent);
  EXPECT_THAT(endpoint_.revoked_, ElementsAre("rt1"));
}

// A holder that was thought dead brings what it got while the next one hears that the user is needed.
TEST_F(RefreshFlightTest, LateAnswerGoesBeforeAskingTheUserToInteract) {
  Link("rt0");
  vault::v1::AcquireLeaseRequest acquire;
  *acquire.mutable_record() = Record();
  acquire.mutable_ttl()->set_seconds(30);
  ASSERT_OK_AND_ASSIGN(const auto lost, vault_.AcquireLease(acquire, kPassport));
  vault_.LapseLeases();
  endpoint_.answer_ = [&]() -> TokenResult {
    v1::TokenSet tokens = Head();
    tokens.set_access_token("late");
    tokens.set_refresh_token("rt1");
    *tokens.mutable_expires_at() = ToTimestamp(clock_.Now() + absl::Hours(1));
    vault::v1::PutRequest late;
    *late.mutable_record() = Record();
    late.set_lease(lost.lease().id());
    *late.mutable_labels() = lost.lease().metadata().labels();
    late.set_payload(tokens.SerializeAsString());
    EXPECT_TRUE(vault_.Put(late, "")->side());
    return ProviderError{.failure = ProviderFailure::kInteractionRequired, .code = "interaction_required"};
  };

  auto flight = Flight();
  ASSERT_EQ(Run(*flight), Kind::kDone);

  EXPECT_EQ(StateOfResult(*flight), ConnectionView::State::kLinked);
  EXPECT_TRUE(flight->report().adopted);
  EXPECT_EQ(Head().access_token(), "late");
  EXPECT_EQ(Metadata().state(), "OK");
  EXPECT_THAT(endpoint_.sent_, ElementsAre("rt0"));
}

TEST_F(RefreshFlightTest, NothingIsSentWhileTheUserIsNeeded) {
  for (const char* state : {"NEEDS_REAUTH", "NEEDS_INTERACTION"}) {
    Link("rt0");
    vault::v1::AcquireLeaseRequest acquire;
    *acquire.mutable_record() = Record();
    acquire.mutable_ttl()->set_seconds(30);
    ASSERT_OK_AND_ASSIGN(const auto held, vault_.AcquireLease(acquire, kPassport));
    vault::v1::PutStatusRequest status;
    *status.mutable_record() = Record();
    status.set_lease(held.lease().id());
    status.set_state(state);
    ASSERT_TRUE(vault_.PutStatus(status).ok());

    auto flight = Flight({Reason::kForced, 1, 1});
    ASSERT_EQ(Run(*flight), Kind::kDone);

    EXPECT_EQ(StateOfResult(*flight), ConnectionView::State::kNeedsUser) << state;
  }
  EXPECT_THAT(endpoint_.sent_, IsEmpty());
}

// ---- a token for another audience ---------------------------------------------------------------------------------

class FurtherTest : public RefreshFlightTest {
 protected:
  // Runs a flight that asks for one.
  std::unique_ptr<RefreshFlight> Ask() {
    further_ = std::make_shared<FurtherToken>();
    further_->scope = "api://down/.default";
    further_->resource = "https://down.example";
    auto flight = Flight({.reason = Reason::kFurther, .further = further_});
    EXPECT_EQ(Run(*flight), Kind::kDone);
    return flight;
  }
  std::string Given() const {
    const auto* answer = further_->outcome.has_value() ? std::get_if<TokenAnswer>(&*further_->outcome) : nullptr;
    return answer == nullptr ? "" : std::string(answer->access_token.Expose());
  }
  std::string Refused() const {
    const auto* error = further_->outcome.has_value() ? std::get_if<ProviderError>(&*further_->outcome) : nullptr;
    return error == nullptr ? "" : error->code;
  }
  std::shared_ptr<FurtherToken> further_;
};

TEST_F(FurtherTest, TheConnectionKeepsItsTokenAndGetsTheRotatedRefreshToken) {
  Link("rt0");
  const auto flight = Ask();
  EXPECT_EQ(Given(), "at1");
  EXPECT_THAT(endpoint_.params_, ::testing::ElementsAre(::testing::Pair("resource", "https://down.example"),
                                                        ::testing::Pair("scope", "api://down/.default")));
  EXPECT_EQ(Head().refresh_token(), "rt1");
  EXPECT_EQ(Head().access_token(), "at0") << "a token for another audience is not the connection's";
  EXPECT_TRUE(flight->report().further);
  EXPECT_TRUE(flight->report().renewed);
  EXPECT_EQ((*flight->result())->access_token.Expose(), "at0");
  EXPECT_EQ(Metadata().head(), 2);
  EXPECT_EQ((*flight->result())->version, 1) << "who was refused that token is refused it still";

  endpoint_.answer_ = [] { return FakeEndpoint::Tokens("at2", ""); };
  const int64_t version = Metadata().head();
  Ask();
  EXPECT_EQ(Given(), "at2");
  EXPECT_EQ(Metadata().head(), version) << "nothing new to store";
  EXPECT_EQ(vault_.Holder(Record()), "") << "and the lease is given back";
}

TEST_F(FurtherTest, ATokenThatWasRefusedIsRenewedAfterARotationToo) {
  Link("rt0");
  Ask();
  endpoint_.answer_ = [] { return FakeEndpoint::Tokens("at2", "rt2"); };
  RefreshWish wish;
  wish.reason = Reason::kForced;
  wish.refused_generation = 1;
  wish.refused_version = 1;
  auto forced = Flight(wish);
  EXPECT_EQ(Run(*forced), Kind::kDone);
  EXPECT_EQ(Head().access_token(), "at2");
  EXPECT_EQ((*forced->result())->version, 3);
  // Another rotation, and the one that was made by force is refused as well.
  endpoint_.answer_ = [] { return FakeEndpoint::Tokens("further", "rt3"); };
  Ask();
  wish.refused_version = 3;
  auto again = Flight(wish);
  EXPECT_EQ(Run(*again), Kind::kDone);
  EXPECT_TRUE((*again->result())->refused_again) << "not more often than every 30 s";
}

TEST_F(FurtherTest, ARefusalMarksNothingAndDelaysNobody) {
  Link("rt0");
  for (const ProviderFailure failure :
       {ProviderFailure::kInvalidGrant, ProviderFailure::kGrantDoubted, ProviderFailure::kInteractionRequired,
        ProviderFailure::kClientRejected, ProviderFailure::kRateLimited, ProviderFailure::kUnavailable,
        ProviderFailure::kNoAccessToken, ProviderFailure::kNotSent}) {
    AnswerWith({.failure = failure, .code = "no", .retry_after = absl::Hours(1), .blames_refresh_token = true});
    const auto flight = Ask();
    EXPECT_EQ(Refused(), "no");
    EXPECT_EQ(StateOfResult(*flight), ConnectionView::State::kLinked);
    EXPECT_EQ(Metadata().state(), "OK");
    EXPECT_FALSE(Metadata().has_backoff_until());
    EXPECT_EQ(vault_.Holder(Record()), "");
  }
  endpoint_.answer_ = [] { return FakeEndpoint::Tokens("at1", "rt1"); };
  auto ordinary = Flight();
  EXPECT_EQ(Run(*ordinary), Kind::kDone);
  EXPECT_TRUE(ordinary->report().renewed);
  EXPECT_EQ(endpoint_.params_.count("scope"), 0U) << "others are asked for as ever";
}

TEST_F(FurtherTest, AnAnswerThatMayBeOnItsWayKeepsTheLease) {
  Link("rt0");
  AnswerWith({.failure = ProviderFailure::kAmbiguous, .code = "timeout"});
  Ask();
  EXPECT_EQ(Refused(), "timeout");
  EXPECT_NE(vault_.Holder(Record()), "") << "nobody sends the same refresh token meanwhile";
}

TEST_F(FurtherTest, ARefreshTokenWithoutAccessTokenIsKept) {
  Link("rt0");
  endpoint_.answer_ = [] { return FakeEndpoint::Tokens("", "rt1"); };
  Ask();
  EXPECT_EQ(Refused(), "no_access_token");
  EXPECT_EQ(Head().refresh_token(), "rt1");
  EXPECT_EQ(Head().access_token(), "at0");
}

TEST_F(FurtherTest, WithoutRefreshTokenNobodyIsAsked) {
  Link("");
  const auto flight = Ask();
  EXPECT_FALSE(further_->outcome.has_value());
  EXPECT_FALSE((*flight->result())->can_refresh);
  EXPECT_THAT(endpoint_.sent_, IsEmpty());
}

TEST_F(FurtherTest, ARefreshTokenBeyondWhatTheVaultTakesPushesOthersOut) {
  Link("rt0");
  endpoint_.answer_ = [] { return FakeEndpoint::Tokens("at1", std::string(kMaxTokenSetBytes - 80, 'r')); };
  Ask();
  EXPECT_EQ(Given(), "at1");
  EXPECT_EQ(Head().refresh_token().size(), kMaxTokenSetBytes - 80);
}

}  // namespace
}  // namespace sallyport::token_broker

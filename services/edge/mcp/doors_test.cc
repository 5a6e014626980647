// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/doors.h"

#include <future>

#include <gmock/gmock.h>

#include "services/edge/edge_testing.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::edge {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;
using Code = absl::StatusCode;
using registry::v1::Invalidation;

const grpc::Status kDown(grpc::StatusCode::UNAVAILABLE, "down");

class DoorsTest : public ::testing::Test {
 protected:
  DoorsTest() {
    org_ = Compile("srv_org", R"("agentAuth":{"interactive":{}},"appAuth":{"apiKey":{"name":"X-Api-Key"}})");
    user_ =
        Compile("srv_user",
                R"("agentAuth":{"interactive":{}},"appAuth":{"oauthAuthorization":{"app":"github","appUid":"app_x"}})");
    control_.AddListener([this](const ControlUpdate& update) {
      doors_->OnUpdate(update);
      updates_.fetch_add(1);
    });
    doors_ =
        std::make_unique<Doors>(authn_server_.channel(), broker_server_.channel(), control_, clock_, Doors::Options());
    control_.Start();
    EXPECT_TRUE(Soon([&] { return control_.connected(); }));
  }
  ~DoorsTest() override {
    authn_.gate.Open();
    broker_.gate.Open();
    control_.Stop();
    doors_.reset();
  }
  static std::shared_ptr<const ServerEntry> Compile(const std::string& uid, const std::string& fields) {
    auto entry = CompileServer(sallyport::testing::Lowered(FromJson<registry::v1::McpServer>(
                                   R"({"uid":")" + uid + R"(","slug":"a","version":"1",)" +
                                   R"("upstreamUrl":"https://api.example.com/mcp",)" + fields + "}")),
                               "https://gw.example.com");
    EXPECT_THAT(entry, IsOk());
    return *entry;
  }
  static PrincipalKey Key(const std::string& token, const ServerEntry& entry) {
    PrincipalKey key;
    for (size_t i = 0; i < token.size(); ++i)
      key.digest[i % 16] = static_cast<uint8_t>(key.digest[i % 16] * 31 + token[i]);
    key.server_serial = entry.serial;
    return key;
  }
  std::future<absl::StatusOr<PrincipalPtr>> StartAuthenticate(const std::string& token, const ServerEntry& entry) {
    auto promise = std::make_shared<std::promise<absl::StatusOr<PrincipalPtr>>>();
    doors_->Authenticate(Key(token, entry), entry, token,
                         [promise](const absl::StatusOr<PrincipalPtr>& result) { promise->set_value(result); });
    return promise->get_future();
  }
  absl::StatusOr<PrincipalPtr> Authenticate(const std::string& token, const ServerEntry& entry) {
    return StartAuthenticate(token, entry).get();
  }
  PrincipalPtr Admit(const std::string& token, const ServerEntry& entry) {
    auto principal = Authenticate(token, entry);
    EXPECT_THAT(principal, IsOk());
    return principal.ok() ? *principal : nullptr;
  }
  std::future<absl::StatusOr<Resolution>> StartResolve(const ServerEntry& entry, const PrincipalPtr& principal,
                                                       const std::string& account = "") {
    auto promise = std::make_shared<std::promise<absl::StatusOr<Resolution>>>();
    doors_->Resolve(
        entry, principal, [promise](const absl::StatusOr<Resolution>& result) { promise->set_value(result); }, account);
    return promise->get_future();
  }
  absl::StatusOr<Resolution> Resolve(const ServerEntry& entry, const PrincipalPtr& principal,
                                     const std::string& account = "") {
    return StartResolve(entry, principal, account).get();
  }
  void Invalidate(Invalidation::Kind kind, const std::string& key, int64_t generation = 0) {
    const int before = updates_;
    registry_.Invalidate(kind, key, generation);
    EXPECT_TRUE(Soon([&] { return updates_ > before; }));
  }
  // In one update.
  void EndSessions(const std::vector<std::string>& ids) {
    const int before = updates_;
    registry::v1::PublishInvalidationsRequest request;
    for (const std::string& id : ids) {
      Invalidation& invalidation = *request.add_invalidations();
      invalidation.set_kind(Invalidation::SESSION);
      invalidation.set_key(id);
    }
    registry::v1::PublishInvalidationsResponse response;
    EXPECT_TRUE(registry_.PublishInvalidations(nullptr, &request, &response).ok());
    EXPECT_TRUE(Soon([&] { return updates_ > before; }));
  }
  // Time passes, and the stream is alive.
  void Advance(absl::Duration by) {
    clock_.Advance(by);
    registry_.Heartbeat();
    EXPECT_TRUE(Soon([&] { return control_.last_contact() == clock_.Now(); }));
  }
  bool Usable(const PrincipalPtr& principal, const ServerEntry& entry, const std::string& token) {
    return doors_->Usable(principal, entry, token, clock_.Now());
  }

  FakeClock clock_;
  FakeAuthn authn_{clock_};
  FakeBroker broker_;
  FakeRegistry registry_;
  FakeServer authn_server_{{&authn_}};
  FakeServer broker_server_{{&broker_}};
  FakeServer registry_server_{{&registry_}};
  std::atomic<int> updates_{0};
  ControlStream control_{
      registry_server_.channel(), clock_, {absl::Milliseconds(10), absl::Milliseconds(50), absl::Seconds(15)}};
  std::shared_ptr<const ServerEntry> org_;
  std::shared_ptr<const ServerEntry> user_;
  std::unique_ptr<Doors> doors_;
};

TEST_F(DoorsTest, AHundredConcurrentMissesAreOneCallAtEachDoor) {
  authn_.gate.Close();
  std::vector<std::future<absl::StatusOr<PrincipalPtr>>> waiting;
  for (int i = 0; i < 100; ++i) waiting.push_back(StartAuthenticate("ours-ada", *org_));
  ASSERT_TRUE(authn_.gate.AwaitArrivals(1));
  authn_.gate.Open();
  for (auto& one : waiting) EXPECT_THAT(one.get(), IsOk());
  EXPECT_EQ(authn_.calls(), 1);
  EXPECT_EQ(doors_->authenticate_calls(), 1U);

  const PrincipalPtr ada = doors_->Find(Key("ours-ada", *org_));
  ASSERT_NE(ada, nullptr);
  broker_.gate.Close();
  std::vector<std::future<absl::StatusOr<Resolution>>> resolving;
  for (int i = 0; i < 100; ++i) resolving.push_back(StartResolve(*org_, ada));
  ASSERT_TRUE(broker_.gate.AwaitArrivals(1));
  broker_.gate.Open();
  for (auto& one : resolving) EXPECT_THAT(one.get(), IsOk());
  EXPECT_EQ(broker_.calls(), 1);
}

TEST_F(DoorsTest, RefusalsAreTheCallersAndAreNotKept) {
  EXPECT_THAT(Authenticate("garbage", *org_), StatusIs(Code::kUnauthenticated));
  EXPECT_THAT(Authenticate("ours-stranger", *org_), StatusIs(Code::kPermissionDenied));
  EXPECT_EQ(doors_->Find(Key("garbage", *org_)), nullptr);
}

TEST_F(DoorsTest, RenewsInTheBackgroundAtEightyPercent) {
  const PrincipalPtr first = Admit("ours-ada", *org_);
  Advance(absl::Seconds(239));
  EXPECT_TRUE(Usable(first, *org_, "ours-ada"));
  EXPECT_EQ(authn_.calls(), 1);
  Advance(absl::Seconds(1));
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(Usable(first, *org_, "ours-ada") || first->dead.load());
  ASSERT_TRUE(Soon([&] { return doors_->Find(Key("ours-ada", *org_)) != first; }));
  EXPECT_EQ(authn_.calls(), 2) << "once";
  const PrincipalPtr second = doors_->Find(Key("ours-ada", *org_));
  EXPECT_TRUE(first->dead.load()) << "no invalidation would reach it any more";
  EXPECT_EQ(second->valid_until, clock_.Now() + absl::Minutes(5));
}

TEST_F(DoorsTest, NothingIsUsedPastItsEnd) {
  authn_.SetTokenLife(absl::Seconds(60));
  const PrincipalPtr ada = Admit("ours-ada", *org_);
  Advance(absl::Seconds(59));
  EXPECT_TRUE(Usable(ada, *org_, "ours-ada"));
  Advance(absl::Seconds(1));
  EXPECT_FALSE(Usable(ada, *org_, "ours-ada"));
}

TEST_F(DoorsTest, ARevokedCallerIsDeadAtOnce) {
  const PrincipalPtr ada = Admit("ours-ada", *org_);
  const PrincipalPtr bob = Admit("ours-bob", *org_);
  Invalidate(Invalidation::SESSION, "session-ada");
  EXPECT_FALSE(Usable(ada, *org_, "ours-ada"));
  EXPECT_EQ(doors_->Find(Key("ours-ada", *org_)), nullptr);
  EXPECT_TRUE(Usable(bob, *org_, "ours-bob"));
}

TEST_F(DoorsTest, ARevocationThatOvertakesTheAnswerStillHolds) {
  authn_.gate.Close();
  auto waiting = StartAuthenticate("ours-ada", *org_);
  ASSERT_TRUE(authn_.gate.AwaitArrivals(1));
  Invalidate(Invalidation::SUBJECT, "okta:ada");
  authn_.gate.Open();
  EXPECT_THAT(waiting.get(), StatusIs(Code::kUnavailable)) << "asked again, authn knows";
  EXPECT_EQ(doors_->Find(Key("ours-ada", *org_)), nullptr);
}

TEST_F(DoorsTest, ThousandsThatEndMeanwhileAreNotTakenForTheCaller) {
  authn_.gate.Close();
  auto ada = StartAuthenticate("ours-ada", *org_);
  auto bob = StartAuthenticate("ours-bob", *org_);
  ASSERT_TRUE(authn_.gate.AwaitArrivals(2));
  for (int update = 0; update < 20; ++update) {
    std::vector<std::string> sessions;
    for (int i = 0; i < 500; ++i) sessions.push_back(absl::StrCat("session ", update, "-", i));
    if (update == 7) sessions[250] = "session-bob";
    EndSessions(sessions);
  }
  authn_.gate.Open();
  EXPECT_THAT(ada.get(), IsOk()) << "none of them is theirs";
  EXPECT_THAT(bob.get(), StatusIs(Code::kUnavailable));
}

TEST_F(DoorsTest, WhileInvalidationsDoNotArriveTrustLastsThirtySeconds) {
  const PrincipalPtr ada = Admit("ours-ada", *org_);
  registry_.SetDown(true);
  ASSERT_TRUE(Soon([&] { return !control_.connected(); }));
  clock_.Advance(absl::Seconds(30));
  EXPECT_TRUE(Usable(ada, *org_, "ours-ada"));
  clock_.Advance(absl::Milliseconds(1));
  EXPECT_FALSE(Usable(ada, *org_, "ours-ada"));
  EXPECT_THAT(Authenticate("ours-ada", *org_), IsOk()) << "authn is asked anew";
}

TEST_F(DoorsTest, WhileAuthnIsDownKnownCallersGoOnForTheGraceAndUnknownOnesDoNot) {
  const PrincipalPtr ada = Admit("ours-ada", *org_);
  authn_.SetStatus(kDown);
  Advance(absl::Minutes(14));
  EXPECT_FALSE(Usable(ada, *org_, "ours-ada"));
  auto again = Authenticate("ours-ada", *org_);
  ASSERT_THAT(again, IsOk());
  EXPECT_EQ(*again, ada);
  EXPECT_THAT(Authenticate("ours-bob", *org_), StatusIs(Code::kUnavailable));
  Advance(absl::Minutes(1));
  EXPECT_THAT(Authenticate("ours-ada", *org_), StatusIs(Code::kUnavailable)) << "15 minutes are over";
}

TEST_F(DoorsTest, TheGraceNeverOutlivesTheTokenOrARevocation) {
  authn_.SetTokenLife(absl::Minutes(6));
  Admit("ours-ada", *org_);
  Admit("ours-bob", *org_);
  authn_.SetStatus(kDown);
  Invalidate(Invalidation::SUBJECT, "okta:bob");
  EXPECT_THAT(Authenticate("ours-bob", *org_), StatusIs(Code::kUnavailable));
  Advance(absl::Minutes(6));
  EXPECT_THAT(Authenticate("ours-ada", *org_), StatusIs(Code::kUnavailable));
}

TEST_F(DoorsTest, AVerdictIsNoOutage) {
  const PrincipalPtr ada = Admit("ours-ada", *org_);
  authn_.SetStatus({grpc::StatusCode::UNAUTHENTICATED, "revoked"});
  EXPECT_THAT(Authenticate("ours-ada", *org_), StatusIs(Code::kUnauthenticated));
  EXPECT_TRUE(ada->dead.load());
  authn_.SetStatus(kDown);
  EXPECT_THAT(Authenticate("ours-ada", *org_), StatusIs(Code::kUnavailable))
      << "and is not forgotten in the next outage";
}

TEST_F(DoorsTest, OrganizationCredentialsAreSharedByTheCallersOfAServer) {
  const PrincipalPtr ada = Admit("ours-ada", *org_);
  const PrincipalPtr bob = Admit("ours-bob", *org_);
  EXPECT_EQ(doors_->Credentials(*org_, ada, clock_.Now()), nullptr);
  ASSERT_THAT(Resolve(*org_, ada), IsOk());
  const auto set = doors_->Credentials(*org_, bob, clock_.Now());
  ASSERT_NE(set, nullptr);
  EXPECT_EQ(set->header_lines, "X-Api-Key: org-key\r\n");
  EXPECT_EQ(doors_->Credentials(*org_, nullptr, clock_.Now()), set);
  EXPECT_EQ(broker_.requests()[0].upstream_origin(), "https://api.example.com");
  EXPECT_EQ(broker_.passports()[0], "passport-ada");
  const auto other = Compile("srv_org", R"("agentAuth":{"passthrough":{}},"appAuth":{"apiKey":{"name":"X-Api-Key"}})");
  EXPECT_EQ(doors_->Credentials(*other, nullptr, clock_.Now()), nullptr) << "another version of the server";
}

TEST_F(DoorsTest, CredentialsOfAUserAreTheirsAlone) {
  broker_.Link("ada");
  const PrincipalPtr ada = Admit("ours-ada", *user_);
  const PrincipalPtr bob = Admit("ours-bob", *user_);
  auto resolved = Resolve(*user_, ada);
  ASSERT_THAT(resolved, IsOk());
  EXPECT_THAT(resolved->credentials->header_lines, HasSubstr("app-token-of-ada"));
  EXPECT_EQ(doors_->Credentials(*user_, bob, clock_.Now()), nullptr);
  resolved = Resolve(*user_, bob);
  ASSERT_THAT(resolved, IsOk());
  EXPECT_EQ(resolved->credentials, nullptr);
  EXPECT_EQ(resolved->link.app_slug(), "github");
}

TEST_F(DoorsTest, AUsersPieceIsNeverKeptForEverybody) {
  broker_.SetScope(token_broker::v1::USER);
  const PrincipalPtr ada = Admit("ours-ada", *org_);
  EXPECT_THAT(Resolve(*org_, ada), StatusIs(Code::kInternal));
  EXPECT_EQ(doors_->Credentials(*org_, ada, clock_.Now()), nullptr);
}

TEST_F(DoorsTest, CredentialsAreRenewedAtEightyPercentOnce) {
  ASSERT_THAT(Resolve(*org_, nullptr), IsOk());
  const auto first = doors_->Credentials(*org_, nullptr, clock_.Now());
  Advance(absl::Minutes(4));
  for (int i = 0; i < 10; ++i) EXPECT_NE(doors_->Credentials(*org_, nullptr, clock_.Now()), nullptr);
  ASSERT_TRUE(Soon([&] { return doors_->Credentials(*org_, nullptr, clock_.Now()) != first; }));
  EXPECT_EQ(broker_.calls(), 2);
}

TEST_F(DoorsTest, OrganizationCredentialsSurviveFifteenMinutesWithoutTheBroker) {
  ASSERT_THAT(Resolve(*org_, nullptr), IsOk());
  broker_.SetStatus(kDown);
  Advance(absl::Minutes(14));
  EXPECT_EQ(doors_->Credentials(*org_, nullptr, clock_.Now()), nullptr) << "asked first";
  auto kept = Resolve(*org_, nullptr);
  ASSERT_THAT(kept, IsOk());
  EXPECT_EQ(kept->credentials->header_lines, "X-Api-Key: org-key\r\n");
  Advance(absl::Minutes(1));
  EXPECT_THAT(Resolve(*org_, nullptr), StatusIs(Code::kUnavailable));
}

TEST_F(DoorsTest, InAnOutageThatHangsWhoIsKnownDoesNotWait) {
  const PrincipalPtr ada = Admit("ours-ada", *org_);
  ASSERT_THAT(Resolve(*org_, ada), IsOk());
  authn_.SetStatus(kDown);
  broker_.SetStatus({grpc::StatusCode::RESOURCE_EXHAUSTED, "overloaded"});
  Advance(absl::Minutes(6));
  ASSERT_THAT(Authenticate("ours-ada", *org_), IsOk()) << "who finds out, waits";
  ASSERT_THAT(Resolve(*org_, ada), IsOk());
  authn_.gate.Close();
  broker_.gate.Close();
  const int asked = broker_.gate.arrived();
  for (int i = 0; i < 10; ++i) {
    auto known = StartAuthenticate("ours-ada", *org_);
    ASSERT_EQ(known.wait_for(std::chrono::seconds(0)), std::future_status::ready);
    EXPECT_EQ(*known.get(), ada);
    auto kept = StartResolve(*org_, ada);
    ASSERT_EQ(kept.wait_for(std::chrono::seconds(0)), std::future_status::ready);
    EXPECT_EQ(kept.get()->credentials->header_lines, "X-Api-Key: org-key\r\n");
  }
  EXPECT_TRUE(broker_.gate.AwaitArrivals(asked + 1)) << "asked in the background";
  EXPECT_EQ(broker_.gate.arrived(), asked + 1) << "once";
  authn_.SetStatus(grpc::Status::OK);
  broker_.SetStatus(grpc::Status::OK);
  authn_.gate.Open();
  broker_.gate.Open();
  EXPECT_TRUE(Soon([&] { return doors_->Credentials(*org_, ada, clock_.Now()) != nullptr; }));
  EXPECT_TRUE(Soon([&] { return doors_->Find(Key("ours-ada", *org_)) != ada; }));
}

TEST_F(DoorsTest, APassportThatHasRunOutIsNoReasonToSignInAgain) {
  broker_.Link("ada");
  const PrincipalPtr ada = Admit("ours-ada", *user_);
  ASSERT_THAT(Resolve(*user_, ada), IsOk());
  broker_.SetStatus({grpc::StatusCode::UNAUTHENTICATED, "passport expired"});
  EXPECT_THAT(Resolve(*user_, ada), IsOk()) << "what was resolved before";
  ada->set_credentials(nullptr);
  EXPECT_THAT(Resolve(*user_, ada), StatusIs(Code::kUnavailable)) << "503, not 401";
}

TEST_F(DoorsTest, ARefusalOfTheBrokerIsNotOverruledByTheCache) {
  ASSERT_THAT(Resolve(*org_, nullptr), IsOk());
  broker_.SetStatus({grpc::StatusCode::PERMISSION_DENIED, "origin"});
  EXPECT_THAT(Resolve(*org_, nullptr), StatusIs(Code::kPermissionDenied));
}

TEST_F(DoorsTest, AccountsOfOneCallerAreKeptApart) {
  broker_.Link("ada");
  broker_.Link("ada/work");
  const PrincipalPtr ada = Admit("ours-ada", *user_);
  ASSERT_THAT(Resolve(*user_, ada), IsOk());
  ASSERT_THAT(Resolve(*user_, ada, "work"), IsOk());
  const auto home = Resolve(*user_, ada, "home");
  ASSERT_THAT(home, IsOk());
  EXPECT_EQ(home->credentials, nullptr);
  EXPECT_EQ(home->link.account(), "home");

  const auto kept = [&](std::string_view account) {
    const auto set = doors_->Credentials(*user_, ada, clock_.Now(), account);
    return set == nullptr ? std::string() : set->header_lines;
  };
  EXPECT_EQ(kept(""), "Authorization: Bearer app-token-of-ada-v1\r\n");
  EXPECT_EQ(kept("work"), "Authorization: Bearer app-token-of-ada/work-v1\r\n");
  EXPECT_EQ(kept("home"), "");
  const uint64_t asked = doors_->resolve_calls();
  kept("work");
  kept("");
  EXPECT_EQ(doors_->resolve_calls(), asked) << "both are kept";

  Invalidate(Invalidation::CONNECTION, "okta:ada\napp_x\nwork", 9);
  EXPECT_EQ(kept("work"), "");
  EXPECT_NE(kept(""), "");
  Invalidate(Invalidation::CONNECTION, "okta:ada\napp_x\n", 9);
  EXPECT_EQ(kept(""), "");
}

TEST_F(DoorsTest, CallsForDifferentAccountsDoNotShareAnAnswer) {
  broker_.Link("ada");
  broker_.Link("ada/work");
  const PrincipalPtr ada = Admit("ours-ada", *user_);
  broker_.gate.Close();
  auto one = StartResolve(*user_, ada);
  auto other = StartResolve(*user_, ada, "work");
  EXPECT_TRUE(broker_.gate.AwaitArrivals(2));
  broker_.gate.Open();
  EXPECT_EQ(one.get()->credentials->header_lines, "Authorization: Bearer app-token-of-ada-v1\r\n");
  EXPECT_EQ(other.get()->credentials->header_lines, "Authorization: Bearer app-token-of-ada/work-v1\r\n");
}

TEST_F(DoorsTest, AConnectionsNewGenerationDropsTheOldCredentials) {
  broker_.Link("ada");
  const PrincipalPtr ada = Admit("ours-ada", *user_);
  ASSERT_THAT(Resolve(*user_, ada), IsOk());
  std::vector<std::string> heard;
  Mutex mu;
  doors_->SetConnectionListener([&](const std::string& key) {
    MutexLock lock(mu);
    heard.push_back(key);
  });
  Invalidate(Invalidation::CONNECTION, "okta:ada\napp_x\n", 2);
  EXPECT_EQ(doors_->Credentials(*user_, ada, clock_.Now()), nullptr);
  EXPECT_TRUE(Usable(ada, *user_, "ours-ada")) << "still signed in";
  MutexLock lock(mu);
  EXPECT_EQ(heard, std::vector<std::string>{"okta:ada\napp_x\n"});
}

TEST_F(DoorsTest, AnUnlinkThatOvertakesTheAnswerIsNotUndoneByIt) {
  broker_.Link("ada");
  const PrincipalPtr ada = Admit("ours-ada", *user_);
  broker_.gate.Close();
  auto waiting = StartResolve(*user_, ada);
  ASSERT_TRUE(broker_.gate.AwaitArrivals(1));
  Invalidate(Invalidation::CONNECTION, "okta:ada\napp_x\n", 2);
  broker_.gate.Open();
  ASSERT_THAT(waiting.get(), IsOk());
  EXPECT_EQ(doors_->Credentials(*user_, ada, clock_.Now()), nullptr) << "not kept";
}

TEST_F(DoorsTest, SecretsAndServersTakeTheOrganizationsCredentials) {
  for (const auto& [kind, key] : std::vector<std::pair<Invalidation::Kind, std::string>>{
           {Invalidation::SECRET, "srv_org/app_auth.api_key.value"}, {Invalidation::SERVER, "srv_org"}}) {
    ASSERT_THAT(Resolve(*org_, nullptr), IsOk());
    ASSERT_NE(doors_->Credentials(*org_, nullptr, clock_.Now()), nullptr);
    Invalidate(kind, key);
    EXPECT_EQ(doors_->Credentials(*org_, nullptr, clock_.Now()), nullptr);
  }
}

TEST_F(DoorsTest, AForcedRefreshNamesWhatWasRefused) {
  broker_.Link("ada");
  const PrincipalPtr ada = Admit("ours-ada", *user_);
  const auto refused = Resolve(*user_, ada)->credentials;
  std::promise<absl::StatusOr<Resolution>> promise;
  doors_->Refresh(*user_, ada, *refused, [&](const absl::StatusOr<Resolution>& result) { promise.set_value(result); });
  const auto fresh = promise.get_future().get();
  ASSERT_THAT(fresh, IsOk());
  EXPECT_THAT(fresh->credentials->header_lines, HasSubstr("-v2"));
  EXPECT_EQ(broker_.requests().back().refused_version(), 1);
  EXPECT_EQ(broker_.requests().back().refused_generation(), 1);
  EXPECT_EQ(doors_->Credentials(*user_, ada, clock_.Now()), fresh->credentials);
}

TEST_F(DoorsTest, ClaimsAndPresentedTokensAreRenderedWithThePrincipal) {
  const auto entry = Compile("srv_own", R"("agentAuth":{"interactive":{}},"appAuth":{"passthrough":{}},
      "outboundHeaders":[{"name":"X-User","callerIdentity":{"claim":"sub"}},
                         {"name":"X-Token","prefix":"Bearer ","forwardCallerToken":{}}])");
  EXPECT_EQ(Admit("idp-ada", *entry)->header_lines, "X-User: okta:ada\r\nX-Token: Bearer idp-ada\r\n");
  EXPECT_EQ(Admit("ours-ada", *entry)->header_lines, "X-User: okta:ada\r\n") << "our own token never leaves";
  EXPECT_FALSE(NeedOf(*entry, Admit("idp-ada", *entry)).asked);
  EXPECT_TRUE(NeedOf(*entry, Admit("ours-ada", *entry)).asked);
}

TEST_F(DoorsTest, ATokenOfTheOtherKindIsNotForwarded) {
  const auto access = Compile("srv_own", R"("agentAuth":{"interactive":{}},"appAuth":{"passthrough":{}},
      "outboundHeaders":[{"name":"X-Token","forwardCallerToken":{"token":"ACCESS"}}])");
  const auto id = Compile("srv_own", R"("agentAuth":{"interactive":{}},"appAuth":{"passthrough":{}},
      "outboundHeaders":[{"name":"X-Token","forwardCallerToken":{"token":"ID"}}])");
  EXPECT_FALSE(Admit("idp-ada", *access)->wrong_token_kind);
  EXPECT_TRUE(Admit("idp-ada", *id)->wrong_token_kind);
  EXPECT_FALSE(Admit("ours-ada", *id)->wrong_token_kind) << "the broker has both";
}

TEST_F(DoorsTest, AClaimThatCannotBeAHeaderIsNeitherSentNorCleaned) {
  const auto entry = Compile("srv_own", R"("agentAuth":{"interactive":{}},"appAuth":{"passthrough":{}},
      "outboundHeaders":[{"name":"X-User","callerIdentity":{"claim":"email"}}])");
  const PrincipalPtr evil = Admit("idp-evil", *entry);
  EXPECT_EQ(evil->claim_refusal.status, 500);
  EXPECT_EQ(evil->claim_refusal.reason, "identity_unencodable");
  EXPECT_EQ(evil->header_lines.find("X-Evil"), std::string::npos);
  const auto missing = Compile("srv_own", R"("agentAuth":{"interactive":{}},"appAuth":{"passthrough":{}},
      "outboundHeaders":[{"name":"X-User","callerIdentity":{"claim":"department"}}])");
  EXPECT_EQ(Admit("idp-ada", *missing)->claim_refusal.status, 403) << "a claim the token lacks";
  EXPECT_EQ(Admit("idp-ada", *missing)->claim_refusal.reason, "claim_missing");
}

TEST_F(DoorsTest, SessionKeysAreFetchedInTheBackground) {
  EXPECT_TRUE(Soon([&] { return doors_->tagger() != nullptr; }));
}

}  // namespace
}  // namespace sallyport::edge

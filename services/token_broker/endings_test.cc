// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/endings.h"

#include <atomic>
#include <map>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/proto_time.h"
#include "sallyport/token_broker/v1/endings.grpc.pb.h"
#include "services/token_broker/testing/background_test_base.h"
#include "services/token_broker/testing/failing_vault_client.h"
#include "tests/testing/fakes/gate.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::FakeEndPassport;
using ::sallyport::testing::StatusIs;
using ::testing::Contains;
using ::testing::ElementsAre;
using testing::HttpProvider;
using ::testing::IsSupersetOf;
using ::testing::UnorderedElementsAre;
using Code = absl::StatusCode;

// Counts how often somebody who waits asks how much time has passed.
class WatchedClock final : public Clock {
 public:
  explicit WatchedClock(const Clock& clock) : clock_(clock) {}
  absl::Time Now() const override { return clock_.Now(); }
  absl::Duration Elapsed() const override {
    const absl::Duration elapsed = clock_.Elapsed();
    ++looks_;
    return elapsed;
  }
  int looks() const { return looks_; }

 private:
  const Clock& clock_;
  mutable std::atomic<int> looks_{0};
};

class EndingsTest : public testing::BackgroundTestBase {
 protected:
  Passport Administrators(const Passport::End& end) {
    Passport passport;
    passport.subject = "local:root";
    passport.purpose = Passport::Purpose::kEnd;
    passport.end = end;
    passport.jwt = FakeEndPassport(end);
    passport.issued_at = clock_.Now();
    return passport;
  }
  static v1::EndConnectionsRequest RequestOf(const Passport::End& what, bool whole_user = false) {
    v1::EndConnectionsRequest request;
    request.set_subject(what.subject);
    request.set_app_uid(what.app_uid);
    request.set_label(what.label == "*" ? "" : what.label);
    request.set_every_label(what.label == "*");
    request.set_whole_user(whole_user);
    return request;
  }
  absl::StatusOr<v1::EndConnectionsResponse> End(const Passport::End& what, bool whole_user = false) {
    return endings_->End(RequestOf(what, whole_user), Administrators(what));
  }
  void PutCredential(const std::string& subject, const std::string& uid) {
    vault::v1::PutRequest put;
    put.mutable_record()->set_owner_type(vault::v1::USER);
    put.mutable_record()->set_owner_id(subject);
    put.mutable_record()->set_kind("credential");
    put.mutable_record()->set_name(uid);
    put.set_payload("value");
    EXPECT_TRUE(peers_.vault.Put(put, ::sallyport::testing::FakePassport(subject, {"credential-admin"})).ok());
  }
  std::vector<std::string> KindsOf(const std::string& subject) {
    std::vector<std::string> kinds;
    for (const vault::v1::RecordName& name : peers_.vault.Live()) {
      if (name.owner_id() == subject) kinds.push_back(name.kind());
    }
    return kinds;
  }
  static std::map<std::string, std::string> StatesOf(const v1::EndConnectionsResponse& response) {
    std::map<std::string, std::string> states;
    for (const v1::EndedConnection& ended : response.ended()) {
      states[absl::StrCat(ended.subject(), " ", ended.app_slug(), ended.label().empty() ? "" : "/", ended.label())] =
          ended.revocation();
    }
    return states;
  }
};

TEST_F(EndingsTest, OfAWholeUserNothingIsLeft) {
  PutLinked("corp:ada", kUp, "rt-up");
  PutLinked("corp:ada", "app_up/work", "rt-work");
  PutLinked("corp:ada", kApp, "rt-down");
  PutCredential("corp:ada", "crd_1");
  PutCredential("corp:ada", "crd_2");
  PutLinked("corp:bob", kUp, "rt-bob");
  PutCredential("corp:bob", "crd_1");
  const std::string call = PassportOf("corp:ada");
  vault::v1::GetRequest get;
  *get.mutable_record() = ConnectionRecord("corp:ada", kUp);
  ASSERT_OK_AND_ASSIGN(const auto record, peers_.vault.Get(get, call));
  cache_->Put({"corp:ada", kUp}, *ViewOf(record), /*share=*/false, call);
  Answer(503);

  ASSERT_OK_AND_ASSIGN(const auto response, End({.subject = "corp:ada"}, /*whole_user=*/true));

  EXPECT_EQ(StatesOf(response),
            (std::map<std::string, std::string>{
                {"corp:ada github", "pending"}, {"corp:ada up", "revoked"}, {"corp:ada up/work", "revoked"}}));
  EXPECT_EQ(response.credentials_erased(), 2);
  EXPECT_TRUE(response.keys_destroyed());
  EXPECT_FALSE(response.more());
  EXPECT_THAT(KindsOf("corp:ada"), ElementsAre());
  EXPECT_THAT(KindsOf("corp:bob"), UnorderedElementsAre("connection", "credential"));
  EXPECT_EQ(cache_->Get({"corp:ada", kUp}, absl::InfiniteDuration()), nullptr);
  std::vector<std::string> invalidated;
  for (const auto& one : peers_.registry.invalidations()) invalidated.push_back(one.key());
  EXPECT_THAT(invalidated, IsSupersetOf({"corp:ada\ncrd_1\n", "corp:ada\ncrd_2\n", "corp:ada\napp_gh\n"}));
  EXPECT_THAT(Audited(), IsSupersetOf({"connections.ended whole_user local:root", "link.disconnected  corp:ada",
                                       "link.revoked revoked corp:ada"}));
}

// The keys are gone, and what is owed is tried on all the same.
TEST_F(EndingsTest, WhatIsPendingIsSaidAgainAndMadeGoodLater) {
  Answer(503);
  PutLinked("corp:ada", kApp, "rt0");
  ASSERT_TRUE(End({.subject = "corp:ada"}, /*whole_user=*/true).ok());

  ASSERT_OK_AND_ASSIGN(const auto again, End({.subject = "corp:ada"}, /*whole_user=*/true));
  Answer(200);
  clock_for_all_.Advance(absl::Minutes(2));
  background_->RunOnce();
  ASSERT_OK_AND_ASSIGN(const auto after, End({.subject = "corp:ada"}, /*whole_user=*/true));

  EXPECT_EQ(StatesOf(again), (std::map<std::string, std::string>{{"corp:ada github", "pending"}}));
  EXPECT_EQ(after.ended_size(), 0);
  EXPECT_TRUE(after.keys_destroyed());
  EXPECT_TRUE(Owed().empty());
  EXPECT_THAT(asked(), Contains("/revoke at0-of-corp:ada"));
}

TEST_F(EndingsTest, OnlyWhatIsNamedEnds) {
  for (const char* name : {"app_up", "app_up/work", "app_up/home", "app_upper", "app_gh"}) {
    PutLinked("corp:ada", name, "rt0");
    PutLinked("corp:bob", name, "rt0");
  }

  ASSERT_TRUE(End({.subject = "corp:ada", .app_uid = kUp, .label = "work"}).ok());
  EXPECT_FALSE(IsThere({"corp:ada", "app_up/work"}));
  EXPECT_TRUE(IsThere({"corp:ada", "app_up"}));
  ASSERT_TRUE(End({.subject = "corp:ada", .app_uid = kUp, .label = ""}).ok());
  EXPECT_FALSE(IsThere({"corp:ada", "app_up"}));
  EXPECT_TRUE(IsThere({"corp:ada", "app_up/home"}));
  ASSERT_TRUE(End({.subject = "corp:ada", .app_uid = kUp}).ok());
  EXPECT_FALSE(IsThere({"corp:ada", "app_up/home"}));

  EXPECT_TRUE(IsThere({"corp:ada", "app_upper"}));
  EXPECT_TRUE(IsThere({"corp:ada", "app_gh"}));
  for (const char* name : {"app_up", "app_up/work", "app_up/home"}) EXPECT_TRUE(IsThere({"corp:bob", name})) << name;
  EXPECT_EQ(Owed().size(), 0U);
}

TEST_F(EndingsTest, EverybodysOfAnAppEndInParts) {
  for (int i = 0; i < 120; ++i) PutLinked(absl::StrCat("corp:user", i), kUp, absl::StrCat("rt", i));
  PutLinked("corp:user0", kApp, "rt-other");
  std::map<std::string, std::string> states;
  int calls = 0;
  bool more = true;
  while (more && ++calls < 10) {
    ASSERT_OK_AND_ASSIGN(const auto response, End({.app_uid = kUp}));
    for (const auto& [who, state] : StatesOf(response)) EXPECT_TRUE(states.emplace(who, state).second) << who;
    more = response.more();
  }

  EXPECT_GT(calls, 1);
  EXPECT_EQ(states.size(), 120U);
  EXPECT_TRUE(IsThere({"corp:user0", kApp}));
  EXPECT_EQ(CountAsked("/up/revoke"), 240) << "a refresh token and an access token each";
}

// A broker or edge that was taken over has what it is given, and no more.
TEST_F(EndingsTest, APassportThatDoesNotNameTheRequestEndsNothing) {
  PutLinked("corp:ada", kUp, "rt0");
  const Passport::End ada = {.subject = "corp:ada"};
  const Passport::End app = {.app_uid = kUp};
  const Passport::End one = {.subject = "corp:ada", .app_uid = kUp, .label = "work"};
  const Passport::End all = {.subject = "corp:ada", .app_uid = kUp};
  const Passport::End bob = {.subject = "corp:bob"};
  for (const auto& [passport, request] :
       {std::pair(ada, bob), std::pair(ada, app), std::pair(ada, all), std::pair(one, all), std::pair(all, one),
        std::pair(all, ada), std::pair(app, ada), std::pair(bob, ada)}) {
    EXPECT_THAT(endings_->End(RequestOf(request), Administrators(passport)), StatusIs(Code::kPermissionDenied));
  }
  Passport call = CallPassport();
  call.jwt = PassportOf("corp:ada");
  EXPECT_THAT(endings_->End(RequestOf(ada), call), StatusIs(Code::kPermissionDenied));
  Passport api = call;
  api.purpose = Passport::Purpose::kApi;
  api.roles = {"admin"};
  api.end = ada;
  EXPECT_THAT(endings_->End(RequestOf(ada), api), StatusIs(Code::kPermissionDenied));

  EXPECT_TRUE(IsThere({"corp:ada", kUp}));
  EXPECT_TRUE(asked().empty());
  EXPECT_THAT(Audited(), Contains("connections.ended passport_mismatch local:root"));
}

TEST_F(EndingsTest, WhatMeansNothingIsRefused) {
  v1::EndConnectionsRequest none;
  v1::EndConnectionsRequest label_alone = RequestOf({.subject = "corp:ada", .label = "work"});
  v1::EndConnectionsRequest whole_app = RequestOf({.app_uid = kUp}, /*whole_user=*/true);
  v1::EndConnectionsRequest both = RequestOf({.subject = "corp:ada", .app_uid = kUp, .label = "work"});
  both.set_every_label(true);
  for (const v1::EndConnectionsRequest& request : {none, label_alone, whole_app, both}) {
    EXPECT_THAT(endings_->End(request, Administrators({.subject = "corp:ada"})), StatusIs(Code::kInvalidArgument));
  }
}

TEST_F(EndingsTest, AProviderThatHangsIsWaitedForFiveSecondsOnly) {
  PutLinked("corp:ada", kApp, "rt0");
  const auto gate = std::make_shared<::sallyport::testing::Gate>();  // The provider may outlive this test.
  gate->Close();
  provider_.SetHandler([gate](const HttpProvider::Request& /*request*/) -> HttpProvider::Response {
    gate->Pass();
    return {200, "", "application/json", ""};
  });
  const WatchedClock clock(clock_);
  endings_ = std::make_unique<Endings>(*control_, peers_.vault, *cache_, *invalidations_, ended_subjects_,
                                       *revocations_, background_->revocations(), *audit_, clock);
  std::atomic<bool> answered{false};
  absl::StatusOr<v1::EndConnectionsResponse> response = absl::InternalError("not run");
  std::thread caller([&] {
    response = End({.subject = "corp:ada"}, /*whole_user=*/true);
    answered = true;
  });
  EXPECT_TRUE(gate->AwaitArrivals(1));
  // Once to know until when it waits, then to see whether it still does.
  EXPECT_TRUE(Await([&] { return clock.looks() >= 2; }));
  clock_for_all_.Advance(absl::Seconds(4));
  const int looks = clock.looks();
  EXPECT_TRUE(Await([&] { return clock.looks() >= looks + 3; })) << "it has seen that time, and goes on waiting";
  EXPECT_FALSE(answered);
  clock_for_all_.Advance(absl::Seconds(2));
  caller.join();
  gate->Open();

  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(StatesOf(*response), (std::map<std::string, std::string>{{"corp:ada github", "pending"}}));
  EXPECT_TRUE(response->keys_destroyed());
}

TEST_F(EndingsTest, OfSeveralTokensOfOneConnectionTheLeastThatWasReachedIsTold) {
  Answer(503);
  PutLinked("corp:ada", kApp, "rt-former");
  ASSERT_TRUE(End({.subject = "corp:ada", .app_uid = kApp}).ok());
  PutLinked("corp:ada", kApp, "rt-newer");
  Answer(200);

  ASSERT_OK_AND_ASSIGN(const auto response, End({.subject = "corp:ada", .app_uid = kApp}));

  ASSERT_EQ(response.ended_size(), 1);
  EXPECT_EQ(response.ended(0).revocation(), "pending") << "the former one's is owed still";
  EXPECT_THAT(asked(), Contains("/revoke rt-newer"));
}

TEST_F(EndingsTest, EveryReplicaHearsWhenEverythingOfAUserEnds) {
  ASSERT_TRUE(End({.subject = "corp:ada"}, /*whole_user=*/true).ok());
  const auto invalidations = peers_.registry.invalidations();
  ASSERT_FALSE(invalidations.empty());
  EXPECT_EQ(invalidations[0].kind(), registry::v1::Invalidation::SUBJECT);
  EXPECT_EQ(invalidations[0].key(), "corp:ada");
  EXPECT_EQ(FromTimestamp(invalidations[0].ended_at()), clock_.Now());
  EXPECT_EQ(invalidations[0].generation(), 0);
  Passport before = CallPassport();
  before.issued_at = clock_.Now();
  EXPECT_TRUE(ended_subjects_.Include(before));
}

// --- Where it may be killed, or an answer lost ---

class EndingsTroubleTest : public EndingsTest {
 protected:
  void SetUp() override {
    EndingsTest::SetUp();
    endings_ = std::make_unique<Endings>(*control_, vault_, *cache_, *invalidations_, ended_subjects_, *revocations_,
                                         background_->revocations(), *audit_, clock_);
  }
  // Every call from the `first`, 0 being the next, to before `end`.
  static testing::FailingVaultClient::Hook Fail(int first, int end) {
    return [=, calls = 0]() mutable {
      const int call = calls++;
      return call >= first && call < end ? absl::UnavailableError("killed") : absl::OkStatus();
    };
  }
  // As a replica that serves it.
  void Cache(const std::string& subject, const std::string& connection) {
    vault::v1::GetRequest get;
    *get.mutable_record() = ConnectionRecord(subject, connection);
    const auto record = peers_.vault.Get(get, PassportOf(subject));
    ASSERT_TRUE(record.ok());
    cache_->Put({subject, connection}, *ViewOf(*record), /*share=*/false, PassportOf(subject));
    ASSERT_TRUE(IsServed(subject, connection));
  }
  bool IsServed(const std::string& subject, const std::string& connection) {
    return cache_->Get({subject, connection}, absl::InfiniteDuration()) != nullptr;
  }

  testing::FailingVaultClient vault_{peers_.vault};
};

TEST_F(EndingsTroubleTest, NothingIsServedOnThoughTheAnswerIsLost) {
  PutLinked("corp:ada", kUp, "rt0");
  PutLinked("corp:ada", "app_up/work", "rt1");
  for (const Passport::End& what : {Passport::End{.subject = "corp:ada", .app_uid = kUp, .label = "work"},
                                    Passport::End{.subject = "corp:ada", .app_uid = kUp}}) {
    const std::string name = what.label == "work" ? "app_up/work" : kUp;
    Cache("corp:ada", name);
    vault_.after_owe_ = Fail(0, 1);

    EXPECT_THAT(End(what), StatusIs(Code::kUnavailable));

    EXPECT_FALSE(IsThere({"corp:ada", name}));
    EXPECT_FALSE(IsServed("corp:ada", name));
  }
  ASSERT_OK_AND_ASSIGN(const auto again, End({.subject = "corp:ada", .app_uid = kUp}));
  EXPECT_THAT(StatesOf(again), ::testing::SizeIs(2)) << "what is owed is told again";
}

TEST_F(EndingsTroubleTest, OfEverybodysOfAnAppItIsToldOnTheNextCall) {
  PutLinked("corp:ada", kUp, "rt0");
  Cache("corp:ada", kUp);
  vault_.after_owe_ = Fail(0, 1);
  EXPECT_THAT(End({.app_uid = kUp}), StatusIs(Code::kUnavailable));

  ASSERT_TRUE(End({.app_uid = kUp}).ok());

  EXPECT_FALSE(IsServed("corp:ada", kUp));
  std::vector<std::string> invalidated;
  for (const auto& one : peers_.registry.invalidations()) invalidated.push_back(one.key());
  EXPECT_THAT(invalidated, Contains(absl::StrCat("corp:ada\n", kUp, "\n")));
}

TEST_F(EndingsTroubleTest, WhatCouldBeEndedIsToldThoughTheNextCouldNot) {
  PutLinked("corp:ada", kUp, "rt0");
  PutLinked("corp:ada", "app_up/work", "rt1");
  vault_.before_owe_ = Fail(1, 2);

  EXPECT_THAT(End({.subject = "corp:ada", .app_uid = kUp}), StatusIs(Code::kUnavailable));

  EXPECT_NE(IsThere({"corp:ada", kUp}), IsThere({"corp:ada", "app_up/work"}));
  EXPECT_THAT(Audited(), Contains("link.disconnected  corp:ada"));
  ASSERT_OK_AND_ASSIGN(const auto again, End({.subject = "corp:ada", .app_uid = kUp}));
  EXPECT_THAT(StatesOf(again), ::testing::SizeIs(2));
}

TEST_F(EndingsTroubleTest, KilledBeforeTheKeysAreDestroyedItGoesOnWhereItWas) {
  Answer(503);
  PutLinked("corp:ada", kApp, "rt0");
  PutCredential("corp:ada", "crd_1");
  vault_.before_destroy_ = Fail(0, 1);

  EXPECT_THAT(End({.subject = "corp:ada"}, /*whole_user=*/true), StatusIs(Code::kUnavailable));
  EXPECT_FALSE(IsThere({"corp:ada", kApp}));
  ASSERT_OK_AND_ASSIGN(const auto again, End({.subject = "corp:ada"}, /*whole_user=*/true));

  EXPECT_TRUE(again.keys_destroyed());
  EXPECT_EQ(again.credentials_erased(), 1);
  EXPECT_EQ(StatesOf(again), (std::map<std::string, std::string>{{"corp:ada github", "pending"}}));
  EXPECT_EQ(Owed().size(), 1U);
}

// A link that came back after what there was had ended, and before the keys went.
TEST_F(EndingsTroubleTest, WhatIsLinkedMeanwhileIsRevokedAndToldToo) {
  vault_.before_destroy_ = [this, calls = 0]() mutable {
    if (calls++ == 0) {
      PutLinked("corp:ada", kUp, "rt-meanwhile");
      Cache("corp:ada", kUp);
    }
    return absl::OkStatus();
  };

  ASSERT_OK_AND_ASSIGN(const auto response, End({.subject = "corp:ada"}, /*whole_user=*/true));

  EXPECT_EQ(StatesOf(response), (std::map<std::string, std::string>{{"corp:ada up", "revoked"}}));
  EXPECT_TRUE(response.keys_destroyed());
  EXPECT_FALSE(IsServed("corp:ada", kUp));
  EXPECT_THAT(asked(), Contains("/up/revoke rt-meanwhile"));
  EXPECT_THAT(Audited(), Contains("link.disconnected  corp:ada"));
}

TEST_F(EndingsTest, OnlyAuthnMayHaveThingsEnded) {
  PutLinked("corp:ada", kUp, "rt0");
  TokenBrokerServer& broker = StartBroker();
  Passport passport = Administrators({.subject = "corp:ada"});
  const std::string jwt = peers_.authn.Sign(passport);
  const auto end = [&](const std::string& caller, const std::string& with) {
    const auto stub = v1::Endings::NewStub(broker.InProcessChannel(caller));
    v1::EndConnectionsResponse response;
    const auto context = MakeClientContext(absl::Seconds(60), with);
    return stub->EndConnections(context.get(), RequestOf({.subject = "corp:ada"}), &response).error_code();
  };

  EXPECT_EQ(end("edge", jwt), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(end("authn", ""), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(end("authn", peers_.authn.SignFor("local:root", {"admin"})), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_TRUE(IsThere({"corp:ada", kUp}));
  EXPECT_EQ(end("authn", jwt), grpc::StatusCode::OK);
  EXPECT_FALSE(IsThere({"corp:ada", kUp}));
}

}  // namespace
}  // namespace sallyport::token_broker

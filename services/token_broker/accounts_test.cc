// SPDX-License-Identifier: Apache-2.0
// Listing and ending connections, and what is done in the background.
#include <map>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/proto_time.h"
#include "services/token_broker/background.h"
#include "services/token_broker/http_token_endpoint.h"
#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker {
namespace {

using ::testing::ElementsAre;
using testing::HttpProvider;

class AccountsTest : public testing::BrokerTestBase {
 protected:
  AccountsTest() : BrokerTestBase(clock_for_all_) {
    provider_.SetHandler([this](const HttpProvider::Request& request) {
      MutexLock lock(mu_);
      const auto token = request.form.find("token");
      asked_.push_back(absl::StrCat(request.path, " ", token == request.form.end() ? "" : token->second));
      return answer_;
    });
  }
  std::string ApiPassport(const std::string& subject = "corp:ada") {
    Passport passport = CallPassport(subject);
    passport.purpose = Passport::Purpose::kApi;
    return peers_.authn.Sign(passport);
  }
  absl::StatusOr<std::string> Disconnect(TokenBrokerServer& broker, const std::string& app = "github") {
    const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
    v1::DisconnectRequest request;
    request.set_app_slug(app);
    v1::DisconnectResponse response;
    const auto context = MakeClientContext(absl::Seconds(20), ApiPassport());
    const grpc::Status status = stub->Disconnect(context.get(), request, &response);
    if (!status.ok()) return FromGrpcStatus(status);
    return response.revocation();
  }
  v1::ListConnectionsResponse List(TokenBrokerServer& broker, const std::string& subject = "corp:ada") {
    const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
    v1::ListConnectionsResponse response;
    const auto context = MakeClientContext(absl::Minutes(1), ApiPassport(subject));
    EXPECT_TRUE(stub->ListConnections(context.get(), {}, &response).ok());
    return response;
  }
  void Answer(int status, const std::string& body = "") {
    MutexLock lock(mu_);
    answer_ = {status, body, "application/json", ""};
  }
  std::vector<std::string> asked() {
    MutexLock lock(mu_);
    return asked_;
  }

  FakeClock clock_for_all_{absl::Now()};
  Mutex mu_;
  HttpProvider::Response answer_ = {200, "", "application/json", ""};
  std::vector<std::string> asked_;
};

TEST_F(AccountsTest, ListShowsOnesOwnAppsAndNoSignIns) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  PutConnection("corp:ada", "sso:corp", absl::Minutes(1), absl::Hours(1));
  PutConnection("corp:ada", "app_gone", absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();

  const v1::ListConnectionsResponse response = List(broker);

  std::map<std::string, v1::Connection> connections;
  for (const v1::Connection& connection : response.connections()) connections[connection.app_slug()] = connection;
  ASSERT_EQ(connections.size(), 2U);
  const v1::Connection& github = connections["github"];
  EXPECT_EQ(github.state(), "linked");
  EXPECT_THAT(github.scopes(), ElementsAre("repo"));
  EXPECT_GT(github.access_token_expires_at().seconds(), absl::ToUnixSeconds(clock_.Now()));
  EXPECT_EQ(connections.count("app_gone"), 1U) << "so that its user can still end it";
  EXPECT_EQ(List(broker, "corp:bob").connections_size(), 0);
}

TEST_F(AccountsTest, DisconnectRevokesTheRefreshTokenFirstAndForgets) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  const std::string passport = peers_.authn.Sign(CallPassport());
  ASSERT_TRUE(Resolve(broker, {}, passport).ok());

  ASSERT_OK_AND_ASSIGN(const std::string revocation, Disconnect(broker));
  ASSERT_OK_AND_ASSIGN(const auto after, Resolve(broker, {}, passport));

  EXPECT_EQ(revocation, "revoked");
  EXPECT_THAT(asked(), ElementsAre("/revoke rt0", "/revoke at0-of-corp:ada"));
  EXPECT_EQ(after.link().reason(), v1::LinkRequired::NOT_LINKED);
  EXPECT_EQ(List(broker).connections_size(), 0);
  EXPECT_GT(peers_.registry.invalidations().at(0).generation(), 1);
  EXPECT_EQ(Disconnect(broker).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(AccountsTest, DisconnectWithoutARevocationEndpointSaysSo) {
  app_->clear_revocation_url();
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));

  ASSERT_OK_AND_ASSIGN(const std::string revocation, Disconnect(StartBroker()));

  EXPECT_EQ(revocation, "unsupported");
  EXPECT_EQ(peers_.vault.Head(ConnectionRecord("corp:ada", kApp)), "");
}

TEST_F(AccountsTest, ProviderThatIsDownLeavesTheRevocationPendingAndTheConnectionDead) {
  Answer(503);
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();

  ASSERT_OK_AND_ASSIGN(const std::string revocation, Disconnect(broker));
  ASSERT_OK_AND_ASSIGN(const auto after, Resolve(broker, {}, peers_.authn.Sign(CallPassport())));

  EXPECT_EQ(revocation, "pending");
  EXPECT_EQ(after.link().reason(), v1::LinkRequired::NOT_LINKED);
  EXPECT_EQ(List(broker).connections(0).state(), "revoke_pending");
}

TEST_F(AccountsTest, ConnectionOfAnAppThatIsGoneCanBeEnded) {
  PutConnection("corp:ada", "app_gone", absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();

  ASSERT_OK_AND_ASSIGN(const std::string revocation, Disconnect(broker, "app_gone"));

  EXPECT_EQ(revocation, "pending");
  EXPECT_EQ(List(broker).connections(0).state(), "revoke_pending");
  EXPECT_EQ(Disconnect(broker, "app_never").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(AccountsTest, UnknownAppIsNotFound) {
  EXPECT_EQ(Disconnect(StartBroker(), "none").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(AccountsTest, ResolveWithoutUserIsNoWayToListOrDisconnect) {
  TokenBrokerServer& broker = StartBroker();
  const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
  v1::ListConnectionsResponse response;
  const auto context = MakeClientContext(absl::Minutes(1));
  EXPECT_EQ(stub->ListConnections(context.get(), {}, &response).error_code(), grpc::StatusCode::UNAUTHENTICATED);
}

// The background worker over the same peers.
class BackgroundTest : public AccountsTest {
 protected:
  void SetUp() override {
    AccountsTest::SetUp();
    HttpClient::Options options;
    options.policy = policy_;
    http_ = *HttpClient::Create(std::move(options));
    endpoint_ = std::make_unique<HttpTokenEndpoint>(*http_, clock_);
    secrets_ = std::make_unique<SecretReader>(peers_.vault, clock_);
    providers_ = std::make_unique<Providers>(peers_.Channel(), *http_, policy_, *secrets_, runner_, clock_);
    cache_ = std::make_unique<TokenCache>(peers_.vault, nullptr, clock_);
    refresher_ =
        std::make_unique<Refresher>(peers_.vault, *endpoint_, cache_.get(), clock_, Refresher::Options{}, nullptr);
    control_ = std::make_unique<ControlStream>(peers_.Channel(), clock_);
    control_->Start();
    ASSERT_TRUE(control_->WaitForSnapshot(absl::Seconds(10)));
    connections_ =
        std::make_unique<Connections>(peers_.vault, *cache_, *refresher_, *providers_, control_.get(), clock_);
    invalidations_ = std::make_unique<Invalidations>(peers_.Channel(), *cache_, runner_);
    revoker_ = std::make_unique<Revoker>(peers_.vault, *endpoint_, *invalidations_, clock_);
    background_ = std::make_unique<Background>(peers_.vault, *connections_, *refresher_, *revoker_, runner_, clock_,
                                               absl::Hours(1));
  }
  void TearDown() override {
    refresher_->Shutdown(absl::Seconds(10));
    runner_.Stop();
  }

  TaskRunner runner_{2, 100};
  const EgressPolicy policy_{{*Network::Parse("127.0.0.0/8")}, EgressPolicy::PlainHttp::kLoopback};
  std::unique_ptr<HttpClient> http_;
  std::unique_ptr<HttpTokenEndpoint> endpoint_;
  std::unique_ptr<SecretReader> secrets_;
  std::unique_ptr<Providers> providers_;
  std::unique_ptr<TokenCache> cache_;
  std::unique_ptr<Refresher> refresher_;
  std::unique_ptr<ControlStream> control_;
  std::unique_ptr<Connections> connections_;
  std::unique_ptr<Invalidations> invalidations_;
  std::unique_ptr<Revoker> revoker_;
  std::unique_ptr<Background> background_;
};

TEST_F(BackgroundTest, PendingRevocationIsMadeGood) {
  Answer(503);
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  ASSERT_OK_AND_ASSIGN(const Provider provider, providers_->ForApp(*app_));
  ASSERT_TRUE(revoker_->Disconnect({"corp:ada", kApp}, &provider, "passport-of:corp:ada").ok());
  Answer(200);
  EXPECT_EQ(background_->RunOnce(), 0) << "not due yet";
  clock_for_all_.Advance(absl::Minutes(2));

  EXPECT_EQ(background_->RunOnce(), 1);

  EXPECT_EQ(peers_.vault.Head(ConnectionRecord("corp:ada", kApp)), "");
}

TEST_F(BackgroundTest, RevocationThatFailsForAWeekIsGivenUp) {
  Answer(503);
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  ASSERT_TRUE(revoker_->Disconnect({"corp:ada", kApp}, nullptr, "passport-of:corp:ada").ok());
  clock_for_all_.Advance(absl::Hours(1));
  background_->RunOnce();
  EXPECT_NE(peers_.vault.Head(ConnectionRecord("corp:ada", kApp)), "");
  clock_for_all_.Advance(absl::Hours(24 * 8));
  background_->RunOnce();
  EXPECT_EQ(peers_.vault.Head(ConnectionRecord("corp:ada", kApp)), "");
}

TEST_F(BackgroundTest, RevocationWaitsForMetadataThatCannotBeHad) {
  app_->set_issuer(provider_.Url(""));
  app_->clear_revocation_url();
  Answer(503);
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  ASSERT_OK_AND_ASSIGN(const Provider unknown, providers_->ForApp(*app_));

  ASSERT_OK_AND_ASSIGN(const auto outcome, revoker_->Disconnect({"corp:ada", kApp}, &unknown, "passport-of:corp:ada"));

  EXPECT_EQ(outcome.revocation, "pending");
  EXPECT_NE(peers_.vault.Head(ConnectionRecord("corp:ada", kApp)), "");

  Answer(200, absl::StrCat(R"({"issuer":")", provider_.Url(""), R"(","revocation_endpoint":")",
                           provider_.Url("/revoke"), R"("})"));
  clock_for_all_.Advance(absl::Minutes(2));
  ASSERT_OK_AND_ASSIGN(const Provider known, providers_->ForApp(*app_));
  revoker_->Retry({"corp:ada", kApp}, &known);

  EXPECT_THAT(asked(), ::testing::IsSupersetOf({"/revoke rt0", "/revoke at0-of-corp:ada"}));
  EXPECT_EQ(peers_.vault.Head(ConnectionRecord("corp:ada", kApp)), "");
}

TEST_F(BackgroundTest, TokensAreNotRevokedWhereTheAppWasMovedTo) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  ASSERT_OK_AND_ASSIGN(Provider provider, providers_->ForApp(*app_));
  provider.revocation_url = "https://elsewhere.example/revoke";

  ASSERT_OK_AND_ASSIGN(const auto outcome, revoker_->Disconnect({"corp:ada", kApp}, &provider, "passport-of:corp:ada"));

  EXPECT_EQ(outcome.revocation, "unsupported");
  EXPECT_TRUE(asked().empty());
}

TEST_F(BackgroundTest, RetryLeavesAConnectionThatWasLinkedAnewAlone) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  const vault::v1::RecordMetadata before = peers_.vault.MetadataOf(ConnectionRecord("corp:ada", kApp));
  ASSERT_OK_AND_ASSIGN(const Provider provider, providers_->ForApp(*app_));

  revoker_->Retry({"corp:ada", kApp}, &provider);

  const vault::v1::RecordMetadata after = peers_.vault.MetadataOf(ConnectionRecord("corp:ada", kApp));
  EXPECT_EQ(after.state(), before.state());
  EXPECT_EQ(after.reason(), before.reason());
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
TEST_F(BackgroundTest, ConnectionOfAnAppThatIsGoneIsPutOff) {
  vault::v1::PutRequest put;
  *put.mutable_record() = ConnectionRecord("corp:ada", "app_gone");
  v1::TokenSet tokens;
  tokens.set_access_token("at0");
  tokens.set_refresh_token("rt0");
  put.set_payload(tokens.SerializeAsString());
  *put.mutable_next_at() = ToTimestamp(clock_.Now());
  ASSERT_TRUE(peers_.vault.Put(put, "passport-of:corp:ada").ok());

  EXPECT_EQ(background_->RunOnce(), 1);
  EXPECT_EQ(background_->RunOnce(), 0);

  EXPECT_NE(peers_.vault.Head(put.record()), "") << "nothing is lost: the app may come back";
  EXPECT_TRUE(asked().empty());
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

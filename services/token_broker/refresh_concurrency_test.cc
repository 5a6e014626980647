// SPDX-License-Identifier: Apache-2.0
// In real time: brokers, vault and provider over real sockets.
#include <atomic>
#include <functional>
#include <future>
#include <set>
#include <thread>

#include <gtest/gtest.h>

#include "services/token_broker/http_token_endpoint.h"
#include "services/token_broker/providers.h"
#include "services/token_broker/refresher.h"
#include "services/token_broker/secret_reader.h"
#include "services/token_broker/testing/broker_test_base.h"
#include "tests/testing/redis.h"

namespace sallyport::token_broker {
namespace {

using testing::HttpProvider;

class RefreshConcurrencyTest : public testing::BrokerTestBase {
 protected:
  RefreshConcurrencyTest() : BrokerTestBase(system_clock_) {}

  // Rotates strictly: the second use of a token ends everything.
  HttpProvider::Handler StrictRotation(absl::Duration latency) {
    return StrictRotation([latency] { std::this_thread::sleep_for(absl::ToChronoMilliseconds(latency)); });
  }
  HttpProvider::Handler StrictRotation(std::function<void()> wait) {
    return [this, wait](const HttpProvider::Request& request) -> HttpProvider::Response {
      ++asked_;
      wait();
      MutexLock lock(mu_);
      const auto token = request.form.find("refresh_token");
      if (token == request.form.end() || token->second != newest_) {
        return {400, R"({"error":"invalid_grant"})", "application/json", ""};
      }
      newest_ = absl::StrCat("rt", ++rotations_);
      return {200,
              absl::StrCat(R"({"access_token":"at)", rotations_, R"(","refresh_token":")", newest_,
                           R"(","token_type":"Bearer","expires_in":3600})"),
              "application/json", ""};
    };
  }

  SystemClock system_clock_;
  std::atomic<int> asked_{0};
  Mutex mu_;
  std::string newest_ = "rt0";
  int rotations_ = 0;
};

TEST_F(RefreshConcurrencyTest, TwoHundredCallsAtTheInstantOfExpiryOnTwoBrokersRefreshOnce) {
  provider_.SetHandler(StrictRotation(absl::Seconds(2)));
  PutConnection("corp:ada", kApp, absl::Hours(1), absl::Hours(1));
  StartBroker();
  StartBroker();
  const std::string passport = peers_.authn.Sign(CallPassport());
  std::atomic<int> failed{0};
  std::set<std::string> values;
  Mutex values_mu;

  std::vector<std::thread> callers;
  for (int i = 0; i < 200; ++i) {
    callers.emplace_back([&, i] {
      const auto response = Resolve(*brokers_[static_cast<size_t>(i % 2)], {}, passport);
      if (!response.ok() || response->pieces_size() != 1) {
        ++failed;
        return;
      }
      MutexLock lock(values_mu);
      values.insert(response->pieces(0).value());
    });
  }
  for (std::thread& caller : callers) caller.join();

  EXPECT_EQ(failed, 0);
  EXPECT_EQ(asked_, 1);
  EXPECT_EQ(values, std::set<std::string>{"Bearer at1"});
}

// Leases that a dead replica left behind are waited for; everybody else of that provider goes on meanwhile.
TEST_F(RefreshConcurrencyTest, WhoWaitsForALeaseHoldsNoSlotOfTheProvider) {
  provider_.SetHandler([](const HttpProvider::Request&) -> HttpProvider::Response {
    return {200, R"({"access_token":"at1","refresh_token":"rt1","token_type":"Bearer","expires_in":3600})",
            "application/json", ""};
  });
  HttpClient::Options http_options;
  const EgressPolicy policy({*Network::Parse("127.0.0.0/8")}, EgressPolicy::PlainHttp::kLoopback);
  http_options.policy = policy;
  const std::unique_ptr<HttpClient> http = *HttpClient::Create(std::move(http_options));
  HttpTokenEndpoint endpoint(*http, system_clock_);
  SecretReader secrets(peers_.vault, system_clock_);
  TaskRunner behind(1, 100);
  Providers providers(peers_.Channel(), *http, policy, secrets, behind, system_clock_);
  ASSERT_OK_AND_ASSIGN(const Provider provider, providers.ForApp(*app_));
  Refresher::Options options;
  options.per_provider = 1;
  Refresher refresher(peers_.vault, endpoint, nullptr, system_clock_, options, nullptr);
  for (const char* user : {"corp:ada", "corp:bob"}) PutConnection(user, kApp, absl::Hours(1), absl::Hours(1));
  vault::v1::AcquireLeaseRequest orphaned;
  *orphaned.mutable_record() = ConnectionRecord("corp:ada", kApp);
  orphaned.mutable_ttl()->set_seconds(30);
  ASSERT_TRUE(peers_.vault.AcquireLease(orphaned, "passport-of:corp:ada").ok());
  const auto source = [&] { return absl::StatusOr<Provider>(provider); };
  refresher.Refresh({"corp:ada", kApp}, {}, "passport-of:corp:ada", source, [](const auto& /*result*/) {});

  std::promise<absl::StatusOr<SharedConnection>> bob;
  refresher.Refresh({"corp:bob", kApp}, {}, "passport-of:corp:bob", source,
                    [&](const absl::StatusOr<SharedConnection>& result) { bob.set_value(result); });
  std::future<absl::StatusOr<SharedConnection>> renewed = bob.get_future();

  ASSERT_EQ(renewed.wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_TRUE(renewed.get().ok());
  refresher.Shutdown(absl::Seconds(1));
}

TEST_F(RefreshConcurrencyTest, ReplicaThatWaitsHearsTheDoorbellAndFindsTheTokenInRedis) {
  ASSERT_OK_AND_ASSIGN(const auto redis, ::sallyport::testing::TestRedis::Start());
  redis_address_ = redis->address();
  provider_.SetHandler(StrictRotation(absl::Seconds(1)));
  PutConnection("corp:ada", kApp, absl::Hours(1), absl::Hours(1));
  StartBroker();
  StartBroker();
  const std::string passport = peers_.authn.Sign(CallPassport());
  std::atomic<int> renewed{0};

  std::vector<std::thread> callers;
  for (size_t i = 0; i < 20; ++i) {
    callers.emplace_back([&, i] {
      const auto response = Resolve(*brokers_[i % 2], {}, passport);
      renewed += response.ok() && response->pieces_size() == 1 && response->pieces(0).value() == "Bearer at1" ? 1 : 0;
    });
  }
  for (std::thread& caller : callers) caller.join();
  const int gets = peers_.vault.gets();
  TokenBrokerServer& third = StartBroker();
  const auto from_redis = Resolve(third, {}, passport);

  EXPECT_EQ(renewed, 20);
  EXPECT_EQ(asked_, 1);
  ASSERT_TRUE(from_redis.ok()) << from_redis.status();
  EXPECT_EQ(from_redis->pieces(0).value(), "Bearer at1");
  EXPECT_EQ(peers_.vault.gets(), gets + 1) << "a fresh replica reads where the app's tokens may go, and no token";
}

TEST_F(RefreshConcurrencyTest, TokenThatIsStillValidIsServedWhileItsRefreshRuns) {
  std::promise<void> answered;
  provider_.SetHandler(StrictRotation([served = answered.get_future().share()] { served.wait(); }));
  PutConnection("corp:ada", kApp, absl::Minutes(58), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  const std::string passport = peers_.authn.Sign(CallPassport());

  // The provider answers only when the caller has been served.
  const auto response = Resolve(broker, {}, passport);
  answered.set_value();

  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->pieces(0).value(), "Bearer at0-of-corp:ada");
  for (int i = 0; i < 10'000 && peers_.vault.Head(ConnectionRecord("corp:ada", kApp)).find("rt1") == std::string::npos;
       ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(Resolve(broker, {}, passport)->pieces(0).value(), "Bearer at1");
  EXPECT_EQ(asked_, 1);
}

TEST_F(RefreshConcurrencyTest, RefusedVersionIsRefreshedOnceForAllWhoSawIt) {
  provider_.SetHandler(StrictRotation(absl::Milliseconds(300)));
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  const std::string passport = peers_.authn.Sign(CallPassport());
  const auto first = Resolve(broker, {}, passport);
  ASSERT_TRUE(first.ok()) << first.status();
  v1::ResolveCredentialsRequest refused;
  refused.set_refused_generation(first->pieces(0).generation());
  refused.set_refused_version(first->pieces(0).version());

  std::atomic<int> renewed{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 20; ++i) {
    callers.emplace_back([&] {
      const auto response = Resolve(broker, refused, passport);
      renewed += response.ok() && response->pieces_size() == 1 && response->pieces(0).value() == "Bearer at1" ? 1 : 0;
    });
  }
  for (std::thread& caller : callers) caller.join();
  refused.set_refused_version(Resolve(broker, {}, passport)->pieces(0).version());
  const auto again = Resolve(broker, refused, passport);

  EXPECT_EQ(renewed, 20);
  EXPECT_EQ(asked_, 1) << "forced at most once per 30 s";
  EXPECT_EQ(ReasonOf(again.status()), "renewed_token_refused") << "the account is linked: no other link would help";
}

TEST_F(RefreshConcurrencyTest, UnlinkingWhileARefreshRunsIsNotUndoneAndTheNewTokenIsRevoked) {
  std::atomic<bool> revoked{false};
  std::promise<void> unlinked;
  const HttpProvider::Handler rotate = StrictRotation([done = unlinked.get_future().share()] { done.wait(); });
  provider_.SetHandler([&](const HttpProvider::Request& request) -> HttpProvider::Response {
    if (request.path == "/revoke") {
      const auto token = request.form.find("token");
      revoked = revoked || (token != request.form.end() && token->second == "rt1");
      return {200, "", "application/json", ""};
    }
    return rotate(request);
  });
  PutConnection("corp:ada", kApp, absl::Hours(2), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  const std::string passport = peers_.authn.Sign(CallPassport());
  std::thread caller([&] { Resolve(broker, {}, passport).status().IgnoreError(); });
  while (asked_ == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));

  const auto stub = v1::TokenBroker::NewStub(broker.InProcessChannel("edge"));
  v1::DisconnectRequest request;
  request.set_app_slug("github");
  v1::DisconnectResponse response;
  Passport api = CallPassport();
  api.purpose = Passport::Purpose::kApi;
  const auto context = MakeClientContext(absl::Seconds(60), peers_.authn.Sign(api));
  const grpc::Status status = stub->Disconnect(context.get(), request, &response);
  unlinked.set_value();
  caller.join();
  for (int i = 0; i < 10'000 && !revoked; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(5));

  EXPECT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.revocation(), "revoked");
  EXPECT_TRUE(revoked) << "what the refresh brought home is revoked";
  EXPECT_EQ(peers_.vault.Head(ConnectionRecord("corp:ada", kApp)), "") << "and does not come back";
}

TEST_F(RefreshConcurrencyTest, ProviderThatIsDownDisconnectsNobody) {
  provider_.SetHandler([this](const HttpProvider::Request&) -> HttpProvider::Response {
    ++asked_;
    return {503, "<html>sorry</html>", "text/html", ""};
  });
  PutConnection("corp:ada", kApp, absl::Hours(2), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();

  const auto response = Resolve(broker, {}, peers_.authn.Sign(CallPassport()));

  EXPECT_EQ(response.status().code(), absl::StatusCode::kUnavailable) << response.status();
  EXPECT_GT(DetailOf(response.status()).retry_after, absl::ZeroDuration());
  EXPECT_EQ(peers_.vault.MetadataOf(ConnectionRecord("corp:ada", kApp)).state(), "OK");
}

TEST_F(RefreshConcurrencyTest, InvalidGrantMarksTheConnectionAndTellsEverybody) {
  provider_.SetHandler([](const HttpProvider::Request&) -> HttpProvider::Response {
    return {400, R"({"error":"invalid_grant"})", "application/json", ""};
  });
  PutConnection("corp:ada", kApp, absl::Hours(2), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();

  const auto response = Resolve(broker, {}, peers_.authn.Sign(CallPassport()));

  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->link().reason(), v1::LinkRequired::NEEDS_REAUTH);
  EXPECT_EQ(peers_.vault.MetadataOf(ConnectionRecord("corp:ada", kApp)).state(), "NEEDS_REAUTH");
  const auto invalidations = peers_.registry.invalidations();
  ASSERT_EQ(invalidations.size(), 1U);
  EXPECT_EQ(invalidations[0].key(), "corp:ada\napp_gh\n");
  EXPECT_GT(invalidations[0].generation(), 1);
  EXPECT_TRUE(peers_.audit.Await("credential.refreshed", "needs_user"));
}

}  // namespace
}  // namespace sallyport::token_broker

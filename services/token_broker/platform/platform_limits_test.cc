// SPDX-License-Identifier: Apache-2.0
// What a platform may do how often, and what is kept of what it is refused.
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/metrics.h"
#include "services/token_broker/testing/platform_test_base.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;

class PlatformLimitsTest : public testing::PlatformTestBase {
 protected:
  void SetUp() override {
    PlatformTestBase::SetUp();
    PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  }
  static v1::GetTokenRequest Forged(int which) {
    v1::GetTokenRequest request = TokenFor("ada");
    request.mutable_user()->set_subject_token(absl::StrCat("forged", which));
    return request;
  }
  static double Count(const std::string& platform, const std::string& code) {
    return MetricCounter("sallyport_broker_platform_requests_total",
                         "Requests of internal platforms, by method and code",
                         {{"platform", platform}, {"method", "GetToken"}, {"code", code}})
        .Value();
  }
  // Until there is one that `good` says is it; empty if there is none within a minute.
  audit::v1::Event AwaitEvent(const std::function<bool(const audit::v1::Event&)>& good) {
    for (int i = 0; i < 6'000; ++i) {
      for (const audit::v1::Event& event : peers_.audit.events()) {
        if (good(event)) return event;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return {};
  }
  static std::string DetailIn(const audit::v1::Event& event, const std::string& name) {
    const auto found = event.details().find(name);
    return found == event.details().end() ? "" : found->second;
  }
};

TEST_F(PlatformLimitsTest, RefusedRequestsCountAgainstTheRateLimit) {
  peers_.platforms.Put({.id = "chat", .uris = {kChat}, .rate_limit = 2, .rate_burst = 4});
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  ASSERT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  for (int i = 0; i < 2; ++i) EXPECT_THAT(GetToken(channel, Forged(i)), StatusIs(Code::kUnauthenticated));
  // One that is in memory, too.
  EXPECT_THAT(GetToken(channel, Forged(0)), StatusIs(Code::kUnauthenticated));
  const int calls = peers_.platforms.calls();
  for (const v1::GetTokenRequest& request : {Forged(0), Forged(9), TokenFor("ada"), TokenFor("bob")}) {
    const auto over = GetToken(channel, request);
    EXPECT_THAT(over, StatusIs(Code::kResourceExhausted, "the platform chat is over its rate limit"));
    EXPECT_EQ(ReasonOf(over.status()), "platform_rate_limited");
  }
  EXPECT_EQ(peers_.platforms.calls(), calls) << "authn is not asked for a platform that is over its limit";
}

TEST_F(PlatformLimitsTest, RequestIsChargedOnce) {
  peers_.platforms.Put({.id = "chat", .uris = {kChat}, .rate_limit = 1, .rate_burst = 3});
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  ASSERT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  // For each of these authn is asked, by a platform that is known.
  EXPECT_THAT(GetToken(channel, TokenFor("bob")), StatusIs(Code::kFailedPrecondition));
  EXPECT_THAT(GetToken(channel, TokenFor("eve")), StatusIs(Code::kFailedPrecondition));
  EXPECT_THAT(GetToken(channel, TokenFor("ada")), StatusIs(Code::kResourceExhausted));
}

TEST_F(PlatformLimitsTest, RefusedPlatformIsCountedByItsName) {
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  ASSERT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  const double of_chat = Count("chat", "UNAUTHENTICATED");
  const double of_unknown = Count("unknown", "UNAUTHENTICATED");
  ASSERT_THAT(GetToken(channel, Forged(1)), StatusIs(Code::kUnauthenticated));
  EXPECT_EQ(Count("chat", "UNAUTHENTICATED"), of_chat + 1);
  EXPECT_EQ(Count("unknown", "UNAUTHENTICATED"), of_unknown);
}

TEST_F(PlatformLimitsTest, PlatformThatAsksWithoutEndDoesNotFillTheAudit) {
  peers_.platforms.Put({.id = "chat", .uris = {kChat}, .apps = {"mail"}});
  peers_.platforms.Put({.id = "jobs", .dns_names = {"jobs.example.org"}, .apps = {"mail"}});
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  for (int i = 0; i < 70; ++i) {
    ASSERT_THAT(GetToken(channel, TokenFor("ada", std::string(200, 'g'))), StatusIs(Code::kPermissionDenied));
  }
  ASSERT_THAT(GetToken(Channel(broker, {}, {"jobs.example.org"}), TokenFor("ada")), StatusIs(Code::kPermissionDenied))
      << "another's are recorded";
  clock_for_all_.Advance(absl::Seconds(1));
  ASSERT_THAT(GetToken(channel, TokenFor("ada")), StatusIs(Code::kPermissionDenied));
  const audit::v1::Event next = AwaitEvent([](const auto& event) { return !DetailIn(event, "unrecorded").empty(); });
  EXPECT_EQ(next.type(), "platform.token");
  EXPECT_EQ(next.actor(), "chat");
  EXPECT_EQ(DetailIn(next, "unrecorded"), "10");
  EXPECT_EQ(DetailIn(next, "app"), "github");
  int of_chat = 0;
  int of_jobs = 0;
  for (const audit::v1::Event& event : peers_.audit.events()) {
    if (event.type() != "platform.token" || event.rule() != "platform_not_granted") continue;
    of_chat += event.actor() == "chat" ? 1 : 0;
    of_jobs += event.actor() == "jobs" ? 1 : 0;
    EXPECT_LE(DetailIn(event, "app").size(), 64u) << "as asked for, but not without end";
  }
  EXPECT_EQ(of_chat, 61);
  EXPECT_EQ(of_jobs, 1);
}

TEST_F(PlatformLimitsTest, EveryMethodsRefusalsAreOnRecord) {
  peers_.platforms.Put({.id = "chat", .uris = {kChat}, .apps = {"mail"}, .rate_limit = 1, .rate_burst = 3});
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  v1::StartUserLinkRequest link;
  *link.mutable_user() = Token("ada");
  link.set_app("github");
  EXPECT_THAT(GetToken(channel, TokenFor("ada")), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(StartLink(channel, link), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(Disconnect(channel, Token("ada"), "github"), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(List(channel, Token("ada")), StatusIs(Code::kResourceExhausted));
  const std::pair<std::string, std::string> wanted[] = {{"platform.token", "platform_not_granted"},
                                                        {"link.offered", "platform_not_granted"},
                                                        {"link.disconnected", "platform_not_granted"},
                                                        {"platform.connections", "platform_rate_limited"}};
  for (const auto& want : wanted) {
    const audit::v1::Event event =
        AwaitEvent([&](const auto& one) { return one.type() == want.first && one.rule() == want.second; });
    EXPECT_EQ(event.decision(), audit::v1::DECISION_DENIED) << want.first;
    EXPECT_EQ(event.actor(), "chat") << want.first;
    EXPECT_EQ(event.subject(), "corp:ada") << want.first;
    EXPECT_EQ(DetailIn(event, "app"), want.first == "platform.connections" ? "" : "github");
  }
}

TEST_F(PlatformLimitsTest, LinkThatComesWithAnErrorIsOnRecord) {
  TokenBrokerServer& broker = StartBroker();
  ASSERT_EQ(ReasonOf(GetToken(Chat(broker), TokenFor("bob")).status()), "link_required");
  const audit::v1::Event event = Audited("link.offered");
  EXPECT_EQ(event.decision(), audit::v1::DECISION_ALLOWED);
  EXPECT_EQ(event.actor(), "chat");
  EXPECT_EQ(event.subject(), "corp:bob");
  EXPECT_EQ(DetailIn(event, "app"), "github");
}

TEST_F(PlatformLimitsTest, OutageOfAuthnIsNoGuess) {
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  peers_.platforms.SetDown(true);
  for (int i = 0; i < 80; ++i) {
    const auto away = GetToken(channel, TokenFor("ada"));
    ASSERT_THAT(away, StatusIs(Code::kUnavailable));
    EXPECT_EQ(ReasonOf(away.status()), "authn_unavailable");
  }
  peers_.platforms.SetDown(false);
  EXPECT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
// Tokens for platforms: whose, of which app, for how long.
#include <atomic>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/proto_time.h"
#include "services/token_broker/testing/platform_test_base.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::HttpProvider;
using ::testing::Not;
using ::testing::StartsWith;
using Code = absl::StatusCode;

class PlatformTokensTest : public testing::PlatformTestBase {
 protected:
  PlatformTokensTest() {
    provider_.SetHandler([this](const HttpProvider::Request& request) -> HttpProvider::Response {
      if (request.path != "/token") return {200, "", "application/json", ""};
      if (down_) return {503, "", "text/plain", ""};
      return {200,
              absl::StrCat(R"({"access_token":"new)", ++asked_, R"(","refresh_token":"rt","expires_in":)", ttl_.load(),
                           "}"),
              "application/json", ""};
    });
  }
  v1::GetTokenRequest Lasting(absl::Duration least) {
    v1::GetTokenRequest request = TokenFor("ada");
    *request.mutable_min_lifetime() = ToProtoDuration(least);
    return request;
  }

  std::atomic<int> asked_{0};
  std::atomic<int> ttl_{3600};
  std::atomic<bool> down_{false};
};

TEST_F(PlatformTokensTest, TokenComesWithWhatItMayBeUsedFor) {
  PutConnection("corp:ada", kApp, absl::Minutes(10), absl::Minutes(60));
  TokenBrokerServer& broker = StartBroker();
  ASSERT_OK_AND_ASSIGN(const v1::GetTokenResponse token, GetToken(Chat(broker), TokenFor("ada")));
  EXPECT_EQ(token.access_token(), "at0-of-corp:ada");
  EXPECT_EQ(token.token_type(), "Bearer");
  EXPECT_THAT(token.scopes(), ElementsAre("repo"));
  EXPECT_THAT(token.allowed_origins(), ElementsAre(kOrigin));
  EXPECT_EQ(token.generation(), 1);
  EXPECT_EQ(token.version(), 1);
  // The skew is taken off: the receiver needs none of its own.
  EXPECT_LT(
      absl::AbsDuration(FromTimestamp(token.expires_at()) - (clock_.Now() + absl::Minutes(50) - absl::Seconds(30))),
      absl::Milliseconds(1));
}

TEST_F(PlatformTokensTest, EveryTokenIsRecorded) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  ASSERT_THAT(GetToken(Chat(broker), TokenFor("ada")), IsOk());
  const audit::v1::Event event = Audited("platform.token");
  EXPECT_EQ(event.actor(), "chat");
  EXPECT_EQ(event.subject(), "corp:ada");
  EXPECT_EQ(event.decision(), audit::v1::DECISION_ALLOWED);
  ASSERT_EQ(event.credentials_size(), 1);
  EXPECT_EQ(event.credentials(0).uid(), kApp);
  EXPECT_EQ(event.credentials(0).version(), 1);
  EXPECT_THAT(event.SerializeAsString(), Not(HasSubstr("at0-of")));
}

TEST_F(PlatformTokensTest, OnlyGrantedAppsAreGiven) {
  peers_.platforms.Put({.id = "chat", .uris = {kChat}, .apps = {"mail"}});
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  const auto denied = GetToken(Chat(broker), TokenFor("ada"));
  EXPECT_THAT(denied, StatusIs(Code::kPermissionDenied, "covers the app github"));
  EXPECT_EQ(ReasonOf(denied.status()), "platform_not_granted");
  // Which other apps there are is not told.
  EXPECT_THAT(GetToken(Chat(broker), TokenFor("ada", "nothing")), StatusIs(Code::kPermissionDenied));
  EXPECT_THAT(GetToken(Chat(broker), TokenFor("ada", "mail")), StatusIs(Code::kNotFound));
  const audit::v1::Event event = Audited("platform.token", "platform_not_granted");
  EXPECT_EQ(event.decision(), audit::v1::DECISION_DENIED);
  EXPECT_EQ(event.actor(), "chat");
}

TEST_F(PlatformTokensTest, UsersTokensAreTheirOwn) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  PutConnection("corp:bob", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(GetToken(channel, TokenFor("ada"))->access_token(), "at0-of-corp:ada");
    EXPECT_EQ(GetToken(channel, TokenFor("bob"))->access_token(), "at0-of-corp:bob");
  }
}

TEST_F(PlatformTokensTest, NamingAUserNeedsAGrantForIt) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  v1::GetTokenRequest request = TokenFor("ada");
  *request.mutable_user() = Subject("corp:ada");
  EXPECT_THAT(GetToken(Chat(broker), request), StatusIs(Code::kPermissionDenied));
  peers_.platforms.Put({.id = "chat", .uris = {kChat}, .without_user = true});
  clock_for_all_.Advance(absl::Seconds(6));
  EXPECT_THAT(GetToken(Chat(broker), request), IsOk());
}

TEST_F(PlatformTokensTest, NobodyLinkedIsToldWhere) {
  TokenBrokerServer& broker = StartBroker();
  const auto unlinked = GetToken(Chat(broker), TokenFor("ada"));
  EXPECT_THAT(unlinked, StatusIs(Code::kFailedPrecondition, "Connect your GitHub account to continue."));
  EXPECT_EQ(ReasonOf(unlinked.status()), "link_required");
  EXPECT_THAT(DetailOf(unlinked.status()).link, StartsWith("https://gw.example.com/connect/gh?for="));
}

TEST_F(PlatformTokensTest, MissingScopeIsALink) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  v1::GetTokenRequest request = TokenFor("ada");
  request.add_scopes("repo");
  EXPECT_THAT(GetToken(Chat(broker), request), IsOk());
  request.add_scopes("admin:org");
  const auto missing = GetToken(Chat(broker), request);
  EXPECT_EQ(ReasonOf(missing.status()), "link_required");
  EXPECT_THAT(DetailOf(missing.status()).link, HasSubstr("scopes=repo%20admin%3Aorg"));
  request.add_scopes("a b");
  EXPECT_THAT(GetToken(Chat(broker), request), StatusIs(Code::kInvalidArgument, "scopes"));
}

TEST_F(PlatformTokensTest, TokenOfAnotherBindingIsNotGiven) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  PutSecret("app_binding", absl::StrCat(kApp, "/binding"), "binding-made-anew", {kOrigin});
  app_->mutable_binding()->set_version(2);
  TokenBrokerServer& broker = StartBroker();
  const auto refused = GetToken(Chat(broker), TokenFor("ada"));
  EXPECT_EQ(ReasonOf(refused.status()), "link_required");
}

TEST_F(PlatformTokensTest, OriginsAreBoundedByWhatIsSealed) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  // The configuration names another one: its administrator may not widen what was sealed.
  app_->add_allowed_upstream_origins("https://evil.example");
  TokenBrokerServer& broker = StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto token, GetToken(Chat(broker), TokenFor("ada")));
  EXPECT_THAT(token.allowed_origins(), ElementsAre(kOrigin));
}

TEST_F(PlatformTokensTest, TokenThatMayGoNowhereIsNotGiven) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  app_->clear_allowed_upstream_origins();
  app_->add_allowed_upstream_origins("https://evil.example");
  TokenBrokerServer& broker = StartBroker();
  const auto refused = GetToken(Chat(broker), TokenFor("ada"));
  EXPECT_THAT(refused, StatusIs(Code::kFailedPrecondition, "a credential-admin can allow them"));
  EXPECT_EQ(ReasonOf(refused.status()), "no_allowed_origin");
  EXPECT_EQ(Audited("platform.token", "no_allowed_origin").decision(), audit::v1::DECISION_DENIED);
}

TEST_F(PlatformTokensTest, TokenThatEndsTooSoonIsRenewedFirst) {
  PutConnection("corp:ada", kApp, absl::Minutes(40), absl::Minutes(60));
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  EXPECT_EQ(GetToken(channel, Lasting(absl::Minutes(15)))->access_token(), "at0-of-corp:ada");
  EXPECT_EQ(GetToken(channel, Lasting(absl::Minutes(30)))->access_token(), "new1");
  EXPECT_EQ(GetToken(channel, Lasting(absl::Minutes(30)))->access_token(), "new1");
  EXPECT_EQ(asked_.load(), 1);
  EXPECT_THAT(GetToken(channel, Lasting(absl::Minutes(31))), StatusIs(Code::kInvalidArgument, "min_lifetime"));
  EXPECT_THAT(GetToken(channel, Lasting(-absl::Seconds(1))), StatusIs(Code::kInvalidArgument, "min_lifetime"));
}

TEST_F(PlatformTokensTest, ProviderOfShortTokensIsNotAskedEachTime) {
  ttl_ = 300;
  PutConnection("corp:ada", kApp, absl::Minutes(4), absl::Minutes(5));
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(GetToken(channel, Lasting(absl::Minutes(30)))->access_token(), "new1");
  }
  EXPECT_EQ(asked_.load(), 1);
  clock_for_all_.Advance(absl::Minutes(1));
  EXPECT_EQ(GetToken(channel, Lasting(absl::Minutes(30)))->access_token(), "new2");
}

TEST_F(PlatformTokensTest, WithoutItsProviderATokenThatEndsTooSoonIsNotGiven) {
  PutConnection("corp:ada", kApp, absl::Minutes(40), absl::Minutes(60));
  TokenBrokerServer& broker = StartBroker();
  down_ = true;
  const auto away = GetToken(Chat(broker), Lasting(absl::Minutes(30)));
  EXPECT_THAT(away, StatusIs(Code::kUnavailable));
  EXPECT_EQ(ReasonOf(away.status()), "provider_unavailable");
  EXPECT_GT(DetailOf(away.status()).retry_after, absl::ZeroDuration());
  EXPECT_EQ(GetToken(Chat(broker), Lasting(absl::Minutes(15)))->access_token(), "at0-of-corp:ada");
}

TEST_F(PlatformTokensTest, TokenThatCannotBeRenewedIsGivenToItsEnd) {
  PutConnection("corp:ada", kApp, absl::Minutes(40), absl::Minutes(60), /*refresh_token=*/"");
  TokenBrokerServer& broker = StartBroker();
  EXPECT_EQ(GetToken(Chat(broker), Lasting(absl::Minutes(30)))->access_token(), "at0-of-corp:ada");
}

TEST_F(PlatformTokensTest, RefusedTokenIsRenewedOnce) {
  PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  v1::GetTokenRequest request = TokenFor("ada");
  request.set_refused_generation(1);
  request.set_refused_version(1);
  EXPECT_EQ(GetToken(channel, request)->access_token(), "new1");
  EXPECT_EQ(GetToken(channel, request)->access_token(), "new1") << "there is a newer one already";
  EXPECT_EQ(asked_.load(), 1);
}

TEST_F(PlatformTokensTest, AppOfNoServerHasNoLink) {
  peers_.registry.Change(
      [](registry::v1::WatchEvent::Snapshot& snapshot) { snapshot.mutable_mcp_servers(0)->set_enabled(false); });
  TokenBrokerServer& broker = StartBroker();
  const auto unlinked = GetToken(Chat(broker), TokenFor("ada"));
  EXPECT_THAT(unlinked, StatusIs(Code::kFailedPrecondition, "an administrator can add one"));
  EXPECT_EQ(ReasonOf(unlinked.status()), "no_server_for_link");
}

TEST_F(PlatformTokensTest, LabelMustBeOne) {
  TokenBrokerServer& broker = StartBroker();
  v1::GetTokenRequest request = TokenFor("ada");
  request.set_account("../x");
  EXPECT_THAT(GetToken(Chat(broker), request), StatusIs(Code::kInvalidArgument, "account"));
}

}  // namespace
}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
// Who is let in at the platforms' listener, and what strangers try there.
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "common/metrics.h"
#include "common/text/hex.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "services/token_broker/testing/platform_test_base.h"
#include "tests/testing/health_check.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::IsServing;
using ::sallyport::testing::MakeTestCertificate;
using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;
using Code = absl::StatusCode;

class PlatformDoorTest : public testing::PlatformTestBase {
 protected:
  void SetUp() override {
    PlatformTestBase::SetUp();
    PutConnection("corp:ada", kApp, absl::Minutes(1), absl::Hours(1));
  }
  // The broker has heard of it when this returns.
  void Invalidate(TokenBrokerServer& broker, registry::v1::Invalidation::Kind kind, const std::string& key) {
    peers_.registry.Invalidate(kind, key);
    // What comes after it on the stream shows that it has arrived.
    registry::v1::McpServer marker;
    marker.set_uid(MakeUid("srv_"));
    marker.set_slug(absl::StrCat("marker", ++markers_));
    marker.set_version(1);
    marker.set_upstream_url(absl::StrCat(kOrigin, "/mcp"));
    marker.mutable_agent_auth()->mutable_passthrough();
    marker.mutable_app_auth()->mutable_passthrough();
    peers_.registry.Put(marker);
    v1::ResolveCredentialsRequest request;
    request.set_server_uid(marker.uid());
    for (int i = 0; i < 5'000 && !Resolve(broker, request, "").ok(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_THAT(Resolve(broker, request, ""), IsOk());
  }
  int markers_ = 0;
};

TEST_F(PlatformDoorTest, CertificateProvesThePlatform) {
  TokenBrokerServer& broker = StartBroker();
  ASSERT_OK_AND_ASSIGN(const v1::GetTokenResponse token, GetToken(Chat(broker), TokenFor("ada")));
  EXPECT_EQ(token.access_token(), "at0-of-corp:ada");
  EXPECT_THAT(GetToken(Channel(broker, {"spiffe://example.org/ns/other/sa/bot"}), TokenFor("ada")),
              StatusIs(Code::kUnauthenticated, "no such platform"));
}

TEST_F(PlatformDoorTest, NamesOfACertificateKeepTheirKind) {
  peers_.platforms.Put({.id = "jobs", .dns_names = {"jobs.example.org"}});
  TokenBrokerServer& broker = StartBroker();
  EXPECT_THAT(GetToken(Channel(broker, {}, {"jobs.example.org"}), TokenFor("ada")), IsOk());
  // A certificate authority that gives out URIs of any kind must not make DNS names by it.
  EXPECT_THAT(GetToken(Channel(broker, {"jobs.example.org"}), TokenFor("ada")), StatusIs(Code::kUnauthenticated));
}

TEST_F(PlatformDoorTest, CertificateOfAnotherAuthorityIsNoConnection) {
  TokenBrokerServer& broker = StartBroker();
  const auto other = MakeTestCertificate(nullptr, {});
  const auto made = MakeTestCertificate(&other, {kChat});
  EXPECT_THAT(GetToken(ChannelWith(broker, &made), TokenFor("ada")), StatusIs(Code::kUnavailable));
  EXPECT_EQ(peers_.platforms.calls(), 0);
}

TEST_F(PlatformDoorTest, ServiceAccountTokenProvesThePlatform) {
  peers_.platforms.Put({.id = "jobs", .tokens = {"a.service.account"}});
  change_listener_ = [](config::v1::PlatformListener& listener) { listener.clear_client_ca_bundle(); };
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Channel(broker, {});
  EXPECT_THAT(GetToken(channel, TokenFor("ada"), {{"authorization", "Bearer a.service.account"}}), IsOk());
  EXPECT_THAT(GetToken(channel, TokenFor("ada"), {{"authorization", "Bearer another"}}),
              StatusIs(Code::kUnauthenticated));
  EXPECT_THAT(GetToken(channel, TokenFor("ada"), {{"authorization", "Basic a.service.account"}}),
              StatusIs(Code::kUnauthenticated, "must be \"Bearer\""));
  EXPECT_THAT(GetToken(channel, TokenFor("ada"),
                       {{"authorization", "Bearer a.service.account"}, {"authorization", "Bearer another"}}),
              StatusIs(Code::kUnauthenticated, "more than one"));
}

TEST_F(PlatformDoorTest, NothingShownIsNobody) {
  TokenBrokerServer& broker = StartBroker();
  const auto refused = GetToken(Channel(broker, {}), TokenFor("ada"));
  EXPECT_THAT(refused, StatusIs(Code::kUnauthenticated, "client certificate"));
  EXPECT_EQ(ReasonOf(refused.status()), "platform_unknown");
  EXPECT_EQ(peers_.platforms.calls(), 0) << "authn is asked about callers who show something";
}

TEST_F(PlatformDoorTest, PassportInMetadataIsRefused) {
  TokenBrokerServer& broker = StartBroker();
  const std::string passport = peers_.authn.Sign(CallPassport());
  EXPECT_THAT(GetToken(Chat(broker), TokenFor("ada"), {{"sallyport-passport", passport}}),
              StatusIs(Code::kUnauthenticated, "takes no passports"));
  EXPECT_EQ(peers_.platforms.calls(), 0);
}

TEST_F(PlatformDoorTest, InternalServicesAreNotOnTheListener) {
  TokenBrokerServer& broker = StartBroker();
  v1::ResolveCredentialsRequest resolve;
  resolve.set_server_uid(kServer);
  v1::ResolveCredentialsResponse resolved;
  const auto context = ContextWith({{"sallyport-passport", peers_.authn.Sign(CallPassport())}});
  EXPECT_EQ(v1::TokenBroker::NewStub(Chat(broker))->ResolveCredentials(context.get(), resolve, &resolved).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  web::v1::WebResponse page;
  const auto again = ContextWith({});
  EXPECT_EQ(web::v1::Web::NewStub(Chat(broker))->Handle(again.get(), {}, &page).error_code(),
            grpc::StatusCode::UNIMPLEMENTED);
  EXPECT_THAT(GetToken(broker.InProcessChannel("edge"), TokenFor("ada")), StatusIs(Code::kUnimplemented))
      << "nor is Platform among the internal services";
}

TEST_F(PlatformDoorTest, HealthFollowsTheService) {
  TokenBrokerServer& broker = StartBroker();
  ASSERT_OK_AND_ASSIGN(bool serving, IsServing(Channel(broker, {})));
  EXPECT_FALSE(serving);
  broker.SetServing(true);
  ASSERT_OK_AND_ASSIGN(serving, IsServing(Channel(broker, {})));
  EXPECT_TRUE(serving);
}

TEST_F(PlatformDoorTest, ReflectionIsThereOnlyWhereItIsWanted) {
  const auto reflect = [this](const TokenBrokerServer& broker, grpc::reflection::v1::ServerReflectionResponse& told) {
    const auto stub = grpc::reflection::v1::ServerReflection::NewStub(Chat(broker));
    const auto context = ContextWith({});
    const auto stream = stub->ServerReflectionInfo(context.get());
    grpc::reflection::v1::ServerReflectionRequest request;
    request.set_list_services("");
    stream->Write(request);
    stream->WritesDone();
    while (stream->Read(&told)) {
    }
    return stream->Finish().error_code();
  };
  grpc::reflection::v1::ServerReflectionResponse told;
  EXPECT_EQ(reflect(StartBroker(), told), grpc::StatusCode::UNIMPLEMENTED);
  change_listener_ = [](config::v1::PlatformListener& listener) { listener.set_reflection(true); };
  EXPECT_EQ(reflect(StartBroker(), told), grpc::StatusCode::OK);
  EXPECT_THAT(told.DebugString(), HasSubstr("sallyport.token_broker.v1.Platform"));
  EXPECT_THAT(told.DebugString(), Not(HasSubstr("TokenBroker\"")));
}

TEST_F(PlatformDoorTest, AnswerInMemoryAsksNobody) {
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  ASSERT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  const int reads = peers_.vault.gets();
  for (int i = 0; i < 20; ++i) {
    ASSERT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  }
  EXPECT_EQ(peers_.platforms.calls(), 1);
  EXPECT_EQ(peers_.vault.gets(), reads);
}

TEST_F(PlatformDoorTest, EveryUserTokenAndCallerIsAQuestionOfItsOwn) {
  peers_.platforms.Put({.id = "chat", .uris = {kChat}, .without_user = true});
  TokenBrokerServer& broker = StartBroker();
  PutConnection("corp:bob", kApp, absl::Minutes(1), absl::Hours(1));
  ASSERT_THAT(GetToken(Chat(broker), TokenFor("ada")), IsOk());
  ASSERT_OK_AND_ASSIGN(const auto bobs, GetToken(Chat(broker), TokenFor("bob")));
  EXPECT_EQ(bobs.access_token(), "at0-of-corp:bob");
  // A token that is somebody's name, and a name that is a token.
  v1::GetTokenRequest named = TokenFor("ada");
  *named.mutable_user() = Subject("token.ada.x");
  EXPECT_THAT(GetToken(Chat(broker), named), StatusIs(Code::kFailedPrecondition));
  // With a certificate of other names what was said of the former does not count.
  EXPECT_THAT(GetToken(Channel(broker, {"spiffe://example.org/ns/x/sa/y"}), TokenFor("ada")),
              StatusIs(Code::kUnauthenticated));
  EXPECT_EQ(peers_.platforms.calls(), 4);
}

TEST_F(PlatformDoorTest, AuthnIsAskedAgainInTime) {
  peers_.platforms.Put({.id = "chat", .uris = {kChat}, .valid_for = absl::Minutes(2)});
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  ASSERT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  clock_for_all_.Advance(absl::Seconds(119));
  ASSERT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  EXPECT_EQ(peers_.platforms.calls(), 1);
  peers_.platforms.Refuse("corp:ada");
  clock_for_all_.Advance(absl::Seconds(1));
  EXPECT_THAT(GetToken(channel, TokenFor("ada")), StatusIs(Code::kPermissionDenied));
}

// Threat model T12: on the connection on which it was admitted, too, and whatever authn has said about for how long.
TEST_F(PlatformDoorTest, CertificateThatProvesNoPlatformAnyMoreCountsForFiveMinutesAtMost) {
  peers_.platforms.Put({.id = "chat", .uris = {kChat}, .valid_for = absl::Hours(1)});
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  ASSERT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  peers_.platforms.Put({.id = "chat", .uris = {"spiffe://example.org/ns/chat/sa/successor"}});
  clock_for_all_.Advance(absl::Minutes(4));
  EXPECT_THAT(GetToken(channel, TokenFor("ada")), IsOk()) << "as documented";
  EXPECT_EQ(peers_.platforms.calls(), 1);
  clock_for_all_.Advance(absl::Minutes(1));
  EXPECT_THAT(GetToken(channel, TokenFor("ada")), StatusIs(Code::kUnauthenticated, "no such platform"));
  EXPECT_EQ(peers_.platforms.calls(), 2);
}

TEST_F(PlatformDoorTest, EndedTokenSessionAndUserAreAskedForAgain) {
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  const std::pair<registry::v1::Invalidation::Kind, std::string> ends[] = {
      {registry::v1::Invalidation::TOKEN, HexEncode(Sha256("token.ada"))},
      {registry::v1::Invalidation::SESSION, "session-ada"},
      {registry::v1::Invalidation::SUBJECT, "corp:ada"}};
  int calls = 0;
  for (const auto& [kind, key] : ends) {
    ASSERT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
    EXPECT_EQ(peers_.platforms.calls(), calls + 1);
    Invalidate(broker, kind, "of-somebody-else");
    ASSERT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
    EXPECT_EQ(peers_.platforms.calls(), ++calls);
    Invalidate(broker, kind, key);
  }
  peers_.platforms.Refuse("corp:ada");
  EXPECT_THAT(GetToken(channel, TokenFor("ada")), StatusIs(Code::kPermissionDenied));
}

TEST_F(PlatformDoorTest, RefusalIsKeptForAMoment) {
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  v1::GetTokenRequest forged = TokenFor("ada");
  forged.mutable_user()->set_subject_token("forged");
  for (int i = 0; i < 5; ++i) {
    EXPECT_THAT(GetToken(channel, forged), StatusIs(Code::kUnauthenticated, "the signature is wrong"));
  }
  EXPECT_EQ(peers_.platforms.calls(), 1);
  clock_for_all_.Advance(absl::Seconds(6));
  EXPECT_THAT(GetToken(channel, forged), StatusIs(Code::kUnauthenticated));
  EXPECT_EQ(peers_.platforms.calls(), 2);
}

TEST_F(PlatformDoorTest, GuessesOfAStrangerAreBounded) {
  TokenBrokerServer& broker = StartBroker();
  ASSERT_THAT(GetToken(Chat(broker), TokenFor("ada")), IsOk());
  const auto stranger = Channel(broker, {});
  int refused = 0;
  for (int i = 0; i < 80; ++i) {
    const auto answer =
        GetToken(stranger, TokenFor("ada"), {{"authorization", absl::StrCat("Bearer guess.", i, ".x")}});
    if (absl::IsResourceExhausted(answer.status())) {
      ++refused;
      EXPECT_GT(DetailOf(answer.status()).retry_after, absl::ZeroDuration());
    }
  }
  EXPECT_EQ(refused, 30);
  EXPECT_EQ(peers_.platforms.calls(), 51);
  // Those who are known are not concerned, though they come from the same host, and bring users who are not.
  EXPECT_THAT(GetToken(Chat(broker), TokenFor("ada")), IsOk());
  EXPECT_THAT(GetToken(Chat(broker), TokenFor("bob")), StatusIs(Code::kFailedPrecondition));
  clock_for_all_.Advance(absl::Seconds(1));
  EXPECT_THAT(GetToken(stranger, TokenFor("ada"), {{"authorization", "Bearer guess.last.x"}}),
              StatusIs(Code::kUnauthenticated));
}

TEST_F(PlatformDoorTest, WithoutAuthnKnownCallersGoOn) {
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  ASSERT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  peers_.platforms.SetDown(true);
  EXPECT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  const auto other = GetToken(channel, TokenFor("bob"));
  EXPECT_THAT(other, StatusIs(Code::kUnavailable));
  EXPECT_GT(DetailOf(other.status()).retry_after, absl::ZeroDuration());
  peers_.platforms.SetDown(false);
  EXPECT_THAT(GetToken(channel, TokenFor("bob")), StatusIs(Code::kFailedPrecondition)) << "an outage is not kept";
}

TEST_F(PlatformDoorTest, AnswerThatIsNotOfWhatWasAskedIsNotBelieved) {
  peers_.platforms.Put({.id = "chat", .uris = {kChat}, .without_user = true});
  TokenBrokerServer& broker = StartBroker();
  v1::GetTokenRequest request = TokenFor("ada");
  *request.mutable_user() = Subject("corp:ada");
  const auto with_passport = [&](Passport passport) {
    peers_.platforms.SetTwist([this, passport](authn::v1::AuthenticatePlatformResponse& response) {
      response.set_passport(peers_.authn.Sign(passport));
    });
  };
  Passport passport = CallPassport();
  with_passport(passport);
  EXPECT_THAT(GetToken(Chat(broker), request), StatusIs(Code::kInternal)) << "a caller's, not a platform's";
  passport.purpose = Passport::Purpose::kPlatform;
  passport.actor = "jobs";
  with_passport(passport);
  EXPECT_THAT(GetToken(Chat(broker), request), StatusIs(Code::kInternal)) << "another platform's";
  passport.actor = "chat";
  passport.subject = "corp:bob";
  with_passport(passport);
  EXPECT_THAT(GetToken(Chat(broker), request), StatusIs(Code::kInternal)) << "another user's";
  peers_.platforms.SetTwist(
      [](authn::v1::AuthenticatePlatformResponse& response) { response.set_passport("no.passport.x"); });
  EXPECT_THAT(GetToken(Chat(broker), request), StatusIs(Code::kUnavailable));
}

TEST_F(PlatformDoorTest, RateLimitIsThePlatforms) {
  peers_.platforms.Put({.id = "chat", .uris = {kChat}, .rate_limit = 2, .rate_burst = 3});
  peers_.platforms.Put({.id = "jobs", .dns_names = {"jobs.example.org"}});
  TokenBrokerServer& broker = StartBroker();
  const auto channel = Chat(broker);
  for (int i = 0; i < 3; ++i) ASSERT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  const auto over = List(channel, Token("ada"));
  EXPECT_THAT(over, StatusIs(Code::kResourceExhausted, "the platform chat is over its rate limit"));
  EXPECT_EQ(DetailOf(over.status()).retry_after, absl::Milliseconds(500));
  EXPECT_THAT(GetToken(Channel(broker, {}, {"jobs.example.org"}), TokenFor("ada")), IsOk());
  clock_for_all_.Advance(absl::Milliseconds(500));
  EXPECT_THAT(GetToken(channel, TokenFor("ada")), IsOk());
  EXPECT_THAT(GetToken(channel, TokenFor("ada")), StatusIs(Code::kResourceExhausted));
}

TEST_F(PlatformDoorTest, RequestsAreCountedByPlatform) {
  const auto count = [](const std::string& platform, const std::string& code) {
    return MetricCounter("sallyport_broker_platform_requests_total",
                         "Requests of internal platforms, by method and code",
                         {{"platform", platform}, {"method", "GetToken"}, {"code", code}})
        .Value();
  };
  TokenBrokerServer& broker = StartBroker();
  const double good = count("chat", "OK");
  const double unknown = count("unknown", "UNAUTHENTICATED");
  ASSERT_THAT(GetToken(Chat(broker), TokenFor("ada")), IsOk());
  EXPECT_THAT(GetToken(Channel(broker, {}), TokenFor("ada")), StatusIs(Code::kUnauthenticated));
  EXPECT_EQ(count("chat", "OK"), good + 1);
  EXPECT_EQ(count("unknown", "UNAUTHENTICATED"), unknown + 1);
}

TEST_F(PlatformDoorTest, RequestMustSayForWhom) {
  TokenBrokerServer& broker = StartBroker();
  v1::GetTokenRequest request = TokenFor("ada");
  request.clear_user();
  EXPECT_THAT(GetToken(Chat(broker), request), StatusIs(Code::kInvalidArgument, "user: is required"));
  request.mutable_user()->set_subject_token(std::string((16 << 10) + 1, 'x'));
  EXPECT_THAT(GetToken(Chat(broker), request), StatusIs(Code::kInvalidArgument, "user.subject_token"));
  request.mutable_user()->set_subject_token(std::string(100 << 10, 'x'));
  EXPECT_THAT(GetToken(Chat(broker), request), StatusIs(Code::kResourceExhausted)) << "larger than any request";
}

TEST(PlatformListenerConfig, NamesWhatIsMissing) {
  config::v1::TokenBrokerConfig config;
  config.mutable_deployment()->set_public_url("https://gw.example.com");
  config.set_data_directory("/tmp");
  config.mutable_platform()->set_max_threads(-1);
  config.mutable_platform()->set_client_ca_bundle("/does/not/exist");
  const absl::Status status = ValidateTokenBrokerConfig(config);
  for (const char* field :
       {"platform.listen: is required", "platform.certificate: is required", "platform.privateKey: is required",
        "platform.clientCaBundle: cannot read", "platform.maxThreads"}) {
    EXPECT_THAT(std::string(status.message()), HasSubstr(field));
  }
}

}  // namespace
}  // namespace sallyport::token_broker

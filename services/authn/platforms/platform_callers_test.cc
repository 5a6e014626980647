// SPDX-License-Identifier: Apache-2.0
#include "services/authn/platforms/platform_callers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "services/authn/platforms/platform_callers_testing.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn::platforms {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

TEST_F(PlatformCallersTest, WithoutAUserItIsToldWhoItIs) {
  Make();
  ASSERT_OK_AND_ASSIGN(const auto response, Call(ByCertificate(kChatUri)));
  EXPECT_EQ(response.platform(), "chat");
  EXPECT_THAT(response.passport(), IsEmpty());
  EXPECT_FALSE(response.has_principal());
  EXPECT_THAT(response.apps(), IsEmpty());
  EXPECT_EQ(response.rate_limit(), 2.5);
  EXPECT_EQ(response.rate_burst(), 5) << "twice the limit";
  EXPECT_THAT(response.return_origins(), ElementsAre("https://chat.example.com"));
  EXPECT_EQ(response.valid_until().seconds(), absl::ToUnixSeconds(clock_.Now() + absl::Minutes(5)));
  EXPECT_THAT(Events(), IsEmpty()) << "nothing was given away";
}

TEST_F(PlatformCallersTest, ACertificateIsComparedWhole) {
  Make();
  for (const char* uri : {"spiffe://example.org/ns/chat/sa/bo", "spiffe://example.org/ns/chat/sa/bot2",
                          "spiffe://example.org/ns/chat/sa/bot/", "SPIFFE://example.org/ns/chat/sa/bot",
                          "spiffe://example.org/ns/chat/sa/%62ot", "spiffe://example.org/ns/chat", "", "*", "chat"}) {
    EXPECT_THAT(Said(ByCertificate(uri)), HasSubstr("platform_unknown |")) << uri;
  }
  v1::AuthenticatePlatformRequest dns;
  dns.add_certificate_dns_names("Chat.Example.com");
  EXPECT_EQ(Call(dns)->platform(), "chat") << "DNS names have no case";
  for (const char* name : {"*.example.com", "chat.example.com.", "xchat.example.com", "example.com", kChatUri}) {
    dns.set_certificate_dns_names(0, name);
    EXPECT_THAT(Said(dns), HasSubstr("platform_unknown |")) << name;
  }
  EXPECT_THAT(Said(ByCertificate("chat.example.com")), HasSubstr("platform_unknown |")) << "a name of another kind";
}

TEST_F(PlatformCallersTest, ACertificateOfSeveralNamesIsOfOnePlatformOrNone) {
  Make();
  v1::AuthenticatePlatformRequest request = ByCertificate("spiffe://example.org/other");
  request.add_certificate_dns_names("pod-17.example.com");
  EXPECT_THAT(Said(request), HasSubstr("platform_unknown |"));
  request.add_certificate_dns_names("chat.example.com");
  EXPECT_EQ(Call(request)->platform(), "chat");
  request.add_certificate_uris(kChatUri);
  EXPECT_EQ(Call(request)->platform(), "chat");
  request.add_certificate_uris(kNightUri);
  EXPECT_THAT(Said(request), HasSubstr("names of several platforms"));
}

TEST_F(PlatformCallersTest, AServiceAccountIsAPlatform) {
  Make();
  const std::string token = cluster_.Token(clock_.Now(), {{"exp", absl::ToUnixSeconds(clock_.Now()) + 90}});
  ASSERT_OK_AND_ASSIGN(const auto response, Call(ByAccount(token)));
  EXPECT_EQ(response.platform(), "chat");
  EXPECT_EQ(response.valid_until().seconds(), absl::ToUnixSeconds(clock_.Now()) + 90) << "not past the token's end";
  ASSERT_OK_AND_ASSIGN(const auto admitted, Call(For(ByAccount(token), AnnsToken())));
  EXPECT_EQ(admitted.valid_until().seconds(), absl::ToUnixSeconds(clock_.Now()) + 90);
  EXPECT_EQ(verifier_.Verify(admitted.passport(), clock_.Now())->expires_at, clock_.Now() + absl::Seconds(90));
}

TEST_F(PlatformCallersTest, WhoIsNotConfiguredIsUnknown) {
  Make();
  const absl::Time now = clock_.Now();
  EXPECT_THAT(Said({}), HasSubstr("neither a client certificate nor a service-account token"));
  EXPECT_THAT(Said(ByAccount(cluster_.TokenOf(now, "chat", "other"))), HasSubstr("platform_unknown |"));
  EXPECT_THAT(Said(ByAccount(cluster_.TokenOf(now, "other", "bot"))), HasSubstr("platform_unknown |"));
  EXPECT_THAT(Said(ByAccount(cluster_.Token(now, {{"exp", 1}}))),
              AllOf(HasSubstr("platform_unknown |"), HasSubstr("expired")));
  EXPECT_THAT(Said(ByAccount(TestCluster().Token(now))), HasSubstr("unknown_key"));
  EXPECT_THAT(Said(ByAccount(AnnsToken())), HasSubstr("wrong_issuer")) << "a user's token is no platform";
  EXPECT_THAT(Said(ByAccount(OurToken())), HasSubstr("wrong_issuer"));
  // What it says of itself makes nobody a platform.
  EXPECT_THAT(Said(ByAccount(cluster_.Token(now, {{"sub", "system:serviceaccount:other:bot"},
                                                  {"kubernetes.io", nullptr},
                                                  {"act", {{"sub", "chat"}}},
                                                  {"platform", "chat"}}))),
              HasSubstr("platform_unknown |"));
  EXPECT_THAT(Call(For({}, AnnsToken())), StatusIs(absl::StatusCode::kUnauthenticated));
}

TEST_F(PlatformCallersTest, TwoProofsAreOfTheSamePlatform) {
  Make();
  v1::AuthenticatePlatformRequest request = ByCertificate(kChatUri);
  request.set_service_account_token(cluster_.Token(clock_.Now()));
  EXPECT_EQ(Call(request)->platform(), "chat");
  request.set_certificate_uris(0, kNightUri);
  EXPECT_THAT(Said(request), HasSubstr("platform_unknown |"));
  request.set_certificate_uris(0, "spiffe://example.org/other");
  EXPECT_THAT(Said(request), HasSubstr("platform_unknown |")) << "a name that is nobody's";
  request = ByCertificate(kChatUri);
  request.set_service_account_token("garbage");
  EXPECT_THAT(Said(request), HasSubstr("platform_unknown |")) << "the certificate alone would do, but it is not alone";
}

TEST_F(PlatformCallersTest, WhatCannotBeCheckedIsNobody) {
  TestApiServer api;
  config_.mutable_kubernetes(0)->set_token_review_url(api.origin());
  Make();
  v1::AuthenticatePlatformRequest request = ByCertificate(kChatUri);
  request.set_service_account_token(cluster_.Token(clock_.Now()));
  for (const auto& each : {request, ByAccount(cluster_.Token(clock_.Now()))}) {
    const absl::Status status = Call(each).status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable));
    EXPECT_GT(DetailOf(status).retry_after, absl::ZeroDuration());
  }
  api.AnswerReview("system:serviceaccount:chat:bot");
  ASSERT_OK_AND_ASSIGN(const auto response, Call(For(request, AnnsToken())));
  EXPECT_EQ(response.valid_until().seconds(), absl::ToUnixSeconds(clock_.Now() + absl::Minutes(1)))
      << "the cluster is believed for a minute";
}

TEST_F(PlatformCallersTest, DecisionsAboutAPlatformsUsersAreAudited) {
  Make();
  ASSERT_THAT(Call(For(ByCertificate(kChatUri), AnnsToken({{"groups", {"team"}}, {"email", "ann@x.example"}}))),
              IsOk());
  ASSERT_FALSE(Call(For(ByAccount(cluster_.Token(clock_.Now())), AnnsToken({{"sub", "carl"}}))).ok());
  ASSERT_FALSE(Call(For(ByCertificate(kChatUri), AnnsToken({{"aud", "x"}}))).ok());
  ASSERT_FALSE(Call(Naming(ByCertificate(kNightUri), "corp:carl")).ok());
  ASSERT_FALSE(Call(For(ByCertificate("spiffe://example.org/other"), AnnsToken())).ok());

  const std::vector<audit::v1::Event> events = Events();
  ASSERT_THAT(events, SizeIs(4)) << "who is not known fills no table";
  EXPECT_EQ(events[0].type(), "platform.admitted");
  EXPECT_EQ(events[0].decision(), audit::v1::DECISION_ALLOWED);
  EXPECT_EQ(events[0].actor(), "chat");
  EXPECT_EQ(events[0].subject(), "corp:ann");
  EXPECT_EQ(events[0].rule(), "platforms.grants[0]");
  EXPECT_EQ(events[0].user_email(), "ann@x.example");
  EXPECT_EQ(events[0].details().at("proof"), "certificate");
  EXPECT_EQ(events[0].details().at("user"), "token");
  EXPECT_EQ(events[1].type(), "platform.denied");
  EXPECT_EQ(events[1].decision(), audit::v1::DECISION_DENIED);
  EXPECT_EQ(events[1].subject(), "corp:carl");
  EXPECT_EQ(events[1].rule(), "platform_not_granted");
  EXPECT_EQ(events[1].details().at("proof"), "service_account");
  EXPECT_EQ(events[2].rule(), "subject_token_invalid");
  EXPECT_EQ(events[2].details().at("check"), "wrong_audience");
  EXPECT_THAT(events[2].subject(), IsEmpty());
  EXPECT_EQ(events[3].actor(), "night");
  EXPECT_EQ(events[3].subject(), "corp:carl");
  EXPECT_EQ(events[3].details().at("user"), "named");
}

TEST_F(PlatformCallersTest, APlatformThatAsksWithoutEndDoesNotFillTheAudit) {
  Make();
  for (int i = 0; i < 200; ++i) {
    ASSERT_FALSE(Call(Naming(ByCertificate(kNightUri), absl::StrCat("corp:", i))).ok());
  }
  ASSERT_FALSE(Call(Naming(ByCertificate(kChatUri), "corp:ann")).ok());
  clock_.Advance(absl::Seconds(2));
  ASSERT_FALSE(Call(Naming(ByCertificate(kNightUri), "corp:x")).ok());
  const std::vector<audit::v1::Event> events = Events();
  ASSERT_THAT(events, SizeIs(62));
  EXPECT_EQ(events[60].actor(), "chat") << "others are not held back by it";
  EXPECT_EQ(events[61].details().at("unrecorded"), "140");
}

TEST_F(PlatformCallersTest, WithoutItsAuditNobodyIsAdmitted) {
  Make();
  ASSERT_THAT(database_->Write([](Transaction& tx) { return tx.Exec("DROP TABLE audit_outbox", {}).status(); }),
              IsOk());
  EXPECT_THAT(Call(For(ByCertificate(kChatUri), AnnsToken())).status(), Not(IsOk()));
}

TEST_F(PlatformCallersTest, OutcomesAreCountedByPlatform) {
  Make();
  const double admitted = Count("chat", "admitted");
  const double identified = Count("chat", "identified");
  const double invalid = Count("chat", "subject_token_invalid");
  const double refused = Count("night", "platform_not_granted");
  const double unknown = Count("unknown", "platform_unknown");
  ASSERT_THAT(Call(For(ByCertificate(kChatUri), AnnsToken())), IsOk());
  ASSERT_THAT(Call(ByCertificate(kChatUri)), IsOk());
  ASSERT_FALSE(Call(For(ByCertificate(kChatUri), "x")).ok());
  ASSERT_FALSE(Call(Naming(ByCertificate(kNightUri), "corp:carl")).ok());
  ASSERT_FALSE(Call(ByCertificate("spiffe://example.org/whoever")).ok());
  EXPECT_EQ(Count("chat", "admitted"), admitted + 1);
  EXPECT_EQ(Count("chat", "identified"), identified + 1);
  EXPECT_EQ(Count("chat", "subject_token_invalid"), invalid + 1);
  EXPECT_EQ(Count("night", "platform_not_granted"), refused + 1);
  EXPECT_EQ(Count("unknown", "platform_unknown"), unknown + 1);
  EXPECT_THAT(SerializeMetrics(), Not(HasSubstr("whoever")));
}

TEST_F(PlatformCallersTest, NothingSaidRepeatsAToken) {
  Make();
  const std::string token = AnnsToken({{"aud", "x"}});
  const std::string account = cluster_.Token(clock_.Now(), {{"aud", "x"}});
  EXPECT_THAT((std::vector<std::string>{Said(For(ByCertificate(kChatUri), token)), Said(ByAccount(account))}),
              Each(AllOf(Not(HasSubstr(token.substr(0, 20))), Not(HasSubstr(account.substr(0, 20))))));
}

}  // namespace
}  // namespace sallyport::authn::platforms

// SPDX-License-Identifier: Apache-2.0
// Forwarding a token of the sign-in's identity provider for another audience.
#include "services/token_broker/sources/further_tokens.h"

#include <thread>

#include "common/error.h"
#include "services/token_broker/testing/client_test_base.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;
using Code = absl::StatusCode;

class FurtherTokensTest : public testing::ClientTestBase {
 protected:
  FurtherTokensTest() {
    registry::v1::McpServer* server = NewServer(kUid, /*interactive=*/true);
    server->mutable_app_auth()->mutable_passthrough();
    header_ = server->add_outbound_headers();
    header_->set_name("X-Down");
    header_->set_prefix("Bearer ");
    header_->mutable_forward_caller_token()->add_scopes("read");
    header_->mutable_forward_caller_token()->add_scopes("write");
    Bind(kUid, {kOrigin});
    peers_.authn.connector.set_token_endpoint(provider_.Url("/idp/token"));
    peers_.authn.connector.set_client_id("rp");
  }
  void SignIn(const std::string& subject = "corp:ada", const std::string& refresh_token = "rt0") {
    PutConnection(subject, "sso:corp", absl::Minutes(1), absl::Hours(1), refresh_token);
  }
  absl::StatusOr<v1::ResolveCredentialsResponse> Call(const std::string& subject = "corp:ada",
                                                      const std::string& uid = kUid) {
    return Ask(uid, PassportOf(subject, uid));
  }
  static std::string ValueOf(const absl::StatusOr<v1::ResolveCredentialsResponse>& response) {
    if (!response.ok()) return absl::StrCat(ReasonOf(response.status()), " ", response.status().message());
    return response->pieces_size() == 1 ? response->pieces(0).value() : "?";
  }

  static constexpr char kUid[] = "srv_down";
  registry::v1::OutboundHeader* header_;
};

TEST_F(FurtherTokensTest, IsAskedForOnceWithTheRefreshTokenOfTheSignIn) {
  header_->mutable_forward_caller_token()->set_resource("https://down.example");
  SignIn();
  StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto response, Call());
  ASSERT_THAT(response.pieces(), SizeIs(1));
  EXPECT_EQ(response.pieces(0).value(), "Bearer refresh_token-1");
  EXPECT_EQ(response.pieces(0).scope(), v1::TOKEN);
  EXPECT_EQ(response.pieces(0).connection(), "sso:corp") << "it goes when the sign-in goes";
  EXPECT_THAT(Requests()[0].form,
              UnorderedElementsAre(Pair("grant_type", "refresh_token"), Pair("refresh_token", "rt0"),
                                   Pair("scope", "read write"), Pair("resource", "https://down.example"),
                                   Pair("client_id", "rp")));
  EXPECT_EQ(ValueOf(Call()), "Bearer refresh_token-1");
  EXPECT_THAT(Requests(), SizeIs(1)) << "kept";
}

TEST_F(FurtherTokensTest, ARotatedRefreshTokenIsTheNextOneSent) {
  SignIn();
  AnswerNext(200, R"({"access_token":"down","token_type":"Bearer","expires_in":100,"refresh_token":"rt1"})");
  StartBroker();
  EXPECT_EQ(ValueOf(Call()), "Bearer down");
  clock_for_all_.Advance(absl::Seconds(200));
  EXPECT_EQ(ValueOf(Call()), "Bearer refresh_token-2");
  EXPECT_EQ(Requests()[1].form.at("refresh_token"), "rt1");
}

TEST_F(FurtherTokensTest, DiffersByUserByScopesAndBySignIn) {
  registry::v1::McpServer* other = NewServer("srv_other", true);
  other->mutable_app_auth()->mutable_passthrough();
  *other->add_outbound_headers() = *header_;
  other->mutable_outbound_headers(0)->mutable_forward_caller_token()->add_scopes("more");
  Bind("srv_other", {kOrigin});
  SignIn("corp:ada", "rt-ada");
  SignIn("corp:bob", "rt-bob");
  StartBroker();
  EXPECT_EQ(ValueOf(Call("corp:ada")), "Bearer refresh_token-1");
  EXPECT_EQ(ValueOf(Call("corp:bob")), "Bearer refresh_token-2");
  EXPECT_EQ(ValueOf(Call("corp:ada", "srv_other")), "Bearer refresh_token-3");
  EXPECT_EQ(Requests()[1].form.at("refresh_token"), "rt-bob");
  SignIn("corp:ada", "rt-of-the-next-sign-in");
  EXPECT_EQ(ValueOf(Call("corp:ada")), "Bearer refresh_token-4") << "nothing of the sign-in before";
  EXPECT_EQ(Requests()[3].form.at("refresh_token"), "rt-of-the-next-sign-in");
}

TEST_F(FurtherTokensTest, AfterTheSignInIsGoneNothingKeptIsGiven) {
  SignIn();
  StartBroker();
  EXPECT_EQ(ValueOf(Call()), "Bearer refresh_token-1");
  vault::v1::DeleteRequest gone;
  *gone.mutable_record() = ConnectionRecord("corp:ada", "sso:corp");
  ASSERT_TRUE(peers_.vault.Delete(gone, "passport-of:corp:ada").ok());
  EXPECT_THAT(Call(), StatusIs(Code::kFailedPrecondition));
}

TEST_F(FurtherTokensTest, ARefusedOneIsFetchedAnewOnce) {
  SignIn();
  StartBroker();
  ASSERT_OK_AND_ASSIGN(const auto first, Call());
  v1::ResolveCredentialsRequest again;
  again.set_refused_generation(first.pieces(0).generation());
  again.set_refused_version(first.pieces(0).version());
  ASSERT_OK_AND_ASSIGN(const auto second, Ask(kUid, PassportOf("corp:ada", kUid), again));
  EXPECT_EQ(second.pieces(0).value(), "Bearer refresh_token-2");
  again.set_refused_version(second.pieces(0).version());
  EXPECT_EQ(ReasonOf(Ask(kUid, PassportOf("corp:ada", kUid), again).status()), "credential_refused");
  EXPECT_THAT(Requests(), SizeIs(2));
}

TEST_F(FurtherTokensTest, CallersWithATokenOfTheirOwnGetNone) {
  SignIn();
  StartBroker();
  v1::ResolveCredentialsRequest request;
  request.set_presented_token("token-of-ada");
  const auto answer = Ask(kUid, PassportWithoutSession("corp:ada", kUid), request);
  EXPECT_EQ(ReasonOf(answer.status()), "no_caller_token");
  EXPECT_THAT(Requests(), IsEmpty());
}

TEST_F(FurtherTokensTest, WithoutARefreshTokenTheRemedyIsNamed) {
  SignIn("corp:ada", "");
  StartBroker();
  const absl::Status status = Call().status();
  EXPECT_EQ(ReasonOf(status), "no_caller_token");
  EXPECT_THAT(std::string(status.message()), HasSubstr("offline_access"));
  EXPECT_THAT(peers_.authn.ended(), IsEmpty());
}

TEST_F(FurtherTokensTest, ScopesTheProviderDoesNotGiveAreNamedAndEndNothing) {
  SignIn();
  StartBroker();
  AnswerNext(400, R"({"error":"invalid_scope","error_description":"secret-words"})");
  const absl::Status status = Call().status();
  EXPECT_EQ(ReasonOf(status), "token_refused");
  EXPECT_THAT(std::string(status.message()), HasSubstr("the identity provider corp"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("invalid_scope"));
  EXPECT_THAT(std::string(status.message()), ::testing::Not(HasSubstr("secret-words")));
  EXPECT_THAT(peers_.authn.ended(), IsEmpty());
  EXPECT_EQ(ReasonOf(Call().status()), "token_refused");
  EXPECT_THAT(Requests(), SizeIs(1)) << "not asked again at once";
}

// Some providers say invalid_grant of an audience, too.
TEST_F(FurtherTokensTest, InvalidGrantEndsTheSignInOnlyIfItHasEnded) {
  SignIn();
  StartBroker();
  AnswerNext(400, R"({"error":"invalid_grant"})");
  AnswerNext(200, R"({"access_token":"at1","token_type":"Bearer","expires_in":3600})");
  EXPECT_EQ(ReasonOf(Call().status()), "token_refused");
  EXPECT_THAT(peers_.authn.ended(), IsEmpty());
  EXPECT_EQ(Requests()[1].form.count("scope"), 0U) << "its own token was renewed, to see";

  clock_for_all_.Advance(absl::Minutes(2));
  AnswerNext(400, R"({"error":"invalid_grant"})");
  EXPECT_EQ(ReasonOf(Call().status()), "token_refused");
  EXPECT_THAT(Requests(), SizeIs(3)) << "but not each time";

  clock_for_all_.Advance(absl::Minutes(6));
  AnswerNext(400, R"({"error":"invalid_grant"})");
  AnswerNext(400, R"({"error":"invalid_grant"})");
  EXPECT_EQ(ReasonOf(Call().status()), "sign_in_ended");
  EXPECT_THAT(peers_.authn.ended(), ElementsAre("corp:ada"));
}

TEST_F(FurtherTokensTest, AProviderThatIsDownOrWantsThePersonSaysSo) {
  SignIn();
  StartBroker();
  AnswerNext(503, "");
  EXPECT_THAT(Call(), StatusIs(Code::kUnavailable));
  clock_for_all_.Advance(absl::Minutes(2));
  AnswerNext(400, R"({"error":"consent_required"})");
  EXPECT_EQ(ReasonOf(Call().status()), "interaction_required");
  clock_for_all_.Advance(absl::Minutes(2));
  EXPECT_EQ(ValueOf(Call()), "Bearer refresh_token-3");
}

TEST_F(FurtherTokensTest, ManyAtOnceAskOnceEach) {
  SignIn("corp:ada", "rt-ada");
  SignIn("corp:bob", "rt-bob");
  StartBroker();
  std::vector<std::thread> callers;
  for (int i = 0; i < 20; ++i) {
    callers.emplace_back([this, i] { EXPECT_THAT(Call(i % 2 == 0 ? "corp:ada" : "corp:bob"), IsOk()); });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_THAT(Requests(), SizeIs(2));
}

// One refresh at a time for a sign-in: they wait for each other, and nobody goes away empty.
TEST_F(FurtherTokensTest, ManyAudiencesAtOnceAreAllServed) {
  constexpr int kServers = 8;
  for (int i = 0; i < kServers; ++i) {
    const std::string uid = absl::StrCat("srv_a", i);
    registry::v1::McpServer* server = NewServer(uid, true);
    server->mutable_app_auth()->mutable_passthrough();
    *server->add_outbound_headers() = *header_;
    server->mutable_outbound_headers(0)->mutable_forward_caller_token()->add_scopes(absl::StrCat("scope-", i));
    Bind(uid, {kOrigin});
  }
  // Its own token has ended, too.
  PutConnection("corp:ada", "sso:corp", absl::Hours(2), absl::Hours(1));
  StartBroker();
  std::vector<std::thread> callers;
  for (int i = 0; i < kServers; ++i) {
    callers.emplace_back([this, i] { EXPECT_THAT(Call("corp:ada", absl::StrCat("srv_a", i)), IsOk()); });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_THAT(Requests(), SizeIs(kServers + 1));
}

TEST_F(FurtherTokensTest, GoesOnlyWhereTheServerIsBound) {
  registry::v1::McpServer* server = NewServer("srv_else", true);
  server->mutable_app_auth()->mutable_passthrough();
  *server->add_outbound_headers() = *header_;
  Bind("srv_else", {"https://elsewhere.example"});
  SignIn();
  StartBroker();
  EXPECT_EQ(ReasonOf(Call("corp:ada", "srv_else").status()), "origin_not_allowed");
  EXPECT_THAT(Requests(), IsEmpty());
}

}  // namespace
}  // namespace sallyport::token_broker

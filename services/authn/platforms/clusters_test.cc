// SPDX-License-Identifier: Apache-2.0
#include "services/authn/platforms/clusters.h"

#include <future>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/text/base64url.h"
#include "services/authn/authenticator.h"
#include "services/authn/authn_testing.h"
#include "services/authn/platforms/platforms_testing.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn::platforms {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kBot[] = "system:serviceaccount:chat:bot";

bool Anybody(const ServiceAccount& /*account*/) { return true; }

class ClustersTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& content) {
    const std::string path = absl::StrCat(directory_.path(), "/", name);
    EXPECT_THAT(WriteFileAtomic(path, content), IsOk());
    return path;
  }
  void Add(const config::v1::KubernetesCluster& cluster) { *config_.Add() = cluster; }
  void AddWithFile(const TestCluster& cluster, const std::string& id) {
    config::v1::KubernetesCluster config = cluster.Config(id);
    config.set_jwks_file(Write(id + ".jwks", cluster.Jwks()));
    Add(config);
  }
  void AddWithReview(const std::string& token_file = "") {
    config::v1::KubernetesCluster config = cluster_.Config("main");
    config.set_token_review_url(api_.origin());
    config.set_token_file(token_file);
    Add(config);
  }
  void Make(absl::Duration timeout = absl::Seconds(5)) {
    Clusters::Options options = LoopbackAllowed();
    options.timeout = timeout;
    auto made = Clusters::Create(config_, options);
    ASSERT_THAT(made, IsOk());
    clusters_ = *std::move(made);
  }
  absl::StatusOr<VerifiedAccount> Verify(const std::string& token) {
    return clusters_->Verify(token, Anybody, clock_.Now());
  }
  // The check that refused it; "" if it was taken, or could not be judged.
  std::string Refusal(const std::string& token) {
    const absl::Status status = Verify(token).status();
    return absl::IsUnauthenticated(status) ? ReasonOf(status) : "";
  }

  FakeClock clock_;
  TempDirectory directory_;
  TestCluster cluster_;
  TestApiServer api_;
  google::protobuf::RepeatedPtrField<config::v1::KubernetesCluster> config_;
  std::unique_ptr<Clusters> clusters_;
};

TEST_F(ClustersTest, ATokenIsVerifiedByTheKeysOfAFile) {
  AddWithFile(cluster_, "main");
  Make();
  ASSERT_OK_AND_ASSIGN(const VerifiedAccount verified, Verify(cluster_.Token(clock_.Now())));
  EXPECT_EQ(verified.account.ToString(), "main:chat/bot");
  EXPECT_EQ(absl::ToUnixSeconds(verified.expires_at), absl::ToUnixSeconds(clock_.Now()) + 600);
  EXPECT_EQ(verified.believed_until, absl::InfiniteFuture());
}

TEST_F(ClustersTest, TheKeySetIsAskedForAsTheApiServerOffersIt) {
  config::v1::KubernetesCluster config = cluster_.Config("main");
  config.set_jwks_url(api_.origin() + "/openid/v1/jwks");
  config.set_token_file(Write("token", "first\n"));
  Add(config);
  api_.AnswerBody(cluster_.Jwks(), 200);
  Make();
  EXPECT_THAT(Verify(cluster_.Token(clock_.Now())), IsOk());
  EXPECT_THAT(Verify(cluster_.TokenOf(clock_.Now(), "mail", "sorter")), IsOk());
  EXPECT_EQ(api_.requests(), 1);
  EXPECT_EQ(api_.last().target, "/openid/v1/jwks");
  EXPECT_EQ(api_.last().headers["authorization"], "Bearer first");
  EXPECT_THAT(api_.last().headers["accept"], HasSubstr("application/jwk-set+json")) << "else Kubernetes answers 406";
}

TEST_F(ClustersTest, WithoutKeysNothingIsJudged) {
  config::v1::KubernetesCluster config = cluster_.Config("main");
  config.set_jwks_url(api_.origin() + "/openid/v1/jwks");
  Add(config);
  Make();
  const absl::Status status = Verify(cluster_.Token(clock_.Now())).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_GT(DetailOf(status).retry_after, absl::ZeroDuration());
}

TEST_F(ClustersTest, AClustersAuthorityIsItsOwn) {
  TestApiServer api(/*tls=*/true);
  config::v1::KubernetesCluster config = cluster_.Config("main");
  config.set_jwks_url(api.origin() + "/openid/v1/jwks");
  api.AnswerBody(cluster_.Jwks(), 200);
  Add(config);
  Make();
  EXPECT_THAT(Verify(cluster_.Token(clock_.Now())), StatusIs(absl::StatusCode::kUnavailable));
  config_[0].set_ca_bundle(Write("ca.pem", api.ca_pem()));
  Make();
  EXPECT_THAT(Verify(cluster_.Token(clock_.Now())), IsOk());
}

TEST_F(ClustersTest, RefusalsNameTheCheck) {
  AddWithFile(cluster_, "main");
  Make();
  const int64_t now = absl::ToUnixSeconds(clock_.Now());
  const auto with = [&](const nlohmann::json& change) { return cluster_.Token(clock_.Now(), change); };
  EXPECT_EQ(Refusal(with({{"exp", now - 1}})), "expired");
  EXPECT_EQ(Refusal(with({{"exp", now}})), "expired") << "there is no leeway for the end";
  EXPECT_EQ(Refusal(with({{"exp", nullptr}})), "bad_time") << "tokens of old Kubernetes do not end";
  EXPECT_EQ(Refusal(with({{"nbf", now + 3600}})), "not_yet_valid");
  EXPECT_EQ(Refusal(with({{"aud", "other"}})), "wrong_audience");
  EXPECT_EQ(Refusal(with({{"aud", "sallyport/"}})), "wrong_audience");
  EXPECT_EQ(Refusal(with({{"aud", nullptr}})), "wrong_audience");
  EXPECT_EQ(Refusal(with({{"iss", cluster_.issuer() + "/"}})), "wrong_issuer");
  EXPECT_EQ(Refusal(with({{"iss", nullptr}})), "wrong_issuer");
  EXPECT_EQ(Refusal(with({{"sub", nullptr}})), "bad_subject");
  EXPECT_EQ(Refusal(with({{"sub", "corp:ann"}})), "bad_subject");
  EXPECT_EQ(Refusal(with({{"sub", "system:serviceaccount:a:b/c"}})), "bad_subject");
  EXPECT_EQ(Refusal(with({{"sub", "system:serviceaccount:chat:admin"}})), "bad_subject") << "of two accounts";
  EXPECT_EQ(Refusal(with({{"cnf", {{"x5t#S256", "x"}}}})), "wrong_type");
  EXPECT_EQ(Refusal(cluster_.Token(clock_.Now(), {}, "at+jwt")), "wrong_type");
  EXPECT_EQ(Refusal(TestCluster().Token(clock_.Now())), "unknown_key");
  EXPECT_EQ(Refusal("garbage"), "malformed_token");
  EXPECT_EQ(Refusal(std::string(kMaxTokenBytes + 1, 'a')), "token_too_long");
  const std::string good = cluster_.Token(clock_.Now());
  const std::string input = good.substr(0, good.rfind('.'));
  EXPECT_EQ(Refusal(absl::StrCat(input, ".", Base64UrlEncode(std::string(64, '\1')))), "bad_signature");
  for (const char* algorithm : {"none", "None", "HS256"}) {
    const std::string header = Base64UrlEncode(absl::StrCat(R"({"alg":")", algorithm, "\"}"));
    EXPECT_EQ(Refusal(absl::StrCat(header, input.substr(input.find('.')), ".AAAA")), "algorithm");
  }
}

TEST_F(ClustersTest, ATokenOfOneClusterIsNoneOfAnother) {
  const TestCluster other;  // The same issuer, as an installer names it, and another key.
  AddWithFile(cluster_, "main");
  AddWithFile(other, "second");
  config_[1].set_audience("sallyport-second");
  Make();
  EXPECT_EQ(Verify(cluster_.Token(clock_.Now()))->account.cluster, "main");
  EXPECT_EQ(Verify(other.Token(clock_.Now(), {{"aud", "sallyport-second"}}))->account.cluster, "second");
  EXPECT_EQ(Refusal(other.Token(clock_.Now())), "unknown_key");
  EXPECT_EQ(Refusal(cluster_.Token(clock_.Now(), {{"aud", "sallyport-second"}})), "unknown_key");
  EXPECT_EQ(Refusal(cluster_.Token(clock_.Now(), {{"aud", {"sallyport", "sallyport-second"}}})), "wrong_audience");
}

TEST_F(ClustersTest, TheApiServerIsAskedOnceAMinute) {
  const std::string token_file = Write("token", "first");
  AddWithReview(token_file);
  api_.AnswerReview(kBot);
  Make();
  const std::string token = cluster_.Token(clock_.Now());
  ASSERT_OK_AND_ASSIGN(const VerifiedAccount verified, Verify(token));
  EXPECT_EQ(verified.account.ToString(), "main:chat/bot");
  EXPECT_EQ(verified.believed_until, clock_.Now() + absl::Minutes(1));
  const TestApiServer::Request asked = api_.last();
  EXPECT_EQ(asked.method, "POST");
  EXPECT_EQ(asked.target, "/apis/authentication.k8s.io/v1/tokenreviews");
  EXPECT_EQ(asked.headers.at("authorization"), "Bearer first");
  const auto body = *ParseJsonObject(asked.body);
  EXPECT_EQ(body["kind"], "TokenReview");
  EXPECT_EQ(body["spec"]["token"], token);
  EXPECT_EQ(body["spec"]["audiences"], nlohmann::json::array({kAudience}));

  Write("token", "second\n");
  clock_.Advance(absl::Seconds(59));
  EXPECT_EQ(Verify(token)->believed_until, verified.believed_until) << "not a minute from now";
  EXPECT_EQ(api_.requests(), 1);
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(Verify(token), IsOk());
  EXPECT_EQ(api_.requests(), 2);
  EXPECT_EQ(api_.last().headers["authorization"], "Bearer second");
}

TEST_F(ClustersTest, APodThatIsGoneIsNoticedWithinAMinute) {
  AddWithReview();
  api_.AnswerReview(kBot);
  Make();
  const std::string token = cluster_.Token(clock_.Now());
  ASSERT_THAT(Verify(token), IsOk());
  api_.AnswerReview("", {{"authenticated", nullptr}, {"user", nullptr}, {"error", "pod not found"}});
  clock_.Advance(absl::Minutes(1));
  EXPECT_EQ(Refusal(token), "not_authenticated");
  api_.AnswerReview(kBot);
  clock_.Advance(absl::Seconds(9));
  EXPECT_EQ(Refusal(token), "not_authenticated") << "believed 10 s";
  EXPECT_EQ(api_.requests(), 2);
  clock_.Advance(absl::Seconds(1));
  EXPECT_THAT(Verify(token), IsOk());
}

TEST_F(ClustersTest, AnAnswerThatDoesNotTakeTheTokenIsARefusal) {
  struct Case {
    std::string username;
    nlohmann::json change;
    std::string reason;
  };
  const std::vector<Case> cases = {
      {kBot, {{"authenticated", false}}, "not_authenticated"},
      {kBot, {{"authenticated", nullptr}}, "not_authenticated"},
      {kBot, {{"authenticated", "true"}}, "not_authenticated"},
      {kBot, {{"authenticated", 1}}, "not_authenticated"},
      {kBot, {{"error", "expired"}}, "not_authenticated"},
      {kBot, {{"audiences", nullptr}}, "wrong_audience"},
      {kBot, {{"audiences", nlohmann::json::array()}}, "wrong_audience"},
      {kBot, {{"audiences", nlohmann::json::array({"other"})}}, "wrong_audience"},
      {kBot, {{"audiences", kAudience}}, "wrong_audience"},
      {"system:serviceaccount:chat:admin", nlohmann::json::object(), "bad_subject"},
      {"system:serviceaccount:chat:bot:x", nlohmann::json::object(), "bad_subject"},
      {"system:admin", nlohmann::json::object(), "bad_subject"},
      {"", nlohmann::json::object(), "bad_subject"},
  };
  AddWithReview();
  Make();
  for (const Case& each : cases) {
    api_.AnswerReview(each.username, each.change);
    clock_.Advance(absl::Minutes(2));
    EXPECT_EQ(Refusal(cluster_.Token(clock_.Now())), each.reason) << each.username << " " << DumpJson(each.change);
  }
}

TEST_F(ClustersTest, AnAnswerThatCannotBeReadIsNeitherRememberedNorBelieved) {
  const std::string good =
      R"({"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","status":{"authenticated":true,)"
      R"("audiences":["sallyport"],"user":{"username":"system:serviceaccount:chat:bot"}}})";
  const auto body = [](std::string text, int status = 201) {
    return [=](const TestApiServer::Request&) { return TestApiServer::Response{.status = status, .body = text}; };
  };
  const std::string elsewhere = api_.origin() + "/elsewhere";
  const std::vector<std::function<TestApiServer::Response(const TestApiServer::Request&)>> answers = {
      body("<html>yes</html>"),
      body(""),
      body("true"),
      body("[" + good + "]"),
      body(good + good),
      body(R"({"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview"})"),
      body(R"({"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","status":"ok"})"),
      body(R"({"kind":"Status","status":{"authenticated":true}})"),
      body(R"({"status":{"authenticated":false},)" + good.substr(1)),  // A name twice.
      body(R"({"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","status":{"authenticated":true,)"
           R"("audiences":["sallyport"],"user":{"username":7}}})"),
      body(std::string(TokenReviews::kMaxBody + 1, ' ') + good),
      body(good, 500),
      body(good, 401),
      body(good, 403),
      body(good, 404),
      [&](const TestApiServer::Request&) {
        return TestApiServer::Response{.status = 307, .headers = {{"Location", elsewhere}}, .body = good};
      },
      [](const TestApiServer::Request&) { return TestApiServer::Response{.hang_up = true}; },
  };
  AddWithReview();
  const std::string token = cluster_.Token(clock_.Now());
  for (size_t i = 0; i < answers.size(); ++i) {
    Make();  // Each with a circuit of its own.
    api_.Answer(answers[i]);
    const absl::Status status = Verify(token).status();
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable)) << i;
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr(token)));
    EXPECT_NE(api_.last().target, "/elsewhere") << "redirects are not followed";
    api_.AnswerBody(good);
    EXPECT_THAT(Verify(token), IsOk()) << i;
  }
}

TEST_F(ClustersTest, AnApiServerThatIsSlowIsNotWaitedFor) {
  std::promise<void> release;
  std::shared_future<void> released(release.get_future());
  AddWithReview();
  api_.Answer([released](const TestApiServer::Request&) {
    released.wait();
    return TestApiServer::Response{};
  });
  Make(absl::Seconds(1));
  EXPECT_THAT(Verify(cluster_.Token(clock_.Now())), StatusIs(absl::StatusCode::kUnavailable));
  release.set_value();
}

TEST_F(ClustersTest, AReviewIsAskedForOnlyWhereItCouldHelp) {
  AddWithReview();
  api_.AnswerReview(kBot);
  Make();
  const int64_t now = absl::ToUnixSeconds(clock_.Now());
  EXPECT_EQ(Refusal(cluster_.Token(clock_.Now(), {{"exp", now - 1}})), "expired");
  EXPECT_EQ(Refusal(cluster_.Token(clock_.Now(), {{"exp", nullptr}})), "bad_time");
  EXPECT_EQ(Refusal(cluster_.Token(clock_.Now(), {{"aud", "https://kubernetes.default.svc"}})), "wrong_audience");
  EXPECT_EQ(Refusal(cluster_.Token(clock_.Now(), {{"iss", "https://other"}})), "wrong_issuer");
  EXPECT_EQ(Refusal(cluster_.Token(clock_.Now(), {{"sub", "corp:ann"}})), "bad_subject");
  const auto nobody = [](const ServiceAccount&) { return false; };
  EXPECT_EQ(ReasonOf(clusters_->Verify(cluster_.Token(clock_.Now()), nobody, clock_.Now()).status()),
            "unknown_account");
  EXPECT_EQ(api_.requests(), 0) << "tokens that are none of ours are not sent on";
}

TEST_F(ClustersTest, WithoutItsOwnTokenTheApiServerIsNotAsked) {
  const std::string token_file = Write("token", "first");
  AddWithReview(token_file);
  api_.AnswerReview(kBot);
  Make();
  Write("token", " \n");
  EXPECT_THAT(Verify(cluster_.Token(clock_.Now())), StatusIs(absl::StatusCode::kUnavailable));
  ASSERT_THAT(RemoveFile(token_file), IsOk());
  EXPECT_THAT(Verify(cluster_.Token(clock_.Now())), StatusIs(absl::StatusCode::kUnavailable));
  EXPECT_EQ(api_.requests(), 0);
}

}  // namespace
}  // namespace sallyport::authn::platforms

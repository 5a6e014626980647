// SPDX-License-Identifier: Apache-2.0
#include "tools/cli/login.h"

#include <thread>

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "common/crypto/crypto.h"
#include "common/text/base64url.h"
#include "tests/testing/status_matchers.h"
#include "tools/cli/cli_testing.h"

namespace sallyport::cli {
namespace {

using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kRedeem[] = "/api/sallyport.authn.v1.Authn/RedeemAdminToken";
constexpr char kToken[] = "/oauth/token";

// Plays the person at the browser: answers the redirect address with what `answer` makes of the authorization request.
class LoginTest : public CliTest {
 protected:
  using Query = std::map<std::string, std::string>;
  ~LoginTest() override {
    if (person_.joinable()) person_.join();
  }

  void Browse(std::function<FormFields(const Query&)> answer) {
    browser_ = [this, answer](const std::string& url) {
      const auto parsed = Url::Parse(url);
      query_ = *FormDecodeUnique(parsed->query());
      person_ = std::thread([this, answer] {
        HttpClient::Options options;
        options.policy = EgressPolicy({*Network::Parse("127.0.0.0/8")}, EgressPolicy::PlainHttp::kLoopback);
        const auto http = HttpClient::Create(std::move(options));
        const auto favicon = (*http)->Fetch({.url = Url::Parse(query_["redirect_uri"])->origin() + "/favicon.ico"});
        EXPECT_EQ(favicon->status, 404);
        const auto page = (*http)->Fetch({.url = AppendQuery(query_["redirect_uri"], answer(query_))});
        EXPECT_THAT(page->body, HasSubstr("You can close this window"));
      });
      return true;
    };
  }
  FormFields Code(const Query& query) const {
    return {{"code", "the-code"}, {"state", query.at("state")}, {"iss", gateway_.origin()}};
  }

  Query query_;
  std::thread person_;
};

TEST_F(LoginTest, TheAdminTokenIsTradedAndTheTokenSavedForItsOwnerOnly) {
  Reply(kRedeem, R"({"accessToken":"api-token","expiresAt":"2030-01-01T00:00:00Z"})");

  EXPECT_EQ(Run({"login", "--admin-token-file", WriteHome("admin-token", "spa_once\n")}), kDone);

  EXPECT_THAT(requests_[0].body, HasSubstr("spa_once"));
  EXPECT_EQ(requests_[0].headers.count("authorization"), 0U);
  ASSERT_OK_AND_ASSIGN(const Credentials saved, LoadCredentials(CredentialsFile()));
  EXPECT_EQ(saved.url, gateway_.origin());
  EXPECT_EQ(saved.logins.at(gateway_.origin()).access_token.Expose(), "api-token");
  struct stat info = {};
  ASSERT_EQ(stat(CredentialsFile().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  EXPECT_THAT(out_.str() + err_.str(), Not(HasSubstr("spa_once")));
  EXPECT_THAT(out_.str() + err_.str(), Not(HasSubstr("api-token")));
}

TEST_F(LoginTest, AMissingAdminTokenFileIsExplained) {
  EXPECT_EQ(Run({"login", "--admin-token-file", home_ + "/none"}), kFailed);

  EXPECT_THAT(err_.str(), HasSubstr("removes it when it has been redeemed"));
}

TEST_F(LoginTest, AServiceAccountsTokenIsTradedAndSaved) {
  Reply("/api/sallyport.authn.v1.Authn/RedeemServiceAccountToken",
        R"({"accessToken":"api-token","expiresAt":"2030-01-01T00:00:00Z"})");

  EXPECT_EQ(Run({"login", "--service-account-token-file", WriteHome("token", "account-token\n")}), kDone) << err_.str();

  EXPECT_THAT(requests_[0].body, HasSubstr("account-token"));
  EXPECT_EQ(requests_[0].headers.count("authorization"), 0U);
  ASSERT_OK_AND_ASSIGN(const Credentials saved, LoadCredentials(CredentialsFile()));
  EXPECT_EQ(saved.logins.at(gateway_.origin()).access_token.Expose(), "api-token");
  EXPECT_THAT(out_.str(), HasSubstr("as a service account, until 2030-01-01T00:00:00Z"));
  EXPECT_THAT(out_.str() + err_.str(), Not(HasSubstr("account-token")));
  EXPECT_THAT(out_.str() + err_.str(), Not(HasSubstr("api-token")));
}

TEST_F(LoginTest, ARefusedServiceAccountIsNotSignedIn) {
  Reply("/api/sallyport.authn.v1.Authn/RedeemServiceAccountToken",
        R"({"error":"service_account_refused","message":"the service-account token was not accepted"})", 401);

  EXPECT_EQ(Run({"login", "--service-account-token-file", WriteHome("token", "account-token")}), kFailed);

  EXPECT_THAT(err_.str(), HasSubstr("was not accepted"));
  EXPECT_FALSE(ReadFile(CredentialsFile()).ok());
}

TEST_F(LoginTest, TwoTokensAreOneTooMany) {
  EXPECT_EQ(Run({"login", "--service-account-token-file", "a", "--admin-token-file", "b"}), kBadUsage);
  EXPECT_THAT(err_.str(), HasSubstr("exclude each other"));
  EXPECT_TRUE(requests_.empty());
}

TEST_F(LoginTest, TheBrowserLoginUsesPkceAndTheApiResource) {
  Browse([this](const Query& query) { return Code(query); });
  Reply(kToken, R"({"access_token":"at","refresh_token":"rt","expires_in":3600,"token_type":"Bearer"})");

  EXPECT_EQ(Run({"login"}), kDone);

  EXPECT_EQ(query_["client_id"], "sallyport-cli");
  EXPECT_EQ(query_["resource"], gateway_.origin() + "/api");
  EXPECT_EQ(query_["code_challenge_method"], "S256");
  ASSERT_EQ(requests_.size(), 1U);
  ASSERT_OK_AND_ASSIGN(auto form, FormDecodeUnique(requests_[0].body));
  EXPECT_EQ(form["code"], "the-code");
  EXPECT_EQ(form["redirect_uri"], query_["redirect_uri"]);
  EXPECT_EQ(Base64UrlEncode(Sha256(form["code_verifier"])), query_["code_challenge"]);
  ASSERT_OK_AND_ASSIGN(const Credentials saved, LoadCredentials(CredentialsFile()));
  EXPECT_EQ(saved.logins.at(gateway_.origin()).refresh_token.Expose(), "rt");
  EXPECT_EQ(saved.logins.at(gateway_.origin()).expires_at, now_ + kHour);
}

TEST_F(LoginTest, AnAnswerWithAnotherStateIsRefused) {
  Browse([this](const Query&) { return FormFields{{"code", "c"}, {"state", "forged"}, {"iss", gateway_.origin()}}; });

  EXPECT_EQ(Run({"login"}), kFailed);

  EXPECT_THAT(err_.str(), HasSubstr("another sign-in"));
  EXPECT_TRUE(requests_.empty());
}

TEST_F(LoginTest, AnAnswerOfAnotherIssuerIsRefused) {
  Browse([](const Query& query) {
    return FormFields{{"code", "c"}, {"state", query.at("state")}, {"iss", "https://evil.example"}};
  });

  EXPECT_EQ(Run({"login"}), kFailed);

  EXPECT_TRUE(requests_.empty());
}

TEST_F(LoginTest, ARefusalIsShown) {
  Browse([this](const Query& query) {
    return FormFields{{"error", "access_denied"}, {"state", query.at("state")}, {"iss", gateway_.origin()}};
  });

  EXPECT_EQ(Run({"login"}), kFailed);

  EXPECT_THAT(err_.str(), HasSubstr("access_denied"));
}

TEST_F(LoginTest, ATokenAboutToEndIsRenewedAndTheNewPairSaved) {
  SignIn(absl::Seconds(10), "rt-1");
  Reply(kToken, R"({"access_token":"at-2","refresh_token":"rt-2","expires_in":3600})");
  Reply("/api/sallyport.authn.v1.Authn/WhoAmI", R"({"subject":"local:ada"})");

  EXPECT_EQ(Run({"whoami"}), kDone);

  ASSERT_EQ(requests_.size(), 2U);
  EXPECT_THAT(requests_[0].body, HasSubstr("refresh_token=rt-1"));
  EXPECT_EQ(requests_[1].headers["authorization"], "Bearer at-2");
  ASSERT_OK_AND_ASSIGN(const Credentials saved, LoadCredentials(CredentialsFile()));
  EXPECT_EQ(saved.logins.at(gateway_.origin()).refresh_token.Expose(), "rt-2");
}

TEST_F(LoginTest, AnEndedGrantSaysSignInAgain) {
  SignIn(absl::ZeroDuration(), "rt-1");
  Reply(kToken, R"({"error":"invalid_grant","error_description":"used"})", 400);

  EXPECT_EQ(Run({"whoami"}), kFailed);

  EXPECT_THAT(err_.str(), HasSubstr("has ended: run `sallyport login`"));
}

TEST_F(LoginTest, LogoutRevokesAndForgets) {
  SignIn(kHour, "rt-1");
  Reply("/oauth/revoke", "");

  EXPECT_EQ(Run({"logout"}), kDone);

  EXPECT_THAT(requests_[0].body, HasSubstr("token=rt-1"));
  ASSERT_OK_AND_ASSIGN(const Credentials saved, LoadCredentials(CredentialsFile()));
  EXPECT_TRUE(saved.logins.empty());
}

TEST_F(LoginTest, CredentialsOthersCanReadAreRefused) {
  SignIn();
  ASSERT_EQ(chmod(CredentialsFile().c_str(), 0644), 0);

  EXPECT_THAT(LoadCredentials(CredentialsFile()), StatusIs(absl::StatusCode::kFailedPrecondition));
}

TEST_F(LoginTest, CredentialsThatDoNotParseAreNotOverwritten) {
  SignIn();
  ASSERT_TRUE(WriteFileAtomic(CredentialsFile(), "{").ok());

  EXPECT_EQ(Run({"logout"}), kFailed);

  EXPECT_THAT(err_.str(), HasSubstr("does not parse"));
}

TEST_F(LoginTest, NoHomeIsSaidSo) {
  environment_.erase("HOME");

  EXPECT_EQ(Run({"whoami"}), kFailed);

  EXPECT_THAT(err_.str(), HasSubstr("XDG_CONFIG_HOME"));
}

}  // namespace
}  // namespace sallyport::cli

// SPDX-License-Identifier: Apache-2.0
// What a provider says of an account, and what it might say instead.
#include "services/token_broker/account_identity.h"

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/http/url.h"
#include "common/text/base64url.h"
#include "services/token_broker/testing/http_provider.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::token_broker {
namespace {

using testing::HttpProvider;
using ::testing::SizeIs;
using Account = v1::TokenSet::Account;
using registry::v1::App;

class AccountIdentityTest : public ::testing::Test {
 protected:
  AccountIdentityTest()
      : provider_([this](const HttpProvider::Request& request) {
          MutexLock lock(mu_);
          requests_.push_back(request);
          return answer_;
        }) {
    HttpClient::Options options;
    options.policy = EgressPolicy(PrivateNetworks(/*with_loopback=*/true), EgressPolicy::PlainHttp::kLoopback);
    absl::StatusOr<std::unique_ptr<HttpClient>> http = HttpClient::Create(std::move(options));
    EXPECT_TRUE(http.ok()) << http.status();
    http_ = *std::move(http);
    client_.token_url = provider_.Url("/token");
    client_.client_id = "client";
    tokens_.access_token = Secret(std::string("at-canary"));
    app_.set_slug("github");
  }

  void Say(int status, const std::string& body, const std::string& headers = "") {
    MutexLock lock(mu_);
    answer_ = {status, body, "application/json", headers};
  }
  void SayInIdToken(const std::string& claims) {
    tokens_.id_token =
        Secret(absl::StrCat(Base64UrlEncode(R"({"alg":"RS256"})"), ".", Base64UrlEncode(claims), ".sig"));
  }
  App::AccountIdentity& AskUserinfo() {
    auto& identity = *app_.mutable_account_identity();
    identity.set_userinfo_url(provider_.Url("/user"));
    return identity;
  }
  Account Learn() { return AccountIdentity(*http_).Learn(app_, client_, tokens_, binding_); }

  Mutex mu_;
  HttpProvider::Response answer_ ABSL_GUARDED_BY(mu_);
  std::vector<HttpProvider::Request> requests_ ABSL_GUARDED_BY(mu_);
  HttpProvider provider_;
  std::unique_ptr<HttpClient> http_;
  App app_;
  Provider client_;
  TokenAnswer tokens_;
  SecretReader::Binding binding_;
};

TEST_F(AccountIdentityTest, UserinfoIsAskedOnceWithTheNewToken) {
  auto& identity = AskUserinfo();
  identity.set_id_member("id");
  identity.set_name_member("login");
  Say(200, R"({"login":"octocat","id":583231,"email":"octo@example.com"})");

  const Account account = Learn();

  EXPECT_EQ(account.id(), "583231");
  EXPECT_EQ(account.name(), "octocat");
  EXPECT_EQ(account.email(), "") << "nobody says that it is verified";
  MutexLock lock(mu_);
  ASSERT_THAT(requests_, SizeIs(1));
  EXPECT_EQ(requests_[0].path, "/user");
  EXPECT_EQ(requests_[0].authorization, "Bearer at-canary");
}

TEST_F(AccountIdentityTest, MembersMayLieWithinObjects) {
  auto& identity = AskUserinfo();
  identity.set_id_member("data.user.gid");
  identity.set_name_member("data.user.name");
  identity.set_email_member("data.user.mail");
  identity.set_email_verified_member("data.user.checked");
  Say(200, R"({"data":{"user":{"gid":"g-1","name":"Ada","mail":"ada@example.com","checked":true}}})");
  EXPECT_EQ(Learn().id(), "g-1");
  EXPECT_EQ(Learn().email(), "ada@example.com");
  Say(200, R"({"data":{"user":[{"gid":"g-1"}]}})");
  EXPECT_EQ(Learn().id(), "");
  Say(200, R"({"data":{"user":{"gid":"g-1","mail":"ada@example.com","checked":"true"}}})");
  EXPECT_EQ(Learn().email(), "") << "a word is no yes";
}

TEST_F(AccountIdentityTest, NumbersAreIdsOnlyWhereTheyAreExact) {
  AskUserinfo().set_id_member("id");
  for (const auto& [number, id] : {std::pair("18446744073709551615", "18446744073709551615"),
                                   {"-5", "-5"},
                                   {"18446744073709551616", ""},
                                   {"1.0", ""},
                                   {"1e3", ""},
                                   {"true", ""},
                                   {"null", ""},
                                   {"[1]", ""},
                                   {"{}", ""},
                                   {"\"\"", ""}}) {
    Say(200, absl::StrCat(R"({"id":)", number, "}"));
    EXPECT_EQ(Learn().id(), id) << number;
  }
}

TEST_F(AccountIdentityTest, OddAnswersLeaveTheAccountUnknown) {
  AskUserinfo();
  const std::string deep = absl::StrCat(R"({"sub":"1","x":)", std::string(5000, '['), std::string(5000, ']'), "}");
  for (const std::string& body :
       {std::string(), std::string("<html>"), std::string("[]"), std::string("{}"), std::string(R"({"sub":""})"),
        std::string(R"({"sub":"1","sub":"2"})"), std::string("{\"sub\":\"\xff\"}"), deep,
        absl::StrCat(R"({"sub":")", std::string(257, 'x'), "\"}"),
        absl::StrCat(R"({"sub":"1","x":")", std::string(1 << 20, 'x'), "\"}")}) {
    Say(200, body);
    EXPECT_EQ(Learn().id(), "") << body.substr(0, 60);
  }
  for (const int status : {204, 302, 401, 403, 404, 500}) {
    Say(status, R"({"sub":"1"})", status == 302 ? absl::StrCat("Location: ", provider_.Url("/elsewhere"), "\r\n") : "");
    EXPECT_EQ(Learn().id(), "") << status;
  }
  MutexLock lock(mu_);
  for (const auto& request : requests_) EXPECT_EQ(request.path, "/user") << "no redirect is followed";
}

TEST_F(AccountIdentityTest, NamesOfStrangersAreShownAsOnePlainLine) {
  AskUserinfo();
  Say(200, absl::StrCat("{\"sub\":\"1\",\"preferred_username\":\"a\\n\\u202eb", std::string(500, 'x'), "\"}"));
  const Account account = Learn();
  EXPECT_LE(account.name().size(), 128U);
  EXPECT_EQ(account.name().find('\n'), std::string::npos);
  EXPECT_EQ(account.name().find("\xe2\x80\xae"), std::string::npos);
}

TEST_F(AccountIdentityTest, TokenIsNotSentWhereTheBindingDoesNotAllowIt) {
  const HttpProvider elsewhere([](const HttpProvider::Request&) {
    return HttpProvider::Response{200, R"({"sub":"1"})"};
  });
  app_.mutable_account_identity()->set_userinfo_url(elsewhere.Url("/user"));
  EXPECT_EQ(Learn().id(), "");
  binding_.origins = {Url::Parse(elsewhere.Url("/"))->origin()};
  EXPECT_EQ(Learn().id(), "1");
  app_.mutable_account_identity()->set_userinfo_url("not a url");
  EXPECT_EQ(Learn().id(), "");
}

TEST_F(AccountIdentityTest, ProviderThatIsAwayLeavesTheAccountUnknown) {
  app_.mutable_account_identity()->set_userinfo_url(HttpProvider::UrlOfNobody("/user"));
  binding_.pending = true;
  EXPECT_EQ(Learn().id(), "");
}

TEST_F(AccountIdentityTest, IdTokenSaysItWhereNothingIsConfigured) {
  SayInIdToken(
      R"({"iss":"https://idp","aud":["x","client"],"sub":"u1","preferred_username":"ada","email":"a@b.c","email_verified":true})");
  const Account account = Learn();
  EXPECT_EQ(account.id(), "u1");
  EXPECT_EQ(account.name(), "ada");
  EXPECT_EQ(account.email(), "a@b.c");
  tokens_.id_token = Secret();
  EXPECT_EQ(Learn().id(), "");
}

TEST_F(AccountIdentityTest, IdTokenOfAnotherIssuerOrClientSaysNothing) {
  client_.issuer = "https://idp";
  SayInIdToken(R"({"iss":"https://idp","aud":"client","sub":"u1"})");
  EXPECT_EQ(Learn().id(), "u1");
  for (const char* claims : {R"({"iss":"https://evil","aud":"client","sub":"u1"})", R"({"aud":"client","sub":"u1"})",
                             R"({"iss":"https://idp","aud":"other","sub":"u1"})", R"({"iss":"https://idp","sub":"u1"})",
                             R"({"iss":"https://idp","aud":[1],"sub":"u1"})", "[]", "x"}) {
    SayInIdToken(claims);
    EXPECT_EQ(Learn().id(), "") << claims;
  }
  for (const char* token : {"a.b", "a.b.c.d", "a.!.c", ""}) {
    tokens_.id_token = Secret(std::string(token));
    EXPECT_EQ(Learn().id(), "") << token;
  }
}

TEST_F(AccountIdentityTest, UserinfoAboutAnotherThanTheIdTokenIsNotBelieved) {
  auto& identity = AskUserinfo();
  SayInIdToken(R"({"aud":"client","sub":"u1"})");
  Say(200, R"({"sub":"u2","preferred_username":"victim"})");
  EXPECT_EQ(Learn().ByteSizeLong(), 0U);
  Say(200, R"({"sub":"u1","preferred_username":"ada"})");
  EXPECT_EQ(Learn().id(), "u1");
  identity.set_id_member("id");
  Say(200, R"({"id":7,"preferred_username":"ada"})");
  EXPECT_EQ(Learn().id(), "7") << "ids of another kind are not compared";
}

}  // namespace
}  // namespace sallyport::token_broker

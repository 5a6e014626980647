// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/token_response.h"

#include <gtest/gtest.h>

namespace sallyport::token_broker {
namespace {

TokenResult Parse(int status, const std::string& body, GrantKind kind = GrantKind::kRefresh) {
  return ParseTokenResponse(kind, status, "application/json", body, absl::Seconds(7));
}
ProviderError ErrorOf(const TokenResult& result) {
  const auto* error = std::get_if<ProviderError>(&result);
  return error == nullptr ? ProviderError{.code = "no error"} : *error;
}

TEST(TokenResponseTest, GoodAnswerIsRead) {
  const TokenResult result = Parse(
      200,
      R"({"access_token":"at","refresh_token":"rt","id_token":"it","expires_in":60,"scope":"a b","token_type":"Bearer"})");

  const auto* answer = std::get_if<TokenAnswer>(&result);
  ASSERT_NE(answer, nullptr);
  EXPECT_EQ(answer->access_token.Expose(), "at");
  EXPECT_EQ(answer->refresh_token.Expose(), "rt");
  EXPECT_EQ(answer->id_token.Expose(), "it");
  EXPECT_EQ(answer->expires_in, absl::Seconds(60));
  EXPECT_EQ(answer->scopes, (std::vector<std::string>{"a", "b"}));
}

TEST(TokenResponseTest, FormAnswersAreRead) {
  const TokenResult result =
      ParseTokenResponse(GrantKind::kCode, 200, "application/x-www-form-urlencoded",
                         "access_token=at&scope=repo%2Cgist&token_type=bearer", absl::ZeroDuration());

  const auto* answer = std::get_if<TokenAnswer>(&result);
  ASSERT_NE(answer, nullptr);
  EXPECT_EQ(answer->scopes, (std::vector<std::string>{"repo", "gist"}));
}

TEST(TokenResponseTest, OnlyTheExactCodeEndsAGrant) {
  EXPECT_EQ(ErrorOf(Parse(400, R"({"error":"invalid_grant"})")).failure, ProviderFailure::kInvalidGrant);
  EXPECT_EQ(ErrorOf(Parse(200, R"({"error":"invalid_grant"})")).failure, ProviderFailure::kInvalidGrant);
  for (const char* body :
       {R"({"error":"Invalid_grant"})", R"({"error":"invalid_grant "})", R"({"error":"xinvalid_grant"})",
        R"({"error":"invalid_request","error_description":"invalid_grant"})", R"({"error":["invalid_grant"]})",
        R"({"error":{"code":"invalid_grant"}})", "invalid_grant", R"("invalid_grant")", "<html>invalid_grant</html>",
        ""}) {
    EXPECT_EQ(ErrorOf(Parse(400, body)).failure, ProviderFailure::kUnavailable) << body;
  }
}

TEST(TokenResponseTest, ServerErrorsAndLimitsNeverEndAGrant) {
  EXPECT_EQ(ErrorOf(Parse(500, R"({"error":"invalid_grant"})")).failure, ProviderFailure::kUnavailable);
  EXPECT_EQ(ErrorOf(Parse(503, R"({"error":"invalid_grant"})")).failure, ProviderFailure::kUnavailable);
  EXPECT_EQ(ErrorOf(Parse(429, R"({"error":"invalid_grant"})")).failure, ProviderFailure::kRateLimited);
  EXPECT_EQ(ErrorOf(Parse(403, "forbidden")).failure, ProviderFailure::kUnavailable);
  EXPECT_EQ(ErrorOf(Parse(429, "")).retry_after, absl::Seconds(7));
}

TEST(TokenResponseTest, OurOwnRegistrationIsNotTheUsersFault) {
  EXPECT_EQ(ErrorOf(Parse(401, R"({"error":"invalid_client"})")).failure, ProviderFailure::kClientRejected);
  EXPECT_EQ(ErrorOf(Parse(400, R"({"error":"unauthorized_client"})")).failure, ProviderFailure::kClientRejected);
}

TEST(TokenResponseTest, InteractionIsNotTheEndOfAGrant) {
  for (const char* code : {"interaction_required", "login_required", "consent_required"}) {
    EXPECT_EQ(ErrorOf(Parse(400, absl::StrCat("{\"error\":\"", code, "\"}"))).failure,
              ProviderFailure::kInteractionRequired);
  }
}

TEST(TokenResponseTest, ErrorsOfStatus200AreErrors) {
  EXPECT_EQ(ErrorOf(Parse(200, R"({"ok":false,"access_token":"at"})")).code, "ok_false");
  EXPECT_EQ(ErrorOf(Parse(200, R"({"error":"bad_verification_code","access_token":"at"})")).code,
            "bad_verification_code");
}

TEST(TokenResponseTest, CodesThatAreNoCodesAreNotRepeated) {
  EXPECT_EQ(ErrorOf(Parse(400, R"({"error":"<script>"})")).code, "unreadable_error");
  EXPECT_EQ(ErrorOf(Parse(400, absl::StrCat("{\"error\":\"", std::string(65, 'a'), "\"}"))).code, "unreadable_error");
}

TEST(TokenResponseTest, RefreshKeepsARotatedTokenWhateverElseIsOdd) {
  const TokenResult result =
      Parse(200, R"({"access_token":"at","refresh_token":"rt2","token_type":"mac","expires_in":-5})");

  const auto* answer = std::get_if<TokenAnswer>(&result);
  ASSERT_NE(answer, nullptr);
  EXPECT_EQ(answer->refresh_token.Expose(), "rt2");
  EXPECT_EQ(answer->expires_in, std::nullopt);
}

TEST(TokenResponseTest, LinkTakesNoOddAnswer) {
  for (const char* body : {R"({"access_token":"at","token_type":"mac"})", R"({"access_token":"at","expires_in":-1})",
                           R"({"access_token":"at","expires_in":0})", R"({"access_token":"at","expires_in":"soon"})",
                           R"({"access_token":"at","expires_in":1e12})", R"({"access_token":7})",
                           R"({"access_token":"a b"})", R"([{"access_token":"at"}])"}) {
    const TokenResult result = Parse(200, body, GrantKind::kCode);
    EXPECT_NE(std::get_if<ProviderError>(&result), nullptr) << body;
  }
}

TEST(TokenResponseTest, RefreshKeepsARotatedTokenThatComesWithoutAnAccessToken) {
  for (const std::string& access :
       {std::string(), std::string(R"("access_token":"",)"), std::string(R"("access_token":"a b",)"),
        std::string(R"("access_token":7,)"), absl::StrCat(R"("access_token":")", std::string(33 << 10, 'a'), "\",")}) {
    const TokenResult result = Parse(200, absl::StrCat("{", access, R"("refresh_token":"rt2"})"));

    const auto* answer = std::get_if<TokenAnswer>(&result);
    ASSERT_NE(answer, nullptr) << access;
    EXPECT_TRUE(answer->access_token.empty());
    EXPECT_EQ(answer->refresh_token.Expose(), "rt2");
  }
  EXPECT_EQ(ErrorOf(Parse(200, R"({"expires_in":60})")).code, "no_access_token");
  EXPECT_EQ(ErrorOf(Parse(200, R"({"refresh_token":"rt"})", GrantKind::kCode)).code, "no_access_token");
}

TEST(TokenResponseTest, RefreshThatSomeOther2xxAnswersHasHappened) {
  const std::string body = R"({"access_token":"at","refresh_token":"rt2"})";
  for (const int status : {201, 202, 299}) {
    EXPECT_TRUE(std::holds_alternative<TokenAnswer>(Parse(status, body))) << status;
  }
  EXPECT_EQ(ErrorOf(Parse(302, body)).code, "http_302");
  EXPECT_EQ(ErrorOf(Parse(204, "")).code, "malformed_answer");
  EXPECT_EQ(ErrorOf(Parse(201, body, GrantKind::kCode)).code, "http_201");
}

TEST(TokenResponseTest, LongRefreshTokenIsKeptWhereItReplacesAnother) {
  const std::string body = absl::StrCat(R"({"access_token":"at","refresh_token":")", std::string(50 << 10, 'r'), "\"}");
  const TokenResult refreshed = Parse(200, body);
  const TokenResult linked = Parse(200, body, GrantKind::kCode);

  ASSERT_NE(std::get_if<TokenAnswer>(&refreshed), nullptr);
  EXPECT_EQ(std::get<TokenAnswer>(refreshed).refresh_token.Expose().size(), 50U << 10);
  ASSERT_NE(std::get_if<TokenAnswer>(&linked), nullptr);
  EXPECT_TRUE(std::get<TokenAnswer>(linked).refresh_token.empty());
}

TEST(TokenResponseTest, RetryAfterIsSecondsOrADate) {
  const absl::Time now = absl::FromCivil(absl::CivilSecond(2026, 11, 25, 12, 0, 0), absl::UTCTimeZone());
  EXPECT_EQ(ParseRetryAfter("120", now), absl::Seconds(120));
  EXPECT_EQ(ParseRetryAfter("99999999", now), absl::Hours(24));
  EXPECT_EQ(ParseRetryAfter("Wed, 25 Nov 2026 12:01:30 GMT", now), absl::Seconds(90));
  EXPECT_EQ(ParseRetryAfter("Wed, 25 Nov 2037 12:01:30 GMT", now), absl::Hours(24));
  for (const char* value : {"", "-5", "soon", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 25 Nov 2026 12:01:30"}) {
    EXPECT_EQ(ParseRetryAfter(value, now), absl::ZeroDuration()) << value;
  }
}

}  // namespace
}  // namespace sallyport::token_broker

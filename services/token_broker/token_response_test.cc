// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/token_response.h"

#include <map>

#include "absl/strings/str_cat.h"
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
  EXPECT_EQ(ErrorOf(Parse(429, "")).retry_after, absl::Seconds(7));
}

TEST(TokenResponseTest, OnlyInvalidClientIsTheWholeAppsMatter) {
  for (const int status : {400, 401, 403, 200}) {
    EXPECT_EQ(ErrorOf(Parse(status, R"({"error":"invalid_client"})")).failure, ProviderFailure::kClientRejected);
  }
  for (const GrantKind kind : {GrantKind::kRefresh, GrantKind::kCode}) {
    EXPECT_NE(ErrorOf(Parse(400, R"({"error":"unauthorized_client"})", kind)).failure,
              ProviderFailure::kClientRejected);
    EXPECT_NE(ErrorOf(Parse(403, R"({"error":"nope"})", kind)).failure, ProviderFailure::kClientRejected);
  }
}

TEST(TokenResponseTest, RefusalThatDoesNotSayWhatIsWrongIsOfOneGrantOnly) {
  for (const auto& [status, body] : std::multimap<int, std::string>{{400, R"({"error":"unauthorized_client"})"},
                                                                    {401, R"({"error":"unauthorized_client"})"},
                                                                    {403, R"({"error":"forbidden"})"},
                                                                    {403, ""},
                                                                    {403, "{}"},
                                                                    {200, R"({"error":"nope"})"},
                                                                    {200, R"({"ok":false})"}}) {
    const ProviderError error = ErrorOf(Parse(status, body));
    EXPECT_EQ(error.failure, ProviderFailure::kGrantDoubted) << body;
    EXPECT_FALSE(error.blames_refresh_token) << body;
    EXPECT_EQ(ErrorOf(Parse(status, body, GrantKind::kCode)).failure, ProviderFailure::kUnavailable) << body;
  }
  // Of the client, of the provider, or of what stands before it: never a reason to doubt a grant.
  for (const auto& [status, body] : std::multimap<int, std::string>{
           {200, R"({"error":"incorrect_client_credentials"})"},
           {200, R"({"ok":false,"error":"bad_client_secret"})"},
           {200, R"({"error":"temporarily_unavailable"})"},
           {403, R"({"error":"internal_error"})"},
           {403, "<html>blocked</html>"},
           {200, "<html>maintenance</html>"},
           {400, R"({"error":"invalid_request","error_description":"refresh token expired"})"},
           {401, "unauthorized"}}) {
    EXPECT_EQ(ErrorOf(Parse(status, body)).failure, ProviderFailure::kUnavailable) << body;
  }
  EXPECT_EQ(ErrorOf(Parse(200, R"({"ok":false,"error":"ratelimited"})")).failure, ProviderFailure::kRateLimited);
}

TEST(TokenResponseTest, DescriptionMayBlameTheRefreshTokenAndIsNotRepeated) {
  const ProviderError error =
      ErrorOf(Parse(403, R"({"error":"unauthorized_client","error_description":"refresh_token is invalid"})"));

  EXPECT_TRUE(error.blames_refresh_token);
  EXPECT_EQ(error.code, "unauthorized_client");
  EXPECT_TRUE(ErrorOf(Parse(200, R"({"error":"bad_refresh_token"})")).blames_refresh_token);
  EXPECT_TRUE(ErrorOf(Parse(200, R"({"ok":false,"error":"invalid_refresh_token"})")).blames_refresh_token);
  EXPECT_TRUE(ErrorOf(Parse(400, R"({"error":"invalid_refresh_token"})")).blames_refresh_token);
  EXPECT_FALSE(ErrorOf(Parse(500, R"({"error":"invalid_refresh_token"})")).blames_refresh_token);
}

TEST(TokenResponseTest, GrantTypeThatAClientMayNotUseIsNotTheRefreshTokensFault) {
  for (const char* text :
       {"The refresh token is expired", "Unknown refresh token", "refresh_token has been used",
        "Refresh-Token revoked by user", "refreshToken not found", "the refresh token was issued to another client"}) {
    EXPECT_TRUE(BlamesRefreshToken(text)) << text;
  }
  for (const char* text : {"The client is not authorized to use the grant type refresh_token", "refresh_token",
                           "invalid grant_type: refresh_token", "Invalid client for this refresh token",
                           "the token has expired", "", "Client may not use refresh tokens: invalid configuration"}) {
    EXPECT_FALSE(BlamesRefreshToken(text)) << text;
  }
}

// Slack names the kind of account a token belongs to, and tells no lifetime.
TEST(TokenResponseTest, TokensOfUsersAndBotsAreBearers) {
  for (const std::string type : {"user", "bot", "User", "Bearer", "bearer", ""}) {
    for (const GrantKind kind : {GrantKind::kCode, GrantKind::kRefresh}) {
      const std::string body = absl::StrCat(R"({"ok":true,"access_token":"xoxe.1","token_type":")", type, R"("})");
      const TokenResult result = Parse(200, body, kind);
      const auto* answer = std::get_if<TokenAnswer>(&result);
      ASSERT_NE(answer, nullptr) << type;
      EXPECT_EQ(answer->access_token.Expose(), "xoxe.1");
      EXPECT_EQ(answer->expires_in, std::nullopt);
    }
  }
  for (const std::string type : {"DPoP", "dpop", "mac", "pop"}) {
    const std::string body = absl::StrCat(R"({"access_token":"at","token_type":")", type, R"("})");
    EXPECT_EQ(ErrorOf(Parse(200, body, GrantKind::kCode)).code, "unsupported_token_type") << type;
    EXPECT_EQ(ErrorOf(Parse(200, body)).code, "unsupported_token_type") << type;
  }
  EXPECT_EQ(ErrorOf(Parse(200, R"({"access_token":"at","token_type":"x"})", GrantKind::kCode)).code,
            "unsupported_token_type");
}

TEST(TokenResponseTest, LifetimeIsReadAsItComesAndFailsNothing) {
  const auto lifetime = [](const std::string& value, GrantKind kind) {
    const TokenResult result = Parse(200, absl::StrCat(R"({"access_token":"at","expires_in":)", value, "}"), kind);
    const auto* answer = std::get_if<TokenAnswer>(&result);
    EXPECT_NE(answer, nullptr) << value;
    return answer == nullptr ? std::nullopt : answer->expires_in;
  };
  for (const GrantKind kind : {GrantKind::kCode, GrantKind::kRefresh}) {
    for (const char* value : {"3600", R"("3600")", "3600.9", R"("3600.0")", "3.6e3"}) {
      EXPECT_EQ(lifetime(value, kind), absl::Seconds(3600)) << value;
    }
    for (const char* value : {"0", "-1", R"("")", R"("0")", R"("soon")", R"("1h")", "null", "true", "[]", "{}", "1e12",
                              R"("inf")", R"("nan")", "0.5", "31708801", "99999999999999999999"}) {
      EXPECT_EQ(lifetime(value, kind), std::nullopt) << value;
    }
  }
}

TEST(TokenResponseTest, InteractionIsNotTheEndOfAGrant) {
  for (const char* code : {"interaction_required", "login_required", "consent_required"}) {
    EXPECT_EQ(ErrorOf(Parse(400, absl::StrCat("{\"error\":\"", code, "\"}"))).failure,
              ProviderFailure::kInteractionRequired);
  }
}

TEST(TokenResponseTest, EntraSaysInvalidGrantOfWhatConsentWouldMend) {
  for (const char* body :
       {R"({"error":"invalid_grant","suberror":"consent_required"})",
        R"({"error":"invalid_grant","suberror":"basic_action"})",
        R"({"error":"invalid_grant","error_description":"AADSTS65001: The user has not consented"})"}) {
    EXPECT_EQ(ErrorOf(Parse(400, body, GrantKind::kCode)).failure, ProviderFailure::kInteractionRequired) << body;
    EXPECT_EQ(ErrorOf(Parse(400, body)).failure, ProviderFailure::kInvalidGrant) << "of a refresh: " << body;
  }
  for (const char* body : {R"({"error":"invalid_grant","suberror":"bad_token"})",
                           R"({"error":"invalid_scope","suberror":"consent_required"})",
                           R"({"error":"invalid_grant","error_description":"see AADSTS65001"})"}) {
    EXPECT_NE(ErrorOf(Parse(400, body, GrantKind::kCode)).failure, ProviderFailure::kInteractionRequired) << body;
  }
}

TEST(TokenResponseTest, ClaimsThatAProviderWantsAreTakenWithinBounds) {
  const auto claims = [](const std::string& value, const char* error = "interaction_required") {
    return ErrorOf(Parse(400, absl::StrCat(R"({"error":")", error, R"(","claims":)", value, "}"), GrantKind::kCode))
        .claims;
  };
  EXPECT_EQ(claims(R"("{\"a\":1}")"), R"({"a":1})");
  EXPECT_EQ(claims(R"("{\"a\":1}")", "invalid_scope"), "");
  EXPECT_EQ(claims(R"("x")"), "");
  EXPECT_EQ(claims("7"), "");
  EXPECT_EQ(claims(absl::StrCat(R"("{\"a\":\")", std::string(100'000, 'x'), R"(\"}")")), "");
  EXPECT_EQ(claims(absl::StrCat(R"("{\"a\":\")", std::string(1 << 20, 'x'), R"(\"}")")), "");
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
  EXPECT_TRUE(answer->access_token.empty()) << "no bearer";
  EXPECT_EQ(answer->expires_in, std::nullopt);
}

TEST(TokenResponseTest, LinkTakesNoOddAnswer) {
  for (const char* body : {R"({"access_token":"at","token_type":"mac"})", R"({"access_token":7})",
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
  EXPECT_EQ(ErrorOf(Parse(200, R"({"expires_in":60})")).failure, ProviderFailure::kNoAccessToken);
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

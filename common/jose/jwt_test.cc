// SPDX-License-Identifier: Apache-2.0
#include "common/jose/jwt.h"

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/error.h"
#include "common/text/base64url.h"
#include "common/text/json.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using testing::IsOk;
using testing::StatusIs;

constexpr auto kUnauthenticated = absl::StatusCode::kUnauthenticated;
constexpr int64_t kNowSeconds = 1'800'000'000;
const absl::Time kNow = absl::FromUnixSeconds(kNowSeconds);
constexpr char kIssuer[] = "https://issuer.example";
constexpr char kAudience[] = "https://gw.example/mcp/a";

JwtValidator::Builder Strict() {
  return JwtValidator::Builder().ExpectIssuer(kIssuer).ExpectAudience(kAudience).ExpectType("at+jwt").RequireSubject();
}

class JwtTest : public ::testing::Test {
 protected:
  // The claims of a good token, with `patch` merged over them (null removes).
  absl::StatusOr<Jwt> Verify(const std::string& patch, const std::string& typ = "at+jwt", absl::Time now = kNow) {
    nlohmann::json claims = {{"iss", kIssuer},
                             {"aud", kAudience},
                             {"sub", "okta:u1"},
                             {"iat", kNowSeconds - 5},
                             {"exp", kNowSeconds + 3600}};
    claims.merge_patch(*ParseJson(patch));
    return VerifyText(DumpJson(claims), typ, now);
  }
  absl::StatusOr<Jwt> VerifyText(const std::string& payload, const std::string& typ = "at+jwt", absl::Time now = kNow) {
    return VerifyJwt(*SignJws(payload, typ, key_), keys_, validator_, now);
  }

  PrivateKey key_ = *PrivateKey::GenerateP256();
  JwkSet keys_{{key_.public_key()}};
  JwtValidator validator_ = *Strict().Build();
};

TEST_F(JwtTest, AcceptsAGoodToken) {
  ASSERT_OK_AND_ASSIGN(Jwt jwt, Verify("{}"));
  EXPECT_EQ(jwt.subject(), "okta:u1");
  EXPECT_EQ(jwt.expires_at(), absl::FromUnixSeconds(kNowSeconds + 3600));
  EXPECT_EQ(jwt.audiences(), std::vector<std::string>{kAudience});
}

TEST_F(JwtTest, TypeIsComparedWithoutCaseAndPrefix) {  // J10
  EXPECT_THAT(Verify("{}", "application/at+JWT"), IsOk());
  for (const char* typ : {"JWT", "id+jwt", "logout+jwt", "dpop+jwt", "at+jwt ", "xat+jwt"}) {
    SCOPED_TRACE(typ);
    auto result = Verify("{}", typ);
    EXPECT_THAT(result, StatusIs(kUnauthenticated));
    EXPECT_EQ(ReasonOf(result.status()), "wrong_type");
  }
}

TEST_F(JwtTest, MissingTypeIsRefusedUnlessExpected) {  // J10
  const std::string input = absl::StrCat(Base64UrlEncode(R"({"alg":"ES256"})"), ".",
                                         Base64UrlEncode(absl::StrCat(R"({"sub":"x","exp":)", kNowSeconds + 1, "}")));
  const std::string token = absl::StrCat(input, ".", Base64UrlEncode(*key_.Sign(input)));
  EXPECT_THAT(VerifyJwt(token, keys_, validator_, kNow), StatusIs(kUnauthenticated));
  auto lenient =
      JwtValidator::Builder().IgnoreIssuer().IgnoreAudience().ExpectType("").ExpectType("JWT").RequireSubject().Build();
  EXPECT_THAT(VerifyJwt(token, keys_, *lenient, kNow), IsOk());
}

TEST_F(JwtTest, IssuerIsComparedByteForByte) {  // J12
  for (const char* patch : {R"({"iss":"https://issuer.example/"})", R"({"iss":"https://ISSUER.example"})",
                            R"({"iss":"https://issuer.example.evil.example"})", R"({"iss":null})", R"({"iss":7})",
                            R"({"iss":["https://issuer.example"]})", R"({"iss":""})"}) {
    SCOPED_TRACE(patch);
    auto result = Verify(patch);
    EXPECT_EQ(ReasonOf(result.status()), "wrong_issuer");
  }
}

TEST_F(JwtTest, AudienceMustHoldOursExactly) {  // J13
  EXPECT_THAT(Verify(R"({"aud":["other","https://gw.example/mcp/a"]})"), IsOk());
  for (const char* patch : {R"({"aud":["other"]})", R"({"aud":[]})", R"({"aud":7})", R"({"aud":null})",
                            R"({"aud":"https://gw.example/mcp/ab"})", R"({"aud":"https://gw.example/mcp"})",
                            R"({"aud":"https://gw.example/mcp/a/"})", R"({"aud":["https://gw.example/mcp/a",7]})",
                            R"({"aud":{"0":"https://gw.example/mcp/a"}})"}) {
    SCOPED_TRACE(patch);
    auto result = Verify(patch);
    EXPECT_EQ(ReasonOf(result.status()), "wrong_audience");
  }
}

TEST_F(JwtTest, TimesMustBeWholeSecondsInRange) {  // J14
  for (const char* patch : {R"({"exp":null})", R"({"exp":-1})", R"({"exp":1800003600.5})", R"({"exp":1e30})",
                            R"({"exp":"1800003600"})", R"({"exp":18446744073709551615})", R"({"exp":999999999999999})",
                            R"({"nbf":"now"})", R"({"iat":1.5})", R"({"iat":true})"}) {
    SCOPED_TRACE(patch);
    auto result = Verify(patch);
    EXPECT_EQ(ReasonOf(result.status()), "bad_time");
  }
}

TEST_F(JwtTest, LeewayIsThirtySecondsAtEveryEdge) {  // J14
  const std::string exp_patch = absl::StrCat(R"({"exp":)", kNowSeconds, "}");
  EXPECT_THAT(Verify(exp_patch, "at+jwt", kNow + absl::Seconds(29)), IsOk());
  EXPECT_EQ(ReasonOf(Verify(exp_patch, "at+jwt", kNow + absl::Seconds(30)).status()), "expired");
  EXPECT_THAT(Verify(absl::StrCat(R"({"nbf":)", kNowSeconds + 30, "}")), IsOk());
  EXPECT_EQ(ReasonOf(Verify(absl::StrCat(R"({"nbf":)", kNowSeconds + 31, "}")).status()), "not_yet_valid");
  EXPECT_EQ(ReasonOf(Verify(absl::StrCat(R"({"iat":)", kNowSeconds + 3600, "}")).status()), "not_yet_valid");
}

TEST_F(JwtTest, SubjectMustBeANonEmptyString) {  // J15
  for (const char* patch : {R"({"sub":null})", R"({"sub":""})", R"({"sub":["a"]})", R"({"sub":7})"}) {
    SCOPED_TRACE(patch);
    EXPECT_EQ(ReasonOf(Verify(patch).status()), "bad_subject");
  }
}

TEST_F(JwtTest, RefusesPayloadsThatCouldBeReadTwoWays) {  // J15
  const std::string nested = absl::StrCat(R"({"a":)", std::string(1000, '['), std::string(1000, ']'), "}");
  for (const std::string& payload :
       {std::string(R"({"sub":"a","sub":"b"})"), nested, std::string("[]"), std::string("7"), std::string("{} {}"),
        std::string("{\"sub\":\"\xff\"}"), std::string(R"({"sub":"a"})") + std::string(1, '\0')}) {
    EXPECT_THAT(VerifyText(payload), StatusIs(kUnauthenticated));
  }
}

TEST_F(JwtTest, KeyOfAnotherIssuerIsNotFound) {
  ASSERT_OK_AND_ASSIGN(PrivateKey other, PrivateKey::GenerateP256());
  auto token = SignJwt({{"sub", "x"}}, "at+jwt", other);
  EXPECT_THAT(VerifyJwt(*token, keys_, validator_, kNow), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(JwtTest, AlgorithmOutsideTheListIsRefused) {
  auto validator = Strict().AllowAlgorithm(JwsAlgorithm::kRs256).Build();
  auto token = SignJwt({{"sub", "x"}}, "at+jwt", key_);
  EXPECT_EQ(ReasonOf(VerifyJwt(*token, keys_, *validator, kNow).status()), "algorithm");
}

TEST_F(JwtTest, PeekReadsWithoutTrusting) {
  auto token = SignJwt({{"iss", "https://gw.example"}}, "at+jwt", key_);
  ASSERT_TRUE(PeekJwt(*token));
  EXPECT_EQ(PeekJwt(*token)->issuer, "https://gw.example");
  EXPECT_FALSE(PeekJwt("opaque-token"));
  EXPECT_FALSE(PeekJwt(""));
}

TEST(JwtValidatorTest, RefusesToBeSilentAboutACheck) {
  constexpr auto kFailed = absl::StatusCode::kFailedPrecondition;
  using Builder = JwtValidator::Builder;
  EXPECT_THAT(Builder().IgnoreAudience().IgnoreType().IgnoreSubject().Build(), StatusIs(kFailed, "issuer"));
  EXPECT_THAT(Builder().IgnoreIssuer().IgnoreType().IgnoreSubject().Build(), StatusIs(kFailed, "audience"));
  EXPECT_THAT(Builder().IgnoreIssuer().IgnoreAudience().IgnoreSubject().Build(), StatusIs(kFailed, "type"));
  EXPECT_THAT(Builder().IgnoreIssuer().IgnoreAudience().IgnoreType().Build(), StatusIs(kFailed, "subject"));
  EXPECT_THAT(Strict().IgnoreIssuer().Build(), StatusIs(kFailed, "issuer"));
  EXPECT_THAT(Strict().ExpectIssuer("").Build(), StatusIs(kFailed, "issuer"));
  EXPECT_THAT(Strict().ExpectAudience("").Build(), StatusIs(kFailed, "audience"));
  EXPECT_THAT(Strict().ClockSkew(absl::Minutes(11)).Build(), StatusIs(kFailed, "skew"));
}

}  // namespace
}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "common/jose/low_s.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/crypto/openssl.h"
#include "common/error.h"
#include "common/jose/jwt.h"
#include "common/text/base64url.h"
#include "common/text/json.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using testing::IsOk;
using testing::StatusIs;

constexpr char kOrder[] = "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551";
constexpr char kHalf[] = "7FFFFFFF800000007FFFFFFFFFFFFFFFDE737D56D38BCF4279DCE5617E3192A8";
constexpr char kHalfPlusOne[] = "7FFFFFFF800000007FFFFFFFFFFFFFFFDE737D56D38BCF4279DCE5617E3192A9";

std::string Raw(const std::string& s_hex) { return std::string(32, 'r') + absl::HexStringToBytes(s_hex); }

// (r, n - s), by OpenSSL's arithmetic.
std::string Twin(std::string raw) {
  BIGNUM* order = nullptr;
  BN_hex2bn(&order, kOrder);
  BignumPtr n(order);
  BignumPtr s(BN_bin2bn(Bytes8(raw) + 32, 32, nullptr));
  BN_sub(s.get(), n.get(), s.get());
  BN_bn2binpad(s.get(), reinterpret_cast<unsigned char*>(raw.data()) + 32, 32);
  return raw;
}

TEST(LowSTest, HalfOfTheOrderIsTheLastLowOne) {
  EXPECT_TRUE(HasLowS(Raw(kHalf)));
  EXPECT_FALSE(HasLowS(Raw(kHalfPlusOne)));
  EXPECT_FALSE(HasLowS(Raw(kOrder)));
  EXPECT_FALSE(HasLowS(""));
  EXPECT_FALSE(HasLowS(std::string(63, '\0')));
  EXPECT_FALSE(HasLowS(std::string(65, '\0')));
}

TEST(LowSTest, OfTwoTwinsTheLowOneIsTaken) {
  EXPECT_EQ(WithLowS(Raw(kHalfPlusOne)), Raw(kHalf));
  for (const char* s : {kHalf, "0000000000000000000000000000000000000000000000000000000000000001",
                        "00FF00FF00FF00FF00FF00FF00FF00FF00FF00FF00FF00FF00FF00FF00FF00FF"}) {
    EXPECT_EQ(WithLowS(Raw(s)), Raw(s));
    EXPECT_EQ(WithLowS(Twin(Raw(s))), Raw(s)) << s;
  }
}

TEST(LowSTest, WeSignLowAndTheTwinVerifiesOnlyWhereItMay) {
  const PrivateKey key = *PrivateKey::GenerateP256();
  const JwkSet keys({key.public_key()});
  const auto strict = JwtValidator::Builder().IgnoreIssuer().IgnoreAudience().IgnoreType().IgnoreSubject();
  auto own = strict;
  own.RequireLowS();
  const absl::Time now = absl::FromUnixSeconds(1'800'000'000);
  for (int i = 0; i < 64; ++i) {
    const std::string token = *SignJwt({{"exp", 1'800'000'600}, {"i", i}}, "at+jwt", key);
    const size_t dot = token.rfind('.') + 1;
    const std::string raw = *Base64UrlDecode(token.substr(dot));
    ASSERT_TRUE(HasLowS(raw));
    const std::string twin = token.substr(0, dot) + Base64UrlEncode(Twin(raw));
    ASSERT_THAT(VerifyJwt(token, keys, *own.Build(), now), IsOk());
    ASSERT_THAT(VerifyJwt(twin, keys, *strict.Build(), now), IsOk()) << "issuers sign as they like";
    const absl::Status refused = VerifyJwt(twin, keys, *own.Build(), now).status();
    ASSERT_THAT(refused, StatusIs(absl::StatusCode::kUnauthenticated));
    ASSERT_EQ(ReasonOf(refused), "bad_signature");
  }
}

}  // namespace
}  // namespace sallyport

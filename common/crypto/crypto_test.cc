// SPDX-License-Identifier: Apache-2.0
#include "common/crypto/crypto.h"

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/crypto/random.h"
#include "common/text/hex.h"
#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using testing::IsOk;
using testing::StatusIs;

std::string Hex(const Secret& secret) { return HexEncode(secret.Expose()); }

TEST(CryptoTest, Sha256OfAbc) {
  EXPECT_EQ(HexEncode(Sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Rfc4231, TestCase2) {
  EXPECT_EQ(HexEncode(HmacSha256("Jefe", "what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(CryptoTest, HmacTakesAnEmptyKey) {
  EXPECT_EQ(HexEncode(HmacSha256("", "")), "b613679a0814d9ec772f95d778c35fc5ff1697c493715653c6c712144292c5ad");
}

TEST(Rfc5869, TestCase1) {
  const std::string ikm(22, '\x0b');
  EXPECT_EQ(Hex(HkdfSha256(ikm, *HexDecode("000102030405060708090a0b0c"), *HexDecode("f0f1f2f3f4f5f6f7f8f9"), 42)),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
}

TEST(Rfc5869, TestCase1ExpandOnly) {
  EXPECT_EQ(Hex(HkdfExpandSha256(*HexDecode("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5"),
                                 *HexDecode("f0f1f2f3f4f5f6f7f8f9"), 42)),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
}

TEST(Rfc5869, TestCase3WithoutSaltAndInfo) {
  EXPECT_EQ(Hex(HkdfSha256(std::string(22, '\x0b'), "", "", 42)),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
}

TEST(AeadTest, OpensTheNistVector) {  // McGrew and Viega, test case 14: zero key, zero nonce, 16 zero bytes.
  const Secret key(std::string(32, '\0'));
  const std::string sealed =
      std::string(12, '\0') + *HexDecode("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
  auto opened = AeadOpen(key, sealed, "");
  ASSERT_THAT(opened, IsOk());
  EXPECT_EQ(opened->Expose(), std::string(16, '\0'));
}

TEST(AeadTest, OpensWhatItSealed) {
  const Secret key = RandomSecret(32);
  for (const std::string& plain : {std::string(), std::string("x"), std::string(70'000, 'y')}) {
    ASSERT_OK_AND_ASSIGN(std::string sealed, AeadSeal(key, plain, "row 1"));
    EXPECT_EQ(sealed.size(), plain.size() + kAeadOverhead);
    ASSERT_OK_AND_ASSIGN(Secret opened, AeadOpen(key, sealed, "row 1"));
    EXPECT_EQ(opened.Expose(), plain);
  }
}

TEST(AeadTest, SealingTwiceGivesDifferentBytes) {
  const Secret key = RandomSecret(32);
  EXPECT_NE(*AeadSeal(key, "x", ""), *AeadSeal(key, "x", ""));
}

TEST(AeadTest, RefusesEveryChangedByteKeyAndIdentity) {
  const Secret key = RandomSecret(32);
  ASSERT_OK_AND_ASSIGN(const std::string sealed, AeadSeal(key, "secret", "row 1"));
  for (size_t i = 0; i < sealed.size(); ++i) {
    std::string changed = sealed;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    EXPECT_THAT(AeadOpen(key, changed, "row 1"), StatusIs(absl::StatusCode::kDataLoss));
  }
  EXPECT_THAT(AeadOpen(key, sealed, "row 2"), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(AeadOpen(RandomSecret(32), sealed, "row 1"), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(AeadOpen(key, sealed.substr(0, kAeadOverhead - 1), "row 1"), StatusIs(absl::StatusCode::kDataLoss));
  EXPECT_THAT(AeadOpen(key, "", "row 1"), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(AeadTest, RefusesKeysOfAnotherSize) {
  EXPECT_THAT(AeadSeal(RandomSecret(16), "x", ""), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(AeadOpen(RandomSecret(31), std::string(64, 'x'), ""), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(PasswordTest, VerifiesOnlyThePassword) {
  const std::string encoded = HashPassword(Secret(std::string("correct horse")));
  EXPECT_EQ(encoded.find("$scrypt$ln=15,r=8,p=1$"), 0U);
  EXPECT_TRUE(*VerifyPassword(Secret(std::string("correct horse")), encoded));
  EXPECT_FALSE(*VerifyPassword(Secret(std::string("correct horsf")), encoded));
  EXPECT_FALSE(*VerifyPassword(Secret(std::string("")), encoded));
}

TEST(PasswordTest, RefusesHashesThatAreMalformedOrTooExpensive) {
  const std::string tail = "$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
  for (const std::string& encoded :
       {std::string(), std::string("plain"), "$scrypt$ln=18,r=8,p=1" + tail, "$scrypt$ln=15,r=9,p=1" + tail,
        "$scrypt$ln=15,r=8,p=5" + tail, "$scrypt$ln=-1,r=8,p=1" + tail, "$scrypt$r=8,ln=15,p=1" + tail,
        "$argon2id$ln=15,r=8,p=1" + tail, "$scrypt$ln=15,r=8,p=1" + tail + "$",
        std::string("$scrypt$ln=15,r=8,p=1$AA$AA")}) {
    SCOPED_TRACE(encoded);
    EXPECT_THAT(VerifyPassword(Secret(std::string("x")), encoded), StatusIs(absl::StatusCode::kInvalidArgument));
    EXPECT_THAT(CheckPasswordHash(encoded), StatusIs(absl::StatusCode::kInvalidArgument));
  }
  for (const char* cost : {"ln=10,r=1,p=1", "ln=17,r=8,p=4"}) {
    EXPECT_THAT(CheckPasswordHash(absl::StrCat("$scrypt$", cost, tail)), IsOk());
  }
}

TEST(CryptoTest, ConstantTimeEqualsComparesContentAndLength) {
  EXPECT_TRUE(ConstantTimeEquals("", ""));
  EXPECT_TRUE(ConstantTimeEquals("abc", "abc"));
  EXPECT_FALSE(ConstantTimeEquals("abc", "abd"));
  EXPECT_FALSE(ConstantTimeEquals("abc", "ab"));
}

TEST(RandomTest, UidsHaveTheirForm) {
  const std::string uid = MakeUid("srv_");
  EXPECT_EQ(uid.size(), 30U);
  EXPECT_TRUE(IsUid(uid, "srv_"));
  EXPECT_FALSE(IsUid(uid, "app_"));
  EXPECT_FALSE(IsUid(uid + "a", "srv_"));
  EXPECT_FALSE(IsUid("srv_", "srv_"));
  EXPECT_NE(uid, MakeUid("srv_"));
  EXPECT_EQ(RandomToken("spr_").size(), 47U);
}

}  // namespace
}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "services/vault/envelope.h"

#include <set>

#include <gtest/gtest.h>

#include "common/crypto/random.h"
#include "common/error.h"
#include "common/text/hex.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;

// 00 01 02 …
Secret Counting(int from) {
  std::string bytes;
  for (int i = 0; i < 32; ++i) {
    bytes.push_back(static_cast<char>(from + i));
  }
  return Secret(bytes);
}
RecordIdentity Identity() { return {"dep_test", {{"user", "corp:ada"}, "connection", "app_1"}, 7, 3}; }
OwnerKeyIdentity KeyIdentity() { return {"dep_test", {"user", "corp:ada"}, 2, 5}; }
std::string Opened(const RecordIdentity& identity, const std::string& record) {
  const auto opened = OpenRecord(Counting(0), identity, record);
  return opened.ok() ? std::string(opened->payload.Expose()) : ReasonOf(opened.status());
}

// Made by another implementation (Python cryptography) from the table in envelope.h.
constexpr char kGoldenRecord[] =
    "5350010100000002202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b04558bcd39"
    "d2"
    "3a4319f2a503c5d1f1acc2fffc40dc5a5f6f4b38b56b7bb9004a4f1d25ea70382623591479000855e0d80f283e9a38034a2ddf8a3dac2a0a74"
    "1d"
    "76cde8f57338c6120ad1e68c60cbf910";
constexpr char kGoldenBoundRecord[] =
    "5350020100000002202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f404142434445464748494a4b7630edb22e"
    "c4341c08eea64bdf3e9ac9acfffc40cb322b1b3b4b8f4454d8702361785d8b1d484a467777166d0855e0c2675c4aea4b396502b0fe55c95824"
    "116504c1bb4554c229c1c7d3bd1f8cf0034e64baf1811882f9ba8eb78f8c5dda88a4465c7a8fcffa9faf70c16284ef12f1550fcec6fc4a6141"
    "2b8c5c1a771789fc9b70604836954245ad98bb8d188d98e452";
constexpr char kGoldenAssociatedData[] =
    "0000001073616c6c79706f72742d6161642d7631000000086465705f746573740000000764656661756c74000000047573657200000008636f"
    "72"
    "703a6164610000000a636f6e6e656374696f6e000000056170705f310000000800000000000000070000000800000000000000030000000400"
    "000002";
constexpr char kGoldenOwnerKey[] =
    "404142434445464748494a4bf6463e7f547a9aa5e30c1966b922cc8a1030a7586b34273da16f4b062ef2647634ab57f9a03d555ff41829ca12"
    "4a"
    "9d68";
constexpr char kGoldenSeed[] =
    "0000000753505345454431000000086465705f746573740000000400000005000000206465666768696a6b6c6d6e6f70717273747576777879"
    "7a7b7c7d7e7f80818283";
constexpr char kGoldenCacheRoot[] = "2f4f88e904130e29f8a8ff7ff773e3ec3cbab5bffd4907dee27c3252152570ae";

TEST(EnvelopeGoldenTest, RecordOpens) { EXPECT_EQ(Opened(Identity(), *HexDecode(kGoldenRecord)), "refresh-token"); }

TEST(EnvelopeGoldenTest, OneOfAnEarlierReleaseDoesNotSayWhereItMayGo) {
  const auto opened = OpenRecord(Counting(0), Identity(), *HexDecode(kGoldenRecord));
  ASSERT_THAT(opened, IsOk());
  EXPECT_FALSE(opened->bound);
  EXPECT_TRUE(opened->origins.empty());
}

TEST(EnvelopeGoldenTest, RecordOpensWithItsOrigins) {
  const auto opened = OpenRecord(Counting(0), Identity(), *HexDecode(kGoldenBoundRecord));
  ASSERT_THAT(opened, IsOk());
  EXPECT_TRUE(opened->bound);
  EXPECT_EQ(opened->payload.Expose(), "refresh-token");
  EXPECT_EQ(opened->origins, (Origins{"https://api.example.com", "https://other.example:8443"}));
}

TEST(EnvelopeGoldenTest, AssociatedDataIsLengthPrefixed) {
  EXPECT_EQ(HexEncode(envelope_internal::RecordAssociatedData(1, Identity(), 2)), kGoldenAssociatedData);
}

TEST(EnvelopeGoldenTest, OwnerKeyUnwraps) {
  const auto key = UnwrapOwnerKey(Counting(100), KeyIdentity(), *HexDecode(kGoldenOwnerKey));
  ASSERT_THAT(key, IsOk());
  EXPECT_TRUE(*key == Counting(0));
}

TEST(EnvelopeGoldenTest, SeedNamesItsDeploymentAndTerm) {
  SeedPlaintext seed;
  seed.deployment_id = "dep_test";
  seed.term = 5;
  seed.seed = Counting(100);
  EXPECT_EQ(HexEncode(EncodeSeed(seed).Expose()), kGoldenSeed);
}

TEST(EnvelopeGoldenTest, CacheRootIsDerivedFromTheDay) {
  EXPECT_EQ(HexEncode(CacheRoot(Counting(0), 20000)->Expose()), kGoldenCacheRoot);
}

TEST(EnvelopeTest, RecordHasTheLayoutOfTheTable) {
  const std::string record = *SealRecord(Counting(0), 0x01020304, Identity(), std::string(10, 'x'), {});
  EXPECT_EQ(record.substr(0, 8), std::string("SP\x02\x01\x01\x02\x03\x04", 8));
  EXPECT_EQ(record.size(), 8u + 32 + 12 + 64 + 16);
  EXPECT_EQ(*KeyVersionOf(record), 0x01020304u);
}

TEST(EnvelopeTest, AnyPayloadComesBack) {
  std::string all;
  for (int i = 0; i < 256; ++i) {
    all.push_back(static_cast<char>(i));
  }
  for (const std::string& payload : {std::string(), std::string("\x80", 1), std::string(64, '\0'), std::string(63, 'a'),
                                     std::string(65, 'a'), all, std::string(kMaxPayloadBytes, 'z')}) {
    EXPECT_EQ(Opened(Identity(), *SealRecord(Counting(0), 2, Identity(), payload, {})), payload);
  }
}

TEST(EnvelopeTest, PayloadOver64KiBIsRefused) {
  EXPECT_THAT(SealRecord(Counting(0), 2, Identity(), std::string(kMaxPayloadBytes + 1, 'z'), {}),
              StatusIs(Code::kInvalidArgument));
}

TEST(EnvelopeTest, LengthIsHiddenUpTo64Bytes) {
  EXPECT_EQ(SealRecord(Counting(0), 2, Identity(), "a", {})->size(),
            SealRecord(Counting(0), 2, Identity(), std::string(59, 'a'), {})->size());
  EXPECT_EQ(SealRecord(Counting(0), 2, Identity(), std::string(64, 'a'), {})->size(), SealedSize(64));
}

TEST(EnvelopeTest, EveryFlippedByteIsNoticed) {
  const std::string record = *SealRecord(Counting(0), 2, Identity(), "refresh-token", {});
  for (size_t i = 0; i < record.size(); ++i) {
    std::string damaged = record;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x01);
    EXPECT_EQ(Opened(Identity(), damaged), "tag_mismatch") << "byte " << i;
  }
}

TEST(EnvelopeTest, ABoundRecordCannotBePassedOffAsOneOfAnEarlierRelease) {
  std::string record = *SealRecord(Counting(0), 2, Identity(), "refresh-token", {"https://api.example.com"});
  record[2] = 0x01;
  EXPECT_EQ(Opened(Identity(), record), "tag_mismatch");
}

TEST(EnvelopeTest, ResealingKeepsContentAndFormat) {
  for (const std::string& record : {*HexDecode(kGoldenRecord), *HexDecode(kGoldenBoundRecord)}) {
    const auto again = ResealRecord(Counting(0), Counting(9), 3, Identity(), record);
    ASSERT_THAT(again, IsOk());
    EXPECT_EQ(*KeyVersionOf(*again), 3u);
    const auto before = OpenRecord(Counting(0), Identity(), record);
    const auto after = OpenRecord(Counting(9), Identity(), *again);
    ASSERT_THAT(after, IsOk());
    EXPECT_TRUE(after->payload == before->payload);
    EXPECT_EQ(after->origins, before->origins);
    EXPECT_EQ(after->bound, before->bound);
    EXPECT_THAT(ResealRecord(Counting(1), Counting(9), 3, Identity(), record), StatusIs(Code::kDataLoss));
  }
}

TEST(EnvelopeTest, OriginsComeBackAsTheyWereSealed) {
  for (const Origins& origins : {Origins{}, Origins{"https://a.example"}, Origins{"", std::string(64, 'o')}}) {
    const auto opened = OpenRecord(Counting(0), Identity(), *SealRecord(Counting(0), 2, Identity(), "", origins));
    ASSERT_THAT(opened, IsOk());
    EXPECT_EQ(opened->payload.Expose(), "");
    EXPECT_EQ(opened->origins, origins);
  }
  EXPECT_THAT(SealRecord(Counting(0), 2, Identity(), "", {std::string(kMaxOriginBytes + 1, 'o')}),
              StatusIs(Code::kInvalidArgument));
}

TEST(EnvelopeTest, EveryTruncationIsRefused) {
  const std::string record = *SealRecord(Counting(0), 2, Identity(), "refresh-token", {});
  for (size_t size = 0; size < record.size(); ++size) {
    EXPECT_EQ(Opened(Identity(), record.substr(0, size)), "tag_mismatch") << size << " bytes";
  }
  EXPECT_EQ(Opened(Identity(), record + std::string(1, '\0')), "tag_mismatch");
}

TEST(EnvelopeTest, RandomBytesAreRefused) {
  for (size_t size = 0; size < 300; ++size) {
    EXPECT_EQ(Opened(Identity(), RandomBytes(size)), "tag_mismatch");
    EXPECT_EQ(Opened(Identity(), "SP\x01\x01" + RandomBytes(size)), "tag_mismatch");
  }
}

class EnvelopeSwapTest : public ::testing::Test {
 protected:
  const std::string record_ = *SealRecord(Counting(0), 2, Identity(), "refresh-token", {});
  RecordIdentity other_ = Identity();
};

TEST_F(EnvelopeSwapTest, NotUnderAnotherDeployment) {
  other_.deployment_id = "dep_other";
  EXPECT_EQ(Opened(other_, record_), "tag_mismatch");
}
TEST_F(EnvelopeSwapTest, NotForAnotherUser) {
  other_.record.owner.id = "corp:eve";
  EXPECT_EQ(Opened(other_, record_), "tag_mismatch");
}
TEST_F(EnvelopeSwapTest, NotForAnotherOwnerType) {
  other_.record.owner.type = "org";
  EXPECT_EQ(Opened(other_, record_), "tag_mismatch");
}
TEST_F(EnvelopeSwapTest, NotUnderAnotherKind) {
  other_.record.kind = "credential";
  EXPECT_EQ(Opened(other_, record_), "tag_mismatch");
}
TEST_F(EnvelopeSwapTest, NotUnderAnotherName) {
  other_.record.name = "app_2";
  EXPECT_EQ(Opened(other_, record_), "tag_mismatch");
}
TEST_F(EnvelopeSwapTest, NotAsAnotherVersion) {
  other_.version = 8;
  EXPECT_EQ(Opened(other_, record_), "tag_mismatch");
}
TEST_F(EnvelopeSwapTest, NotInAnotherGeneration) {
  other_.generation = 4;
  EXPECT_EQ(Opened(other_, record_), "tag_mismatch");
}
TEST_F(EnvelopeSwapTest, NotWithBytesMovedBetweenItems) {
  other_.record.kind = "connectiona";
  other_.record.name = "pp_1";
  EXPECT_EQ(Opened(other_, record_), "tag_mismatch");
}
TEST_F(EnvelopeSwapTest, NotWithAnotherOwnerKey) {
  EXPECT_THAT(OpenRecord(Counting(1), Identity(), record_), StatusIs(Code::kDataLoss));
}

TEST(EnvelopeTest, WrappedOwnerKeyIsBoundToOwnerVersionAndTerm) {
  const std::string wrapped = *WrapOwnerKey(Counting(100), KeyIdentity(), Counting(0));
  OwnerKeyIdentity owner = KeyIdentity();
  owner.owner.id = "corp:eve";
  OwnerKeyIdentity version = KeyIdentity();
  version.key_version = 3;
  OwnerKeyIdentity term = KeyIdentity();
  term.term = 6;
  for (const OwnerKeyIdentity& other : {owner, version, term}) {
    EXPECT_THAT(UnwrapOwnerKey(Counting(100), other, wrapped), StatusIs(Code::kDataLoss));
  }
  EXPECT_THAT(UnwrapOwnerKey(Counting(101), KeyIdentity(), wrapped), StatusIs(Code::kDataLoss));
  EXPECT_THAT(UnwrapOwnerKey(Counting(100), KeyIdentity(), ""), StatusIs(Code::kDataLoss));
}

TEST(EnvelopeTest, SeedOfAnotherFormIsRefused) {
  const std::string good = *HexDecode(kGoldenSeed);
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_THAT(DecodeSeed(Secret(good.substr(0, size))), StatusIs(Code::kDataLoss)) << size;
  }
  EXPECT_THAT(DecodeSeed(Secret(good + "x")), StatusIs(Code::kDataLoss));
  std::string magic = good;
  magic[4] = 'M';
  EXPECT_THAT(DecodeSeed(Secret(magic)), StatusIs(Code::kDataLoss));
}

TEST(EnvelopeTest, SamePayloadNeverSealsTheSameTwice) {
  std::set<std::string> salts;
  std::set<std::string> nonces;
  std::set<std::string> bodies;
  constexpr size_t kTimes = 20'000;
  for (size_t i = 0; i < kTimes; ++i) {
    const std::string record = *SealRecord(Counting(0), 2, Identity(), "refresh-token", {});
    salts.insert(record.substr(8, 32));
    nonces.insert(record.substr(40, 12));
    bodies.insert(record.substr(52));
  }
  EXPECT_EQ(salts.size(), kTimes);
  EXPECT_EQ(nonces.size(), kTimes);
  EXPECT_EQ(bodies.size(), kTimes);
}

TEST(EnvelopeTest, PaddingThatIsNotOursIsRefused) {
  EXPECT_THAT(envelope_internal::Unpad(std::string(64, '\0')), StatusIs(Code::kDataLoss));
  EXPECT_THAT(envelope_internal::Unpad(std::string(64, 'a')), StatusIs(Code::kDataLoss));
  EXPECT_THAT(envelope_internal::Unpad("a\x80"), StatusIs(Code::kDataLoss));
  EXPECT_THAT(envelope_internal::Unpad(""), StatusIs(Code::kDataLoss));
  EXPECT_THAT(envelope_internal::Unpad("\x80" + std::string(127, '\0')), StatusIs(Code::kDataLoss));
}

}  // namespace
}  // namespace sallyport::vault

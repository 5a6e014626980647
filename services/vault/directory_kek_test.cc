// SPDX-License-Identifier: Apache-2.0
#include "services/vault/directory_kek.h"

#include <fstream>
#include <set>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "services/vault/testing/harness.h"

namespace sallyport::vault {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;
using Code = absl::StatusCode;

class DirectoryKekTest : public ::testing::Test {
 protected:
  void WriteKey(const std::string& name, const std::string& bytes, mode_t mode = 0400) {
    std::filesystem::create_directories(directory_.File("kek"));
    std::ofstream(Path(name), std::ios::binary) << bytes;
    ASSERT_EQ(::chmod(Path(name).c_str(), mode), 0);
  }
  void PointCurrentTo(const std::string& name) {
    ::unlink(Path("current").c_str());
    ASSERT_EQ(::symlink(name.c_str(), Path("current").c_str()), 0);
  }
  std::string Path(const std::string& name) const { return directory_.File("kek/" + name); }

  testing::TempDirectory directory_;
  DirectoryKek kek_{directory_.File("kek")};
};

TEST_F(DirectoryKekTest, MissingDirectoryIsNotFound) { EXPECT_THAT(kek_.Status(), StatusIs(Code::kNotFound)); }

TEST_F(DirectoryKekTest, FirstKeyIsMadeOnceWithMode0400) {
  ASSERT_THAT(kek_.CreateFirst(), IsOk());
  const std::string id = *kek_.Status();
  ASSERT_THAT(kek_.CreateFirst(), IsOk());

  EXPECT_EQ(*kek_.Status(), id);
  struct stat info = {};
  ASSERT_EQ(::stat(Path("current").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0400u);
  EXPECT_EQ(info.st_size, 32);
}

TEST_F(DirectoryKekTest, ReplicasThatStartTogetherHaveOneKey) {
  std::vector<std::string> ids(8);
  std::vector<std::thread> replicas;
  replicas.reserve(ids.size());
  for (std::string& id : ids) {
    replicas.emplace_back([&] {
      DirectoryKek kek(directory_.File("kek"));
      if (kek.CreateFirst().ok()) id = kek.Status().value_or("none");
    });
  }
  for (std::thread& replica : replicas) replica.join();

  EXPECT_EQ(std::set<std::string>(ids.begin(), ids.end()), std::set<std::string>{*kek_.Status()});
}

TEST_F(DirectoryKekTest, InterruptedCreationIsFinished) {
  WriteKey("kek-1", std::string(32, 'k'));
  ASSERT_THAT(kek_.CreateFirst(), IsOk());
  EXPECT_THAT(kek_.Status(), IsOk());
}

TEST_F(DirectoryKekTest, NothingIsMadeBesideForeignFiles) {
  WriteKey("old", std::string(32, 'k'));
  EXPECT_THAT(kek_.CreateFirst(), IsOk());
  EXPECT_THAT(kek_.Status(), StatusIs(Code::kNotFound));
}

TEST_F(DirectoryKekTest, KeyIdIsComputedFromTheKey) {
  WriteKey("a", std::string(32, 'k'));
  PointCurrentTo("a");
  const std::string id = *kek_.Status();
  EXPECT_EQ(id.substr(0, 5), "file:");
  EXPECT_EQ(id.size(), 5u + 16);

  WriteKey("b", std::string(32, 'l'));
  PointCurrentTo("b");
  EXPECT_NE(*kek_.Status(), id);
}

TEST_F(DirectoryKekTest, OtherModesAreRefused) {
  for (const mode_t mode : {0600u, 0640u, 0444u, 0700u, 0401u, 0460u}) {
    WriteKey("a", std::string(32, 'k'), mode);
    PointCurrentTo("a");
    EXPECT_THAT(kek_.Status(), StatusIs(Code::kNotFound, "0400")) << mode;
    ::unlink(Path("a").c_str());
  }
}

TEST_F(DirectoryKekTest, AGroupMayReadAsWithAKubernetesSecret) {
  WriteKey("a", std::string(32, 'k'), 0440);
  PointCurrentTo("a");
  EXPECT_THAT(kek_.Status(), IsOk());
}

TEST_F(DirectoryKekTest, OtherSizesAreRefused) {
  for (const size_t size : {0u, 16u, 31u, 33u, 64u}) {
    WriteKey("a", std::string(size, 'k'));
    PointCurrentTo("a");
    EXPECT_THAT(kek_.Status(), StatusIs(Code::kNotFound, "32 bytes")) << size;
    ::unlink(Path("a").c_str());
  }
}

TEST_F(DirectoryKekTest, DanglingCurrentIsNotFound) {
  WriteKey("a", std::string(32, 'k'));
  PointCurrentTo("gone");
  EXPECT_THAT(kek_.Status(), StatusIs(Code::kNotFound));
}

TEST_F(DirectoryKekTest, FormerKeyStillUnwraps) {
  WriteKey("a", std::string(32, 'k'));
  PointCurrentTo("a");
  const auto wrapped = kek_.Wrap(Secret(std::string("seed")), "1");
  ASSERT_THAT(wrapped, IsOk());
  WriteKey("b", std::string(32, 'l'));
  PointCurrentTo("b");

  const auto opened = kek_.Unwrap(*wrapped, "1");
  ASSERT_THAT(opened, IsOk());
  EXPECT_EQ(opened->Expose(), "seed");
}

TEST_F(DirectoryKekTest, UnknownKeyIdIsNotFound) {
  WriteKey("a", std::string(32, 'k'));
  PointCurrentTo("a");
  auto wrapped = *kek_.Wrap(Secret(std::string("seed")), "1");
  wrapped.key_id = "file:0000000000000000";
  EXPECT_THAT(kek_.Unwrap(wrapped, "1"), StatusIs(Code::kNotFound));
}

TEST_F(DirectoryKekTest, DamagedCiphertextIsDataLoss) {
  WriteKey("a", std::string(32, 'k'));
  PointCurrentTo("a");
  auto wrapped = *kek_.Wrap(Secret(std::string("seed")), "1");
  wrapped.ciphertext.back() = static_cast<char>(wrapped.ciphertext.back() ^ 1);
  EXPECT_THAT(kek_.Unwrap(wrapped, "1"), StatusIs(Code::kDataLoss));
}

}  // namespace
}  // namespace sallyport::vault

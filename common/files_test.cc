// SPDX-License-Identifier: Apache-2.0
#include "common/files.h"

#include <cstdlib>
#include <filesystem>
#include <unistd.h>

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using testing::IsOk;
using testing::StatusIs;

class FilesTest : public ::testing::Test {
 protected:
  FilesTest() {
    std::string pattern = "/tmp/sallyport-files-XXXXXX";
    directory_ = mkdtemp(pattern.data());
  }
  ~FilesTest() override { std::filesystem::remove_all(directory_); }
  std::string Path(const std::string& name) const { return directory_ + "/" + name; }
  std::string directory_;
};

TEST_F(FilesTest, WritesWithModeAndReadsBack) {
  const std::string content("a\0b", 3);
  ASSERT_THAT(WriteFileAtomic(Path("f"), "old", 0644), IsOk());
  ASSERT_THAT(WriteFileAtomic(Path("f"), content), IsOk());

  EXPECT_EQ(*ReadFile(Path("f")), content);
  struct stat info {};
  ASSERT_EQ(stat(Path("f").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777U, 0600U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(directory_), {}), 1);
}

TEST_F(FilesTest, ReplacesASymlinkInsteadOfFollowingIt) {
  ASSERT_THAT(WriteFileAtomic(Path("target"), "target"), IsOk());
  ASSERT_EQ(symlink(Path("target").c_str(), Path("link").c_str()), 0);
  ASSERT_THAT(WriteFileAtomic(Path("link"), "new"), IsOk());
  EXPECT_EQ(*ReadFile(Path("target")), "target");
  EXPECT_EQ(*ReadFile(Path("link")), "new");
}

TEST_F(FilesTest, NamesWhatIsWrong) {
  EXPECT_THAT(ReadFile(Path("missing")), StatusIs(absl::StatusCode::kNotFound, Path("missing")));
  EXPECT_THAT(ReadFile(directory_), StatusIs(absl::StatusCode::kInvalidArgument));
  ASSERT_THAT(WriteFileAtomic(Path("f"), "12345"), IsOk());
  EXPECT_THAT(ReadFile(Path("f"), 4), StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(WriteFileAtomic(Path("no/such/f"), "x"), StatusIs(absl::StatusCode::kNotFound));
  ASSERT_EQ(mkfifo(Path("fifo").c_str(), 0600), 0);
  EXPECT_THAT(ReadFile(Path("fifo")), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(FilesTest, SecretFilesMustBePrivate) {
  ASSERT_THAT(WriteFileAtomic(Path("s"), "hunter2\n", 0600), IsOk());
  EXPECT_EQ(ReadSecretFile(Path("s"))->Expose(), "hunter2");
  ASSERT_EQ(chmod(Path("s").c_str(), 0440), 0);
  EXPECT_THAT(ReadSecretFile(Path("s")), IsOk());
  for (const mode_t mode : {0604U, 0620U, 0602U, 0601U}) {
    ASSERT_EQ(chmod(Path("s").c_str(), mode), 0);
    EXPECT_THAT(ReadSecretFile(Path("s")), StatusIs(absl::StatusCode::kFailedPrecondition));
  }
  ASSERT_THAT(WriteFileAtomic(Path("empty"), "\n"), IsOk());
  EXPECT_THAT(ReadSecretFile(Path("empty")), StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST_F(FilesTest, MakesDirectoriesOnce) {
  ASSERT_THAT(MakeDirectories(Path("a/b/c")), IsOk());
  ASSERT_THAT(MakeDirectories(Path("a/b/c")), IsOk());
  EXPECT_TRUE(std::filesystem::is_directory(Path("a/b/c")));
  ASSERT_THAT(WriteFileAtomic(Path("f"), ""), IsOk());
  EXPECT_FALSE(MakeDirectories(Path("f")).ok());
}

TEST_F(FilesTest, RemovingTwiceIsFine) {
  ASSERT_THAT(WriteFileAtomic(Path("f"), ""), IsOk());
  EXPECT_THAT(RemoveFile(Path("f")), IsOk());
  EXPECT_THAT(RemoveFile(Path("f")), IsOk());
}

}  // namespace
}  // namespace sallyport

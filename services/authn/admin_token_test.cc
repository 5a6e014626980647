// SPDX-License-Identifier: Apache-2.0
#include "services/authn/admin_token.h"

#include <atomic>
#include <thread>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "services/authn/authn_testing.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;

class AdminTokenTest : public ::testing::Test {
 protected:
  AdminTokenTest() : database_(OpenTestDatabase(directory_, clock_)), audit_(*database_, clock_) {}
  std::string File() { return directory_.path() + "/" + AdminToken::kFileName; }
  std::string Read() { return std::string(ReadSecretFile(File())->Expose()); }

  FakeClock clock_;
  TempDirectory directory_;
  std::unique_ptr<Database> database_;
  Audit audit_;
};

TEST_F(AdminTokenTest, TheFileIsForItsOwnerAlone) {
  AdminToken token(*database_, audit_, directory_.path());
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  struct stat info {};
  ASSERT_EQ(stat(File().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(AdminTokenTest, IsGoodOnceAndTheFileGoes) {
  AdminToken token(*database_, audit_, directory_.path());
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  const std::string value = Read();

  EXPECT_THAT(token.Redeem(value + "\n", clock_.Now()), IsOk());
  EXPECT_THAT(token.Redeem(value, clock_.Now()), StatusIs(absl::StatusCode::kUnauthenticated));
  EXPECT_FALSE(ReadFile(File()).ok());
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  EXPECT_FALSE(ReadFile(File()).ok());
}

TEST_F(AdminTokenTest, OfManyAtOnceOneWins) {
  AdminToken maker(*database_, audit_, directory_.path());
  ASSERT_THAT(maker.EnsureFile(clock_.Now()), IsOk());
  const std::string value = Read();
  std::atomic<int> won = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      AdminToken token(*database_, audit_, directory_.path());
      won += token.Redeem(value, clock_.Now()).ok() ? 1 : 0;
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(won, 1);
}

TEST_F(AdminTokenTest, AStartKeepsAFileThatIsStillGoodAndReplacesOneThatIsNot) {
  AdminToken token(*database_, audit_, directory_.path());
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  const std::string value = Read();
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  EXPECT_EQ(Read(), value);

  ASSERT_THAT(WriteFileAtomic(File(), "spadm_forged"), IsOk());
  EXPECT_THAT(token.Redeem("spadm_forged", clock_.Now()), StatusIs(absl::StatusCode::kUnauthenticated));
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  EXPECT_THAT(token.Redeem(Read(), clock_.Now()), IsOk());
}

TEST_F(AdminTokenTest, GuessingIsLimited) {
  AdminToken token(*database_, audit_, directory_.path());
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  for (int i = 0; i < 5; ++i) {
    EXPECT_THAT(token.Redeem("spadm_guess", clock_.Now()), StatusIs(absl::StatusCode::kUnauthenticated));
  }
  EXPECT_THAT(token.Redeem(Read(), clock_.Now()), StatusIs(absl::StatusCode::kResourceExhausted));
  clock_.Advance(absl::Seconds(12));
  EXPECT_THAT(token.Redeem(Read(), clock_.Now()), IsOk());
}

TEST_F(AdminTokenTest, WithoutADirectoryThereIsNone) {
  AdminToken token(*database_, audit_, "");
  ASSERT_THAT(token.EnsureFile(clock_.Now()), IsOk());
  EXPECT_THAT(token.Redeem("", clock_.Now()), StatusIs(absl::StatusCode::kUnauthenticated));
}

}  // namespace
}  // namespace sallyport::authn

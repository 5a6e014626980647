// SPDX-License-Identifier: Apache-2.0
#include "services/authn/local_users.h"

#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/crypto/crypto.h"
#include "common/error.h"
#include "services/authn/authn_testing.h"
#include "tests/testing/fake_clock.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::authn {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;

TEST(LocalUsersTest, OnlyTheRightPasswordOfTheRightNameIsAUser) {
  config::v1::LocalConnector connector;
  auto* ann = connector.add_users();
  ann->set_username("ann");
  ann->set_password_hash(HashPassword(Secret(std::string("secret"))));
  auto* broken = connector.add_users();
  broken->set_username("broken");
  broken->set_password_hash("secret");
  const auto check = [&](const char* name, const std::string& password) {
    return *LocalUsers::Check(connector, name, Secret(std::string(password)));
  };
  EXPECT_EQ(check("ann", "secret"), ann);
  EXPECT_EQ(check("ann", "Secret"), nullptr);
  EXPECT_EQ(check("ann", ""), nullptr);
  EXPECT_EQ(check("Ann", "secret"), nullptr);
  EXPECT_EQ(check("", "secret"), nullptr);
  EXPECT_EQ(check("nobody", "nobody knows this one"), nullptr);
  EXPECT_EQ(check("broken", "secret"), nullptr);
  EXPECT_EQ(check("ann", std::string(1025, 'x')), nullptr);
}

// Each that waits holds a thread that other people's calls need.
TEST(LocalUsersTest, BeyondTenAtOnceCallersAreSentAwayAtOnce) {
  config::v1::LocalConnector connector;
  std::atomic<int> checked{0};
  std::atomic<int> busy{0};
  std::vector<std::thread> callers;
  for (int i = 0; i < 40; ++i) {
    callers.emplace_back([&] {
      const auto user = LocalUsers::Check(connector, "nobody", Secret(std::string("x")));
      if (user.ok()) {
        ++checked;
      } else {
        EXPECT_THAT(user, StatusIs(absl::StatusCode::kUnavailable));
        EXPECT_GT(DetailOf(user.status()).retry_after, absl::ZeroDuration());
        ++busy;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_GE(checked, 2);
  EXPECT_GE(busy, 1);
}

class LoginAttemptsTest : public EnginesTest {
 protected:
  void SetUp() override {
    ASSERT_NO_FATAL_FAILURE(EnginesTest::SetUp());
    attempts_ = std::make_unique<LoginAttempts>(*database_);
  }
  absl::StatusOr<int> Begin(const std::string& name, const std::string& address = "192.0.2.1") {
    return attempts_->Begin(name, address, clock_.Now());
  }

  std::unique_ptr<LoginAttempts> attempts_;
};

INSTANTIATE_ENGINES(LoginAttemptsTest);

TEST_P(LoginAttemptsTest, AddressesOfOneSubscriberCountTogether) {
  for (int i = 0; i < LoginAttempts::kPerPair; ++i) {
    ASSERT_THAT(Begin("ann", absl::StrCat("2001:db8:1:2::", i + 1)), IsOk());
  }
  EXPECT_THAT(Begin("ann", "2001:db8:1:2:ffff::9"), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(Begin("ann", "2001:db8:1:3::1"), IsOk());
}

// What the edge says of a caller whose address its proxy does not give.
TEST_P(LoginAttemptsTest, CallersOfUnknownAddressShareOneLimit) {
  for (int i = 0; i < LoginAttempts::kPerAddress; ++i) {
    EXPECT_THAT(Begin(absl::StrCat("user", i), "unknown"), IsOk());
  }
  EXPECT_THAT(Begin("another", "unknown"), StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_THAT(Begin("another", "192.0.2.1"), IsOk());
}

TEST_P(LoginAttemptsTest, FiveAttemptsThenAPause) {
  for (int left = 4; left >= 0; --left) {
    ASSERT_OK_AND_ASSIGN(const int said, Begin("ann"));
    EXPECT_EQ(said, left);
  }
  const auto refused = Begin("ann");
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kResourceExhausted));
  EXPECT_EQ(DetailOf(refused.status()).retry_after, LoginAttempts::kWindow);
  clock_.Advance(LoginAttempts::kWindow);
  EXPECT_THAT(Begin("ann"), IsOk());
}

TEST_P(LoginAttemptsTest, SpellingANameDifferentlyGivesNoMoreAttempts) {
  for (int i = 0; i < 5; ++i) {
    EXPECT_THAT(Begin(i % 2 == 0 ? "ann" : "ANN"), IsOk());
  }
  EXPECT_THAT(Begin("Ann"), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_P(LoginAttemptsTest, OneAddressDoesNotLockTheNameForOthersUntilThirty) {
  for (int i = 0; i < 6; ++i) {
    Begin("ann", "192.0.2.66").IgnoreError();
  }
  EXPECT_THAT(Begin("ann", "192.0.2.1"), IsOk());
  for (int i = 0; i < 30; ++i) {
    Begin("ann", absl::StrCat("198.51.100.", i)).IgnoreError();
  }
  EXPECT_THAT(Begin("ann", "203.0.113.1"), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_P(LoginAttemptsTest, OneAddressCannotTryManyNames) {
  for (int i = 0; i < LoginAttempts::kPerAddress; ++i) {
    EXPECT_THAT(Begin(absl::StrCat("user", i)), IsOk());
  }
  EXPECT_THAT(Begin("another"), StatusIs(absl::StatusCode::kResourceExhausted));
}

TEST_P(LoginAttemptsTest, SuccessTakesTheCountBack) {
  for (int i = 0; i < 20; ++i) {
    EXPECT_THAT(Begin("ann"), IsOk());
    EXPECT_THAT(attempts_->Succeeded("ann", "192.0.2.1"), IsOk());
  }
}

}  // namespace
}  // namespace sallyport::authn

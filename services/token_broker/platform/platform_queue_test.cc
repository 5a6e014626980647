// SPDX-License-Identifier: Apache-2.0
// Many users of one caller at once, while it is not known yet who that is.
#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "common/caller/passport.h"
#include "common/error.h"
#include "common/mutex.h"
#include "common/rpc/control_stream.h"
#include "services/token_broker/platform/platform_door.h"
#include "services/token_broker/testing/platform_test_base.h"

namespace sallyport::token_broker {
namespace {

using Code = absl::StatusCode;

class PlatformQueueTest : public testing::PlatformTestBase {
 protected:
  static constexpr ptrdiff_t kMostWaiting = 512;

  void SetUp() override {
    PlatformTestBase::SetUp();
    verifier_ =
        std::make_unique<PassportVerifier>(testing::kPublicUrl, std::make_unique<RpcKeySource>(peers_.Channel()));
    control_ = std::make_unique<ControlStream>(peers_.Channel(), clock_);
    control_->Start();
    ASSERT_TRUE(control_->WaitForSnapshot(absl::Seconds(60)));
    door_ = std::make_unique<PlatformDoor>(peers_.Channel(), *verifier_, *control_, metrics_, runner_, clock_);
  }
  void TearDown() override {
    peers_.platforms.gate.Open();
    runner_.Stop();
    control_->Stop();
    PlatformTestBase::TearDown();
  }
  // Asks for so many users in turn while authn answers nobody; then it answers. The answers' codes, in no order.
  std::vector<Code> AskAtOnce(const std::string& uri, ptrdiff_t users) {
    peers_.platforms.gate.Close();
    users_.resize(static_cast<size_t>(users));
    for (v1::PlatformUser& user : users_) {
      user = Token(absl::StrCat("user", &user - users_.data()));
      Showing showing;
      showing.names.uris = {uri};
      showing.user = &user;
      showing.address = "192.0.2.1";
      showing.identity = uri;
      showing.key = absl::StrCat(uri, " ", user.subject_token());
      // Returns at once: one question is on its way to authn, all others wait for what it brings.
      door_->Ask(showing, [this](const absl::StatusOr<SharedAdmission>& answer) {
        MutexLock lock(mu_);
        codes_.push_back(answer.status().code());
        landed_.notify_all();
      });
    }
    EXPECT_TRUE(peers_.platforms.gate.AwaitArrivals(1));
    EXPECT_EQ(peers_.platforms.gate.arrived(), 1) << "of a caller who was never admitted one question at a time";
    EXPECT_EQ(Answered(), users - std::min(users, 1 + kMostWaiting)) << "those that found no room";
    peers_.platforms.gate.Open();
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    MutexLock lock(mu_);
    while (std::ssize(codes_) < users && landed_.wait_until(mu_, until) == std::cv_status::no_timeout) {
    }
    EXPECT_EQ(std::ssize(codes_), users);
    return codes_;
  }
  ptrdiff_t Answered() {
    MutexLock lock(mu_);
    return std::ssize(codes_);
  }

  PlatformMetrics metrics_;
  TaskRunner runner_{64, 10'000};
  std::unique_ptr<PassportVerifier> verifier_;
  std::unique_ptr<ControlStream> control_;
  std::vector<v1::PlatformUser> users_;  // Seen by what waits.
  Mutex mu_;
  std::condition_variable_any landed_;
  std::vector<Code> codes_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<PlatformDoor> door_;
};

TEST_F(PlatformQueueTest, BusyPlatformIsNotRefusedBecauseNobodyKnowsItYet) {
  for (const Code code : AskAtOnce(kChat, 48)) EXPECT_EQ(code, Code::kOk) << absl::StatusCodeToString(code);
  EXPECT_EQ(peers_.platforms.calls(), 48);
}

// The line of one caller has an end: what comes after it is told to come again.
TEST_F(PlatformQueueTest, WhatOneCallerMayHaveWaitingIsBounded) {
  const std::vector<Code> codes = AskAtOnce(kChat, 600);
  EXPECT_EQ(std::count(codes.begin(), codes.end(), Code::kOk), 1 + kMostWaiting);
  EXPECT_EQ(std::count(codes.begin(), codes.end(), Code::kResourceExhausted), 600 - 1 - kMostWaiting);
}

TEST_F(PlatformQueueTest, WhoeverIsNobodyIsThatForEveryUser) {
  for (const Code code : AskAtOnce("spiffe://example.org/ns/nobody/sa/x", 48)) {
    EXPECT_EQ(code, Code::kUnauthenticated) << absl::StatusCodeToString(code);
  }
  EXPECT_EQ(peers_.platforms.calls(), 1) << "authn is asked for one of them only";
}

}  // namespace
}  // namespace sallyport::token_broker

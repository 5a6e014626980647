// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/ended_subjects.h"

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "tests/testing/fake_clock.h"

namespace sallyport::token_broker {
namespace {

class EndedSubjectsTest : public ::testing::Test {
 protected:
  bool Include(const std::string& subject, absl::Time issued_at) const {
    Passport passport;
    passport.subject = subject;
    passport.issued_at = issued_at;
    return ended_.Include(passport);
  }

  FakeClock clock_;
  const absl::Time at_ = clock_.Now();
  EndedSubjects ended_{clock_};
};

TEST_F(EndedSubjectsTest, PassportsOfBeforeAreKnownAndNoOthers) {
  EXPECT_FALSE(Include("corp:ada", at_));
  ended_.Add("corp:ada", at_);
  EXPECT_TRUE(Include("corp:ada", at_ - absl::Minutes(4)));
  EXPECT_TRUE(Include("corp:ada", at_)) << "in the same second";
  EXPECT_FALSE(Include("corp:ada", at_ + absl::Seconds(1))) << "whoever signs in anew is welcome";
  EXPECT_FALSE(Include("corp:bob", at_ - absl::Minutes(4)));
}

TEST_F(EndedSubjectsTest, WhatIsHeardLateTakesNothingBack) {
  ended_.Add("corp:ada", at_);
  ended_.Add("corp:ada", at_ - absl::Minutes(1));
  EXPECT_TRUE(Include("corp:ada", at_));
}

TEST_F(EndedSubjectsTest, IsForgottenOnceEveryPassportOfBeforeHasEnded) {
  ended_.Add("corp:ada", at_);
  clock_.Advance(2 * kPassportLifetime);
  EXPECT_TRUE(Include("corp:ada", at_));
  clock_.Advance(absl::Seconds(1));
  EXPECT_FALSE(Include("corp:ada", at_));
}

TEST_F(EndedSubjectsTest, IsBoundedAndTheNewestStay) {
  for (int i = 0; i < 100'000; ++i) ended_.Add(absl::StrCat("corp:", i), at_);
  clock_.Advance(absl::Seconds(1));
  ended_.Add("corp:ada", at_);
  EXPECT_TRUE(Include("corp:ada", at_));
  clock_.Advance(2 * kPassportLifetime);
  ended_.Add("corp:bob", at_);
  EXPECT_TRUE(Include("corp:bob", at_));
}

}  // namespace
}  // namespace sallyport::token_broker

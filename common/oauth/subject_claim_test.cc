// SPDX-License-Identifier: Apache-2.0
#include "common/oauth/subject_claim.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sallyport::oauth {
namespace {

using ::testing::HasSubstr;
using ::testing::Optional;

TEST(MutableSubjectClaimTest, NamesTheClaimThatCanChange) {
  for (const char* rule : {"email", "name", "preferred_username", "upn", "unique_name", "nickname"}) {
    EXPECT_THAT(MutableSubjectClaim(rule), Optional(HasSubstr(std::string("\"") + rule + "\" can change"))) << rule;
  }
}

TEST(MutableSubjectClaimTest, LooksAtEveryPartOfAJoinedRule) {
  for (const char* rule : {"tid+email", "email+tid", "tid+oid+upn", "tid+ email", "tid+Email"}) {
    EXPECT_TRUE(MutableSubjectClaim(rule).has_value()) << rule;
  }
}

TEST(MutableSubjectClaimTest, StableClaimsPass) {
  for (const char* rule : {"", "sub", "oid", "uid", "tid+oid", "emails", "employee_id", "username_id"}) {
    EXPECT_FALSE(MutableSubjectClaim(rule).has_value()) << rule;
  }
}

}  // namespace
}  // namespace sallyport::oauth

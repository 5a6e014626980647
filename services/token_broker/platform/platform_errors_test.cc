// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/platform/platform_errors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/error.h"
#include "tests/testing/status_matchers.h"

namespace sallyport::token_broker {
namespace {

using ::sallyport::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;
using Code = absl::StatusCode;

TEST(PlatformErrorsTest, PartThatDoesNotAnswerIsUnavailableAndUnnamed) {
  for (const Code code : {Code::kUnavailable, Code::kDeadlineExceeded, Code::kAborted, Code::kCancelled,
                          Code::kResourceExhausted, Code::kUnauthenticated}) {
    const absl::Status told = ForPlatform(absl::Status(code, "failed to connect to ipv4:10.0.0.7:7003"));
    EXPECT_THAT(told, StatusIs(Code::kUnavailable)) << absl::StatusCodeToString(code);
    EXPECT_THAT(std::string(told.message()), Not(HasSubstr("10.0.0.7")));
    EXPECT_EQ(ReasonOf(told), "gateway_unavailable");
    EXPECT_EQ(DetailOf(told).retry_after, absl::Seconds(1));
  }
}

TEST(PlatformErrorsTest, RefusedPassportIsNotThePlatformsDoing) {
  for (const char* reason : {"bad_passport", "passport_required", "passport_mismatch"}) {
    for (const absl::Status& status : {absl::UnauthenticatedError("x"), absl::PermissionDeniedError("x")}) {
      const absl::Status told = ForPlatform(WithReason(status, reason));
      EXPECT_THAT(told, StatusIs(Code::kUnavailable)) << reason;
      EXPECT_EQ(ReasonOf(told), "gateway_unavailable");
    }
  }
}

TEST(PlatformErrorsTest, WhatAPartSaysIsKept) {
  const absl::Status sealed = ForPlatform(WithReason(absl::UnavailableError("the vault is sealed"), "vault_sealed"));
  EXPECT_THAT(sealed, StatusIs(Code::kUnavailable, "the vault is sealed"));
  EXPECT_EQ(ReasonOf(sealed), "vault_sealed");
  EXPECT_EQ(DetailOf(sealed).retry_after, absl::Seconds(1));
  const absl::Status later = ForPlatform(
      WithDetail(absl::UnavailableError("away"), {.reason = "provider_unavailable", .retry_after = absl::Seconds(30)}));
  EXPECT_EQ(DetailOf(later).retry_after, absl::Seconds(30));
}

TEST(PlatformErrorsTest, PermissionIsAboutGrantsOnly) {
  const absl::Status told = ForPlatform(
      WithReason(absl::PermissionDeniedError("a configured credential may not be sent"), "origin_not_allowed"));
  EXPECT_THAT(told, StatusIs(Code::kFailedPrecondition, "may not be sent"));
  EXPECT_EQ(ReasonOf(told), "origin_not_allowed");
}

TEST(PlatformErrorsTest, WhatConcernsThePlatformIsNotTouched) {
  const absl::Status statuses[] = {
      absl::OkStatus(), absl::NotFoundError("app: there is no such app"), InvalidField("app", "is required"),
      WithReason(absl::PermissionDeniedError("no"), kPlatformNotGranted),
      WithDetail(absl::FailedPreconditionError("Connect"), {.reason = "link_required", .link = "https://gw/"})};
  for (const absl::Status& status : statuses) {
    EXPECT_EQ(ForPlatform(status), status);
  }
}

}  // namespace
}  // namespace sallyport::token_broker

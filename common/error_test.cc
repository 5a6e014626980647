// SPDX-License-Identifier: Apache-2.0
#include "common/error.h"

#include "absl/strings/str_cat.h"
#include <gtest/gtest.h>

#include "tests/testing/status_matchers.h"

namespace sallyport {
namespace {

using ::sallyport::testing::IsOk;
using ::sallyport::testing::StatusIs;

TEST(ErrorTest, DetailsSurviveTheWire) {
  ErrorDetail detail;
  detail.oauth_error = "invalid_grant";
  detail.reason = "link_user_mismatch";
  detail.violations = {{"slug", "is required"}};
  detail.retry_after = absl::Milliseconds(1500);
  detail.link = "https://gw.example.com/connect/a";

  const absl::Status back = FromGrpcStatus(ToGrpcStatus(WithDetail(absl::UnavailableError("later"), detail)));

  EXPECT_THAT(back, StatusIs(absl::StatusCode::kUnavailable, "later"));
  const ErrorDetail got = DetailOf(back);
  EXPECT_EQ(got.oauth_error, "invalid_grant");
  EXPECT_EQ(got.reason, "link_user_mismatch");
  ASSERT_EQ(got.violations.size(), 1U);
  EXPECT_EQ(got.violations[0].field, "slug");
  EXPECT_EQ(got.violations[0].message, "is required");
  EXPECT_EQ(got.retry_after, absl::Milliseconds(1500));
  EXPECT_EQ(got.link, "https://gw.example.com/connect/a");
}

TEST(ErrorTest, InternalAndUnknownLoseTheirMessageOnTheWire) {
  EXPECT_EQ(ToGrpcStatus(absl::InternalError("table accounts is missing")).error_message(), "internal error");
  EXPECT_EQ(ToGrpcStatus(absl::UnknownError("stack trace")).error_message(), "internal error");
  EXPECT_EQ(ToGrpcStatus(absl::NotFoundError("no such server")).error_message(), "no such server");
}

TEST(ErrorTest, InternalKeepsItsReasonOnTheWire) {
  const grpc::Status wire = ToGrpcStatus(WithReason(absl::InternalError("secret path"), "tag_mismatch"));
  EXPECT_EQ(ReasonOf(FromGrpcStatus(wire)), "tag_mismatch");
}

// Longer ones close the channel between services.
TEST(ErrorTest, WhatIsTooLongForTheWireIsShortened) {
  std::vector<ErrorDetail::Violation> violations;
  for (int i = 0; i < 1000; ++i) violations.push_back({absl::StrCat("mcpServers[", i, "].slug"), "is required \u00e9"});

  const grpc::Status wire = ToGrpcStatus(WithReason(InvalidFields(violations), "many"));

  EXPECT_LE(3 * wire.error_message().size() + wire.error_details().size(), 24U * 1024);
  const ErrorDetail got = DetailOf(FromGrpcStatus(wire));
  EXPECT_EQ(got.reason, "many");
  ASSERT_GT(got.violations.size(), 100U);
  const size_t kept = got.violations.size() - 1;
  EXPECT_EQ(got.violations[kept - 1].field, violations[kept - 1].field);
  EXPECT_EQ(got.violations[kept].field, "");
  EXPECT_EQ(got.violations[kept].message, absl::StrCat("and ", 1000 - kept, " more: correct these first"));
}

TEST(ErrorTest, OkStaysOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_THAT(FromGrpcStatus(grpc::Status::OK), IsOk());
}

TEST(ErrorTest, GarbageInWireDetailsIsIgnored) {
  const absl::Status status = FromGrpcStatus(grpc::Status(grpc::StatusCode::NOT_FOUND, "gone", "\xff\xff\xff"));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kNotFound, "gone"));
  EXPECT_EQ(ReasonOf(status), "");
}

TEST(ErrorTest, SettersAddToWhatIsThere) {
  const absl::Status status =
      WithRetryAfter(WithOAuthError(WithReason(absl::UnavailableError("x"), "vault_sealed"), "temporarily_unavailable"),
                     absl::Seconds(2));
  const ErrorDetail detail = DetailOf(status);
  EXPECT_EQ(detail.reason, "vault_sealed");
  EXPECT_EQ(detail.oauth_error, "temporarily_unavailable");
  EXPECT_EQ(detail.retry_after, absl::Seconds(2));
}

TEST(ErrorTest, InvalidFieldsNamesAllAndCarriesThem) {
  const absl::Status status = InvalidFields({{"slug", "is required"}, {"allow.groups", "must not be empty"}});
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kInvalidArgument, "slug: is required; allow.groups: must not be empty"));
  EXPECT_EQ(DetailOf(status).violations.size(), 2U);
}

TEST(ErrorTest, NoViolationsIsOk) { EXPECT_THAT(InvalidFields({}), IsOk()); }

}  // namespace
}  // namespace sallyport

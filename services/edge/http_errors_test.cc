// SPDX-License-Identifier: Apache-2.0
#include "services/edge/http_errors.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "common/error.h"

namespace sallyport::edge {
namespace {

using nlohmann::json;

TEST(HttpErrors, EveryCodeHasItsStatus) {
  const std::vector<std::pair<absl::Status, int>> table = {
      {absl::OkStatus(), 200},
      {absl::InvalidArgumentError(""), 400},
      {absl::FailedPreconditionError(""), 400},
      {absl::OutOfRangeError(""), 400},
      {absl::UnauthenticatedError(""), 401},
      {absl::PermissionDeniedError(""), 403},
      {absl::NotFoundError(""), 404},
      {absl::AlreadyExistsError(""), 409},
      {absl::AbortedError(""), 409},
      {absl::ResourceExhaustedError(""), 429},
      {absl::UnimplementedError(""), 501},
      {absl::UnavailableError(""), 503},
      {absl::DeadlineExceededError(""), 504},
      {absl::InternalError(""), 500},
      {absl::UnknownError(""), 500},
      {absl::DataLossError(""), 500},
      {absl::CancelledError(""), 500},
  };
  for (const auto& [status, http] : table) EXPECT_EQ(HttpStatusOf(status), http) << std::string(status.ToString());
}

TEST(HttpErrors, BodiesNameReasonAndFields) {
  const json body = json::parse(ErrorBody(InvalidFields({{"slug", "is reserved"}, {"upstreamUrl", "is required"}})));
  EXPECT_EQ(body["error"], "invalid_argument");
  ASSERT_EQ(body["violations"].size(), 2U);
  EXPECT_EQ(body["violations"][1]["field"], "upstreamUrl");
  EXPECT_EQ(json::parse(ErrorBody(WithReason(absl::AbortedError("x"), "stale")))["error"], "stale");
  EXPECT_EQ(json::parse(ErrorBody(WithOAuthError(absl::InvalidArgumentError("x"), "invalid_target")))["error"],
            "invalid_target");
}

TEST(HttpErrors, InternalErrorsSayNothing) {
  for (const absl::Status& status : {absl::InternalError("password is hunter2"), absl::UnknownError("hunter2")}) {
    EXPECT_EQ(ErrorBody(status).find("hunter2"), std::string::npos);
    EXPECT_EQ(json::parse(ErrorBody(status))["message"], "internal error");
  }
}

TEST(HttpErrors, InvalidUtf8InAMessageStillMakesJson) {
  EXPECT_TRUE(json::accept(ErrorBody(absl::NotFoundError("no server \xff\"\n"))));
}

TEST(HttpErrors, RetryAfterIsInWholeSecondsRoundedUp) {
  EXPECT_EQ(RetryAfterSeconds(absl::UnavailableError("x")), 1);
  EXPECT_EQ(RetryAfterSeconds(absl::NotFoundError("x")), 0);
  EXPECT_EQ(RetryAfterSeconds(WithRetryAfter(absl::UnavailableError("x"), absl::Milliseconds(2100))), 3);
}

}  // namespace
}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include <gmock/gmock.h>

namespace sallyport::testing {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& status) {
  return status.status();
}

// EXPECT_THAT(status or StatusOr, IsOk())
MATCHER(IsOk, "is OK") {
  *result_listener << std::string(StatusOf(arg).ToString());
  return StatusOf(arg).ok();
}
// EXPECT_THAT(x, StatusIs(absl::StatusCode::kNotFound))
MATCHER_P(StatusIs, code, "has the status code") {
  *result_listener << std::string(StatusOf(arg).ToString());
  return StatusOf(arg).code() == code;
}
// EXPECT_THAT(x, StatusIs(code, "part of the message"))
MATCHER_P2(StatusIs, code, part, "has the status code and message") {
  *result_listener << std::string(StatusOf(arg).ToString());
  return StatusOf(arg).code() == code && std::string(StatusOf(arg).message()).find(part) != std::string::npos;
}

}  // namespace sallyport::testing

// ASSERT_OK_AND_ASSIGN(auto x, MakeX());
#define SALLYPORT_TEST_CONCAT_INNER(a, b) a##b
#define SALLYPORT_TEST_CONCAT(a, b) SALLYPORT_TEST_CONCAT_INNER(a, b)
#define ASSERT_OK_AND_ASSIGN(lhs, expr) \
  ASSERT_OK_AND_ASSIGN_IMPL(SALLYPORT_TEST_CONCAT(status_or_, __LINE__), lhs, expr)
#define ASSERT_OK_AND_ASSIGN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                              \
  ASSERT_THAT(tmp, ::sallyport::testing::IsOk()); \
  lhs = *std::move(tmp)

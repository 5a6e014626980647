// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include "absl/status/status.h"

// Returns from the enclosing function if `expr` is not OK.
#define RETURN_IF_ERROR(expr) RETURN_IF_ERROR_IMPL(SALLYPORT_CONCAT(status_, __COUNTER__), expr)
#define RETURN_IF_ERROR_IMPL(tmp, expr)         \
  do {                                          \
    if (absl::Status tmp = (expr); !tmp.ok()) { \
      return tmp;                               \
    }                                           \
  } while (false)

#define SALLYPORT_CONCAT_INNER(a, b) a##b
// Counted, not by line: an expression that holds a lambda which uses the macros again must not shadow.
#define SALLYPORT_CONCAT(a, b) SALLYPORT_CONCAT_INNER(a, b)

// ASSIGN_OR_RETURN(auto x, MakeX()): declares or assigns x, or returns the error.
#define ASSIGN_OR_RETURN(lhs, expr) ASSIGN_OR_RETURN_IMPL(SALLYPORT_CONCAT(status_or_, __COUNTER__), lhs, expr)
#define ASSIGN_OR_RETURN_IMPL(tmp, lhs, expr) \
  auto tmp = (expr);                          \
  if (!tmp.ok()) {                            \
    return std::move(tmp).status();           \
  }                                           \
  lhs = *std::move(tmp)

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace sallyport::oauth {

inline constexpr size_t kMaxClaimsParameter = 2048;

// What a provider wants to find in the parameter `claims` of an authorization request (OpenID Connect Core 1.0 section
// 5.5): `text`, if it is a JSON object of at most kMaxClaimsParameter bytes, else empty. It comes from outside, and a
// request without it is a request all the same.
std::string ClaimsParameter(absl::string_view text);

// Both in one parameter. Where they differ about a claim `configured` holds, so that nothing which comes from outside
// takes away what an administrator demands. `configured` as it is if it is no JSON object.
std::string MergeClaims(const std::string& configured, const std::string& wished);

}  // namespace sallyport::oauth

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/jose/jwt.h"

namespace sallyport::authn {

// The value of one claim, or of several joined by "|" ("tid+oid"), that names a person. UNAUTHENTICATED (invalid_token,
// reason "bad_subject") if one is absent, not a string, empty, longer than 255 bytes, or holds a control character;
// with several also if one holds "|", because "a|b"+"c" must not be "a"+"b|c".
absl::StatusOr<std::string> SubjectClaim(const Jwt& jwt, absl::string_view rule);

// Has the claim exactly this string value, or is it an array that holds it?
bool ClaimHolds(const Jwt& jwt, const std::string& claim, const std::string& value);

}  // namespace sallyport::authn

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace sallyport::oauth {

// What must be said of a rule that names a person by a claim, or by several joined with '+' ("tid+oid"), if one of them
// is a claim that users or administrators change and that another person may have later (OpenID Connect Core section
// 5.7): nothing if none is.
std::optional<std::string> MutableSubjectClaim(absl::string_view rule);

}  // namespace sallyport::oauth

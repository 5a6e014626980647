// SPDX-License-Identifier: Apache-2.0
#include "common/oauth/subject_claim.h"

#include <algorithm>
#include <array>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace sallyport::oauth {
namespace {

// OpenID Connect Core section 5.1, and what Entra and AD FS call a person.
constexpr std::array<absl::string_view, 13> kMutable = {
    "email",   "family_name",        "given_name", "middle_name", "name", "nickname", "phone_number",
    "picture", "preferred_username", "profile",    "unique_name", "upn",  "website"};

}  // namespace

std::optional<std::string> MutableSubjectClaim(absl::string_view rule) {
  for (const absl::string_view part : absl::StrSplit(rule, '+')) {
    const std::string name = absl::AsciiStrToLower(absl::StripAsciiWhitespace(part));
    if (std::find(kMutable.begin(), kMutable.end(), name) != kMutable.end()) {
      return absl::StrCat("\"", name,
                          "\" can change and be given to another person later: name a claim that never does, such as "
                          "sub, oid or uid");
    }
  }
  return std::nullopt;
}

}  // namespace sallyport::oauth

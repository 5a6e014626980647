// SPDX-License-Identifier: Apache-2.0
#include "services/authn/claims.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

#include "common/text/json.h"
#include "services/authn/errors.h"

namespace sallyport::authn {
namespace {

constexpr size_t kMaxSubjectPart = 255;

bool IsGoodPart(const std::string& part, bool joined) {
  return !part.empty() && part.size() <= kMaxSubjectPart && std::none_of(part.begin(), part.end(), [joined](char c) {
    return absl::ascii_iscntrl(static_cast<unsigned char>(c)) || (joined && c == '|');
  });
}

}  // namespace

absl::StatusOr<std::string> SubjectClaim(const Jwt& jwt, absl::string_view rule) {
  const std::vector<std::string> names = absl::StrSplit(rule.empty() ? "sub" : rule, '+');
  std::vector<std::string> parts;
  for (const std::string& name : names) {
    const std::optional<std::string> part = jwt.String(name.c_str());
    if (!part.has_value() || !IsGoodPart(*part, names.size() > 1)) {
      return InvalidToken("bad_subject");
    }
    parts.push_back(*part);
  }
  return absl::StrJoin(parts, "|");
}

bool ClaimHolds(const Jwt& jwt, const std::string& claim, const std::string& value) {
  const nlohmann::json* found = JsonMember(jwt.json(), claim.c_str());
  const auto is_value = [&value](const nlohmann::json& element) {
    return element.is_string() && element.get_ref<const std::string&>() == value;
  };
  if (found == nullptr) {
    return false;
  }
  return found->is_array() ? std::any_of(found->begin(), found->end(), is_value) : is_value(*found);
}

}  // namespace sallyport::authn

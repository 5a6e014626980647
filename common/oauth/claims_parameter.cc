// SPDX-License-Identifier: Apache-2.0
#include "common/oauth/claims_parameter.h"

#include "common/text/json.h"

namespace sallyport::oauth {
namespace {

void AddMissing(const nlohmann::json& wished, nlohmann::json& configured) {
  for (const auto& [name, value] : wished.items()) {
    const auto found = configured.find(name);
    if (found == configured.end()) {
      configured[name] = value;
    } else if (found->is_object() && value.is_object()) {
      AddMissing(value, *found);
    }
  }
}

}  // namespace

std::string ClaimsParameter(absl::string_view text) {
  const JsonLimits limits = {.max_bytes = kMaxClaimsParameter, .max_depth = 16, .max_keys = 200};
  return ParseJsonObject(text, limits).ok() ? std::string(text) : "";
}

std::string MergeClaims(const std::string& configured, const std::string& wished) {
  absl::StatusOr<nlohmann::json> merged = ParseJsonObject(configured);
  const absl::StatusOr<nlohmann::json> more = ParseJsonObject(wished);
  if (!merged.ok() || !more.ok()) {
    return configured;
  }
  AddMissing(*more, *merged);
  return DumpJson(*merged);
}

}  // namespace sallyport::oauth

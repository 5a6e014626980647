// SPDX-License-Identifier: Apache-2.0
#include "common/oauth/claims_parameter.h"

#include "common/text/json.h"

namespace sallyport::oauth {

std::string ClaimsParameter(absl::string_view text) {
  const JsonLimits limits = {.max_bytes = kMaxClaimsParameter, .max_depth = 16, .max_keys = 200};
  return ParseJsonObject(text, limits).ok() ? std::string(text) : "";
}

}  // namespace sallyport::oauth

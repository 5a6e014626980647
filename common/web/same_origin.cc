// SPDX-License-Identifier: Apache-2.0
#include "common/web/same_origin.h"

namespace sallyport::web {

absl::Status CheckSameOrigin(const WebRequest& request, absl::string_view public_url) {
  int origins = 0;
  bool ours = true;
  for (const auto& header : request.headers()) {
    if (header.name() == "origin") {
      ++origins;
      ours = ours && header.value() == public_url;
    } else if (header.name() == "sec-fetch-site") {
      ours = ours && header.value() == "same-origin";
    }
  }
  if (origins != 1 || !ours || public_url.empty()) {
    return absl::PermissionDeniedError("the form does not come from a page of this gateway");
  }
  return absl::OkStatus();
}

}  // namespace sallyport::web

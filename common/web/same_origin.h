// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

#include "common/web/responses.h"

namespace sallyport::web {

// Does a POST come from a page of ours? Browsers send `Origin` with every POST (Fetch standard, section 3.2), so it
// must be there, once, and be `public_url` to the byte; "null" is what a sandboxed frame or a privacy redirect sends.
// When `Sec-Fetch-Site` is there, it must be "same-origin", each time. PERMISSION_DENIED otherwise.
absl::Status CheckSameOrigin(const WebRequest& request, absl::string_view public_url);

}  // namespace sallyport::web

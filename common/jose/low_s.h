// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/strings/string_view.h"

// Of every ES256 signature (r, s) there is a twin, (r, n - s), which verifies as well (n: the order of P-256). Whoever
// holds a token can therefore spell it in two ways. The form with the smaller s is called low-S.
namespace sallyport {

// `raw`: r and s, 64 bytes (RFC 7518 section 3.4). False for any other length.
bool HasLowS(absl::string_view raw);
// The twin that has a low s; `raw` itself if it is that one. `raw` must be 64 bytes with s below n.
std::string WithLowS(std::string raw);

}  // namespace sallyport

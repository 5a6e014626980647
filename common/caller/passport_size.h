// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

namespace sallyport {

// A longer passport is refused. Well below what gRPC takes as metadata of a call (32 KiB), beyond which a call ends the
// connection, and with it calls of others.
inline constexpr size_t kMaxPassportBytes = size_t{24} << 10;

}  // namespace sallyport

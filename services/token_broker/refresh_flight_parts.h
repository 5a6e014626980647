// SPDX-License-Identifier: Apache-2.0
// What the parts of RefreshFlight's implementation share; nobody else includes this.
#pragma once

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

#include "common/error.h"

namespace sallyport::token_broker {

// Between attempts to store an answer.
inline constexpr absl::Duration kMaxStoreWait = absl::Seconds(5);
// Reason of a record whose former holder vanished, perhaps with an answer: remembered until a token is stored, so that
// whoever finds the token refused can say why.
inline constexpr char kHolderVanished[] = "holder_vanished";

inline absl::Status Unavailable(absl::string_view message, absl::Duration retry_after) {
  return WithRetryAfter(absl::UnavailableError(message), std::max(retry_after, absl::Seconds(1)));
}

inline absl::Duration Doubling(absl::Duration first, int attempt, absl::Duration limit) {
  return std::min(limit, first * std::pow(2.0, std::min(attempt, 20)));
}

}  // namespace sallyport::token_broker

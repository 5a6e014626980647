// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"

// What several parts of the registry have to say, named once.
namespace sallyport::registry::error {

// DATA_LOSS: a row of the store is damaged, or a newer version wrote it.
inline absl::Status DamagedResource() { return absl::DataLossError("a stored resource does not parse"); }
// UNAVAILABLE: ask again, perhaps another replica.
inline absl::Status ShuttingDown() { return absl::UnavailableError("registry is shutting down"); }
// CANCELLED: the other end of a Watch stream hung up.
inline absl::Status WatcherGone() { return absl::CancelledError("watcher is gone"); }

}  // namespace sallyport::registry::error

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "sallyport/registry/v1/registry.pb.h"

namespace sallyport::registry {

// WatchEvent.more: events above this size go out in parts of about this size (a resource is never cut).
inline constexpr size_t kEventPartBytes = 1 << 20;

// `event` itself if it is small enough, else its parts in order.
std::vector<std::shared_ptr<const v1::WatchEvent>> SplitEvent(std::shared_ptr<const v1::WatchEvent> event,
                                                              size_t part_bytes = kEventPartBytes);

}  // namespace sallyport::registry

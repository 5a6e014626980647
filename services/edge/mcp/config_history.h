// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "common/rpc/control_stream.h"

namespace sallyport::edge {

// How far into which store's history the configuration is. A version of a resource means something within one history
// only: a store restored from a backup counts on from where the backup was, and may give the same numbers to other
// content.
struct ConfigHistory {
  std::string store_id;
  int64_t revision = 0;

  static ConfigHistory Of(const RegistrySnapshot& snapshot) { return {snapshot.store_id, snapshot.revision}; }
  bool empty() const { return store_id.empty(); }
  // False if the store is another one, or has gone back.
  bool ContinuedBy(const RegistrySnapshot& next) const {
    return store_id == next.store_id && revision <= next.revision;
  }
};

}  // namespace sallyport::edge

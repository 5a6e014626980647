// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include "services/edge/http/gateway.h"
#include "services/edge/mcp/mcp_handler.h"

namespace sallyport::edge {

// What the gateway keeps for one exchange.
struct EdgeState final : ExchangeState {
  enum class Kind : uint8_t { kNone, kMcp, kPage, kApi };
  Kind kind = Kind::kNone;
  McpCall mcp;
};

// A worker thread's own data.
struct WorkerData {
  std::shared_ptr<const RouteTable> routes;
  OpenStreams::List streams;
  uint64_t routes_generation = 0;
  TokenHash token_hash;
  absl::flat_hash_map<PrincipalKey, PrincipalPtr> principals;  // In front of the process's table.
  static constexpr size_t kMaxPrincipals = 20'000;
};
inline WorkerData& DataOf(Exchange& exchange) { return *static_cast<WorkerData*>(exchange.worker().context); }

}  // namespace sallyport::edge

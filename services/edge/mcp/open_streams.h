// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "common/clock.h"
#include "common/mutex.h"
#include "common/rpc/control_stream.h"
#include "services/edge/http/gateway.h"
#include "services/edge/mcp/config_history.h"
#include "services/edge/mcp/ended.h"
#include "services/edge/mcp/mcp_call.h"

namespace sallyport::edge {

// The event streams that are open: a caller who is revoked, the end of the connection whose token they carry, or a
// server that is deleted or disabled, ends them, and so does their age. Another configuration of the server does not: a
// stream keeps the one it began with.
//
// Each worker keeps its own list and is told of what happened; calls that are no streams cost nothing.
class OpenStreams {
 public:
  static constexpr absl::Duration kMostAge = absl::Hours(4);

  // Who is revoked, and whose connections have ended.
  struct Revocations {
    bool full = false;  // Of the last hour, not only what is new.
    Ended ended;
  };

  // One worker's part.
  struct List {
    McpCall* oldest = nullptr;
    McpCall* newest = nullptr;
    bool sweeping = false;
    // What the worker was told last: a stream that opens now may have been asked for before.
    uint64_t revocations_seen = 0;
    std::deque<std::shared_ptr<const Revocations>> recent;
    std::shared_ptr<const RegistrySnapshot> snapshot;
  };

  explicit OpenStreams(const Clock& clock);

  void OnWorkerStart(Worker& worker);
  void OnWorkerStop(Worker& worker);
  // Any thread.
  void OnUpdate(const ControlUpdate& update);

  // The caller is about to be verified: what happens from here on concerns the call.
  static void Began(Exchange& exchange, McpCall& call);
  // The answer is an event stream. False: it was not to be any more, and the exchange has ended.
  bool Opened(Exchange& exchange, McpCall& call);
  static void Closed(McpCall& call);

 private:
  void Sweep(Worker& worker, List& list);

  const Clock& clock_;
  Mutex mu_;
  std::vector<Worker*> workers_ ABSL_GUARDED_BY(mu_);
  ConfigHistory history_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::edge

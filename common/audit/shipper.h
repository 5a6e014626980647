// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <grpcpp/channel.h>

#include "sallyport/audit/v1/audit.pb.h"

namespace sallyport {

// Stores a batch (one source and boot) and answers the highest sequence up to which everything is stored.
using AuditSink = std::function<absl::StatusOr<uint64_t>(const audit::v1::AppendRequest&)>;
// Audit/Append over a channel, 10 s a call.
AuditSink MakeAuditSink(std::shared_ptr<grpc::Channel> registry);

// Moves what lies in an AuditSegments directory to the sink, in order, at least once; deletes what is stored. Survives
// an unreachable sink (tries again with backoff) and restarts (a cursor file). Paced: busy at most `share`
// of the time, the sink's work included, while no more than half of `max_bytes` waits; from there on the share grows,
// to all of the time when the directory is full, for then events are lost.
class AuditShipper {
 public:
  struct Options {
    std::string directory;
    // AuditSegments::boot() of this process: its newest segment is still growing and stays.
    std::string live_boot;
    // How long to sleep when there is nothing to do.
    absl::Duration interval = absl::Milliseconds(250);
    absl::Duration max_backoff = absl::Seconds(5);
    int batch = 1000;
    double share = 0.05;
    int64_t max_bytes = int64_t{1} << 30;  // As AuditSegments::Options.
    std::string service;                   // Label of the metrics; "edge".
  };
  AuditShipper(Options options, AuditSink sink);
  ~AuditShipper();
  // False if something is still unshipped after `timeout`.
  bool Flush(absl::Duration timeout);
  void Stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sallyport

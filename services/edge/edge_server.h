// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include <grpcpp/channel.h>

#include "common/clock.h"
#include "common/service_main.h"
#include "sallyport/config/v1/services.pb.h"

namespace sallyport::edge {

struct EdgePeers {
  std::shared_ptr<grpc::Channel> authn;
  std::shared_ptr<grpc::Channel> token_broker;
  std::shared_ptr<grpc::Channel> vault;
  std::shared_ptr<grpc::Channel> registry;
};

// INVALID_ARGUMENT naming the fields. Channels to peers of the same process need no `server`.
absl::Status ValidateEdgeConfig(const config::v1::EdgeConfig& config);

// The same for a process of its own, which needs mTLS and its peers as well.
absl::Status ValidateSplitConfig(const config::v1::EdgeConfig& config);

// The edge with its listeners: the public one and, if server.listen is given, one for gRPC health checks. Serves from
// the snapshot on disk if the registry cannot be reached.
class EdgeServer final : public RunningService {
 public:
  static absl::StatusOr<std::unique_ptr<EdgeServer>> Start(const config::v1::EdgeConfig& config, const Clock& clock,
                                                           const EdgePeers& peers);
  ~EdgeServer() override;
  int port() const;
  absl::Status Ready() const override;
  void SetServing(bool serving) override;
  void Shutdown(absl::Duration grace) override;

  // RPCs made by the doors so far; a warm request makes none.
  uint64_t authenticate_calls() const;
  uint64_t resolve_calls() const;

 private:
  EdgeServer() = default;
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace sallyport::edge

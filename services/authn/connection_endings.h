// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include <grpcpp/channel.h>

#include "sallyport/token_broker/v1/endings.pb.h"

namespace sallyport::authn {

// Users' connections are the broker's: it ends them by authn's word. Virtual for tests. Thread-safe.
class ConnectionEndings {
 public:
  virtual ~ConnectionEndings() = default;
  // One page. `passport`: of purpose end, naming what `request` does. Blocks, at most `timeout`.
  virtual absl::StatusOr<token_broker::v1::EndConnectionsResponse> End(
      const token_broker::v1::EndConnectionsRequest& request, const std::string& passport, absl::Duration timeout) = 0;
};

// Lazy: `broker` may lead nowhere yet.
std::unique_ptr<ConnectionEndings> MakeConnectionEndings(const std::shared_ptr<grpc::Channel>& broker);

}  // namespace sallyport::authn

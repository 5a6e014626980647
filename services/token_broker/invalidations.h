// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <grpcpp/channel.h>

#include "sallyport/registry/v1/registry.grpc.pb.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/task_runner.h"
#include "services/token_broker/token_cache.h"

namespace sallyport::token_broker {

// Tells everybody that a connection is not what it was: this process at once, edges and the other brokers over the
// control stream. Publishing is tried again for a minute, behind the caller. Thread-safe.
class Invalidations {
 public:
  // `cache` and `runner` outlive this.
  Invalidations(const std::shared_ptr<grpc::Channel>& registry, TokenCache& cache, TaskRunner& runner);

  // Entries of generations before `generation` are no longer to be believed. True if the registry has it already (it is
  // tried once before this returns, for at most 2 s).
  bool Connection(const ConnectionKey& key, int64_t generation, absl::Time now);
  struct Entry {
    ConnectionKey key;
    int64_t generation = 0;
  };
  // The same of many, in one message.
  bool Connections(const std::vector<Entry>& entries, absl::Time now);
  // Everything of `subject` is ended: passports that authn has made until `at` are of before.
  bool Ended(const std::string& subject, absl::Time at, absl::Time now);

 private:
  // Once before it returns, then behind the caller.
  bool PublishFirst(const registry::v1::PublishInvalidationsRequest& request);
  void Publish(registry::v1::PublishInvalidationsRequest request, int attempt);
  bool PublishOnce(const registry::v1::PublishInvalidationsRequest& request);

  std::shared_ptr<registry::v1::Registry::Stub> registry_;
  TokenCache& cache_;
  TaskRunner& runner_;
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/invalidations.h"

#include <algorithm>
#include <utility>

#include "common/json_log.h"
#include "common/proto_time.h"
#include "common/rpc/server.h"

namespace sallyport::token_broker {
namespace {

constexpr int kAttemptsBetweenLines = 30;
constexpr absl::Duration kMaxPause = absl::Seconds(10);

}  // namespace

Invalidations::Invalidations(const std::shared_ptr<grpc::Channel>& registry, TokenCache& cache, TaskRunner& runner)
    : registry_(registry::v1::Registry::NewStub(registry)), cache_(cache), runner_(runner) {}

bool Invalidations::PublishOnce(const registry::v1::PublishInvalidationsRequest& request) {
  std::unique_ptr<grpc::ClientContext> context = MakeClientContext(absl::Seconds(2));
  registry::v1::PublishInvalidationsResponse response;
  return registry_->PublishInvalidations(context.get(), request, &response).ok();
}

bool Invalidations::Connection(const ConnectionKey& key, int64_t generation, absl::Time now) {
  return Connections({{key, generation}}, now);
}

bool Invalidations::Connections(const std::vector<Entry>& entries, absl::Time now) {
  registry::v1::PublishInvalidationsRequest request;
  for (const Entry& entry : entries) {
    cache_.Forget(entry.key, entry.generation);
    registry::v1::Invalidation* invalidation = request.add_invalidations();
    invalidation->set_kind(registry::v1::Invalidation::CONNECTION);
    invalidation->set_key(entry.key.ToString());
    invalidation->set_generation(entry.generation);
    *invalidation->mutable_at() = ToTimestamp(now);
  }
  return entries.empty() || PublishFirst(request);
}

bool Invalidations::Ended(const std::string& subject, absl::Time at, absl::Time now) {
  cache_.InvalidateSubject(subject);
  registry::v1::PublishInvalidationsRequest request;
  registry::v1::Invalidation* invalidation = request.add_invalidations();
  invalidation->set_kind(registry::v1::Invalidation::SUBJECT);
  invalidation->set_key(subject);
  *invalidation->mutable_ended_at() = ToTimestamp(at);
  *invalidation->mutable_at() = ToTimestamp(now);
  return PublishFirst(request);
}

bool Invalidations::PublishFirst(const registry::v1::PublishInvalidationsRequest& request) {
  if (PublishOnce(request)) {
    return true;
  }
  Publish(request, 1);
  return false;
}

void Invalidations::Publish(registry::v1::PublishInvalidationsRequest request, int attempt) {
  // For as long as this process lives: until it has arrived, other replicas go by what they read within a minute.
  if (attempt % kAttemptsBetweenLines == 0) {
    Log(LogLevel::kWarning, "invalidation_not_published", {{"attempts", attempt}});
  }
  runner_.PostAfter(std::min(kMaxPause, absl::Milliseconds(100) * attempt),
                    [this, request = std::move(request), attempt] {
                      if (!PublishOnce(request)) {
                        Publish(request, attempt + 1);
                      }
                    });
}

}  // namespace sallyport::token_broker

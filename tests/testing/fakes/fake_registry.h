// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include <grpcpp/grpcpp.h>

#include "common/mutex.h"
#include "sallyport/registry/v1/registry.grpc.pb.h"

namespace sallyport::testing {

// The registry's control stream, with a configuration that a test sets; tests/contract holds it to the real one.
// Servers get their plans as there. Resumes no watcher: each is sent a snapshot first. Thread-safe.
class FakeRegistry : public registry::v1::Registry::Service {
 public:
  grpc::Status Watch(grpc::ServerContext* context, const registry::v1::WatchRequest* request,
                     grpc::ServerWriter<registry::v1::WatchEvent>* writer) override;
  grpc::Status PublishInvalidations(grpc::ServerContext* context,
                                    const registry::v1::PublishInvalidationsRequest* request,
                                    registry::v1::PublishInvalidationsResponse* response) override;
  grpc::Status FinishApp(grpc::ServerContext* context, const registry::v1::FinishAppRequest* request,
                         registry::v1::FinishAppResponse* response) override;

  // Part of the snapshot, and changed through the pointer, only before the first watcher comes.
  registry::v1::McpServer* AddServer();
  registry::v1::App* AddApp();
  // Before or after watchers came: they are sent a delta.
  void Put(const registry::v1::McpServer& server);
  void PutApp(const registry::v1::App& app);
  // Deleted, and kept until FinishApp.
  void EndApp(const std::string& uid);
  // FinishApp answers FAILED_PRECONDITION, as for a while after the deletion.
  void SetFinishRefused(bool refused);
  // Uids given to FinishApp, in order, and not refused.
  std::vector<std::string> finished() const;
  // Watchers are sent the whole snapshot again.
  void Change(const std::function<void(registry::v1::WatchEvent::Snapshot&)>& how);
  void Invalidate(registry::v1::Invalidation::Kind kind, const std::string& key, int64_t generation = 0);
  // Everything of this user was ended.
  void EndSubject(const std::string& subject, absl::Time ended_at);
  void Heartbeat();
  // Ends every stream, and refuses new ones while down.
  void SetDown(bool down);
  // PublishInvalidations answers UNAVAILABLE.
  void SetPublishFails(bool fails);
  // What was published, by services and by Invalidate.
  std::vector<registry::v1::Invalidation> invalidations() const;

 private:
  void Push(registry::v1::WatchEvent event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  registry::v1::WatchEvent Snapshot() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_;
  std::condition_variable_any changed_;
  bool down_ ABSL_GUARDED_BY(mu_) = false;
  bool publish_fails_ ABSL_GUARDED_BY(mu_) = false;
  bool finish_refused_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t epoch_ ABSL_GUARDED_BY(mu_) = 0;
  int64_t revision_ ABSL_GUARDED_BY(mu_) = 1;
  registry::v1::WatchEvent::Snapshot snapshot_ ABSL_GUARDED_BY(mu_);
  std::vector<registry::v1::WatchEvent> events_ ABSL_GUARDED_BY(mu_);
  std::vector<std::string> finished_ ABSL_GUARDED_BY(mu_);
  std::vector<registry::v1::Invalidation> invalidations_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::testing

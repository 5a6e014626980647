// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/fakes/fake_registry.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/proto_time.h"
#include "services/registry/credentials/credentials.h"

namespace sallyport::testing {
namespace {

constexpr char kStoreId[] = "store";
// How often a stream looks whether its watcher has gone.
constexpr std::chrono::milliseconds kLook{20};

}  // namespace

grpc::Status FakeRegistry::Watch(grpc::ServerContext* context, const registry::v1::WatchRequest* /*request*/,
                                 grpc::ServerWriter<registry::v1::WatchEvent>* writer) {
  registry::v1::WatchEvent next;
  size_t sent = 0;
  uint64_t epoch = 0;
  {
    MutexLock lock(mu_);
    if (down_) return {grpc::StatusCode::UNAVAILABLE, "down"};
    epoch = epoch_;
    sent = events_.size();
    next = Snapshot();
  }
  writer->Write(next);
  while (!context->IsCancelled()) {
    {
      MutexLock lock(mu_);
      if (epoch != epoch_) return {grpc::StatusCode::UNAVAILABLE, "cut"};
      if (sent == events_.size()) {
        changed_.wait_for(mu_, kLook);
        continue;
      }
      next = events_[sent++];
    }
    writer->Write(next);
  }
  return grpc::Status::OK;
}

grpc::Status FakeRegistry::PublishInvalidations(grpc::ServerContext* /*context*/,
                                                const registry::v1::PublishInvalidationsRequest* request,
                                                registry::v1::PublishInvalidationsResponse* /*response*/) {
  MutexLock lock(mu_);
  if (publish_fails_) return {grpc::StatusCode::UNAVAILABLE, "down"};
  registry::v1::WatchEvent event;
  *event.mutable_delta()->mutable_invalidations() = request->invalidations();
  Push(std::move(event));
  return grpc::Status::OK;
}

registry::v1::McpServer* FakeRegistry::AddServer() {
  MutexLock lock(mu_);
  return snapshot_.add_mcp_servers();
}

registry::v1::App* FakeRegistry::AddApp() {
  MutexLock lock(mu_);
  return snapshot_.add_apps();
}

void FakeRegistry::Put(const registry::v1::McpServer& server) {
  MutexLock lock(mu_);
  *snapshot_.add_mcp_servers() = server;
  registry::v1::WatchEvent event;
  *event.mutable_delta()->add_mcp_servers() = server;
  Push(std::move(event));
}

void FakeRegistry::PutApp(const registry::v1::App& app) {
  MutexLock lock(mu_);
  *snapshot_.add_apps() = app;
  registry::v1::WatchEvent event;
  *event.mutable_delta()->add_apps() = app;
  Push(std::move(event));
}

void FakeRegistry::EndApp(const std::string& uid) {
  MutexLock lock(mu_);
  registry::v1::WatchEvent event;
  event.mutable_delta()->add_deleted_app_uids(uid);
  auto& apps = *snapshot_.mutable_apps();
  for (int i = 0; i < apps.size(); ++i) {
    if (apps[i].uid() != uid) continue;
    *snapshot_.add_ending_apps() = apps[i];
    *event.mutable_delta()->add_ending_apps() = apps[i];
    apps.DeleteSubrange(i, 1);
    break;
  }
  Push(std::move(event));
}

grpc::Status FakeRegistry::FinishApp(grpc::ServerContext* /*context*/, const registry::v1::FinishAppRequest* request,
                                     registry::v1::FinishAppResponse* /*response*/) {
  MutexLock lock(mu_);
  if (finish_refused_) return {grpc::StatusCode::FAILED_PRECONDITION, "was deleted less than a minute ago"};
  finished_.push_back(request->app_uid());
  auto& ending = *snapshot_.mutable_ending_apps();
  const auto found =
      std::find_if(ending.begin(), ending.end(), [&](const auto& app) { return app.uid() == request->app_uid(); });
  if (found == ending.end()) return grpc::Status::OK;
  ending.erase(found);
  registry::v1::WatchEvent event;
  event.mutable_delta()->add_finished_app_uids(request->app_uid());
  Push(std::move(event));
  return grpc::Status::OK;
}

void FakeRegistry::SetFinishRefused(bool refused) {
  MutexLock lock(mu_);
  finish_refused_ = refused;
}

std::vector<std::string> FakeRegistry::finished() const {
  MutexLock lock(mu_);
  return finished_;
}

void FakeRegistry::Change(const std::function<void(registry::v1::WatchEvent::Snapshot&)>& how) {
  MutexLock lock(mu_);
  how(snapshot_);
  registry::v1::WatchEvent event;
  *event.mutable_snapshot() = snapshot_;
  Push(std::move(event));
}

void FakeRegistry::Invalidate(registry::v1::Invalidation::Kind kind, const std::string& key, int64_t generation) {
  MutexLock lock(mu_);
  registry::v1::WatchEvent event;
  auto& invalidation = *event.mutable_delta()->add_invalidations();
  invalidation.set_kind(kind);
  invalidation.set_key(key);
  invalidation.set_generation(generation);
  Push(std::move(event));
}

void FakeRegistry::EndSubject(const std::string& subject, absl::Time ended_at) {
  MutexLock lock(mu_);
  registry::v1::WatchEvent event;
  auto& invalidation = *event.mutable_delta()->add_invalidations();
  invalidation.set_kind(registry::v1::Invalidation::SUBJECT);
  invalidation.set_key(subject);
  *invalidation.mutable_ended_at() = ToTimestamp(ended_at);
  Push(std::move(event));
}

void FakeRegistry::Heartbeat() {
  MutexLock lock(mu_);
  registry::v1::WatchEvent event;
  event.set_store_id(kStoreId);
  event.set_revision(revision_);
  event.mutable_heartbeat();
  events_.push_back(std::move(event));
  changed_.notify_all();
}

void FakeRegistry::SetDown(bool down) {
  MutexLock lock(mu_);
  down_ = down;
  ++epoch_;
  changed_.notify_all();
}

void FakeRegistry::SetPublishFails(bool fails) {
  MutexLock lock(mu_);
  publish_fails_ = fails;
}

std::vector<registry::v1::Invalidation> FakeRegistry::invalidations() const {
  MutexLock lock(mu_);
  return invalidations_;
}

void FakeRegistry::Push(registry::v1::WatchEvent event) {
  event.set_store_id(kStoreId);
  event.set_revision(++revision_);
  registry::LowerServers(event);
  for (const auto& invalidation : event.delta().invalidations()) invalidations_.push_back(invalidation);
  events_.push_back(std::move(event));
  changed_.notify_all();
}

registry::v1::WatchEvent FakeRegistry::Snapshot() const {
  registry::v1::WatchEvent event;
  event.set_store_id(kStoreId);
  event.set_revision(revision_);
  *event.mutable_snapshot() = snapshot_;
  registry::LowerServers(event);
  return event;
}

}  // namespace sallyport::testing

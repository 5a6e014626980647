// SPDX-License-Identifier: Apache-2.0
#include "services/registry/watch_hub.h"

#include <deque>

#include "common/clock.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/status_macros.h"
#include "services/registry/credentials/credentials.h"
#include "services/registry/errors.h"
#include "services/registry/event_parts.h"
#include "services/registry/store.h"

namespace sallyport::registry {
namespace {

constexpr auto kPollInterval = std::chrono::milliseconds(200);
constexpr absl::Duration kHeartbeat = absl::Seconds(5);
// A watcher that does not read is cut; it comes back and gets a snapshot.
constexpr size_t kMaxQueued = 1000;

}  // namespace

WatchHub::WatchHub(Database& database) : database_(database), thread_([this] { Run(); }) {}

WatchHub::~WatchHub() { Stop(); }

void WatchHub::Stop() {
  {
    MutexLock lock(mu_);
    if (stopped_) return;
    stopped_ = true;
    wake_.notify_all();
  }
  thread_.join();
  MutexLock lock(order_);
  closed_ = true;  // Nobody would end a watcher that came now.
  for (Watcher* watcher : watchers_) watcher->OnClosed();
  watchers_.clear();
}

void WatchHub::Kick() {
  MutexLock lock(mu_);
  kicked_ = true;
  wake_.notify_all();
}

void WatchHub::Run() {
  while (true) {
    {
      std::unique_lock lock(mu_);
      wake_.wait_for(lock, kPollInterval, [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return kicked_ || stopped_; });
      if (stopped_) return;
      kicked_ = false;
    }
    Poll();
  }
}

void WatchHub::Poll() {
  MutexLock lock(order_);
  if (watchers_.empty() || revision_ < 0) return;
  auto event = std::make_shared<v1::WatchEvent>();
  const absl::Status status = database_.Read([&](Transaction& tx) -> absl::Status {
    ASSIGN_OR_RETURN(const int64_t revision, Store::Revision(tx));
    if (revision == revision_) {
      ASSIGN_OR_RETURN(*event->mutable_store_id(), Store::StoreId(tx));
      event->set_revision(revision);
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(auto delta, Store::DeltaSince(tx, revision_));
    if (delta) {
      *event = *std::move(delta);
      return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(*event, Store::Snapshot(tx));
    return absl::OkStatus();
  });
  if (!status.ok()) {
    Log(LogLevel::kWarning, "change_poll_failed", {{"status", status}});
    return;
  }
  const absl::Time now = SystemClock().Now();
  if (event->revision() == revision_) {
    if (now - last_heartbeat_ < kHeartbeat) return;
    event->mutable_heartbeat();
  }
  last_heartbeat_ = now;
  revision_ = event->revision();
  LowerServers(*event);
  for (Watcher* watcher : watchers_) watcher->OnEvent(event);
}

absl::Status WatchHub::Subscribe(Watcher* watcher, const std::string& store_id, int64_t revision) {
  MutexLock lock(order_);
  if (closed_) return error::ShuttingDown();
  auto event = std::make_shared<v1::WatchEvent>();
  std::shared_ptr<v1::WatchEvent> missed;
  // One look at the store for the new watcher and for those who are there: afterwards all continue from one revision.
  RETURN_IF_ERROR(database_.Read([&](Transaction& tx) -> absl::Status {
    const auto since = [&tx](int64_t after, bool known, v1::WatchEvent& out) -> absl::Status {
      if (known) {
        ASSIGN_OR_RETURN(auto delta, Store::DeltaSince(tx, after));
        if (delta) {
          out = *std::move(delta);
          return absl::OkStatus();
        }
      }
      ASSIGN_OR_RETURN(out, Store::Snapshot(tx));
      return absl::OkStatus();
    };
    ASSIGN_OR_RETURN(const std::string own_id, Store::StoreId(tx));
    RETURN_IF_ERROR(since(revision, store_id == own_id && revision > 0, *event));
    if (watchers_.empty() || event->revision() == revision_) return absl::OkStatus();
    missed = std::make_shared<v1::WatchEvent>();
    return since(revision_, true, *missed);
  }));
  LowerServers(*event);
  if (missed != nullptr) {
    LowerServers(*missed);
    for (Watcher* other : watchers_) other->OnEvent(missed);
  }
  revision_ = event->revision();
  watchers_.insert(watcher);
  watcher->OnEvent(event);
  return absl::OkStatus();
}

void WatchHub::Unsubscribe(Watcher* watcher) {
  MutexLock lock(order_);
  watchers_.erase(watcher);
}

namespace {

// Writes one event at a time; events wait in a queue meanwhile. Deletes itself in OnDone.
class WatchReactor final : public grpc::ServerWriteReactor<v1::WatchEvent>, public WatchHub::Watcher {
 public:
  WatchReactor(WatchHub& hub, std::function<void(const absl::Status&)> on_done)
      : hub_(hub), on_done_(std::move(on_done)) {}

  void Begin(const v1::WatchRequest& request) {
    accepts_parts_ = request.accepts_parts();
    const absl::Status status = hub_.Subscribe(this, request.store_id(), request.revision());
    if (!status.ok()) End(status);
  }

  void OnEvent(WatchHub::Event event) override {
    MutexLock lock(mu_);
    if (finished_) return;
    if (queue_.size() >= kMaxQueued) return EndLocked(absl::ResourceExhaustedError("watcher does not read"));
    if (accepts_parts_) {
      for (WatchHub::Event& part : SplitEvent(std::move(event))) queue_.push_back(std::move(part));
    } else {
      queue_.push_back(std::move(event));
    }
    if (!writing_) WriteNext();
  }
  void OnClosed() override { End(error::ShuttingDown()); }

  void OnWriteDone(bool ok) override {
    MutexLock lock(mu_);
    writing_ = false;
    current_.reset();
    if (finish_when_idle_) return FinishNow();
    if (!ok) return EndLocked(error::WatcherGone());
    if (!queue_.empty()) WriteNext();
  }
  void OnCancel() override { End(error::WatcherGone()); }
  void OnDone() override {
    hub_.Unsubscribe(this);
    on_done_(end_);
    delete this;
  }

 private:
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    current_ = std::move(queue_.front());
    queue_.pop_front();
    writing_ = true;
    StartWrite(current_.get());
  }
  void End(const absl::Status& status) {
    MutexLock lock(mu_);
    EndLocked(status);
  }
  void EndLocked(const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (finished_) return;
    finished_ = true;
    end_ = status;
    queue_.clear();
    if (writing_) {
      finish_when_idle_ = true;
    } else {
      FinishNow();
    }
  }
  void FinishNow() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    finish_when_idle_ = false;
    Finish(ToGrpcStatus(end_));
  }

  WatchHub& hub_;
  const std::function<void(const absl::Status&)> on_done_;
  bool accepts_parts_ = false;  // Set before the hub knows of this.
  Mutex mu_;
  std::deque<WatchHub::Event> queue_ ABSL_GUARDED_BY(mu_);
  WatchHub::Event current_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool finished_ ABSL_GUARDED_BY(mu_) = false;
  bool finish_when_idle_ ABSL_GUARDED_BY(mu_) = false;
  absl::Status end_;
};

}  // namespace

grpc::ServerWriteReactor<v1::WatchEvent>* MakeWatchReactor(WatchHub& hub, const v1::WatchRequest& request,
                                                           std::function<void(const absl::Status&)> on_done) {
  auto* reactor = new WatchReactor(hub, std::move(on_done));  // Deleted in OnDone.
  reactor->Begin(request);
  return reactor;
}

}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#include "common/rpc/control_stream.h"

#include <algorithm>
#include <condition_variable>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"

#include "common/backoff.h"
#include "common/crypto/random.h"
#include "common/error.h"
#include "common/json_log.h"
#include "common/mutex.h"
#include "common/rpc/server.h"
#include "sallyport/registry/v1/registry.grpc.pb.h"

namespace sallyport {
namespace {

using registry::v1::WatchEvent;

// Of all parts of an event together: tens of thousands of servers.
constexpr size_t kMaxEventBytes = 256 << 20;

template <typename Map>
auto* Find(const Map& map, absl::string_view key) {
  const auto found = map.find(key);
  return found == map.end() ? nullptr : found->second.get();
}

// Puts `resource` in both indexes. Slugs are immutable, but a deleted one may be taken by a new uid.
template <typename Map, typename Resource>
void Put(const Resource& resource, Map& by_uid, Map& by_slug) {
  auto shared = std::make_shared<const Resource>(resource);
  by_uid[resource.uid()] = shared;
  by_slug[resource.slug()] = std::move(shared);
}

template <typename Map>
void Remove(const std::string& uid, Map& by_uid, Map& by_slug) {
  const auto found = by_uid.find(uid);
  if (found == by_uid.end()) {
    return;
  }
  const auto slug = by_slug.find(found->second->slug());
  if (slug != by_slug.end() && slug->second->uid() == uid) {
    by_slug.erase(slug);
  }
  by_uid.erase(found);
}

// A change replaces a resource of the same uid; one with the same slug and another uid is gone by then.
template <typename Changes>
void Upsert(const Changes& changes, RegistrySnapshot& snapshot) {
  for (const registry::v1::McpServer& server : changes.mcp_servers()) {
    Put(server, snapshot.servers_by_uid, snapshot.servers_by_slug);
    snapshot.deleted_server_uids.erase(server.uid());
  }
  for (const registry::v1::App& app : changes.apps()) {
    Put(app, snapshot.apps_by_uid, snapshot.apps_by_slug);
  }
  for (const registry::v1::App& app : changes.ending_apps()) {
    snapshot.ending_apps_by_uid[app.uid()] = std::make_shared<const registry::v1::App>(app);
  }
  for (const registry::v1::Credential& credential : changes.credentials()) {
    Put(credential, snapshot.credentials_by_uid, snapshot.credentials_by_slug);
  }
}

void Delete(const WatchEvent::Delta& delta, RegistrySnapshot& snapshot) {
  for (const std::string& uid : delta.deleted_mcp_server_uids()) {
    Remove(uid, snapshot.servers_by_uid, snapshot.servers_by_slug);
    snapshot.deleted_server_uids.insert(uid);
  }
  for (const std::string& uid : delta.deleted_app_uids()) {
    Remove(uid, snapshot.apps_by_uid, snapshot.apps_by_slug);
  }
  for (const std::string& uid : delta.deleted_credential_uids()) {
    Remove(uid, snapshot.credentials_by_uid, snapshot.credentials_by_slug);
  }
}

bool HasResources(const WatchEvent::Delta& delta) {
  return delta.mcp_servers_size() + delta.apps_size() + delta.credentials_size() +
             delta.deleted_mcp_server_uids_size() + delta.deleted_app_uids_size() +
             delta.deleted_credential_uids_size() + delta.ending_apps_size() + delta.finished_app_uids_size() >
         0;
}

// What `event` makes of `before`.
ControlUpdate Advance(const RegistrySnapshot& before, const WatchEvent& event) {
  ControlUpdate update;
  auto after = std::make_shared<RegistrySnapshot>();
  if (event.has_snapshot()) {
    Upsert(event.snapshot(), *after);
    update.full = true;
    update.config_changed = true;
    update.invalidations.assign(event.snapshot().invalidations().begin(), event.snapshot().invalidations().end());
  } else {
    *after = before;  // Copies pointers, not resources.
    Delete(event.delta(), *after);
    Upsert(event.delta(), *after);
    for (const std::string& uid : event.delta().finished_app_uids()) {
      after->ending_apps_by_uid.erase(uid);
    }
    update.config_changed = HasResources(event.delta());
    update.invalidations.assign(event.delta().invalidations().begin(), event.delta().invalidations().end());
  }
  after->store_id = event.store_id();
  after->revision = event.revision();
  update.snapshot = std::move(after);
  return update;
}

// Puts the parts of an event together (WatchEvent.more).
class Assembly {
 public:
  enum class Result { kWhole, kPart, kBroken };
  // kWhole: `event` holds all parts now. kBroken: this stream is of no use any more; nothing of the event is to be
  // applied.
  Result Add(WatchEvent& event) {
    if (bytes_ == 0 && !event.more()) {
      return Result::kWhole;
    }
    const bool first = bytes_ == 0;
    const bool continues = event.store_id() == whole_.store_id() && event.revision() == whole_.revision() &&
                           event.event_case() == whole_.event_case();
    bytes_ += event.ByteSizeLong();
    if ((!first && !continues) || event.has_heartbeat() || bytes_ > kMaxEventBytes) {
      return Result::kBroken;
    }
    whole_.MergeFrom(event);
    if (event.more()) {
      return Result::kPart;
    }
    whole_.set_more(false);
    event.Clear();
    event.Swap(&whole_);
    bytes_ = 0;
    return Result::kWhole;
  }

 private:
  WatchEvent whole_;
  size_t bytes_ = 0;
};

}  // namespace

const registry::v1::McpServer* RegistrySnapshot::ServerByUid(absl::string_view uid) const {
  return Find(servers_by_uid, uid);
}
const registry::v1::McpServer* RegistrySnapshot::ServerBySlug(absl::string_view slug) const {
  return Find(servers_by_slug, slug);
}
const registry::v1::App* RegistrySnapshot::AppByUid(absl::string_view uid) const { return Find(apps_by_uid, uid); }
const registry::v1::App* RegistrySnapshot::AppBySlug(absl::string_view slug) const { return Find(apps_by_slug, slug); }
const registry::v1::App* RegistrySnapshot::EndingAppByUid(absl::string_view uid) const {
  return Find(ending_apps_by_uid, uid);
}
const registry::v1::Credential* RegistrySnapshot::CredentialByUid(absl::string_view uid) const {
  return Find(credentials_by_uid, uid);
}
const registry::v1::Credential* RegistrySnapshot::CredentialBySlug(absl::string_view slug) const {
  return Find(credentials_by_slug, slug);
}

namespace {

// One Watch. The thread that reads waits on a lock of its own: a blocking read of gRPC's would take part in polling
// every connection of the process, and pass what it finds there to the threads that serve it.
class EventReader final : public grpc::ClientReadReactor<WatchEvent> {
 public:
  void Start(registry::v1::Registry::Stub& stub, grpc::ClientContext& context,
             const registry::v1::WatchRequest& request) {
    stub.async()->Watch(&context, &request, this);
    StartRead(&event_);
    StartCall();
  }
  // False when the stream has ended.
  bool Read(WatchEvent& event) {
    {
      MutexLock lock(mu_);
      while (!there_ && !ended_) changed_.wait(mu_);
      if (!there_) return false;
      event = std::move(event_);
      event_.Clear();
      there_ = false;
    }
    // Not under the lock: gRPC may call OnReadDone before this returns.
    StartRead(&event_);
    return true;
  }
  // After Read said false.
  grpc::Status Finish() {
    MutexLock lock(mu_);
    while (!done_) changed_.wait(mu_);
    return status_;
  }

 private:
  void OnReadDone(bool ok) override {
    MutexLock lock(mu_);
    (ok ? there_ : ended_) = true;
    changed_.notify_all();
  }
  void OnDone(const grpc::Status& status) override {
    MutexLock lock(mu_);
    status_ = status;
    done_ = ended_ = true;
    changed_.notify_all();
  }

  Mutex mu_;
  std::condition_variable_any changed_;
  WatchEvent event_;  // Of gRPC from StartRead to OnReadDone, then of the thread that reads.
  bool there_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  bool done_ ABSL_GUARDED_BY(mu_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

struct ControlStream::State {
  std::shared_ptr<grpc::Channel> channel;
  const Clock& clock;
  const Options options;
  std::vector<Listener> listeners;
  std::thread thread;
  std::thread watchdog;

  mutable Mutex mu;
  mutable std::condition_variable_any changed;
  std::shared_ptr<const RegistrySnapshot> snapshot ABSL_GUARDED_BY(mu) = std::make_shared<const RegistrySnapshot>();
  std::shared_ptr<grpc::ClientContext> call ABSL_GUARDED_BY(mu);  // Null while no stream is open.
  bool open ABSL_GUARDED_BY(mu) = false;                          // An event came on `call`.
  std::chrono::steady_clock::time_point heard ABSL_GUARDED_BY(mu);
  absl::Time last_contact ABSL_GUARDED_BY(mu) = absl::InfinitePast();
  bool stopping ABSL_GUARDED_BY(mu) = false;
  bool unreachable ABSL_GUARDED_BY(mu) = false;  // And the log says so.

  State(std::shared_ptr<grpc::Channel> registry, const Clock& time, Options chosen)
      : channel(std::move(registry)), clock(time), options(chosen) {}

  void Run();
  // Returns when the stream has ended; true if anything came.
  bool Follow();
  void Watch();
  void Take(const WatchEvent& event);
  void Tell(const ControlUpdate& update) const {
    for (const Listener& listener : listeners) {
      listener(update);
    }
  }
  // False if stopping.
  bool Sleep(absl::Duration duration);
  std::shared_ptr<grpc::ClientContext> Open(registry::v1::WatchRequest* request);
  template <typename Predicate>
  bool WaitUntil(absl::Duration timeout, Predicate predicate) const;
};

template <typename Predicate>
bool ControlStream::State::WaitUntil(absl::Duration timeout, Predicate predicate) const {
  const auto deadline = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(timeout);
  MutexLock lock(mu);
  while (!predicate() && !stopping) {
    if (changed.wait_until(mu, deadline) == std::cv_status::timeout) {
      return predicate();
    }
  }
  return predicate();
}

bool ControlStream::State::Sleep(absl::Duration duration) {
  WaitUntil(duration, [] { return false; });
  MutexLock lock(mu);
  return !stopping;
}

std::shared_ptr<grpc::ClientContext> ControlStream::State::Open(registry::v1::WatchRequest* request) {
  MutexLock lock(mu);
  if (stopping) {
    return nullptr;
  }
  request->set_store_id(snapshot->store_id);
  request->set_revision(snapshot->revision);
  request->set_accepts_parts(true);
  // No deadline: the watchdog ends a silent stream, and Stop ends any.
  call = std::make_shared<grpc::ClientContext>();
  open = false;
  heard = std::chrono::steady_clock::now();
  return call;
}

bool ControlStream::State::Follow() {
  registry::v1::WatchRequest request;
  const std::shared_ptr<grpc::ClientContext> context = Open(&request);
  if (context == nullptr) {
    return false;
  }
  const auto stub = registry::v1::Registry::NewStub(channel);
  EventReader reader;
  reader.Start(*stub, *context, request);
  WatchEvent event;
  bool any = false;
  Assembly assembly;
  while (reader.Read(event)) {
    const Assembly::Result result = assembly.Add(event);
    if (result == Assembly::Result::kBroken) {
      Log(LogLevel::kError, "control_stream_broken", {{"revision", event.revision()}});
      context->TryCancel();
      while (reader.Read(event)) {
      }
      break;
    }
    if (result == Assembly::Result::kPart) {
      MutexLock lock(mu);
      heard = std::chrono::steady_clock::now();
      continue;
    }
    if (!any) {
      Log(LogLevel::kInfo, "control_stream_open", {{"revision", event.revision()}, {"full", event.has_snapshot()}});
    }
    any = true;
    Take(event);
  }
  const absl::Status status = FromGrpcStatus(reader.Finish());
  bool told = false;
  {
    MutexLock lock(mu);
    call = nullptr;
    open = false;
    told = stopping || (!any && std::exchange(unreachable, true));
    unreachable = !any;
  }
  if (!told) {
    Log(LogLevel::kWarning, "control_stream_ended", {{"error", status}});
  }
  return any;
}

void ControlStream::State::Take(const WatchEvent& event) {
  std::shared_ptr<const RegistrySnapshot> before;
  {
    MutexLock lock(mu);
    heard = std::chrono::steady_clock::now();
    last_contact = clock.Now();
    open = true;
    before = snapshot;
  }
  if (event.has_heartbeat() || event.event_case() == WatchEvent::EVENT_NOT_SET) {
    return;
  }
  // A delta of a history we do not hold cannot be applied; the next Watch is answered with a snapshot.
  if (event.has_delta() && event.store_id() != before->store_id) {
    MutexLock lock(mu);
    if (call != nullptr) {
      call->TryCancel();
    }
    return;
  }
  const ControlUpdate update = Advance(*before, event);
  {
    MutexLock lock(mu);
    snapshot = update.snapshot;
  }
  changed.notify_all();
  Tell(update);
}

void ControlStream::State::Run() {
  Backoff backoff(options.min_backoff, options.max_backoff);
  for (;;) {
    if (Follow()) {
      backoff.Reset();
    }
    if (!Sleep(backoff.Next(RandomUnit()))) {
      return;
    }
  }
}

void ControlStream::State::Watch() {
  const absl::Duration step = std::min(options.silence_limit / 4, absl::Seconds(1));
  while (Sleep(step)) {
    MutexLock lock(mu);
    if (call != nullptr && absl::FromChrono(std::chrono::steady_clock::now() - heard) > options.silence_limit) {
      call->TryCancel();
    }
  }
}

ControlStream::ControlStream(std::shared_ptr<grpc::Channel> registry, const Clock& clock, Options options)
    : state_(std::make_shared<State>(std::move(registry), clock, options)) {}

ControlStream::ControlStream(std::shared_ptr<grpc::Channel> registry, const Clock& clock)
    : ControlStream(std::move(registry), clock, Options()) {}

ControlStream::~ControlStream() { Stop(); }

void ControlStream::AddListener(Listener listener) { state_->listeners.push_back(std::move(listener)); }

absl::Status ControlStream::Seed(absl::string_view exported) {
  WatchEvent event;
  if (!event.ParseFromArray(exported.data(), static_cast<int>(exported.size())) || !event.has_snapshot() ||
      event.store_id().empty()) {
    return absl::InvalidArgumentError("not an exported snapshot");
  }
  const ControlUpdate update = Advance(RegistrySnapshot(), event);
  {
    MutexLock lock(state_->mu);
    state_->snapshot = update.snapshot;
  }
  state_->Tell(update);
  return absl::OkStatus();
}

void ControlStream::Start() {
  state_->thread = std::thread([state = state_.get()] { state->Run(); });
  state_->watchdog = std::thread([state = state_.get()] { state->Watch(); });
}

void ControlStream::Stop() {
  {
    MutexLock lock(state_->mu);
    state_->stopping = true;
    if (state_->call != nullptr) {
      state_->call->TryCancel();
    }
  }
  state_->changed.notify_all();
  for (std::thread* thread : {&state_->thread, &state_->watchdog}) {
    if (thread->joinable()) {
      thread->join();
    }
  }
}

std::shared_ptr<const RegistrySnapshot> ControlStream::snapshot() const {
  MutexLock lock(state_->mu);
  return state_->snapshot;
}

bool ControlStream::has_snapshot() const { return !snapshot()->store_id.empty(); }

bool ControlStream::connected() const {
  MutexLock lock(state_->mu);
  return state_->open &&
         absl::FromChrono(std::chrono::steady_clock::now() - state_->heard) <= state_->options.silence_limit;
}

absl::Time ControlStream::last_contact() const {
  MutexLock lock(state_->mu);
  return state_->last_contact;
}

absl::StatusOr<std::shared_ptr<const RegistrySnapshot>> ControlStream::WaitForServerVersion(
    absl::string_view uid, int64_t version, absl::Duration timeout) const {
  enum class Found { kBehind, kEqual, kAhead };
  std::shared_ptr<const RegistrySnapshot> held;
  Found found = Found::kBehind;
  // Runs under the lock.
  const auto compare = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    held = state_->snapshot;
    const registry::v1::McpServer* server = held->ServerByUid(uid);
    const int64_t ours = server == nullptr ? 0 : server->version();
    const bool deleted = server == nullptr && held->deleted_server_uids.contains(uid);
    found = ours == version && server != nullptr ? Found::kEqual
            : ours > version || deleted          ? Found::kAhead
                                                 : Found::kBehind;
    return found != Found::kBehind;
  };
  state_->WaitUntil(timeout, compare);
  if (found == Found::kEqual) {
    return held;
  }
  if (found == Found::kAhead) {
    return WithReason(absl::AbortedError("the server's configuration has changed: look it up again"), "config_ahead");
  }
  return WithReason(absl::UnavailableError("the server's configuration has not arrived here yet"), "config_behind");
}

bool ControlStream::WaitForSnapshot(absl::Duration timeout) const {
  return state_->WaitUntil(timeout,
                           [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return !state_->snapshot->store_id.empty(); });
}

std::string ExportSnapshot(const RegistrySnapshot& snapshot) {
  WatchEvent event;
  event.set_store_id(snapshot.store_id);
  event.set_revision(snapshot.revision);
  WatchEvent::Snapshot& out = *event.mutable_snapshot();
  for (const auto& [uid, server] : snapshot.servers_by_uid) {
    *out.add_mcp_servers() = *server;
  }
  for (const auto& [uid, app] : snapshot.apps_by_uid) {
    *out.add_apps() = *app;
  }
  for (const auto& [uid, app] : snapshot.ending_apps_by_uid) {
    *out.add_ending_apps() = *app;
  }
  for (const auto& [uid, credential] : snapshot.credentials_by_uid) {
    *out.add_credentials() = *credential;
  }
  return event.SerializeAsString();
}

}  // namespace sallyport

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/open_streams.h"

#include <algorithm>
#include <iterator>

#include "common/metrics.h"
#include "common/text/string_view.h"
#include "sallyport/registry/v1/registry.pb.h"
#include "services/edge/edge_state.h"
#include "services/edge/mcp/connection_name.h"

namespace sallyport::edge {
namespace {

using registry::v1::Invalidation;

constexpr auto kSweepInterval = std::chrono::seconds(1);
constexpr size_t kMostRecent = 512;
// Between the clocks of whoever revoked and ours.
constexpr absl::Duration kClockSkew = absl::Minutes(1);

constexpr std::string_view kRevoked = "stream.revoked";
constexpr std::string_view kServerGone = "stream.server_gone";
constexpr std::string_view kTooOld = "stream.max_age";

OpenStreams::List& ListOf(Worker& worker) { return static_cast<WorkerData*>(worker.context)->streams; }

constexpr CounterInfo kCut = {
    .name = "sallyport_mcp_streams_cut_total",
    .help = "Event streams the gateway ended before their time",
    .unit = "streams",
    .labels = {{"reason", "revoked, server_gone, max_age"}},
    .rise =
        "revoked: callers were revoked, or connections whose tokens the streams carry have ended. server_gone: a "
        "server was deleted or disabled. max_age: streams were four hours old",
    .action = "Nothing, if the revocation or the change was meant; the audit says who made it",
};

prometheus::Counter& CutCounter(std::string_view reason) {
  return MetricCounter(kCut, {{"reason", std::string(reason.substr(reason.find('.') + 1))}});
}

// Replacing an organization's secret ends nobody's access, and the deletion of a server shows in the configuration.
// The tokens of a sign-in are replaced by each new one, which ends nothing: what ends a sign-in is its session or its
// subject.
bool EndsStreams(const Invalidation& invalidation) {
  switch (invalidation.kind()) {
    case Invalidation::TOKEN:
    case Invalidation::SESSION:
    case Invalidation::SUBJECT:
      return true;
    case Invalidation::CONNECTION:
      return !IsOfSignIn(invalidation.key());
    default:
      return false;
  }
}

OpenStreams::Revocations RevocationsOf(const ControlUpdate& update) {
  std::vector<Invalidation> all;
  std::copy_if(update.invalidations.begin(), update.invalidations.end(), std::back_inserter(all), EndsStreams);
  return {update.full, Ended(all)};
}

// A full snapshot repeats the last hour: what is older than the call was known when its caller was verified. Of a
// connection the generation says it.
bool Revokes(const OpenStreams::Revocations& revocations, const McpCall& call) {
  if (call.principal == nullptr) return false;
  const std::optional<absl::Time> at = revocations.ended.Caller(*call.principal);
  if (at.has_value() && (!revocations.full || *at + kClockSkew >= call.started)) return true;
  return call.credentials != nullptr && revocations.ended.Credentials(call.principal->subject, *call.credentials);
}

bool ServerGone(const RegistrySnapshot& snapshot, const McpCall& call) {
  const registry::v1::McpServer* server = snapshot.ServerByUid(ToAbsl(call.entry->uid));
  return server == nullptr || (server->has_enabled() && !server->enabled());
}

void Cut(McpCall& call, std::string_view reason) {
  CutCounter(reason).Increment();
  call.rule = reason;
  call.stream.exchange->Abort();
}

// `why(call)` is the reason to cut it, or empty.
template <typename Why>
void CutWhere(OpenStreams::List& list, const Why& why) {
  for (McpCall* call = list.oldest; call != nullptr;) {
    McpCall* const next = call->stream.next;  // The end of a call takes it off the list.
    if (const std::string_view reason = why(*call); !reason.empty()) Cut(*call, reason);
    call = next;
  }
}

// What every worker is told of an update.
struct News {
  std::shared_ptr<const OpenStreams::Revocations> revocations;
  std::shared_ptr<const RegistrySnapshot> snapshot;
  bool everybody = false;
};

void Tell(OpenStreams::List& list, const News& news) {
  list.snapshot = news.snapshot;
  if (!news.revocations->ended.empty()) {
    ++list.revocations_seen;
    list.recent.push_back(news.revocations);
    if (list.recent.size() > kMostRecent) list.recent.pop_front();
  }
  CutWhere(list, [&](const McpCall& call) {
    if ((news.everybody && call.principal != nullptr) || Revokes(*news.revocations, call)) return kRevoked;
    return ServerGone(*news.snapshot, call) ? kServerGone : std::string_view();
  });
}

}  // namespace

OpenStreams::OpenStreams(const Clock& clock) : clock_(clock) {
  // There from the start, so that the first one is seen as a rise.
  for (const std::string_view reason : {kRevoked, kServerGone, kTooOld}) CutCounter(reason);
}

void OpenStreams::OnWorkerStart(Worker& worker) {
  MutexLock lock(mu_);
  workers_.push_back(&worker);
}

void OpenStreams::OnWorkerStop(Worker& worker) {
  MutexLock lock(mu_);
  std::erase(workers_, &worker);
}

void OpenStreams::OnUpdate(const ControlUpdate& update) {
  MutexLock lock(mu_);
  // A restored store may have forgotten who was revoked.
  const bool everybody = !history_.empty() && !history_.ContinuedBy(*update.snapshot);
  history_ = ConfigHistory::Of(*update.snapshot);
  auto revocations = std::make_shared<const Revocations>(RevocationsOf(update));
  if (!everybody && !update.full && !update.config_changed && revocations->ended.empty()) return;
  const News news = {std::move(revocations), update.snapshot, everybody};
  for (Worker* worker : workers_) {
    worker->Post([worker, news] { Tell(ListOf(*worker), news); });
  }
}

void OpenStreams::Began(Exchange& exchange, McpCall& call) {
  call.revocations_seen = DataOf(exchange).streams.revocations_seen;
}

bool OpenStreams::Opened(Exchange& exchange, McpCall& call) {
  if (call.stream.exchange != nullptr) return true;
  List& list = ListOf(exchange.worker());
  call.stream = {&exchange, clock_.Now(), list.newest, nullptr};
  (list.newest == nullptr ? list.oldest : list.newest->stream.next) = &call;
  list.newest = &call;
  Sweep(exchange.worker(), list);
  // Nobody told this call what happened while its answer was waited for.
  std::string_view reason;
  if (call.principal != nullptr) {
    const uint64_t missed = list.revocations_seen - call.revocations_seen;
    if (missed > list.recent.size()) reason = kRevoked;  // Too long ago to know.
    for (size_t i = list.recent.size() - std::min<uint64_t>(missed, list.recent.size());
         i < list.recent.size() && reason.empty(); ++i) {
      reason = Revokes(*list.recent[i], call) ? kRevoked : std::string_view();
    }
  }
  if (reason.empty() && list.snapshot != nullptr && ServerGone(*list.snapshot, call)) reason = kServerGone;
  if (reason.empty()) return true;
  Cut(call, reason);
  return false;
}

void OpenStreams::Closed(McpCall& call) {
  if (call.stream.exchange == nullptr) return;
  List& list = ListOf(call.stream.exchange->worker());
  (call.stream.previous == nullptr ? list.oldest : call.stream.previous->stream.next) = call.stream.next;
  (call.stream.next == nullptr ? list.newest : call.stream.next->stream.previous) = call.stream.previous;
  call.stream = {};
}

// One task a second while there are streams, not a timer for each.
void OpenStreams::Sweep(Worker& worker, List& list) {
  if (list.sweeping) return;
  list.sweeping = true;
  worker.After(kSweepInterval, [this, &worker, &list] {
    list.sweeping = false;
    const absl::Time now = clock_.Now();
    while (list.oldest != nullptr && now - list.oldest->stream.since >= kMostAge) Cut(*list.oldest, kTooOld);
    if (list.oldest != nullptr) Sweep(worker, list);
  });
}

}  // namespace sallyport::edge

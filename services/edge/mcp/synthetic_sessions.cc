// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/synthetic_sessions.h"

#include <algorithm>
#include <utility>

#include "common/crypto/random.h"
#include "common/text/string_view.h"

namespace sallyport::edge {

std::string SyntheticSessions::Create(std::string_view server_uid, std::string_view subject,
                                      std::string_view initialize_params) {
  if (initialize_params.size() > kMaxParams) return "";
  Session session;
  session.id = RandomToken(ToAbsl(kPrefix), 16);
  session.server_uid = std::string(server_uid);
  session.subject = std::string(subject);
  session.initialize_params = std::string(initialize_params);
  std::string id = session.id;
  Calls calls;
  {
    MutexLock lock(mu_);
    if (by_use_.size() >= kMaxSessions) Remove(by_use_.begin(), calls);
    by_use_.push_back(std::move(session));
    by_id_[id] = std::prev(by_use_.end());
  }
  Make(calls);
  return id;
}

SyntheticSessions::Step SyntheticSessions::Enter(std::string_view id, const SessionIdentity& identity, Caller caller,
                                                 Waker waker) {
  Calls calls;
  Step step;
  {
    MutexLock lock(mu_);
    Session* session = Find(id);
    if (session == nullptr || session->server_uid != identity.server_uid || session->subject != identity.subject) {
      return step;
    }
    by_use_.splice(by_use_.end(), by_use_, by_id_.find(ToAbsl(id))->second);
    // Woken to replay, but its accounts are others by now: that replay is somebody else's.
    if (const auto led = LedBy(*session, caller);
        led != session->replays.end() && (led->connections != identity.connections)) {
      HandOn(*session, led, calls);
    }
    const auto replay = std::find_if(session->replays.begin(), session->replays.end(), [&identity](const Replay& one) {
      return one.connections == identity.connections;
    });
    if (session->replayed && session->connections == identity.connections) {
      step.kind = Step::Kind::kReady;
      step.upstream_id = session->upstream_id;
    } else if (replay == session->replays.end() || replay->leader == caller) {
      if (replay == session->replays.end()) session->replays.push_back({identity.connections, caller, false, {}});
      step.kind = Step::Kind::kReplay;
      step.initialize_params = session->initialize_params;
    } else {
      replay->waiting.push_back({caller, std::move(waker)});
      step.kind = Step::Kind::kWait;
    }
  }
  Make(calls);
  return step;
}

void SyntheticSessions::Replayed(std::string_view id, Caller caller, std::string_view upstream_id) {
  Calls calls;
  {
    MutexLock lock(mu_);
    Session* session = Find(id);
    if (session == nullptr) return;
    const auto replay = LedBy(*session, caller);
    if (replay == session->replays.end()) return;
    session->replayed = true;
    session->connections = replay->connections;
    session->upstream_id = std::string(upstream_id);
    TellAll(*replay, {.kind = Step::Kind::kReady, .upstream_id = session->upstream_id}, calls);
    session->replays.erase(replay);
  }
  Make(calls);
}

void SyntheticSessions::Failed(std::string_view id, Caller caller, std::optional<UpstreamError> error) {
  Calls calls;
  {
    MutexLock lock(mu_);
    Session* session = Find(id);
    if (session == nullptr) return;
    const auto replay = LedBy(*session, caller);
    if (replay == session->replays.end()) return;
    if (!std::exchange(replay->failed_once, true) && !replay->waiting.empty()) {
      HandOn(*session, replay, calls);
    } else {
      TellAll(*replay, {.kind = Step::Kind::kFailed, .error = error}, calls);
      session->replays.erase(replay);
      if (!error.has_value()) Remove(by_id_.find(ToAbsl(id))->second, calls);
    }
  }
  Make(calls);
}

void SyntheticSessions::Leave(std::string_view id, Caller caller) {
  Calls calls;
  {
    MutexLock lock(mu_);
    Session* session = Find(id);
    if (session == nullptr) return;
    for (Replay& replay : session->replays) {
      std::erase_if(replay.waiting, [caller](const Waiting& one) { return one.caller == caller; });
    }
    if (const auto led = LedBy(*session, caller); led != session->replays.end()) HandOn(*session, led, calls);
  }
  Make(calls);
}

void SyntheticSessions::Erase(std::string_view id) {
  Calls calls;
  {
    MutexLock lock(mu_);
    if (const auto found = by_id_.find(ToAbsl(id)); found != by_id_.end()) Remove(found->second, calls);
  }
  Make(calls);
}

void SyntheticSessions::Make(const Calls& calls) {
  for (const Call& call : calls) call.waker(call.step);
}

SyntheticSessions::Session* SyntheticSessions::Find(std::string_view id) {
  const auto found = by_id_.find(ToAbsl(id));
  return found == by_id_.end() ? nullptr : &*found->second;
}

void SyntheticSessions::Remove(Sessions::iterator session, Calls& calls) {
  for (Replay& replay : session->replays) TellAll(replay, {.kind = Step::Kind::kNotFound}, calls);
  by_id_.erase(session->id);
  by_use_.erase(session);
}

std::vector<SyntheticSessions::Replay>::iterator SyntheticSessions::LedBy(Session& session, Caller caller) {
  return std::find_if(session.replays.begin(), session.replays.end(),
                      [caller](const Replay& replay) { return replay.leader == caller; });
}

void SyntheticSessions::TellAll(Replay& replay, const Step& step, Calls& calls) {
  for (Waiting& one : replay.waiting) calls.push_back({std::move(one.waker), step});
  replay.waiting.clear();
}

void SyntheticSessions::HandOn(Session& session, std::vector<Replay>::iterator replay, Calls& calls) {
  if (replay->waiting.empty()) {
    session.replays.erase(replay);
    return;
  }
  Waiting next = std::move(replay->waiting.front());
  replay->waiting.pop_front();
  replay->leader = next.caller;
  calls.push_back({std::move(next.waker), {.kind = Step::Kind::kReplay}});
}

}  // namespace sallyport::edge

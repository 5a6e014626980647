// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"

#include "common/mutex.h"
#include "services/edge/http/gateway.h"

namespace sallyport::edge {

// Whose call it is.
struct SessionIdentity {
  std::string server_uid;
  std::string subject;
  // The accounts its credentials are of, with their generations: what one account opened upstream is not used with
  // another.
  std::string connections;
};

// Legacy sessions the edge opened itself because the user had not linked the account yet. The first call after linking
// replays the client's initialize upstream; from then on this id stands for the upstream's. Calls that come meanwhile
// wait for the one that replays: the upstream sees one initialize, not one for each.
//
// In this process's memory only: another replica answers 404 and the client initializes anew. Bounded; the longest
// unused goes first. Thread-safe.
class SyntheticSessions {
 public:
  static constexpr size_t kMaxSessions = 10'000;
  static constexpr size_t kMaxParams = 2048;

  // How a call goes on.
  struct Step {
    enum class Kind : uint8_t {
      kNotFound,  // This caller has no such session (any more).
      kReady,     // The upstream knows the session as upstream_id; empty if it uses none.
      kReplay,    // It is this call's turn: replay initialize_params, then tell Replayed or Failed.
      kWait,      // Another call is replaying; the waker will be called.
      kFailed,    // Two calls in a row replayed in vain.
    };
    Kind kind = Kind::kNotFound;
    std::string upstream_id;
    std::string initialize_params;  // Raw JSON.
    // kFailed: how the upstream failed; nothing if it answered, but refused.
    std::optional<UpstreamError> error;
  };
  // Called at most once and from any thread; kReady and kReplay mean: Enter again.
  using Waker = std::function<void(const Step&)>;
  // What tells the calls that are there at the same time apart.
  using Caller = const void*;

  static bool IsSynthetic(std::string_view id) { return id.substr(0, kPrefix.size()) == kPrefix; }
  // The new session's id. Nothing is made (empty) if the parameters are too large to be kept.
  std::string Create(std::string_view server_uid, std::string_view subject, std::string_view initialize_params);
  // A caller to whom kReplay or kWait was said must Leave in the end, whatever becomes of its call.
  Step Enter(std::string_view id, const SessionIdentity& identity, Caller caller, Waker waker);
  // The upstream took the replay of `caller`.
  void Replayed(std::string_view id, Caller caller, std::string_view upstream_id);
  // It did not: the next in line tries once; if that was the second in a row, or nobody waits, all are told, and a
  // session that was refused is gone.
  void Failed(std::string_view id, Caller caller, std::optional<UpstreamError> error);
  // The call is over (or its client gone). If it was replaying, the next in line does.
  void Leave(std::string_view id, Caller caller);
  // Whoever waits is told kNotFound.
  void Erase(std::string_view id);

 private:
  static constexpr std::string_view kPrefix = "sallyport-link-";

  struct Waiting {
    Caller caller;
    Waker waker;
  };
  // A replay that is under way with one set of accounts.
  struct Replay {
    std::string connections;
    Caller leader = nullptr;
    bool failed_once = false;
    std::deque<Waiting> waiting;
  };
  struct Session {
    std::string id;
    std::string server_uid;
    std::string subject;
    std::string initialize_params;
    bool replayed = false;
    std::string connections;  // With which it was.
    std::string upstream_id;
    std::vector<Replay> replays;
  };
  // What is to be called once the lock is released.
  struct Call {
    Waker waker;
    Step step;
  };
  using Calls = std::vector<Call>;
  static void Make(const Calls& calls);

  using Sessions = std::list<Session>;
  Session* Find(std::string_view id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Remove(Sessions::iterator session, Calls& calls) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The replay `caller` leads, or end().
  static std::vector<Replay>::iterator LedBy(Session& session, Caller caller);
  static void TellAll(Replay& replay, const Step& step, Calls& calls);
  // The next in line leads; without one the replay is over.
  static void HandOn(Session& session, std::vector<Replay>::iterator replay, Calls& calls);

  Mutex mu_;
  Sessions by_use_ ABSL_GUARDED_BY(mu_);  // Least recently used first.
  absl::flat_hash_map<std::string, Sessions::iterator> by_id_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::edge

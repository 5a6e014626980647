// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

#include "common/clock.h"
#include "common/mutex.h"
#include "services/token_broker/connection.h"
#include "services/token_broker/sources/fetch_lanes.h"
#include "services/token_broker/token_cache.h"

namespace sallyport::token_broker {

// Tokens that are fetched when they are needed, and again when one is lost: nothing depends on keeping them. At most
// one fetch at a time for a key in this process, before the token ends where that can be, with growing pauses while it
// fails. Thread-safe.
class FetchedTokens {
 public:
  using Done = std::function<void(const absl::StatusOr<SharedConnection>&)>;
  // The token, linked, with its times; its version is set here.
  using Fetched = std::function<void(absl::StatusOr<std::shared_ptr<ConnectionView>>)>;
  // Gives the token, once, to what it is called with, on any thread. Must not block.
  using StartFetch = std::function<void(Fetched)>;
  // As StartFetch, in a lane. May block for vault and provider.
  using Fetch = std::function<absl::StatusOr<std::shared_ptr<ConnectionView>>()>;
  static StartFetch InLane(FetchLanes& lanes, std::string lane, Fetch fetch);
  struct Options {
    // Where replicas share tokens; null: nowhere.
    TokenCache* shared = nullptr;
    size_t max_tokens = 50'000;
  };

  // The clock outlives this; nothing that was started may end after it.
  FetchedTokens(const Clock& clock, Options options) : clock_(clock), options_(options) {}

  // A token of `key` that is usable, and not `refused_version` (0: none was refused). `done` runs once: before this
  // returns, or later on the thread that brings the token. `start` runs on the caller's thread. Errors: those of the
  // fetch; while it is not tried again, the last one with retry_after; FAILED_PRECONDITION reason credential_refused if
  // the token that was refused is less than 30 s old and was fetched because one before it was.
  void Get(const std::string& key, int64_t refused_version, const StartFetch& start, Done done);

  // What is here and usable; null if nothing is.
  SharedConnection Usable(const std::string& key, int64_t refused_version);

  size_t size() const;

 private:
  struct Entry {
    SharedConnection token;  // Null: there was none yet.
    bool forced = false;     // Fetched because the one before was refused.
    bool fetching = false;
    std::vector<Done> waiting;
    absl::Status failure;  // Of the last fetch.
    int failures = 0;      // In a row.
    absl::Time retry_at = absl::InfinitePast();
    std::list<std::string>::iterator used;  // Its place in order of use.
  };

  struct Step {
    absl::StatusOr<SharedConnection> answer = SharedConnection();
    bool waits = false;   // The caller is among the waiting; there is no answer yet.
    bool start = false;   // A fetch is to be started...
    bool forced = false;  // ...because what there is was refused.
  };

  bool IsUsable(const Entry& entry, int64_t refused_version, absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Entry& Touch(const std::string& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Step Decide(const std::string& key, int64_t refused_version, Done& done);
  // Nothing fresh is here, and nothing is on its way.
  bool LacksFresh(const std::string& key, int64_t refused_version);
  // Takes what another replica has fetched.
  void TakeShared(const std::string& key, int64_t refused_version);
  void Finish(const std::string& key, bool forced, absl::StatusOr<std::shared_ptr<ConnectionView>> fetched);

  const Clock& clock_;
  const Options options_;
  mutable Mutex mu_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mu_);
  std::list<std::string> order_ ABSL_GUARDED_BY(mu_);  // Least lately used first.
};

}  // namespace sallyport::token_broker

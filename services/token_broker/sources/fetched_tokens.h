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
  // The token, linked, with its times; its version is set here. Runs on a thread of the lanes' runner and may block for
  // vault and provider.
  using Fetch = std::function<absl::StatusOr<std::shared_ptr<ConnectionView>>()>;
  using Done = std::function<void(const absl::StatusOr<SharedConnection>&)>;
  // The same for what is not waited for: gives the token, once, to what it is called with.
  using Fetched = std::function<void(absl::StatusOr<std::shared_ptr<ConnectionView>>)>;
  using StartFetch = std::function<void(Fetched)>;
  struct Options {
    // Where replicas share tokens; null: nowhere.
    TokenCache* shared = nullptr;
    size_t max_tokens = 50'000;
  };

  // Both outlive this; the lanes' runner must be stopped before it goes.
  FetchedTokens(FetchLanes& lanes, const Clock& clock, Options options)
      : lanes_(lanes), clock_(clock), options_(options) {}

  // A token of `key`, fetched in `lane`, that is usable, and not `refused_version` (0: none was refused). `done` runs
  // once: before this returns, or later on a thread of the runner's. Errors: those of `fetch`; while it is not tried
  // again, the last one with retry_after; FAILED_PRECONDITION reason credential_refused if the token that was refused
  // is less than 30 s old and was fetched because one before it was.
  void Get(const std::string& key, const std::string& lane, int64_t refused_version, Fetch fetch, Done done);

  // The same; `start` runs on the caller's thread, and its token may come from any.
  void GetStarted(const std::string& key, int64_t refused_version, const StartFetch& start, Done done);

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
  void Start(const std::string& key, const std::string& lane, bool forced, Fetch fetch);
  void Finish(const std::string& key, bool forced, absl::StatusOr<std::shared_ptr<ConnectionView>> fetched);

  FetchLanes& lanes_;
  const Clock& clock_;
  const Options options_;
  mutable Mutex mu_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mu_);
  std::list<std::string> order_ ABSL_GUARDED_BY(mu_);  // Least lately used first.
};

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"

#include "common/mutex.h"

namespace sallyport::edge {

// Legacy sessions the edge opened itself because the user had not linked the account yet. The first call after linking
// replays the client's initialize upstream and from then on maps this id to the upstream's. In this process's memory
// only: another replica answers 404 and the client initializes anew. Bounded; the longest unused goes first.
// Thread-safe.
class SyntheticSessions {
 public:
  static constexpr size_t kMaxSessions = 10'000;
  static constexpr size_t kMaxParams = 2048;

  struct Session {
    std::string id;
    std::string initialize_params;  // Raw JSON.
    std::string protocol_version;   // As answered.
    uint8_t capabilities = 0;
    bool replayed = false;  // The upstream knows this session; upstream_id may still be empty if it uses none.
    std::string upstream_id;
  };

  static bool IsSynthetic(std::string_view id) { return id.substr(0, kPrefix.size()) == kPrefix; }
  // The new session's id. Nothing is made (empty) if the parameters are too large to be kept.
  std::string Create(std::string_view initialize_params, std::string protocol_version, uint8_t capabilities);
  // A copy, or null.
  std::unique_ptr<Session> Find(std::string_view id);
  void SetReplayed(std::string_view id, std::string upstream_id);
  void Erase(std::string_view id);

 private:
  static constexpr std::string_view kPrefix = "sallyport-link-";
  Mutex mu_;
  std::list<Session> by_use_ ABSL_GUARDED_BY(mu_);  // Least recently used first.
  absl::flat_hash_map<std::string, std::list<Session>::iterator> by_id_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::edge

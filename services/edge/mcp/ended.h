// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"

#include "sallyport/registry/v1/registry.pb.h"

namespace sallyport::edge {

struct CredentialSet;
struct Principal;

// What one update of the control stream ends, by name: one update may end ten thousand sessions, and each caller who is
// known is asked about once, not once for each of them. Immutable.
class Ended {
 public:
  explicit Ended(const std::vector<registry::v1::Invalidation>& invalidations);

  // Nothing is ended.
  bool empty() const;
  // When the admission of this caller was ended, the last time; nothing if it was not. The infinite future where the
  // invalidation does not say.
  std::optional<absl::Time> Caller(const Principal& principal) const;
  // Whether only what was resolved for a caller is ended: a connection that has a newer generation, or a secret.
  bool Credentials(const std::string& subject, const CredentialSet& credentials) const;
  // False: Credentials is false for everybody.
  bool MayEndCredentials() const { return secrets_ || !connections_.empty(); }

 private:
  using Keys = absl::flat_hash_map<std::string, absl::Time>;
  void AddConnection(const registry::v1::Invalidation& invalidation, absl::Time at);

  Keys tokens_;
  Keys sessions_;
  Keys subjects_;
  Keys servers_;
  // By subject and connection ("<app uid>" or "<app uid>/<label>"): generations below this one.
  absl::flat_hash_map<std::string, absl::flat_hash_map<std::string, int64_t>> connections_;
  bool secrets_ = false;
  // An invalidation could not be read: every caller is authenticated again.
  std::optional<absl::Time> everybody_;
};

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#include "services/edge/mcp/ended.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

#include "common/proto_time.h"
#include "services/edge/mcp/credentials.h"
#include "services/edge/mcp/principal_cache.h"

namespace sallyport::edge {

using registry::v1::Invalidation;

Ended::Ended(const std::vector<Invalidation>& invalidations) {
  for (const Invalidation& invalidation : invalidations) {
    const absl::Time at = invalidation.has_at() ? FromTimestamp(invalidation.at()) : absl::InfiniteFuture();
    const auto add = [&](Keys& keys) {
      const auto [entry, added] = keys.try_emplace(invalidation.key(), at);
      if (!added) entry->second = std::max(entry->second, at);
    };
    switch (invalidation.kind()) {
      case Invalidation::TOKEN:
        add(tokens_);
        break;
      case Invalidation::SESSION:
        add(sessions_);
        break;
      case Invalidation::SUBJECT:
        add(subjects_);
        break;
      case Invalidation::SERVER:
        add(servers_);
        break;
      case Invalidation::CONNECTION:
        AddConnection(invalidation, at);
        break;
      case Invalidation::SECRET:
        secrets_ = true;
        break;
      default:
        break;
    }
  }
}

void Ended::AddConnection(const Invalidation& invalidation, absl::Time at) {
  const std::vector<std::string> parts = absl::StrSplit(invalidation.key(), '\n');
  if (parts.size() < 2) {
    everybody_ = std::max(everybody_.value_or(at), at);
    return;
  }
  const std::string name = parts.size() < 3 || parts[2].empty() ? parts[1] : absl::StrCat(parts[1], "/", parts[2]);
  int64_t& below = connections_[parts[0]][name];
  const int64_t generation = invalidation.generation();
  below = std::max(below, generation == 0 ? std::numeric_limits<int64_t>::max() : generation);
}

bool Ended::empty() const {
  return tokens_.empty() && sessions_.empty() && subjects_.empty() && servers_.empty() && !MayEndCredentials() &&
         !everybody_.has_value();
}

std::optional<absl::Time> Ended::Caller(const Principal& principal) const {
  std::optional<absl::Time> at = everybody_;
  const auto look = [&](const Keys& keys, const std::string& key) {
    if (keys.empty()) return;
    const auto found = keys.find(key);
    if (found != keys.end()) at = std::max(at.value_or(found->second), found->second);
  };
  look(tokens_, principal.revocation_key);
  look(sessions_, principal.session_id);
  look(subjects_, principal.subject);
  look(servers_, principal.server_uid);
  return at;
}

bool Ended::Credentials(const std::string& subject, const CredentialSet& credentials) const {
  if (secrets_) return true;
  if (connections_.empty()) return false;
  const auto theirs = connections_.find(subject);
  if (theirs == connections_.end()) return false;
  return std::any_of(credentials.connections.begin(), credentials.connections.end(), [&](const auto& connection) {
    const auto below = theirs->second.find(connection.key);
    return below != theirs->second.end() && connection.generation < below->second;
  });
}

}  // namespace sallyport::edge

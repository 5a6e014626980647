// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

#include "sallyport/token_broker/v1/token_broker.pb.h"
#include "services/edge/http/upstream_target.h"
#include "services/edge/mcp/server_entry.h"

namespace sallyport::edge {

// What the broker resolved for one server and caller, rendered. Immutable but for `dead`. Held in memory only.
struct CredentialSet {
  ~CredentialSet();
  CredentialSet() = default;
  CredentialSet(const CredentialSet&) = delete;
  CredentialSet& operator=(const CredentialSet&) = delete;

  // Complete header lines, each with CRLF, to be appended to an upstream head.
  std::string header_lines;
  std::string query_value;
  // Where the calls go, where that or the client certificate is a secret; null: where the server's entry says.
  std::shared_ptr<const UpstreamTarget> target;
  // Serialized audit.v1.Event fields (credentials), to be appended to a call's event.
  std::string audit_fields;
  absl::Time fetched_at;
  // Not to be used from here on; from renew_at on it is renewed in the background.
  absl::Time valid_until;
  absl::Time renew_at;
  // May still be used until here while the broker does not answer.
  absl::Time outage_until;
  // USER pieces: their connections, for invalidation.
  struct Connection {
    std::string key;  // "<app uid>", "<app uid>/<label>" or "sso:<connector>"
    int64_t generation = 0;
  };
  std::vector<Connection> connections;
  // What can be had anew when the upstream refuses it.
  struct Renewable {
    std::string piece;
    int64_t generation = 0;
    int64_t version = 0;
  };
  std::vector<Renewable> renewables;
  // Every piece is the organization's own: may be shared by all callers of the server.
  bool organization_only = true;
  // Of app authentication, for a forced refresh.
  int64_t generation = 0;
  int64_t version = 0;
  mutable std::atomic<bool> dead{false};
};

// Renders a broker's answer. INTERNAL if a value cannot be a header value (never cleaned, never sent). `secret_target`
// is that of the server's entry; its errors, too.
absl::StatusOr<std::shared_ptr<const CredentialSet>> RenderCredentials(
    const token_broker::v1::ResolveCredentialsResponse& response, absl::Time now,
    SecretTarget* secret_target = nullptr);

}  // namespace sallyport::edge

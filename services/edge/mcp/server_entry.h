// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

#include "common/http/networks.h"
#include "common/mutex.h"
#include "common/rpc/control_stream.h"
#include "sallyport/registry/v1/registry.pb.h"
#include "services/edge/http/header_rules.h"
#include "services/edge/http/upstream_target.h"
#include "services/edge/mcp/config_history.h"
#include "services/edge/mcp/secret_target.h"
#include "services/edge/mcp/server_metrics.h"

namespace sallyport::edge {

// One MCP server's configuration at one version, compiled for the request path. Immutable.
struct ServerEntry : std::enable_shared_from_this<ServerEntry> {
  // Of this compilation, unique in this process: the caches' key. Not (uid, version), which a store restored from a
  // backup gives out anew.
  uint64_t serial = 0;
  std::string uid;
  std::string slug;
  std::string display_name;
  int64_t version = 0;
  bool enabled = true;

  UpstreamTarget target;
  // Where address or client certificate are a secret: makes the target of what was resolved, and `target` cannot be
  // dialled. Null elsewhere.
  std::unique_ptr<SecretTarget> secret_target;
  RequestRules rules;
  uint64_t body_limit = 0;
  std::vector<Network> allowed_client_networks;
  bool audit_required = false;

  // Door one.
  bool interactive = false;
  // Passthrough with Require JWT Validation.
  bool validates_jwt = false;
  bool authenticates() const { return interactive || validates_jwt; }
  // Ready values of WWW-Authenticate: no token sent; token refused.
  std::string challenge;
  std::string challenge_invalid;

  // Door two: what the edge renders itself...
  struct OwnHeader {
    enum class Source : uint8_t { kClaim, kPresentedToken };
    Source source = Source::kClaim;
    std::string name;
    std::string prefix;
    std::string claim;      // kClaim: "sub", "email" or another...
    bool json = false;      // ...and whether as its JSON value.
    std::string piece;      // "outbound_headers[x-user]"
    bool id_token = false;  // kPresentedToken: an ID token is asked for, not an access token.
  };
  std::vector<OwnHeader> own_headers;
  // ...and what the broker resolves, by who calls.
  enum class CallerKind : uint8_t {
    kUnverified,
    kSignedIn,   // With a token of ours.
    kPresented,  // With a verified token of an identity provider.
  };
  struct BrokerNeed {
    bool asked = false;            // There is any piece for them.
    bool per_caller = false;       // Kept with the caller, not for the server.
    bool presented_token = false;  // Needs the caller's token.
  };
  std::array<BrokerNeed, 3> broker_needs;
  const BrokerNeed& NeedOf(CallerKind kind) const { return broker_needs[static_cast<size_t>(kind)]; }
  // The caller's own Authorization goes on, in what form they send it.
  bool app_passthrough = false;
  // An account of the caller's; empty: none is needed.
  std::string app_uid;
  std::string app_slug;
  // Label of the account where a call chooses none.
  std::string account;
  // A credential of the caller's own, the last where there are several; empty: none is needed.
  std::string credential_uid;
  // A query-located API key's parameter name; empty otherwise.
  std::string api_key_query;

  // Serialized audit.v1.Event fields: uid and slug.
  std::string audit_fields;
  std::shared_ptr<ServerMetrics> metrics;
};

// `origin_of_self` is public_url. INVALID_ARGUMENT if the configuration cannot be executed (the registry would not have
// stored it): then the server answers 503 rather than run with a rule missing.
absl::StatusOr<std::shared_ptr<const ServerEntry>> CompileServer(const registry::v1::McpServer& server,
                                                                 const std::string& public_url);

// All servers by slug. Immutable.
struct RouteTable {
  bool loaded = false;  // Before that nothing can be said about any server.
  absl::flat_hash_map<std::string, std::shared_ptr<const ServerEntry>> by_slug;
  absl::flat_hash_map<std::string, std::shared_ptr<const ServerEntry>> by_uid;
  // What it was made of.
  ConfigHistory history;
  absl::flat_hash_map<std::string, RegistrySnapshot::Server> sources_by_uid;
};

// The current table; each worker keeps its own pointer and looks at `generation` once a request.
class Routes {
 public:
  explicit Routes(std::string public_url) : public_url_(std::move(public_url)) {}
  // Compiles what changed; servers with the same content keep their entries (and with them their cached callers and
  // credentials), as long as the store's history goes on. After a restore nothing is kept.
  void Update(const RegistrySnapshot& snapshot);
  std::shared_ptr<const RouteTable> table() const;
  uint64_t generation() const { return generation_.load(std::memory_order_acquire); }

 private:
  const std::string public_url_;
  mutable Mutex mu_;
  std::shared_ptr<const RouteTable> table_ ABSL_GUARDED_BY(mu_) = std::make_shared<RouteTable>();
  std::atomic<uint64_t> generation_{1};
};

}  // namespace sallyport::edge

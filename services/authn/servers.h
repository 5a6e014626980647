// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

#include "common/jose/jwk.h"
#include "common/mutex.h"
#include "common/rpc/control_stream.h"
#include "sallyport/registry/v1/mcp_server.pb.h"
#include "services/authn/access_policy.h"
#include "services/authn/caller_claims.h"

namespace sallyport::authn {

// An MCP server as authn needs it, everything derived once. Immutable.
struct ServerView {
  ServerView(RegistrySnapshot::Server server, const GroupNames& names);

  const RegistrySnapshot::Server config;
  const bool enabled;
  // Interactive agent auth; else Passthrough.
  const bool interactive;
  // Admits nobody unless interactive.
  const AccessPolicy policy;
  // Claims that go upstream.
  const std::set<WantedClaim> claims;
  // The token of the caller's sign-in goes upstream, or is exchanged for one that does.
  const bool forwards_sign_in_token;
  // The token of the caller's sign-in is exchanged for one that goes upstream...
  const bool exchanges_sign_in_token;
  // ...and where the provider asks for consent to that, these scopes name what to.
  const std::vector<std::string> consent_scopes;
  // Parsed jwt_validation.jwks_json; an error if it does not parse (the server then admits nobody).
  const absl::StatusOr<std::shared_ptr<const JwkSet>> inline_jwks;

  const std::string& uid() const { return config->uid(); }
  const std::string& slug() const { return config->slug(); }
  // display_name, or the slug.
  const std::string& name() const { return config->display_name().empty() ? config->slug() : config->display_name(); }
  // App that every user must have linked (OAuth authorization), or "".
  const std::string& app_uid() const;
  // Its users must link an account or enter a credential of their own: /connect/<server> is for them.
  bool needs_connecting() const;
};

// Servers of the control stream. Thread-safe.
class Servers {
 public:
  // Both outlive this.
  Servers(const ControlStream& stream, const RolePolicy& roles, GroupNames names)
      : stream_(stream), roles_(roles), names_(std::move(names)) {}

  bool ready() const { return stream_.has_snapshot(); }
  // The server at exactly that version; waits up to 1 s. UNAVAILABLE config_behind, ABORTED config_ahead.
  absl::StatusOr<std::shared_ptr<const ServerView>> AtVersion(absl::string_view uid, int64_t version) const;
  // As last heard; null if there is none or it is disabled.
  std::shared_ptr<const ServerView> FindBySlug(absl::string_view slug) const;
  std::shared_ptr<const ServerView> FindByUid(absl::string_view uid) const;
  // Enabled servers that people sign in to, by slug.
  std::vector<std::shared_ptr<const ServerView>> Interactive() const;
  // Enabled servers whose users link that app.
  std::vector<std::shared_ptr<const ServerView>> OfApp(absl::string_view app_uid) const;
  // App uid of a slug, or "". Apps that were deleted have none, even while their tokens are being revoked.
  std::string AppUid(absl::string_view app_slug) const;
  // Server uid of a slug, whether it is enabled or not; or "".
  std::string UidOf(absl::string_view slug) const;
  // What a server is called, enabled or not; its uid in place of both if it is gone.
  struct Names {
    std::string slug;
    std::string display_name;
  };
  Names NamesOf(const std::string& uid) const;

  // Groups of `identity` that some server or role names, as "<connector>:<group>": what passports and answers carry.
  std::vector<std::string> NamedGroups(const Identity& identity) const;

 private:
  std::shared_ptr<const ServerView> View(const RegistrySnapshot::Server& server) const;

  const ControlStream& stream_;
  const RolePolicy& roles_;
  const GroupNames names_;
  mutable Mutex mu_;
  mutable absl::flat_hash_map<std::string, std::shared_ptr<const ServerView>> views_ ABSL_GUARDED_BY(mu_);
  mutable std::shared_ptr<const RegistrySnapshot> groups_of_ ABSL_GUARDED_BY(mu_);
  mutable std::shared_ptr<const std::set<std::string>> groups_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sallyport::authn

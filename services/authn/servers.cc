// SPDX-License-Identifier: Apache-2.0
#include "services/authn/servers.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/str_join.h"

#include "common/json_log.h"
#include "common/status_macros.h"
#include "services/authn/errors.h"

namespace sallyport::authn {
namespace {

constexpr absl::Duration kVersionWait = absl::Seconds(1);

using Piece = registry::v1::CredentialPlan::Piece;

bool IsExchangeOfSignIn(const Piece& piece) {
  return piece.callers() == registry::v1::CredentialPlan::SIGNED_IN && piece.has_exchanged_token();
}

bool ForwardsSignInToken(const registry::v1::CredentialPlan& plan) {
  return std::any_of(plan.pieces().begin(), plan.pieces().end(), [](const Piece& piece) {
    // One for another audience stands for all callers, and only a sign-in brings it.
    return piece.has_sign_in_token() || IsExchangeOfSignIn(piece);
  });
}

bool ExchangesSignInToken(const registry::v1::CredentialPlan& plan) {
  return std::any_of(plan.pieces().begin(), plan.pieces().end(), IsExchangeOfSignIn);
}

// Of on-behalf-of as Microsoft Entra has it, where the provider of the sign-in is that of the exchange. In order, each
// once. A provider of another exchange (RFC 8693) may not know the scopes of that.
std::vector<std::string> ConsentScopes(const registry::v1::CredentialPlan& plan) {
  std::vector<std::string> scopes;
  for (const Piece& piece : plan.pieces()) {
    if (!IsExchangeOfSignIn(piece) ||
        piece.exchanged_token().style() != registry::v1::CredentialPlan::ExchangedToken::ENTRA_OBO) {
      continue;
    }
    for (const std::string& scope : piece.exchanged_token().scopes()) {
      if (std::find(scopes.begin(), scopes.end(), scope) == scopes.end()) {
        scopes.push_back(scope);
      }
    }
  }
  return scopes;
}

// Of the account that its users must have linked; "" if none.
const std::string& AppUidOf(const registry::v1::McpServer& server) {
  for (const Piece& piece : server.credential_plan().pieces()) {
    if (piece.has_user_connection()) {
      return piece.user_connection().app_uid();
    }
  }
  return Piece::default_instance().user_connection().app_uid();
}

absl::StatusOr<std::shared_ptr<const JwkSet>> InlineJwks(const registry::v1::McpServer& server) {
  const std::string& json = server.agent_auth().passthrough().jwt_validation().jwks_json();
  if (json.empty()) {
    return absl::FailedPreconditionError("the server has no jwks_json");
  }
  ASSIGN_OR_RETURN(JwkSet set, JwkSet::Parse(json));
  return std::make_shared<const JwkSet>(std::move(set));
}

}  // namespace

ServerView::ServerView(RegistrySnapshot::Server server, const GroupNames& names)
    : config(std::move(server)),
      enabled(!config->has_enabled() || config->enabled()),
      interactive(config->agent_auth().has_interactive()),
      policy(config->agent_auth().interactive().allow(), names),
      claims(WantedClaims(config->credential_plan())),
      forwards_sign_in_token(ForwardsSignInToken(config->credential_plan())),
      exchanges_sign_in_token(ExchangesSignInToken(config->credential_plan())),
      consent_scopes(ConsentScopes(config->credential_plan())),
      inline_jwks(InlineJwks(*config)) {}

const std::string& ServerView::app_uid() const { return AppUidOf(*config); }

bool ServerView::needs_connecting() const {
  const auto& pieces = config->credential_plan().pieces();
  return std::any_of(pieces.begin(), pieces.end(), [](const Piece& piece) {
    return piece.has_user_connection() ||
           piece.stored_credential().match() == registry::v1::CredentialPlan::StoredCredential::PER_USER;
  });
}

std::shared_ptr<const ServerView> Servers::View(const RegistrySnapshot::Server& server) const {
  {
    MutexLock lock(mu_);
    auto it = views_.find(server->uid());
    if (it != views_.end() && it->second->config == server) {
      return it->second;
    }
  }
  // Parsing keys under the lock would hold up every other caller; two threads may do it twice.
  auto view = std::make_shared<const ServerView>(server, names_);
  if (const auto& ambiguous = view->policy.ambiguous_groups(); !ambiguous.empty()) {
    // Saved while there was one connector that gives groups. Saving again asks which one is meant.
    Log(LogLevel::kWarning, "groups_admit_nobody",
        {{"server", server->slug()},
         {"groups", absl::StrJoin(ambiguous, ", ")},
         {"remedy", "several connectors can give groups: write <connector>:<group>"}});
  }
  MutexLock lock(mu_);
  auto& slot = views_[server->uid()];
  if (slot == nullptr || slot->config->version() <= server->version()) {
    slot = view;
  }
  return view;
}

absl::StatusOr<std::shared_ptr<const ServerView>> Servers::AtVersion(absl::string_view uid, int64_t version) const {
  ASSIGN_OR_RETURN(auto snapshot, stream_.WaitForServerVersion(uid, version, kVersionWait));
  auto it = snapshot->servers_by_uid.find(std::string(uid));
  if (it == snapshot->servers_by_uid.end()) {
    return NoSuchServer();
  }
  return View(it->second);
}

std::shared_ptr<const ServerView> Servers::FindBySlug(absl::string_view slug) const {
  auto snapshot = stream_.snapshot();
  auto it = snapshot->servers_by_slug.find(std::string(slug));
  auto view = it == snapshot->servers_by_slug.end() ? nullptr : View(it->second);
  return view != nullptr && view->enabled ? view : nullptr;
}

std::shared_ptr<const ServerView> Servers::FindByUid(absl::string_view uid) const {
  auto snapshot = stream_.snapshot();
  auto it = snapshot->servers_by_uid.find(std::string(uid));
  auto view = it == snapshot->servers_by_uid.end() ? nullptr : View(it->second);
  return view != nullptr && view->enabled ? view : nullptr;
}

std::vector<std::shared_ptr<const ServerView>> Servers::Interactive() const {
  auto snapshot = stream_.snapshot();
  std::map<std::string, std::shared_ptr<const ServerView>> by_slug;
  for (const auto& [slug, server] : snapshot->servers_by_slug) {
    if (!server->agent_auth().has_interactive()) {
      continue;
    }
    if (auto view = View(server); view->enabled) {
      by_slug.emplace(slug, std::move(view));
    }
  }
  std::vector<std::shared_ptr<const ServerView>> servers;
  servers.reserve(by_slug.size());
  for (auto& [slug, view] : by_slug) {
    servers.push_back(std::move(view));
  }
  return servers;
}

std::vector<std::shared_ptr<const ServerView>> Servers::OfApp(absl::string_view app_uid) const {
  std::vector<std::shared_ptr<const ServerView>> servers;
  if (app_uid.empty()) {
    return servers;
  }
  auto snapshot = stream_.snapshot();
  for (const auto& [uid, server] : snapshot->servers_by_uid) {
    if (AppUidOf(*server) != app_uid) {
      continue;
    }
    auto view = View(server);
    if (view->enabled) {
      servers.push_back(std::move(view));
    }
  }
  return servers;
}

std::string Servers::AppUid(absl::string_view app_slug) const {
  auto snapshot = stream_.snapshot();
  const registry::v1::App* app = snapshot->AppBySlug(app_slug);
  return app == nullptr ? "" : app->uid();
}

std::string Servers::UidOf(absl::string_view slug) const {
  auto snapshot = stream_.snapshot();
  const registry::v1::McpServer* server = snapshot->ServerBySlug(slug);
  return server == nullptr ? "" : server->uid();
}

Servers::Names Servers::NamesOf(const std::string& uid) const {
  auto snapshot = stream_.snapshot();
  const registry::v1::McpServer* server = snapshot->ServerByUid(uid);
  if (server == nullptr) {
    return {uid, uid};
  }
  return {server->slug(), server->display_name().empty() ? server->slug() : server->display_name()};
}

std::vector<std::string> Servers::NamedGroups(const Identity& identity) const {
  auto snapshot = stream_.snapshot();
  std::shared_ptr<const std::set<std::string>> named;
  {
    MutexLock lock(mu_);
    if (groups_of_ != snapshot) {
      auto fresh = std::make_shared<std::set<std::string>>(roles_.groups());
      for (const auto& [uid, server] : snapshot->servers_by_uid) {
        for (const std::string& name : server->agent_auth().interactive().allow().groups()) {
          if (std::optional<std::string> group = names_.Qualify(name); group.has_value()) {
            fresh->insert(*std::move(group));
          }
        }
      }
      groups_ = std::move(fresh);
      groups_of_ = snapshot;
      absl::erase_if(views_, [&](const auto& view) { return !snapshot->servers_by_uid.contains(view.first); });
    }
    named = groups_;
  }
  std::vector<std::string> groups = QualifiedGroups(identity);
  groups.erase(std::remove_if(groups.begin(), groups.end(),
                              [&named](const std::string& group) { return !named->contains(group); }),
               groups.end());
  return groups;
}

}  // namespace sallyport::authn

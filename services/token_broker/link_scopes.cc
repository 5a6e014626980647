// SPDX-License-Identifier: Apache-2.0
#include "services/token_broker/link_scopes.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

#include "common/http/url.h"

namespace sallyport::token_broker {
namespace {

template <typename Scopes>
void AddNew(const Scopes& scopes, std::vector<std::string>* all) {
  for (const std::string& scope : scopes) {
    if (std::find(all->begin(), all->end(), scope) == all->end()) {
      all->push_back(scope);
    }
  }
}

}  // namespace

const UserConnection* AccountOf(const registry::v1::McpServer& server) {
  for (const auto& piece : server.credential_plan().pieces()) {
    if (piece.has_user_connection()) {
      return &piece.user_connection();
    }
  }
  return nullptr;
}

std::string AccountParameter(const registry::v1::McpServer& server, const std::string& label) {
  const UserConnection* account = AccountOf(server);
  return label == (account == nullptr ? "" : account->label()) ? "" : absl::StrCat("account=", PercentEncode(label));
}

std::vector<std::string> NeededScopes(const registry::v1::App& app, const UserConnection& account) {
  std::vector<std::string> scopes;
  AddNew(app.default_scopes(), &scopes);
  AddNew(account.scopes(), &scopes);
  return scopes;
}

std::vector<std::string> ScopesToAsk(const registry::v1::App& app, const RegistrySnapshot& snapshot,
                                     const std::vector<std::string>& server_uids) {
  std::vector<std::string> scopes;
  AddNew(app.default_scopes(), &scopes);
  for (const std::string& uid : server_uids) {
    const registry::v1::McpServer* server = snapshot.ServerByUid(uid);
    const bool enabled = server != nullptr && (!server->has_enabled() || server->enabled());
    const UserConnection* account = enabled ? AccountOf(*server) : nullptr;
    if (account != nullptr && account->app_uid() == app.uid()) {
      AddNew(account->scopes(), &scopes);
    }
  }
  return scopes;
}

std::vector<std::string> WithScopes(std::vector<std::string> scopes, const std::vector<std::string>& more) {
  AddNew(more, &scopes);
  return scopes;
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "common/rpc/control_stream.h"
#include "sallyport/registry/v1/mcp_server.pb.h"

namespace sallyport::token_broker {

using UserConnection = registry::v1::CredentialPlan::UserConnection;

// The account that a server's callers must have; null if it needs none.
const UserConnection* AccountOf(const registry::v1::McpServer& server);

// What leads a page of the server to the account of this label: "account=<label>", or nothing where that is the
// server's own choice.
std::string AccountParameter(const registry::v1::McpServer& server, const std::string& label);

// What a server needs of an app: the app's default scopes and the server's own. Without duplicates, in order.
std::vector<std::string> NeededScopes(const registry::v1::App& app, const UserConnection& account);

// What a link asks for: the union over those of `server_uids` that are enabled and use this app.
std::vector<std::string> ScopesToAsk(const registry::v1::App& app, const RegistrySnapshot& snapshot,
                                     const std::vector<std::string>& server_uids);

// `scopes` and those of `more` that are not among them.
std::vector<std::string> WithScopes(std::vector<std::string> scopes, const std::vector<std::string>& more);

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "sallyport/registry/v1/mcp_server.pb.h"

namespace sallyport::token_broker {

// What people call an app and a server. They are two things: an account is the app's.
inline std::string NameOf(const registry::v1::App& app) {
  return app.display_name().empty() ? app.slug() : app.display_name();
}
inline std::string NameOf(const registry::v1::McpServer& server) {
  return server.display_name().empty() ? server.slug() : server.display_name();
}

inline std::string NameOf(const registry::v1::Credential& credential) {
  return credential.display_name().empty() ? credential.slug() : credential.display_name();
}

// 'GitHub account', or with its label: 'GitHub account "work"'.
inline std::string AccountInWords(const registry::v1::App& app, const std::string& label) {
  return NameOf(app) + " account" + (label.empty() ? "" : " \"" + label + "\"");
}

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>

#include "common/caller/passport.h"
#include "common/rpc/control_stream.h"
#include "sallyport/registry/v1/mcp_server.pb.h"
#include "sallyport/web/v1/web.pb.h"
#include "services/token_broker/platform/platform_link.h"

namespace sallyport::token_broker {

// One request to a page of the broker, as far as it is understood: by somebody who is signed in.
struct PageVisit {
  const web::v1::WebRequest* request = nullptr;
  Passport passport;
  std::map<std::string, std::string> fields;  // Of the query, or of the form.
  std::shared_ptr<const RegistrySnapshot> snapshot;
  const registry::v1::McpServer* server = nullptr;
  // What the page is about: an app, or a credential of the caller's own.
  const registry::v1::App* app = nullptr;
  const registry::v1::Credential* credential = nullptr;
  // Label of the account of `app`; empty: the default one.
  std::string account;
  std::string txn;
  // Allowed by the server's policy, or by the platform's configuration; empty: nowhere.
  std::string return_to;
  // Of the platform that made the link for this user, once its ticket has been checked; empty: none did.
  PlatformLink by_platform = {};

  bool is_post() const { return request->method() == "POST"; }
  // Empty if there is none.
  std::string Field(const std::string& name) const {
    const auto found = fields.find(name);
    return found == fields.end() ? "" : found->second;
  }
};

}  // namespace sallyport::token_broker

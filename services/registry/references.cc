// SPDX-License-Identifier: Apache-2.0
#include "services/registry/references.h"

#include "services/registry/resource.h"

namespace sallyport::registry {

void ForEachReference(v1::McpServer& server, const std::function<void(const Reference&)>& visit) {
  if (server.app_auth().has_oauth_authorization()) {
    auto* oauth = server.mutable_app_auth()->mutable_oauth_authorization();
    visit({ResourceTraits<v1::App>::kKind, oauth->app(), oauth->mutable_app_uid()});
  }
  for (v1::OutboundHeader& header : *server.mutable_outbound_headers()) {
    if (!header.has_stored_credential()) continue;
    auto* stored = header.mutable_stored_credential();
    visit({ResourceTraits<v1::Credential>::kKind, stored->credential(), stored->mutable_credential_uid()});
  }
}

}  // namespace sallyport::registry

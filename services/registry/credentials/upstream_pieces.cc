// SPDX-License-Identifier: Apache-2.0
#include "services/registry/credentials/types.h"

namespace sallyport::registry {

void LowerUpstream(const v1::McpServer& server, Plan& plan) {
  const auto add = [&](const char* id, Plan::Location location, const common::v1::Secret& secret) {
    Plan::Piece& piece = AddPiece({server, "", id, "", ""}, Plan::ORG, plan);
    piece.set_location(location);
    Refer(secret, piece.mutable_stored_secret());
  };
  if (server.has_secret_upstream_url()) add("upstream_url", Plan::URL, server.secret_upstream_url());
  const common::v1::Secret& certificate = server.policy().tls().client_cert();
  // One that is being given counts, too: what is saved is checked before the vault has it.
  if (certificate.set() || certificate.has_value()) add("tls", Plan::CLIENT_CERTIFICATE, certificate);
}

}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
// Authn: who is calling. See README.md.
#include "common/service_main.h"
#include "common/status_macros.h"
#include "services/authn/authn_server.h"

namespace {

using sallyport::Clock;
using sallyport::RunningService;
using sallyport::config::v1::AuthnConfig;

absl::StatusOr<std::unique_ptr<RunningService>> Start(const AuthnConfig& config, const Clock& clock) {
  const sallyport::TlsFiles tls = sallyport::TlsFilesFrom(config.server().tls());
  sallyport::authn::AuthnPeers peers;
  ASSIGN_OR_RETURN(peers.registry, sallyport::MakeChannel(config.peers().registry(), tls, "registry"));
  ASSIGN_OR_RETURN(peers.vault, sallyport::MakeChannel(config.peers().vault(), tls, "vault"));
  ASSIGN_OR_RETURN(peers.token_broker, sallyport::MakeChannel(config.peers().token_broker(), tls, "token_broker"));
  return sallyport::authn::AuthnServer::Start(config, clock, std::move(peers));
}

}  // namespace

int main(int argc, char** argv) {
  return sallyport::RunService<AuthnConfig>(argc, argv, "authn", sallyport::authn::ValidateSplitConfig, Start);
}

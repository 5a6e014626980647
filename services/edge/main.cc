// SPDX-License-Identifier: Apache-2.0
// Edge: the only public port; both doors, header rules, streaming. See README.md.
#include "common/status_macros.h"
#include "services/edge/edge_server.h"

namespace {

using sallyport::Clock;
using sallyport::RunningService;
using sallyport::config::v1::EdgeConfig;

absl::StatusOr<std::unique_ptr<RunningService>> Start(const EdgeConfig& config, const Clock& clock) {
  const sallyport::TlsFiles tls = sallyport::TlsFilesFrom(config.server().tls());
  sallyport::edge::EdgePeers peers;
  ASSIGN_OR_RETURN(peers.authn, sallyport::MakeChannel(config.peers().authn(), tls, "authn"));
  ASSIGN_OR_RETURN(peers.token_broker, sallyport::MakeChannel(config.peers().token_broker(), tls, "token_broker"));
  ASSIGN_OR_RETURN(peers.vault, sallyport::MakeChannel(config.peers().vault(), tls, "vault"));
  ASSIGN_OR_RETURN(peers.registry, sallyport::MakeChannel(config.peers().registry(), tls, "registry"));
  return sallyport::edge::EdgeServer::Start(config, clock, std::move(peers));
}

}  // namespace

int main(int argc, char** argv) {
  return sallyport::RunService<EdgeConfig>(argc, argv, "edge", sallyport::edge::ValidateSplitConfig, Start);
}

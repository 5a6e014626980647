// SPDX-License-Identifier: Apache-2.0
// Registry: MCP servers, apps and credentials, the control stream, the audit store. See README.md.
#include "common/service_main.h"
#include "common/status_macros.h"
#include "services/registry/registry_server.h"

namespace {

using sallyport::Clock;
using sallyport::RunningService;
using sallyport::config::v1::RegistryConfig;

absl::StatusOr<std::unique_ptr<RunningService>> Start(const RegistryConfig& config, const Clock& clock) {
  const sallyport::TlsFiles tls = sallyport::TlsFilesFrom(config.server().tls());
  sallyport::registry::RegistryPeers peers;
  ASSIGN_OR_RETURN(peers.vault, sallyport::MakeChannel(config.peers().vault(), tls, "vault"));
  ASSIGN_OR_RETURN(peers.authn, sallyport::MakeChannel(config.peers().authn(), tls, "authn"));
  return sallyport::registry::RegistryServer::Start(config, clock, std::move(peers));
}

}  // namespace

int main(int argc, char** argv) {
  return sallyport::RunService<RegistryConfig>(argc, argv, "registry", sallyport::registry::ValidateSplitConfig, Start);
}

// SPDX-License-Identifier: Apache-2.0
// Vault: keeps credentials encrypted at rest. See README.md.
#include "services/vault/vault_server.h"

int main(int argc, char** argv) {
  return sallyport::RunService<sallyport::config::v1::VaultConfig>(
      argc, argv, "vault", sallyport::vault::ValidateSplitConfig, sallyport::vault::StartVault);
}

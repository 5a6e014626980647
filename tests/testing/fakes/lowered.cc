// SPDX-License-Identifier: Apache-2.0
#include "tests/testing/fakes/lowered.h"

#include "services/registry/credentials/credentials.h"

namespace sallyport::testing {

registry::v1::McpServer Lowered(registry::v1::McpServer server) {
  *server.mutable_credential_plan() = registry::LowerCredentials(server);
  return server;
}

}  // namespace sallyport::testing

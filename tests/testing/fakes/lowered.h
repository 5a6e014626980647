// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "sallyport/registry/v1/registry.pb.h"

namespace sallyport::testing {

// The server as the registry streams it: with its plan.
registry::v1::McpServer Lowered(registry::v1::McpServer server);

}  // namespace sallyport::testing

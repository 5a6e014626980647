// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

#include "sallyport/registry/v1/mcp_server.pb.h"
#include "services/registry/validation.h"

namespace sallyport::registry {

// Writes every allow.groups of a server that is to be saved as "<connector>:<group>". A name without ':' is shorthand,
// and stands for the group of the one connector that can give groups. Refused, with the ways to write it: a shorthand
// while there are several such connectors, none, or authn does not say (`connectors` absent); an unknown connector.
void QualifyGroups(const std::optional<Connectors>& connectors, v1::McpServer& server, Findings& findings);

// The same for a server that is stored, possibly by a release that kept shorthand: what cannot be told stays as it is.
void QualifyStoredGroups(const std::optional<Connectors>& connectors, v1::McpServer& server);

}  // namespace sallyport::registry

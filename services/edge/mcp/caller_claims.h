// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "sallyport/authn/v1/authn.pb.h"
#include "services/edge/mcp/principal_cache.h"
#include "services/edge/mcp/server_entry.h"

namespace sallyport::edge {

// Writes the header of a caller_identity rule to the principal's header_lines, or why it cannot be into claim_refusal
// (the first refusal stays). A claim is sent whole or the call fails: never without it, never a part of it.
void AppendCallerClaim(const ServerEntry::OwnHeader& header, const authn::v1::Principal& verified,
                       Principal& principal);

}  // namespace sallyport::edge

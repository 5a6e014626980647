// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "services/edge/edge_options.h"
#include "services/edge/http/gateway.h"

namespace sallyport::edge {

// Does a browser ask for a page (Fetch Metadata, Sec-Fetch-Mode)? No MCP client does; a page's own calls have other
// modes.
bool IsNavigation(const RequestHead& head);

// Answers a navigation to /mcp/<server> (406): what the address is for, and how to connect a client to it. The same for
// every address, so that it does not tell which servers there are.
void RespondClientPage(Exchange& exchange, const SiteOptions& site);

}  // namespace sallyport::edge

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "sallyport/registry/v1/mcp_server.pb.h"

namespace sallyport::token_broker {

// Whether a browser may be led there: an address of one of `origins`, which are as Url::origin() writes them.
bool IsAddressOf(const std::vector<std::string>& origins, const std::string& address);

// The same once an account is connected: of one of the origins that the server's policy names, as an administrator
// wrote them. Anything else would make this gateway a redirector for everybody.
bool MayReturnTo(const registry::v1::McpServer& server, const std::string& address);

}  // namespace sallyport::token_broker

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"

#include "sallyport/registry/v1/mcp_server.pb.h"
#include "services/registry/findings.h"
#include "services/registry/urls.h"

namespace sallyport::registry {

// `policy.tls`: that the upstream is one of https, and what is given now of authorities and of the client certificate.
// Findings hold nothing of either.
void ValidateTls(const v1::McpServer& server, const ResourceUrls& urls, absl::Time now, Findings& findings);

}  // namespace sallyport::registry

// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "sallyport/registry/v1/registry.pb.h"
#include "services/registry/findings.h"
#include "services/registry/urls.h"
#include "services/registry/validation.h"

namespace sallyport::registry {

// App authentication and outbound headers of a server: each by itself, and that no two write the same.
void ValidateCredentials(const v1::McpServer& server, const ResourceUrls& urls, const ValidationContext& context,
                         Findings& findings);

// What goes upstream with its calls. Pure.
v1::CredentialPlan LowerCredentials(const v1::McpServer& server);

// Gives every server of an event of the control stream its plan.
void LowerServers(v1::WatchEvent& event);

}  // namespace sallyport::registry

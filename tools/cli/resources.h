// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

#include "tools/cli/api_client.h"

namespace sallyport::cli {

enum class ResourceKind { kServer, kApp, kCredential };
enum class Output { kDefault, kYaml, kJson };

// One resource (YAML unless said otherwise), or all of a kind when `slug` is empty (a table unless said otherwise).
// YAML has the form of the file `apply -f` reads.
absl::Status GetResources(ApiClient& api, ResourceKind kind, const std::string& slug, Output output,
                          const Terminal& terminal);
// Says what it means for users and callers. A dry run deletes nothing.
absl::Status DeleteResource(ApiClient& api, ResourceKind kind, const std::string& slug, bool dry_run,
                            const Terminal& terminal);

}  // namespace sallyport::cli

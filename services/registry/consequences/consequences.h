// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <vector>

#include "absl/strings/string_view.h"

#include "sallyport/registry/v1/registry.pb.h"
#include "services/registry/consequences/user_counts.h"

// What a change means for those who use the gateway already: whose calls break, and how many users must connect again.
// Not a table of types: the old and the new plan and door are compared.
namespace sallyport::registry {

using Consequences = std::vector<v1::Consequence>;

// What else there is, as it will be after the write.
struct Neighbours {
  // By uid; nullptr if there is none.
  std::function<const v1::App*(absl::string_view uid)> app;
  std::function<const v1::Credential*(absl::string_view uid)> credential;
  std::vector<const v1::McpServer*> servers;
};

Consequences ConsequencesOf(const v1::McpServer& before, const v1::McpServer& after, const Neighbours& neighbours,
                            UserCounts& counts);
Consequences ConsequencesOf(const v1::App& before, const v1::App& after, const Neighbours& neighbours,
                            UserCounts& counts);
Consequences ConsequencesOf(const v1::Credential& before, const v1::Credential& after, const Neighbours& neighbours,
                            UserCounts& counts);

Consequences ConsequencesOfDeleting(const v1::McpServer& server, const Neighbours& neighbours, UserCounts& counts);
Consequences ConsequencesOfDeleting(const v1::App& app, const Neighbours& neighbours, UserCounts& counts);
Consequences ConsequencesOfDeleting(const v1::Credential& credential, const Neighbours& neighbours, UserCounts& counts);

}  // namespace sallyport::registry

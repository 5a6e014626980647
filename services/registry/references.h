// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "absl/strings/string_view.h"

#include "sallyport/registry/v1/mcp_server.pb.h"

namespace sallyport::registry {

// Another resource that a server names: people write its slug, everything else goes by its uid.
struct Reference {
  absl::string_view kind;  // ResourceTraits<…>::kKind.
  const std::string& slug;
  std::string* uid;
};
void ForEachReference(v1::McpServer& server, const std::function<void(const Reference&)>& visit);

}  // namespace sallyport::registry
